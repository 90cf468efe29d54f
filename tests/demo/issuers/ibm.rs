//! IBM Cloud Object Storage: the access keys of a user.

use rekeyd::model::KeyId;
use rekeyd_lab::{Ibm, StoredCredential};
use serde_json::Value;

use super::{Adoption, Issuer, state};
use crate::clouds::IBM_BUCKET;
use crate::places::{Deployment, PROVIDER, Place};

const PROJECT: &str = "gis";

/// `ibm-cos`: the keys of a user of the system who may read a bucket.
pub fn user(ibm: &Ibm, name: &'static str) -> Box<dyn Issuer> {
    ibm.add_user(PROJECT, name);
    let (access_key, secret_key) = ibm.create_key(PROJECT, name);
    Box::new(User { ibm: ibm.clone(), name, first: StoredCredential { access_key, secret_key } })
}

struct User {
    ibm: Ibm,
    name: &'static str,
    first: StoredCredential,
}

impl Issuer for User {
    fn title(&self) -> String {
        format!("user {} of IBM Cloud Object Storage", self.name)
    }

    fn policy(&self) -> String {
        let (user, store) = (self.name, self.ibm.s3_url());
        format!(
            r#"{{ kind = "ibm-cos", account = "main", project_id = "{PROJECT}", user_id = "{user}", probe = {{ endpoint = "{store}", bucket = "{IBM_BUCKET}" }} }}"#
        )
    }

    fn furnish(&self, place: &Place) {
        let Deployment { arcgis, holder, .. } = place.deployment();
        arcgis.use_ibm(&self.ibm);
        arcgis.add_provider(PROVIDER, "AWS", None);
        arcgis.add_service(holder.name(), PROVIDER, IBM_BUCKET, Some(self.first.clone()));
    }

    fn adoption(&self) -> Adoption {
        // Its secret is no question: the system shows it.
        Adoption { key: KeyId::new(&self.first.access_key), secret: None, idle_slot_free: false }
    }

    fn keys(&self, _: &Value) -> Vec<String> {
        let keys = self.ibm.keys(PROJECT, self.name).into_iter();
        keys.map(|key| format!("{} {}", key.access, state(key.active))).collect()
    }

    fn takes(&self, held: &Value) -> bool {
        let mut keys = self.ibm.keys(PROJECT, self.name).into_iter();
        keys.any(|key| held["secret"]["accessKey"] == *key.access && key.active)
    }
}
