//! The credential objects without a key: roles and identities, for which ArcGIS asks the cloud who it is.
//!
//! Shapes them and tells their types; nothing in them is secret. Sends nothing.

use serde_json::{Value, json};

use super::config::Product;
use crate::model::Keyless;

/// Types that hold no secret: ArcGIS asks the cloud who it is.
pub const KEYLESS: [&str; 4] = ["IAM-ROLE", "USER-ASSIGNED-IDENTITY", "SYSTEM-ASSIGNED-IDENTITY", "MANAGED-IDENTITY"];

/// The word of the house for such a type: what a reading tells of it.
pub fn word(kind: &str) -> String {
    kind.to_ascii_lowercase()
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

#[cfg(test)]
mod tests {
    use super::super::shown::Shown;
    use super::*;

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
            let object = keyless_object(&identity(Some("x")), product).expect("it is whole");
            assert!(Shown::of(Some(&object)).is_some_and(|shown| shown.is_keyless()));
        }
    }
}
