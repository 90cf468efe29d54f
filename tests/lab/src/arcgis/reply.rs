//! What is answered, before it takes one of the formats (`json`, `pjson`, `html`) and one of the two envelopes for errors.

use axum::body::Body;
use axum::http::Response;
use serde_json::{Value, json};

use super::options::Product;
use crate::http::{answer, html_page};

/// What became of one call.
pub(crate) struct Outcome {
    pub(crate) content: Content,
    pub(crate) executed: bool,
    /// Service, provider or job.
    pub(crate) target: String,
    /// The access key id that was pushed.
    pub(crate) access_key_id: String,
}

pub(crate) enum Content {
    Json(Value),
    /// JSON in name only: the printed form of the documents.
    Raw(String),
    Error {
        code: u16,
        message: String,
        details: Vec<String>,
    },
    /// A page for people, whatever format was asked.
    Page(String),
}

impl Outcome {
    pub(crate) fn json(value: Value) -> Self {
        Self::new(Content::Json(value), true)
    }

    pub(crate) fn error(code: u16, message: impl Into<String>) -> Self {
        Self::new(Content::Error { code, message: message.into(), details: Vec::new() }, false)
    }

    pub(crate) fn detailed(code: u16, message: &str, detail: impl Into<String>) -> Self {
        Self::new(Content::Error { code, message: message.to_owned(), details: vec![detail.into()] }, false)
    }

    pub(crate) fn not_found(what: &str) -> Self {
        Self::error(404, format!("Could not find resource or operation '{what}' on the system."))
    }

    pub(crate) fn new(content: Content, executed: bool) -> Self {
        Self { content, executed, target: String::new(), access_key_id: String::new() }
    }

    pub(crate) fn about(mut self, target: &str) -> Self {
        self.target = target.to_owned();
        self
    }
}

/// The format asked for, or the default of the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Html,
    Json,
    Pretty,
}

impl Format {
    pub(crate) fn parse(f: Option<&str>, default: Format) -> Option<Format> {
        match f {
            None | Some("") => Some(default),
            Some("html") => Some(Format::Html),
            Some("json") => Some(Format::Json),
            Some("pjson") => Some(Format::Pretty),
            Some(_) => None,
        }
    }
}

/// Errors are 200 with the code inside, unless `real_status_codes`.
pub(crate) fn respond(content: &Content, format: Format, product: Product, real_status_codes: bool) -> Response<Body> {
    let (status, value) = match content {
        Content::Page(text) => return html_page(200, "ArcGIS Administrator Directory", text),
        Content::Raw(text) if format != Format::Html => return answer(200, kind(product), text.clone()),
        Content::Raw(text) => (200, json!(text)),
        Content::Json(value) => (200, value.clone()),
        Content::Error { code, message, details } => {
            let status = if real_status_codes { *code } else { 200 };
            (status, envelope(product, *code, message, details))
        }
    };
    match format {
        Format::Json => answer(status, kind(product), value.to_string()),
        Format::Pretty => {
            let text = serde_json::to_string_pretty(&value).expect("a value without odd keys is JSON");
            answer(status, kind(product), text)
        }
        Format::Html => {
            let text = value.to_string().replace('&', "&amp;").replace('<', "&lt;");
            html_page(status, "ArcGIS Administrator Directory", &format!("<pre>{text}</pre>"))
        }
    }
}

fn envelope(product: Product, code: u16, message: &str, details: &[String]) -> Value {
    match product {
        Product::Kubernetes => json!({"error": {"code": code, "message": message, "details": details}}),
        Product::Server => {
            let messages: Vec<&str> = [message].into_iter().chain(details.iter().map(String::as_str)).collect();
            json!({"status": "error", "messages": messages, "code": code})
        }
    }
}

/// Old servers said `text/plain`; nobody should have relied on it, so Server still does here.
fn kind(product: Product) -> &'static str {
    match product {
        Product::Kubernetes => "application/json;charset=utf-8",
        Product::Server => "text/plain;charset=utf-8",
    }
}
