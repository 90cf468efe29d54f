//! AWS: the access keys of an IAM user.

use rekeyd::model::KeyId;
use rekeyd_lab::{ArcGis, Aws, StoredCredential};
use serde_json::Value;

use super::{Adoption, Issuer, state};
use crate::places::{Deployment, Holder, PROVIDER, Place};

/// `aws-iam`: the access keys of a user with a bucket.
pub fn iam_user(aws: &Aws, name: &'static str) -> Box<dyn Issuer> {
    aws.add_user(name);
    aws.add_bucket(&bucket_of(name), &[name]);
    let (access_key, secret_key) = aws.create_key(name);
    Box::new(IamUser { aws: aws.clone(), name, first: StoredCredential { access_key, secret_key } })
}

/// Gives the nodes below an ArcGIS a role that may read this user's bucket too.
pub fn give_nodes_a_role(arcgis: &ArcGis, aws: &Aws, user: &str) {
    const NODES: &str = "nodes-of-kubernetes";
    aws.add_user(NODES);
    aws.add_bucket(&bucket_of(user), &[user, NODES]);
    let (access_key, secret) = aws.create_key(NODES);
    arcgis.set_node_role(&access_key, &secret);
}

struct IamUser {
    aws: Aws,
    name: &'static str,
    first: StoredCredential,
}

impl Issuer for IamUser {
    fn title(&self) -> String {
        format!("IAM user {}", self.name)
    }

    fn policy(&self) -> String {
        let (user, bucket) = (self.name, bucket_of(self.name));
        format!(
            r#"{{ kind = "aws-iam", account = "main", user = "{user}", probe = {{ bucket = "{bucket}", region = "us-east-1" }} }}"#
        )
    }

    fn furnish(&self, place: &Place) {
        let Deployment { arcgis, holder, .. } = place.deployment();
        let (held, bucket) = (self.first.clone(), bucket_of(self.name));
        match *holder {
            Holder::CloudService(id) => {
                arcgis.add_provider(PROVIDER, "AWS", None);
                arcgis.add_service(id, PROVIDER, &bucket, Some(held));
            }
            Holder::Provider(id, services) => {
                arcgis.add_provider(id, "AWS", Some(held));
                services.iter().for_each(|service| arcgis.add_service(service, id, &bucket, None));
            }
            Holder::DataItem(path) => arcgis.add_data_item(path, &bucket, held),
        }
    }

    fn adoption(&self) -> Adoption {
        Adoption { key: KeyId::new(&self.first.access_key), secret: None, idle_slot_free: false }
    }

    fn keys(&self, _: &Value) -> Vec<String> {
        self.aws.keys(self.name).into_iter().map(|key| format!("{} {}", key.id, state(key.active))).collect()
    }

    fn takes(&self, held: &Value) -> bool {
        self.aws.keys(self.name).iter().any(|key| held["secret"]["accessKey"] == *key.id && key.active)
    }
}

fn bucket_of(user: &str) -> String {
    format!("{user}-bucket")
}
