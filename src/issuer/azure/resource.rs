//! Which account's keys: an ARM id taken apart, and what each of the three services calls its slots.

use std::time::Duration;

use super::account::{SETTLE, is_storage_account};
use crate::model::IssuerSpec;
use crate::table::{Table, did_you_mean};

/// A service whose accounts have keys in two slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::issuer) enum AccountKind {
    /// `Microsoft.Storage/storageAccounts`.
    Storage,
    /// `Microsoft.DocumentDB/databaseAccounts`. Its read-only keys are left alone.
    Cosmos,
    /// `Microsoft.ServiceBus/namespaces/authorizationRules`.
    ServiceBus,
}

/// The policy every namespace is made with, and meant where a namespace alone is named.
const ROOT_RULE: &str = "RootManageSharedAccessKey";

/// An account by its ARM id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::issuer) struct Resource {
    pub(in crate::issuer) kind: AccountKind,
    /// The account or namespace: `/subscriptions/…/storageAccounts/gisstore`.
    pub(in crate::issuer) account: String,
    /// Its name.
    pub(in crate::issuer) name: String,
    /// The shared access policy whose keys are meant; Service Bus only.
    pub(in crate::issuer) rule: Option<String>,
}

const FORM: &str = "resource_id = \"/subscriptions/SUBSCRIPTION/resourceGroups/GROUP/providers/Microsoft.Storage/storageAccounts/NAME\"";

/// Reads `resource_id`; mistakes go into the report.
pub(in crate::issuer) fn read(table: &mut Table<'_>) -> Option<Resource> {
    let id = table.text("resource_id")?;
    match Resource::parse(&id) {
        Ok(resource) => Some(resource),
        Err(why) => {
            table.mistake(
                "resource_id",
                format!("`resource_id` names no account with keys: {why}"),
                format!("write `{FORM}`"),
            );
            None
        }
    }
}

/// Reads `exclusive`, which must be true: a mint destroys what the idle slot held.
pub(in crate::issuer) fn read_exclusive(table: &mut Table<'_>) -> bool {
    let exclusive = table.flag("exclusive", false);
    if !exclusive {
        table.mistake(
            "exclusive",
            "an account has two keys and a rotation replaces the one that is not in use, so both must be rekeyd's to manage",
            "see that nobody uses the other key, then write exclusive = true",
        );
    }
    exclusive
}

/// The account whose keys an issuer rotates, of a kind that keeps it as `resource_id`.
pub(in crate::issuer) fn of(spec: &IssuerSpec) -> Option<Resource> {
    Resource::parse(spec.config.get("resource_id")?.as_str()?).ok()
}

/// What services share when they share an account's keys, whatever they make of them; two may not. Without the name of the policy's
/// table: one account under two of them is still one.
pub(in crate::issuer) fn object(resource: &Resource) -> String {
    format!("azure-key:{}", resource.short())
}

impl AccountKind {
    const ALL: [AccountKind; 3] = [Self::Storage, Self::Cosmos, Self::ServiceBus];

    fn provider(self) -> &'static str {
        match self {
            Self::Storage => "Microsoft.Storage",
            Self::Cosmos => "Microsoft.DocumentDB",
            Self::ServiceBus => "Microsoft.ServiceBus",
        }
    }

    fn collection(self) -> &'static str {
        match self {
            Self::Storage => "storageAccounts",
            Self::Cosmos => "databaseAccounts",
            Self::ServiceBus => "namespaces",
        }
    }

    /// Versions of ARM's API that are generally available, and old enough to be everywhere.
    pub(in crate::issuer) fn version(self) -> &'static str {
        match self {
            Self::Storage => "2024-01-01",
            Self::Cosmos => "2024-11-15",
            Self::ServiceBus => "2024-01-01",
        }
    }

    /// The two slots, as a regeneration names them. Storage's `kerb1` and `kerb2` and Cosmos DB's read-only keys are not ours.
    pub(in crate::issuer) fn slots(self) -> [&'static str; 2] {
        match self {
            Self::Storage => ["key1", "key2"],
            Self::Cosmos => ["primary", "secondary"],
            Self::ServiceBus => ["PrimaryKey", "SecondaryKey"],
        }
    }

    /// The action that makes a new key, and the member of its body that names the slot.
    pub(in crate::issuer) fn regeneration(self) -> (&'static str, &'static str) {
        match self {
            Self::Storage => ("regenerateKey", "keyName"),
            Self::Cosmos => ("regenerateKey", "keyKind"),
            Self::ServiceBus => ("regenerateKeys", "keyType"),
        }
    }

    /// How long a new key is not tried. Azure promises no time after which it is known at every front end; a minute is often seen to be
    /// enough, and Cosmos DB's page on unauthorized requests speaks of seconds to days. A probe that is refused is repeated anyway.
    pub(in crate::issuer) fn propagation(self) -> Duration {
        match self {
            Self::Storage | Self::ServiceBus => Duration::from_secs(60),
            Self::Cosmos => Duration::from_secs(5 * 60),
        }
    }

    /// Horizon of an unknown regeneration. Cosmos DB takes "one minute to multiple hours" for one ("How to rotate keys").
    pub(in crate::issuer) fn settle(self) -> Duration {
        match self {
            Self::Storage | Self::ServiceBus => SETTLE,
            Self::Cosmos => Duration::from_secs(4 * 3600),
        }
    }

    /// What a person calls such an account.
    pub(in crate::issuer) fn called(self) -> &'static str {
        match self {
            Self::Storage => "storage account",
            Self::Cosmos => "Cosmos DB account",
            Self::ServiceBus => "Service Bus namespace",
        }
    }
}

impl Resource {
    /// Takes an ARM id apart; else what is wrong with it, and the nearest word that is right. ARM compares ids without case.
    pub(in crate::issuer) fn parse(id: &str) -> Result<Self, String> {
        let id = id.trim_end_matches('/');
        let parts: Vec<&str> = id.split('/').collect();
        if let Some(odd) = parts.iter().skip(1).find(|part| !is_segment(part)) {
            return Err(format!("`{odd}` is no part of an ARM id"));
        }
        let is = |part: &str, name: &str| part.eq_ignore_ascii_case(name);
        let ["", subscriptions, _, groups, _, providers, provider, collection, name, rest @ ..] = parts.as_slice()
        else {
            return Err("it is no ARM id of an account".to_owned());
        };
        if !(is(subscriptions, "subscriptions") && is(groups, "resourceGroups") && is(providers, "providers")) {
            return Err("it is no ARM id of an account".to_owned());
        }
        let found = AccountKind::ALL.into_iter().find(|kind| is(provider, kind.provider()));
        let Some(kind) = found.filter(|kind| is(collection, kind.collection())) else {
            let kinds = AccountKind::ALL.map(|kind| format!("{}/{}", kind.provider(), kind.collection()));
            let near = did_you_mean(&format!("{provider}/{collection}"), kinds.iter().map(String::as_str));
            let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            return Err(format!("{provider}/{collection} has no keys that rekeyd rotates{near}"));
        };
        let rule = match (kind, rest) {
            (AccountKind::ServiceBus, []) => Some(ROOT_RULE.to_owned()),
            (AccountKind::ServiceBus, [rules, rule]) if is(rules, "authorizationRules") => Some((*rule).to_owned()),
            (AccountKind::Storage | AccountKind::Cosmos, []) => None,
            _ => return Err(format!("it goes on behind the {}'s name", kind.called())),
        };
        // ARM takes any case; a signature is made for the name as it is, which has no capitals.
        let name = name.to_lowercase();
        if kind == AccountKind::Storage && !is_storage_account(&name) {
            return Err(format!("`{name}` is no name of a storage account"));
        }
        let length = id.len() - rest.iter().map(|part| part.len() + 1).sum::<usize>();
        Ok(Self { kind, account: id[..length].to_owned(), name, rule })
    }

    /// What has the keys: the account, or the namespace's policy.
    pub(in crate::issuer) fn keyed(&self) -> String {
        match &self.rule {
            Some(rule) => format!("{}/authorizationRules/{rule}", self.account),
            None => self.account.clone(),
        }
    }

    /// What tells it from every other account of an Azure, without case: names of one service are unique in the world.
    pub(in crate::issuer) fn short(&self) -> String {
        let name = self.name.to_lowercase();
        match (self.kind, &self.rule) {
            (AccountKind::Storage, _) => name,
            (AccountKind::Cosmos, _) => format!("cosmos/{name}"),
            (AccountKind::ServiceBus, rule) => {
                format!("servicebus/{name}/{}", rule.as_deref().unwrap_or_default().to_lowercase())
            }
        }
    }

    /// For messages: `storage account gisstore`.
    pub(in crate::issuer) fn called(&self) -> String {
        match &self.rule {
            Some(rule) => format!("policy {rule} of {} {}", self.kind.called(), self.name),
            None => format!("{} {}", self.kind.called(), self.name),
        }
    }

    /// The right to do something with it: `listKeys/action`, or `read` of the account itself.
    pub(in crate::issuer) fn right(&self, action: &str) -> String {
        let below = if self.rule.is_some() && action != "read" { "/authorizationRules" } else { "" };
        format!("{}/{}{below}/{action}", self.kind.provider(), self.kind.collection())
    }
}

/// It becomes part of a path; Azure's names and ids hold nothing else.
fn is_segment(text: &str) -> bool {
    // A path with dots alone in it would be folded into another one.
    !text.trim_matches('.').is_empty()
        && text.len() <= 260
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.()".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "/subscriptions/5f750a97/resourceGroups/gis/providers";

    #[test]
    fn each_account_is_known_by_its_id_without_case() {
        let storage =
            Resource::parse(&format!("{GROUP}/microsoft.storage/StorageAccounts/gisstore/")).expect("storage");
        assert_eq!((storage.kind, storage.name.as_str(), &storage.rule), (AccountKind::Storage, "gisstore", &None));
        assert_eq!(storage.keyed(), format!("{GROUP}/microsoft.storage/StorageAccounts/gisstore"));
        assert_eq!((storage.short().as_str(), storage.called().as_str()), ("gisstore", "storage account gisstore"));
        assert_eq!(storage.right("listKeys/action"), "Microsoft.Storage/storageAccounts/listKeys/action");

        let cosmos = Resource::parse(&format!("{GROUP}/Microsoft.DocumentDB/databaseAccounts/GisDb")).expect("cosmos");
        assert_eq!((cosmos.kind, cosmos.short().as_str()), (AccountKind::Cosmos, "cosmos/gisdb"));

        let namespace = format!("{GROUP}/Microsoft.ServiceBus/namespaces/gisbus");
        let bus = Resource::parse(&namespace).expect("a namespace");
        assert_eq!(bus.keyed(), format!("{namespace}/authorizationRules/RootManageSharedAccessKey"));
        let bus = Resource::parse(&format!("{namespace}/AuthorizationRules/arcgis")).expect("a rule");
        assert_eq!((bus.account.as_str(), bus.rule.as_deref()), (namespace.as_str(), Some("arcgis")));
        assert_eq!(bus.called(), "policy arcgis of Service Bus namespace gisbus");
        assert_eq!(bus.right("read"), "Microsoft.ServiceBus/namespaces/read");
        assert_eq!(
            bus.right("regenerateKeys/action"),
            "Microsoft.ServiceBus/namespaces/authorizationRules/regenerateKeys/action"
        );
    }

    #[test]
    fn what_is_no_such_id_says_why() {
        for (id, why) in [
            ("gisstore".to_owned(), "it is no ARM id of an account"),
            (format!("{GROUP}/Microsoft.Storage/storageAccounts"), "it is no ARM id of an account"),
            (format!("{GROUP}/Microsoft.Storage/storageAccounts/x/blobServices/default"), "it goes on behind"),
            (
                format!("{GROUP}/Microsoft.Storage/storageAcounts/x"),
                "has no keys that rekeyd rotates; did you mean Microsoft.Storage/storageAccounts?",
            ),
            (
                format!("{GROUP}/Microsoft.KeyVault/vaults/x"),
                "Microsoft.KeyVault/vaults has no keys that rekeyd rotates",
            ),
            (format!("{GROUP}/Microsoft.Storage/storageAccounts/x?y=z"), "`x?y=z` is no part of an ARM id"),
            (format!("{GROUP}//storageAccounts/x"), "`` is no part of an ARM id"),
        ] {
            let said = Resource::parse(&id).expect_err("wrong");
            assert!(said.contains(why), "{id}: {said}");
        }
    }
}
