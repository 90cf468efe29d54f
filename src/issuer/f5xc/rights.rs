//! What a living credential may do, and how long it lives, brought in line with the policy. Its secret stays.

use chrono::TimeDelta;
use reqwest::Method;
use serde_json::json;

use super::client::{SYSTEM, edge_time};
use super::login::IsLogin;
use super::wire::{API_TOKEN, Access, Done, Item, Replace, Replaced};
use super::{F5xc, names, no_name, path_of, read};
use crate::model::{KeyId, Reason, Timestamp};
use crate::net::redact::Redactor;
use crate::ports::Fault;

const RENEW: &str = "/api/web/namespaces/system/renew/service_credentials";
const WHOLE_DAY: TimeDelta = TimeDelta::days(1);

impl F5xc {
    /// What a person made is left as it is; the next credential has what the policy says. Each of the two is tried, whatever became of
    /// the other.
    pub(super) async fn follow_policy(&self, key: &KeyId) -> Result<Option<String>, Fault> {
        if names::intent_of(&self.config.stem, key.as_str()).is_none() {
            return Ok(None);
        }
        let item = match self.item(key).await {
            // Listings tell of its absence, and with proof.
            Err(Fault::Refused { reason: Reason::NotFound, .. }) => return Ok(None),
            item => item?,
        };
        if !item.is_alive(edge_time()) {
            return Ok(None);
        }
        let (end, access) = (self.follow_end(key, &item).await, self.follow_access(key, &item).await);
        let changed: Vec<String> = end?.into_iter().chain(access?).collect();
        Ok((!changed.is_empty()).then(|| changed.join("; ")))
    }

    /// Where the policy gives a longer life than the credential was made with, and nothing else is wanted, its end is moved (renew), and
    /// then looked at. It is for tokens alone, moves the end to so many days from now, and never shortens one here: what ends too
    /// late is replaced long before.
    async fn follow_end(&self, key: &KeyId, item: &Item) -> Result<Option<String>, Fault> {
        let (Some(created), Some(end)) = (item.create_timestamp, item.expiry_timestamp) else { return Ok(None) };
        let wanted = created.checked_add_signed(TimeDelta::days(self.config.days.into()));
        let Some(wanted) = wanted.filter(|wanted| item.kind == API_TOKEN && *wanted - end > WHOLE_DAY) else {
            return Ok(None);
        };
        // Whole days, and so up to one too many; never fewer, or it would be renewed again and again.
        let expiration_days = (wanted - edge_time() + WHOLE_DAY - TimeDelta::seconds(1)).num_days();
        if expiration_days < 1 {
            return Ok(None);
        }
        let call = self.call(&format!("renew service credential {key}"));
        let body = json!({ "namespace": SYSTEM, "name": key.as_str(), "expiration_days": expiration_days });
        let answer = self.console.write(&call, Method::POST, RENEW, &body, Redactor::default()).await?;
        read::<Done>(&call, &answer, "an answer that does not say whether it was done")?;
        match self.item(key).await?.expiry_timestamp {
            Some(after) if after > end => Ok(Some(format!("its end {} became {}", day(end), day(after)))),
            _ => {
                let what =
                    format!("the console then shows the same end {}, and the policy says {}", day(end), day(wanted));
                Err(Fault::Refused { reason: Reason::PolicyMismatch, why: call.text(what) })
            }
        }
    }

    /// Roles and groups that the policy no longer gives, or gives anew, are replaced (PUT), and then looked at: the answer to a replace
    /// says nothing of them. Nothing is taken from what rekeyd itself logs in with, or may log in with: a mistyped role would be the
    /// last thing that login ever did.
    async fn follow_access(&self, key: &KeyId, item: &Item) -> Result<Option<String>, Fault> {
        let (wanted, shown) = (&self.config.access, item.access());
        if shown == *wanted {
            return Ok(None);
        }
        let call = self.call(&format!("replace the roles and groups of service credential {key}"));
        let lost = shown.without(wanted);
        if lost != Access::default() {
            let may_be_own = match self.is_login(key).await? {
                IsLogin::No => None,
                IsLogin::Yes(how) => Some(format!("rekeyd itself logs in with it, as {how}")),
                IsLogin::Untold(why) => {
                    Some(format!("whether rekeyd itself logs in with it cannot be told, since {why}"))
                }
            };
            if let Some(why) = may_be_own {
                let why = call.text(format_args!(
                    "the policy no longer gives it {lost}, and {why}, so nothing was changed; say in the policy what it has, or rotate the \
                     service: its next key has what the policy says"
                ));
                return Err(Fault::Refused { reason: Reason::PolicyMismatch, why });
            }
        }
        let path = path_of(key).ok_or_else(|| no_name(&call))?;
        let body = Replace {
            name: key.as_str(),
            namespace: SYSTEM,
            namespace_access: wanted.namespace_access(),
            user_group_names: &wanted.groups,
        };
        let answer = self.console.write(&call, Method::PUT, &path, &body, Redactor::default()).await?;
        let replaced: Replaced = read(&call, &answer, "an answer that names no credential")?;
        if replaced.name != key.as_str() {
            return Err(Fault::Unknown(call.text("an answer about another credential")));
        }
        let after = self.item(key).await?.access();
        match after == *wanted {
            true => Ok(Some(format!("{shown} became {after}"))),
            false => {
                let what = format!("the console then shows {after}, and the policy says {wanted}");
                Err(Fault::Refused { reason: Reason::PolicyMismatch, why: call.text(what) })
            }
        }
    }
}

fn day(at: Timestamp) -> String {
    at.format("%Y-%m-%d").to_string()
}
