//! A key for an intent: looked for by its name, asked for where it is not there, and looked for again.
//!
//! Sends one POST at most and repeats none. What is done about a key that is there and of no use is the engine's.

use std::time::Duration;

use reqwest::Method;
use tokio::time::Instant;

use super::client::Asked;
use super::credential::{self, Credential, One};
use super::faults::{Call, MANAGEMENT};
use super::{IbmCos, name, parsed};
use crate::model::{IntentId, KeyId, Material, Reason};
use crate::ports::{Fault, MintedKey};

/// After a conflict: how long it is looked whether the key is there, at most, and how often.
const LOOKED_FOR_MAX: Duration = Duration::from_secs(60);
const LOOK_PAUSE: Duration = Duration::from_secs(1);

impl IbmCos {
    /// One POST at most, for a key of the intent's name, and none where that is there already: what a second POST for a name that is
    /// taken does (409, the same key again, another secret for it) is not documented. Whatever refusal comes back, it is looked once
    /// more, since an earlier request of the same intent may have arrived meanwhile, and 409 has more than one cause.
    pub(super) async fn make(&self, intent: &IntentId) -> Result<MintedKey, Fault> {
        let key = name::of(intent);
        let call = self.call("create", &key, MANAGEMENT);
        if let Some(credential) = self.shown(&key).await.map_err(nothing_sent)? {
            return self.made(&call, credential);
        }
        let body = credential::asked(&key, self.owner(), self.config.subject_ibm_id.as_deref());
        let asked = Asked::new(Method::POST, "/credentials".to_owned()).body(body, None);
        let refusal = match self.accesser.send(&call, asked).await {
            Ok(answer) => {
                let One { credential } = parsed(&call, &answer, "a credential")?;
                if credential.secret().is_some() && credential.key() == key {
                    return self.made(&call, self.checked(&call, &key, credential)?);
                }
                Fault::Unknown(call.text("an answer about another access key, or without a secret"))
            }
            Err(fault @ Fault::Refused { reason: Reason::LoginRefused | Reason::TlsUntrusted, .. }) => {
                return Err(fault);
            }
            Err(fault @ Fault::Refused { .. }) => fault,
            Err(fault) => return Err(fault),
        };
        match self.looked_for(&key, &refusal).await {
            Some(credential) => self.made(&call, credential),
            None => Err(self.why_not_made(refusal).await),
        }
    }

    /// What an intent's key is good for, now that it is there.
    fn made(&self, call: &Call, credential: Credential) -> Result<MintedKey, Fault> {
        let id = credential.key();
        let Some(secret) = credential.into_secret() else {
            // A retry then finds it by its name, takes it away and makes another.
            let why = call.text("the key is there, and no answer shows its secret; it can only be deleted");
            return Err(Fault::Refused { reason: Reason::Refused, why });
        };
        Ok(MintedKey { material: Material::AccessKey { id, secret }, created: None })
    }

    /// A key whose POST was refused, where it is there all the same. A conflict says that this may be so, and a look may be behind for
    /// as long as `settle` says; so it is looked again and again, for a minute at most.
    async fn looked_for(&self, key: &KeyId, refusal: &Fault) -> Option<Credential> {
        let may_be_there = matches!(refusal, Fault::Refused { reason: Reason::Quota, .. });
        let until = Instant::now() + self.accesser.account.settle().min(LOOKED_FOR_MAX);
        loop {
            if let Ok(Some(credential)) = self.shown(key).await {
                return Some(credential);
            }
            if !may_be_there || Instant::now() >= until {
                return None;
            }
            tokio::time::sleep_until(until.min(Instant::now() + LOOK_PAUSE)).await;
        }
    }

    /// Why no key was made, as far as it can be told.
    async fn why_not_made(&self, refusal: Fault) -> Fault {
        let Fault::Refused { reason: Reason::Quota, why } = refusal else { return refusal };
        // How many keys a user may have is told by nobody; how many it has is.
        let held = match self.credentials().await {
            Ok((credentials, _)) => {
                let ids: Vec<String> = credentials.iter().map(|credential| credential.key().to_string()).collect();
                format!("; no look shows this key, and the user has {}: {}", ids.len(), ids.join(", "))
            }
            Err(_) => String::new(),
        };
        Fault::Refused { reason: Reason::Quota, why: format!("{why}{held}") }
    }
}

/// A fault of a look before the request that counts: whatever became of the look, that request was not sent.
fn nothing_sent(fault: Fault) -> Fault {
    match fault {
        Fault::Unknown(why) => Fault::NotSent(why),
        other => other,
    }
}
