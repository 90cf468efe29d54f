//! Judging everything between a key that is ready and a target that is Verified, and what its consumer says afterwards.

use std::time::Duration;

use crate::model::{
    Health, Instant, JobId, JobState, KeyId, Listing, Probe, Reading, Reason, Tail, TargetName, Timestamp,
};

use super::event::Event;
use super::evidence::clocks_differ;
use super::finding::{Conclusion, Pace};
use super::readback::ReadBack;
use super::{Course, JobEnd, Phase, Push, Rotation, ServiceState, Stage};

/// How many times in a row a job must be missing before it counts as lost: a restarting site forgets its jobs for a moment.
const VANISHED_MIN: u32 = 3;

/// The pause between two looks at a job that is missing.
const VANISHED_PAUSE: Duration = Duration::from_secs(2);

/// How many health checks must fail in a row before the previous key is put back.
const HEALTH_FAILURES_MIN: u32 = 2;

/// What was seen just before a push.
pub(super) struct SeenBefore {
    pub probe: Probe,
    pub reading: Reading,
    pub jobs: Vec<JobId>,
    pub listing: Listing,
    pub derived: Option<Tail>,
    pub until: Option<Timestamp>,
}

impl ServiceState {
    pub(super) fn before_push(&self, target: &TargetName, seen: SeenBefore, now: &Instant) -> Conclusion {
        let rotation = self.open_rotation();
        let key = rotation.installing.clone().expect("apply sets the key before the phase Ready");
        let end = seen.derived.as_ref().or(self.tails.get(&key));
        let is_unknown = self.is_unknown_to_us(target, &seen.reading, &key, end);
        let halt = |reason, why: String| Conclusion::record(vec![self.halted(reason, &why)]);
        // Putting back a key that worked mends something, and waits for no clock.
        let is_new = rotation.course == Course::Forward && rotation.kind.replaces();
        if let (true, Some(wait)) = (is_new, clocks_differ(&seen.listing, now)) {
            return wait;
        }
        let listed = seen.listing.keys.iter().find(|listed| listed.id == key);
        // A journal restored from an older copy would put back a key that the world has left behind.
        if let (true, Some(newer)) = (listed.is_none() || is_unknown, self.newer_than_journal(&seen.listing, now)) {
            return self.behind(
                &seen.listing,
                Some(&rotation.snapshot.issuer),
                &format!("key {key} was to be pushed to {target}"),
                &newer,
                now,
            );
        }
        // A provider may take a while to refuse a key that was disabled; the listing knows at once.
        if listed.is_some_and(|listed| !listed.active) {
            return self.not_fit_to_push(rotation, target, key, "it is inactive at its issuer".to_owned(), now);
        }
        if let Probe::NotYet(why) | Probe::Wrong(why) | Probe::NotAllowed(why) = seen.probe {
            return self.not_fit_to_push(rotation, target, key, why, now);
        }
        if is_unknown {
            return halt(
                Reason::TargetChanged,
                format!(
                    "{target} was to be handed key {key} and shows a credential that the journal does not know, so nothing \
                     was pushed"
                ),
            );
        }
        let (target, jobs, derived, until) = (target.clone(), seen.jobs, seen.derived, seen.until);
        Conclusion::record(vec![Event::PushBegun { target, key, jobs, derived, until }])
    }

    /// Whether a target shows what neither the journal nor the opening of this rotation accounts for, nor what is to be pushed.
    fn is_unknown_to_us(&self, target: &TargetName, reading: &Reading, key: &KeyId, end: Option<&Tail>) -> bool {
        // The journal learns the end of what is derived with the push; a key whose end is unknown would excuse anything.
        if let (Some(end), None) = (end, self.end_at(target, key)) {
            let mut knowing = self.clone();
            knowing.learn_end(target, key, end);
            return knowing.is_unknown_to_us(target, reading, key, None);
        }
        let snapshot = &self.open_rotation().snapshot;
        let opened = snapshot.targets.iter().find(|found| found.spec.name == *target).map(|found| &found.reading);
        opened != Some(reading) && self.read_back(target, reading, key) == ReadBack::Other
    }

    /// A key that passed its probes and does not work now: patience where nothing depends on it yet, a halt where something does.
    fn not_fit_to_push(
        &self,
        rotation: &Rotation,
        target: &TargetName,
        key: KeyId,
        why: String,
        now: &Instant,
    ) -> Conclusion {
        let interval = rotation.snapshot.terms.probe_interval;
        let message = format!("key {key} was to be pushed to {target} and does not work: {why}");
        let halt = |events: Vec<Event>| {
            let halted = self.halted(Reason::CurrentKeyBroken, &message);
            Conclusion::record(events.into_iter().chain([halted]).collect())
        };
        if let Course::RollingBack { since, .. } = &rotation.course {
            // A key just enabled again takes its time to be known everywhere, as a new one does.
            if now.since(since) > rotation.probe_patience() {
                return halt(Vec::new());
            }
            return Conclusion::again(Pace::After(interval), format!("key {key} is not usable again yet: {why}"));
        }
        let failed = Event::ProbeFailed { key: key.clone(), why: why.clone() };
        if rotation.minted.is_none() || rotation.any_touched() {
            return halt(vec![failed]);
        }
        if rotation.streak > 0 {
            return Conclusion::record(vec![failed]).slowly(Pace::After(interval), &why);
        }
        if rotation.last_probe.as_ref().is_some_and(|last| now.since(last) > rotation.probe_patience()) {
            return Conclusion::record(vec![Event::UndoBegun { reason: Reason::ProbeFailed, why: message }]);
        }
        Conclusion::again(Pace::After(interval), why)
    }

    pub(super) fn push_failed(&self, target: &TargetName, why: &str, pace: Pace) -> Conclusion {
        let event = Event::PushFailed { target: target.clone(), refused: false, why: why.to_owned() };
        Conclusion::record(vec![event]).slowly(pace, why)
    }

    pub(super) fn push_settled(&self, target: &TargetName, jobs: Vec<JobId>) -> Conclusion {
        let Some(Push::Unknown { jobs: before, .. }) = self.open_rotation().target(target).map(|found| &found.push)
        else {
            unreachable!("a push is settled only while it is unknown");
        };
        let mut new = jobs.into_iter().filter(|job| !before.contains(job));
        match (new.next(), new.next()) {
            (Some(job), None) => Conclusion::record(vec![Event::Submitted { target: target.clone(), job: Some(job) }]),
            (found, _) => {
                let which = if found.is_some() { "more than one job is" } else { "no job is" };
                self.job_lost(target, &format!("the answer to the push was lost and {which} new at the target"))
            }
        }
    }

    pub(super) fn polled(&self, target: &TargetName, job: JobState, now: &Instant, tries: u32) -> Conclusion {
        match job {
            JobState::Succeeded => Conclusion::record(vec![Event::Confirmed { target: target.clone() }]),
            JobState::Failed(why) => Conclusion::record(vec![Event::JobFailed { target: target.clone(), why }]),
            // A job that still runs may still store the key, however late: nothing is taken back from under it.
            JobState::Running(why) if self.job_overdue(target, now) => {
                let why = format!("the job of {target} still runs after its job_timeout: {why}");
                Conclusion::record(vec![self.halted(Reason::PushUnproven, &why)])
            }
            JobState::Running(why) => Conclusion::again(Pace::Poll, why),
            JobState::Vanished(why) if tries + 1 >= VANISHED_MIN => self.job_lost(target, &why),
            JobState::Vanished(why) => Conclusion::again(Pace::After(VANISHED_PAUSE), why),
        }
    }

    fn job_overdue(&self, target: &TargetName, now: &Instant) -> bool {
        let rotation = self.open_rotation();
        let spec = rotation.snapshot.targets.iter().find(|found| found.spec.name == *target);
        match (spec, rotation.target(target).map(|progress| &progress.push)) {
            (Some(found), Some(Push::Submitted { at, .. })) => now.since(at) >= found.spec.job_timeout,
            _ => false,
        }
    }

    fn job_lost(&self, target: &TargetName, why: &str) -> Conclusion {
        Conclusion::record(vec![Event::JobLost { target: target.clone(), why: why.to_owned() }])
    }

    pub(super) fn read_after_job(&self, target: &TargetName, reading: &Reading, now: &Instant) -> Conclusion {
        let rotation = self.open_rotation();
        let key = rotation.installing.clone().expect("apply sets the key before the phase Ready");
        let Some(Push::Ended { at, how, .. }) = rotation.target(target).map(|progress| &progress.push) else {
            unreachable!("a target is read back only after its job ended");
        };
        let spec = rotation.snapshot.targets.iter().find(|found| found.spec.name == *target);
        let readback = spec.map_or(Duration::ZERO, |found| found.spec.readback);
        let verified = |proven| Conclusion::record(vec![Event::Verified { target: target.clone(), proven }]);
        let not_moved = |shows: Option<KeyId>| {
            Conclusion::record(vec![Event::NotMoved { target: target.clone(), shows }])
                .slowly(Pace::BackOff, &format!("{target} is not yet proven to hold key {key}"))
        };
        match (how, self.read_back(target, reading, &key)) {
            (_, ReadBack::Other) => {
                let why = format!(
                    "after its job {target} shows a credential that is neither key {key} nor one it held before"
                );
                Conclusion::record(vec![self.halted(Reason::TargetChanged, &why)])
            }
            (JobEnd::Succeeded | JobEnd::Guessed, ReadBack::New) => verified(true),
            (JobEnd::Succeeded, ReadBack::CannotTell) => verified(false),
            // It may take a while until what a job did shows, and until what a failed job left is settled.
            (JobEnd::Succeeded | JobEnd::Guessed | JobEnd::Failed, ReadBack::Old(_)) if now.since(at) < readback => {
                Conclusion::again(Pace::Poll, format!("{target} still shows the key before its job"))
            }
            (_, ReadBack::Old(shows)) => not_moved(shows.or_else(|| rotation.retiring.clone())),
            // Not known to have succeeded: the same key is pushed again until a job says so.
            (_, ReadBack::New) => not_moved(Some(key.clone())),
            (_, ReadBack::CannotTell) => not_moved(None),
        }
    }

    /// Two failures in a row of a consumer that worked before the rotation take the old key back into service.
    pub(super) fn health_seen(
        &self,
        targets: &[(TargetName, Health)],
        old_is_held: bool,
        now: &Instant,
        tries: u32,
    ) -> Conclusion {
        let Some(rotation) = self.rotation.as_ref().filter(|rotation| rotation.watches_health()) else {
            return Conclusion::record(Vec::new());
        };
        let was_good =
            |name: &TargetName| rotation.snapshot.targets.iter().any(|found| found.spec.name == *name && found.healthy);
        let failing = targets.iter().find_map(|(name, health)| match health {
            Health::Bad(why) if was_good(name) => {
                Some(format!("the health check of {name} fails since the push: {why}"))
            }
            _ => None,
        });
        let Some(why) = failing else { return Conclusion::record(Vec::new()) };
        // Pushing another key before a job has ended is not safe; the job comes first.
        if tries + 1 < HEALTH_FAILURES_MIN || rotation.any_in_flight() {
            return Conclusion::again(Pace::BackOff, why);
        }
        let old = rotation.retiring.as_ref().expect("health is watched only where an old key is");
        let unhealthy = |why: &str| Conclusion::record(vec![self.halted(Reason::Unhealthy, why)]);
        match self.leaving.get(old).map(|retirement| &retirement.stage) {
            // It is on its way back already, or gone for good and the rotation about to be closed.
            Some(Stage::Enabling(_)) => Conclusion::record(Vec::new()),
            None if rotation.phase >= Phase::Soaking => Conclusion::record(Vec::new()),
            Some(_) if self.leaving.get(old).is_some_and(|leaving| !leaving.may_come_back(now)) => unhealthy(&why),
            _ if old_is_held && !self.moves_house() => Conclusion::record(vec![Event::RollbackBegun { by: why }]),
            Some(Stage::Disabled(_) | Stage::Disabling(_)) => {
                Conclusion::record(vec![Event::EnableBegun { key: old.clone(), why }])
            }
            _ => unhealthy(&format!(
                "{why}; key {old} cannot be pushed back, since its secret is not held or it lives elsewhere"
            )),
        }
    }
}
