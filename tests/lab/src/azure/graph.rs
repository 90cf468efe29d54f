//! Microsoft Graph, as far as the passwords of applications go, and who may change them.

use axum::http::Method;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use super::PasswordPolicy;
use super::roles::APP_ROLES;
use super::state::{Application, Password, State, delta};
use super::wire::{Outcome, bearer, instant, object, segments};
use crate::form;
use crate::http::Request;

/// What lets an application change those it is an owner of, and read all.
const OWNED: &str = "Application.ReadWrite.OwnedBy";

/// What lets it change all.
const ALL: &str = "Application.ReadWrite.All";

/// What lets it read the tenant's policies; those above do not.
const POLICIES: &str = "Policy.Read.All";

/// Graph itself, in every tenant.
const GRAPH: &str = "00000003-0000-0000-c000-000000000000";

/// What `passwordCredential` of a request may have; the rest is the server's.
const WRITABLE: [&str; 4] = ["@odata.type", "displayName", "startDateTime", "endDateTime"];

/// The tenant's app management policy has an id, and refusals name it.
const POLICY: &str = "538f1913-366a-440a-95a0-e195cb55b282";

#[derive(Clone)]
pub(crate) struct Asked {
    selector: Selector,
    verb: Verb,
}

#[derive(Clone)]
enum Selector {
    ObjectId(String),
    AppId(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Get,
    Owners,
    AddPassword,
    RemovePassword,
    /// Of a service principal, as the next.
    Principal,
    AppRoles,
    /// Of the tenant.
    Policy,
}

impl Asked {
    pub(crate) fn read(request: &Request) -> Option<Self> {
        let pieces = segments(&request.path);
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let (set, selector, rest) = match *pieces.as_slice() {
            ["v1.0", set @ ("applications" | "servicePrincipals" | "policies"), id, ref rest @ ..] => {
                (set, Selector::ObjectId(id.to_owned()), rest)
            }
            ["v1.0", which, ref rest @ ..] => {
                let (set, id) = which.strip_suffix("')")?.split_once("(appId='")?;
                (set, Selector::AppId(id.to_owned()), rest)
            }
            _ => return None,
        };
        let verb = match (set, &request.method, rest) {
            ("applications", &Method::GET, []) => Verb::Get,
            ("applications", &Method::GET, ["owners"]) => Verb::Owners,
            ("applications", &Method::POST, ["addPassword"]) => Verb::AddPassword,
            ("applications", &Method::POST, ["removePassword"]) => Verb::RemovePassword,
            ("servicePrincipals", &Method::GET, []) => Verb::Principal,
            ("servicePrincipals", &Method::GET, ["appRoleAssignments"]) => Verb::AppRoles,
            ("policies", &Method::GET, []) if pieces.get(2) == Some(&"defaultAppManagementPolicy") => Verb::Policy,
            _ => return None,
        };
        Some(Self { selector, verb })
    }

    pub(crate) fn operation(&self) -> &'static str {
        match self.verb {
            Verb::Get => "GetApplication",
            Verb::Owners => "ListOwners",
            Verb::AddPassword => "AddPassword",
            Verb::RemovePassword => "RemovePassword",
            Verb::Principal => "GetServicePrincipal",
            Verb::AppRoles => "ListAppRoleAssignments",
            Verb::Policy => "GetAppManagementPolicy",
        }
    }

    /// The id asked for, as it was sent.
    pub(crate) fn name(&self) -> &str {
        match &self.selector {
            Selector::ObjectId(id) | Selector::AppId(id) => id,
        }
    }

    pub(crate) fn execute(&self, request: &Request, state: &mut State, now: DateTime<Utc>) -> Outcome {
        self.serve(request, state, now).unwrap_or_else(|refusal| refusal)
    }

    fn serve(&self, request: &Request, state: &mut State, now: DateTime<Utc>) -> Result<Outcome, Outcome> {
        let client_id = authenticate(request, state, now)?;
        // Each but the one for policies lets its holder read every application and principal.
        let given = match self.verb {
            Verb::Policy => state.has_app_role(POLICIES),
            _ => state.app_roles().any(|(role, _)| role.name != POLICIES),
        };
        if client_id != state.rotator || !given {
            return Err(denied());
        }
        if self.verb == Verb::Policy {
            return Ok(Outcome::json(policy(state)));
        }
        let of_graph = match &self.selector {
            Selector::AppId(id) => id.eq_ignore_ascii_case(GRAPH),
            Selector::ObjectId(id) => id.eq_ignore_ascii_case(&state.graph_principal),
        };
        if self.verb == Verb::Principal && of_graph {
            return selected(request, "servicePrincipals", own_principal(state));
        }
        let Some(app) = self.find(state).cloned() else {
            let asked = self.name();
            let message = format!(
                "Resource '{asked}' does not exist or one of its queried reference-property objects are not present."
            );
            return Err(Outcome::error(404, "Request_ResourceNotFound", message));
        };
        let named = |outcome: Outcome| outcome.about(&app.object_id);
        if matches!(self.verb, Verb::AddPassword | Verb::RemovePassword) {
            let may = state.has_app_role(ALL) || (state.has_app_role(OWNED) && app.owned);
            if !may {
                return Err(named(denied()));
            }
            // Nothing that is refused for another reason has kept the directory busy.
            check_pause(state, now).map_err(named)?;
        }
        match self.verb {
            Verb::Get => show(request, &app, state, now),
            Verb::AddPassword => add(request, &app, state, now),
            Verb::RemovePassword => remove(request, &app, state, now),
            Verb::Owners => selected_each(request, "directoryObjects", owners(&app, state)),
            Verb::Principal => selected(request, "servicePrincipals", principal(&app, state)),
            Verb::AppRoles => selected_each(request, "appRoleAssignments", app_roles(&app, state)),
            Verb::Policy => unreachable!("a policy is no application's, and was answered above"),
        }
        .map(named)
        .map_err(named)
    }

    /// The application, or the one whose principal is asked for; each is known by two ids, and the object ids differ.
    fn find<'a>(&self, state: &'a State) -> Option<&'a Application> {
        let of_principal = matches!(self.verb, Verb::Principal | Verb::AppRoles);
        state.applications.values().find(|app| match &self.selector {
            Selector::AppId(id) => app.client_id.eq_ignore_ascii_case(id),
            Selector::ObjectId(id) if of_principal => app.principal_id.eq_ignore_ascii_case(id),
            Selector::ObjectId(id) => app.object_id.eq_ignore_ascii_case(id),
        })
    }
}

/// The same words, whether a permission is missing or an owner.
fn denied() -> Outcome {
    Outcome::error(403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")
}

fn authenticate(request: &Request, state: &State, now: DateTime<Utc>) -> Result<String, Outcome> {
    let refuse = |message: &str| Outcome::error(401, "InvalidAuthenticationToken", message);
    let text = bearer(request).filter(|text| !text.is_empty()).ok_or_else(|| refuse("Access token is empty."))?;
    let token = state.tokens.get(text).ok_or_else(|| refuse("Access token validation failure."))?;
    if token.audience.trim_end_matches('/') != "https://graph.microsoft.com" {
        return Err(refuse("Access token validation failure. Invalid audience."));
    }
    if token.expires <= now {
        return Err(refuse("Lifetime validation failed, the token is expired."));
    }
    Ok(token.client_id.clone())
}

/// 409 in nais/azurerator issue 448, 503 in azure-cli issue 23081 ([`crate::Fault::Error`] brings that one).
pub(crate) fn concurrency(status: u16) -> Outcome {
    let message = "Error due to concurrent requests being made to the tenant. Please wait briefly and retry.";
    Outcome::error(status, "Directory_ConcurrencyViolation", message)
}

fn check_pause(state: &State, now: DateTime<Utc>) -> Result<(), Outcome> {
    let pause = delta(state.options.directory_pause);
    match state.directory_written {
        Some(at) if at + pause > now => Err(concurrency(409)),
        _ => Ok(()),
    }
}

/// The application, or what `$select` names of it.
fn show(request: &Request, app: &Application, state: &State, now: DateTime<Utc>) -> Result<Outcome, Outcome> {
    let lag = state.options.listing_lag;
    let passwords: Vec<Value> =
        app.passwords.iter().filter(|p| p.listed(now, lag)).map(|p| credential(p, None)).collect();
    let whole = json!({
        "id": app.object_id,
        "appId": app.client_id,
        "displayName": app.display_name,
        "signInAudience": if app.passwords_max.is_some() { "AzureADandPersonalMicrosoftAccount" } else { "AzureADMyOrg" },
        "passwordCredentials": passwords,
        "keyCredentials": [],
    });
    selected(request, "applications", whole)
}

/// A thing, or what `$select` names of it.
fn selected(request: &Request, set: &str, whole: Value) -> Result<Outcome, Outcome> {
    let query = form::pairs(&request.query);
    let mut shown = Map::new();
    let names = form::value(&query, "$select");
    let of = names.map_or(String::new(), |names| format!("({names})"));
    shown.insert("@odata.context".to_owned(), context(&format!("{set}{of}/$entity")));
    shown.extend(select(names, whole)?);
    Ok(Outcome::json(shown.into()))
}

/// The same for each of a list.
fn selected_each(request: &Request, set: &str, all: Vec<Value>) -> Result<Outcome, Outcome> {
    let query = form::pairs(&request.query);
    let names = form::value(&query, "$select");
    let of = names.map_or(String::new(), |names| format!("({names})"));
    let all = all.into_iter().map(|whole| select(names, whole).map(Value::from)).collect::<Result<Vec<_>, _>>()?;
    Ok(Outcome::json(json!({"@odata.context": context(&format!("{set}{of}")), "value": all})))
}

/// What a thing is stays with it, whatever is named.
fn select(names: Option<&str>, whole: Value) -> Result<Map<String, Value>, Outcome> {
    let whole = whole.as_object().cloned().unwrap_or_default();
    let Some(names) = names else { return Ok(whole) };
    let mut shown = Map::new();
    let is = |name: &&str| whole.contains_key(*name);
    for name in ["@odata.type"].iter().filter(|name| is(name)).copied().chain(names.split(',').map(str::trim)) {
        let Some(value) = whole.get(name) else {
            let message = format!("Could not find a property named '{name}'.");
            return Err(Outcome::error(400, "BadRequest", message));
        };
        shown.insert(name.to_owned(), value.clone());
    }
    Ok(shown)
}

/// A user, of whom a caller without the right to read users learns the id, and the rotator where it is one.
fn owners(app: &Application, state: &State) -> Vec<Value> {
    let user = json!({
        "@odata.type": "#microsoft.graph.user", "id": state.human, "appId": null, "displayName": null,
        "userPrincipalName": null,
    });
    let rotator = state.applications.values().find(|app| app.client_id == state.rotator).filter(|_| app.owned);
    let rotator = rotator.map(|rotator| {
        json!({
            "@odata.type": "#microsoft.graph.servicePrincipal", "id": rotator.principal_id, "appId": rotator.client_id,
            "displayName": rotator.display_name, "userPrincipalName": null,
        })
    });
    [user].into_iter().chain(rotator).collect()
}

fn principal(app: &Application, state: &State) -> Value {
    json!({
        "id": app.principal_id,
        "appId": app.client_id,
        "displayName": app.display_name,
        "appOwnerOrganizationId": state.options.tenant_id,
        "servicePrincipalType": "Application",
        "appRoles": [],
    })
}

/// Graph's own, which says what the ids of its permissions mean.
fn own_principal(state: &State) -> Value {
    let roles = APP_ROLES.iter().map(
        |role| json!({"id": role.id, "value": role.name, "isEnabled": true, "allowedMemberTypes": ["Application"]}),
    );
    json!({
        "id": state.graph_principal,
        "appId": GRAPH,
        "displayName": "Microsoft Graph",
        "appOwnerOrganizationId": "f8cdef31-a31e-4b4a-93e4-5f571e91255a",
        "servicePrincipalType": "Application",
        "appRoles": roles.collect::<Vec<_>>(),
    })
}

/// Nobody but the rotator was given any.
fn app_roles(app: &Application, state: &State) -> Vec<Value> {
    let given = state.app_roles().filter(|_| app.client_id == state.rotator);
    let shown = given.map(|(role, since)| {
        json!({
            "id": format!("{}-{}", app.principal_id, role.id),
            "deletedDateTime": null,
            "appRoleId": role.id,
            "createdDateTime": instant(since),
            "principalDisplayName": app.display_name,
            "principalId": app.principal_id,
            "principalType": "ServicePrincipal",
            "resourceDisplayName": "Microsoft Graph",
            "resourceId": state.graph_principal,
        })
    });
    shown.collect()
}

/// The tenant's app management policy, as far as passwords of applications go.
fn policy(state: &State) -> Value {
    let since = "2019-10-19T10:37:00Z";
    let restriction = match state.options.password_policy {
        PasswordPolicy::Any => None,
        PasswordPolicy::Forbidden => Some(("passwordAddition", None)),
        PasswordPolicy::Lifetime(most) => Some(("passwordLifetime", Some(format!("PT{}S", most.as_secs())))),
    };
    let restrictions = restriction.iter().map(|(kind, most)| {
        json!({
            "restrictionType": kind, "state": "enabled", "maxLifetime": most,
            "restrictForAppsCreatedAfterDateTime": since,
        })
    });
    json!({
        "@odata.context": context("policies/defaultAppManagementPolicy/$entity"),
        "id": "00000000-0000-0000-0000-000000000000",
        "displayName": "Default app management tenant policy",
        "description": "Default tenant policy that enforces app management restrictions on applications and service principals.",
        "isEnabled": restriction.is_some(),
        "applicationRestrictions": {"passwordCredentials": restrictions.collect::<Vec<_>>(), "keyCredentials": []},
        "servicePrincipalRestrictions": {"passwordCredentials": [], "keyCredentials": []},
    })
}

fn add(request: &Request, app: &Application, state: &mut State, now: DateTime<Utc>) -> Result<Outcome, Outcome> {
    let body = object(request)?;
    let empty = Map::new();
    let wish = match body.get("passwordCredential") {
        None | Some(Value::Null) => &empty,
        Some(Value::Object(wish)) => wish,
        Some(_) => return Err(bad("Invalid value specified for property 'passwordCredential'.")),
    };
    if let Some(foreign) = body.keys().find(|name| *name != "passwordCredential") {
        return Err(bad(&format!("The property '{foreign}' does not exist on addPassword.")));
    }
    // That what only the server sets is refused, not ignored, is our choice: a client that sends it has misread the document.
    if let Some(foreign) = wish.keys().find(|name| !WRITABLE.contains(&name.as_str())) {
        return Err(bad(&format!("Invalid property '{foreign}'.")));
    }
    let (start, end) = (date(wish, "startDateTime")?, date(wish, "endDateTime")?);
    let display_name = wish.get("displayName").and_then(Value::as_str).map(str::to_owned);
    let from = start.unwrap_or(now);
    if end.is_some_and(|end| end <= from || end <= now) {
        return Err(bad("The end date of the password credential is invalid."));
    }
    check_policy(state.options.password_policy, from, end)?;
    let living = app.living().count();
    if app.passwords_max.is_some_and(|max| living >= max) {
        let message =
            format!("Not allowed to add {} passwords. You can only add a maximum of {living} passwords.", living + 1);
        let details = json!([{"target": "passwordCredentials", "code": "TooManyAppPasswords"}]);
        return Err(Outcome::detailed(400, "TooManyAppPasswords", message, details));
    }
    let password = state.add_password(&app.object_id, display_name, (start, end), now, false);
    state.mints += 1;
    state.directory_written = Some(now);
    let mut answer = credential(&password, Some(&password.secret));
    answer["@odata.context"] = context("microsoft.graph.passwordCredential");
    Ok(Outcome::json(answer).of_key(&password.key_id))
}

/// What was just added cannot be removed by a replica that does not show it yet: it says 400, as for what was never there.
fn remove(request: &Request, app: &Application, state: &mut State, now: DateTime<Utc>) -> Result<Outcome, Outcome> {
    let body = object(request)?;
    let key_id = body.get("keyId").and_then(Value::as_str).and_then(|id| uuid::Uuid::parse_str(id).ok());
    let Some(key_id) = key_id.map(|id| id.to_string()) else {
        return Err(bad("Invalid value specified for property 'keyId'."));
    };
    let lag = state.options.listing_lag;
    let application = state.applications.get_mut(&app.object_id);
    let password = application.and_then(|app| {
        app.passwords.iter_mut().find(|p| p.key_id == key_id && p.removed.is_none() && p.listed(now, lag))
    });
    match password {
        None => Err(bad("No password credential found with keyId.")),
        Some(password) => {
            password.removed = Some(now);
            state.directory_written = Some(now);
            Ok(Outcome::done(204).of_key(&key_id))
        }
    }
}

fn check_policy(policy: PasswordPolicy, start: DateTime<Utc>, end: Option<DateTime<Utc>>) -> Result<(), Outcome> {
    match policy {
        PasswordPolicy::Any => Ok(()),
        PasswordPolicy::Forbidden => {
            let message = format!("Credential type not allowed as per assigned policy '{POLICY}'.");
            Err(Outcome::error(400, "CredentialTypeNotAllowedAsPerAppPolicy", message))
        }
        // Without an end it would last two years, whatever the policy says.
        PasswordPolicy::Lifetime(most) if end.is_none_or(|end| end - start > delta(most)) => {
            let message =
                format!("Credential lifetime exceeds the max value allowed as per assigned policy '{POLICY}'.");
            let details = json!([{"code": "InvalidKeyEndDate", "message": message, "target": "EndDate"}]);
            Err(Outcome::detailed(400, "CredentialInvalidLifetimeAsPerAppPolicy", message, details))
        }
        PasswordPolicy::Lifetime(_) => Ok(()),
    }
}

/// The code is Graph's for all that is malformed; the words are ours, but for a password that is not there.
fn bad(message: &str) -> Outcome {
    Outcome::error(400, "Request_BadRequest", message)
}

fn date(wish: &Map<String, Value>, name: &str) -> Result<Option<DateTime<Utc>>, Outcome> {
    match wish.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let at = value.as_str().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
            let at = at.ok_or_else(|| bad(&format!("Invalid value specified for property '{name}'.")))?;
            Ok(Some(at.with_timezone(&Utc)))
        }
    }
}

/// The secret is there once, in the answer to its making.
fn credential(password: &Password, secret: Option<&str>) -> Value {
    let date = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    json!({
        "customKeyIdentifier": null,
        "displayName": password.display_name,
        "endDateTime": date(password.end),
        "hint": password.secret.get(..3),
        "keyId": password.key_id,
        "secretText": secret,
        "startDateTime": date(password.start),
    })
}

fn context(what: &str) -> Value {
    format!("https://graph.microsoft.com/v1.0/$metadata#{what}").into()
}
