//! What is in an account's two slots: the three shapes in which ARM shows it, and how a key in a slot is called.
//!
//! Reads answers; sends nothing. What ARM shows besides the two slots is not kept.

use aws_lc_rs::digest::{SHA256, digest};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Deserialize;

use super::resource::AccountKind;
use crate::model::{KeyId, Secret, Timestamp, deserialize_secret};

/// A slot and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::issuer) struct Slot {
    /// As a regeneration names it.
    pub(in crate::issuer) name: &'static str,
    pub(in crate::issuer) key: Secret,
    /// Where ARM says it beside the key.
    pub(in crate::issuer) created: Option<Timestamp>,
}

impl Slot {
    /// `key1@2026-11-22T12:00:00.123Z`: the slot, and since when it holds what it holds. Where ARM does not say that in the same
    /// answer (Cosmos DB, Service Bus, a storage account's keys that were never regenerated), the beginning of the key's SHA-256
    /// takes its place: 48 bits of a hash of 256 random bits or more tell nothing of the key.
    pub(in crate::issuer) fn id(&self) -> KeyId {
        KeyId::new(match self.created {
            Some(created) => format!("{}@{}", self.name, created.to_rfc3339_opts(SecondsFormat::Millis, true)),
            None => format!("{}@sha256-{}", self.name, fingerprint(&self.key)),
        })
    }
}

/// The slot a key is in, by its name.
pub(super) fn slot_of(kind: AccountKind, key: &KeyId) -> Option<&'static str> {
    let (name, _) = key.as_str().split_once('@')?;
    kind.slots().into_iter().find(|slot| *slot == name)
}

fn fingerprint(key: &Secret) -> String {
    let hash = digest(&SHA256, key.expose().as_bytes());
    hash.as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Both slots, as an answer to `listKeys` shows them; `None` where it does not show both with a key.
pub(super) fn read(kind: AccountKind, body: &[u8]) -> Option<Vec<Slot>> {
    let keys: Vec<(String, Secret, Option<Timestamp>)> = match kind {
        AccountKind::Storage => {
            let shown: StorageKeys = serde_json::from_slice(body).ok()?;
            shown.keys.into_iter().map(|key| (key.key_name, key.value, key.creation_time)).collect()
        }
        AccountKind::Cosmos => {
            let shown: CosmosKeys = serde_json::from_slice(body).ok()?;
            vec![("primary".to_owned(), shown.primary, None), ("secondary".to_owned(), shown.secondary, None)]
        }
        AccountKind::ServiceBus => {
            let shown: ServiceBusKeys = serde_json::from_slice(body).ok()?;
            vec![("PrimaryKey".to_owned(), shown.primary, None), ("SecondaryKey".to_owned(), shown.secondary, None)]
        }
    };
    let slot = |name: &'static str| {
        let (_, key, created) = keys.iter().find(|(found, key, _)| found == name && !key.expose().is_empty())?;
        Some(Slot { name, key: key.clone(), created: *created })
    };
    let [first, second] = kind.slots();
    Some(vec![slot(first)?, slot(second)?])
}

#[derive(Deserialize)]
struct StorageKeys {
    keys: Vec<StorageKey>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StorageKey {
    key_name: String,
    #[serde(deserialize_with = "deserialize_secret")]
    value: Secret,
    #[serde(default)]
    creation_time: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
struct CosmosKeys {
    #[serde(rename = "primaryMasterKey", deserialize_with = "deserialize_secret")]
    primary: Secret,
    #[serde(rename = "secondaryMasterKey", deserialize_with = "deserialize_secret")]
    secondary: Secret,
}

#[derive(Deserialize)]
struct ServiceBusKeys {
    #[serde(rename = "primaryKey", deserialize_with = "deserialize_secret")]
    primary: Secret,
    #[serde(rename = "secondaryKey", deserialize_with = "deserialize_secret")]
    secondary: Secret,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(kind: AccountKind, body: &str) -> Option<Vec<String>> {
        Some(read(kind, body.as_bytes())?.iter().map(|slot| slot.id().to_string()).collect())
    }

    #[test]
    fn a_storage_key_is_called_by_its_slot_and_its_time() {
        let body = r#"{"keys":[
            {"keyName":"key2","value":"c2Vjb25k","permissions":"FULL","creationTime":"2026-11-22T12:00:00.1234567Z"},
            {"keyName":"kerb1","value":"a2VyYg==","permissions":"FULL","creationTime":"2026-11-22T12:00:00Z"},
            {"keyName":"key1","value":"Zmlyc3Q=","permissions":"Full","creationTime":null}]}"#;
        // `printf %s Zmlyc3Q= | sha256sum`
        assert_eq!(
            ids(AccountKind::Storage, body).expect("both"),
            ["key1@sha256-32da5526c763", "key2@2026-11-22T12:00:00.123Z"]
        );
    }

    #[test]
    fn the_others_are_called_by_their_slot_and_a_fingerprint() {
        let cosmos = r#"{"primaryMasterKey":"Zmlyc3Q=","secondaryMasterKey":"c2Vjb25k","primaryReadonlyMasterKey":"x","secondaryReadonlyMasterKey":"y"}"#;
        let bus =
            r#"{"primaryKey":"Zmlyc3Q=","secondaryKey":"c2Vjb25k","keyName":"arcgis","primaryConnectionString":"x"}"#;
        assert_eq!(ids(AccountKind::Cosmos, cosmos).expect("both")[0], "primary@sha256-32da5526c763");
        assert_eq!(ids(AccountKind::ServiceBus, bus).expect("both")[0], "PrimaryKey@sha256-32da5526c763");
    }

    #[test]
    fn half_an_answer_is_none() {
        for body in [
            r#"{"keys":[{"keyName":"key1","value":"Zmlyc3Q="}]}"#,
            r#"{"keys":[{"keyName":"key1","value":"Zmlyc3Q="},{"keyName":"key2","value":""}]}"#,
            r#"{"keys":[{"keyName":"key1"},{"keyName":"key2"}]}"#,
            "{}",
            "<html>",
        ] {
            assert_eq!(ids(AccountKind::Storage, body), None, "{body}");
        }
    }

    #[test]
    fn a_key_tells_its_slot() {
        let slot = |kind, id: &str| slot_of(kind, &KeyId::new(id));
        assert_eq!(slot(AccountKind::Storage, "key2@2026-11-22T12:00:00.123Z"), Some("key2"));
        assert_eq!(slot(AccountKind::Cosmos, "secondary@sha256-0"), Some("secondary"));
        assert_eq!(slot(AccountKind::Storage, "kerb1@x"), None);
        assert_eq!(slot(AccountKind::Storage, "key1"), None);
        assert_eq!(slot(AccountKind::Cosmos, "primaryReadonly@x"), None);
    }
}
