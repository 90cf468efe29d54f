//! A key as requests and answers have it: its kind, its name, its secret, and what else belongs to it.

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::{KeyId, Material, MaterialKind, Secret, deserialize_secret};

/// What is secret is as big as this at most: 64 KiB.
const SECRET_MAX: usize = 64 * 1024;

/// A key on the wire.
#[derive(Clone, Debug, Deserialize)]
pub struct Key {
    /// What it is: `access-key` where nothing is said.
    #[serde(default)]
    kind: Option<String>,
    id: String,
    #[serde(deserialize_with = "deserialize_secret")]
    secret: Secret,
    #[serde(default)]
    account: Option<String>,
    #[serde(default)]
    tenant: Option<String>,
    #[serde(default)]
    client: Option<String>,
    #[serde(default)]
    authority_host: Option<String>,
    #[serde(default)]
    storage_account: Option<String>,
    #[serde(default)]
    key_name: Option<String>,
    #[serde(default, deserialize_with = "some_secret")]
    password: Option<Secret>,
}

fn some_secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    deserialize_secret(from).map(Some)
}

impl Key {
    /// The kinds there are, as the policy and the wire name them.
    pub const KINDS: [&'static str; 9] = [
        "access-key",
        "hmac-key",
        "storage-account-key",
        "sas-token",
        "service-principal",
        "cosmos-account-key",
        "service-bus-key",
        "api-token",
        "api-certificate",
    ];

    /// What a kind of this name is, as far as the name alone tells.
    pub fn material_kind(name: &str) -> Option<MaterialKind> {
        Some(match name {
            "access-key" => MaterialKind::AccessKey,
            "hmac-key" => MaterialKind::HmacKey,
            "storage-account-key" => MaterialKind::StorageAccountKey,
            "sas-token" => MaterialKind::SasToken,
            "cosmos-account-key" => MaterialKind::CosmosAccountKey,
            "service-bus-key" => MaterialKind::ServiceBusKey,
            "api-token" => MaterialKind::ApiToken,
            "api-certificate" => MaterialKind::ApiCertificate,
            // What comes with the secret is seen when it is there.
            _ => return None,
        })
    }

    /// The same of a kind that is for the other side to tell.
    pub fn without_kind(mut self) -> Self {
        self.kind = None;
        self
    }

    /// What no message may hold.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        let key = self.clone().into_material("access-key");
        let mut all = key.map_or_else(|_| vec![self.secret.clone()], |key| key.secrets());
        all.extend(self.password.clone());
        all
    }

    /// As targets need it. `expected` is the kind the policy names.
    ///
    /// # Errors
    /// What it lacks, never what it holds.
    pub fn into_material(self, expected: &str) -> Result<Material, String> {
        let kind = self.kind.unwrap_or_else(|| expected.to_owned());
        let Some(kind) = Self::KINDS.into_iter().find(|known| *known == kind) else {
            return Err(format!("a key of a kind that is none of {}", Self::KINDS.join(", ")));
        };
        if !is_id(&self.id) {
            return Err("a key whose id is not 1 to 200 letters, digits and signs".to_owned());
        }
        if self.secret.expose().is_empty() || self.secret.expose().len() > SECRET_MAX {
            return Err("a key whose secret is empty or longer than 64 KiB".to_owned());
        }
        let (id, secret) = (KeyId::new(self.id), self.secret);
        let part = |name: &str, part: Option<String>| {
            part.filter(|part| is_id(part)).ok_or_else(|| format!("a {kind} without its `{name}`"))
        };
        Ok(match kind {
            "access-key" => Material::AccessKey { id, secret },
            "hmac-key" => Material::HmacKey { id, secret },
            "storage-account-key" => {
                Material::StorageAccountKey { id, account: part("account", self.account)?, key: secret }
            }
            "sas-token" => Material::SasToken { id, account: part("account", self.account)?, token: secret },
            "cosmos-account-key" => {
                Material::CosmosAccountKey { id, account: part("account", self.account)?, key: secret }
            }
            "service-bus-key" => {
                Material::ServiceBusKey { id, key_name: part("key_name", self.key_name)?, key: secret }
            }
            "api-token" => Material::ApiToken { id, token: secret },
            "api-certificate" => {
                let password = self.password.filter(|password| (1..=SECRET_MAX).contains(&password.expose().len()));
                let password = password.ok_or_else(|| "an api-certificate without its `password`".to_owned())?;
                Material::ApiCertificate { id, pkcs12: secret, password }
            }
            _ => Material::ServicePrincipal {
                id,
                tenant: part("tenant", self.tenant)?,
                client: part("client", self.client)?,
                secret,
                authority_host: self.authority_host.filter(|host| is_id(host)),
                storage_account: self.storage_account.filter(|account| is_id(account)),
            },
        })
    }
}

/// A name that can stand in a log, a status and a journal as it is.
pub fn is_id(text: &str) -> bool {
    (1..=200).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

impl From<&Material> for Key {
    fn from(material: &Material) -> Self {
        let mut key = Self {
            kind: None,
            id: material.key().as_str().to_owned(),
            secret: material.secret().clone(),
            account: None,
            tenant: None,
            client: None,
            authority_host: None,
            storage_account: None,
            key_name: None,
            password: None,
        };
        let kind = match material {
            Material::AccessKey { .. } => "access-key",
            Material::HmacKey { .. } => "hmac-key",
            Material::StorageAccountKey { account, .. } => {
                key.account = Some(account.clone());
                "storage-account-key"
            }
            Material::SasToken { account, .. } => {
                key.account = Some(account.clone());
                "sas-token"
            }
            Material::CosmosAccountKey { account, .. } => {
                key.account = Some(account.clone());
                "cosmos-account-key"
            }
            Material::ServiceBusKey { key_name, .. } => {
                key.key_name = Some(key_name.clone());
                "service-bus-key"
            }
            Material::ServicePrincipal { tenant, client, authority_host, storage_account, .. } => {
                key.tenant = Some(tenant.clone());
                key.client = Some(client.clone());
                key.authority_host.clone_from(authority_host);
                key.storage_account.clone_from(storage_account);
                "service-principal"
            }
            Material::ApiToken { .. } => "api-token",
            Material::ApiCertificate { password, .. } => {
                key.password = Some(password.clone());
                "api-certificate"
            }
        };
        key.kind = Some(kind.to_owned());
        key
    }
}

/// The one place where a secret is written out: onto a program's stdin.
impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(kind) = &self.kind {
            map.serialize_entry("kind", kind)?;
        }
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("secret", self.secret.expose())?;
        let others = [
            ("account", &self.account),
            ("tenant", &self.tenant),
            ("client", &self.client),
            ("authority_host", &self.authority_host),
            ("storage_account", &self.storage_account),
            ("key_name", &self.key_name),
        ];
        for (name, value) in others {
            if let Some(value) = value {
                map.serialize_entry(name, value)?;
            }
        }
        if let Some(password) = &self.password {
            map.serialize_entry("password", password.expose())?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Material> {
        let (id, secret) = (|| KeyId::new("key1@x"), || Secret::new("hush+/=\"\\".to_owned()));
        let name = || "gisstore".to_owned();
        vec![
            Material::AccessKey { id: id(), secret: secret() },
            Material::HmacKey { id: id(), secret: secret() },
            Material::StorageAccountKey { id: id(), account: name(), key: secret() },
            Material::SasToken { id: id(), account: name(), token: secret() },
            Material::ServicePrincipal {
                id: id(),
                tenant: name(),
                client: name(),
                secret: secret(),
                authority_host: None,
                storage_account: Some(name()),
            },
            Material::CosmosAccountKey { id: id(), account: name(), key: secret() },
            Material::ServiceBusKey { id: id(), key_name: name(), key: secret() },
            Material::ApiToken { id: id(), token: secret() },
            Material::ApiCertificate { id: id(), pkcs12: secret(), password: secret() },
        ]
    }

    #[test]
    fn every_kind_comes_back() {
        for (material, kind) in all().iter().zip(Key::KINDS) {
            let text = serde_json::to_string(&Key::from(material)).expect("it is JSON");
            assert!(text.starts_with(&format!("{{\"kind\":\"{kind}\",\"id\":\"key1@x\",\"secret\":\"hush")), "{text}");
            let key: Key = serde_json::from_str(&text).expect("it reads");
            assert!(!format!("{key:?}").contains("hush"));
            assert_eq!(key.into_material("access-key").as_ref(), Ok(material));
            assert!(Key::material_kind(kind).is_none_or(|kind| kind == material.kind()));
        }
    }

    #[test]
    fn a_key_that_lacks_something_is_none() {
        for (text, what) in [
            (r#"{"id":"","secret":"x"}"#, "id is not"),
            (r#"{"id":"a\u0007b","secret":"x"}"#, "id is not"),
            (r#"{"id":"a b","secret":"x"}"#, "id is not"),
            (r#"{"id":"a","secret":""}"#, "secret is empty"),
            (r#"{"kind":"password","id":"a","secret":"x"}"#, "of a kind that is none of access-key, hmac-key"),
            (r#"{"kind":"sas-token","id":"a","secret":"x"}"#, "a sas-token without its `account`"),
            (r#"{"kind":"api-certificate","id":"a","secret":"x"}"#, "an api-certificate without its `password`"),
            (r#"{"kind":"service-principal","id":"a","secret":"x","tenant":"t"}"#, "without its `client`"),
        ] {
            let key: Key = serde_json::from_str(text).expect("it reads");
            let why = key.into_material("access-key").expect_err("it lacks something");
            assert!(why.contains(what), "{text}: {why}");
        }
    }
}
