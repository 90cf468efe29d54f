//! Credentials without a key: roles and identities, for which a consumer asks its cloud who it is. Nothing in them is secret.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{KeyId, Tail};

/// What a service can be switched to, so that it has no key that must be rotated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keyless {
    /// AWS: the role of the nodes, or of the pods' service account.
    IamRole,
    /// Azure: an identity assigned to the nodes.
    UserAssignedIdentity {
        /// The identity's client id.
        client: String,
        /// The storage account it is used on, which ArcGIS on Kubernetes keeps with it.
        storage_account: Option<String>,
    },
}

impl Keyless {
    /// The word for its type, as commands take it and a target's reading tells it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::IamRole => "iam-role",
            Self::UserAssignedIdentity { .. } => "user-assigned-identity",
        }
    }

    /// What stands for it where a key has its id: in status, history and the sets of what a target may hold.
    pub fn id(&self) -> KeyId {
        match self {
            Self::IamRole => KeyId::new(self.word()),
            Self::UserAssignedIdentity { client, .. } => KeyId::new(format!("{}:{client}", self.word())),
        }
    }

    /// Whether an id is of this form, for words; whether it is one, the journal knows.
    pub fn is_id(id: &KeyId) -> bool {
        id.as_str() == "iam-role" || id.as_str().starts_with("user-assigned-identity:")
    }

    /// What a target that uses it shows in place of the end of a secret. Nobody shows whose identity it is.
    pub fn mark(&self) -> Tail {
        Tail::new(self.word())
    }
}

impl fmt::Display for Keyless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id().as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_an_id_and_a_form_of_its_own() {
        let identity =
            Keyless::UserAssignedIdentity { client: "0f-client".into(), storage_account: Some("gisstore".into()) };
        for (keyless, id, stored) in [
            (Keyless::IamRole, "iam-role", r#""iam-role""#),
            (
                identity,
                "user-assigned-identity:0f-client",
                r#"{"user-assigned-identity":{"client":"0f-client","storage_account":"gisstore"}}"#,
            ),
        ] {
            assert_eq!((keyless.id().as_str(), keyless.to_string().as_str()), (id, id));
            assert!(id.starts_with(keyless.mark().as_str()) && Keyless::is_id(&keyless.id()));
            assert_eq!(serde_json::to_string(&keyless).expect("it is JSON"), stored);
            assert_eq!(serde_json::from_str::<Keyless>(stored).ok(), Some(keyless));
        }
    }
}
