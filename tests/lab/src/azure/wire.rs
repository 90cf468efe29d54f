//! How Azure words its answers: JSON, with three ways to say no. The data plane has a fourth, in XML, and words it itself.

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, Response};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::serve::Face;
use super::{RegeneratedKey, blob, cosmos, service_bus};
use crate::http::{Request, answer};
use crate::{chance, form};

/// What became of one call, before it is worded.
pub(crate) struct Outcome {
    pub(crate) status: u16,
    /// In a box, and so is the key below: an outcome is also an error, and those are small.
    pub(crate) content: Box<Content>,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) executed: bool,
    /// The application or account it was about.
    pub(crate) target: String,
    /// The slot, or the id of the password, it was about: never a secret.
    pub(crate) key: String,
    /// Whoever plays the data plane is told of it before the answer goes.
    pub(crate) regenerated: Option<Box<RegeneratedKey>>,
    /// An operation that goes on after the answer.
    pub(crate) goes_on: Option<String>,
}

pub(crate) enum Content {
    Json(Value),
    Nothing,
    /// `error.code`, `error.message`, and what else stands in `error`.
    Error(String, String, Option<Value>),
    /// Entra: `error`, the number behind `AADSTS`, what it says.
    Sts(&'static str, u32, String),
    /// The data plane: a document without its declaration.
    Xml(String),
    /// The data plane: what is in a blob.
    Bytes(Bytes),
}

impl Outcome {
    pub(crate) fn new(status: u16, content: Content, executed: bool) -> Self {
        Self {
            status,
            content: Box::new(content),
            headers: Vec::new(),
            executed,
            target: String::new(),
            key: String::new(),
            regenerated: None,
            goes_on: None,
        }
    }

    pub(crate) fn json(value: Value) -> Self {
        Self::new(200, Content::Json(value), true)
    }

    pub(crate) fn done(status: u16) -> Self {
        Self::new(status, Content::Nothing, true)
    }

    pub(crate) fn error(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(status, Content::Error(code.into(), message.into(), None), false)
    }

    pub(crate) fn detailed(status: u16, code: &str, message: String, details: Value) -> Self {
        Self::new(status, Content::Error(code.to_owned(), message, Some(details)), false)
    }

    pub(crate) fn sts(status: u16, error: &'static str, code: u32, text: impl Into<String>) -> Self {
        Self::new(status, Content::Sts(error, code, text.into()), false)
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

    pub(crate) fn into_response(self, face: Face, asked: &Request) -> Response<Body> {
        match face {
            Face::Blob => return blob::respond(self, asked),
            Face::Cosmos => return cosmos::into_response(self, asked),
            Face::ServiceBus => return service_bus::into_response(self, asked),
            Face::Entra | Face::Arm | Face::Graph => {}
        }
        let request_id = chance::request_id();
        // A client's own id comes back, where it sent one that is an id.
        let client = asked.header("client-request-id").filter(|id| uuid::Uuid::parse_str(id).is_ok());
        let correlation_id = client.unwrap_or(&request_id).to_owned();
        let now = Utc::now();
        let body = match *self.content {
            Content::Nothing => String::new(),
            Content::Xml(_) | Content::Bytes(_) => unreachable!("only the data plane answers so"),
            Content::Json(value) => value.to_string(),
            Content::Sts(error, code, text) => sts_error(error, code, &text, (&request_id, &correlation_id), now),
            Content::Error(code, message, details) => {
                let mut error = Map::new();
                error.insert("code".to_owned(), code.into());
                error.insert("message".to_owned(), message.into());
                if let Some(details) = details {
                    error.insert("details".to_owned(), details);
                }
                if face == Face::Graph {
                    let date = now.format("%Y-%m-%dT%H:%M:%S").to_string();
                    let inner = json!({"date": date, "request-id": request_id, "client-request-id": correlation_id});
                    error.insert("innerError".to_owned(), inner);
                }
                json!({ "error": error }).to_string()
            }
        };
        let mut response = answer(self.status, "application/json; charset=utf-8", body);
        let ids = match face {
            Face::Graph => [("request-id", request_id), ("client-request-id", correlation_id)],
            _ => [("x-ms-request-id", request_id), ("x-ms-correlation-request-id", correlation_id)],
        };
        for (name, text) in ids.into_iter().chain(self.headers) {
            let value = HeaderValue::from_str(&text).expect("our own headers are legal");
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
        response
    }
}

/// As seen in many bug reports, for instance azure/sap-automation issue 418.
fn sts_error(error: &str, code: u32, text: &str, (trace, correlation): (&str, &str), now: DateTime<Utc>) -> String {
    let timestamp = now.format("%Y-%m-%d %H:%M:%SZ").to_string();
    let description =
        format!("AADSTS{code}: {text}\r\nTrace ID: {trace}\r\nCorrelation ID: {correlation}\r\nTimestamp: {timestamp}");
    json!({
        "error": error,
        "error_description": description,
        "error_codes": [code],
        "timestamp": timestamp,
        "trace_id": trace,
        "correlation_id": correlation,
        "error_uri": format!("https://login.microsoftonline.com/error?code={code}"),
    })
    .to_string()
}

/// The bearer token of a request.
pub(crate) fn bearer(request: &Request) -> Option<&str> {
    let (scheme, token) = request.header("authorization")?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// The pieces of the path, unescaped.
pub(crate) fn segments(path: &str) -> Vec<String> {
    path.split('/').filter(|piece| !piece.is_empty()).map(|piece| form::decode(piece, false)).collect()
}

/// The JSON object a POST brings; an empty body is an empty object. A body of another media type is refused with 415.
pub(crate) fn object(request: &Request) -> Result<Map<String, Value>, Outcome> {
    let kind = request.header("content-type").unwrap_or_default();
    if request.body.is_empty() {
        return Ok(Map::new());
    }
    if !kind.to_ascii_lowercase().starts_with("application/json") {
        let message =
            format!("The content media type '{kind}' is not supported. Only 'application/json' is supported.");
        return Err(Outcome::error(415, "UnsupportedMediaType", message));
    }
    match serde_json::from_slice(&request.body) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(Outcome::error(
            400,
            "InvalidRequestContent",
            "The request content was invalid and could not be deserialized.",
        )),
    }
}

/// Seven digits behind the second, as .NET writes them.
pub(crate) fn instant(at: DateTime<Utc>) -> String {
    format!("{}.{:07}Z", at.format("%Y-%m-%dT%H:%M:%S"), at.timestamp_subsec_nanos() % 1_000_000_000 / 100)
}
