//! Handing a key to a registered data store: what is asked and sent for a [`Place::Item`](super::config::Place::Item).
//!
//! ```text
//! inspect   version, mode, data/items/cloudStores/NAME      changes nothing
//! push      the same looks again, data/validateDataItem with the new item, then one POST …/edit
//! read      data/items/cloudStores/NAME
//! ```
//!
//! The edit is done when its answer comes: there is no job, none to poll, and none to find after an answer that was lost. Then the
//! machine reads back, and pushes the same key again where that cannot tell, which does no harm: the item is the same.
//!
//! Between the look and the edit somebody else may edit the item, and ArcGIS has nothing to notice it by; the look is therefore the
//! last thing but the validation. Esri documents `edit` for Server only. That Kubernetes, which lists and validates data items alike,
//! edits them alike is our reading; where it does not, the item's resource is not found, and that is said before anything is minted.

use serde_json::Value;

use super::config::Product;
use super::envelope::{Complaint, Meaning, Verdict};
use super::item::{Item, Wiped};
use super::session::{Ask, before_sending};
use super::{ArcGis, operation};
use crate::model::{Holder, Material, MaterialKind, Reason, Secret};
use crate::net::redact::Redactor;
use crate::ports::{Fault, Inspection, Receipt};

/// Shows a connection string in clear, over HTTPS: the only way to keep what it holds beside the key, and to see which key it is.
pub(super) const DECRYPTED: [(&str, &str); 1] = [("decrypt", "true")];

/// Where cloud stores are.
pub const ANCESTOR: (&str, &str) = ("ancestorPath", "/cloudStores");

impl ArcGis {
    pub(super) async fn inspect_item(&self, path: &str) -> Result<Inspection, Fault> {
        let item = self.survey_item(path).await?;
        // The site's own spelling of the path: two policies may spell one item in two ways.
        let holder = Holder::new(format!("{}/data/items{}", self.site(), item.path()));
        Ok(Inspection { holder, reading: item.reading(), jobs: Vec::new() })
    }

    pub(super) async fn push_item(&self, path: &str, material: &Material) -> Result<Receipt, Fault> {
        let Material::AccessKey { id, secret } = material else { return Err(self.not_an_access_key(path)) };
        let item = self.survey_item(path).await.map_err(before_sending)?;
        let text = item.with_key(id, secret, self.config.connection.as_ref());
        let shown = item.secret();
        let secrets = [Some(material.secret()), shown.as_ref()].into_iter().flatten().collect::<Vec<_>>();
        self.validate_item(path, &text, &secrets).await.map_err(before_sending)?;
        self.edit_item(path, &text, &secrets).await
    }

    fn not_an_access_key(&self, path: &str) -> Fault {
        let why = format!(
            "looking at data item {path} of {}: this build edits the access key of an Amazon store there, and the issuer makes another \
             kind of key",
            self.site()
        );
        Fault::Refused { reason: Reason::PolicyMismatch, why }
    }

    /// Everything that may keep a push from succeeding, looked at without changing anything.
    async fn survey_item(&self, path: &str) -> Result<Item, Fault> {
        if self.config.material.is_some_and(|kind| kind != MaterialKind::AccessKey) {
            return Err(self.not_an_access_key(path));
        }
        self.root().await?;
        self.takes_changes().await?;
        let item = self.item(path).await?;
        item.takes_a_key(self.config.connection.as_ref(), self.asks_clear())?;
        Ok(item)
    }

    /// Whether a single item can be asked for in clear.
    pub(super) fn asks_clear(&self) -> bool {
        self.deployment.config.admin_url.starts_with("https://")
    }

    pub(super) async fn item(&self, path: &str) -> Result<Item, Fault> {
        let (what, at) = (format!("reading data item {path}"), format!("data/items{path}"));
        let query: &[_] = if self.asks_clear() { &DECRYPTED } else { &[] };
        match self.deployment.ask(Ask { query, ..Ask::get(&what, &at) }).await?.0 {
            Verdict::Good(value) => Item::of(value, path, &self.site()),
            Verdict::Text(_) => Err(self.deployment.page(&self.doing(&what))),
            Verdict::Complaint(complaint) if complaint.meaning == Meaning::Absent || complaint.says_not_found() => {
                Err(self.no_item(path).await)
            }
            Verdict::Complaint(complaint) => Err(complaint.after_read(&self.doing(&what))),
        }
    }

    /// Whether the documents have `findItems` as a POST: of Kubernetes. Server's newer pages have it as a GET, its older ones did not.
    pub(super) fn finds_by_post(&self) -> bool {
        self.deployment.config.product == Product::Kubernetes
    }

    /// The fault of an item that is not there, with those that are.
    async fn no_item(&self, path: &str) -> Fault {
        let look = find_items(self.finds_by_post());
        let unknown = || Fault::Refused {
            reason: Reason::NotFound,
            why: format!("looking for data item {path}: {} does not know it", self.site()),
        };
        let found = match self.deployment.get(look).await {
            Ok(value) => Wiped(value),
            Err(Fault::Refused { .. }) => return unknown(),
            Err(fault) => return fault,
        };
        let Some(items) = found.0.get("items").and_then(Value::as_array) else { return unknown() };
        let text =
            |item: &Value, pointer: &str| item.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let known = items
            .iter()
            .map(|item| {
                let label = [text(item, "/provider"), text(item, "/info/objectStore")];
                let label = label.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
                (text(item, "/path"), label)
            })
            .filter(|(path, _)| !path.is_empty())
            .collect::<Vec<_>>();
        if known.iter().any(|(listed, _)| listed.eq_ignore_ascii_case(path)) {
            let why = format!(
                "looking for data item {path}: {} lists it and has nothing at data/items{path}, so that it cannot be edited there",
                self.site()
            );
            return Fault::Refused { reason: Reason::NotFound, why };
        }
        operation::not_found(
            "data item",
            path,
            known.iter().map(|(path, label)| (path.as_str(), label.as_str())),
            &self.site(),
        )
    }

    /// Lets the site try the item as it would be. Changes nothing, so that nothing is unknown afterwards.
    async fn validate_item(&self, path: &str, item: &str, secrets: &[&Secret]) -> Result<(), Fault> {
        let what = format!("validating data item {path} with the new key");
        let doing = self.doing(&what);
        let refuse = |said: &str| {
            let why = format!("{doing}: {said}; nothing was changed");
            Err(Fault::Refused { reason: Reason::Refused, why })
        };
        let ask = Ask { form: Some(&[("item", item)]), secrets, ..Ask::get(&what, "data/validateDataItem") };
        let (verdict, redactor) = self.deployment.ask(ask).await?;
        match verdict {
            Verdict::Good(value) => match refusal_in(&value, &redactor) {
                None => Ok(()),
                Some(said) => refuse(&said),
            },
            Verdict::Text(_) => Err(self.deployment.page(&doing)),
            Verdict::Complaint(complaint) => match complaint {
                // A site without the operation: the key was tried at its provider all the same.
                Complaint { meaning: Meaning::Absent, .. } => Ok(()),
                // ArcGIS itself says that it did not reach the store; what a front end says is nothing about the store.
                Complaint { meaning: Meaning::Refused, said, .. }
                | Complaint { meaning: Meaning::Broken, in_envelope: true, said, .. } => refuse(&said),
                Complaint { meaning: Meaning::Broken, said, retry_after, .. } => {
                    Err(Fault::Retry { after: retry_after, why: format!("{doing}: {said}") })
                }
                other => Err(self.refusal(doing, "", other)),
            },
        }
    }

    /// The one request that changes something.
    async fn edit_item(&self, path: &str, item: &str, secrets: &[&Secret]) -> Result<Receipt, Fault> {
        let (what, at) = (format!("pushing to data item {path} (edit)"), format!("data/items{path}/edit"));
        let doing = self.doing(&what);
        let ask = Ask { form: Some(&[("item", item)]), secrets, ..Ask::get(&what, &at) };
        let unknown = |said: &str| Err(Fault::Unknown(format!("{doing}: {said}; the key may have been stored")));
        match self.deployment.ask(ask).await?.0 {
            Verdict::Good(value) if is_success(&value) => Ok(Receipt { job: None }),
            Verdict::Good(_) => unknown("an answer that says neither success nor error"),
            Verdict::Text(_) => unknown("a page instead of JSON"),
            Verdict::Complaint(complaint) if complaint.meaning == Meaning::Broken => unknown(&complaint.said),
            Verdict::Complaint(complaint) => Err(self.refusal(doing, "", complaint)),
        }
    }
}

/// All cloud stores, in the one way or the other.
pub(super) fn find_items(by_post: bool) -> Ask<'static> {
    let look = Ask::get("looking for data items", "data/findItems");
    match by_post {
        true => Ask { form: Some(&[ANCESTOR]), ..look },
        false => Ask { query: &[ANCESTOR], ..look },
    }
}

fn is_success(value: &Value) -> bool {
    let status = value.get("status").and_then(Value::as_str);
    status.is_some_and(|status| status.eq_ignore_ascii_case("success"))
        || value.get("success") == Some(&Value::Bool(true))
}

/// Why a validation that is no error is no success either: `{"status":"success"}` is documented; the Python API knows an answer by
/// machine too, each with a status of its own.
fn refusal_in(value: &Value, redactor: &Redactor) -> Option<String> {
    let machines = value.get("machines").and_then(Value::as_array).filter(|machines| !machines.is_empty());
    if let Some(failed) = machines.and_then(|machines| machines.iter().find(|machine| !is_success(machine))) {
        let said = redactor.clean(&super::messages(failed));
        return Some(format!("one of its machines does not reach the store: \"{said}\""));
    }
    if is_success(value) || (machines.is_some() && value.get("status").is_none()) {
        return None;
    }
    let said = redactor.clean(&super::messages(value));
    Some(format!("not validated: \"{said}\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_validation_is_good_only_where_all_say_so() {
        let refusal = |value: Value| refusal_in(&value, &Redactor::default());
        assert_eq!(refusal(json!({"status": "success"})), None);
        assert_eq!(refusal(json!({"success": true})), None);
        assert_eq!(refusal(json!({"machines": [{"status": "success"}, {"status": "SUCCESS"}]})), None);
        assert_eq!(
            refusal(
                json!({"status": "success", "machines": [{"status": "success"}, {"status": "error", "messages": ["no route"]}]})
            ),
            Some("one of its machines does not reach the store: \"no route\"".to_owned())
        );
        assert_eq!(
            refusal(json!({"status": "warning", "messages": ["slow"]})),
            Some("not validated: \"slow\"".to_owned())
        );
        assert_eq!(refusal(json!({})), Some("not validated: \"\"".to_owned()));
        assert_eq!(refusal(json!({"machines": []})), Some("not validated: \"\"".to_owned()));
    }
}
