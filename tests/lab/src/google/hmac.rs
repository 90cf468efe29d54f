//! `projects.hmacKeys` of Cloud Storage's JSON API ("HmacKeys", and the integration tests of gsutil for the words of its refusals).

use axum::http::Method;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::oauth;
use super::state::{Key, NoKey, State, delta};
use super::wire::{Content, Outcome};
use crate::form;
use crate::http::Request;

const CLOUD: &str = "https://www.googleapis.com/auth/cloud-platform";
const FULL: &str = "https://www.googleapis.com/auth/devstorage.full_control";
const WRITE: &str = "https://www.googleapis.com/auth/devstorage.read_write";
const READ: &str = "https://www.googleapis.com/auth/devstorage.read_only";
const LOOK: &str = "https://www.googleapis.com/auth/cloud-platform.read-only";

/// A request about HMAC keys.
#[derive(Clone)]
pub(crate) struct Asked {
    verb: Verb,
    project: String,
    /// Empty for the whole of them.
    id: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Create,
    List,
    Get,
    Update,
    Delete,
}

impl Verb {
    fn operation(self) -> &'static str {
        match self {
            Self::Create => "CreateHmacKey",
            Self::List => "ListHmacKeys",
            Self::Get => "GetHmacKey",
            Self::Update => "UpdateHmacKey",
            Self::Delete => "DeleteHmacKey",
        }
    }

    fn permission(self) -> &'static str {
        match self {
            Self::Create => "storage.hmacKeys.create",
            Self::List => "storage.hmacKeys.list",
            Self::Get => "storage.hmacKeys.get",
            Self::Update => "storage.hmacKeys.update",
            Self::Delete => "storage.hmacKeys.delete",
        }
    }

    /// As the discovery document has them (storage v1).
    fn scopes(self) -> &'static [&'static str] {
        match self {
            Self::Create | Self::Update => &[CLOUD, FULL],
            Self::Delete => &[CLOUD, FULL, WRITE],
            Self::List | Self::Get => &[CLOUD, FULL, WRITE, READ, LOOK],
        }
    }

    /// Parameters it knows. That any other is refused is our choice.
    fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Create => &["serviceAccountEmail"],
            Self::List => &["serviceAccountEmail", "showDeletedKeys", "maxResults", "pageToken"],
            Self::Get | Self::Update | Self::Delete => &[],
        }
    }
}

impl Asked {
    pub(crate) fn read(request: &Request) -> Option<Self> {
        let path = request.path.strip_prefix("/storage/v1/projects/")?;
        let mut parts = path.split('/').map(|part| form::decode(part, false));
        let (project, list, id) = (parts.next()?, parts.next()?, parts.next());
        if list != "hmacKeys" || parts.next().is_some() || id.as_deref() == Some("") {
            return None;
        }
        let verb = match (&request.method, &id) {
            (&Method::POST, None) => Verb::Create,
            (&Method::GET, None) => Verb::List,
            (&Method::GET, Some(_)) => Verb::Get,
            (&Method::PUT, Some(_)) => Verb::Update,
            (&Method::DELETE, Some(_)) => Verb::Delete,
            _ => return None,
        };
        Some(Self { verb, project, id: id.unwrap_or_default() })
    }

    pub(crate) fn operation(&self) -> &'static str {
        self.verb.operation()
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn execute(&self, request: &Request, state: &mut State, now: DateTime<Utc>) -> Outcome {
        let done = self.checked(request, state, now).unwrap_or_else(|refusal| refusal);
        match done.key.is_empty() {
            true => done.of_key(&self.id),
            false => done,
        }
    }

    fn checked(&self, request: &Request, state: &mut State, now: DateTime<Utc>) -> Result<Outcome, Outcome> {
        self.check_shape(request)?;
        let scopes = oauth::scopes_of(request, state, now).ok_or_else(|| {
            Outcome::storage(401, "authError", "Invalid Credentials").header("www-authenticate", "Bearer realm=\"lab\"")
        })?;
        if !self.verb.scopes().iter().any(|scope| scopes.iter().any(|has| has == scope)) {
            let message = "Request had insufficient authentication scopes.";
            return Err(Outcome::storage(403, "insufficientPermissions", message));
        }
        if self.project != state.options.project {
            return Err(Outcome::storage(404, "notFound", "The requested project was not found."));
        }
        let permission = self.verb.permission();
        if !state.permissions.contains(permission) {
            let message = format!(
                "{} does not have {permission} access to the Google Cloud project. Permission '{permission}' denied on resource (or \
                 it may not exist).",
                state.rotator()
            );
            return Err(Outcome::storage(403, "forbidden", message));
        }
        let query = form::pairs(&request.query);
        match self.verb {
            Verb::Create => create(&query, state, now),
            Verb::List => list(&query, state),
            Verb::Get => self.get(state),
            Verb::Update => self.update(request, state, now),
            Verb::Delete => self.delete(state, now),
        }
    }

    fn check_shape(&self, request: &Request) -> Result<(), Outcome> {
        // Google's front end wants a length of everything that may have a body, and answers with a page.
        if matches!(self.verb, Verb::Create | Verb::Update) && request.header("content-length").is_none() {
            return Err(Outcome::page(411, "POST requests require a Content-length header."));
        }
        if self.verb != Verb::Update && !request.body.is_empty() {
            return Err(Outcome::storage(400, "invalid", "This request takes no body."));
        }
        for (name, _) in form::pairs(&request.query) {
            if !self.verb.parameters().contains(&name.as_str()) {
                return Err(Outcome::storage(400, "invalidParameter", format!("Unknown parameter: {name}")));
            }
        }
        Ok(())
    }

    /// As gsutil's tests have it of an id that never was.
    fn no_such_key(&self) -> Outcome {
        Outcome::storage(404, "notFound", format!("Access ID not found in project {}.", self.project))
    }

    fn deleted<'s>(&self, state: &'s State) -> Option<&'s Key> {
        state.keys.iter().find(|key| key.id == self.id && key.deleted.is_some() && state.options.shows_deleted)
    }

    fn get(&self, state: &mut State) -> Result<Outcome, Outcome> {
        if let Some(key) = self.deleted(state) {
            return Ok(Outcome::json(metadata(key, state)));
        }
        let shown = state.keys.iter().find(|key| key.id == self.id && key.deleted.is_none());
        shown.map(|key| Outcome::json(metadata(key, state)).about(&key.email)).ok_or_else(|| self.no_such_key())
    }

    /// That a change which changes nothing is refused is seen (gsutil); that it is with 400 is our choice.
    fn update(&self, request: &Request, state: &mut State, now: DateTime<Utc>) -> Result<Outcome, Outcome> {
        let invalid = |message: &str| Outcome::storage(400, "invalid", message);
        let kind = request.header("content-type").unwrap_or_default();
        let body: Option<Value> = serde_json::from_slice(&request.body).ok();
        let Some(Value::Object(body)) = body.filter(|_| kind.starts_with("application/json")) else {
            return Err(invalid("Parse Error"));
        };
        let wanted = match body.get("state").and_then(Value::as_str) {
            Some("ACTIVE") => true,
            Some("INACTIVE") => false,
            _ => return Err(invalid("Invalid value for state.")),
        };
        if self.deleted(state).is_some() {
            return Err(invalid("Cannot update keys in DELETED state."));
        }
        let constraint = state.constraint.clone();
        let Some(key) = state.key(&self.id) else { return Err(self.no_such_key()) };
        if let Some(etag) = body.get("etag")
            && etag.as_str() != Some(key.etag.as_str())
        {
            return Err(Outcome::storage(412, "conditionNotMet", "Etag does not match expected value."));
        }
        if key.active == wanted {
            return Err(invalid("Update must modify the credential"));
        }
        if let (true, Some(constraint)) = (wanted, constraint) {
            return Err(violates(&constraint));
        }
        key.set_active(wanted, now);
        let email = key.email.clone();
        let shown = state.keys.iter().find(|key| key.id == self.id).map(|key| metadata(key, state));
        Ok(Outcome::json(shown.unwrap_or_default()).about(&email))
    }

    fn delete(&self, state: &mut State, now: DateTime<Utc>) -> Result<Outcome, Outcome> {
        if self.deleted(state).is_some() {
            return Err(Outcome::storage(400, "invalid", "Key is already deleted."));
        }
        let lag = delta(state.options.state_lag);
        let Some(key) = state.key(&self.id) else { return Err(self.no_such_key()) };
        if key.active {
            let message = "Cannot delete keys in ACTIVE state.";
            return Err(Outcome::storage(400, "invalid", message));
        }
        let is_hasty = now < key.changed + lag;
        key.deleted = Some(now);
        let email = key.email.clone();
        state.hasty_deletions += usize::from(is_hasty);
        Ok(Outcome::new(204, Content::Nothing, true).about(&email))
    }
}

fn create(query: &[(String, String)], state: &mut State, now: DateTime<Utc>) -> Result<Outcome, Outcome> {
    let email = form::value(query, "serviceAccountEmail").unwrap_or_default().to_owned();
    if email.is_empty() {
        return Err(Outcome::storage(400, "required", "Required parameter: serviceAccountEmail"));
    }
    if let Some(constraint) = &state.constraint {
        return Err(violates(constraint));
    }
    let id = match state.mint(&email, now, false) {
        Ok(key) => key.id.clone(),
        Err(NoKey::NoSuchAccount) => return Err(no_such_account(&email)),
        // python-docs-samples issue 4029, ruby-docs-samples issue 455.
        Err(NoKey::Quota) => {
            return Err(Outcome::storage(403, "quotaExceeded", "Service account HMAC key limit reached").about(&email));
        }
    };
    state.mints += 1;
    let key = state.keys.iter().find(|key| key.id == id).expect("it was made just now");
    let shown = json!({ "kind": "storage#hmacKey", "metadata": metadata(key, state), "secret": key.secret });
    Ok(Outcome::json(shown).about(&email).of_key(&id))
}

fn list(query: &[(String, String)], state: &State) -> Result<Outcome, Outcome> {
    let invalid = |what: &str| Outcome::storage(400, "invalidParameter", format!("Invalid value for {what}."));
    let email = form::value(query, "serviceAccountEmail");
    if let Some(email) = email.filter(|email| !state.accounts.contains(*email)) {
        return Err(no_such_account(email));
    }
    let with_deleted = match form::value(query, "showDeletedKeys") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(invalid("showDeletedKeys")),
    };
    let most = match form::value(query, "maxResults") {
        None => state.options.page_size,
        Some(text) => text.parse().map_err(|_| invalid("maxResults"))?,
    };
    let from: usize = match form::value(query, "pageToken") {
        None => 0,
        Some(token) => {
            token.strip_prefix("page/+").and_then(|from| from.parse().ok()).ok_or_else(|| invalid("pageToken"))?
        }
    };
    let all = state.keys.iter().filter(|key| email.is_none_or(|email| key.email == email));
    let all: Vec<&Key> = all.filter(|key| with_deleted || key.deleted.is_none()).collect();
    let page = &all[from.min(all.len())..all.len().min(from + most.clamp(1, state.options.page_size.max(1)))];
    let mut shown = json!({ "kind": "storage#hmacKeysMetadata" });
    // An empty list is left out, as everywhere in this API.
    if !page.is_empty() {
        shown["items"] = page.iter().map(|key| metadata(key, state)).collect();
    }
    if from + page.len() < all.len() {
        // A client that does not escape it comes back with something else.
        shown["nextPageToken"] = format!("page/+{}", from + page.len()).into();
    }
    Ok(Outcome::json(shown).about(email.unwrap_or_default()))
}

fn metadata(key: &Key, state: &State) -> Value {
    let (project, id) = (&state.options.project, &key.id);
    let date = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
    let word = match (key.deleted, key.active) {
        (Some(_), _) => "DELETED",
        (None, true) => "ACTIVE",
        (None, false) => "INACTIVE",
    };
    json!({
        "kind": "storage#hmacKeyMetadata", "id": format!("{project}/{id}"), "accessId": id, "projectId": project,
        "selfLink": format!("{}/storage/v1/projects/{project}/hmacKeys/{id}", state.url),
        "serviceAccountEmail": key.email, "state": word, "timeCreated": date(key.created),
        "updated": date(key.changed.max(key.created)), "etag": key.etag,
    })
}

fn no_such_account(email: &str) -> Outcome {
    Outcome::storage(404, "notFound", format!("Service Account '{email}' not found.")).about(email)
}

/// googleapis/java-storage issue 1240.
fn violates(constraint: &str) -> Outcome {
    Outcome::storage(412, "conditionNotMet", format!("Request violates constraint '{constraint}'"))
}
