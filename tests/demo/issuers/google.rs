//! Google: the HMAC keys of a service account.

use rekeyd::model::{KeyId, Secret};
use rekeyd_lab::{Google, ServiceSpec};
use serde_json::{Value, json};

use super::{Adoption, Issuer, state};
use crate::clouds::GOOGLE_BUCKET;
use crate::places::{Deployment, PROVIDER, Place};

/// `gcs-hmac`: the keys of a service account that may read a bucket. `store_url` is where requests signed with them go.
pub fn service_account(google: &Google, store_url: String, name: &'static str) -> Box<dyn Issuer> {
    let email = google.add_service_account(name);
    let first = google.create_key(&email);
    Box::new(ServiceAccount { google: google.clone(), store_url, email, first })
}

struct ServiceAccount {
    google: Google,
    store_url: String,
    email: String,
    /// Id and secret.
    first: (String, String),
}

impl Issuer for ServiceAccount {
    fn title(&self) -> String {
        format!("service account {}", self.email)
    }

    fn policy(&self) -> String {
        let (email, store) = (&self.email, &self.store_url);
        format!(
            r#"{{ kind = "gcs-hmac", account = "main", project = "gis-prod-123", service_account = "{email}", probe = {{ bucket = "{GOOGLE_BUCKET}", expect = "read", endpoint_url = "{store}" }} }}"#
        )
    }

    fn furnish(&self, place: &Place) {
        let Deployment { arcgis, holder, .. } = place.deployment();
        arcgis.use_google(&self.store_url);
        arcgis.add_provider(PROVIDER, "GCP", None);
        arcgis.add_service_with(ServiceSpec::google_cloud_storage(holder.name(), PROVIDER, GOOGLE_BUCKET));
        let secret = json!({ "accessKey": self.first.0, "secretKey": self.first.1 });
        arcgis.set_credential_object(holder.name(), &json!({ "type": "HMAC-KEYS", "secret": secret }));
    }

    fn adoption(&self) -> Adoption {
        let (id, secret) = self.first.clone();
        Adoption { key: KeyId::new(id), secret: Some(Secret::new(secret)), idle_slot_free: false }
    }

    fn keys(&self, _: &Value) -> Vec<String> {
        self.google.keys(&self.email).into_iter().map(|key| format!("{} {}", key.id, state(key.active))).collect()
    }

    fn takes(&self, held: &Value) -> bool {
        let (id, secret) = (held["secret"]["accessKey"].as_str(), held["secret"]["secretKey"].as_str());
        id.zip(secret).is_some_and(|(id, secret)| self.google.opens(id, secret))
    }
}
