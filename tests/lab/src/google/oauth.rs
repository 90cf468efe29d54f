//! Who is asking: the token endpoint for a service account's assertion ("Using OAuth 2.0 for server to server applications") and for
//! what a person granted ("Using OAuth 2.0 for web server applications"), the exchange of a federated proof (RFC 8693, "Security Token
//! Service API"), a machine's metadata server, and what of a token a request may do. A service account may do without the endpoint: a
//! token it signs itself is taken too (AIP-4111).

use std::sync::OnceLock;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use axum::http::Method;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::impersonation;
use super::state::State;
use super::wire::Outcome;
use crate::form;
use crate::http::Request;

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// What the pool takes.
pub(crate) const SUBJECT_TYPE: &str = "urn:ietf:params:oauth:token-type:jwt";
/// The provider of the pool that there is.
pub(crate) const AUDIENCE: &str =
    "//iam.googleapis.com/projects/104857600001/locations/global/workloadIdentityPools/on-premises/providers/gis";
const MACHINE: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
/// The client that the person granted something to: gcloud's own, as its file has it.
pub(crate) const CLIENT: &str = "764086051850-lab.apps.googleusercontent.com";
const CLOUD: &str = "https://www.googleapis.com/auth/cloud-platform";
/// An assertion lives an hour at most; clocks may differ by some seconds.
const LIFETIME_MAX: i64 = 3600 + 60;

/// A request for a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    ServiceAccount,
    Person,
    Federated,
    Machine,
    Impersonation,
}

/// The key of every rotator: making one takes a while, so a process has one.
pub(crate) struct Signer {
    pem: String,
    public: Vec<u8>,
}

impl Signer {
    pub(crate) fn shared() -> &'static Self {
        static SIGNER: OnceLock<Signer> = OnceLock::new();
        SIGNER.get_or_init(|| {
            let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
            let key = key.expect("an RSA key can be made");
            Signer { pem: key.serialize_pem(), public: key.public_key_raw().to_vec() }
        })
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// What of it must not be seen anywhere.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.pem.lines().filter(|line| !line.starts_with("-----")).map(str::to_owned)
    }
}

impl Asked {
    pub(crate) fn read(request: &Request) -> Option<Self> {
        match request.path.as_str() {
            "/token" if is_json(request) => Some(Self::Person),
            "/token" => Some(Self::ServiceAccount),
            "/v1/token" => Some(Self::Federated),
            MACHINE => Some(Self::Machine),
            _ => impersonation::account(request).map(|_| Self::Impersonation),
        }
    }

    pub(crate) fn operation(self) -> &'static str {
        match self {
            Self::ServiceAccount => "Token",
            Self::Person => "RefreshToken",
            Self::Federated => "ExchangeToken",
            Self::Machine => "MachineToken",
            Self::Impersonation => "GenerateAccessToken",
        }
    }

    pub(crate) fn execute(self, request: &Request, state: &mut State, now: DateTime<Utc>) -> Outcome {
        match self {
            Self::ServiceAccount => of_service_account(request, state, now),
            Self::Person => of_person(request, state, now),
            Self::Federated => of_federation(request, state, now),
            Self::Machine => of_machine(request, state, now),
            Self::Impersonation => impersonation::generate(request, state, now),
        }
        .unwrap_or_else(|refusal| refusal)
    }
}

fn of_service_account(request: &Request, state: &mut State, now: DateTime<Utc>) -> Result<Outcome, Outcome> {
    let pairs = posted(request)?;
    let field = |name: &str| form::value(&pairs, name).unwrap_or_default();
    if field("grant_type") != JWT_BEARER {
        return Err(Outcome::oauth(400, "unsupported_grant_type", "Invalid grant_type"));
    }
    let invalid = |what: &str| Outcome::oauth(400, "invalid_grant", what);
    let (header, claims) = verified(field("assertion"), state).map_err(invalid)?;
    if header["alg"] != "RS256" || claims["aud"] != state.token_url() {
        return Err(invalid("Invalid JWT: Failed audience check. The right audience is this endpoint."));
    }
    check_times(&claims, now).map_err(invalid)?;
    let scopes = scopes(claims["scope"].as_str().unwrap_or_default());
    if scopes.is_empty() {
        return Err(Outcome::oauth(400, "invalid_scope", "Empty or missing scope not allowed."));
    }
    let rotator = state.rotator();
    let lifetime = state.options.token_lifetime.as_secs();
    let text = state.give_token(scopes, now);
    Ok(Outcome::json(json!({ "access_token": text, "expires_in": lifetime, "token_type": "Bearer" })).about(&rotator))
}

/// The page has a form for it; Google's own clients for Rust and Go differ, and the first sends JSON. Its `scopes` is no parameter that
/// any page knows, so it changes nothing: what the person granted is given.
fn of_person(request: &Request, state: &mut State, now: DateTime<Utc>) -> Result<Outcome, Outcome> {
    let body: Option<Value> = serde_json::from_slice(&request.body).ok();
    let body = body.filter(|_| request.method == Method::POST && request.query.is_empty());
    let body = body.ok_or_else(|| Outcome::oauth(400, "invalid_request", "Bad Request"))?;
    if body["grant_type"] != "refresh_token" {
        return Err(Outcome::oauth(400, "unsupported_grant_type", "Invalid grant_type"));
    }
    if body["client_id"] != CLIENT || body["client_secret"] != state.client_secret {
        return Err(Outcome::oauth(401, "invalid_client", "The OAuth client was not found."));
    }
    if body["refresh_token"] != state.refresh_token {
        return Err(Outcome::oauth(400, "invalid_grant", "Token has been expired or revoked."));
    }
    let lifetime = state.options.token_lifetime.as_secs();
    let text = state.give_token(vec![CLOUD.to_owned()], now);
    let shown = json!({ "access_token": text, "expires_in": lifetime, "scope": CLOUD, "token_type": "Bearer" });
    Ok(Outcome::json(shown).about("person"))
}

fn is_json(request: &Request) -> bool {
    request.header("content-type").is_some_and(|kind| kind.starts_with("application/json"))
}

fn of_federation(request: &Request, state: &mut State, now: DateTime<Utc>) -> Result<Outcome, Outcome> {
    let pairs = posted(request)?;
    let field = |name: &str| form::value(&pairs, name).unwrap_or_default();
    if field("grant_type") != EXCHANGE || field("requested_token_type") != ACCESS_TOKEN {
        return Err(Outcome::oauth(400, "unsupported_grant_type", "Unsupported grant type."));
    }
    if field("audience") != AUDIENCE {
        return Err(Outcome::oauth(400, "invalid_target", "The target service indicated by the audience is invalid."));
    }
    if field("subject_token_type") != SUBJECT_TYPE {
        return Err(Outcome::oauth(400, "invalid_request", "Invalid value for \"subject_token_type\"."));
    }
    if field("subject_token") != state.subject_token {
        return Err(Outcome::oauth(
            400,
            "invalid_grant",
            "The given credential is rejected by the attribute condition.",
        ));
    }
    let scopes = scopes(field("scope"));
    if scopes.is_empty() {
        return Err(Outcome::oauth(400, "invalid_scope", "Scope is required."));
    }
    let lifetime = state.options.token_lifetime.as_secs();
    let text = state.give_token(scopes, now);
    let shown = json!({ "access_token": text, "issued_token_type": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": lifetime });
    Ok(Outcome::json(shown).about("federated"))
}

/// Whoever may reach it must say that it means to (`Metadata-Flavor`), and may have come through nobody ("About VM metadata").
/// What is asked for does not matter: a machine has the scopes it was made with.
fn of_machine(request: &Request, state: &mut State, now: DateTime<Utc>) -> Result<Outcome, Outcome> {
    let forwarded = request.header("x-forwarded-for").is_some();
    if request.method != Method::GET || request.header("metadata-flavor") != Some("Google") || forwarded {
        return Err(Outcome::page(403, "Missing Metadata-Flavor:Google header."));
    }
    let scopes = state.options.machine_scopes.clone();
    let lifetime = state.options.token_lifetime.as_secs();
    let text = state.give_token(scopes, now);
    let shown = json!({ "access_token": text, "expires_in": lifetime, "token_type": "Bearer" });
    Ok(Outcome::json(shown).header("metadata-flavor", "Google").about("machine"))
}

fn posted(request: &Request) -> Result<Vec<(String, String)>, Outcome> {
    let pairs = request.form();
    match request.method == Method::POST && !pairs.is_empty() && request.query.is_empty() {
        true => Ok(pairs),
        false => Err(Outcome::oauth(400, "invalid_request", "Only a form that is posted is taken.")),
    }
}

fn scopes(text: &str) -> Vec<String> {
    text.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect()
}

/// What the bearer of a request may do; `None` where it is none of ours, or over.
pub(crate) fn scopes_of(request: &Request, state: &State, now: DateTime<Utc>) -> Option<Vec<String>> {
    let (scheme, text) = request.header("authorization")?.split_once(' ')?;
    if scheme != "Bearer" {
        return None;
    }
    if let Some(token) = state.tokens.get(text) {
        return (token.expires > now).then(|| token.scopes.clone());
    }
    // A token that a service account signed itself has scopes instead of an audience; Google's own client for Rust writes null there.
    let (_, claims) = verified(text, state).ok()?;
    check_times(&claims, now).ok()?;
    let has = scopes(claims["scope"].as_str()?);
    (claims["sub"] == claims["iss"] && claims["aud"].is_null() && !has.is_empty()).then_some(has)
}

/// Header and claims of what the rotator's key signed; else what Google says of it.
fn verified(text: &str, state: &State) -> Result<(Value, Value), &'static str> {
    let broken = "Bad Request";
    let (message, signature) = text.rsplit_once('.').ok_or(broken)?;
    let (header, claims) = message.split_once('.').ok_or(broken)?;
    let json = |part: &str| {
        let raw = URL_SAFE_NO_PAD.decode(part).ok()?;
        serde_json::from_slice::<Value>(&raw).ok().filter(Value::is_object)
    };
    let (header, claims) = (json(header).ok_or(broken)?, json(claims).ok_or(broken)?);
    if claims["iss"] != state.rotator() {
        return Err("Invalid grant: account not found");
    }
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| broken)?;
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &Signer::shared().public);
    if header["kid"] != state.signer_id || public.verify(message.as_bytes(), &signature).is_err() {
        return Err("Invalid JWT Signature.");
    }
    Ok((header, claims))
}

fn check_times(claims: &Value, now: DateTime<Utc>) -> Result<(), &'static str> {
    let time = |name: &str| claims[name].as_i64();
    let (Some(from), Some(to)) = (time("iat"), time("exp")) else {
        return Err("Invalid JWT: iat and exp are required.");
    };
    let now = now.timestamp();
    match to > now && from <= now + 30 && to - from <= LIFETIME_MAX && to - from > 0 {
        true => Ok(()),
        false => Err(
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values \
             in the JWT claim.",
        ),
    }
}
