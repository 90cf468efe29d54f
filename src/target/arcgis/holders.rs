//! Every place of a deployment that holds a credential: the other copies of a key that a rotation would leave behind.
//!
//! Told from what the admin directory shows: cloud services, cloud providers and registered data stores. What it does not show is
//! not here: the content store of a portal and the backup location of a Data Store hold such keys too, and have no resource that
//! tells of them.
//!
//! ```text
//! cloud/services, cloud/providers, data/findItems      once each; findItems by the other method too where the first is refused or breaks
//! data/items/cloudStores/NAME?decrypt=true             over https, for each item whose list entry shows no end of its key
//! ```
//!
//! A resource that is not there holds nothing. One that this user may not read, and a list of items over which ArcGIS itself breaks,
//! is told as a holder that nobody could look at; it keeps no other from being told. A site that cannot answer now is asked again later, by whoever asked.

use serde_json::Value;

use super::cloud::{Provider, Service, providers_of, services_of};
use super::config::{Place, is_item_path};
use super::data::{DECRYPTED, find_items};
use super::envelope::{Complaint, Meaning, Verdict};
use super::item::{Listed, Wiped};
use super::session::Ask;
use super::shown::Shown;
use super::{ArcGis, MASKED};
use crate::model::TargetName;
use crate::net::redact::Redactor;
use crate::ports::{Fault, FoundHolder, Reading};

/// So many data items are asked for one by one. A site with more says so, and of the rest it is told what the list shows.
const ITEMS_ASKED_MAX: usize = 50;

/// What became of asking for a list.
enum Asked {
    Shown(Wiped, Redactor),
    /// A site of before 12.0, or one whose store is no cloud, has none: nothing is held there.
    Absent,
    /// Not to this user. Nobody knows what is held there.
    Forbidden(String),
    /// Not so.
    Refused(String),
    /// ArcGIS itself says that it broke over it.
    Broken(Complaint),
}

impl ArcGis {
    pub(super) async fn all_holders(&self) -> Result<Vec<FoundHolder>, Fault> {
        let mut found = Vec::new();
        let services = self.cloud_list("cloud/services", "cloud services", &mut found).await?;
        let providers = self.cloud_list("cloud/providers", "cloud providers", &mut found).await?;
        let deployment = &self.deployment.at.name;
        if let Some((list, redactor)) = &providers {
            found.extend(provider_holders(deployment, &providers_of(&list.0).unwrap_or_default(), redactor));
        }
        if let Some((list, redactor)) = &services {
            found.extend(service_holders(deployment, &services_of(&list.0).unwrap_or_default(), redactor));
        }
        found.extend(self.item_holders().await?);
        Ok(found)
    }

    async fn cloud_list(
        &self,
        path: &str,
        what: &str,
        found: &mut Vec<FoundHolder>,
    ) -> Result<Option<(Wiped, Redactor)>, Fault> {
        match self.list_if_there(Ask { query: &MASKED, ..Ask::get(&format!("reading {path}"), path) }).await? {
            Asked::Shown(list, redactor) => Ok(Some((list, redactor))),
            // No document tells how a site without cloud services says so.
            Asked::Absent | Asked::Refused(_) => Ok(None),
            Asked::Broken(complaint) => Err(complaint.after_read(&self.doing(&format!("reading {path}")))),
            Asked::Forbidden(why) => {
                found.push(unread(&self.deployment.at.name, path, what, why));
                Ok(None)
            }
        }
    }

    async fn list_if_there(&self, ask: Ask<'_>) -> Result<Asked, Fault> {
        let what = ask.what;
        let complaint = match self.deployment.ask(Ask { may_be_absent: true, ..ask }).await? {
            (Verdict::Good(value), redactor) => return Ok(Asked::Shown(Wiped(value), redactor)),
            (Verdict::Text(_), _) => return Err(self.deployment.page(&self.doing(what))),
            (Verdict::Complaint(complaint), _) => complaint,
        };
        match complaint.meaning {
            Meaning::Denied => Ok(Asked::Forbidden(complaint.said)),
            Meaning::Refused => Ok(Asked::Refused(complaint.said)),
            Meaning::Absent | Meaning::PageAbsent => {
                // A page for a 404 may come from a web adaptor whose server restarts, and then "no holders" would be a lie.
                self.root().await?;
                Ok(Asked::Absent)
            }
            Meaning::Broken if complaint.in_envelope => Ok(Asked::Broken(complaint)),
            _ => Err(complaint.after_read(&self.doing(what))),
        }
    }

    /// The registered data stores.
    async fn item_holders(&self) -> Result<Vec<FoundHolder>, Fault> {
        let deployment = &self.deployment.at.name;
        let unread = |why: String| unread(deployment, ITEMS, "registered data stores", why);
        let by_post = self.finds_by_post();
        let mut answer = self.list_if_there(find_items(by_post)).await?;
        if let Asked::Refused(_) | Asked::Broken(_) = answer {
            answer = self.list_if_there(find_items(!by_post)).await?;
        }
        let (list, redactor) = match answer {
            Asked::Shown(list, redactor) => (list, redactor),
            Asked::Absent => return Ok(Vec::new()),
            Asked::Forbidden(why) | Asked::Refused(why) => return Ok(vec![unread(why)]),
            // A list that breaks for good must not keep every key of the deployment from being retired. It is told in the evidence.
            Asked::Broken(complaint) => return Ok(vec![unread(complaint.said)]),
        };
        let Some(items) = list.0.get("items").and_then(Value::as_array) else {
            return Ok(vec![unread("an answer of another shape than documented".to_owned())]);
        };
        let (mut found, mut asked) = (Vec::new(), 0);
        for listed in items.iter().filter_map(Listed::of) {
            let told = if !self.tells_more_in_clear(&listed) {
                None
            } else {
                asked += 1;
                if asked == ITEMS_ASKED_MAX + 1 {
                    let why = format!("more than {ITEMS_ASKED_MAX} of them show nothing unless each is asked for");
                    found.push(unread(why));
                }
                if asked > ITEMS_ASKED_MAX { None } else { self.item_in_clear(&listed.path).await? }
            };
            found.push(item_holder(deployment, told.unwrap_or(listed), &redactor));
        }
        Ok(found)
    }

    /// Whether the item's own resource may show what the list hides. The target itself is read elsewhere.
    fn tells_more_in_clear(&self, listed: &Listed) -> bool {
        let is_target = matches!(&self.config.place, Place::Item(path) if path.eq_ignore_ascii_case(&listed.path));
        listed.reading == Reading::Hidden && !is_target && self.asks_clear() && is_item_path(&listed.path)
    }

    /// An item as it shows itself deciphered. `None` where it shows no more than the list did, or not to us.
    async fn item_in_clear(&self, path: &str) -> Result<Option<Listed>, Fault> {
        let (what, at) = (format!("reading data item {path}"), format!("data/items{path}"));
        let ask = Ask { query: &DECRYPTED, may_be_absent: true, ..Ask::get(&what, &at) };
        match self.deployment.ask(ask).await?.0 {
            Verdict::Good(value) => {
                let item = Wiped(value);
                Ok(Listed::of(&item.0).filter(|shown| shown.path.eq_ignore_ascii_case(path)))
            }
            Verdict::Text(_) => Err(self.deployment.page(&self.doing(&what))),
            Verdict::Complaint(Complaint { meaning: Meaning::PageAbsent, .. }) => self.root().await.map(|_| None),
            // One item that its site cannot show must not keep the others from being told.
            Verdict::Complaint(Complaint { meaning: Meaning::Absent | Meaning::Denied | Meaning::Refused, .. })
            | Verdict::Complaint(Complaint { meaning: Meaning::Broken, in_envelope: true, .. }) => Ok(None),
            Verdict::Complaint(complaint) => Err(complaint.after_read(&self.doing(&what))),
        }
    }
}

/// Where cloud stores are registered.
const ITEMS: &str = "/cloudStores";

/// A part of the deployment that could not be looked at, with a name that `accept_holders` takes.
fn unread(deployment: &str, path: &str, what: &str, why: String) -> FoundHolder {
    FoundHolder {
        name: TargetName::new(format!("arcgis:{deployment}:{path}")),
        what: what.to_owned(),
        credential: String::new(),
        reading: Reading::Hidden,
        inherits: None,
        unread: Some(why),
    }
}

/// What the server calls its places is its own word, and goes into a name and a message.
fn name(deployment: &str, id: &str, redactor: &Redactor) -> TargetName {
    TargetName::new(format!("arcgis:{deployment}:{}", redactor.clean(id)))
}

fn titled(what: &str, label: &str, redactor: &Redactor) -> String {
    if label.is_empty() { what.to_owned() } else { format!("{what} {}", redactor.clean(label)) }
}

/// Called as a target of it would be: `arcgis:prod:/cloudStores/imagery`.
fn item_holder(deployment: &str, item: Listed, redactor: &Redactor) -> FoundHolder {
    FoundHolder {
        name: name(deployment, &item.path, redactor),
        what: titled("data item", &item.label, redactor),
        credential: redactor.clean(&item.credential),
        reading: item.reading,
        inherits: None,
        unread: None,
    }
}

fn reading(shown: &Option<Shown>) -> Reading {
    match shown {
        Some(shown) if shown.is_keyless() => Reading::Nothing,
        Some(shown) => shown.reading.clone(),
        None => Reading::Nothing,
    }
}

fn kind(shown: &Option<Shown>, redactor: &Redactor) -> String {
    shown.as_ref().map_or_else(String::new, |shown| redactor.clean(&shown.kind))
}

fn service_holders(deployment: &str, services: &[Service], redactor: &Redactor) -> Vec<FoundHolder> {
    let holder = |service: &Service| FoundHolder {
        name: name(deployment, &service.id, redactor),
        what: titled("cloud service", &service.label, redactor),
        credential: kind(&service.own, redactor),
        reading: reading(&service.own),
        inherits: service.own.is_none().then(|| name(deployment, &service.provider, redactor)),
        unread: None,
    };
    services.iter().map(holder).collect()
}

fn provider_holders(deployment: &str, providers: &[Provider], redactor: &Redactor) -> Vec<FoundHolder> {
    let holder = |provider: &Provider| FoundHolder {
        name: name(deployment, &provider.id, redactor),
        what: titled("cloud provider", &provider.label, redactor),
        credential: kind(&provider.credential, redactor),
        reading: reading(&provider.credential),
        inherits: None,
        unread: None,
    };
    providers.iter().map(holder).collect()
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
        let (providers, redactor) = (providers_of(&providers).expect("a list"), Redactor::default());
        let found = provider_holders("prod", &providers, &redactor);
        let found = [found, service_holders("prod", &services, &redactor)].concat();
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
