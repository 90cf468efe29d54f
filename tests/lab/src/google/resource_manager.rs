//! Resource Manager, as far as it tells a caller what it may do ("projects.testIamPermissions", v3). It asks for no permission itself.

use axum::http::Method;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::oauth;
use super::state::State;
use super::wire::{Content, Outcome};
use crate::http::Request;

/// "Requires one of the following OAuth scopes".
const SCOPES: [&str; 2] =
    ["https://www.googleapis.com/auth/cloud-platform", "https://www.googleapis.com/auth/cloud-platform.read-only"];

/// The question.
#[derive(Clone)]
pub(crate) struct Asked {
    project: String,
}

impl Asked {
    pub(crate) fn read(request: &Request) -> Option<Self> {
        let rest = request.path.strip_prefix("/v3/projects/")?;
        let project = rest.strip_suffix(":testIamPermissions").filter(|project| !project.contains('/'))?;
        (request.method == Method::POST && request.query.is_empty()).then(|| Self { project: project.to_owned() })
    }

    pub(crate) fn execute(&self, request: &Request, state: &mut State, now: DateTime<Utc>) -> Outcome {
        let error = |status, word, reason, message: String| {
            Outcome::new(status, Content::Api(word, reason, message), false).about(&self.project)
        };
        let Some(scopes) = oauth::scopes_of(request, state, now) else {
            let message = "Request had invalid authentication credentials. Expected OAuth 2 access token.";
            return error(401, "UNAUTHENTICATED", Some("ACCESS_TOKEN_TYPE_UNSUPPORTED"), message.to_owned());
        };
        if !scopes.iter().any(|scope| SCOPES.contains(&scope.as_str())) {
            let message = "Request had insufficient authentication scopes.".to_owned();
            return error(403, "PERMISSION_DENIED", Some("ACCESS_TOKEN_SCOPE_INSUFFICIENT"), message);
        }
        if state.resource_manager_disabled {
            let message = format!(
                "Cloud Resource Manager API has not been used in project {} before or it is disabled.",
                state.options.project
            );
            return error(403, "PERMISSION_DENIED", Some("SERVICE_DISABLED"), message);
        }
        if self.project != state.options.project {
            let message = "The caller does not have permission".to_owned();
            return error(403, "PERMISSION_DENIED", None, message);
        }
        let is_json = request.header("content-type").is_some_and(|kind| kind.starts_with("application/json"));
        let body: Option<Value> = serde_json::from_slice(&request.body).ok().filter(|_| is_json);
        let asked = body.as_ref().and_then(|body| body.get("permissions")).and_then(Value::as_array);
        let Some(asked) = asked.filter(|asked| asked.iter().all(Value::is_string)) else {
            return error(400, "INVALID_ARGUMENT", None, "Invalid JSON payload received.".to_owned());
        };
        let asked = asked.iter().filter_map(Value::as_str);
        let has: Vec<&str> = asked.filter(|permission| state.permissions.contains(*permission)).collect();
        // Nothing is said of nothing, as everywhere in these APIs.
        let shown = if has.is_empty() { json!({}) } else { json!({ "permissions": has }) };
        Outcome::json(shown).about(&self.project)
    }
}
