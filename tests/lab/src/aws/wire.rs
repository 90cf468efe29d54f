//! How AWS words its answers: the XML of the Query protocol, and of S3.

use axum::body::Body;
use axum::http::{HeaderValue, Response};
use chrono::{DateTime, SecondsFormat, Utc};

use crate::xml::escape;
use crate::{chance, http};

pub(crate) const IAM_NS: &str = "https://iam.amazonaws.com/doc/2010-05-08/";
pub(crate) const STS_NS: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
const S3_NS: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// Which dialect an answer is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Iam,
    Sts,
    S3,
}

/// What became of one call, before it is worded.
pub(crate) struct Outcome {
    pub(crate) status: u16,
    /// The XML inside the envelope; for an error, code and message.
    pub(crate) content: Content,
    pub(crate) executed: bool,
    /// The user or bucket it was about.
    pub(crate) target: String,
}

pub(crate) enum Content {
    /// `<{0}Response><{0}Result>{1}</{0}Result>…`
    Result(&'static str, String),
    /// `<{0}Response>` without a result.
    Done(&'static str),
    /// A whole S3 document: its root's name and its content.
    Document(&'static str, String),
    Error(&'static str, String),
}

impl Outcome {
    pub(crate) fn error(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, content: Content::Error(code, message.into()), executed: false, target: String::new() }
    }

    pub(crate) fn result(action: &'static str, xml: String) -> Self {
        Self { status: 200, content: Content::Result(action, xml), executed: true, target: String::new() }
    }

    pub(crate) fn done(action: &'static str) -> Self {
        Self { status: 200, content: Content::Done(action), executed: true, target: String::new() }
    }

    pub(crate) fn about(mut self, target: &str) -> Self {
        self.target = target.to_owned();
        self
    }

    pub(crate) fn into_response(self, dialect: Dialect, head: bool) -> Response<Body> {
        let request_id = chance::request_id();
        let ns = if dialect == Dialect::Sts { STS_NS } else { IAM_NS };
        let metadata = format!("<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>");
        let xml = match self.content {
            Content::Result(action, xml) => format!(
                "<{action}Response xmlns=\"{ns}\"><{action}Result>{xml}</{action}Result>{metadata}</{action}Response>"
            ),
            Content::Done(action) => format!("<{action}Response xmlns=\"{ns}\">{metadata}</{action}Response>"),
            Content::Document(root, xml) => {
                format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{root} xmlns=\"{S3_NS}\">{xml}</{root}>")
            }
            Content::Error(code, message) if dialect == Dialect::S3 => format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{}</Message>\
                 <RequestId>{request_id}</RequestId><HostId>lab</HostId></Error>",
                escape(&message)
            ),
            Content::Error(code, message) => {
                let side = if self.status >= 500 { "Receiver" } else { "Sender" };
                format!(
                    "<ErrorResponse xmlns=\"{ns}\"><Error><Type>{side}</Type><Code>{code}</Code><Message>{}</Message></Error>\
                     <RequestId>{request_id}</RequestId></ErrorResponse>",
                    escape(&message)
                )
            }
        };
        let (kind, name) = match dialect {
            Dialect::S3 => ("application/xml", "x-amz-request-id"),
            Dialect::Iam | Dialect::Sts => ("text/xml", "x-amzn-requestid"),
        };
        // HEAD has no body, so no code either: only the status is left to tell what happened.
        let mut response = http::answer(self.status, kind, if head { String::new() } else { xml });
        let value = HeaderValue::from_str(&request_id).expect("a UUID is a legal header value");
        response.headers_mut().insert(name, value);
        response
    }
}

/// AWS dates are in whole seconds.
pub(crate) fn date(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
