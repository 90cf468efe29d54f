//! A credentials file of Google's: what kind of proof is in it, and whether it would send secrets where they do not belong.
//!
//! Reads what it was given and sends nothing. What the fields of each kind mean is told in AIP-4112 to AIP-4117.

use std::net::{Ipv4Addr, Ipv6Addr};

use reqwest::Url;
use serde::Deserialize;
use serde_json::Value;

use super::grant::Grant;
use crate::model::Secret;
use crate::net::client::is_loopback;

/// Google's own token endpoint. A service account's file names it, and needs it not: a self-signed token does (AIP-4111).
const GOOGLES: [&str; 2] = ["https://oauth2.googleapis.com/token", "https://accounts.google.com/o/oauth2/token"];

/// What no message may hold; the last is a header that a proof is asked for with.
const SECRETS: [&str; 4] = ["private_key", "client_secret", "refresh_token", "authorization"];

/// Where a machine tells what proves who it is: `url` anywhere, the others on Amazon's (AIP-4117).
const SOURCES: [&str; 3] = ["url", "region_url", "imdsv2_session_token_url"];

/// Amazon's metadata server has this address too (its SDKs' endpoint for the mode IPv6); it is unique local, and served to a machine by
/// its host.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// A file that was understood.
pub(super) struct File {
    pub(super) kind: Kind,
    /// Who it is, for messages.
    pub(super) who: String,
    /// Whether it ends as a service account by impersonation.
    pub(super) impersonates: bool,
    text: Secret,
    token_url: Option<String>,
}

/// The `type` of a file.
pub(super) enum Kind {
    /// `service_account`. With a grant, its tokens are asked for; without one they are signed here and nobody is asked.
    ServiceAccount { grant: Option<Grant> },
    /// `external_account`: workload or workforce identity federation.
    Federated,
    /// `impersonated_service_account`.
    Impersonated,
    /// `authorized_user`: a person's, as gcloud leaves it.
    User,
}

/// As much of a file as is looked at here.
#[derive(Deserialize)]
struct Fields {
    #[serde(rename = "type")]
    kind: String,
    client_email: Option<String>,
    private_key_id: Option<String>,
    token_uri: Option<String>,
    audience: Option<String>,
    service_account_impersonation_url: Option<String>,
}

impl File {
    /// `token_url` comes before what the file says of it.
    ///
    /// # Errors
    /// What is wrong with it, without a word of what stands in it but addresses.
    pub(super) fn read(text: Secret, token_url: Option<&str>) -> Result<Self, String> {
        let fields: Fields = serde_json::from_str(text.expose())
            .map_err(|_| "no credentials file of Google's (JSON with a `type`)".to_owned())?;
        let impersonates = fields.service_account_impersonation_url.is_some();
        let (kind, who) = match fields.kind.as_str() {
            "service_account" => {
                let email = fields.client_email.ok_or("a service account's file without client_email")?;
                let asked =
                    token_url.map(str::to_owned).or(fields.token_uri).filter(|url| !GOOGLES.contains(&url.as_str()));
                let grant = match asked {
                    Some(url) => {
                        check("token_uri", &url, false)?;
                        Some(Grant::new(&text, &email, url)?)
                    }
                    None => None,
                };
                let key = fields.private_key_id.map(|id| format!(" {id}")).unwrap_or_default();
                (
                    Kind::ServiceAccount { grant },
                    format!("service account {email} with key{key} of its credentials file"),
                )
            }
            "external_account" => {
                let of = fields.audience.unwrap_or_else(|| "no audience".to_owned());
                let whose = fields.service_account_impersonation_url.as_deref().and_then(impersonated);
                let whose = whose.map(|email| format!(", as service account {email}")).unwrap_or_default();
                (Kind::Federated, format!("a federated identity ({of}){whose}"))
            }
            "impersonated_service_account" => {
                let email = fields.service_account_impersonation_url.as_deref().and_then(impersonated);
                let email = email.unwrap_or_else(|| "of its credentials file".to_owned());
                (Kind::Impersonated, format!("service account {email} by impersonation"))
            }
            "authorized_user" => (Kind::User, "the person of the credentials file".to_owned()),
            _ => {
                return Err("a credentials file of a type that this build does not know (it knows service_account, \
                             external_account, impersonated_service_account and authorized_user)"
                    .to_owned());
            }
        };
        let file = Self { kind, who, impersonates, text, token_url: token_url.map(str::to_owned) };
        // Every address that something is sent to.
        for (key, url) in texts(&file.json()) {
            if key == "url" || key.ends_with("_url") || key.ends_with("_uri") {
                check(key, url, SOURCES.contains(&key))?;
            }
        }
        Ok(file)
    }

    /// As the crate takes it, with the policy's `token_url` in place.
    pub(super) fn json(&self) -> Value {
        let mut json: Value = serde_json::from_str(self.text.expose()).unwrap_or_default();
        if let (Kind::Federated, Some(url)) = (&self.kind, &self.token_url) {
            json["token_url"] = url.as_str().into();
        }
        json
    }

    /// What of it no message may hold.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        let json = self.json();
        let hidden =
            texts(&json).into_iter().filter(|(key, _)| SECRETS.iter().any(|one| one.eq_ignore_ascii_case(key)));
        hidden.map(|(_, secret)| Secret::new(secret.to_owned())).collect()
    }
}

/// The account in `…/serviceAccounts/EMAIL:generateAccessToken`.
fn impersonated(url: &str) -> Option<String> {
    let email = url.rsplit('/').next()?.split(':').next()?;
    email.contains('@').then(|| email.to_owned())
}

/// Every text of a file with its name, however deep: an impersonation keeps the file of who impersonates in its own.
fn texts(json: &Value) -> Vec<(&str, &str)> {
    let Value::Object(fields) = json else { return Vec::new() };
    let each = fields.iter().flat_map(|(key, value)| match value {
        Value::String(text) => vec![(key.as_str(), text.as_str())],
        inner => texts(inner),
    });
    each.collect()
}

/// `is_source`: a machine's own proof is served at addresses that no router forwards (RFC 3927), without TLS.
fn check(key: &str, address: &str, is_source: bool) -> Result<(), String> {
    // Amazon's own address for each region is a pattern.
    let url = Url::parse(&address.replace("{region}", "region")).map_err(|_| format!("its {key} is no address"))?;
    let link_local = || {
        let host = url.host_str().unwrap_or_default();
        let v6 = host.trim_start_matches('[').trim_end_matches(']').parse::<Ipv6Addr>();
        host.parse::<Ipv4Addr>().is_ok_and(|number| number.is_link_local()) || v6 == Ok(METADATA_V6)
    };
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback(&url) || (is_source && link_local()) => Ok(()),
        _ => Err(format!(
            "its {key} would send a proof of who rekeyd is to {} without TLS",
            url.host_str().unwrap_or("?")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, token_url: Option<&str>) -> Result<File, String> {
        File::read(Secret::new(text.to_owned()), token_url)
    }

    #[test]
    fn each_type_says_who_it_is() {
        let own = r#"{"type":"service_account","client_email":"r@p.iam.gserviceaccount.com","private_key_id":"12ab",
                      "private_key":"hush","token_uri":"https://oauth2.googleapis.com/token"}"#;
        let file = read(own, None).expect("read");
        assert_eq!(file.who, "service account r@p.iam.gserviceaccount.com with key 12ab of its credentials file");
        assert!(matches!(file.kind, Kind::ServiceAccount { grant: None }), "Google needs not be asked");
        assert_eq!(file.secrets(), [Secret::new("hush".to_owned())]);
        let other = r#"{"type":"external_account","audience":"//iam.googleapis.com/x","token_url":"https://sts.googleapis.com/v1/token",
            "service_account_impersonation_url":"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/r@p:generateAccessToken"}"#;
        let file = read(other, Some("http://127.0.0.1:9/v1/token")).expect("read");
        assert_eq!(file.who, "a federated identity (//iam.googleapis.com/x), as service account r@p");
        assert_eq!(file.json()["token_url"], "http://127.0.0.1:9/v1/token");
        let person = read(r#"{"type":"authorized_user","refresh_token":"hush"}"#, None).expect("read");
        assert!(matches!(person.kind, Kind::User) && person.secrets().len() == 1);
    }

    #[test]
    fn who_impersonates_has_secrets_too() {
        let file = r#"{"type":"impersonated_service_account",
            "service_account_impersonation_url":"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/r@p:generateAccessToken",
            "source_credentials":{"type":"authorized_user","client_id":"c","client_secret":"hush-1","refresh_token":"hush-2"}}"#;
        let file = read(file, None).expect("read");
        assert_eq!(file.who, "service account r@p by impersonation");
        let secrets: Vec<Secret> = ["hush-1", "hush-2"].map(|secret| Secret::new(secret.to_owned())).into();
        assert!(file.impersonates && file.secrets() == secrets, "{:?}", file.secrets().len());
        let asked = r#"{"type":"external_account","audience":"a",
            "credential_source":{"url":"https://idp.example.com/x","headers":{"Authorization":"Bearer hush","Metadata":"True"}}}"#;
        assert_eq!(read(asked, None).expect("read").secrets(), [Secret::new("Bearer hush".to_owned())]);
    }

    #[test]
    fn what_is_no_credentials_file_is_refused_without_a_word_of_it() {
        for (text, what) in [
            ("hush", "no credentials file"),
            ("{}", "no credentials file"),
            (r#"{"type":"hush"}"#, "does not know"),
            (r#"{"type":"service_account","private_key":"hush"}"#, "without client_email"),
        ] {
            let why = read(text, None).err().expect("refused");
            assert!(why.contains(what) && !why.contains("hush"), "{why}");
        }
        // The key is looked at where it is used here.
        let own = r#"{"type":"service_account","client_email":"r@p","private_key":"hush"}"#;
        let why = read(own, Some("http://127.0.0.1:9/token")).err().expect("refused");
        assert!(why.contains("private_key") && !why.contains("hush"), "{why}");
    }

    #[test]
    fn no_proof_goes_anywhere_without_tls() {
        let file =
            |more: &str| read(&format!(r#"{{"type":"external_account","audience":"a",{more}}}"#), None).map(|_| ());
        assert_eq!(file(r#""token_url":"https://sts.googleapis.com/v1/token""#), Ok(()));
        assert_eq!(file(r#""credential_source":{"url":"http://169.254.169.254/x"}"#), Ok(()));
        let why = file(r#""token_url":"http://sts.example.com/x""#).expect_err("plain");
        assert_eq!(why, "its token_url would send a proof of who rekeyd is to sts.example.com without TLS");
        assert!(file(r#""token_url":"http://169.254.169.254/x""#).is_err(), "that is nobody's token endpoint");
        assert!(file(r#""credential_source":{"url":"http://10.0.0.1/x"}"#).is_err());
    }

    /// As `gcloud iam workload-identity-pools create-cred-config --aws --enable-imdsv2` writes it.
    #[test]
    fn a_machine_at_amazon_proves_itself_as_gcloud_has_it() {
        let file = r#"{"type":"external_account","audience":"//iam.googleapis.com/x",
            "subject_token_type":"urn:ietf:params:aws:token-type:aws4_request","token_url":"https://sts.googleapis.com/v1/token",
            "credential_source":{"environment_id":"aws1",
                "region_url":"http://169.254.169.254/latest/meta-data/placement/availability-zone",
                "url":"http://169.254.169.254/latest/meta-data/iam/security-credentials",
                "imdsv2_session_token_url":"http://169.254.169.254/latest/api/token",
                "regional_cred_verification_url":"https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15"}}"#;
        assert_eq!(read(file, None).map(|_| ()), Ok(()));
        assert_eq!(read(&file.replace("169.254.169.254", "[fd00:ec2::254]"), None).map(|_| ()), Ok(()));
        for elsewhere in ["10.0.0.1", "metadata.example.com", "[fd00:ec2::255]"] {
            assert!(read(&file.replace("169.254.169.254", elsewhere), None).is_err(), "{elsewhere}");
        }
        let plain = file.replace("https://sts.{region}", "http://sts.{region}");
        let why = read(&plain, None).err().expect("that is on the wire");
        assert!(why.contains("regional_cred_verification_url"), "{why}");
    }
}
