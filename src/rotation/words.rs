//! What an operator is told: the state a halt leaves, and the next command.

use crate::model::{KeyId, Keyless, Reason, SecretRef, ServiceName};

use super::event::{AdoptedBy, Cause, Event, Outcome, RotationKind};
use super::{Course, Phase, Push, ServiceState};

/// How the daemon takes up a login or a secret that was changed. A reload reads files again, and no more: what systemd hands over
/// (credentials, the environment), it hands over at the start only (systemd.exec(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeUp {
    /// By reading it again.
    Reload,
    /// By starting again.
    Restart,
}

impl TakeUp {
    /// How a secret kept there is taken up.
    pub fn of(secret: &SecretRef) -> TakeUp {
        match secret {
            SecretRef::File(_) => Self::Reload,
            SecretRef::Credential(_) | SecretRef::Env(_) => Self::Restart,
        }
    }

    /// What to type, and why where that may not be plain.
    pub fn command(self) -> &'static str {
        match self {
            Self::Reload => "systemctl reload rekeyd",
            Self::Restart => {
                "systemctl restart rekeyd (a reload is not enough: systemd hands it over at the start only)"
            }
        }
    }
}

impl ServiceState {
    /// What is true now, in a sentence: which keys live, and what the targets hold.
    pub fn state_left(&self) -> String {
        let current = self.current.as_ref().map(|current| current.key.as_str());
        let Some(rotation) = &self.rotation else {
            return match current {
                Some(key) => {
                    format!("no rotation is open, nothing was changed, and the journal's current key is {key}")
                }
                None => "no rotation is open and nothing was changed".to_owned(),
            };
        };
        let new = match &rotation.installing {
            Some(key) => format!("key {key} is alive"),
            None if rotation.mint.as_ref().is_some_and(|mint| mint.unknown.is_some()) => {
                "whether a new key exists is not known".to_owned()
            }
            None => "no new key is known to exist".to_owned(),
        };
        let verified: Vec<_> = rotation
            .targets
            .iter()
            .filter(|target| matches!(target.push, Push::Verified { .. }))
            .map(|target| target.name.as_str())
            .collect();
        let old = rotation.retiring.as_ref().filter(|key| Some(key.as_str()) != current).map_or(String::new(), |key| {
            match self.leaving.get(key) {
                Some(retirement) if retirement.stage.reversible() => format!(", key {key} can still be put back"),
                _ => String::new(),
            }
        });
        format!(
            "rotation {} stands in phase {}: {new}, targets verified: {}, current key {}{old}, nothing is retired meanwhile",
            rotation.id,
            self.phase().map_or("none", super::Phase::as_str),
            if verified.is_empty() { "none".to_owned() } else { verified.join(", ") },
            current.unwrap_or("none"),
        )
    }

    /// Whether `rollback` could be accepted now, the secret's being held apart.
    fn may_roll_back(&self) -> bool {
        self.rotation.as_ref().is_some_and(|rotation| {
            let reversible = |old| self.leaving.get(old).is_none_or(|leaving| leaving.stage.reversible());
            rotation.course == Course::Forward
                && rotation.phase >= Phase::Ready
                && rotation.retiring.as_ref().is_some_and(reversible)
                && !rotation.any_in_flight()
                && !self.moves_house()
        })
    }

    /// What takes a key for the one in use; where keys live in two slots it says besides that nobody uses the other.
    fn adopt_command(&self, service: &ServiceName, key: &str) -> String {
        let in_slots = self.issuer_at_home().is_some_and(|issuer| issuer.shape.has_slots());
        format!("rekeyd adopt {service} {key}{}", if in_slots { " --idle-slot-free" } else { "" })
    }

    /// What to type next, for a service that is halted or owes a key its issuer will not retire; `None` where nothing is to be typed.
    /// `login` says how a login of this service is taken up once it is corrected.
    pub fn next_command(&self, service: &ServiceName, login: TakeUp) -> Option<String> {
        let Some(halt) = &self.halt else {
            let refused = self.leaving.values().any(|leaving| leaving.refused.is_some());
            return refused.then(|| format!("mend what the message names, then rekeyd retry {service}"));
        };
        let stranger = self.strangers.iter().next().map_or("KEY_ID", KeyId::as_str);
        let adopt = self.adopt_command(service, "KEY_ID");
        let mended = |mend: &str| format!("{mend}, then rekeyd retry {service}");
        let reloaded = |mend: &str| format!("{mend}, then systemctl reload rekeyd and rekeyd retry {service}");
        Some(match halt.reason {
            // Before anything is adopted nothing here says how keys live there; the message does.
            Reason::NoCurrentKey => {
                format!("{}, with the key the targets use now", self.adopt_command(service, "KEY_ID"))
            }
            Reason::JournalBehind => {
                format!("{}, if that is the key the targets use now", self.adopt_command(service, stranger))
            }
            Reason::Stranger | Reason::MintUnsettled => format!(
                "rekeyd reclaim {service} {stranger} (ours and unused: destroy it), or rekeyd disown {service} {stranger} \
                 (somebody else's: leave it)"
            ),
            Reason::AdoptNeeded => {
                let outgoing = self.leaving.values().find(|leaving| !leaving.ours);
                self.adopt_command(service, outgoing.map_or("KEY_ID", |leaving| leaving.key.as_str()))
            }
            Reason::OldKeyStillUsed => {
                format!(
                    "move that user to the new key, then rekeyd retry {service}; or rekeyd retire {service} --despite-use"
                )
            }
            Reason::StuckBetween | Reason::PushUnproven | Reason::Unhealthy if self.may_roll_back() => {
                format!("rekeyd retry {service}, or rekeyd rollback {service}")
            }
            Reason::StuckBetween | Reason::PushUnproven => {
                format!(
                    "rekeyd retry {service}, or rekeyd abandon {service} --holds KEY_ID, with the key the targets hold"
                )
            }
            Reason::Unhealthy => mended("see what ails the consumer"),
            Reason::RolledBack => mended("see why the newer key did not do"),
            Reason::EnabledAgain => mended(&format!(
                "find who enabled the key; rekeyd rollback {service} puts it back. Once nobody needs it"
            )),
            Reason::TargetChanged => match self.rotation.is_some() {
                true => {
                    let back = if self.may_roll_back() {
                        format!("rekeyd rollback {service} puts the previous key back; ")
                    } else {
                        String::new()
                    };
                    format!(
                        "see who changed the target; rekeyd retry {service} once it holds a key of this rotation again; {back}\
                         {adopt} takes a key that is not of this rotation"
                    )
                }
                false => format!(
                    "see who changed the target; rekeyd repush {service} puts our key back, {adopt} takes theirs"
                ),
            },
            Reason::CurrentKeyBroken => match self.may_roll_back() {
                true => {
                    format!("rekeyd rollback {service}; or mend the key at the issuer, then rekeyd retry {service}")
                }
                false => {
                    format!("mend the key at the issuer, then rekeyd retry {service}; or {adopt}")
                }
            },
            Reason::SecretNotHeld => {
                let forward = self.rotation.iter().find(|open| !matches!(open.course, Course::Undoing { .. }));
                let key = forward.and_then(|rotation| rotation.installing.as_ref());
                let key = key.or(self.current.as_ref().map(|current| &current.key)).map_or("KEY_ID", KeyId::as_str);
                // The operator's word on the key before this rotation may bring its secret; a key that was minted has it sealed.
                match self.rotation.as_ref().is_some_and(|rotation| rotation.former.key.as_str() != key) {
                    true => mended(&format!("bring back the seal key that opens the secret of {key}")),
                    false => format!("{} --secret-file FILE", self.adopt_command(service, key)),
                }
            }
            Reason::Inherits => reloaded("write provider_id instead of service_id in its target"),
            Reason::LoginRefused => format!(
                "correct the login named above (password, or access key and secret), then {} and rekeyd retry {service}",
                login.command()
            ),
            Reason::TlsUntrusted => reloaded("name the server's authority in ca_file"),
            Reason::MissingRight => mended("grant the right named above"),
            Reason::Quota => mended("delete the key that nobody needs at the issuer"),
            Reason::NotFound => reloaded("correct the name in the policy, or make what it names"),
            Reason::AccountChanged => {
                format!("correct the account's login, then {} and rekeyd retry {service}", login.command())
            }
            Reason::PolicyMismatch => reloaded("correct the policy"),
            Reason::JournalDamaged => "rekeyd ledger verify".to_owned(),
            Reason::ProbeNotAllowed => mended("allow the store's user what the probe asks for"),
            Reason::ProbeFailed | Reason::PushRefused | Reason::PushFailed | Reason::Refused => {
                format!("rekeyd retry {service}")
            }
        })
    }
}

/// An event in a short sentence, for history and log.
pub fn in_words(event: &Event) -> String {
    match event {
        Event::Adopted { key, by: AdoptedBy::FirstContact, .. } => format!("took on key {key}, the only one in use"),
        Event::Adopted { key, by: AdoptedBy::Operator(by), .. } => format!("adopted key {key} on the word of {by}"),
        Event::Ordered { cause } => format!("rotation ordered by {}", cause_in_words(cause)),
        Event::SwitchOrdered { to: Some(to), by } => format!("{by} wants it switched to {to}"),
        Event::SwitchOrdered { to: None, by } => format!("{by} wants it switched back to a key"),
        Event::Paused { by } => format!("paused by {by}"),
        Event::Resumed { by } => format!("resumed by {by}"),
        Event::Halted { reason, message } => format!("halted ({reason}): {message}"),
        Event::Retried { by } => format!("{by} wants it looked at again"),
        Event::DriftFound { what } => format!("drift: {what}"),
        Event::DriftCleared => "the drift is gone".to_owned(),
        Event::StrangersSeen { keys } if keys.is_empty() => "no stranger is left at the issuer".to_owned(),
        Event::StrangersSeen { keys } => format!("strangers at the issuer: {}", list(keys)),
        Event::Disowned { key, by } => format!("{by} says that key {key} is somebody else's"),
        Event::ReclaimOrdered { key, by, .. } => format!("{by} says that key {key} is ours and not needed"),
        Event::DespiteUseOrdered { by } => format!("{by} wants the old key retired though it is in use"),
        Event::Opened { rotation, cause, kind, .. } => match kind {
            RotationKind::Fresh => format!("opened rotation {rotation}, by {}", cause_in_words(cause)),
            RotationKind::Repush(_) => {
                format!("opened rotation {rotation} to push the current key again, by {}", cause_in_words(cause))
            }
            RotationKind::Switch(to) => format!("opened rotation {rotation} to {to}, by {}", cause_in_words(cause)),
        },
        Event::MintBegun { before, replaces: Some(idle), .. } => {
            format!("minting in place of idle key {idle}; keys before: {}", list(before))
        }
        Event::MintBegun { before, replaces: None, .. } => format!("minting; keys before: {}", list(before)),
        Event::Minted { key, .. } => format!("minted key {key}, its secret is sealed"),
        Event::MintFailed { why } => format!("no key was minted: {why}"),
        Event::MintUnknown { why } => format!("whether a key was minted is unknown: {why}"),
        Event::MintSettled { found, reclaim: true } => {
            format!("the unknown mint had made key {}, which is destroyed", list(found))
        }
        Event::MintSettled { found, .. } if !found.is_empty() => {
            format!("the unknown mint had put key {} in its slot, whose secret nobody has: it is idle", list(found))
        }
        Event::MintSettled { .. } => {
            "the unknown mint is settled: the issuer lists no key that cannot be explained".to_owned()
        }
        Event::ProbePassed { key } => format!("key {key} works"),
        Event::ProbeFailed { key, why } => format!("key {key} does not work: {why}"),
        Event::PushBegun { target, key, .. } if Keyless::is_id(key) => format!("switching {target} to {key}"),
        Event::PushBegun { target, key, derived: Some(_), .. } => {
            format!("pushing what is derived from key {key} to {target}")
        }
        Event::PushBegun { target, key, .. } => format!("pushing key {key} to {target}"),
        Event::Submitted { target, job: Some(job) } => format!("{target} took it, job {job}"),
        Event::Submitted { target, job: None } => format!("{target} took it"),
        Event::PushFailed { target, why, .. } => format!("nothing was pushed to {target}: {why}"),
        Event::PushUnknown { target, why } => format!("whether {target} took it is unknown: {why}"),
        Event::Confirmed { target } => format!("the job of {target} succeeded"),
        Event::JobFailed { target, why } => format!("the job of {target} failed: {why}"),
        Event::JobLost { target, why } => format!("the job of {target} is lost: {why}"),
        Event::NotMoved { target, shows: Some(key) } => {
            format!("{target} shows key {key} and no job vouches for it; pushing again")
        }
        Event::NotMoved { target, shows: None } => {
            format!("{target} cannot tell which key it holds and no job vouches for it; pushing again")
        }
        Event::Verified { target, proven: true } => format!("verified: {target} shows the new key"),
        Event::Verified { target, proven: false } => {
            format!("verified: the job of {target} succeeded, its read-back cannot tell")
        }
        Event::UndoBegun { reason, why } => format!("taking the new key back ({reason}): {why}"),
        Event::RollbackBegun { by } => format!("putting the previous key back, on the word of {by}"),
        Event::Closed { outcome } => match outcome {
            Outcome::Done => "done".to_owned(),
            Outcome::Failed { reason, .. } => format!("failed ({reason}), the new key is gone"),
            Outcome::RolledBack => "rolled back, the newer key is gone".to_owned(),
            Outcome::Abandoned { by, .. } => format!("abandoned by {by}"),
        },
        Event::DisableBegun { key, evidence } => format!("disabling key {key}; {evidence}"),
        Event::Disabled { key } => format!("disabled key {key}"),
        Event::EnableBegun { key, why } => format!("enabling key {key}: {why}"),
        Event::Enabled { key } => format!("enabled key {key}"),
        Event::DeleteBegun { key, evidence } => format!("deleting key {key}; {evidence}"),
        Event::Deleted { key } => format!("deleted key {key}"),
        Event::RetireRefused { key, why } => format!("key {key} cannot be retired and is owed: {why}"),
        Event::AbsentOnce { key } => format!("key {key} is not listed any more"),
        Event::Reappeared { key } => format!("key {key} is listed again"),
        Event::Gone { key } => format!("key {key} is gone"),
    }
}

fn cause_in_words(cause: &Cause) -> String {
    match cause {
        Cause::Timetable => "the timetable".to_owned(),
        Cause::MaxAge => "max_age, outside the window".to_owned(),
        Cause::Signal => "SIGUSR1".to_owned(),
        Cause::Operator { by, compromised: false } => by.clone(),
        Cause::Operator { by, compromised: true } => format!("{by}, the old key being compromised"),
        Cause::Drift => "drift, since a target lost the key".to_owned(),
    }
}

fn list(keys: &[KeyId]) -> String {
    let ids: Vec<_> = keys.iter().map(KeyId::as_str).collect();
    if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
}
