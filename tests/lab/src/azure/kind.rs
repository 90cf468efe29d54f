//! The three kinds of account whose keys Azure keeps in slots, and what each calls its things.

use crate::chance;

/// A service whose accounts have keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountKind {
    /// `Microsoft.Storage/storageAccounts`.
    Storage,
    /// `Microsoft.DocumentDB/databaseAccounts`.
    Cosmos,
    /// `Microsoft.ServiceBus/namespaces/authorizationRules`.
    ServiceBus,
}

impl AccountKind {
    pub(crate) const ALL: [AccountKind; 3] = [Self::Storage, Self::Cosmos, Self::ServiceBus];

    pub(crate) fn provider(self) -> &'static str {
        match self {
            Self::Storage => "Microsoft.Storage",
            Self::Cosmos => "Microsoft.DocumentDB",
            Self::ServiceBus => "Microsoft.ServiceBus",
        }
    }

    /// The type that has the name; a rule stands below it.
    pub(crate) fn collection(self) -> &'static str {
        match self {
            Self::Storage => "storageAccounts",
            Self::Cosmos => "databaseAccounts",
            Self::ServiceBus => "namespaces",
        }
    }

    /// What the right to one of its actions is called.
    pub(crate) fn right(self, action: &str) -> String {
        let below = if self == Self::ServiceBus { "/authorizationRules" } else { "" };
        format!("{}/{}{below}/{action}", self.provider(), self.collection())
    }

    /// What follows the resource group in an id.
    pub(crate) fn suffix(self, name: &str, rule: &str) -> String {
        let below = if rule.is_empty() { String::new() } else { format!("/AuthorizationRules/{rule}") };
        format!("/providers/{}/{}/{name}{below}", self.provider(), self.collection())
    }

    /// What `regenerateKey` calls its slots.
    pub(crate) fn slots(self) -> &'static [&'static str] {
        match self {
            Self::Storage => &["key1", "key2", "kerb1", "kerb2"],
            Self::Cosmos => &["primary", "secondary", "primaryReadonly", "secondaryReadonly"],
            Self::ServiceBus => &["PrimaryKey", "SecondaryKey"],
        }
    }

    /// The action, and the member of its body that names the slot.
    pub(crate) fn regeneration(self) -> (&'static str, &'static str) {
        match self {
            Self::Storage => ("regenerateKey", "keyName"),
            Self::Cosmos => ("regenerateKey", "keyKind"),
            Self::ServiceBus => ("regenerateKeys", "keyType"),
        }
    }

    /// Versions of the API that the documents name, not all there ever were.
    pub(crate) fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Storage => &["2022-09-01", "2023-01-01", "2023-05-01", "2024-01-01", "2025-06-01", "2026-09-01"],
            Self::Cosmos => &["2021-11-15-preview", "2023-11-15", "2024-11-15", "2025-10-15"],
            Self::ServiceBus => &["2021-11-01", "2022-10-01-preview", "2024-01-01", "2026-01-01"],
        }
    }

    /// 64 bytes of Storage and Cosmos DB, 32 of Service Bus, in Base64.
    pub(crate) fn new_key(self) -> String {
        match self {
            Self::Storage | Self::Cosmos => chance::account_key::<64>(),
            Self::ServiceBus => chance::account_key::<32>(),
        }
    }
}
