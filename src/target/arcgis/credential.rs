//! The credential object: how a key is written for a push, and what of a stored one can be read back.
//!
//! Writes plain text only, every field of it. Posting back what a read-back shows would store the mask; and ciphertexts are never
//! compared, since each read may encrypt anew.

use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::config::CredentialKeys;
use crate::model::{Material, Tail};
use crate::ports::Reading;

/// How ArcGIS marks what it encrypted: Kubernetes, Server.
const CIPHER_PREFIXES: [&str; 2] = ["{crypt}", "v2Crypt_"];

/// Characters of a secret that the mask leaves in clear.
const CLEAR: usize = 4;

/// Fewer covered characters are taken for a part of the secret. The documents show sixteen.
const COVERED_MIN: usize = 8;

/// Types that hold no secret: ArcGIS asks the cloud who it is.
const KEYLESS: [&str; 4] = ["IAM-ROLE", "USER-ASSIGNED-IDENTITY", "SYSTEM-ASSIGNED-IDENTITY", "MANAGED-IDENTITY"];

/// The spelling of the fields of an S3 secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// `access_key`, `secret_key`, as the requests are documented.
    Snake,
    /// `accessKey`, `secretKey`, as the answers show them.
    Camel,
}

impl CredentialKeys {
    /// The spelling to begin with, and the one to try if it is refused by name.
    pub fn spellings(self) -> &'static [Spelling] {
        match self {
            Self::Auto => &[Spelling::Snake, Spelling::Camel],
            Self::Snake => &[Spelling::Snake],
            Self::Camel => &[Spelling::Camel],
        }
    }
}

/// ArcGIS's name for a material's credential model.
pub fn type_of(material: &Material) -> &'static str {
    match material {
        Material::AccessKey { .. } => "ACCESS-KEY",
    }
}

#[derive(Serialize)]
struct Credential<S> {
    r#type: &'static str,
    secret: S,
}

#[derive(Serialize)]
struct Snake<'a> {
    secret_key: &'a str,
    access_key: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Camel<'a> {
    secret_key: &'a str,
    access_key: &'a str,
}

/// The `credential` parameter, in one buffer that is wiped when dropped.
pub fn to_json(material: &Material, spelling: Spelling) -> Zeroizing<String> {
    let Material::AccessKey { id, secret } = material;
    let (secret_key, access_key) = (secret.expose(), id.as_str());
    // JSON escapes a byte with at most six; room for all of it, so that growing leaves no copy behind.
    let mut buffer = Vec::with_capacity(128 + 6 * (secret_key.len() + access_key.len()));
    let r#type = type_of(material);
    match spelling {
        Spelling::Snake => {
            serde_json::to_writer(&mut buffer, &Credential { r#type, secret: Snake { secret_key, access_key } })
        }
        Spelling::Camel => {
            serde_json::to_writer(&mut buffer, &Credential { r#type, secret: Camel { secret_key, access_key } })
        }
    }
    .expect("texts are always JSON, and a Vec takes every write");
    Zeroizing::new(String::from_utf8(buffer).expect("JSON is UTF-8"))
}

/// Whether a refusal speaks of the names of the secret's fields, so that the other spelling may be what is wanted. No wording is
/// documented; a wrong guess costs one more refused request.
pub fn is_about_spelling(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    ["secret_key", "access_key", "secretkey", "accesskey", "invalid credential", "secret.", "required property"]
        .iter()
        .any(|words| said.contains(words))
}

/// A stored credential, as far as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// `ACCESS-KEY`, `IAM-ROLE`, …; empty where it is not said.
    pub kind: String,
    /// What can be compared.
    pub reading: Reading,
}

impl Shown {
    /// From a `credential` member; `None` where that holds none.
    pub fn of(value: Option<&Value>) -> Option<Self> {
        let credential = value?.as_object().filter(|credential| !credential.is_empty())?;
        let kind = credential.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        // Only the secret's end is shown; names and ids stay encrypted even where masking is asked for.
        let secret = credential.get("secret").and_then(Value::as_object);
        let masked =
            secret.and_then(|secret| ["secretKey", "secret_key"].iter().find_map(|key| secret.get(*key)?.as_str()));
        let reading = masked.and_then(tail_of).map_or(Reading::Hidden, Reading::Tail);
        Some(Self { kind, reading })
    }

    /// Whether there is no secret in it at all.
    pub fn is_keyless(&self) -> bool {
        KEYLESS.contains(&self.kind.as_str())
    }
}

/// The last four characters, if a text is a mask: a known prefix or none, covering characters, four in clear.
fn tail_of(text: &str) -> Option<Tail> {
    let text = CIPHER_PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
    let length = text.chars().count();
    let covered = length.checked_sub(CLEAR).filter(|covered| *covered >= COVERED_MIN)?;
    let is_cover = |character| character == 'x' || character == '*';
    let tail: String = text.chars().skip(covered).collect();
    // A text covered to its end may be a mask without a tail; four more x prove nothing.
    (text.chars().take(covered).all(is_cover) && !tail.chars().all(is_cover)).then(|| Tail::new(tail))
}

/// What one text shows of the value it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Veil {
    /// The value itself.
    Clear,
    /// A mask that leaves the end in clear.
    Ends(Tail),
    /// A ciphertext, or a mask to the end.
    Whole,
}

impl Veil {
    /// Of a text. A value that looks like a mask is taken for one: to hold back a key is better than to store a mask.
    pub fn of(text: &str) -> Self {
        let is_mask = text.chars().count() >= COVERED_MIN && text.chars().all(|c| c == 'x' || c == '*');
        match tail_of(text) {
            Some(tail) => Self::Ends(tail),
            None if is_enciphered(text) || is_mask => Self::Whole,
            None => Self::Clear,
        }
    }
}

/// `{crypt}…`, `v2Crypt_…`, and what a later version may call its own.
pub fn is_enciphered(text: &str) -> bool {
    let version = text.strip_prefix('v').and_then(|rest| rest.split_once("Crypt_")).map(|(version, _)| version);
    text.starts_with(CIPHER_PREFIXES[0])
        || version.is_some_and(|version| !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{KeyId, Secret};
    use serde_json::json;

    fn material(secret: &str) -> Material {
        Material::AccessKey { id: KeyId::new("AKIAEXAMPLE"), secret: Secret::new(secret.to_owned()) }
    }

    #[test]
    fn a_key_is_written_in_full_in_either_spelling() {
        let key = material("a+b/c\"d=");
        assert_eq!(
            to_json(&key, Spelling::Snake).as_str(),
            r#"{"type":"ACCESS-KEY","secret":{"secret_key":"a+b/c\"d=","access_key":"AKIAEXAMPLE"}}"#
        );
        assert_eq!(
            to_json(&key, Spelling::Camel).as_str(),
            r#"{"type":"ACCESS-KEY","secret":{"secretKey":"a+b/c\"d=","accessKey":"AKIAEXAMPLE"}}"#
        );
    }

    #[test]
    fn a_mask_shows_the_last_four_characters() {
        let tail = |text: &str| tail_of(text).map(|tail| tail.to_string());
        assert_eq!(tail("{crypt}xxxxxxxxxxxxxxxxVC5M").as_deref(), Some("VC5M"));
        assert_eq!(tail("v2Crypt_xxxxxxxxxxxxxxxx/C+=").as_deref(), Some("/C+="));
        assert_eq!(tail("xxxxxxxxxxxxxxxxxC5M").as_deref(), Some("xC5M"));
        assert_eq!(tail("{crypt}xxxxxxxxxxxxxxxxaéüz").as_deref(), Some("aéüz"));
    }

    #[test]
    fn a_ciphertext_is_no_mask() {
        for text in [
            "{crypt}nawx4y2sVW68",
            "{crypt}xxxxxxxxxxxxxxxxxxxx",
            "{crypt}xxxVC5M",
            "{crypt}",
            "",
            "v2Crypt_xxxxxxxxaxxxxxxxVC5M",
        ] {
            assert_eq!(tail_of(text), None, "{text}");
        }
    }

    #[test]
    fn a_value_in_clear_is_told_from_its_veils() {
        for text in
            ["us-east-1", "AKIAEXAMPLE", "wJalr+XUt/nFEMI=K7MDENGbPxRfiCYzVC5M", "", "xxxx", "v2", "vCrypt_", "v2x_"]
        {
            assert_eq!(Veil::of(text), Veil::Clear, "{text}");
        }
        for text in ["{crypt}nawx4y2s", "{crypt}", "v2Crypt_AAAA", "v13Crypt_AAAA", "********", "xxxxxxxxxxxxxxxx"] {
            assert_eq!(Veil::of(text), Veil::Whole, "{text}");
        }
        for text in ["{crypt}xxxxxxxxxxxxxxxxVC5M", "************VC5M"] {
            assert_eq!(Veil::of(text), Veil::Ends(Tail::new("VC5M")), "{text}");
        }
    }

    #[test]
    fn what_a_stored_credential_shows() {
        let shown = |value: Value| Shown::of(Some(&value));
        let masked = json!({"type": "ACCESS-KEY", "secret": {"accessKey": "{crypt}+1FS", "secretKey": "{crypt}xxxxxxxxxxxxxxxxVC5M"}});
        let reading = Reading::Tail(Tail::new("VC5M"));
        assert_eq!(shown(masked), Some(Shown { kind: "ACCESS-KEY".to_owned(), reading }));
        let sealed =
            json!({"type": "ACCESS-KEY", "secret": {"accessKey": "{crypt}+1FS", "secretKey": "{crypt}nawx4y2s"}});
        assert_eq!(shown(sealed).map(|shown| shown.reading), Some(Reading::Hidden));
        let role = shown(json!({"type": "IAM-ROLE"})).expect("a role is a credential");
        assert!(role.is_keyless() && role.reading == Reading::Hidden);
        assert_eq!(shown(json!({})), None);
        assert_eq!(shown(json!(null)), None);
        assert_eq!(Shown::of(None), None);
    }

    #[test]
    fn a_refusal_that_names_a_field_is_about_spelling() {
        assert!(is_about_spelling("Missing required property: secret.secretKey."));
        assert!(is_about_spelling("Invalid credential object"));
        assert!(!is_about_spelling("The cloud service already has existing service-specific credentials."));
    }
}
