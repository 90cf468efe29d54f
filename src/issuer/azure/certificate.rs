//! Logging in with a certificate: an assertion signed with its key, by the one crypto stack there is here.
//!
//! `azure_identity` can do it too, and brings OpenSSL for it; it takes an assertion made elsewhere as well, which is what this makes.
//! The form is that of Microsoft's page "Microsoft identity platform application authentication certificate credentials".

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use azure_core::error::ErrorKind;
use azure_core::http::ClientMethodOptions;
use azure_identity::ClientAssertion;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{TimeDelta, Utc};
use serde_json::json;

use crate::net::identity::ClientIdentity;

/// "At most five to ten minutes" (the same page).
const LIFETIME: TimeDelta = TimeDelta::minutes(5);

/// Makes an assertion for each login.
pub(super) struct Certificate {
    identity: ClientIdentity,
    client_id: String,
    /// Where the assertion is good: the token endpoint.
    audience: String,
}

impl Certificate {
    pub(super) fn new(identity: ClientIdentity, client_id: &str, authority: &str, tenant_id: &str) -> Self {
        let audience = format!("{authority}/{tenant_id}/oauth2/v2.0/token");
        Self { identity, client_id: client_id.to_owned(), audience }
    }

    /// `header.claims.signature`. `None` where the key is no RSA key: Entra takes no other.
    fn assertion(&self, now: chrono::DateTime<Utc>) -> Option<String> {
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let thumbprint = URL_SAFE_NO_PAD.encode(digest(&SHA256, &self.identity.certificate()?));
        let header = part(json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint }));
        let claims = part(json!({
            "aud": self.audience,
            "iss": self.client_id,
            "sub": self.client_id,
            "jti": uuid::Uuid::new_v4().to_string(),
            "nbf": now.timestamp(),
            "iat": now.timestamp(),
            "exp": (now + LIFETIME).timestamp(),
        }));
        let message = format!("{header}.{claims}");
        let signature = self.identity.sign_ps256(message.as_bytes())?;
        Some(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl ClientAssertion for Certificate {
    /// The wall clock at the edge, for the assertion's own dates; no decision hangs on it.
    #[allow(clippy::disallowed_methods)]
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        self.assertion(Utc::now()).ok_or_else(|| {
            let why = "client_key is no RSA key, and Entra takes assertions signed with RSA only";
            azure_core::Error::with_message(ErrorKind::Credential, why)
        })
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
    use serde_json::Value;

    use super::*;
    use crate::model::Secret;
    use crate::net::identity::Chain;

    /// A certificate with an RSA key of its own, and that key's public half.
    fn certificate() -> (Certificate, Vec<u8>, Vec<u8>) {
        let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).expect("a key");
        let made = rcgen::CertificateParams::new(Vec::new()).and_then(|params| params.self_signed(&key)).expect("made");
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("certificate.pem");
        std::fs::write(&file, made.pem()).expect("written");
        let chain = Chain::read(file.to_str().expect("UTF-8")).expect("a chain");
        let identity = chain.with_key(Secret::new(key.serialize_pem()), "the key").expect("it fits");
        let certificate = Certificate::new(identity, "client", "https://login.microsoftonline.com", "tenant");
        (certificate, made.der().to_vec(), key.public_key_raw().to_vec())
    }

    #[test]
    fn an_assertion_says_what_entra_asks_for_and_verifies_with_the_certificates_key() {
        let now = chrono::DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
        let (certificate, der, public) = certificate();
        let assertion = certificate.assertion(now).expect("signs");
        let (message, signature) = assertion.rsplit_once('.').expect("three parts");
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).expect("base64");
        let json = |part: &str| serde_json::from_slice::<Value>(&decode(part)).expect("JSON");
        let (header, claims) = message.split_once('.').expect("two parts");
        let (header, claims) = (json(header), json(claims));
        assert_eq!((header["alg"].as_str(), header["typ"].as_str()), (Some("PS256"), Some("JWT")));
        assert_eq!(header["x5t#S256"], URL_SAFE_NO_PAD.encode(digest(&SHA256, &der)));
        assert_eq!(claims["aud"], "https://login.microsoftonline.com/tenant/oauth2/v2.0/token");
        assert_eq!((&claims["iss"], &claims["sub"]), (&json!("client"), &json!("client")));
        assert_eq!((&claims["nbf"], &claims["exp"]), (&json!(1_800_000_000), &json!(1_800_000_300)));
        let key = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, public);
        key.verify(message.as_bytes(), &decode(signature)).expect("it verifies");
        assert!(key.verify(b"another", &decode(signature)).is_err());
        assert_ne!(certificate.assertion(now), Some(assertion), "each has an id of its own");
    }

    #[test]
    fn a_certificate_prints_no_key() {
        let (certificate, ..) = certificate();
        assert_eq!(format!("{certificate:?}"), "Certificate { client_id: \"client\", .. }");
    }
}
