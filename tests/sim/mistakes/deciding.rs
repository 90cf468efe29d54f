//! Mistakes of judgement: planted around the machine, which is misled about what was found, what time it is or what was agreed,
//! or whose word is replaced. What an event does to the state stays the machine's, so a wrong judgement must be a legal one.

use std::sync::Arc;
use std::time::Duration;

use rekeyd::engine::Decide;
use rekeyd::model::{Fault, Instant, JobState, KeyId, ListedKey, Listing, Probe, Reading, Reason};
use rekeyd::rotation::event::{AdoptedBy, Event, Outcome};
use rekeyd::rotation::{
    Act, Circumstances, Conclusion, Course, Effect, Evidence, Finding, Found, JobEnd, Pace, Phase, Push, Rotation,
    ServiceState, Stage, Step,
};

use crate::scene::Plant;

type Steps = fn(&ServiceState, &Instant) -> Vec<Step>;
type Judges = fn(&ServiceState, &Effect, Found, &Instant, &Circumstances) -> Conclusion;

/// A machine that gets something wrong.
struct Wrong {
    steps: Steps,
    judges: Judges,
}

impl Decide for Wrong {
    fn steps(&self, state: &ServiceState, now: &Instant) -> Vec<Step> {
        (self.steps)(state, now)
    }

    fn conclude(
        &self,
        state: &ServiceState,
        effect: &Effect,
        found: Found,
        now: &Instant,
        around: &Circumstances,
    ) -> Conclusion {
        (self.judges)(state, effect, found, now, around)
    }
}

fn plant(steps: Steps, judges: Judges) -> Plant {
    Plant { decide: Arc::new(Wrong { steps, judges }), ..Plant::default() }
}

fn steps(steps: Steps) -> Plant {
    plant(steps, ServiceState::conclude)
}

fn judges(judges: Judges) -> Plant {
    plant(ServiceState::steps, judges)
}

fn written(events: Vec<Event>) -> Conclusion {
    Conclusion { events, pace: Pace::Now, waits_for: String::new() }
}

fn open(state: &ServiceState) -> &Rotation {
    state.rotation.as_ref().expect("this effect belongs to a rotation")
}

/// The same state with other terms for the keys on their way out.
fn with_terms(state: &ServiceState, change: impl Fn(&mut Duration, &mut Duration)) -> ServiceState {
    let mut state = state.clone();
    state.leaving.values_mut().for_each(|leaving| change(&mut leaving.wait, &mut leaving.watch));
    state
}

/// The same evidence, embellished.
fn with_evidence(found: Found, change: impl Fn(&mut Evidence)) -> Found {
    found.map(|finding| match finding {
        Finding::Evidence(mut evidence) => {
            change(&mut evidence);
            Finding::Evidence(evidence)
        }
        other => other,
    })
}

pub fn unknown_is_failed() -> Plant {
    judges(|state, effect, found, now, around| match (effect, &found) {
        (Effect::Mint(_), Err(Fault::Unknown(why))) => written(vec![Event::MintFailed { why: why.clone() }]),
        _ => state.conclude(effect, found, now, around),
    })
}

pub fn mint_sent_again() -> Plant {
    steps(|state, now| {
        let lost = state.rotation.as_ref().and_then(|rotation| rotation.mint.as_ref());
        match lost.filter(|mint| mint.unknown.is_some()) {
            Some(mint) => vec![Step::Run(Effect::Mint(mint.intent.clone()))],
            None => state.steps(now),
        }
    })
}

pub fn settled_at_once() -> Plant {
    steps(|state, now| {
        let lost = state.rotation.as_ref().and_then(|rotation| rotation.mint.as_ref());
        match lost.filter(|mint| mint.unknown.is_some()) {
            Some(_) if state.halt.is_none() => vec![Step::Run(Effect::SettleMint)],
            _ => state.steps(now),
        }
    })
}

pub fn found_is_ours() -> Plant {
    judges(|state, effect, found, now, around| {
        let listed = match (effect, &found) {
            (Effect::SettleMint, Ok(Finding::Settled { listing, .. })) => listing.keys.clone(),
            _ => return state.conclude(effect, found, now, around),
        };
        let before = open(state).mint.as_ref().map(|mint| mint.before.clone()).unwrap_or_default();
        let new: Vec<KeyId> = listed.into_iter().map(|listed| listed.id).filter(|key| !before.contains(key)).collect();
        match new.len() {
            1 => written(vec![Event::MintSettled { found: new, reclaim: true }]),
            _ => state.conclude(effect, found, now, around),
        }
    })
}

pub fn stranger_taken_on() -> Plant {
    judges(|state, effect, found, now, around| {
        let stranger = match (effect, &found) {
            (Effect::Survey, Ok(Finding::Survey { listing, .. })) => {
                listing.keys.iter().find(|listed| !state.explains(&listed.id)).cloned()
            }
            _ => None,
        };
        match stranger {
            Some(ListedKey { id, created, .. }) => written(vec![Event::Adopted {
                key: id,
                created,
                by: AdoptedBy::Operator("rekeyd".into()),
                readings: Vec::new(),
                account: None,
                issuer: None,
                tail: None,
                derived: Vec::new(),
            }]),
            None => state.conclude(effect, found, now, around),
        }
    })
}

pub fn no_soak() -> Plant {
    steps(|state, now| with_terms(state, |wait, _| *wait = Duration::ZERO).steps(now))
}

pub fn no_watch() -> Plant {
    steps(|state, now| with_terms(state, |_, watch| *watch = Duration::ZERO).steps(now))
}

pub fn short_soak_unproven() -> Plant {
    steps(|state, now| {
        let soak = state.last_place.as_ref().map_or(Duration::ZERO, |place| place.terms.soak);
        with_terms(state, |wait, _| *wait = soak.min(*wait)).steps(now)
    })
}

pub fn retired_on_the_clock() -> Plant {
    steps(|state, now| {
        let evidence = || "its time is over".to_owned();
        let act = |step| match step {
            Step::Run(Effect::Evidence(key, Act::Disable)) => {
                Step::Record(Event::DisableBegun { key, evidence: evidence() })
            }
            Step::Run(Effect::Evidence(key, Act::Delete)) => {
                Step::Record(Event::DeleteBegun { key, evidence: evidence() })
            }
            other => other,
        };
        state.steps(now).into_iter().map(act).collect()
    })
}

pub fn evidence_before_the_soak() -> Plant {
    steps(|state, now| {
        let mut steps = Vec::new();
        for (key, leaving) in &state.leaving {
            let left = leaving.wait.saturating_sub(now.since(&leaving.since));
            match &leaving.stage {
                Stage::Waiting => return vec![Step::Run(Effect::Evidence(key.clone(), Act::Disable))],
                Stage::Disabling(_) if !left.is_zero() => return vec![Step::Wait(left)],
                Stage::Disabling(_) => return vec![Step::Run(Effect::Disable(key.clone()))],
                _ => steps.push(leaving.step(now)),
            }
        }
        if steps.is_empty() { state.steps(now) } else { steps }
    })
}

pub fn use_is_ignored() -> Plant {
    judges(|state, effect, found, now, around| {
        let silent = with_evidence(found, |evidence| evidence.last_use = rekeyd::model::LastUse::Never);
        state.conclude(effect, silent, now, around)
    })
}

pub fn enabled_again_is_ignored() -> Plant {
    judges(|state, effect, found, now, around| {
        let Effect::Evidence(key, Act::Delete) = effect else { return state.conclude(effect, found, now, around) };
        let inactive = with_evidence(found, |evidence| {
            evidence
                .listing
                .keys
                .iter_mut()
                .filter(|listed| listed.id == *key)
                .for_each(|listed| listed.active = false);
        });
        state.conclude(effect, inactive, now, around)
    })
}

pub fn wall_clock_alone() -> Plant {
    plant(
        // Both clocks count where one is said to stand: a boot clock far ahead leaves the wall's word. Only the age of evidence is
        // boot time's alone, and what is begun would never be young enough to be sent.
        |state, now| {
            let begun = |stage: &Stage| matches!(stage, Stage::Disabling(_) | Stage::Deleting(_));
            match state.leaving.values().any(|leaving| begun(&leaving.stage)) {
                true => state.steps(now),
                false => state.steps(&Instant { boot: now.boot + Duration::from_secs(1 << 32), ..now.clone() }),
            }
        },
        |state, effect, found, now, around| {
            let undated = with_evidence(found, |evidence| evidence.listing.date = None);
            state.conclude(effect, undated, now, around)
        },
    )
}

pub fn job_is_enough() -> Plant {
    judges(|state, effect, found, now, around| match (effect, &found) {
        (Effect::Poll(target, _), Ok(Finding::Job(JobState::Succeeded))) => written(vec![
            Event::Confirmed { target: target.clone() },
            Event::Verified { target: target.clone(), proven: true },
        ]),
        _ => state.conclude(effect, found, now, around),
    })
}

pub fn equal_ends_are_proof() -> Plant {
    judges(|state, effect, found, now, around| {
        let mut conclusion = state.conclude(effect, found, now, around);
        for event in &mut conclusion.events {
            if let Event::Verified { proven, .. } = event {
                *proven = true;
            }
        }
        conclusion
    })
}

pub fn server_error_is_no() -> Plant {
    judges(|state, effect, found, now, around| match (effect, &found) {
        (Effect::Push(target), Err(Fault::Unknown(why))) => {
            written(vec![Event::PushFailed { target: target.clone(), refused: true, why: why.clone() }])
        }
        _ => state.conclude(effect, found, now, around),
    })
}

pub fn slow_job_is_dead() -> Plant {
    judges(|state, effect, found, now, around| {
        let conclusion = state.conclude(effect, found, now, around);
        let given_up = conclusion.events.iter().any(|event| matches!(event, Event::Halted { .. }));
        match effect {
            Effect::Poll(target, _) if given_up => written(vec![
                Event::JobFailed { target: target.clone(), why: "it takes too long".into() },
                Event::NotMoved { target: target.clone(), shows: open(state).retiring.clone() },
                Event::UndoBegun { reason: Reason::PushFailed, why: "the job takes too long".into() },
            ]),
            _ => conclusion,
        }
    })
}

pub fn no_look_before_the_push() -> Plant {
    judges(|state, effect, found, now, around| {
        let found = found.map(|finding| match (effect, finding) {
            (Effect::BeforePush(target), Finding::BeforePush { probe, jobs, listing, .. }) => {
                let expected = open(state).snapshot.targets.iter().find(|found| found.spec.name == *target);
                let reading = expected.map_or(Reading::Hidden, |found| found.reading.clone());
                Finding::BeforePush { probe, reading, jobs, listing, derived: None, until: None }
            }
            (_, other) => other,
        });
        state.conclude(effect, found, now, around)
    })
}

pub fn no_probe_before_the_push() -> Plant {
    judges(|state, effect, found, now, around| {
        let found = found.map(|finding| match finding {
            Finding::Probe(_) => Finding::Probe(Probe::Works),
            Finding::BeforePush { reading, jobs, listing, .. } => {
                Finding::BeforePush { probe: Probe::Works, reading, jobs, listing, derived: None, until: None }
            }
            other => other,
        });
        state.conclude(effect, found, now, around)
    })
}

pub fn journal_is_believed() -> Plant {
    /// What the issuer would list if the journal were right.
    fn as_written(state: &ServiceState, listing: Listing) -> Listing {
        let mut keys = listing.keys;
        keys.retain(|listed| state.explains(&listed.id));
        let current = state.current.as_ref().map(|current| current.key.clone());
        for id in current.into_iter().filter(|id| keys.iter().all(|listed| listed.id != *id)).collect::<Vec<_>>() {
            keys.push(ListedKey {
                id,
                active: true,
                created: None,
                intent: None,
                tail: None,
                expires: None,
                root_tail: None,
            });
        }
        Listing { keys, ..listing }
    }
    judges(|state, effect, found, now, around| {
        let found = found.map(|finding| match finding {
            Finding::Survey { snapshot, listing } => Finding::Survey { snapshot, listing: as_written(state, listing) },
            Finding::Observed { listing, readings, others, probe, unkept } => {
                let probe = probe.map(|_| Probe::Works);
                Finding::Observed { listing: as_written(state, listing), readings, others, probe, unkept }
            }
            Finding::BeforePush { reading, jobs, listing, .. } => {
                let listing = as_written(state, listing);
                Finding::BeforePush { probe: Probe::Works, reading, jobs, listing, derived: None, until: None }
            }
            other => other,
        });
        state.conclude(effect, found, now, around)
    })
}

pub fn answered_is_gone() -> Plant {
    judges(|state, effect, found, now, around| {
        let mut conclusion = state.conclude(effect, found, now, around);
        if let (Effect::Delete(key), Some(Event::Deleted { .. })) = (effect, conclusion.events.last()) {
            conclusion.events.extend([Event::AbsentOnce { key: key.clone() }, Event::Gone { key: key.clone() }]);
        }
        conclusion
    })
}

pub fn one_listing_is_enough() -> Plant {
    judges(|state, effect, found, now, around| {
        let mut conclusion = state.conclude(effect, found, now, around);
        if let Some(Event::AbsentOnce { key }) = conclusion.events.last().cloned() {
            conclusion.events.push(Event::Gone { key });
        }
        conclusion
    })
}

pub fn debt_forgotten() -> Plant {
    judges(|state, effect, found, now, around| match (effect, &found) {
        (Effect::Delete(key), Err(Fault::Refused { .. })) => written(vec![
            Event::Deleted { key: key.clone() },
            Event::AbsentOnce { key: key.clone() },
            Event::Gone { key: key.clone() },
        ]),
        _ => state.conclude(effect, found, now, around),
    })
}

pub fn closed_before_gone() -> Plant {
    steps(|state, now| {
        let deployed = state.rotation.as_ref().is_some_and(|rotation| {
            rotation.phase >= Phase::Deployed && rotation.course == Course::Forward && rotation.retiring.is_some()
        });
        match deployed && state.halt.is_none() {
            true => vec![Step::Record(Event::Closed { outcome: Outcome::Done })],
            false => state.steps(now),
        }
    })
}

pub fn guessed_job_is_ours() -> Plant {
    judges(|state, effect, found, now, around| {
        let conclusion = state.conclude(effect, found, now, around);
        let Effect::ReadBack(target) = effect else { return conclusion };
        let push = state.rotation.as_ref().and_then(|rotation| rotation.target(target)).map(|found| &found.push);
        match push {
            Some(Push::Ended { how: JobEnd::Guessed, .. }) => {
                written(vec![Event::Verified { target: target.clone(), proven: true }])
            }
            _ => conclusion,
        }
    })
}
