//! The credential object: how a key is written for a push, and what of a stored one can be read back.
//!
//! A new object is the current one with the key's own fields replaced, as Esri's pages ask for ("can be retrieved and modified"): it
//! has the current one's shape, and fields nobody documented stay. The key's own fields are always plain text, every one of them.
//! What else the current object shows enciphered goes back as it came: the pages' own example posts an enciphered
//! `storageAccountName`, so the site evidently takes back what it enciphered; nobody says so in words, and it was not tried. What it
//! shows *masked* never goes back, since the mask would be stored: an object that needs it is refused, before a key is made.
//! Ciphertexts are never compared, since each read may encrypt anew.
//!
//! Shapes and names: the pages of `credential/add` and `credential/update` (Kubernetes 11.2 and 12.0, Server 12.0), and Esri's own
//! scripts where those are silent (Server's create-site for service principals, Cosmos DB and Service Bus).

use std::fmt;
use std::io::{self, Write};

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::config::{CredentialKeys, Product};
use crate::model::{Material, MaterialKind, Secret, Tail};
use crate::ports::Reading;

/// How ArcGIS marks what it encrypted: Kubernetes, Server.
const CIPHER_PREFIXES: [&str; 2] = ["{crypt}", "v2Crypt_"];

/// Characters of a secret that the mask leaves in clear.
const CLEAR: usize = 4;

/// Fewer covered characters are taken for a part of the secret. The documents show sixteen.
const COVERED_MIN: usize = 8;

/// Types that hold no secret: ArcGIS asks the cloud who it is.
const KEYLESS: [&str; 4] = ["IAM-ROLE", "USER-ASSIGNED-IDENTITY", "SYSTEM-ASSIGNED-IDENTITY", "MANAGED-IDENTITY"];

/// Types that hold a key, and that this build can write.
pub const KEYED: [&str; 7] = [
    "ACCESS-KEY",
    "STORAGE-ACCOUNT-KEY",
    "SAS-TOKEN",
    "SERVICE-PRINCIPAL",
    "HMAC-KEYS",
    "COSMOSDB-ACCOUNT-KEY",
    "SERVICEBUS-ACCESS-KEY",
];

/// The spelling of the fields of an S3 secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// `access_key`, `secret_key`, as the requests are documented.
    Snake,
    /// `accessKey`, `secretKey`, as the answers show them.
    Camel,
}

impl CredentialKeys {
    /// The spelling to begin with, and the one to try if it is refused by name. Only `ACCESS-KEY` is documented in two ways; all
    /// other types have one, `HMAC-KEYS` too.
    pub fn spellings(self, kind: MaterialKind) -> &'static [Spelling] {
        match self {
            _ if kind != MaterialKind::AccessKey => &[Spelling::Camel],
            Self::Auto => &[Spelling::Snake, Spelling::Camel],
            Self::Snake => &[Spelling::Snake],
            Self::Camel => &[Spelling::Camel],
        }
    }
}

/// ArcGIS's name for a credential model.
pub fn type_of(kind: MaterialKind) -> &'static str {
    match kind {
        MaterialKind::AccessKey => "ACCESS-KEY",
        MaterialKind::StorageAccountKey => "STORAGE-ACCOUNT-KEY",
        MaterialKind::SasToken => "SAS-TOKEN",
        MaterialKind::ServicePrincipal { .. } => "SERVICE-PRINCIPAL",
        MaterialKind::HmacKey => "HMAC-KEYS",
        MaterialKind::CosmosAccountKey => "COSMOSDB-ACCOUNT-KEY",
        MaterialKind::ServiceBusKey => "SERVICEBUS-ACCESS-KEY",
    }
}

/// One thing that a material brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// What is masked, not enciphered, in a read-back.
    Secret,
    /// The name beside it: access key id, account, name of the policy.
    Name,
    Client,
    Tenant,
    AuthorityHost,
    /// The account that a service principal is used on.
    StorageAccount,
}

impl Part {
    fn of(self, material: &Material) -> Option<&str> {
        match (self, material) {
            (Self::Secret, _) => Some(material.secret().expose()),
            (Self::Name, Material::AccessKey { id, .. } | Material::HmacKey { id, .. }) => Some(id.as_str()),
            (
                Self::Name,
                Material::StorageAccountKey { account, .. }
                | Material::SasToken { account, .. }
                | Material::CosmosAccountKey { account, .. },
            ) => Some(account),
            (Self::Name, Material::ServiceBusKey { key_name, .. }) => Some(key_name),
            (Self::Client, Material::ServicePrincipal { client, .. }) => Some(client),
            (Self::Tenant, Material::ServicePrincipal { tenant, .. }) => Some(tenant),
            (Self::AuthorityHost, Material::ServicePrincipal { authority_host, .. }) => authority_host.as_deref(),
            (Self::StorageAccount, Material::ServicePrincipal { storage_account, .. }) => storage_account.as_deref(),
            _ => None,
        }
    }

    /// Whether a material of this kind brings it, so that what stands there now is replaced.
    fn is_in(self, kind: MaterialKind) -> bool {
        match (self, kind) {
            (Self::AuthorityHost, MaterialKind::ServicePrincipal { authority_host, .. }) => authority_host,
            (Self::StorageAccount, MaterialKind::ServicePrincipal { storage_account, .. }) => storage_account,
            _ => true,
        }
    }
}

/// Where a field stands: the object inside the credential (empty: beside `type`), and its name there.
type Spot = (&'static str, &'static str);

/// Where a part may stand, the documented place first.
type Field = (Part, &'static [Spot]);

const ACCESS_SNAKE: &[Field] = &[
    (Part::Secret, &[("secret", "secret_key"), ("secret", "secretKey")]),
    (Part::Name, &[("secret", "access_key"), ("secret", "accessKey")]),
];
const ACCESS_CAMEL: &[Field] = &[
    (Part::Secret, &[("secret", "secretKey"), ("secret", "secret_key")]),
    (Part::Name, &[("secret", "accessKey"), ("secret", "access_key")]),
];
const STORAGE: &[Field] =
    &[(Part::Name, &[("secret", "storageAccountName")]), (Part::Secret, &[("secret", "storageAccountKey")])];
const SAS: &[Field] = &[(Part::Secret, &[("secret", "sasToken")]), (Part::Name, &[("secret", "storageAccountName")])];
const COSMOS: &[Field] = &[(Part::Name, &[("secret", "accountName")]), (Part::Secret, &[("secret", "accountKey")])];
const SERVICE_BUS: &[Field] =
    &[(Part::Name, &[("secret", "sharedAccessKeyName")]), (Part::Secret, &[("secret", "sharedAccessKey")])];
const PRINCIPAL: &str = "servicePrincipal";
const PRINCIPAL_KUBERNETES: &[Field] = &[
    (Part::StorageAccount, &[("secret", "storageAccountName")]),
    (Part::Client, &[(PRINCIPAL, "clientId"), ("secret", "clientId")]),
    (Part::Tenant, &[(PRINCIPAL, "tenantId"), ("secret", "tenantId")]),
    (Part::Secret, &[(PRINCIPAL, "clientSecret"), ("secret", "clientSecret")]),
    // No page of Kubernetes shows one. Whoever asks for one needs it, so it goes where Server has it.
    (Part::AuthorityHost, &[("", "authorityHost"), (PRINCIPAL, "authorityHost"), ("secret", "authorityHost")]),
];
const PRINCIPAL_SERVER: &[Field] = &[
    (Part::AuthorityHost, &[("", "authorityHost"), ("secret", "authorityHost"), (PRINCIPAL, "authorityHost")]),
    (Part::Tenant, &[("secret", "tenantId"), (PRINCIPAL, "tenantId")]),
    (Part::Client, &[("secret", "clientId"), (PRINCIPAL, "clientId")]),
    (Part::Secret, &[("secret", "clientSecret"), (PRINCIPAL, "clientSecret")]),
    (Part::StorageAccount, &[("secret", "storageAccountName")]),
];

/// The shape of a new object, where there is no current one to follow.
fn fields_of(kind: MaterialKind, product: Product, spelling: Spelling, current: Option<&Shown>) -> &'static [Field] {
    match kind {
        MaterialKind::AccessKey if spelling == Spelling::Snake => ACCESS_SNAKE,
        MaterialKind::AccessKey | MaterialKind::HmacKey => ACCESS_CAMEL,
        MaterialKind::StorageAccountKey => STORAGE,
        MaterialKind::SasToken => SAS,
        MaterialKind::CosmosAccountKey => COSMOS,
        MaterialKind::ServiceBusKey => SERVICE_BUS,
        // The two products place it differently; what is there now says more than the product's name.
        MaterialKind::ServicePrincipal { .. } => {
            let shows = |spot| current.is_some_and(|current| current.at(spot).is_some());
            match product {
                _ if shows((PRINCIPAL, "clientId")) || shows((PRINCIPAL, "clientSecret")) => PRINCIPAL_KUBERNETES,
                _ if shows(("secret", "clientId")) || shows(("secret", "clientSecret")) => PRINCIPAL_SERVER,
                Product::Kubernetes => PRINCIPAL_KUBERNETES,
                Product::Server => PRINCIPAL_SERVER,
            }
        }
    }
}

/// A credential object that lacks nothing but the values of the key.
pub struct Form {
    kind: &'static str,
    fields: Vec<(Part, Spot)>,
    /// What stays of the current object.
    kept: Map<String, Value>,
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Form").field("kind", &self.kind).field("fields", &self.fields).finish_non_exhaustive()
    }
}

impl Form {
    /// The form for a material of this kind in place of `current`, which is of the same type.
    ///
    /// # Errors
    /// What keeps a whole object from being written, to follow "its credential": a field nobody brings is shown masked only, a
    /// part has another form than ever documented, or the product needs what the material lacks.
    pub fn new(
        kind: MaterialKind,
        product: Product,
        spelling: Spelling,
        current: Option<&Shown>,
    ) -> Result<Self, String> {
        let all = fields_of(kind, product, spelling, current);
        let mut kept = current.map(|current| current.object.clone()).unwrap_or_default();
        kept.remove("type");
        let mut fields = Vec::new();
        for (part, spots) in all {
            let shown = spots.iter().find(|spot| current.is_some_and(|current| current.at(**spot).is_some()));
            let spot = match (part, shown) {
                _ if !part.is_in(kind) => continue,
                // The spelling was chosen, by the policy or after a refusal.
                (Part::Secret | Part::Name, _) if kind == MaterialKind::AccessKey => Some(&spots[0]),
                (_, Some(shown)) => Some(shown),
                // Server has no place for it: there the account is a part of the service's own connection.
                (Part::StorageAccount, None) if all == PRINCIPAL_SERVER || current.is_some() => None,
                (_, None) => spots.first(),
            };
            // All spellings go, or the old key's would stand beside the new one's.
            for (container, name) in *spots {
                remove(&mut kept, container, name);
            }
            fields.extend(spot.map(|spot| (*part, *spot)));
        }
        let lacks_account = matches!(kind, MaterialKind::ServicePrincipal { storage_account: false, .. });
        if lacks_account && current.is_none() && all == PRINCIPAL_KUBERNETES {
            return Err("needs the name of a storage account (storage_account), and the issuer names none".to_owned());
        }
        for container in ["secret", PRINCIPAL] {
            let is_needed = fields.iter().any(|(_, (at, _))| *at == container);
            if is_needed && kept.get(container).is_some_and(|kept| !kept.is_object()) {
                return Err(format!("has a `{container}` that is no object"));
            }
        }
        if let Some(masked) = kept.iter().find_map(|(name, value)| masked_in(name, value)) {
            return Err(format!("has a field `{masked}` that is shown masked only, and nobody but ArcGIS knows it"));
        }
        Ok(Self { kind: type_of(kind), fields, kept })
    }

    /// The `credential` parameter, in one buffer that is wiped when dropped and never grew.
    pub fn write(&self, material: &Material) -> Zeroizing<String> {
        let filled = Filled { form: self, material };
        let mut size = Count(0);
        serde_json::to_writer(&mut size, &filled).expect("texts are always JSON, and counting takes every write");
        let mut buffer = Vec::with_capacity(size.0);
        serde_json::to_writer(&mut buffer, &filled).expect("texts are always JSON, and a Vec takes every write");
        debug_assert_eq!(buffer.len(), size.0, "a buffer that grows leaves a copy behind");
        Zeroizing::new(String::from_utf8(buffer).expect("JSON is UTF-8"))
    }

    /// What goes back enciphered. The site takes it for what it stands for, so it is as secret as that.
    pub fn ciphertexts(&self) -> Vec<Secret> {
        let mut all = Vec::new();
        self.kept.values().for_each(|value| collect_ciphertexts(value, &mut all));
        all
    }
}

/// Counts what would be written.
struct Count(usize);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A form with its values: never in one piece but in the buffer that is sent.
struct Filled<'a> {
    form: &'a Form,
    material: &'a Material,
}

impl Filled<'_> {
    fn fields_in<'s>(&'s self, container: &'s str) -> impl Iterator<Item = (&'static str, &'s str)> {
        let fields = self.form.fields.iter().filter(move |(_, (at, _))| *at == container);
        fields.filter_map(|(part, (_, name))| Some((*name, part.of(self.material)?)))
    }
}

impl Serialize for Filled<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", self.form.kind)?;
        for (name, text) in self.fields_in("") {
            map.serialize_entry(name, text)?;
        }
        for container in ["secret", PRINCIPAL] {
            let kept = self.form.kept.get(container).and_then(Value::as_object);
            if kept.is_some() || self.fields_in(container).next().is_some() {
                map.serialize_entry(container, &Inner { filled: self, container, kept })?;
            }
        }
        let is_inner = |name: &str, value: &Value| ["secret", PRINCIPAL].contains(&name) && value.is_object();
        for (name, value) in self.form.kept.iter().filter(|(name, value)| !is_inner(name, value)) {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// `secret` or `servicePrincipal`: the key's fields, then what is kept.
struct Inner<'a> {
    filled: &'a Filled<'a>,
    container: &'a str,
    kept: Option<&'a Map<String, Value>>,
}

impl Serialize for Inner<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, text) in self.filled.fields_in(self.container) {
            map.serialize_entry(name, text)?;
        }
        for (name, value) in self.kept.into_iter().flatten() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

fn remove(object: &mut Map<String, Value>, container: &str, name: &str) {
    let object = match container {
        "" => Some(object),
        container => object.get_mut(container).and_then(Value::as_object_mut),
    };
    if let Some(object) = object {
        object.remove(name);
    }
}

/// The path of a text that is a mask, if there is one at any depth.
fn masked_in(path: &str, value: &Value) -> Option<String> {
    match value {
        Value::String(text) => is_masked(text).then(|| path.to_owned()),
        Value::Array(list) => list.iter().find_map(|value| masked_in(path, value)),
        Value::Object(map) => map.iter().find_map(|(name, value)| masked_in(&format!("{path}.{name}"), value)),
        _ => None,
    }
}

fn collect_ciphertexts(value: &Value, all: &mut Vec<Secret>) {
    match value {
        Value::String(text) if CIPHER_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) => {
            all.push(Secret::new(text.clone()));
        }
        Value::Array(list) => list.iter().for_each(|value| collect_ciphertexts(value, all)),
        Value::Object(map) => map.values().for_each(|value| collect_ciphertexts(value, all)),
        _ => {}
    }
}

/// A credential without a key, to which a place may be switched from 12.0 on ("moving from key-based models to identity or role-based
/// models").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keyless {
    /// AWS: the role of the nodes, or of the pods' service account.
    IamRole,
    /// Azure: an identity assigned to the nodes.
    UserAssignedIdentity {
        /// The identity's client id.
        client: String,
        /// The storage account it is used on; Kubernetes keeps it with the identity, Server in the service's connection.
        storage_account: Option<String>,
    },
}

/// The credential object of a keyless type, as Kubernetes' and Server's own scripts shape it. It holds nothing secret.
///
/// # Errors
/// Kubernetes needs the storage account.
pub fn keyless_object(to: &Keyless, product: Product) -> Result<Value, String> {
    match (to, product) {
        (Keyless::IamRole, _) => Ok(json!({ "type": "IAM-ROLE" })),
        (Keyless::UserAssignedIdentity { client, storage_account: Some(account) }, Product::Kubernetes) => Ok(json!({
            "type": "USER-ASSIGNED-IDENTITY",
            "managedIdentityClientId": client,
            "secret": { "storageAccountName": account },
        })),
        (Keyless::UserAssignedIdentity { storage_account: None, .. }, Product::Kubernetes) => {
            Err("a USER-ASSIGNED-IDENTITY on Kubernetes needs the name of its storage account".to_owned())
        }
        (Keyless::UserAssignedIdentity { client, .. }, Product::Server) => {
            Ok(json!({ "type": "USER-ASSIGNED-IDENTITY", "secret": { "managedIdentityClientId": client } }))
        }
    }
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
        // Only the secret's end is shown; names and ids stay encrypted even where masking is asked for.
        let spots = SECRETS.iter().find(|(kind, _)| *kind == shown.kind).map(|(_, spots)| *spots);
        let masked = spots.into_iter().flatten().find_map(|spot| shown.at(*spot)?.as_str());
        if let Some(tail) = masked.and_then(tail_of) {
            shown.reading = Reading::Tail(tail);
        }
        Some(shown)
    }

    fn at(&self, (container, name): Spot) -> Option<&Value> {
        match container {
            "" => self.object.get(name),
            container => self.object.get(container)?.as_object()?.get(name),
        }
    }

    /// Whether there is no secret in it at all.
    pub fn is_keyless(&self) -> bool {
        KEYLESS.contains(&self.kind.as_str())
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
    use crate::model::KeyId;

    const PRINCIPAL_KIND: MaterialKind =
        MaterialKind::ServicePrincipal { authority_host: false, storage_account: true };
    const HOSTILE: &str = "a+b/c=d&e%f?\"\\g";

    fn material(kind: MaterialKind) -> Material {
        let (id, secret) = (|| KeyId::new("AKIAEXAMPLE"), || Secret::new(HOSTILE.to_owned()));
        let account = || "gisstore".to_owned();
        match kind {
            MaterialKind::AccessKey => Material::AccessKey { id: id(), secret: secret() },
            MaterialKind::HmacKey => Material::HmacKey { id: id(), secret: secret() },
            MaterialKind::StorageAccountKey => {
                Material::StorageAccountKey { id: id(), account: account(), key: secret() }
            }
            MaterialKind::SasToken => Material::SasToken { id: id(), account: account(), token: secret() },
            MaterialKind::CosmosAccountKey => {
                Material::CosmosAccountKey { id: id(), account: account(), key: secret() }
            }
            MaterialKind::ServiceBusKey => Material::ServiceBusKey { id: id(), key_name: account(), key: secret() },
            MaterialKind::ServicePrincipal { authority_host, storage_account } => Material::ServicePrincipal {
                id: id(),
                tenant: "tenant".to_owned(),
                client: "client".to_owned(),
                secret: secret(),
                authority_host: authority_host.then(|| "https://login.microsoftonline.us".to_owned()),
                storage_account: storage_account.then(account),
            },
        }
    }

    fn shown(value: Value) -> Shown {
        Shown::of(Some(&value)).expect("it is a credential")
    }

    fn written(kind: MaterialKind, product: Product, spelling: Spelling, current: Option<&Shown>) -> Value {
        let form = Form::new(kind, product, spelling, current).expect("it can be written");
        serde_json::from_str(&form.write(&material(kind))).expect("it is JSON")
    }

    fn refused(kind: MaterialKind, current: Value) -> String {
        let form = Form::new(kind, Product::Kubernetes, Spelling::Camel, Some(&shown(current)));
        form.expect_err("it cannot be written")
    }

    #[test]
    fn a_key_is_written_in_full_in_either_spelling() {
        let text = |spelling| {
            let form = Form::new(MaterialKind::AccessKey, Product::Server, spelling, None).expect("it can be written");
            form.write(&material(MaterialKind::AccessKey)).to_string()
        };
        assert_eq!(
            text(Spelling::Snake),
            r#"{"type":"ACCESS-KEY","secret":{"secret_key":"a+b/c=d&e%f?\"\\g","access_key":"AKIAEXAMPLE"}}"#
        );
        assert_eq!(
            text(Spelling::Camel),
            r#"{"type":"ACCESS-KEY","secret":{"secretKey":"a+b/c=d&e%f?\"\\g","accessKey":"AKIAEXAMPLE"}}"#
        );
    }

    #[test]
    fn every_type_has_the_shape_that_is_documented_for_it() {
        use Product::{Kubernetes, Server};
        let government = MaterialKind::ServicePrincipal { authority_host: true, storage_account: true };
        for (kind, product, expected) in [
            (
                MaterialKind::StorageAccountKey,
                Kubernetes,
                json!({"type": "STORAGE-ACCOUNT-KEY", "secret": {"storageAccountName": "gisstore", "storageAccountKey": HOSTILE}}),
            ),
            (
                MaterialKind::SasToken,
                Kubernetes,
                json!({"type": "SAS-TOKEN", "secret": {"sasToken": HOSTILE, "storageAccountName": "gisstore"}}),
            ),
            (
                MaterialKind::HmacKey,
                Kubernetes,
                json!({"type": "HMAC-KEYS", "secret": {"secretKey": HOSTILE, "accessKey": "AKIAEXAMPLE"}}),
            ),
            (
                MaterialKind::CosmosAccountKey,
                Server,
                json!({"type": "COSMOSDB-ACCOUNT-KEY", "secret": {"accountName": "gisstore", "accountKey": HOSTILE}}),
            ),
            (
                MaterialKind::ServiceBusKey,
                Server,
                json!({"type": "SERVICEBUS-ACCESS-KEY", "secret": {"sharedAccessKeyName": "gisstore", "sharedAccessKey": HOSTILE}}),
            ),
            (
                PRINCIPAL_KIND,
                Kubernetes,
                json!({"type": "SERVICE-PRINCIPAL", "secret": {"storageAccountName": "gisstore"},
                       "servicePrincipal": {"clientId": "client", "tenantId": "tenant", "clientSecret": HOSTILE}}),
            ),
            (
                PRINCIPAL_KIND,
                Server,
                json!({"type": "SERVICE-PRINCIPAL",
                       "secret": {"clientId": "client", "tenantId": "tenant", "clientSecret": HOSTILE}}),
            ),
            (
                government,
                Server,
                json!({"type": "SERVICE-PRINCIPAL", "authorityHost": "https://login.microsoftonline.us",
                       "secret": {"clientId": "client", "tenantId": "tenant", "clientSecret": HOSTILE}}),
            ),
        ] {
            // The spelling is for ACCESS-KEY alone.
            for spelling in [Spelling::Snake, Spelling::Camel] {
                assert_eq!(written(kind, product, spelling, None), expected, "{kind:?} {product:?}");
            }
            let keys = CredentialKeys::Snake;
            assert_eq!(keys.spellings(kind).len(), 1);
        }
        assert_eq!(CredentialKeys::Auto.spellings(MaterialKind::AccessKey), [Spelling::Snake, Spelling::Camel]);
    }

    #[test]
    fn the_current_object_gives_the_shape_and_keeps_what_is_its_own() {
        let current = shown(
            json!({"type": "SERVICE-PRINCIPAL", "authorityHost": "https://login.example", "future": {"a": [1, null]},
            "secret": {"clientId": "v2Crypt_c", "tenantId": "v2Crypt_t", "clientSecret": "v2Crypt_xxxxxxxxxxxxxxxxVC5M",
                       "region": "v2Crypt_R68p/cv+="}}),
        );
        // Server's shape, though the policy says Kubernetes.
        assert_eq!(
            written(PRINCIPAL_KIND, Product::Kubernetes, Spelling::Camel, Some(&current)),
            json!({"type": "SERVICE-PRINCIPAL", "authorityHost": "https://login.example", "future": {"a": [1, null]},
                   "secret": {"clientId": "client", "tenantId": "tenant", "clientSecret": HOSTILE, "region": "v2Crypt_R68p/cv+="}})
        );
        let bare = MaterialKind::ServicePrincipal { authority_host: false, storage_account: false };
        let current = shown(json!({"type": "SERVICE-PRINCIPAL", "secret": {"storageAccountName": "{crypt}R68p"},
            "servicePrincipal": {"clientId": "{crypt}c", "tenantId": "{crypt}t", "clientSecret": "{crypt}s", "audience": "x"}}));
        assert_eq!(
            written(bare, Product::Server, Spelling::Camel, Some(&current)),
            json!({"type": "SERVICE-PRINCIPAL", "secret": {"storageAccountName": "{crypt}R68p"}, "servicePrincipal":
                   {"clientId": "client", "tenantId": "tenant", "clientSecret": HOSTILE, "audience": "x"}})
        );
        let form = Form::new(bare, Product::Server, Spelling::Camel, Some(&current)).expect("it can be written");
        assert_eq!(form.ciphertexts(), [Secret::new("{crypt}R68p".to_owned())]);
    }

    #[test]
    fn neither_spelling_of_the_old_key_stays() {
        let current = shown(
            json!({"type": "ACCESS-KEY", "secret": {"accessKey": "{crypt}+1FS", "secretKey": "{crypt}xxxxxxxxxxxxxxxxVC5M"}}),
        );
        assert_eq!(
            written(MaterialKind::AccessKey, Product::Kubernetes, Spelling::Snake, Some(&current)),
            json!({"type": "ACCESS-KEY", "secret": {"secret_key": HOSTILE, "access_key": "AKIAEXAMPLE"}})
        );
        let current =
            shown(json!({"type": "HMAC-KEYS", "secret": {"access_key": "{crypt}+1FS", "secret_key": "{crypt}n"}}));
        assert_eq!(
            written(MaterialKind::HmacKey, Product::Kubernetes, Spelling::Camel, Some(&current)),
            json!({"type": "HMAC-KEYS", "secret": {"secret_key": HOSTILE, "access_key": "AKIAEXAMPLE"}})
        );
    }

    #[test]
    fn a_mask_is_never_sent() {
        let kind = MaterialKind::StorageAccountKey;
        for mask in ["{crypt}xxxxxxxxxxxxxxxxVC5M", "v2Crypt_xxxxxxxxxxxxxxxxab", "****************", "xxxxxxxxxxxx"] {
            assert_eq!(
                refused(kind, json!({"type": "STORAGE-ACCOUNT-KEY", "secret": {"storageAccountKey2": mask}})),
                "has a field `secret.storageAccountKey2` that is shown masked only, and nobody but ArcGIS knows it"
            );
            let deep = refused(kind, json!({"type": "STORAGE-ACCOUNT-KEY", "future": {"a": [{"b": mask}]}}));
            assert!(deep.contains("`future.a.b`"), "{deep}");
        }
        let account = json!({"type": "SERVICE-PRINCIPAL", "secret": {"storageAccountName": "{crypt}xxxxxxxxxxxxxxxxtore"},
            "servicePrincipal": {"clientId": "{crypt}c"}});
        let bare = MaterialKind::ServicePrincipal { authority_host: false, storage_account: false };
        assert!(refused(bare, account.clone()).contains("`secret.storageAccountName`"));
        let whole = written(PRINCIPAL_KIND, Product::Kubernetes, Spelling::Camel, Some(&shown(account)));
        assert_eq!(whole["secret"]["storageAccountName"], "gisstore");
    }

    #[test]
    fn what_cannot_be_written_whole_says_why() {
        let bare = MaterialKind::ServicePrincipal { authority_host: false, storage_account: false };
        let why = Form::new(bare, Product::Kubernetes, Spelling::Camel, None).expect_err("no account is named");
        assert!(why.contains("storage_account"), "{why}");
        assert!(Form::new(bare, Product::Server, Spelling::Camel, None).is_ok());
        let odd = refused(MaterialKind::SasToken, json!({"type": "SAS-TOKEN", "secret": "sv=1"}));
        assert_eq!(odd, "has a `secret` that is no object");
    }

    #[test]
    fn the_keyless_types_have_a_shape_for_each_product() {
        use Product::{Kubernetes, Server};
        let identity = |account: Option<&str>| Keyless::UserAssignedIdentity {
            client: "0f-client".to_owned(),
            storage_account: account.map(str::to_owned),
        };
        for product in [Kubernetes, Server] {
            assert_eq!(keyless_object(&Keyless::IamRole, product), Ok(json!({"type": "IAM-ROLE"})));
        }
        assert_eq!(
            keyless_object(&identity(Some("gisstore")), Kubernetes),
            Ok(json!({"type": "USER-ASSIGNED-IDENTITY", "managedIdentityClientId": "0f-client",
                      "secret": {"storageAccountName": "gisstore"}}))
        );
        assert_eq!(
            keyless_object(&identity(Some("gisstore")), Server),
            Ok(json!({"type": "USER-ASSIGNED-IDENTITY", "secret": {"managedIdentityClientId": "0f-client"}}))
        );
        assert_eq!(keyless_object(&identity(None), Server), keyless_object(&identity(Some("x")), Server));
        assert!(keyless_object(&identity(None), Kubernetes).is_err());
        for product in [Kubernetes, Server] {
            assert!(shown(keyless_object(&identity(Some("x")), product).expect("it is whole")).is_keyless());
        }
    }

    #[test]
    fn no_ciphertext_is_printed() {
        let current = shown(json!({"type": "SAS-TOKEN", "secret": {"sasToken": "{crypt}hush", "x": "{crypt}hush"}}));
        let form = Form::new(MaterialKind::SasToken, Product::Server, Spelling::Camel, Some(&current));
        let printed = format!("{current:?} {form:?}");
        assert!(printed.contains("SAS-TOKEN") && !printed.contains("hush"), "{printed}");
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
        assert!(role.is_keyless() && role.reading == Reading::Hidden);
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

    #[test]
    fn a_refusal_that_names_a_field_is_about_spelling() {
        assert!(is_about_spelling("Missing required property: secret.secretKey."));
        assert!(is_about_spelling("Invalid credential object"));
        assert!(!is_about_spelling("The cloud service already has existing service-specific credentials."));
    }
}
