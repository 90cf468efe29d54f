//! The credential object of a push: how a key is written, in its own shape or in that of the one stored now.
//!
//! What a stored one shows is `shown`'s to read, and objects without a key are `keyless`'s. Sends nothing.
//!
//! A new object is the current one with the key's own fields replaced, as Esri's pages ask for ("can be retrieved and modified"): it
//! has the current one's shape, and fields nobody documented stay. The key's own fields are always plain text, every one of them.
//! What else the current object shows enciphered goes back as it came: the pages' own example posts an enciphered
//! `storageAccountName`, so the site evidently takes back what it enciphered; nobody says so in words, and it was not tried. What it
//! shows *masked* never goes back, since the mask would be stored: an object that needs it is refused, before a key is made.
//!
//! Shapes and names: the pages of `credential/add` and `credential/update` (Kubernetes 11.2 and 12.0, Server 12.0), and Esri's own
//! scripts where those are silent (Server's create-site for service principals, Cosmos DB and Service Bus).

use std::fmt;
use std::io::{self, Write};

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::config::{CredentialKeys, Product};
use super::shown::{PRINCIPAL, Shown, Spot, collect_ciphertexts, masked_in};
use crate::model::{Material, MaterialKind, Secret};

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

/// What ArcGIS has no type for, as a message calls it.
const NO_TYPE: &str = "an API credential";

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
        MaterialKind::ApiToken | MaterialKind::ApiCertificate => NO_TYPE,
    }
}

/// Whether ArcGIS has a type for such a key at all: none of its pages on credentials names one for an API of somebody else's.
pub fn takes(kind: MaterialKind) -> bool {
    type_of(kind) != NO_TYPE
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
        MaterialKind::ApiToken | MaterialKind::ApiCertificate => &[],
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
        if !takes(kind) {
            return Err("is none that ArcGIS has a type for".to_owned());
        }
        let all = fields_of(kind, product, spelling, current);
        let mut kept = current.map(|current| current.object().clone()).unwrap_or_default();
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

/// Whether a refusal speaks of the names of the secret's fields, so that the other spelling may be what is wanted. No wording is
/// documented; a wrong guess costs one more refused request.
pub fn is_about_spelling(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    ["secret_key", "access_key", "secretkey", "accesskey", "invalid credential", "secret.", "required property"]
        .iter()
        .any(|words| said.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::KeyId;
    use serde_json::json;

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
            MaterialKind::ApiToken => Material::ApiToken { id: id(), token: secret() },
            MaterialKind::ApiCertificate => Material::ApiCertificate { id: id(), pkcs12: secret(), password: secret() },
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
    fn no_ciphertext_is_printed() {
        let current = shown(json!({"type": "SAS-TOKEN", "secret": {"sasToken": "{crypt}hush", "x": "{crypt}hush"}}));
        let form = Form::new(MaterialKind::SasToken, Product::Server, Spelling::Camel, Some(&current));
        let printed = format!("{current:?} {form:?}");
        assert!(printed.contains("SAS-TOKEN") && !printed.contains("hush"), "{printed}");
    }

    #[test]
    fn a_refusal_that_names_a_field_is_about_spelling() {
        assert!(is_about_spelling("Missing required property: secret.secretKey."));
        assert!(is_about_spelling("Invalid credential object"));
        assert!(!is_about_spelling("The cloud service already has existing service-specific credentials."));
    }
}
