//! One request from the wire to the answer: who asks, what for, what fault awaits it, what it does.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{HeaderValue, Method, Response, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::state::{Key, State, lock};
use super::wire::{Brought, Outcome, brought, shown};
use super::{IbmRight, TakenName};
use crate::faults::{Stumbling, carry_out};
use crate::http::{Handler, Reply, ReplyFuture, Request};
use crate::{RequestLine, chance, form, http};

pub(crate) struct Server {
    state: Arc<Mutex<State>>,
}

/// A call, as far as it can be told before it is believed.
pub(crate) struct Call {
    request: Request,
    asked: Asked,
}

/// The five of "Interface details".
enum Asked {
    Create,
    List,
    Show(String),
    Update(String),
    Delete(String),
    /// No such path, or not with this method.
    Nothing,
}

impl Call {
    fn read(request: Request) -> Self {
        let asked = match (&request.method, request.path.strip_prefix("/credentials")) {
            (&Method::POST, Some("")) => Asked::Create,
            (&Method::GET, Some("" | "/")) => Asked::List,
            (method, Some(rest)) => match rest.strip_prefix('/').filter(|key| !key.is_empty() && !key.contains('/')) {
                Some(key) if method == Method::GET => Asked::Show(form::decode(key, false)),
                Some(key) if method == Method::PATCH => Asked::Update(form::decode(key, false)),
                Some(key) if method == Method::DELETE => Asked::Delete(form::decode(key, false)),
                _ => Asked::Nothing,
            },
            _ => Asked::Nothing,
        };
        Self { request, asked }
    }

    /// The queue its faults wait in, and its name in the log.
    fn operation(&self) -> String {
        match self.asked {
            Asked::Create => "CreateCredential".to_owned(),
            Asked::List => "ListCredentials".to_owned(),
            Asked::Show(_) => "ShowCredential".to_owned(),
            Asked::Update(_) => "UpdateCredential".to_owned(),
            Asked::Delete(_) => "DeleteCredential".to_owned(),
            Asked::Nothing => format!("{} {}", self.request.method, self.request.path),
        }
    }

    fn execute(&self, state: &mut State, now: DateTime<Utc>) -> Outcome {
        if !self.is_logged_in(state) {
            state.refused_logins += 1;
            return Outcome::refused(401, "The token is not valid or cannot be verified.");
        }
        let done = match &self.asked {
            Asked::Create => self.create(state, now),
            Asked::List => self.list(state, now),
            Asked::Show(access) => self.show(state, access, now),
            Asked::Update(access) => self.update(state, access),
            Asked::Delete(access) => self.delete(state, access, now),
            Asked::Nothing => Err(Outcome::refused(400, "There is nothing at this address.")),
        };
        done.unwrap_or_else(|refused| refused)
    }

    fn is_logged_in(&self, state: &State) -> bool {
        let Some(("Basic", pair)) = self.request.header("authorization").and_then(|value| value.split_once(' ')) else {
            return false;
        };
        let (user, password) = &state.login;
        STANDARD.decode(pair).is_ok_and(|pair| pair == format!("{user}:{password}").as_bytes())
    }

    /// The rotator has no storage account of its own, so that all it does is done for others.
    fn needs(&self, state: &State, right: IbmRight) -> Result<(), Outcome> {
        for needed in [right, IbmRight::Impersonate] {
            if state.denied.contains(&needed) {
                return Err(Outcome::refused(403, format!("The user lacks {}.", needed.name())));
            }
        }
        match state.denied.contains(&IbmRight::StorageAccount) {
            true => Err(Outcome::refused(405, "The user has no access to the storage account.")),
            false => Ok(()),
        }
    }

    /// What only a list has is a query, and only POST and PATCH have a body.
    fn is_bare(&self) -> Result<(), Outcome> {
        match self.request.query.is_empty() && self.request.body.is_empty() {
            true => Ok(()),
            false => Err(Outcome::refused(400, "The request has a query or a body.")),
        }
    }

    fn create(&self, state: &mut State, now: DateTime<Utc>) -> Result<Outcome, Outcome> {
        self.needs(state, IbmRight::KeyManagement)?;
        let Brought { project, user, subject, blob } = brought(&self.request)?;
        let target = format!("{project}/{user}");
        let (access, secret, active) = match blob {
            Some(blob) => (blob.access, blob.secret, blob.active.unwrap_or(true)),
            None => (chance::hexadecimal(), None, true),
        };
        let refused = |status: u16, why: &str| Err(Outcome::refused(status, why).about(&target, &access));
        if !state.users.contains(&(project.clone(), user.clone())) {
            return refused(404, "There is no such user or storage account.");
        }
        let user = state.options.made_for.clone().unwrap_or(user);
        let secret = secret.unwrap_or_else(chance::secret_access_key);
        let count = state.keys.iter().filter(|key| key.deleted.is_none() && key.is_of(&project, &user)).count();
        match (state.options.taken, state.keys.iter().position(|key| key.access == access && key.deleted.is_none())) {
            (TakenName::Conflict, Some(_)) => return refused(409, "The access key exists."),
            (_, Some(at)) if !state.keys[at].is_of(&project, &user) => return refused(409, "The access key exists."),
            (TakenName::SameKey, Some(_)) => {}
            (TakenName::NewSecret, Some(at)) => {
                let replaced = std::mem::replace(&mut state.keys[at].secret, secret);
                state.replaced.push(replaced);
            }
            (_, None) if count >= state.options.keys_max => {
                return refused(409, "The user has the maximum number of keys.");
            }
            (_, None) => {
                let mut key = Key::new((&project, &user), &access, secret, subject, now);
                key.active = active;
                state.keys.push(key);
                state.mints += 1;
            }
        }
        let made = state.living(&access).expect("it is there by now").clone();
        let body = json!({ "credential": shown(&self.answered(state, made), &state.options, true) });
        Ok(Outcome::done(201, Some(body)).about(&target, &access))
    }

    /// The key, or one of another name where that is how it is answered.
    fn answered(&self, state: &State, mut key: Key) -> Key {
        if let Some(other) = state.options.answers_as.get(self.operation().as_str()) {
            key.access.clone_from(other);
        }
        key
    }

    fn list(&self, state: &State, now: DateTime<Utc>) -> Result<Outcome, Outcome> {
        self.needs(state, IbmRight::KeyListing)?;
        let filters = form::pairs(&self.request.query);
        if !self.request.body.is_empty() || filters.iter().any(|(name, _)| name != "project_id" && name != "user_id") {
            return Err(Outcome::refused(400, "The request has a body, or parameters that are unknown."));
        }
        let (project, user) = (form::value(&filters, "project_id"), form::value(&filters, "user_id"));
        let fits = |asked: Option<&str>, is: &str| asked.is_none_or(|asked| asked == is);
        let is_known = |(p, u): &(String, String)| fits(project, p) && fits(user, u);
        if !state.users.iter().any(is_known) {
            return Err(Outcome::refused(404, "There is no such user or storage account."));
        }
        let options = &state.options;
        let listed = state.keys.iter().filter(|key| key.is_shown(options.listing_lag, now));
        let listed =
            listed.filter(|key| options.ignores_filters || (fits(project, &key.project) && fits(user, &key.user)));
        let mut listed: Vec<Value> = listed.map(|key| shown(key, options, options.shows_secrets)).collect();
        let target = format!("{}/{}", project.unwrap_or_default(), user.unwrap_or_default());
        let page = options.page.filter(|page| listed.len() > *page);
        listed.truncate(page.unwrap_or(usize::MAX));
        let mut body = json!({ "credentials": listed });
        if let Some(page) = page {
            body["links"] =
                json!({ "previous": null, "next": format!("/credentials/?{}&page={page}", self.request.query) });
        }
        Ok(Outcome::done(200, Some(body)).about(&target, ""))
    }

    fn show(&self, state: &State, access: &str, now: DateTime<Utc>) -> Result<Outcome, Outcome> {
        self.needs(state, IbmRight::KeyListing)?;
        self.is_bare()?;
        let known = |key: &&Key| key.access == access && key.is_shown(state.options.listing_lag, now);
        let Some(key) = state.keys.iter().rev().find(known) else { return Err(no_such_key(access)) };
        let answered = self.answered(state, key.clone());
        let body = json!({ "credential": shown(&answered, &state.options, state.options.shows_secrets) });
        Ok(Outcome::done(200, Some(body)).about(&format!("{}/{}", key.project, key.user), access))
    }

    /// All of the credential must come back as it is, but for its status.
    fn update(&self, state: &mut State, access: &str) -> Result<Outcome, Outcome> {
        self.needs(state, IbmRight::KeyManagement)?;
        let Brought { project, user, subject, blob } = brought(&self.request)?;
        let (as_text, shows_secrets) = (state.options.blob_as_text, state.options.shows_secrets);
        let Some(key) = state.living(access) else { return Err(no_such_key(access)) };
        let target = format!("{}/{}", key.project, key.user);
        let bad = |what: &str| Err(Outcome::refused(400, what).about(&target, access));
        let Some(blob) = blob else { return bad("There is no blob.") };
        let Some(active) = blob.active else { return bad("There is no status.") };
        let same_secret = match &blob.secret {
            Some(secret) => *secret == key.secret,
            None => !shows_secrets,
        };
        if !key.is_of(&project, &user) || blob.access != access || !same_secret || subject != key.subject {
            return bad("More than the status is changed.");
        }
        if blob.is_text != as_text {
            return bad("The blob has another form.");
        }
        key.active = active;
        let changed = key.clone();
        let body = json!({ "credential": shown(&self.answered(state, changed), &state.options, shows_secrets) });
        Ok(Outcome::done(200, Some(body)).about(&target, access))
    }

    fn delete(&self, state: &mut State, access: &str, now: DateTime<Utc>) -> Result<Outcome, Outcome> {
        self.needs(state, IbmRight::KeyManagement)?;
        self.is_bare()?;
        let Some(key) = state.living(access) else { return Err(no_such_key(access)) };
        key.deleted = Some(now);
        let target = format!("{}/{}", key.project, key.user);
        Ok(Outcome::done(204, None).about(&target, access))
    }
}

/// The tables know no other words for it.
fn no_such_key(access: &str) -> Outcome {
    Outcome::refused(404, "There is no such user or storage account.").about("", access)
}

impl Server {
    pub(crate) fn new(state: Arc<Mutex<State>>) -> Self {
        Self { state }
    }

    fn answer(&self, outcome: Outcome) -> Response<Body> {
        let silent = lock(&self.state).options.silent;
        self.date(outcome.into_response(silent))
    }

    /// By the clock we show, so many seconds from now.
    fn shown_time(&self, seconds: u32) -> String {
        http::date(Utc::now() + lock(&self.state).date_skew + TimeDelta::seconds(i64::from(seconds)))
    }

    fn failure(status: u16) -> Outcome {
        match status {
            503 => Outcome::refused(503, "The credential API service is currently unavailable."),
            429 => Outcome::refused(429, "Too many requests."),
            _ => Outcome::refused(status, "No reason is given."),
        }
    }
}

impl Stumbling for Server {
    type Call = Call;

    fn execute(&self, call: &Call, status: Option<u16>) -> Reply {
        let mut state = lock(&self.state);
        let outcome = call.execute(&mut state, Utc::now());
        log(&mut state, call, &outcome, status.unwrap_or(outcome.status), outcome.executed);
        drop(state);
        Reply::Answer(self.answer(outcome))
    }

    fn spare(&self, call: &Call, status: u16) {
        let spared = Outcome::done(status, None);
        log(&mut lock(&self.state), call, &spared, status, false);
    }

    fn fail(&self, _call: &Call, status: u16) -> Response<Body> {
        self.answer(Self::failure(status))
    }

    /// No page knows of such a thing; what may stand before an accesser does.
    fn throttle(&self, call: &Call) -> Response<Body> {
        self.later(call, 429, 1, false)
    }

    fn later(&self, _call: &Call, status: u16, seconds: u32, as_date: bool) -> Response<Body> {
        let wait = if as_date { self.shown_time(seconds) } else { seconds.to_string() };
        let mut response = self.answer(Self::failure(status));
        let wait = HeaderValue::from_str(&wait).expect("a number and a date are legal header values");
        response.headers_mut().insert(header::RETRY_AFTER, wait);
        response
    }

    fn refuse(&self, _call: &Call, message: &str) -> Response<Body> {
        self.answer(Outcome::refused(403, message))
    }

    fn date(&self, mut response: Response<Body>) -> Response<Body> {
        let date = HeaderValue::from_str(&self.shown_time(0)).expect("a date is a legal header value");
        response.headers_mut().insert(header::DATE, date);
        response
    }
}

impl Handler for Server {
    fn is_down(&self) -> bool {
        false
    }

    fn handle(self: Arc<Self>, request: Request) -> ReplyFuture {
        let call = Call::read(request);
        let fault = lock(&self.state).faults.take(&call.operation());
        carry_out(self, call, fault)
    }
}

fn log(state: &mut State, call: &Call, outcome: &Outcome, status: u16, executed: bool) {
    state.requests.push(RequestLine {
        at: Utc::now(),
        operation: call.operation(),
        user_or_target: outcome.target.clone(),
        access_key_id: outcome.access.clone(),
        status,
        executed,
    });
}
