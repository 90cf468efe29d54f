//! Key material: what a target needs of a key, by credential model, and the plain word for each model.
//!
//! Knows no target's spelling of it. The ids and names in here are not secret; whatever is has the type [`Secret`].

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{KeyId, Secret, Timestamp};

/// What a target needs of a key, by credential model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Material {
    /// An access key id with its secret (AWS IAM and S3-compatible stores; ArcGIS `ACCESS-KEY`).
    AccessKey {
        /// The access key id, which is also the [`KeyId`].
        id: KeyId,
        /// The secret access key.
        secret: Secret,
    },
    /// A key of an Azure storage account (ArcGIS `STORAGE-ACCOUNT-KEY`).
    StorageAccountKey {
        /// The slot and what tells its key from the one before: when it was made, or the beginning of its hash.
        id: KeyId,
        /// The storage account.
        account: String,
        /// The account key, base64.
        key: Secret,
    },
    /// A shared access signature of an Azure storage account (ArcGIS `SAS-TOKEN`).
    SasToken {
        /// The key it was signed with, or whatever its issuer knows it by.
        id: KeyId,
        /// The storage account.
        account: String,
        /// The token as it is to arrive, byte for byte: a `?` at its head is neither added nor taken away, here or later. Whoever
        /// makes the token decides; those that rekeyd signs have none.
        token: Secret,
    },
    /// A client secret of an Entra application (ArcGIS `SERVICE-PRINCIPAL`).
    ServicePrincipal {
        /// The `keyId` of the password credential.
        id: KeyId,
        /// The tenant (directory) id.
        tenant: String,
        /// The client (application) id.
        client: String,
        /// The client secret.
        secret: Secret,
        /// Where tokens are asked for, in clouds other than the public one.
        authority_host: Option<String>,
        /// The storage account it is used on, which ArcGIS on Kubernetes keeps beside it.
        storage_account: Option<String>,
    },
    /// An HMAC key of Google Cloud Storage (ArcGIS `HMAC-KEYS`).
    HmacKey {
        /// The access id, which is also the [`KeyId`].
        id: KeyId,
        /// Its secret.
        secret: Secret,
    },
    /// A key of an Azure Cosmos DB account (ArcGIS `COSMOSDB-ACCOUNT-KEY`).
    CosmosAccountKey {
        /// The slot and the beginning of its key's hash.
        id: KeyId,
        /// The Cosmos DB account.
        account: String,
        /// The account key, base64.
        key: Secret,
    },
    /// A key of a shared access policy of Azure Service Bus (ArcGIS `SERVICEBUS-ACCESS-KEY`).
    ServiceBusKey {
        /// The slot and the beginning of its key's hash.
        id: KeyId,
        /// The name of the policy, such as `RootManageSharedAccessKey`.
        key_name: String,
        /// The key.
        key: Secret,
    },
    /// An API token of F5 Distributed Cloud; ArcGIS takes none.
    ApiToken {
        /// The name of the service credential.
        id: KeyId,
        /// The token, as the header has it.
        token: Secret,
    },
    /// An API certificate of F5 Distributed Cloud; ArcGIS takes none.
    ApiCertificate {
        /// The name of the service credential.
        id: KeyId,
        /// Certificate and private key: a PKCS#12 in base64.
        pkcs12: Secret,
        /// What it is locked with.
        password: Secret,
    },
}

/// Which [`Material`] an issuer makes, known before it has made any. Stored in the journal with an open rotation: add, rename none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaterialKind {
    /// [`Material::AccessKey`].
    AccessKey,
    /// [`Material::StorageAccountKey`].
    StorageAccountKey,
    /// [`Material::SasToken`].
    SasToken,
    /// [`Material::ServicePrincipal`], and which of the parts that it may lack it has.
    ServicePrincipal {
        /// Whether an authority host comes with it.
        authority_host: bool,
        /// Whether a storage account comes with it.
        storage_account: bool,
    },
    /// [`Material::HmacKey`].
    HmacKey,
    /// [`Material::CosmosAccountKey`].
    CosmosAccountKey,
    /// [`Material::ServiceBusKey`].
    ServiceBusKey,
    /// [`Material::ApiToken`].
    ApiToken,
    /// [`Material::ApiCertificate`].
    ApiCertificate,
}

impl Material {
    /// What it is.
    pub fn kind(&self) -> MaterialKind {
        match self {
            Self::AccessKey { .. } => MaterialKind::AccessKey,
            Self::StorageAccountKey { .. } => MaterialKind::StorageAccountKey,
            Self::SasToken { .. } => MaterialKind::SasToken,
            Self::ServicePrincipal { authority_host, storage_account, .. } => MaterialKind::ServicePrincipal {
                authority_host: authority_host.is_some(),
                storage_account: storage_account.is_some(),
            },
            Self::HmacKey { .. } => MaterialKind::HmacKey,
            Self::CosmosAccountKey { .. } => MaterialKind::CosmosAccountKey,
            Self::ServiceBusKey { .. } => MaterialKind::ServiceBusKey,
            Self::ApiToken { .. } => MaterialKind::ApiToken,
            Self::ApiCertificate { .. } => MaterialKind::ApiCertificate,
        }
    }

    /// The key this material belongs to.
    pub fn key(&self) -> &KeyId {
        match self {
            Self::AccessKey { id, .. }
            | Self::StorageAccountKey { id, .. }
            | Self::SasToken { id, .. }
            | Self::ServicePrincipal { id, .. }
            | Self::HmacKey { id, .. }
            | Self::CosmosAccountKey { id, .. }
            | Self::ServiceBusKey { id, .. }
            | Self::ApiToken { id, .. }
            | Self::ApiCertificate { id, .. } => id,
        }
    }

    /// The part a target's masked read-back shows the end of.
    ///
    /// Esri's pages say "the last four characters" of "the secret key", and show a storage account's; that it is so for the other
    /// types is our reading. How much such an end tells differs: base64 of 64 bytes (storage, Cosmos DB) ends with `==` behind a
    /// character of four possible ones, so that two keys in 256 share it; of a SAS token the end of the *whole token* is taken to
    /// be shown. Those that rekeyd signs end with a millisecond; where `sig` stands last it is `%3D` behind a character of sixteen. Where two
    /// keys end alike, a read-back proves nothing, and the rotation treats it so.
    pub fn secret(&self) -> &Secret {
        match self {
            Self::AccessKey { secret, .. } | Self::ServicePrincipal { secret, .. } | Self::HmacKey { secret, .. } => {
                secret
            }
            Self::StorageAccountKey { key, .. }
            | Self::CosmosAccountKey { key, .. }
            | Self::ServiceBusKey { key, .. } => key,
            Self::SasToken { token, .. } | Self::ApiToken { token, .. } => token,
            Self::ApiCertificate { pkcs12, .. } => pkcs12,
        }
    }

    /// When it ends by itself, as it says itself: only a SAS token does.
    pub fn ends(&self) -> Option<Timestamp> {
        let Self::SasToken { token, .. } = self else { return None };
        let query = token.expose();
        sas_time(&percent_decoded(parameter(query.strip_prefix('?').unwrap_or(query), "se=")?))
    }

    /// Everything of it that no message may hold: the secret, and the parts of it that are secret by themselves. With a SAS token
    /// goes its signature, as it stands in the token and decoded, since a server that took the token apart may repeat that alone.
    pub fn secrets(&self) -> Vec<Secret> {
        let mut all = vec![self.secret().clone()];
        if let Self::ApiCertificate { password, .. } = self {
            all.push(password.clone());
        }
        if let Self::SasToken { token, .. } = self {
            let query = token.expose();
            let query = query.strip_prefix('?').unwrap_or(query);
            let signature = parameter(query, "sig=");
            let mut also = |text: &str| {
                if !text.is_empty() && all.iter().all(|known| known.expose() != text) {
                    all.push(Secret::new(text.to_owned()));
                }
            };
            also(query);
            if let Some(signature) = signature {
                also(signature);
                also(&percent_decoded(signature));
            }
        }
        all
    }
}

/// What stands behind `name=` in a query, as it stands there.
fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name))
}

/// A time as a SAS may have it ("Formatting date/time values in SAS"): of a day, of a minute, or of a second.
fn sas_time(text: &str) -> Option<Timestamp> {
    let full = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        17 => format!("{}:00Z", text.strip_suffix('Z')?),
        _ => text.to_owned(),
    };
    Some(DateTime::parse_from_rfc3339(&full).ok()?.with_timezone(&Utc))
}

/// `%2B` as `+`; whatever is no such escape stays as it is. Empty where the bytes are no text.
fn percent_decoded(text: &str) -> Zeroizing<String> {
    let hex = |byte: Option<&u8>| {
        byte.and_then(|byte| char::from(*byte).to_digit(16)).and_then(|digit| u8::try_from(digit).ok())
    };
    let (raw, mut at) = (text.as_bytes(), 0);
    let mut bytes = Zeroizing::new(Vec::with_capacity(raw.len()));
    while let Some(&byte) = raw.get(at) {
        match (byte, hex(raw.get(at + 1)), hex(raw.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(high << 4 | low);
                at += 3;
            }
            _ => {
                bytes.push(byte);
                at += 1;
            }
        }
    }
    Zeroizing::new(std::str::from_utf8(&bytes).unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "hush+/=&%?\"\\secret";

    fn secret() -> Secret {
        Secret::new(SECRET.to_owned())
    }

    /// One of each, all with the same secret.
    fn all() -> Vec<Material> {
        let id = || KeyId::new("key1@2026-11-22");
        let name = || "gisstore".to_owned();
        vec![
            Material::AccessKey { id: id(), secret: secret() },
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
            Material::HmacKey { id: id(), secret: secret() },
            Material::CosmosAccountKey { id: id(), account: name(), key: secret() },
            Material::ServiceBusKey { id: id(), key_name: name(), key: secret() },
            Material::ApiToken { id: id(), token: secret() },
            Material::ApiCertificate { id: id(), pkcs12: secret(), password: secret() },
        ]
    }

    #[test]
    fn no_kind_prints_its_secret() {
        for material in all() {
            let printed = format!("{material:?} {material:#?} {:?} {:?}", material.kind(), material.secrets());
            assert!(!printed.contains("hush") && printed.contains("***"), "{printed}");
        }
    }

    #[test]
    fn every_kind_knows_its_key_and_its_secret() {
        for material in all() {
            assert_eq!((material.key().as_str(), material.secret().expose()), ("key1@2026-11-22", SECRET));
            assert!(material.secrets().contains(material.secret()));
        }
    }

    #[test]
    fn a_kind_is_stored_under_its_own_name() {
        let stored = |kind: MaterialKind| serde_json::to_string(&kind).expect("a kind is JSON");
        let kinds: Vec<String> = all().iter().map(|material| stored(material.kind())).collect();
        assert_eq!(
            kinds,
            [
                r#""access-key""#,
                r#""storage-account-key""#,
                r#""sas-token""#,
                r#"{"service-principal":{"authority_host":false,"storage_account":true}}"#,
                r#""hmac-key""#,
                r#""cosmos-account-key""#,
                r#""service-bus-key""#,
                r#""api-token""#,
                r#""api-certificate""#,
            ]
        );
        for (material, kind) in all().iter().zip(kinds) {
            assert_eq!(serde_json::from_str::<MaterialKind>(&kind).ok(), Some(material.kind()));
        }
    }

    #[test]
    fn a_certificate_hides_its_password_too() {
        let password = Secret::new("hush-hush".to_owned());
        let material = Material::ApiCertificate { id: KeyId::new("k"), pkcs12: secret(), password: password.clone() };
        assert_eq!(material.secrets(), [secret(), password]);
    }

    #[test]
    fn a_token_says_when_it_ends() {
        let ends = |token: &str| {
            let token = Secret::new(token.to_owned());
            let ends = Material::SasToken { id: KeyId::new("k"), account: "a".to_owned(), token }.ends();
            ends.map(|end| end.to_rfc3339())
        };
        for token in ["sv=1&se=2027-02-01T10%3A00%3A00Z&sig=x", "?se=2027-02-01T10:00Z&sig=x"] {
            assert_eq!(ends(token).as_deref(), Some("2027-02-01T10:00:00+00:00"), "{token}");
        }
        assert_eq!(ends("se=2027-02-01&sig=x").as_deref(), Some("2027-02-01T00:00:00+00:00"));
        assert_eq!(ends("se=soon&sig=x"), None);
        assert_eq!(ends("sig=x&use=2027-02-01"), None);
        assert!(all().iter().all(|material| material.ends().is_none()), "no other kind says it");
    }

    #[test]
    fn the_signature_of_a_token_is_secret_by_itself() {
        let secrets = |token: &str| {
            let token = Secret::new(token.to_owned());
            let material = Material::SasToken { id: KeyId::new("k"), account: "a".to_owned(), token };
            material.secrets().iter().map(|secret| secret.expose().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            secrets("?sv=2024-11-04&sig=ab%2Bc%2fd%3D&se=2027"),
            [
                "?sv=2024-11-04&sig=ab%2Bc%2fd%3D&se=2027",
                "sv=2024-11-04&sig=ab%2Bc%2fd%3D&se=2027",
                "ab%2Bc%2fd%3D",
                "ab+c/d="
            ]
        );
        assert_eq!(secrets("sv=1&sig=abcd"), ["sv=1&sig=abcd", "abcd"]);
        assert_eq!(secrets("sig=%zz%"), ["sig=%zz%", "%zz%"]);
        assert_eq!(secrets("sig=%ff"), ["sig=%ff", "%ff"]);
        assert_eq!(secrets("no signature"), ["no signature"]);
    }
}
