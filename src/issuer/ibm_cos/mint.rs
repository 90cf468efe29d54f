//! A key for an intent: looked for by its name, asked for where it is not there, and looked for again.
//!
//! Sends one POST at most and repeats none. What is done about a key that is there and of no use is the engine's.
//!
//! Invariant: a POST that may have made a key never ends as a refusal, which would say that there is none. What is wrong with that key is
//! told by the look with which the next attempt begins.

use std::time::Duration;

use reqwest::Method;
use tokio::time::Instant;

use super::client::Asked;
use super::credential::{self, Credential, One};
use super::faults::{Call, MANAGEMENT};
use super::{IbmCos, Shown, name, parsed};
use crate::model::{IntentId, KeyId, Material, Reason};
use crate::ports::{Fault, MintedKey};

/// After a conflict: how long it is looked whether the key is there, at most, and how often.
const LOOKED_FOR_MAX: Duration = Duration::from_secs(60);
const LOOK_PAUSE: Duration = Duration::from_secs(1);

impl IbmCos {
    /// One POST at most, for a key of the intent's name, and none where that is there already: what a second POST for a name that is
    /// taken does (409, the same key again, another secret for it) is not documented. Whatever refusal comes back, it is looked once
    /// more, since an earlier request of the same intent may have arrived meanwhile, and 409 has more than one cause.
    ///
    /// None either while a name of this rotation is there as another user's. No listing of this user's has such a key, so nobody but an
    /// operator can take it away, and one more would be made with each `retry`.
    pub(super) async fn make(&self, intent: &IntentId) -> Result<MintedKey, Fault> {
        let key = name::of(intent);
        let call = self.call("create", &key, MANAGEMENT);
        match self.look_at(&key).await.map_err(nothing_sent)? {
            Some(Shown::Ours(credential)) => return self.made(&call, credential),
            Some(Shown::Anothers) => return Err(astray(&call, &key)),
            None => {}
        }
        for earlier in name::earlier(intent) {
            if let Some(Shown::Anothers) = self.look_at(&earlier).await.map_err(nothing_sent)? {
                return Err(astray(&call, &earlier));
            }
        }
        let body = credential::asked(&key, self.owner(), self.config.subject_ibm_id.as_deref());
        let asked = Asked::new(Method::POST, "/credentials".to_owned()).body(body, None);
        let refusal = match self.accesser.send(&call, asked).await {
            Ok(answer) => {
                let One { credential } = parsed(&call, &answer, "a credential")?;
                if credential.secret().is_some() && credential.key() == key {
                    return match self.whose(&call, &key, credential)? {
                        Shown::Ours(credential) => self.made(&call, credential),
                        Shown::Anothers => Err(Fault::Unknown(call.text("the key was made for another user"))),
                    };
                }
                Fault::Unknown(call.text("an answer about another access key, or without a secret"))
            }
            Err(fault @ Fault::Refused { reason: Reason::LoginRefused | Reason::TlsUntrusted, .. }) => {
                return Err(fault);
            }
            Err(fault @ Fault::Refused { .. }) => fault,
            Err(fault) => return Err(fault),
        };
        match self.looked_for(&key, &refusal).await? {
            Some(Shown::Ours(credential)) => self.made(&call, credential).map_err(not_settled),
            Some(Shown::Anothers) if matches!(refusal, Fault::Refused { .. }) => Err(astray(&call, &key)),
            Some(Shown::Anothers) => Err(not_settled(astray(&call, &key))),
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
    async fn looked_for(&self, key: &KeyId, refusal: &Fault) -> Result<Option<Shown>, Fault> {
        let may_be_there = matches!(refusal, Fault::Refused { reason: Reason::Quota, .. });
        let until = Instant::now() + self.accesser.account.settle().min(LOOKED_FOR_MAX);
        loop {
            let looked = self.look_at(key).await;
            if let Ok(Some(_)) = looked {
                return looked;
            }
            if !may_be_there || Instant::now() >= until {
                // Where no look is answered, nobody knows whether it is there.
                return if may_be_there { looked.map_err(not_settled) } else { Ok(None) };
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

/// What to do about a key of ours that the accesser made somebody else's.
fn astray(call: &Call, key: &KeyId) -> Fault {
    let why = call.text(format_args!(
        "access key {key}, which this rotation asked for, is there as another user's; the accesser does not make keys \
         for the user it is asked to, or somebody changed it; delete that key in the Manager, since rekeyd leaves other users' keys alone"
    ));
    Fault::Refused { reason: Reason::Refused, why }
}

/// The key is there, whatever was said against it: a refusal would say that there is none.
fn not_settled(fault: Fault) -> Fault {
    match fault {
        Fault::Refused { why, .. } => Fault::Unknown(why),
        other => other,
    }
}

/// A fault of a look before the request that counts: whatever became of the look, that request was not sent.
fn nothing_sent(fault: Fault) -> Fault {
    match fault {
        Fault::Unknown(why) => Fault::NotSent(why),
        other => other,
    }
}
