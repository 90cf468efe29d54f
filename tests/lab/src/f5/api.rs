//! The requests of `ves.io.schema.api_credential` about service credentials, and the two about who one is and what there is.
//!
//! Written from F5's published OpenAPI, its page on "Replace service credentials", and the sources of Terraform's provider. What they do
//! not say is chosen: which role may do it (one, in namespace system), that unknown fields are refused, and what `activate` does to an
//! active credential (an option).

use std::collections::{BTreeMap, BTreeSet};

use axum::http::Method;
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use super::state::{Caller, Credential, PERSON, State};
use crate::http::Request;
use crate::{chance, form};

/// What a request asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    WhoAmI,
    Namespaces,
    List,
    Get(String),
    Create,
    Replace(String),
    Renew,
    Activate,
    Revoke,
    BulkRevoke,
    Nothing,
}

/// What became of it.
pub(crate) struct Outcome {
    pub(crate) status: u16,
    /// `Err`: what a refusal says.
    pub(crate) body: Result<Value, String>,
    pub(crate) executed: bool,
    /// The credential it was about.
    pub(crate) name: String,
}

impl Outcome {
    fn done(name: &str, body: Value) -> Self {
        Self { status: 200, body: Ok(body), executed: true, name: name.to_owned() }
    }

    pub(crate) fn refused(status: u16, said: impl Into<String>) -> Self {
        Self { status, body: Err(said.into()), executed: false, name: String::new() }
    }
}

impl Asked {
    /// By method and path; a query belongs to none of them.
    pub(crate) fn read(request: &Request) -> Self {
        let pieces: Vec<String> =
            request.path.split('/').filter(|piece| !piece.is_empty()).map(|piece| form::decode(piece, false)).collect();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        if !request.query.is_empty() {
            return Self::Nothing;
        }
        let rest = match *pieces.as_slice() {
            ["api", "web", "custom", "namespaces", "system", "whoami"] if request.method == Method::GET => {
                return Self::WhoAmI;
            }
            ["api", "web", "namespaces"] if request.method == Method::GET => return Self::Namespaces,
            ["api", "web", "namespaces", "system", ref rest @ ..] => rest,
            _ => return Self::Nothing,
        };
        match (&request.method, rest) {
            (&Method::GET, ["service_credentials"]) => Self::List,
            (&Method::POST, ["service_credentials"]) => Self::Create,
            (&Method::GET, ["service_credentials", name]) => Self::Get((*name).to_owned()),
            (&Method::PUT, ["service_credentials", name]) => Self::Replace((*name).to_owned()),
            (&Method::POST, ["renew", "service_credentials"]) => Self::Renew,
            (&Method::POST, ["activate", "service_credentials"]) => Self::Activate,
            (&Method::POST, ["revoke", "service_credentials"]) => Self::Revoke,
            (&Method::POST, ["bulk_revoke", "service_credentials"]) => Self::BulkRevoke,
            _ => Self::Nothing,
        }
    }

    /// As faults and the log call it.
    pub(crate) fn operation(&self) -> &'static str {
        match self {
            Self::WhoAmI => "WhoAmI",
            Self::Namespaces => "ListNamespaces",
            Self::List => "ListServiceCredentials",
            Self::Get(_) => "GetServiceCredentials",
            Self::Create => "CreateServiceCredentials",
            Self::Replace(_) => "ReplaceServiceCredentials",
            Self::Renew => "RenewServiceCredentials",
            Self::Activate => "ActivateServiceCredentials",
            Self::Revoke => "RevokeServiceCredentials",
            Self::BulkRevoke => "BulkRevokeServiceCredentials",
            Self::Nothing => "Nothing",
        }
    }

    /// Who it is, whether they may, then what it says.
    pub(crate) fn execute(&self, request: &Request, state: &mut State, now: DateTime<Utc>) -> Outcome {
        self.serve(request, state, now).unwrap_or_else(|refusal| *refusal)
    }

    fn serve(&self, request: &Request, state: &mut State, now: DateTime<Utc>) -> Result<Outcome, Box<Outcome>> {
        let refused = |status, said: &str| Box::new(Outcome::refused(status, said));
        let is_shown = state.options.demands_certificate && request.header("authorization").is_none();
        let by_certificate = is_shown.then(|| Caller { email: PERSON.to_owned(), roles: None });
        let caller = by_certificate.or_else(|| token(request).and_then(|token| state.caller(token, now)));
        let Some(caller) = caller else {
            return Err(refused(401, "invalid or expired credentials"));
        };
        if *self == Self::Nothing {
            return Err(refused(404, "no such resource"));
        }
        if state.denied.contains(self.operation()) {
            return Err(refused(403, "access denied by role"));
        }
        let may = match self {
            Self::WhoAmI => true,
            Self::Namespaces => caller.has_a_role(),
            _ => caller.is_manager(),
        };
        if !may {
            return Err(refused(403, "access denied by role"));
        }
        match self {
            Self::WhoAmI => Ok(Outcome::done("", who(&caller, state))),
            Self::Namespaces => Ok(Outcome::done("", json!({ "items": [{ "name": "system" }, { "name": "shared" }] }))),
            Self::List => {
                let items: Vec<Value> = state.listed(now).map(|one| listed(one, now)).collect();
                Ok(Outcome::done("", json!({ "items": items })))
            }
            Self::Get(name) => {
                let found = state.listed(now).find(|one| one.name == *name && one.revoked.is_none());
                let found = found.ok_or_else(|| refused(404, "service credential not found"))?;
                let own = found.email(&state.options);
                let user = if state.options.maker_email { &found.maker } else { &own };
                Ok(Outcome::done(name, shown(found, user, now)))
            }
            Self::Create => create(&object(request)?, &caller, state, now),
            Self::Replace(name) => replace(name, &object(request)?, state),
            Self::Renew => {
                let body = object(request)?;
                let name = named(&body, &["namespace", "name", "expiration_days"])?;
                let days = days(&body, state)?;
                let found = state.find(&name).ok_or_else(|| refused(404, "service credential not found"))?;
                if found.kind != "SERVICE_API_TOKEN" {
                    return Err(refused(400, "only tokens are renewed"));
                }
                found.expires = now + TimeDelta::days(days);
                Ok(Outcome::done(&name, json!({ "status": true })))
            }
            Self::Activate => {
                let name = named(&object(request)?, &["namespace", "name"])?;
                let toggles = state.options.activate_toggles;
                let found = state.find(&name).ok_or_else(|| refused(404, "service credential not found"))?;
                found.active = !(toggles && found.active);
                Ok(Outcome::done(&name, json!({ "status": true })))
            }
            Self::Revoke => {
                let name = named(&object(request)?, &["namespace", "name"])?;
                revoke(&name, state, now).ok_or_else(|| refused(404, "service credential not found"))?;
                Ok(Outcome::done(&name, json!({ "status": true })))
            }
            Self::BulkRevoke => bulk_revoke(&object(request)?, state, now),
            Self::Nothing => unreachable!("it was answered above"),
        }
    }
}

/// `Authorization: APIToken …`, in this spelling.
fn token(request: &Request) -> Option<&str> {
    request.header("authorization")?.strip_prefix("APIToken ")
}

fn object(request: &Request) -> Result<Map<String, Value>, Box<Outcome>> {
    let refused = |said: &str| Box::new(Outcome::refused(400, said));
    if request.header("content-type") != Some("application/json") {
        return Err(refused("the content type must be application/json"));
    }
    match serde_json::from_slice(&request.body) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(refused("the body is no JSON object")),
    }
}

/// The name in a body that has these fields and no other, in namespace system.
fn named(body: &Map<String, Value>, fields: &[&str]) -> Result<String, Box<Outcome>> {
    let refused = |said: String| Box::new(Outcome::refused(400, said));
    if let Some(unknown) = body.keys().find(|key| !fields.contains(&key.as_str())) {
        return Err(refused(format!("unknown field \"{unknown}\"")));
    }
    if body.get("namespace").and_then(Value::as_str) != Some("system") {
        return Err(refused("namespace must be system".to_owned()));
    }
    match body.get("name").and_then(Value::as_str) {
        Some(name) if (6..=1024).contains(&name.chars().count()) => Ok(name.to_owned()),
        _ => Err(refused("name must have 6 to 1024 characters".to_owned())),
    }
}

fn days(body: &Map<String, Value>, state: &State) -> Result<i64, Box<Outcome>> {
    let most = i64::from(state.options.expiration_days_max.unwrap_or(u32::MAX));
    match body.get("expiration_days").and_then(Value::as_i64) {
        Some(days) if (1..=most).contains(&days) => Ok(days),
        _ => Err(Box::new(Outcome::refused(400, "expiration_days is out of range"))),
    }
}

fn texts(value: Option<&Value>, what: &str) -> Result<BTreeSet<String>, Box<Outcome>> {
    let refused = || Box::new(Outcome::refused(400, format!("{what} must be a list of different texts")));
    let Some(value) = value else { return Ok(BTreeSet::new()) };
    let items = value.as_array().ok_or_else(refused)?;
    let texts: Option<BTreeSet<String>> =
        items.iter().map(|item| item.as_str().filter(|text| !text.is_empty()).map(str::to_owned)).collect();
    texts.filter(|texts| texts.len() == items.len()).ok_or_else(refused)
}

/// A DNS-1035 label, as Terraform's provider asks for; how long one may be is not said.
fn is_label(name: &str) -> bool {
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    plain && name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.ends_with('-')
}

fn create(
    body: &Map<String, Value>,
    caller: &Caller,
    state: &mut State,
    now: DateTime<Utc>,
) -> Result<Outcome, Box<Outcome>> {
    let refused = |said: &str| Box::new(Outcome::refused(400, said));
    let fields = [
        "namespace",
        "name",
        "expiration_days",
        "namespace_roles",
        "user_group_names",
        "type",
        "api_token",
        "api_certificate",
    ];
    let asked = named(body, &fields)?;
    if !is_label(&asked) {
        return Err(refused("name must be a DNS-1035 label"));
    }
    let days = days(body, state)?;
    let kind = match (body.get("api_token"), body.get("api_certificate")) {
        (Some(Value::Object(token)), None) if token.is_empty() => "SERVICE_API_TOKEN",
        (None, Some(Value::Object(certificate))) => {
            let password = certificate.get("password").and_then(Value::as_str).unwrap_or_default();
            if certificate.len() != 1 || !(6..=50).contains(&password.len()) {
                return Err(refused("password must have 6 to 50 bytes"));
            }
            state.secrets.push(password.to_owned());
            "SERVICE_API_CERTIFICATE"
        }
        _ => return Err(refused("exactly one of api_token and api_certificate must be given")),
    };
    if body.get("type").is_some_and(|said| said.as_str() != Some(kind)) {
        return Err(refused("type contradicts what is asked for"));
    }
    let mut roles: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let none = Vec::new();
    for pair in
        body.get("namespace_roles").map_or(Some(&none), Value::as_array).ok_or_else(|| refused("namespace_roles"))?
    {
        let field = |key: &str| pair.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let (Some(namespace), Some(role)) = (field("namespace"), field("role")) else {
            return Err(refused("a role needs a namespace and a role"));
        };
        if namespace.len() > 256 {
            return Err(refused("a namespace has at most 256 characters"));
        }
        roles.entry(namespace.to_owned()).or_default().insert(role.to_owned());
    }
    let groups = texts(body.get("user_group_names"), "user_group_names")?;
    let most = state.options.name_length_max.unwrap_or(usize::MAX);
    let asked = match state.options.own_names {
        true => "svc-cred".to_owned(),
        false => asked.chars().take(most).collect(),
    };
    let name = match state.options.name_suffix {
        true => format!("{asked}{}", chance::name_suffix()),
        false => asked,
    };
    if state.find(&name).is_some() {
        return Err(Box::new(Outcome::refused(409, "service credential exists already")));
    }
    let data = match kind {
        "SERVICE_API_TOKEN" => chance::account_key::<30>(),
        // Begins as a PKCS#12 does and holds noise: nothing here opens one.
        _ => STANDARD.encode([&[0x30, 0x82, 0x02, 0x58][..], &chance::bytes::<600>()].concat()),
    };
    state.secrets.push(data.clone());
    let made = Credential {
        name: name.clone(),
        kind,
        data: data.clone(),
        active: true,
        created: now,
        expires: now + TimeDelta::days(days),
        maker: caller.email.clone(),
        roles,
        groups,
        by_hand: false,
        revoked: None,
    };
    let body = json!({
        "active": true,
        "data": data,
        "expiration_timestamp": instant(made.expires),
        "name": state.options.answered_name.as_ref().unwrap_or(&name),
    });
    state.credentials.push(made);
    Ok(Outcome::done(&name, body))
}

fn replace(name: &str, body: &Map<String, Value>, state: &mut State) -> Result<Outcome, Box<Outcome>> {
    let refused = |status, said: &str| Box::new(Outcome::refused(status, said));
    if named(body, &["namespace", "name", "namespace_access", "user_group_names"])? != name {
        return Err(refused(400, "the name in the body is another than in the path"));
    }
    let access = body.get("namespace_access").and_then(Value::as_object);
    let map = access.filter(|access| access.len() == 1).and_then(|access| access.get("namespace_role_map"));
    let map = map.and_then(Value::as_object).ok_or_else(|| refused(400, "namespace_role_map is required"))?;
    let mut roles = BTreeMap::new();
    for (namespace, value) in map {
        let names = texts(value.get("names"), "names")?;
        roles.insert(namespace.clone(), names);
    }
    let groups = texts(body.get("user_group_names"), "user_group_names")?;
    let ignores = state.options.replace_is_ignored;
    let found = state.find(name).ok_or_else(|| refused(404, "service credential not found"))?;
    if !ignores {
        (found.roles, found.groups) = (roles, groups);
    }
    let body = json!({ "active": found.active, "expiration_timestamp": instant(found.expires), "name": name });
    Ok(Outcome::done(name, body))
}

/// "Disable and mark for deletion": it opens nothing from now on, and is listed as long as the option says.
pub(crate) fn revoke(name: &str, state: &mut State, now: DateTime<Utc>) -> Option<()> {
    let found = state.find(name)?;
    (found.active, found.revoked) = (false, Some(now));
    Some(())
}

fn bulk_revoke(body: &Map<String, Value>, state: &mut State, now: DateTime<Utc>) -> Result<Outcome, Box<Outcome>> {
    let names = texts(body.get("name_selector").and_then(|selector| selector.get("names")), "names")?;
    if body.len() != 1 || !(1..=200).contains(&names.len()) {
        return Err(Box::new(Outcome::refused(400, "name_selector.names must have 1 to 200 names")));
    }
    let (gone, left): (Vec<String>, Vec<String>) =
        names.into_iter().partition(|name| revoke(name, state, now).is_some());
    Ok(Outcome::done(
        "",
        json!({ "credentials_marked_for_deletion": gone, "credentials_failed": left, "error_message": "" }),
    ))
}

fn who(caller: &Caller, state: &State) -> Value {
    let role_map =
        caller.roles.iter().flatten().map(|(namespace, roles)| (namespace.clone(), json!({ "names": roles })));
    let mut who = json!({
        "tenant": state.options.tenant,
        "name": caller.email,
        "email": caller.email,
        "type": if caller.roles.is_some() { "SERVICE" } else { "USER" },
        "namespace_access": { "namespace_role_map": role_map.collect::<Map<String, Value>>() },
    });
    if state.options.nameless_users && caller.roles.is_some() {
        who["type"] = Value::Null;
    }
    who
}

/// As it is listed: with the address of who asked for it.
fn listed(one: &Credential, now: DateTime<Utc>) -> Value {
    shown(one, &one.maker, now)
}

fn shown(one: &Credential, user: &str, now: DateTime<Utc>) -> Value {
    let roles = one.roles.iter().map(|(namespace, roles)| (namespace.clone(), json!({ "names": roles })));
    json!({
        "active": one.active && one.expires > now,
        "create_timestamp": instant(one.created),
        "expiry_timestamp": instant(one.expires),
        "name": one.name,
        "namespace": "system",
        "namespace_access": { "namespace_role_map": roles.collect::<Map<String, Value>>() },
        "type": one.kind,
        "uid": format!("uid-{}", one.name),
        "user_email": user,
        "user_group_names": one.groups,
    })
}

fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}
