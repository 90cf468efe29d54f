//! The token endpoint: client credentials, with a secret or with somebody else's assertion. Beside it the one that a machine at Azure has
//! for its own identity, in the form of App Service ("REST endpoint reference" of managed identities there); the other form, at a fixed
//! address of the virtual machine's network, cannot stand on loopback.

use axum::http::Method;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::state::{Login, State, Token, delta};
use super::wire::{Content, Outcome, segments};
use crate::http::Request;
use crate::{chance, form};

/// Resources a token may be asked for. Some have a second name, and each may be written with a slash at its end.
const RESOURCES: [&str; 4] = [
    "https://management.azure.com",
    "https://management.core.windows.net",
    "https://graph.microsoft.com",
    "https://storage.azure.com",
];

const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Where the machine asks for its own token; whoever may reach it must know what is in the header besides.
pub(crate) const MACHINE: &str = "/msi/token";
/// In `X-IDENTITY-HEADER`.
pub(crate) const MACHINE_HEADER: &str = "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a";

/// A request for a token.
#[derive(Clone)]
pub(crate) enum Asked {
    /// Of this tenant.
    Tenant(String),
    /// Of the machine, which is the rotator.
    Machine,
}

impl Asked {
    pub(crate) fn read(request: &Request) -> Option<Self> {
        match segments(&request.path).as_slice() {
            _ if request.path == MACHINE => Some(Self::Machine),
            [tenant, oauth2, version, token] if [oauth2, version, token] == ["oauth2", "v2.0", "token"] => {
                Some(Self::Tenant(tenant.clone()))
            }
            _ => None,
        }
    }

    /// What the form says it is, then who says so. That the scope is looked at before the secret is our choice.
    pub(crate) fn execute(&self, request: &Request, state: &mut State, now: DateTime<Utc>) -> Outcome {
        let Self::Tenant(asked) = self else { return of_machine(request, state, now) };
        if request.method != Method::POST {
            let text = format!("The endpoint only accepts POST requests. Received a {} request.", request.method);
            return Outcome::sts(400, "invalid_request", 900_561, text);
        }
        if !asked.eq_ignore_ascii_case(&state.options.tenant_id) {
            let text = format!(
                "Tenant '{}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. \
                 Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant.",
                asked
            );
            return Outcome::sts(400, "invalid_request", 90_002, text);
        }
        let pairs = request.form();
        let field = |name: &str| form::value(&pairs, name).filter(|value| !value.is_empty());
        for name in ["grant_type", "client_id", "scope"] {
            if field(name).is_none() {
                let text = format!("The request body must contain the following parameter: '{name}'.");
                return Outcome::sts(400, "invalid_request", 900_144, text);
            }
        }
        let field = |name: &str| form::value(&pairs, name).unwrap_or_default();
        if field("grant_type") != "client_credentials" {
            let text = format!("The app requested an unsupported grant type '{}'.", field("grant_type"));
            return Outcome::sts(400, "unsupported_grant_type", 70_003, text);
        }
        let audience = match audience(field("scope"), &state.options.tenant_id) {
            Ok(audience) => audience,
            Err(refusal) => return refusal,
        };
        let client_id = field("client_id").to_ascii_lowercase();
        let login = match authenticate(&pairs, &client_id, state, now) {
            Ok(login) => login,
            Err(refusal) => return refusal,
        };
        grant(state, &client_id, audience, now).about(&client_id).of_key(&login)
    }
}

/// The resource behind `…/.default`.
fn audience(scope: &str, tenant: &str) -> Result<String, Outcome> {
    let Some(resource) = scope.strip_suffix("/.default").filter(|resource| !resource.contains(' ')) else {
        let text = format!(
            "The provided value for scope {scope} is not valid. Client credential flows must have a scope value with /.default \
             suffixed to the resource identifier (application ID URI)."
        );
        return Err(Outcome::sts(400, "invalid_scope", 1_002_012, text));
    };
    let known = RESOURCES.iter().find(|known| resource.trim_end_matches('/') == **known);
    known.map(|_| resource.to_owned()).ok_or_else(|| {
        let text = format!(
            "The resource principal named {resource} was not found in the tenant named {tenant}. This can happen if the application \
             has not been installed by the administrator of the tenant or consented to by any user in the tenant. You might have \
             sent your authentication request to the wrong tenant."
        );
        Outcome::sts(400, "invalid_resource", 500_011, text)
    })
}

/// The id of the password that was right; empty for an assertion.
fn authenticate(
    pairs: &[(String, String)],
    client_id: &str,
    state: &mut State,
    now: DateTime<Utc>,
) -> Result<String, Outcome> {
    let field = |name: &str| form::value(pairs, name);
    let (tenant, options) = (state.options.tenant_id.clone(), state.options.clone());
    let Some(app) = state.by_client_id(client_id) else {
        let text = format!(
            "Application with identifier '{client_id}' was not found in the directory '{tenant}'. This can happen if the application \
             has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent \
             your authentication request to the wrong tenant."
        );
        return Err(Outcome::sts(400, "unauthorized_client", 700_016, text));
    };
    let refuse = |code, text: String| Err(Outcome::sts(401, "invalid_client", code, text).about(client_id));
    match (field("client_secret"), field("client_assertion")) {
        (Some(secret), None) => match app.login(secret, now, &options) {
            Login::Good(key_id) => Ok(key_id),
            Login::Expired(key_id) => {
                let text = format!(
                    "The provided client secret keys for app '{client_id}' are expired. Visit the Azure portal to create new keys for \
                     your app: https://aka.ms/NewClientSecret, or consider using certificate credentials for added security: \
                     https://aka.ms/certCreds."
                );
                refuse(7_000_222, text).map_err(|refusal| refusal.of_key(&key_id))
            }
            Login::Unknown => {
                let text = format!(
                    "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the \
                     client secret ID, for a secret added to app '{client_id}'."
                );
                refuse(7_000_215, text)
            }
        },
        (None, Some(assertion)) => {
            if field("client_assertion_type") != Some(ASSERTION) || !is_assertion(assertion, now) {
                return refuse(50_027, "JWT token is invalid or malformed.".to_owned());
            }
            if !app.federated {
                // The code is Entra's; that the status is 401 is our choice.
                let text = "No matching federated identity record found for presented assertion.".to_owned();
                return refuse(70_021, text);
            }
            Ok(String::new())
        }
        _ => {
            let text = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.";
            refuse(7_000_218, text.to_owned())
        }
    }
}

/// Three parts, the first two JSON objects, the second not over yet. The third is not checked: keys are not what is tried here.
fn is_assertion(text: &str, now: DateTime<Utc>) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    let [header, claims, signature] = parts.as_slice() else { return false };
    let json = |part: &str| {
        let raw = URL_SAFE_NO_PAD.decode(part).ok()?;
        serde_json::from_slice::<Value>(&raw).ok().filter(Value::is_object)
    };
    let (Some(header), Some(claims)) = (json(header), json(claims)) else { return false };
    let ends = claims["exp"].as_i64().unwrap_or_default();
    header["alg"].is_string() && claims["sub"].is_string() && ends > now.timestamp() && !signature.is_empty()
}

/// The machine's own identity is the rotator's. The words of its refusals are our own.
fn of_machine(request: &Request, state: &mut State, now: DateTime<Utc>) -> Outcome {
    let refuse = |status, message: &str| {
        Outcome::new(status, Content::Json(json!({ "statusCode": status, "message": message })), false)
    };
    if request.method != Method::GET || request.header("x-identity-header") != Some(MACHINE_HEADER) {
        return refuse(401, "Only this machine may ask.");
    }
    let pairs = form::pairs(&request.query);
    let field = |name: &str| form::value(&pairs, name).unwrap_or_default();
    let rotator = state.rotator.clone();
    if field("api-version") != "2019-08-01" || ![rotator.as_str(), ""].contains(&field("client_id")) {
        return refuse(400, "No managed identity was found for the specified parameters.");
    }
    let Some(resource) = RESOURCES.iter().find(|known| field("resource").trim_end_matches('/') == **known) else {
        return refuse(400, "The resource is unknown.");
    };
    let expires = (now + delta(state.options.token_lifetime)).timestamp();
    let text = token(state, &rotator, (*resource).to_owned(), now);
    let shown = json!({ "access_token": text, "expires_on": expires.to_string(), "resource": resource, "token_type": "Bearer",
        "client_id": rotator });
    Outcome::json(shown).about(&rotator)
}

fn token(state: &mut State, client_id: &str, audience: String, now: DateTime<Utc>) -> String {
    let text = chance::access_token();
    let expires = now + delta(state.options.token_lifetime);
    state.tokens.insert(text.clone(), Token { client_id: client_id.to_owned(), audience, expires });
    text
}

fn grant(state: &mut State, client_id: &str, audience: String, now: DateTime<Utc>) -> Outcome {
    let lifetime = state.options.token_lifetime;
    let text = token(state, client_id, audience, now);
    Outcome::json(json!({
        "token_type": "Bearer",
        "expires_in": lifetime.as_secs(),
        "ext_expires_in": lifetime.as_secs(),
        "access_token": text,
    }))
}
