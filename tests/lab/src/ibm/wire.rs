//! How an accesser words its answers, and which bodies it takes: only what IBM's pages show.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response};
use chrono::Utc;
use serde_json::{Map, Value, json};

use super::IbmOptions;
use super::state::Key;
use crate::chance;
use crate::http::{Request, answer};

/// What became of one call, before it is worded.
pub(crate) struct Outcome {
    pub(crate) status: u16,
    pub(crate) body: Option<Value>,
    pub(crate) executed: bool,
    /// Storage account and user it was about.
    pub(crate) target: String,
    /// The access key it was about: never a secret.
    pub(crate) access: String,
}

impl Outcome {
    pub(crate) fn done(status: u16, body: Option<Value>) -> Self {
        Self { status, body, executed: true, target: String::new(), access: String::new() }
    }

    /// A refusal. The words are ours, in the form of Keystone, whose API this one was made after.
    pub(crate) fn refused(status: u16, message: impl Into<String>) -> Self {
        let body = json!({ "error": { "code": status, "title": title(status), "message": message.into() } });
        Self { executed: false, ..Self::done(status, Some(body)) }
    }

    pub(crate) fn about(mut self, target: &str, access: &str) -> Self {
        (self.target, self.access) = (target.to_owned(), access.to_owned());
        self
    }

    pub(crate) fn into_response(self, silent: bool) -> Response<Body> {
        let silenced = silent && !self.executed;
        let body = self.body.filter(|_| !silenced).map(|body| body.to_string()).unwrap_or_default();
        let mut response = answer(self.status, "application/json; charset=utf-8", body);
        let now = Utc::now();
        let stamp = format!("{}.{:05}", now.timestamp(), now.timestamp_subsec_micros() / 10);
        let trans_id = format!("tx{}-00{:08x}", &chance::hexadecimal()[..21], now.timestamp());
        for (name, text) in [("accept-ranges", "bytes".to_owned()), ("x-timestamp", stamp), ("x-trans-id", trans_id)] {
            let value = HeaderValue::from_str(&text).expect("our own headers are legal");
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
        if self.status == 401 {
            let realm = HeaderValue::from_static("Basic realm=\"Service API\"");
            response.headers_mut().insert("www-authenticate", realm);
        }
        response
    }
}

/// The words of the tables of response codes.
fn title(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        503 => "Service Unavailable",
        _ => "Error",
    }
}

/// A credential as answers show it.
pub(crate) fn shown(key: &Key, options: &IbmOptions, with_secret: bool) -> Value {
    let mut blob = Map::new();
    blob.insert("access".to_owned(), json!(key.access));
    if with_secret {
        blob.insert(if options.misspelt { "secrete" } else { "secret" }.to_owned(), json!(key.secret));
    }
    blob.insert("status".to_owned(), json!(status(key.active)));
    let blob = Value::Object(blob);
    let blob = if options.blob_as_text { json!(blob.to_string()) } else { blob };
    let mut shown =
        json!({ "user_id": key.user, "blob": blob, "project_id": key.project, "type": "ec2", "id": key.access });
    if let Some(subject) = &key.subject {
        shown["subject_ibm_id"] = json!(subject);
    }
    if options.names_no_user {
        shown.as_object_mut().expect("it is one").remove("user_id");
    }
    shown
}

fn status(active: bool) -> &'static str {
    if active { "Active" } else { "Inactive" }
}

/// A credential as a POST or PATCH brings it.
pub(crate) struct Brought {
    pub(crate) project: String,
    pub(crate) user: String,
    pub(crate) subject: Option<String>,
    pub(crate) blob: Option<BroughtBlob>,
}

pub(crate) struct BroughtBlob {
    pub(crate) access: String,
    pub(crate) secret: Option<String>,
    pub(crate) active: Option<bool>,
    pub(crate) is_text: bool,
}

/// Reads the body, every member by its name.
pub(crate) fn brought(request: &Request) -> Result<Brought, Outcome> {
    let bad = |what: &str| Outcome::refused(400, format!("The request does not comply: {what}."));
    let kind = request.header("content-type").unwrap_or_default().to_ascii_lowercase();
    if !kind.starts_with("application/json") {
        return Err(bad("its content type is not application/json"));
    }
    let Ok(Value::Object(mut body)) = serde_json::from_slice(&request.body) else { return Err(bad("it is no object")) };
    let Some(Value::Object(mut credential)) = body.remove("credential") else { return Err(bad("no credential")) };
    let mut text = |name: &str| match credential.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
        Some(_) => Err(bad(&format!("{name} is no text, or empty"))),
    };
    let (project, user) = (text("project_id")?, text("user_id")?);
    let (kind, subject) = (text("type")?, text("subject_ibm_id")?);
    let blob = match credential.remove("blob") {
        None => None,
        Some(Value::Object(blob)) => Some((blob, false)),
        Some(Value::String(text)) => match serde_json::from_str(&text) {
            Ok(Value::Object(blob)) => Some((blob, true)),
            _ => return Err(bad("the blob is no object")),
        },
        Some(_) => return Err(bad("the blob is no object")),
    };
    if let Some(unknown) = body.keys().chain(credential.keys()).next() {
        return Err(bad(&format!("{unknown} is unknown")));
    }
    if kind.as_deref() != Some("ec2") {
        return Err(bad("type is not ec2"));
    }
    let (Some(project), Some(user)) = (project, user) else { return Err(bad("project_id or user_id is missing")) };
    let blob = match blob {
        Some((blob, is_text)) => Some(blob_of(blob, is_text).map_err(|what| bad(&what))?),
        None => None,
    };
    Ok(Brought { project, user, subject, blob })
}

fn blob_of(mut blob: Map<String, Value>, is_text: bool) -> Result<BroughtBlob, String> {
    let mut text = |name: &str| match blob.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
        Some(_) => Err(format!("{name} is no text, or empty")),
    };
    let access = text("access")?.ok_or("a blob must contain an access key")?;
    let secret = text("secret")?;
    let active = match text("status")?.as_deref() {
        None => None,
        Some("Active") => Some(true),
        Some("Inactive") => Some(false),
        Some(_) => return Err("status is neither Active nor Inactive".to_owned()),
    };
    if let Some(unknown) = blob.keys().next() {
        return Err(format!("{unknown} is unknown"));
    }
    if access.len() > 32 || !access.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err("an access key has 32 letters and digits at most".to_owned());
    }
    Ok(BroughtBlob { access, secret, active, is_text })
}
