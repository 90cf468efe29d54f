//! A service account's token, asked for with an assertion that its key signs (RFC 7523; Google's page "Using OAuth 2.0 for server to
//! server applications"). Spoken here where the policy or the file names an endpoint other than Google's: `google-cloud-auth` signs
//! its tokens itself and asks nobody.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::SignatureScheme;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroize;

use super::client::signing_time;
use crate::model::{Reason, Secret, Timestamp, deserialize_secret};
use crate::net::client::{Client, Request};
use crate::net::redact::Redactor;
use crate::ports::Fault;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// An hour is the most that is taken; an assertion is used once, at once.
const ASSERTION_LIFETIME: i64 = 300;
/// A token is asked for anew so long before its end, so that none ends on its way.
const SLACK: Duration = Duration::from_secs(60);

/// Who asks, and where.
pub(super) struct Grant {
    email: String,
    key_id: Option<String>,
    /// PEM.
    key: Secret,
    url: String,
}

/// A token, and until when it is handed out.
#[derive(Clone)]
pub(super) struct Granted {
    token: Secret,
    ends: Instant,
}

/// RFC 6749, 5.1 and 5.2.
#[derive(Deserialize)]
struct Given {
    #[serde(deserialize_with = "deserialize_secret")]
    access_token: Secret,
    #[serde(default)]
    expires_in: u64,
}

#[derive(Deserialize)]
struct Declined {
    error: String,
    #[serde(default)]
    error_description: String,
}

impl Granted {
    pub(super) fn token(&self) -> Secret {
        self.token.clone()
    }

    /// Whether there is time left to use it. The monotonic clock at the edge: nothing else hangs on it.
    #[allow(clippy::disallowed_methods)]
    pub(super) fn is_good(&self) -> bool {
        self.ends > Instant::now()
    }
}

impl Grant {
    /// `file` is the whole credentials file.
    ///
    /// # Errors
    /// It holds no key that signs as Google wants it (RSA, PEM).
    pub(super) fn new(file: &Secret, email: &str, url: String) -> Result<Self, String> {
        let json: Value = serde_json::from_str(file.expose()).unwrap_or_default();
        let text = |key: &str| json[key].as_str().map(str::to_owned);
        let key = Secret::new(text("private_key").unwrap_or_default());
        let grant = Self { email: email.to_owned(), key_id: text("private_key_id"), key, url };
        grant.signature(b"a try").ok_or("its private_key is no RSA key in PEM")?;
        Ok(grant)
    }

    /// One request. A failure is `NotSent` where it may pass, for nothing but the
    /// login was sent.
    ///
    /// # Errors
    /// [`Fault::NotSent`], or [`Fault::Refused`] with `login-refused`.
    #[allow(clippy::disallowed_methods)] // the monotonic clock at the edge
    pub(super) async fn ask(&self, client: &Client, scope: &str) -> Result<Granted, Fault> {
        let assertion = Secret::new(self.assertion(scope, signing_time()).unwrap_or_default());
        let form = [("grant_type", GRANT), ("assertion", assertion.expose())];
        let asked = Instant::now();
        let answer = client.send("asking for a token", Request::post_form(&self.url, &form)).await;
        let answer = answer?;
        if answer.status == 200
            && let Ok(given) = serde_json::from_slice::<Given>(&answer.body)
        {
            let lasts = Duration::from_secs(given.expires_in).saturating_sub(SLACK);
            return Ok(Granted { token: given.access_token, ends: asked + lasts.min(Duration::from_secs(3600)) });
        }
        let declined: Option<Declined> = serde_json::from_slice(&answer.body).ok();
        let fault = match (answer.status, declined) {
            // A page of somebody in between, a server in trouble: all of it passes.
            (status, None) => {
                Fault::NotSent(format!("status {status} and a body that is no answer of a token endpoint"))
            }
            (status, Some(said)) => {
                let redactor = Redactor::new([&assertion]);
                let first = said.error_description.lines().next().unwrap_or_default().trim().to_owned();
                let why = with_help(&redactor.clean(&said.error), &redactor.clean(&first));
                match status {
                    408 | 429 | 500.. => Fault::NotSent(format!("{why} ({status})")),
                    _ if is_clock(&first) => Fault::NotSent(format!("{why} ({status})")),
                    _ => Fault::Refused { reason: Reason::LoginRefused, why: format!("{why} ({status})") },
                }
            }
        };
        Err(fault)
    }

    /// `header.claims.signature`.
    fn assertion(&self, scope: &str, now: Timestamp) -> Option<String> {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let mut header = json!({ "alg": "RS256", "typ": "JWT" });
        if let Some(id) = &self.key_id {
            header["kid"] = id.as_str().into();
        }
        let claims = json!({
            "iss": self.email,
            "scope": scope,
            "aud": self.url,
            "iat": now.timestamp(),
            "exp": now.timestamp() + ASSERTION_LIFETIME,
        });
        let message = format!("{}.{}", part(header), part(claims));
        let signature = self.signature(message.as_bytes())?;
        Some(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// `RS256` of RFC 7518.
    fn signature(&self, message: &[u8]) -> Option<Vec<u8>> {
        let mut der = PrivateKeyDer::from_pem_slice(self.key.expose().as_bytes()).ok()?;
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der);
        der.zeroize();
        key.ok()?.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256])?.sign(message).ok()
    }
}

/// A refusal of a token endpoint, with what to do about it where Google's words are known.
pub(super) fn with_help(error: &str, description: &str) -> String {
    let said = if description.is_empty() { error.to_owned() } else { format!("{error}: {description}") };
    let help = match error {
        "invalid_grant" if is_clock(description) => "compare this machine's clock with the world's",
        "invalid_grant" if description.contains("Invalid JWT Signature") => {
            "this key was deleted at Google, or the file is not whole: make another (gcloud iam service-accounts keys create)"
        }
        "invalid_grant" if description.contains("account not found") => "the service account was deleted",
        "invalid_grant" => "what was shown as proof has ended, was withdrawn, or is not what the pool's provider takes",
        "unauthorized_client" | "access_denied" => {
            "the identity pool or its attribute condition does not take this identity"
        }
        "PERMISSION_DENIED" if description.contains("iam.serviceAccounts.getAccessToken") => {
            "who impersonates needs roles/iam.serviceAccountTokenCreator on the service account"
        }
        "invalid_target" => "the `audience` of the file names no provider of an identity pool that there is",
        _ => return said,
    };
    format!("{said}; {help}")
}

/// Google's words for an assertion from another time.
fn is_clock(description: &str) -> bool {
    description.contains("reasonable timeframe") || description.contains("Check your iat and exp values")
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;

    #[test]
    fn an_assertion_says_what_google_asks_for_and_verifies_with_the_accounts_key() {
        let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).expect("a key");
        let file = json!({ "private_key": key.serialize_pem(), "private_key_id": "12ab" }).to_string();
        let url = "http://127.0.0.1:9/token".to_owned();
        let grant = Grant::new(&Secret::new(file), "r@p", url).expect("it signs");
        let now = chrono::DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
        let assertion = grant.assertion("a-scope", now).expect("signs");
        let (message, signature) = assertion.rsplit_once('.').expect("three parts");
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).expect("base64");
        let (header, claims) = message.split_once('.').expect("two parts");
        let json = |part: &str| serde_json::from_slice::<Value>(&decode(part)).expect("JSON");
        assert_eq!(json(header), json!({ "alg": "RS256", "typ": "JWT", "kid": "12ab" }));
        let expected = json!({ "iss": "r@p", "scope": "a-scope", "aud": "http://127.0.0.1:9/token", "iat": 1_800_000_000,
            "exp": 1_800_000_300 });
        assert_eq!(json(claims), expected);
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key_raw());
        public.verify(message.as_bytes(), &decode(signature)).expect("it verifies");
        assert!(public.verify(b"another", &decode(signature)).is_err());
    }

    #[test]
    fn a_refusal_comes_with_what_to_do() {
        let clock = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and \
                     exp values in the JWT claim.";
        assert!(with_help("invalid_grant", clock).ends_with("; compare this machine's clock with the world's"));
        assert!(with_help("invalid_grant", "Invalid JWT Signature.").contains("keys create"));
        assert!(
            with_help("invalid_grant", "Invalid grant: account not found")
                .ends_with("; the service account was deleted")
        );
        assert_eq!(with_help("server_error", ""), "server_error");
    }
}
