//! A credential: what a request may carry, what is held, and how it is shown. Secrets are held in plain, shown enciphered.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::options::{Product, Spelling, StoredCredential};
use crate::chance;

/// `type`, and the secret in the spelling of the answers (`accessKey`, `secretKey`, …).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Credential {
    pub(crate) kind: String,
    pub(crate) secret: Map<String, Value>,
    /// Members beside `secret` that are kept as they came: `servicePrincipal`, `managedIdentityClientId`, `authorityHost`.
    pub(crate) beside: Map<String, Value>,
}

/// Types by provider: the secret's required members as shown, and the request's spelling of those that differ.
/// The table is section 1.6 of the reference: what the documents and Esri's own scripts show.
const KINDS: &[(&str, &str, &[&str])] = &[
    ("ACCESS-KEY", "AWS", &["accessKey", "secretKey"]),
    ("IAM-ROLE", "AWS", &[]),
    ("STORAGE-ACCOUNT-KEY", "AZURE", &["storageAccountName", "storageAccountKey"]),
    ("SERVICE-PRINCIPAL", "AZURE", &[]),
    ("SAS-TOKEN", "AZURE", &["sasToken", "storageAccountName"]),
    ("USER-ASSIGNED-IDENTITY", "AZURE", &[]),
    ("COSMOSDB-ACCOUNT-KEY", "AZURE", &["accountName", "accountKey"]),
    ("SERVICEBUS-ACCESS-KEY", "AZURE", &["sharedAccessKeyName", "sharedAccessKey"]),
    ("HMAC-KEYS", "GCP", &["accessKey", "secretKey"]),
];

/// Members that `maskedSecret` shows the end of. All others stay enciphered: a name is not shown in part.
const MASKED: &[&str] =
    &["secretKey", "storageAccountKey", "sasToken", "clientSecret", "accountKey", "sharedAccessKey"];

impl Credential {
    pub(crate) fn access_key(stored: &StoredCredential) -> Self {
        let secret = json!({"accessKey": stored.access_key, "secretKey": stored.secret_key});
        Self { kind: "ACCESS-KEY".to_owned(), secret: object(secret), beside: Map::new() }
    }

    /// The key pair an S3 consumer signs with.
    pub(crate) fn pair(&self) -> Option<(String, String)> {
        let get = |name: &str| self.secret.get(name)?.as_str().map(str::to_owned);
        (self.kind == "ACCESS-KEY").then(|| Some((get("accessKey")?, get("secretKey")?)))?
    }

    /// Every string that must not be seen.
    pub(crate) fn strings(&self) -> Vec<String> {
        MASKED
            .iter()
            .flat_map(|name| [self.secret.get(*name), self.beside.get("servicePrincipal").and_then(|p| p.get(*name))])
            .flatten()
            .filter_map(|value| value.as_str().map(str::to_owned))
            .collect()
    }

    /// Reads the `credential` member of a request.
    pub(crate) fn parse(text: &str, provider: &str, spelling: Spelling, vault: &Vault) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|_| "Unable to parse the credential JSON.".to_owned())?;
        let Value::Object(mut value) = value else { return Err("The credential is not a JSON object.".to_owned()) };
        let kind = value.remove("type").and_then(|v| v.as_str().map(str::to_owned));
        let kind = kind.ok_or("Missing required property: type.")?;
        let (_, belongs, required) = KINDS
            .iter()
            .find(|(name, ..)| *name == kind)
            .ok_or_else(|| format!("Unsupported credential type '{kind}'."))?;
        if *belongs != provider {
            return Err(format!("Credential type '{kind}' is not supported by cloud provider {provider}."));
        }
        let mut given = match value.remove("secret") {
            None => Map::new(),
            Some(Value::Object(secret)) => secret,
            Some(_) => return Err("The property 'secret' is not a JSON object.".to_owned()),
        };
        let mut secret = Map::new();
        for name in *required {
            let taken = spellings(&kind, name, spelling).iter().find_map(|spelled| given.remove(*spelled));
            match taken.as_ref().and_then(Value::as_str) {
                Some("") | None => {
                    let wanted = spellings(&kind, name, spelling)[0];
                    return Err(format!("Missing required property: secret.{wanted}."));
                }
                Some(text) => secret.insert((*name).to_owned(), Value::String(vault.open(text))),
            };
        }
        for (name, rest) in given {
            let rest = rest.as_str().map_or(rest.clone(), |text| Value::String(vault.open(text)));
            secret.insert(name, rest);
        }
        Ok(Self { kind, secret, beside: value })
    }

    /// As a resource shows it.
    pub(crate) fn show(&self, masked: bool, vault: &Vault) -> Value {
        let cover = |name: &String, value: &Value| match value.as_str() {
            Some(text) if masked && MASKED.contains(&name.as_str()) => Value::String(vault.mask(text)),
            Some(text) => Value::String(vault.seal(text)),
            None => value.clone(),
        };
        let mut shown = Map::new();
        shown.insert("type".to_owned(), Value::String(self.kind.clone()));
        if !self.secret.is_empty() {
            let secret: Map<_, _> =
                self.secret.iter().map(|(name, value)| (name.clone(), cover(name, value))).collect();
            shown.insert("secret".to_owned(), Value::Object(secret));
        }
        for (name, value) in &self.beside {
            let value = match value {
                Value::Object(inner) => {
                    inner.iter().map(|(name, value)| (name.clone(), cover(name, value))).collect::<Map<_, _>>().into()
                }
                other => other.clone(),
            };
            shown.insert(name.clone(), value);
        }
        Value::Object(shown)
    }

    /// What a server stores that decodes its form twice: every `+` is a space.
    pub(crate) fn mangled(mut self) -> Self {
        for value in self.secret.values_mut() {
            if let Some(text) = value.as_str() {
                *value = Value::String(text.replace('+', " "));
            }
        }
        self
    }
}

/// Only ACCESS-KEY is spelled two ways; HMAC-KEYS is documented in camel case alone.
fn spellings(kind: &str, shown: &'static str, spelling: Spelling) -> &'static [&'static str] {
    match (kind, shown, spelling) {
        ("ACCESS-KEY", "accessKey", Spelling::Snake) => &["access_key"],
        ("ACCESS-KEY", "secretKey", Spelling::Snake) => &["secret_key"],
        ("ACCESS-KEY", "accessKey", Spelling::Both) => &["access_key", "accessKey"],
        ("ACCESS-KEY", "secretKey", Spelling::Both) => &["secret_key", "secretKey"],
        _ => KINDS
            .iter()
            .flat_map(|(.., required)| required.iter())
            .find(|name| **name == shown)
            .map(std::slice::from_ref)
            .expect("a required member stands in the table"),
    }
}

/// The site's own cipher: the same secret looks different at every read, and what it once showed it takes back.
pub(crate) struct Vault {
    key: RandomizedNonceKey,
    prefix: &'static str,
}

impl Vault {
    pub(crate) fn new(product: Product) -> Self {
        let key = RandomizedNonceKey::new(&AES_256_GCM, &chance::bytes::<32>()).expect("32 bytes are an AES-256 key");
        let prefix = match product {
            Product::Kubernetes => "{crypt}",
            Product::Server => "v2Crypt_",
        };
        Self { key, prefix }
    }

    pub(crate) fn seal(&self, text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        let nonce = self.key.seal_in_place_append_tag(Aad::empty(), &mut bytes).expect("a few bytes can be sealed");
        let sealed = [nonce.as_ref(), &bytes[..]].concat();
        format!("{}{}", self.prefix, STANDARD.encode(sealed))
    }

    /// Sixteen `x` and the last four characters of the plain text.
    fn mask(&self, text: &str) -> String {
        let characters: Vec<char> = text.chars().collect();
        let tail: String = characters[characters.len().saturating_sub(4)..].iter().collect();
        format!("{}{}{tail}", self.prefix, "x".repeat(16))
    }

    /// The plain text of what this site enciphered; anything else, a masked value too, is taken as it stands. So is its harm.
    pub(crate) fn open(&self, text: &str) -> String {
        let plain = || {
            let sealed = STANDARD.decode(text.strip_prefix(self.prefix)?).ok()?;
            let (nonce, bytes) = sealed.split_at_checked(12)?;
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let mut bytes = bytes.to_vec();
            let plain = self.key.open_in_place(nonce, Aad::empty(), &mut bytes).ok()?;
            String::from_utf8(plain.to_vec()).ok()
        };
        plain().unwrap_or_else(|| text.to_owned())
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, spelling: Spelling) -> Result<Credential, String> {
        Credential::parse(text, "AWS", spelling, &Vault::new(Product::Kubernetes))
    }

    #[test]
    fn the_spelling_decides_which_names_are_taken() {
        let snake = r#"{"type":"ACCESS-KEY","secret":{"secret_key":"s","access_key":"a"}}"#;
        let camel = r#"{"type":"ACCESS-KEY","secret":{"secretKey":"s","accessKey":"a"}}"#;
        let pair = Some(("a".to_owned(), "s".to_owned()));
        assert_eq!(parse(snake, Spelling::Snake).map(|c| c.pair()), Ok(pair.clone()));
        assert_eq!(parse(camel, Spelling::Both).map(|c| c.pair()), Ok(pair.clone()));
        assert_eq!(parse(camel, Spelling::Camel).map(|c| c.pair()), Ok(pair));
        assert_eq!(parse(camel, Spelling::Snake), Err("Missing required property: secret.access_key.".to_owned()));
        assert_eq!(parse(snake, Spelling::Camel), Err("Missing required property: secret.accessKey.".to_owned()));
    }

    #[test]
    fn a_type_of_another_provider_is_refused() {
        let hmac = r#"{"type":"HMAC-KEYS","secret":{"secretKey":"s","accessKey":"a"}}"#;
        assert_eq!(
            parse(hmac, Spelling::Both),
            Err("Credential type 'HMAC-KEYS' is not supported by cloud provider AWS.".to_owned())
        );
    }

    #[test]
    fn a_secret_looks_different_each_time_and_is_taken_back() {
        let vault = Vault::new(Product::Server);
        let (one, two) = (vault.seal("hunter2"), vault.seal("hunter2"));
        assert!(one != two && one.starts_with("v2Crypt_"));
        assert_eq!((vault.open(&one), vault.open(&two)), ("hunter2".to_owned(), "hunter2".to_owned()));
    }

    #[test]
    fn a_mask_shows_four_characters_of_the_secret_and_none_of_the_id() {
        let vault = Vault::new(Product::Kubernetes);
        let stored = StoredCredential { access_key: "AKIAEXAMPLE".to_owned(), secret_key: "abcdefgVC5M".to_owned() };
        let shown = Credential::access_key(&stored).show(true, &vault);
        assert_eq!(shown["secret"]["secretKey"], "{crypt}xxxxxxxxxxxxxxxxVC5M");
        let id = shown["secret"]["accessKey"].as_str().expect("an id is shown");
        assert!(id.starts_with("{crypt}") && !id.contains("MPLE") && !id.contains("xxxx"));
    }

    #[test]
    fn a_mask_posted_back_is_stored_as_the_garbage_it_is() {
        let vault = Vault::new(Product::Kubernetes);
        assert_eq!(vault.open("{crypt}xxxxxxxxxxxxxxxxVC5M"), "{crypt}xxxxxxxxxxxxxxxxVC5M");
    }
}
