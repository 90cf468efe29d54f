//! A credential: what a request may carry, what is held, and how it is shown. Secrets are held in plain, shown enciphered.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::options::{Product, Spelling, StoredCredential};
use crate::chance;
use crate::consumer::{Pass, Principal};

/// `type`, and the secret in the spelling of the answers (`accessKey`, `secretKey`, …).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Credential {
    pub(crate) kind: String,
    pub(crate) secret: Map<String, Value>,
    /// Members beside `secret` that are kept as they came: `servicePrincipal`, `managedIdentityClientId`, `authorityHost`.
    pub(crate) beside: Map<String, Value>,
}

/// Where a member stands: the object inside the credential (empty: beside `type`), and its name.
type Member = (&'static str, &'static str);

/// A type of credential.
struct Kind {
    name: &'static str,
    provider: &'static str,
    /// The service it is for, where it is for one alone.
    service: Option<&'static str>,
    /// What a request must have, on Kubernetes and on Server.
    kubernetes: &'static [Member],
    server: &'static [Member],
}

const fn kind(name: &'static str, provider: &'static str, members: &'static [Member]) -> Kind {
    Kind { name, provider, service: None, kubernetes: members, server: members }
}

const fn only_for(service: &'static str, kind: Kind) -> Kind {
    Kind { service: Some(service), ..kind }
}

/// Section 1.6 of the reference: what the documents and Esri's own scripts show. Members as answers spell them; a name that stands
/// elsewhere in the other product is a wrong name here.
const KINDS: &[Kind] = &[
    kind("ACCESS-KEY", "AWS", &[("secret", "accessKey"), ("secret", "secretKey")]),
    kind("IAM-ROLE", "AWS", &[]),
    only_for(
        "Azure Blob Store",
        kind("STORAGE-ACCOUNT-KEY", "AZURE", &[("secret", "storageAccountName"), ("secret", "storageAccountKey")]),
    ),
    only_for(
        "Azure Blob Store",
        kind("SAS-TOKEN", "AZURE", &[("secret", "sasToken"), ("secret", "storageAccountName")]),
    ),
    Kind {
        kubernetes: &[
            ("secret", "storageAccountName"),
            ("servicePrincipal", "clientId"),
            ("servicePrincipal", "tenantId"),
            ("servicePrincipal", "clientSecret"),
        ],
        ..kind(
            "SERVICE-PRINCIPAL",
            "AZURE",
            &[("secret", "tenantId"), ("secret", "clientId"), ("secret", "clientSecret")],
        )
    },
    Kind {
        kubernetes: &[("", "managedIdentityClientId"), ("secret", "storageAccountName")],
        ..kind("USER-ASSIGNED-IDENTITY", "AZURE", &[("secret", "managedIdentityClientId")])
    },
    only_for(
        "Azure Cosmos DB",
        kind("COSMOSDB-ACCOUNT-KEY", "AZURE", &[("secret", "accountName"), ("secret", "accountKey")]),
    ),
    only_for(
        "Azure Service Bus",
        kind("SERVICEBUS-ACCESS-KEY", "AZURE", &[("secret", "sharedAccessKeyName"), ("secret", "sharedAccessKey")]),
    ),
    kind("HMAC-KEYS", "GCP", &[("secret", "accessKey"), ("secret", "secretKey")]),
];

/// To whom a credential is handed.
pub(crate) struct Receiver<'a> {
    pub(crate) product: Product,
    /// `AWS`, `AZURE`, `GCP`.
    pub(crate) provider: &'a str,
    /// The name of the service; empty for the provider itself.
    pub(crate) service: &'a str,
}

/// Members that `maskedSecret` shows the end of. All others stay enciphered: a name is not shown in part.
const MASKED: &[&str] =
    &["secretKey", "storageAccountKey", "sasToken", "clientSecret", "accountKey", "sharedAccessKey"];

impl Credential {
    pub(crate) fn access_key(stored: &StoredCredential) -> Self {
        let secret = json!({"accessKey": stored.access_key, "secretKey": stored.secret_key});
        Self { kind: "ACCESS-KEY".to_owned(), secret: object(secret), beside: Map::new() }
    }

    /// The key pair a consumer of S3, or of a store that speaks it, signs with.
    pub(crate) fn pair(&self) -> Option<(String, String)> {
        let get = |name: &str| self.secret.get(name)?.as_str().map(str::to_owned);
        ["ACCESS-KEY", "HMAC-KEYS"]
            .contains(&self.kind.as_str())
            .then(|| Some((get("accessKey")?, get("secretKey")?)))?
    }

    /// How a consumer of Azure Blob Storage opens its container.
    pub(crate) fn pass(&self) -> Option<Pass> {
        let text = |value: Option<&Value>| value?.as_str().map(str::to_owned);
        let secret = |name: &str| text(self.secret.get(name));
        // Kubernetes keeps a principal beside the secret, Server within.
        let principal = |name: &str| {
            text(self.beside.get("servicePrincipal").and_then(|inner| inner.get(name))).or_else(|| secret(name))
        };
        Some(match self.kind.as_str() {
            "STORAGE-ACCOUNT-KEY" => Pass::Key(secret("storageAccountKey")?),
            "SAS-TOKEN" => Pass::Sas(secret("sasToken")?),
            "SERVICE-PRINCIPAL" => Pass::Principal(Principal {
                tenant: principal("tenantId")?,
                client_id: principal("clientId")?,
                secret: principal("clientSecret")?,
            }),
            _ => return None,
        })
    }

    /// The storage account it names. A principal of Server names none.
    pub(crate) fn storage_account(&self) -> Option<&str> {
        self.secret.get("storageAccountName")?.as_str()
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
    pub(crate) fn parse(text: &str, to: &Receiver<'_>, spelling: Spelling, vault: &Vault) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|_| "Unable to parse the credential JSON.".to_owned())?;
        let Value::Object(mut value) = value else { return Err("The credential is not a JSON object.".to_owned()) };
        let name = value.remove("type").and_then(|v| v.as_str().map(str::to_owned));
        let name = name.ok_or("Missing required property: type.")?;
        let kind = KINDS.iter().find(|kind| kind.name == name);
        let kind = kind.ok_or_else(|| format!("Unsupported credential type '{name}'."))?;
        if kind.provider != to.provider {
            return Err(format!("Credential type '{name}' is not supported by cloud provider {}.", to.provider));
        }
        if !to.service.is_empty() && kind.service.is_some_and(|service| service != to.service) {
            return Err(format!("Credential type '{name}' is not supported by {}.", to.service));
        }
        let mut secret = match value.remove("secret") {
            None => Map::new(),
            Some(Value::Object(secret)) => secret,
            Some(_) => return Err("The property 'secret' is not a JSON object.".to_owned()),
        };
        let required = if to.product == Product::Server { kind.server } else { kind.kubernetes };
        for (container, member) in required {
            let spellings = spellings(&name, member, spelling);
            let given = match *container {
                "" => value.get(*member),
                "secret" => spellings.iter().find_map(|spelled| secret.get(*spelled)),
                container => value.get(container).and_then(|inner| inner.get(member)),
            };
            if given.and_then(Value::as_str).is_none_or(str::is_empty) {
                let path = if container.is_empty() { String::new() } else { format!("{container}.") };
                return Err(format!("Missing required property: {path}{}.", spellings[0]));
            }
            // Held in the spelling of the answers.
            if *container == "secret"
                && let Some(text) = spellings.iter().find_map(|spelled| secret.remove(*spelled))
            {
                secret.insert((*member).to_owned(), text);
            }
        }
        let mut held = Self { kind: name, secret, beside: value };
        held.each_text(&|text| vault.open(text));
        Ok(held)
    }

    /// A credential as it is held: everything in plain text, in the spelling of the answers.
    pub(crate) fn plain(object: &Value) -> Option<Self> {
        let mut beside = object.as_object()?.clone();
        let kind = beside.remove("type")?.as_str()?.to_owned();
        let secret = match beside.remove("secret") {
            None => Map::new(),
            Some(secret) => secret.as_object()?.clone(),
        };
        Some(Self { kind, secret, beside })
    }

    /// The same, the other way.
    pub(crate) fn to_plain(&self) -> Value {
        let mut object = self.beside.clone();
        object.insert("type".to_owned(), json!(self.kind));
        if !self.secret.is_empty() {
            object.insert("secret".to_owned(), Value::Object(self.secret.clone()));
        }
        Value::Object(object)
    }

    fn each_text(&mut self, change: &dyn Fn(&str) -> String) {
        for value in self.secret.values_mut().chain(self.beside.values_mut()) {
            each_text(value, change);
        }
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
                // What else stands beside is not enciphered: only ids and secrets are.
                Value::Object(inner) if name == "servicePrincipal" => {
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
        self.each_text(&|text| text.replace('+', " "));
        self
    }
}

fn each_text(value: &mut Value, change: &dyn Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = change(text),
        Value::Array(list) => list.iter_mut().for_each(|value| each_text(value, change)),
        Value::Object(map) => map.values_mut().for_each(|value| each_text(value, change)),
        _ => {}
    }
}

/// Only ACCESS-KEY is spelled two ways; HMAC-KEYS is documented in camel case alone.
fn spellings(kind: &str, shown: &'static str, spelling: Spelling) -> Vec<&'static str> {
    let snake = match (kind, shown) {
        ("ACCESS-KEY", "accessKey") => "access_key",
        ("ACCESS-KEY", "secretKey") => "secret_key",
        _ => return vec![shown],
    };
    match spelling {
        Spelling::Snake => vec![snake],
        Spelling::Camel => vec![shown],
        Spelling::Both => vec![snake, shown],
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
        let to = Receiver { product: Product::Kubernetes, provider: "AWS", service: "AWS S3" };
        Credential::parse(text, &to, spelling, &Vault::new(Product::Kubernetes))
    }

    /// What Azure says to it: for a service, or the provider where that has no name.
    fn azure(product: Product, service: &str, credential: &Value) -> Result<Value, String> {
        let to = Receiver { product, provider: "AZURE", service };
        let held = Credential::parse(&credential.to_string(), &to, Spelling::Snake, &Vault::new(product));
        held.map(|held| held.to_plain())
    }

    const KEY: &str = "a+b/c==";

    #[test]
    fn every_type_of_azure_has_its_service_and_its_names() {
        let blob = "Azure Blob Store";
        let (cosmos, bus) = ("Azure Cosmos DB", "Azure Service Bus");
        for (service, kind, name, key) in [
            (blob, "STORAGE-ACCOUNT-KEY", "storageAccountName", "storageAccountKey"),
            (blob, "SAS-TOKEN", "storageAccountName", "sasToken"),
            (cosmos, "COSMOSDB-ACCOUNT-KEY", "accountName", "accountKey"),
            (bus, "SERVICEBUS-ACCESS-KEY", "sharedAccessKeyName", "sharedAccessKey"),
        ] {
            for product in [Product::Kubernetes, Product::Server] {
                let whole = json!({"type": kind, "secret": {name: "n", key: KEY, "more": "m"}, "future": {"a": [1]}});
                assert_eq!(azure(product, service, &whole), Ok(whole.clone()));
                assert_eq!(azure(product, "", &whole), Ok(whole.clone()));
                let other = if service == bus { blob } else { bus };
                let why = format!("Credential type '{kind}' is not supported by {other}.");
                assert_eq!(azure(product, other, &whole), Err(why));
                for (missing, rest) in [(name, key), (key, name)] {
                    let part = json!({"type": kind, "secret": {rest: "n", missing.to_uppercase(): "x"}});
                    let why = format!("Missing required property: secret.{missing}.");
                    assert_eq!(azure(product, service, &part), Err(why));
                }
            }
        }
    }

    #[test]
    fn a_principal_and_an_identity_stand_elsewhere_in_each_product() {
        let blob = "Azure Blob Store";
        let principal = json!({"type": "SERVICE-PRINCIPAL", "secret": {"storageAccountName": "n"},
            "servicePrincipal": {"clientId": "c", "tenantId": "t", "clientSecret": KEY}});
        let identity = json!({"type": "USER-ASSIGNED-IDENTITY", "managedIdentityClientId": "c",
            "secret": {"storageAccountName": "n"}});
        let of_server = json!({"type": "SERVICE-PRINCIPAL", "authorityHost": "https://login.example",
            "secret": {"clientId": "c", "tenantId": "t", "clientSecret": KEY}});
        let identity_of_server = json!({"type": "USER-ASSIGNED-IDENTITY", "secret": {"managedIdentityClientId": "c"}});
        for (kubernetes, server) in [(principal, of_server), (identity, identity_of_server)] {
            assert_eq!(azure(Product::Kubernetes, blob, &kubernetes), Ok(kubernetes.clone()));
            assert_eq!(azure(Product::Server, blob, &server), Ok(server.clone()));
            for (product, wrong) in [(Product::Kubernetes, server), (Product::Server, kubernetes)] {
                let refused = azure(product, blob, &wrong).expect_err("the names stand elsewhere");
                assert!(refused.starts_with("Missing required property: "), "{refused}");
            }
        }
    }

    #[test]
    fn only_the_secret_of_each_type_is_masked() {
        let vault = Vault::new(Product::Server);
        for (object, masked) in [
            (
                json!({"type": "STORAGE-ACCOUNT-KEY", "secret": {"storageAccountName": "nameVC5M", "storageAccountKey": "keyVC5M"}}),
                "/secret/storageAccountKey",
            ),
            (
                json!({"type": "SAS-TOKEN", "secret": {"storageAccountName": "nameVC5M", "sasToken": "keyVC5M"}}),
                "/secret/sasToken",
            ),
            (
                json!({"type": "SERVICE-PRINCIPAL", "secret": {"storageAccountName": "nameVC5M"}, "servicePrincipal":
                   {"clientId": "idVC5M", "tenantId": "idVC5M", "clientSecret": "keyVC5M"}}),
                "/servicePrincipal/clientSecret",
            ),
            (
                json!({"type": "SERVICE-PRINCIPAL", "secret": {"clientId": "idVC5M", "tenantId": "idVC5M", "clientSecret": "keyVC5M"}}),
                "/secret/clientSecret",
            ),
            (
                json!({"type": "COSMOSDB-ACCOUNT-KEY", "secret": {"accountName": "nameVC5M", "accountKey": "keyVC5M"}}),
                "/secret/accountKey",
            ),
            (
                json!({"type": "SERVICEBUS-ACCESS-KEY", "secret": {"sharedAccessKeyName": "nameVC5M", "sharedAccessKey": "keyVC5M"}}),
                "/secret/sharedAccessKey",
            ),
            (
                json!({"type": "HMAC-KEYS", "secret": {"accessKey": "idVC5M", "secretKey": "keyVC5M"}}),
                "/secret/secretKey",
            ),
        ] {
            let held = Credential::plain(&object).expect("it is a credential");
            assert_eq!(held.strings(), ["keyVC5M"]);
            let shown = held.show(true, &vault);
            assert_eq!(shown.pointer(masked), Some(&json!("v2Crypt_xxxxxxxxxxxxxxxxVC5M")));
            assert_eq!(shown.to_string().matches("VC5M").count(), 1, "{shown}");
            let sealed = held.show(false, &vault).to_string();
            assert!(!sealed.contains("VC5M") && sealed.contains("v2Crypt_"), "{sealed}");
        }
    }

    #[test]
    fn what_was_shown_enciphered_is_taken_back_in_any_place() {
        let vault = Vault::new(Product::Kubernetes);
        let whole = json!({"type": "SERVICE-PRINCIPAL", "secret": {"storageAccountName": "n", "more": "m"},
            "servicePrincipal": {"clientId": "c", "tenantId": "t", "clientSecret": KEY}, "beside": {"a": ["x"]}});
        let shown = Credential::plain(&whole).expect("it is a credential").show(false, &vault);
        assert!(shown["secret"]["more"].as_str().is_some_and(|text| text.starts_with("{crypt}")), "{shown}");
        assert_eq!(shown["beside"], whole["beside"]);
        let to = Receiver { product: Product::Kubernetes, provider: "AZURE", service: "" };
        let held = Credential::parse(&shown.to_string(), &to, Spelling::Snake, &vault).map(|held| held.to_plain());
        assert_eq!(held, Ok(whole));
    }

    #[test]
    fn a_decoder_that_eats_plusses_eats_them_everywhere() {
        let whole =
            json!({"type": "SERVICE-PRINCIPAL", "servicePrincipal": {"clientSecret": KEY}, "secret": {"x": "+"}});
        let mangled = Credential::plain(&whole).expect("it is a credential").mangled().to_plain();
        assert_eq!(
            (&mangled["servicePrincipal"]["clientSecret"], &mangled["secret"]["x"]),
            (&json!("a b/c=="), &json!(" "))
        );
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
