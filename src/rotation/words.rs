//! What an operator is told: the state a halt leaves, and the next command.

use crate::model::{KeyId, Reason, ServiceName};

use super::{Push, ServiceState};

impl ServiceState {
    /// What is true now, in a sentence: which keys live, and what the targets hold.
    pub(super) fn state_left(&self) -> String {
        let current = self.current.as_ref().map(|current| current.key.as_str());
        let Some(rotation) = &self.rotation else {
            return match current {
                Some(key) => format!("no rotation is open, nothing was changed, and the targets hold key {key}"),
                None => "no rotation is open and nothing was changed".to_owned(),
            };
        };
        let new = match &rotation.installing {
            Some(key) => format!("key {key} is alive"),
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

    /// What to type next, for a halted service; `None` where nothing is to be typed.
    pub fn next_command(&self, service: &ServiceName) -> Option<String> {
        let halt = self.halt.as_ref()?;
        let stranger = self.strangers.iter().next().map_or("KEY_ID", KeyId::as_str);
        let outgoing =
            self.leaving.values().find(|leaving| !leaving.ours).map_or("KEY_ID", |leaving| leaving.key.as_str());
        Some(match halt.reason {
            Reason::NoCurrentKey => format!("rekeyd adopt {service} KEY_ID"),
            Reason::JournalBehind => format!("rekeyd adopt {service} {stranger}"),
            Reason::Stranger | Reason::MintUnsettled => {
                format!(
                    "rekeyd reclaim {service} {stranger}   (ours, unused: destroy it) or rekeyd disown {service} {stranger}   (somebody else's: leave it)"
                )
            }
            Reason::AdoptNeeded => format!("rekeyd adopt {service} {outgoing}"),
            Reason::OldKeyStillUsed => {
                format!(
                    "find the user named above and rekeyd retry {service}, or rekeyd retire {service} --despite-use"
                )
            }
            Reason::StuckBetween | Reason::PushUnproven | Reason::Unhealthy => {
                format!("rekeyd retry {service}, or rekeyd rollback {service}")
            }
            Reason::Inherits => format!(
                "set provider_id in the target of {service}, then systemctl reload rekeyd and rekeyd retry {service}"
            ),
            Reason::LoginRefused => {
                format!("correct the password, then systemctl reload rekeyd and rekeyd retry {service}")
            }
            Reason::TlsUntrusted => {
                format!("set ca_file to the server's CA, then systemctl reload rekeyd and rekeyd retry {service}")
            }
            Reason::JournalDamaged => "rekeyd ledger verify".to_owned(),
            Reason::TargetChanged => format!(
                "see who changed the target, put key {} back or rekeyd adopt {service} KEY_ID, then rekeyd retry {service}",
                self.current.as_ref().map_or("KEY_ID", |current| current.key.as_str())
            ),
            Reason::CurrentKeyBroken => {
                format!("rekeyd strangers, then rekeyd adopt {service} KEY_ID or rekeyd retry {service}")
            }
            Reason::SecretNotHeld => {
                format!("rekeyd adopt {service} KEY_ID --secret-file FILE, then rekeyd retry {service}")
            }
            Reason::ProbeFailed
            | Reason::ProbeNotAllowed
            | Reason::Quota
            | Reason::PushRefused
            | Reason::PushFailed
            | Reason::AccountChanged
            | Reason::MissingRight
            | Reason::NotFound
            | Reason::Refused
            | Reason::PolicyMismatch => format!("rekeyd retry {service}"),
        })
    }
}
