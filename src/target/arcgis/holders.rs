//! Every place of a deployment that holds a credential: the other copies of a key that a rotation would leave behind.
//!
//! Told from what the admin directory shows: cloud services and providers. What it does not show is not here: the content store
//! of a portal and the backup location of a Data Store hold such keys too, and have no resource that tells of them.

use serde_json::Value;

use super::cloud::{Provider, Service, providers_of, services_of};
use super::session::Ask;
use super::shown::Shown;
use super::{ArcGis, MASKED};
use crate::model::TargetName;
use crate::net::redact::Redactor;
use crate::ports::{Fault, FoundHolder, Reading};

impl ArcGis {
    pub(super) async fn all_holders(&self) -> Result<Vec<FoundHolder>, Fault> {
        let services = self.list_if_there("cloud/services").await?;
        let providers = self.list_if_there("cloud/providers").await?;
        let services = services.as_ref().and_then(services_of).unwrap_or_default();
        let providers = providers.as_ref().and_then(providers_of).unwrap_or_default();
        Ok(cloud_holders(&self.deployment.at.name, &services, &providers))
    }

    /// A list that a site of before 12.0, or one whose store is no cloud, does not have: nothing is held there.
    async fn list_if_there(&self, path: &str) -> Result<Option<Value>, Fault> {
        let what = format!("reading {path}");
        let found = self.look(Ask { query: &MASKED, ..Ask::get(&what, path) }).await?;
        if found.is_none() {
            // A page for a 404 may come from a web adaptor whose server restarts, and then "no holders" would be a lie.
            self.root().await?;
        }
        Ok(found.map(|(value, _)| value))
    }
}

fn cloud_holders(deployment: &str, services: &[Service], providers: &[Provider]) -> Vec<FoundHolder> {
    let name = |id: &str| TargetName::new(format!("arcgis:{deployment}:{id}"));
    let reading = |shown: &Option<Shown>| match shown {
        Some(shown) if shown.is_keyless() => Reading::Nothing,
        Some(shown) => shown.reading.clone(),
        None => Reading::Nothing,
    };
    let kind = |shown: &Option<Shown>| shown.as_ref().map_or_else(String::new, |shown| clean(&shown.kind));
    let services = services.iter().map(|service| FoundHolder {
        name: name(&service.id),
        what: titled("cloud service", &service.label),
        credential: kind(&service.own),
        reading: reading(&service.own),
        inherits: service.own.is_none().then(|| name(&service.provider)),
    });
    let providers = providers.iter().map(|provider| FoundHolder {
        name: name(&provider.id),
        what: titled("cloud provider", &provider.label),
        credential: kind(&provider.credential),
        reading: reading(&provider.credential),
        inherits: None,
    });
    providers.chain(services).collect()
}

/// The server's own words, so they are cleaned.
fn titled(what: &str, label: &str) -> String {
    if label.is_empty() { what.to_owned() } else { format!("{what} {}", clean(label)) }
}

fn clean(text: &str) -> String {
    Redactor::default().clean(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn services_and_providers_are_told_with_what_they_inherit() {
        let masked = "{crypt}xxxxxxxxxxxxxxxxVC5M";
        let own = json!({"type": "ACCESS-KEY", "secret": {"secretKey": masked, "accessKey": "{crypt}abc"}});
        let services = json!({"cloudServices": [
            {"id": "a1", "providerId": "p1", "name": "AWS S3", "usage": "DEFAULT", "connection": {"bucketName": "b"}},
            {"id": "a2", "providerId": "p1", "name": "AWS S3", "usage": "BACKUP", "connection": {"credential": own}},
        ]});
        let providers = json!({"cloudProviders": [{"id": "p1", "name": "AWS", "credential": {"type": "IAM-ROLE"}}]});
        let services = services_of(&services).expect("a list");
        let found = cloud_holders("prod", &services, &providers_of(&providers).expect("a list"));
        let told: Vec<_> = found
            .iter()
            .map(|holder| (holder.name.as_str(), holder.what.as_str(), holder.inherits.is_some(), &holder.reading))
            .collect();
        assert_eq!(
            told,
            [
                ("arcgis:prod:p1", "cloud provider AWS", false, &Reading::Nothing),
                ("arcgis:prod:a1", "cloud service AWS S3 DEFAULT b", true, &Reading::Nothing),
                ("arcgis:prod:a2", "cloud service AWS S3 BACKUP", false, &found[2].reading),
            ]
        );
        assert_eq!(found[2].reading.tail().map(crate::model::Tail::as_str), Some("VC5M"));
        assert_eq!(found[0].credential, "IAM-ROLE");
    }
}
