//! A stored credential as ArcGIS shows it: what of it can be read, what is only covered, what is enciphered.
//!
//! Reads and tells apart; what is sent is `credential`'s to write. Ciphertexts are never compared, since each read may encrypt
//! anew, and never printed.

use std::fmt;

use serde_json::{Map, Value};

use super::keyless::{self, KEYLESS};
use crate::model::{Secret, Tail};
use crate::ports::Reading;

/// How ArcGIS marks what it encrypted: Kubernetes, Server.
const CIPHER_PREFIXES: [&str; 2] = ["{crypt}", "v2Crypt_"];

/// Characters of a secret that the mask leaves in clear.
const CLEAR: usize = 4;

/// Fewer covered characters are taken for a part of the secret. The documents show sixteen.
const COVERED_MIN: usize = 8;

/// Where a field stands: the object inside the credential (empty: beside `type`), and its name there.
pub type Spot = (&'static str, &'static str);

/// The object beside `secret` in which Kubernetes keeps a service principal.
pub const PRINCIPAL: &str = "servicePrincipal";

/// A stored credential, as far as it is shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Shown {
    /// `ACCESS-KEY`, `IAM-ROLE`, …; empty where it is not said.
    pub kind: String,
    /// What can be compared.
    pub reading: Reading,
    /// All of it, ciphertexts included.
    object: Map<String, Value>,
}

/// Without the object: its ciphertexts are secrets too.
impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").field("kind", &self.kind).field("reading", &self.reading).finish_non_exhaustive()
    }
}

/// Where each type keeps the secret whose end a mask shows.
const SECRETS: &[(&str, &[Spot])] = &[
    ("ACCESS-KEY", &[("secret", "secretKey"), ("secret", "secret_key")]),
    ("HMAC-KEYS", &[("secret", "secretKey"), ("secret", "secret_key")]),
    ("STORAGE-ACCOUNT-KEY", &[("secret", "storageAccountKey")]),
    ("SAS-TOKEN", &[("secret", "sasToken")]),
    ("SERVICE-PRINCIPAL", &[(PRINCIPAL, "clientSecret"), ("secret", "clientSecret")]),
    ("COSMOSDB-ACCOUNT-KEY", &[("secret", "accountKey")]),
    ("SERVICEBUS-ACCESS-KEY", &[("secret", "sharedAccessKey")]),
];

impl Shown {
    /// From a `credential` member; `None` where that holds none.
    pub fn of(value: Option<&Value>) -> Option<Self> {
        let object = value?.as_object().filter(|credential| !credential.is_empty())?.clone();
        let kind = object.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut shown = Self { kind, reading: Reading::Hidden, object };
        if shown.is_keyless() {
            shown.reading = Reading::Keyless(Tail::new(keyless::word(&shown.kind)));
            return Some(shown);
        }
        // Only the secret's end is shown; names and ids stay encrypted even where masking is asked for.
        let spots = SECRETS.iter().find(|(kind, _)| *kind == shown.kind).map(|(_, spots)| *spots);
        let masked = spots.into_iter().flatten().find_map(|spot| shown.at(*spot)?.as_str());
        if let Some(tail) = masked.and_then(tail_of) {
            shown.reading = Reading::Tail(tail);
        }
        Some(shown)
    }

    /// What stands at a spot.
    pub fn at(&self, (container, name): Spot) -> Option<&Value> {
        match container {
            "" => self.object.get(name),
            container => self.object.get(container)?.as_object()?.get(name),
        }
    }

    /// All of it, ciphertexts and masks included.
    pub fn object(&self) -> &Map<String, Value> {
        &self.object
    }

    /// Whether there is no secret in it at all.
    pub fn is_keyless(&self) -> bool {
        KEYLESS.contains(&self.kind.as_str())
    }
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
        let is_mask = text.chars().count() >= COVERED_MIN && text.chars().all(is_cover);
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

/// The path of a text that is a mask, if there is one at any depth.
pub fn masked_in(path: &str, value: &Value) -> Option<String> {
    match value {
        Value::String(text) => is_masked(text).then(|| path.to_owned()),
        Value::Array(list) => list.iter().find_map(|value| masked_in(path, value)),
        Value::Object(map) => map.iter().find_map(|(name, value)| masked_in(&format!("{path}.{name}"), value)),
        _ => None,
    }
}

/// The texts that are enciphered, at any depth.
pub fn collect_ciphertexts(value: &Value, all: &mut Vec<Secret>) {
    match value {
        Value::String(text) if CIPHER_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) => {
            all.push(Secret::new(text.clone()));
        }
        Value::Array(list) => list.iter().for_each(|value| collect_ciphertexts(value, all)),
        Value::Object(map) => map.values().for_each(|value| collect_ciphertexts(value, all)),
        _ => {}
    }
}

/// Whether a text is one that ArcGIS covered, wholly or up to its end: never to be sent.
fn is_masked(text: &str) -> bool {
    let text = CIPHER_PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
    text.chars().take_while(|character| is_cover(*character)).count() >= COVERED_MIN
}

fn is_cover(character: char) -> bool {
    character == 'x' || character == '*'
}

/// The last four characters, if a text is a mask: a known prefix or none, covering characters, four in clear.
fn tail_of(text: &str) -> Option<Tail> {
    let text = CIPHER_PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
    let length = text.chars().count();
    let covered = length.checked_sub(CLEAR).filter(|covered| *covered >= COVERED_MIN)?;
    let tail: String = text.chars().skip(covered).collect();
    // A text covered to its end may be a mask without a tail; four more x prove nothing.
    (text.chars().take(covered).all(is_cover) && !tail.chars().all(is_cover)).then(|| Tail::new(tail))
}

#[cfg(test)]
mod tests {
    use super::super::credential::KEYED;
    use super::*;
    use serde_json::json;

    fn shown(value: Value) -> Shown {
        Shown::of(Some(&value)).expect("it is a credential")
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
        let masked = json!({"type": "ACCESS-KEY", "secret": {"accessKey": "{crypt}+1FS", "secretKey": "{crypt}xxxxxxxxxxxxxxxxVC5M"}});
        assert_eq!(shown(masked.clone()).reading, Reading::Tail(Tail::new("VC5M")));
        assert_eq!(shown(masked).kind, "ACCESS-KEY");
        let sealed =
            json!({"type": "ACCESS-KEY", "secret": {"accessKey": "{crypt}+1FS", "secretKey": "{crypt}nawx4y2s"}});
        assert_eq!(shown(sealed).reading, Reading::Hidden);
        let role = shown(json!({"type": "IAM-ROLE"}));
        assert!(role.is_keyless() && role.reading == Reading::Keyless(crate::model::Keyless::IamRole.mark()));
        assert_eq!(Shown::of(Some(&json!({}))), None);
        assert_eq!(Shown::of(Some(&json!(null))), None);
        assert_eq!(Shown::of(None), None);
    }

    #[test]
    fn every_type_shows_the_end_of_its_secret_and_of_nothing_else() {
        assert_eq!(SECRETS.iter().map(|(kind, _)| *kind).filter(|kind| KEYED.contains(kind)).count(), KEYED.len());
        for (kind, spots) in SECRETS {
            for (container, name) in *spots {
                let reading = |name: &str| {
                    shown(json!({"type": kind, *container: {name: "{crypt}xxxxxxxxxxxxxxxxVC5M"}})).reading
                };
                assert_eq!(reading(name), Reading::Tail(Tail::new("VC5M")), "{kind}");
                assert_eq!(reading("other"), Reading::Hidden, "{kind}");
            }
        }
    }
}
