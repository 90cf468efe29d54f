//! Every kind of event, with parameters that suit a state and with some that do not.

use std::collections::BTreeSet;
use std::time::Duration;

use rekeyd::model::{Instant, IntentId, JobId, KeyId, Keyless, Reason, RotationId, TargetName};
use rekeyd::rotation::event::{AdoptedBy, Cause, Event, Outcome, RotationKind, Snapshot};
use rekeyd::rotation::{Course, JobEnd, Push, ServiceState, Stage};

use crate::world::epoch;

/// An event to be tried.
pub struct Attempt {
    pub event: Event,
    /// It speaks of a key or a target that the state does not know.
    pub of_nobody: bool,
}

/// When a state without a history is.
pub fn first_moment() -> Instant {
    Instant { wall: epoch(), boot: Duration::ZERO, boot_id: "boot-0".into() }
}

/// What tells two states apart, as far as legality may depend on it.
pub fn fingerprint(state: &ServiceState) -> String {
    let outgoing = state.rotation.as_ref().and_then(|rotation| rotation.outgoing());
    let leaving: BTreeSet<String> = state
        .leaving
        .values()
        .map(|leaving| {
            let own = outgoing == Some(&leaving.key);
            let ours = if own && !leaving.ours { " not ours" } else { "" };
            let held = own && state.may_hold.values().any(|held| held.contains(&leaving.key));
            format!("{}{}{ours}{}", mark(own, "its own "), stage(&leaving.stage), mark(held, " held"))
        })
        .collect();
    let halt = match &state.halt {
        None => "",
        Some(_) if state.adoption_ends_rotation() => " left behind",
        Some(_) => " halted",
    };
    let rotation = state.rotation.as_ref().map_or("no rotation".to_owned(), |rotation| {
        let course = match &rotation.course {
            Course::Forward => "forward",
            Course::Undoing { .. } => "undoing",
            Course::RollingBack { .. } => "rolling back",
        };
        let pushes: BTreeSet<String> = rotation
            .targets
            .iter()
            .map(|target| {
                let touched = mark(target.touched, " touched");
                format!("{}{touched}{}", push(&target.push), mark(target.lost.is_some(), " lost"))
            })
            .collect();
        let mint = rotation.mint.as_ref().map_or("", |mint| if mint.unknown.is_some() { " unknown" } else { " sent" });
        let fresh = mark(rotation.kind.replaces(), " fresh");
        let enable = mark(rotation.enable_first.is_some(), " enables first");
        format!("{:?} {course}{fresh}{mint}{enable} {pushes:?}", rotation.phase)
    });
    let rest = [
        mark(super::can_disable(state), " can disable"),
        mark(state.current.is_none(), " no current key"),
        mark(!state.strangers.is_empty(), " strangers"),
        mark(!state.disowned.is_empty(), " disowned"),
        mark(state.order.is_some(), " ordered"),
    ];
    format!("{rotation}{halt} {leaving:?}{}", rest.concat())
}

fn mark(is: bool, word: &'static str) -> &'static str {
    if is { word } else { "" }
}

fn stage(stage: &Stage) -> &'static str {
    match stage {
        Stage::Waiting => "waiting",
        Stage::Disabling(_) => "disabling",
        Stage::Disabled(_) => "disabled",
        Stage::Enabling(_) => "enabling",
        Stage::Deleting(_) => "deleting",
        Stage::Deleted(_) => "deleted",
        Stage::Absent(_) => "absent",
    }
}

fn push(push: &Push) -> &'static str {
    match push {
        Push::Pending => "pending",
        Push::Begun { .. } => "begun",
        Push::Unknown { .. } => "unknown",
        Push::Submitted { guessed: false, .. } => "submitted",
        Push::Submitted { guessed: true, .. } => "guessed",
        Push::Ended { how: JobEnd::Succeeded, .. } => "succeeded",
        Push::Ended { how: JobEnd::Guessed, .. } => "guessed to have succeeded",
        Push::Ended { how: JobEnd::Failed, .. } => "failed",
        Push::Ended { how: JobEnd::Lost, .. } => "lost",
        Push::Verified { .. } => "verified",
        Push::Refused => "refused",
    }
}

/// Everything that may be tried in a state.
pub fn attempts(state: &ServiceState, snapshot: &Snapshot) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    let mut add = |event: Event, of_nobody: bool| attempts.push(Attempt { event, of_nobody });
    let (by, why) = ("uid 0 (root)".to_owned(), "for a try".to_owned());
    for event in [
        Event::Paused { by: by.clone() },
        Event::Resumed { by: by.clone() },
        Event::Retried { by: by.clone() },
        Event::DespiteUseOrdered { by: by.clone() },
        Event::SwitchOrdered { to: None, by: by.clone() },
        Event::SwitchOrdered { to: Some(Keyless::IamRole), by: by.clone() },
        Event::DriftFound { what: why.clone() },
        Event::DriftCleared,
        Event::StrangersSeen { keys: Vec::new() },
        Event::StrangersSeen { keys: vec![KeyId::new("STRANGER")] },
        Event::Halted { reason: Reason::Refused, message: why.clone() },
        Event::Halted { reason: Reason::TargetChanged, message: why.clone() },
        Event::MintFailed { why: why.clone() },
        Event::MintUnknown { why: why.clone() },
        Event::MintSettled { found: Vec::new(), reclaim: false },
        Event::MintSettled { found: Vec::new(), reclaim: true },
        Event::UndoBegun { reason: Reason::PushRefused, why: why.clone() },
        Event::RollbackBegun { by: by.clone() },
    ] {
        add(event, false);
    }
    for cause in causes(&by) {
        add(Event::Ordered { cause: cause.clone() }, false);
        let repush = [names(snapshot), Vec::new()].map(RotationKind::Repush);
        for kind in repush.into_iter().chain([RotationKind::Fresh, RotationKind::Switch(Keyless::IamRole)]) {
            let (rotation, snapshot) = (RotationId::new("r-try"), Box::new(snapshot.clone()));
            add(Event::Opened { rotation, cause: cause.clone(), kind, snapshot }, false);
        }
    }
    for replaces in [None, state.previous.clone()] {
        let (intent, before) = (IntentId::new("r-try.1"), state.current.iter().map(|key| key.key.clone()).collect());
        add(Event::MintBegun { intent, before, replaces }, false);
    }
    for outcome in outcomes(state, &by, &why) {
        add(Event::Closed { outcome }, false);
    }
    let known = keys(state);
    let nobody = KeyId::new("NOBODY");
    let holds = Some(nobody.clone());
    add(Event::Closed { outcome: Outcome::Abandoned { by: by.clone(), holds } }, true);
    for key in known.iter().chain([&nobody]) {
        for event in about_key(key, &by, &why) {
            add(event, *key == nobody);
        }
    }
    let nowhere = TargetName::new("arcgis:prod:nowhere");
    let places: BTreeSet<TargetName> =
        names(snapshot).into_iter().chain(targets(state)).chain([nowhere.clone()]).collect();
    for target in &places {
        for event in about_target(target, &known, &why) {
            add(event, *target == nowhere);
        }
        let (key, jobs) = (nobody.clone(), Vec::new());
        add(Event::PushBegun { target: target.clone(), key, jobs, derived: None, until: None }, true);
    }
    attempts
}

fn causes(by: &str) -> [Cause; 4] {
    let operator = |compromised| Cause::Operator { by: by.to_owned(), compromised };
    [Cause::Timetable, Cause::Drift, operator(false), operator(true)]
}

fn outcomes(state: &ServiceState, by: &str, why: &str) -> Vec<Outcome> {
    let mut outcomes = vec![
        Outcome::Done,
        Outcome::RolledBack,
        Outcome::Failed { reason: Reason::PushRefused, why: why.to_owned() },
        Outcome::Abandoned { by: by.to_owned(), holds: None },
    ];
    let abandoned = |key: KeyId| Outcome::Abandoned { by: by.to_owned(), holds: Some(key) };
    outcomes.extend(keys(state).into_iter().map(abandoned));
    outcomes
}

fn about_key(key: &KeyId, by: &str, why: &str) -> Vec<Event> {
    let (key, by, why) = (key.clone(), by.to_owned(), why.to_owned());
    let adopted = |by| Event::Adopted {
        key: key.clone(),
        created: None,
        by,
        readings: Vec::new(),
        account: None,
        issuer: None,
        tail: None,
        derived: Vec::new(),
    };
    vec![
        adopted(AdoptedBy::FirstContact),
        adopted(AdoptedBy::Operator(by.clone())),
        Event::Disowned { key: key.clone(), by: by.clone() },
        Event::ReclaimOrdered { key: key.clone(), unused: true, by: by.clone(), issuer: None, account: None },
        Event::ReclaimOrdered { key: key.clone(), unused: false, by, issuer: None, account: None },
        Event::Minted { key: key.clone(), created: None, tail: None },
        Event::MintSettled { found: vec![key.clone()], reclaim: true },
        Event::MintSettled { found: vec![key.clone()], reclaim: false },
        Event::MintSettled { found: vec![key.clone(), KeyId::new("ANOTHER")], reclaim: true },
        Event::ProbePassed { key: key.clone() },
        Event::ProbeFailed { key: key.clone(), why: why.clone() },
        Event::DisableBegun { key: key.clone(), evidence: why.clone() },
        Event::Disabled { key: key.clone() },
        Event::EnableBegun { key: key.clone(), why: why.clone() },
        Event::Enabled { key: key.clone() },
        Event::DeleteBegun { key: key.clone(), evidence: why.clone() },
        Event::Deleted { key: key.clone() },
        Event::RetireRefused { key: key.clone(), why },
        Event::AbsentOnce { key: key.clone() },
        Event::Reappeared { key: key.clone() },
        Event::Gone { key },
    ]
}

fn about_target(target: &TargetName, known: &BTreeSet<KeyId>, why: &str) -> Vec<Event> {
    let (target, why) = (target.clone(), why.to_owned());
    let mut events = vec![
        Event::Submitted { target: target.clone(), job: None },
        Event::Submitted { target: target.clone(), job: Some(JobId::new("job-try")) },
        Event::PushFailed { target: target.clone(), refused: false, why: why.clone() },
        Event::PushFailed { target: target.clone(), refused: true, why: why.clone() },
        Event::PushUnknown { target: target.clone(), why: why.clone() },
        Event::Confirmed { target: target.clone() },
        Event::JobFailed { target: target.clone(), why: why.clone() },
        Event::JobLost { target: target.clone(), why },
        Event::NotMoved { target: target.clone(), shows: None },
        Event::Verified { target: target.clone(), proven: true },
        Event::Verified { target: target.clone(), proven: false },
    ];
    for key in known {
        events.push(Event::PushBegun {
            target: target.clone(),
            key: key.clone(),
            jobs: Vec::new(),
            derived: None,
            until: None,
        });
        events.push(Event::NotMoved { target: target.clone(), shows: Some(key.clone()) });
    }
    events
}

/// The keys that a state knows, in whatever role.
pub fn keys(state: &ServiceState) -> BTreeSet<KeyId> {
    let rotation = state.rotation.iter().flat_map(|rotation| {
        [rotation.installing.as_ref(), rotation.retiring.as_ref(), Some(&rotation.former.key)].into_iter().flatten()
    });
    let current = state.current.iter().map(|current| &current.key);
    let leaving = state.leaving.keys().chain(&state.previous);
    let others = state.strangers.iter().chain(&state.disowned);
    rotation.chain(current).chain(leaving).chain(others).cloned().collect()
}

fn names(snapshot: &Snapshot) -> Vec<TargetName> {
    snapshot.targets.iter().map(|found| found.spec.name.clone()).collect()
}

fn targets(state: &ServiceState) -> Vec<TargetName> {
    let of_rotation = state.rotation.iter().flat_map(|rotation| rotation.targets.iter().map(|target| &target.name));
    of_rotation.chain(state.may_hold.keys()).cloned().collect()
}
