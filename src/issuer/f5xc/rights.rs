//! What a living credential may do, brought in line with the policy. Its secret stays, and so does its end.

use reqwest::Method;

use super::client::{SYSTEM, edge_time};
use super::login::IsLogin;
use super::wire::{Access, Replace, Replaced};
use super::{F5xc, names, no_name, path_of, read};
use crate::model::{KeyId, Reason};
use crate::net::redact::Redactor;
use crate::ports::Fault;

impl F5xc {
    /// Roles and groups that the policy no longer gives, or gives anew, are replaced (PUT), and then looked at: the answer to a replace
    /// says nothing of them. What a person made is left as it is; the next credential has what the policy says. Nothing is taken from
    /// what rekeyd itself logs in with, or may log in with: a mistyped role would be the last thing that login ever did.
    pub(super) async fn follow_policy(&self, key: &KeyId) -> Result<Option<String>, Fault> {
        if names::intent_of(&self.config.stem, key.as_str()).is_none() {
            return Ok(None);
        }
        let wanted = &self.config.access;
        let item = match self.item(key).await {
            // Listings tell of its absence, and with proof.
            Err(Fault::Refused { reason: Reason::NotFound, .. }) => return Ok(None),
            item => item?,
        };
        let shown = item.access();
        if shown == *wanted || !item.is_alive(edge_time()) {
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
