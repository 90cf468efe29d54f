//! How everything stands, as `status --json`, `/api/v1/status` and the control socket say it. A file format: names are never
//! changed, only added.

use chrono::SecondsFormat;
use serde::{Deserialize, Serialize};

use crate::engine::{Report, ServiceReport};
use crate::model::Timestamp;

use super::refused::Refusal;

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The format's version.
    pub version: u32,
    /// The services, by name.
    pub services: Vec<Service>,
    /// Why the policy in the file was refused at the last reload; null where it is in force.
    #[serde(default)]
    pub policy_refused: Option<String>,
    /// What takes the refused policy up.
    #[serde(default)]
    pub policy_next_command: Option<String>,
}

/// One service. Absent values are null, times are RFC 3339 in whole seconds, keys stand by id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its issuer object.
    pub issuer: String,
    /// Its targets.
    pub targets: Vec<String>,
    /// idle, rotating, soaking, watching, waiting, halted, paused or leaving.
    pub state: String,
    /// The phase of the open rotation.
    pub phase: Option<String>,
    /// The open rotation.
    pub rotation: Option<String>,
    /// The key all targets are Verified to hold.
    pub current_key: Option<String>,
    /// The key before it, while it exists.
    pub previous_key: Option<String>,
    /// When the next rotation opens.
    pub next_rotation: Option<String>,
    /// When a key was last Verified at every target.
    pub last_rotation: Option<String>,
    /// When the current key was made.
    pub key_created: Option<String>,
    /// Failures in a row.
    pub failures: u32,
    /// Why it is halted, in one word.
    pub reason: Option<String>,
    /// The whole story, or what it waits for.
    pub message: Option<String>,
    /// What to type next.
    pub next_command: Option<String>,
    /// Keys at the issuer that nobody can explain.
    pub strangers: Vec<String>,
    /// Keys that should be gone.
    pub debt: Vec<String>,
    /// What differs between journal and world.
    pub drift: Option<String>,
    /// Whether it is past its time, or its key too old.
    pub overdue: bool,
    /// How many rotations ended how, over the whole history.
    pub rotations: Rotations,
}

/// Rotations by how far they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotations {
    /// Every target Verified, whatever came after.
    pub verified: u64,
    /// New key in place, old key gone.
    pub done: u64,
    /// New key taken back.
    pub failed: u64,
    /// Keys found after an unknown mint and destroyed.
    pub reclaimed: u64,
    /// Ended by an operator.
    pub abandoned: u64,
    /// Previous key put back.
    pub rolled_back: u64,
}

impl Status {
    /// The report in the words of the interface.
    pub fn of(report: &Report) -> Status {
        Status {
            version: 1,
            services: report.services.iter().map(one).collect(),
            policy_refused: None,
            policy_next_command: None,
        }
    }

    /// With what was refused at the last reload, in the words that whoever asks may hear.
    pub fn with_refusal(self, refusal: Option<&Refusal>, words: impl Fn(&Refusal) -> String) -> Status {
        let policy_next_command = refusal.map(|refusal| refusal.next.to_owned());
        Status { policy_refused: refusal.map(words), policy_next_command, ..self }
    }

    /// Whether anything is halted, overdue or in debt: what exit code 1 of `status` says.
    pub fn needs_somebody(&self) -> bool {
        self.services.iter().any(|service| service.state == "halted" || service.overdue || !service.debt.is_empty())
    }

    /// A service by its name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }
}

fn one(service: &ServiceReport) -> Service {
    Service {
        name: service.name.to_string(),
        issuer: service.issuer.clone(),
        targets: service.targets.iter().map(ToString::to_string).collect(),
        state: service.state.as_str().to_owned(),
        phase: service.phase.map(|phase| phase.as_str().to_owned()),
        rotation: service.rotation.clone(),
        current_key: service.current_key.as_ref().map(ToString::to_string),
        previous_key: service.previous_key.as_ref().map(ToString::to_string),
        next_rotation: service.next_rotation.map(in_seconds),
        last_rotation: service.last_rotation.map(in_seconds),
        key_created: service.key_created.map(in_seconds),
        failures: service.failures,
        reason: service.reason.map(|reason| reason.as_str().to_owned()),
        message: service.message.clone(),
        next_command: service.next_command.clone(),
        strangers: service.strangers.iter().map(ToString::to_string).collect(),
        debt: service.debt.iter().map(ToString::to_string).collect(),
        drift: service.drift.clone(),
        overdue: service.overdue,
        rotations: Rotations {
            verified: service.durations.len() as u64,
            done: service.tally.done,
            failed: service.tally.failed,
            reclaimed: service.tally.reclaimed,
            abandoned: service.tally.abandoned,
            rolled_back: service.tally.rolled_back,
        },
    }
}

/// A time as every interface of rekeyd writes it: `2026-11-22T03:00:00Z`.
pub fn in_seconds(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::engine::StateWord;
    use crate::model::{KeyId, Reason, ServiceName, TargetName};
    use crate::rotation::{Phase, Tally};

    /// A service as a test wants it: what is not said is at rest and unknown.
    pub(crate) fn service(name: &str) -> ServiceReport {
        ServiceReport {
            name: ServiceName::new(name),
            issuer: "aws-iam:main:store".into(),
            targets: vec![TargetName::new("arcgis:prod:eg7hrelq6b")],
            state: StateWord::Idle,
            phase: None,
            rotation: None,
            verified: false,
            current_key: None,
            previous_key: None,
            next_rotation: None,
            last_rotation: None,
            key_created: None,
            failures: 0,
            reason: None,
            message: None,
            next_command: None,
            strangers: Vec::new(),
            debt: Vec::new(),
            drift: None,
            max_age_seconds: None,
            overdue: false,
            tally: Tally::default(),
            durations: Vec::new(),
        }
    }

    #[test]
    fn every_field_is_there_and_absent_values_are_null() {
        let report = Report { at: None, services: vec![service("a")] };
        let json = serde_json::to_value(Status::of(&report)).expect("a status is plain data");
        assert_eq!(
            json,
            serde_json::json!({"version": 1, "services": [{
                "name": "a", "issuer": "aws-iam:main:store", "targets": ["arcgis:prod:eg7hrelq6b"], "state": "idle",
                "phase": null, "rotation": null, "current_key": null, "previous_key": null, "next_rotation": null,
                "last_rotation": null, "key_created": null, "failures": 0, "reason": null, "message": null,
                "next_command": null, "strangers": [], "debt": [], "drift": null, "overdue": false,
                "rotations": {"verified": 0, "done": 0, "failed": 0, "reclaimed": 0, "abandoned": 0, "rolled_back": 0},
            }], "policy_refused": null, "policy_next_command": null})
        );
    }

    #[test]
    fn times_are_whole_seconds_and_words_are_the_interfaces_own() {
        let at = Timestamp::from_timestamp(1_795_000_000, 999_999_999).expect("a time of this century");
        let mut halted = service("a");
        halted.state = StateWord::Halted;
        halted.phase = Some(Phase::Deploying);
        halted.reason = Some(Reason::StuckBetween);
        halted.next_rotation = Some(at);
        halted.current_key = Some(KeyId::new("AKIAOLD"));
        let status = Status::of(&Report { at: Some(at), services: vec![halted] });
        let service = status.service("a").expect("it is there");
        assert_eq!(service.next_rotation.as_deref(), Some("2026-11-18T11:06:40Z"));
        assert_eq!((service.state.as_str(), service.phase.as_deref()), ("halted", Some("deploying")));
        assert_eq!(service.reason.as_deref(), Some("stuck-between"));
        assert!(status.needs_somebody());
    }

    #[test]
    fn somebody_is_needed_for_debt_and_lateness_and_not_for_work_under_way() {
        let needs = |change: fn(&mut ServiceReport)| {
            let mut service = service("a");
            change(&mut service);
            Status::of(&Report { at: None, services: vec![service] }).needs_somebody()
        };
        assert!(needs(|service| service.debt = vec![KeyId::new("AKIAOLD")]));
        assert!(needs(|service| service.overdue = true));
        assert!(!needs(|service| service.state = StateWord::Rotating));
        assert!(!needs(|service| service.strangers = vec![KeyId::new("AKIAX")]));
    }
}
