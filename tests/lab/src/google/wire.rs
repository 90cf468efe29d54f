//! How Google words its answers: JSON, with three ways to say no, and the metadata server's plain page.

use axum::body::Body;
use axum::http::Response;
use serde_json::{Value, json};

use crate::http;

/// What became of one call, before it is worded.
pub(crate) struct Outcome {
    pub(crate) status: u16,
    /// In a box: an outcome is also an error, and those are small.
    pub(crate) content: Box<Content>,
    pub(crate) executed: bool,
    /// The service account or project it was about.
    pub(crate) target: String,
    /// The access id it was about: never a secret.
    pub(crate) key: String,
    pub(crate) headers: Vec<(&'static str, String)>,
}

pub(crate) enum Content {
    Json(Value),
    Nothing,
    /// Cloud Storage: its word for the reason, and what it says.
    Storage(&'static str, String),
    /// Google's other APIs (AIP-193): the status in words, the reason in its details where there is one, what it says.
    Api(&'static str, Option<&'static str>, String),
    /// A token endpoint (RFC 6749, 5.2).
    OAuth(&'static str, String),
    /// For people.
    Page(String),
}

impl Outcome {
    pub(crate) fn new(status: u16, content: Content, executed: bool) -> Self {
        Self {
            status,
            content: Box::new(content),
            executed,
            target: String::new(),
            key: String::new(),
            headers: Vec::new(),
        }
    }

    pub(crate) fn json(value: Value) -> Self {
        Self::new(200, Content::Json(value), true)
    }

    pub(crate) fn storage(status: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(status, Content::Storage(reason, message.into()), false)
    }

    pub(crate) fn oauth(status: u16, error: &'static str, description: impl Into<String>) -> Self {
        Self::new(status, Content::OAuth(error, description.into()), false)
    }

    pub(crate) fn page(status: u16, text: impl Into<String>) -> Self {
        Self::new(status, Content::Page(text.into()), false)
    }

    pub(crate) fn about(mut self, target: &str) -> Self {
        self.target = target.to_owned();
        self
    }

    pub(crate) fn of_key(mut self, key: &str) -> Self {
        self.key = key.to_owned();
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let status = self.status;
        let body = match *self.content {
            Content::Json(value) => value,
            Content::Nothing => Value::Null,
            Content::Page(text) => return with(self.headers, http::html_page(status, "Error", &text)),
            Content::Storage(reason, message) => json!({ "error": {
                "code": status, "message": message,
                "errors": [{ "message": message, "domain": "global", "reason": reason }],
            }}),
            Content::Api(word, reason, message) => {
                let mut error = json!({ "code": status, "message": message, "status": word });
                if let Some(reason) = reason {
                    let kind = "type.googleapis.com/google.rpc.ErrorInfo";
                    error["details"] = json!([{ "@type": kind, "reason": reason, "domain": "googleapis.com" }]);
                }
                json!({ "error": error })
            }
            Content::OAuth(error, description) => json!({ "error": error, "error_description": description }),
        };
        let text = if body.is_null() { String::new() } else { body.to_string() };
        with(self.headers, http::answer(status, "application/json; charset=UTF-8", text))
    }
}

fn with(headers: Vec<(&'static str, String)>, mut response: Response<Body>) -> Response<Body> {
    for (name, text) in headers {
        let value = axum::http::HeaderValue::from_str(&text).expect("our own headers are legal");
        response.headers_mut().insert(axum::http::HeaderName::from_static(name), value);
    }
    response
}
