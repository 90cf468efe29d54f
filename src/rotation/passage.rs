//! What each event of a rotation does to it, from Opened to the last Verified, and back.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::model::{Instant, KeyId, Reading, TargetName};

use super::event::{Event, RotationKind, Snapshot};
use super::retire::{Stage, Why};
use super::{Course, Current, EnableFirst, JobEnd, Mint, Phase, Push, Rotation, ServiceState, TargetProgress};

impl ServiceState {
    pub(super) fn fold_rotation(&mut self, event: &Event, at: &Instant) -> Result<(), ()> {
        let mut rotation = self.rotation.take().ok_or(())?;
        if let Course::Undoing { .. } = rotation.course {
            return Err(());
        }
        match event {
            Event::MintBegun { intent, before, replaces } => {
                let issuer = &rotation.snapshot.issuer;
                let free = |key: &KeyId| {
                    before.contains(key)
                        && rotation.retiring.as_ref() != Some(key)
                        && self.is_idle(key)
                        && self.slots_in_motion(issuer).next().is_none()
                };
                let legal = match replaces {
                    Some(key) => issuer.shape.has_slots() && free(key),
                    None => !issuer.shape.has_slots(),
                };
                if rotation.phase != Phase::Opened || rotation.kind != RotationKind::Fresh || !legal {
                    return Err(());
                }
                rotation.mints += 1;
                rotation.phase = Phase::Minting;
                rotation.mint = Some(Mint {
                    intent: intent.clone(),
                    before: before.clone(),
                    replaces: replaces.clone(),
                    begun: at.clone(),
                    unknown: None,
                    refused: false,
                });
            }
            Event::Minted { key, created, tail } => {
                let mint = rotation.mint.take().ok_or(())?;
                let fresh =
                    !mint.before.contains(key) && !self.explains(key) && rotation.retiring.as_ref() != Some(key);
                let repeated = rotation.snapshot.issuer.shape.mint_may_be_repeated();
                let fresh = fresh && !self.keyless.contains_key(key);
                if rotation.phase != Phase::Minting || (mint.unknown.is_some() && !repeated) || !fresh {
                    return Err(());
                }
                self.strangers.remove(key);
                rotation.phase = Phase::Minted;
                rotation.installing = Some(key.clone());
                rotation.created = *created;
                rotation.minted = Some(at.clone());
                rotation.last_probe = None;
                if let Some(tail) = tail {
                    self.tails.insert(key.clone(), tail.clone());
                }
            }
            Event::MintFailed { .. } => {
                let mint = rotation.mint.take().ok_or(())?;
                if rotation.phase != Phase::Minting || mint.unknown.is_some() {
                    return Err(());
                }
                rotation.phase = Phase::Opened;
            }
            Event::MintUnknown { why } => {
                let mint = rotation.mint.as_mut().ok_or(())?;
                let repeated = rotation.snapshot.issuer.shape.mint_may_be_repeated();
                if rotation.phase != Phase::Minting || mint.refused || (mint.unknown.is_some() && !repeated) {
                    return Err(());
                }
                mint.refused = mint.unknown.is_some();
                mint.unknown = Some((why.clone(), at.clone()));
            }
            Event::MintSettled { found, reclaim } => {
                let mint = rotation.mint.take().ok_or(())?;
                let slots = rotation.snapshot.issuer.shape.has_slots();
                let settled = match (found.as_slice(), reclaim) {
                    ([], false) => None,
                    // What fills a slot, and whose secret nobody saw, is idle.
                    (filled, false) if slots && !filled.iter().any(|key| mint.before.contains(key)) => None,
                    ([key], true) if !slots && !mint.before.contains(key) => Some(key),
                    _ => return Err(()),
                };
                if rotation.phase != Phase::Minting || mint.unknown.is_none() {
                    return Err(());
                }
                rotation.phase = Phase::Opened;
                if slots && !found.is_empty() {
                    self.explain_slots(&mint.may_arrive_until(&rotation.snapshot.issuer), at);
                }
                if let Some(key) = settled {
                    let place = rotation.snapshot.clone();
                    self.strangers.remove(key);
                    self.leave_from(key, Why::Reclaimed, at, Duration::ZERO, Duration::ZERO, Some(place));
                }
            }
            Event::ProbePassed { key } => {
                if rotation.phase != Phase::Minted || rotation.installing.as_ref() != Some(key) {
                    return Err(());
                }
                rotation.streak += 1;
                rotation.last_probe = Some(at.clone());
                if rotation.streak >= rotation.snapshot.terms.probes.max(1) {
                    rotation.phase = Phase::Ready;
                }
            }
            Event::ProbeFailed { key, .. } => {
                if rotation.installing.as_ref() != Some(key)
                    || !matches!(rotation.phase, Phase::Minted | Phase::Ready | Phase::Deploying)
                {
                    return Err(());
                }
                rotation.streak = 0;
                rotation.last_probe = Some(at.clone());
                // A key no target has been handed may start its row of successes again.
                if rotation.phase == Phase::Ready && rotation.minted.is_some() && rotation.course == Course::Forward {
                    rotation.phase = Phase::Minted;
                }
            }
            Event::PushBegun { target, key, jobs, derived, until } => {
                if rotation.installing.as_ref() != Some(key)
                    || !matches!(rotation.phase, Phase::Ready | Phase::Deploying)
                    || rotation.enable_first.is_some()
                {
                    return Err(());
                }
                let other_job = rotation.target(target).ok_or(()).map(|found| rotation.other_job_left(found, at))?;
                let progress = progress(&mut rotation, target)?;
                if progress.push != Push::Pending || !other_job.is_zero() {
                    return Err(());
                }
                progress.push = Push::Begun { at: at.clone(), jobs: jobs.clone() };
                if let Some(ends) = self.derived.get_mut(target) {
                    match derived.as_ref().or(self.tails.get(key)) {
                        Some(end) => drop(ends.insert(key.clone(), end.clone())),
                        None => drop(ends.remove(key)),
                    }
                }
                if let Some(until) = until {
                    // It may hold what it was handed before, should this push come to nothing.
                    let ends = self.derived_until.entry(target.clone()).or_default();
                    ends.entry(key.clone()).and_modify(|known| *known = (*known).min(*until)).or_insert(*until);
                }
                progress.attempts += 1;
                rotation.phase = Phase::Deploying;
                self.may_hold.entry(target.clone()).or_default().insert(key.clone());
            }
            Event::Submitted { target, job } => {
                let progress = progress(&mut rotation, target)?;
                let (begun, guessed) = match progress.push.clone() {
                    Push::Begun { at: begun, .. } => (begun, false),
                    Push::Unknown { at: begun, .. } => (begun, true),
                    _ => return Err(()),
                };
                progress.touched = true;
                match job {
                    Some(job) => progress.push = Push::Submitted { at: begun, job: job.clone(), guessed },
                    None => {
                        progress.push = Push::Ended { begun, at: at.clone(), how: JobEnd::Succeeded };
                        rotation.confirmed = Some(at.clone());
                    }
                }
            }
            Event::PushFailed { target, refused, why } => {
                let key = rotation.installing.clone().ok_or(())?;
                let progress = progress(&mut rotation, target)?;
                if !matches!(progress.push, Push::Begun { .. }) {
                    return Err(());
                }
                progress.push = if *refused { Push::Refused } else { Push::Pending };
                progress.attempts = progress.attempts.saturating_sub(1);
                progress.trouble = Some(why.clone());
                if !progress.touched {
                    self.let_go(target, &key);
                }
            }
            Event::PushUnknown { target, why } => {
                let progress = progress(&mut rotation, target)?;
                let Push::Begun { at: begun, jobs } = progress.push.clone() else { return Err(()) };
                progress.touched = true;
                progress.trouble = Some(why.clone());
                progress.push = Push::Unknown { at: begun, jobs };
            }
            Event::Confirmed { target } => {
                let ended = end(progress(&mut rotation, target)?, JobEnd::Succeeded, at)?;
                rotation.confirmed = Some(ended.clone());
            }
            Event::JobFailed { target, why } => {
                let progress = progress(&mut rotation, target)?;
                progress.trouble = Some(why.clone());
                end(progress, JobEnd::Failed, at)?;
            }
            Event::JobLost { target, why } => {
                let progress = progress(&mut rotation, target)?;
                progress.trouble = Some(why.clone());
                end(progress, JobEnd::Lost, at)?;
            }
            Event::NotMoved { target, shows } => {
                let key = rotation.installing.clone().ok_or(())?;
                let timeout = rotation
                    .snapshot
                    .targets
                    .iter()
                    .find(|found| found.spec.name == *target)
                    .ok_or(())?
                    .spec
                    .job_timeout;
                let progress = progress(&mut rotation, target)?;
                let Push::Ended { begun, how, .. } = progress.push.clone() else { return Err(()) };
                progress.push = Push::Pending;
                // A key leaves the may-hold set only when its job is known to be over and another key is shown.
                let settled = |begun: &Instant| at.since(begun) >= timeout;
                let earlier_over = progress.lost.as_ref().is_none_or(settled);
                let this_over = matches!(how, JobEnd::Succeeded | JobEnd::Failed) || settled(&begun);
                if !this_over {
                    progress.lost = Some(begun);
                }
                let over = this_over && earlier_over;
                if over && shows.as_ref() != Some(&key) && shows.is_some() {
                    progress.touched = false;
                    self.let_go(target, &key);
                }
            }
            Event::Verified { target, proven } => {
                let key = rotation.installing.clone().ok_or(())?;
                let progress = progress(&mut rotation, target)?;
                match progress.push {
                    Push::Ended { how: JobEnd::Succeeded, .. } => {}
                    Push::Ended { how: JobEnd::Guessed, .. } if *proven => {}
                    _ => return Err(()),
                }
                progress.push = Push::Verified { proven: *proven };
                // What is no key is told by its type, and nothing that shows a key holds it.
                self.forget_keyless(target, &key);
                if *proven {
                    self.may_hold.insert(target.clone(), BTreeSet::from([key]));
                }
                if rotation.targets.iter().all(|target| matches!(target.push, Push::Verified { .. })) {
                    self.deployed(&mut rotation, at);
                }
            }
            Event::UndoBegun { reason, why } => {
                let key = rotation.installing.clone().ok_or(())?;
                let held =
                    |target: &TargetProgress| self.may_hold.get(&target.name).is_some_and(|held| held.contains(&key));
                if rotation.targets.iter().any(held) || rotation.course != Course::Forward || !rotation.kind.replaces()
                {
                    return Err(());
                }
                rotation.course = Course::Undoing { reason: *reason, why: why.clone() };
                let place = rotation.snapshot.clone();
                self.leave_from(&key, Why::TakenBack, at, Duration::ZERO, Duration::ZERO, Some(place));
            }
            Event::RollbackBegun { by } => self.roll_back(&mut rotation, by, at)?,
            _ => return Err(()),
        }
        self.rotation = Some(rotation);
        Ok(())
    }

    pub(super) fn open(&mut self, mut rotation: Rotation, current: &KeyId, at: &Instant) {
        for target in &mut rotation.targets {
            target.other_lost = self.lost_before(&target.name, rotation.installing.as_ref(), at);
        }
        let snapshot = &rotation.snapshot;
        self.note_derived(snapshot.derived_targets());
        for found in &snapshot.targets {
            if !matches!(found.reading, Reading::Keyless(_)) {
                self.forget_keyless(&found.spec.name, current);
            }
            self.may_hold.entry(found.spec.name.clone()).or_default().insert(current.clone());
            let (Reading::Tail(shown), true) = (&found.reading, rotation.kind.replaces()) else { continue };
            // What a push is ordered to replace tells nothing of the key that is pushed.
            let ends = self.derived.get(&found.spec.name).unwrap_or(&self.tails);
            if !ends.values().any(|known| known == shown) {
                self.learn_end(&found.spec.name, current, shown);
            }
        }
        if self.home.is_none() {
            self.home = Some(snapshot.issuer.clone());
        }
        if self.account.is_none() {
            self.account = Some(snapshot.account.clone());
        }
        self.drift = None;
        self.last_opened = Some(rotation.opened.wall);
        self.rotation = Some(rotation);
    }

    /// A target does not hold what is no key, unless that is the one named.
    fn forget_keyless(&mut self, target: &TargetName, but: &KeyId) {
        if let Some(held) = self.may_hold.get_mut(target) {
            held.retain(|key| key == but || !self.keyless.contains_key(key));
        }
    }

    fn deployed(&mut self, rotation: &mut Rotation, at: &Instant) {
        let Some(key) = rotation.installing.clone() else { return };
        rotation.verified = Some(at.clone());
        if rotation.course == Course::Forward {
            self.last_success = Some(at.wall);
            self.failures = 0;
            self.durations.push(at.since(&rotation.opened).as_secs_f64());
        }
        if let RotationKind::Repush(_) = rotation.kind {
            rotation.phase = Phase::Deployed;
            return;
        }
        self.previous = rotation.retiring.clone().filter(|key| !self.keyless.contains_key(key));
        self.current = Some(rotation.as_current(key, at));
        let Some(retiring) = rotation.retiring.clone() else {
            rotation.phase = Phase::Deployed;
            return;
        };
        rotation.phase = Phase::Soaking;
        let proven = rotation.targets.iter().all(|target| target.push == Push::Verified { proven: true });
        let terms = &rotation.snapshot.terms;
        let wait = match (proven, rotation.compromised()) {
            (true, true) => Duration::ZERO,
            (true, false) => terms.soak,
            (false, _) => terms.soak_unproven,
        };
        // A key in wrong hands is used by them; but where nothing else tells who holds it, its silence must.
        let asked = rotation.confirmed.as_ref().filter(|_| !(rotation.compromised() && proven));
        let silent_since = asked.map(|confirmed| confirmed.plus(rotation.longest_readback()));
        let mut place = rotation.snapshot.clone();
        if let (Some(home), Some(account), Course::Forward) = (&self.home, &self.account, &rotation.course) {
            // The old key lives where the last rotation left it, which a changed policy may have moved away from.
            place.issuer = home.clone();
            place.account = account.clone();
        }
        // A key in wrong hands that cannot be disabled is not kept alive for the time of a watch.
        let watched = place.issuer.shape.can_disable() || !rotation.compromised();
        let watch = if watched { terms.watch } else { Duration::ZERO };
        self.leave_from(&retiring, Why::Superseded, at, wait, watch, Some(place));
        if let Some(retirement) = self.leaving.get_mut(&retiring) {
            retirement.silent_since = silent_since;
            retirement.unproven = !proven;
            retirement.ours = rotation.is_ours(&retiring);
        }
        self.home = Some(rotation.snapshot.issuer.clone());
        self.account = Some(rotation.snapshot.account.clone());
    }

    fn roll_back(&mut self, rotation: &mut Rotation, by: &str, at: &Instant) -> Result<(), ()> {
        let (new, old) = (rotation.installing.clone().ok_or(())?, rotation.retiring.clone().ok_or(())?);
        let is_key = !self.keyless.contains_key(&old);
        let gone = is_key && rotation.phase >= Phase::Soaking && !self.leaving.contains_key(&old);
        let busy = rotation.any_in_flight();
        if rotation.course != Course::Forward || rotation.phase < Phase::Ready || gone || busy {
            return Err(());
        }
        if let Some(retirement) = self.leaving.remove(&old) {
            if !retirement.may_come_back(at) {
                return Err(());
            }
            let disable_sent = retirement.late_disable(at);
            // Enabled already, but a disable may have hit it since: one more is owed.
            let enabled = retirement.stage == Stage::Waiting && disable_sent.is_some();
            if retirement.stage != Stage::Waiting || retirement.disable_sent.is_some() {
                let settle = retirement.settle;
                rotation.enable_first = Some(EnableFirst { key: old.clone(), enabled, disable_sent, settle });
            }
        }
        self.halt = None;
        rotation.course = Course::RollingBack { by: by.to_owned(), since: at.clone() };
        rotation.installing = Some(old);
        rotation.retiring = Some(new);
        rotation.phase = Phase::Ready;
        rotation.verified = None;
        for target in &mut rotation.targets {
            let earlier = self.lost_before(&target.name, rotation.installing.as_ref(), at);
            let other_lost = target.last_lost().cloned().or(earlier);
            *target = TargetProgress { other_lost, ..TargetProgress::pending(target.name.clone()) };
        }
        Ok(())
    }
}

impl Rotation {
    pub(super) fn opened(
        id: &super::RotationId,
        cause: &super::Cause,
        kind: &RotationKind,
        snapshot: &Snapshot,
        at: &Instant,
        current: &Current,
    ) -> Self {
        let names: Vec<TargetName> = match kind {
            RotationKind::Repush(names) => names.clone(),
            _ => snapshot.targets.iter().map(|target| target.spec.name.clone()).collect(),
        };
        let installing = match kind {
            RotationKind::Fresh => None,
            RotationKind::Repush(_) => Some(current.key.clone()),
            RotationKind::Switch(to) => Some(to.id()),
        };
        Rotation {
            id: id.clone(),
            cause: cause.clone(),
            kind: kind.clone(),
            snapshot: snapshot.clone(),
            opened: at.clone(),
            phase: if installing.is_none() { Phase::Opened } else { Phase::Ready },
            course: Course::Forward,
            former: current.clone(),
            installing,
            retiring: kind.replaces().then(|| current.key.clone()),
            mint: None,
            mints: 0,
            minted: None,
            created: None,
            streak: 0,
            last_probe: None,
            enable_first: None,
            targets: names.into_iter().map(TargetProgress::pending).collect(),
            verified: None,
            confirmed: None,
        }
    }

    /// The key as the current one: the former keeps its birthday and its standing, a new one is ours.
    pub(super) fn as_current(&self, key: KeyId, at: &Instant) -> Current {
        if key == self.former.key {
            return self.former.clone();
        }
        Current { key, created: self.created.unwrap_or(at.wall), ours: true }
    }

    /// A key that was to be enabled is. A disable that was sent before may be carried out late, and then it is enabled again.
    pub(super) fn enabled(&mut self, key: &KeyId, at: &Instant) -> Result<(), ()> {
        let first = self.enable_first.as_mut().filter(|first| first.key == *key).ok_or(())?;
        match &first.disable_sent {
            Some(_) if !first.enabled => {
                first.enabled = true;
                return Ok(());
            }
            Some(sent) if at.since(sent) < first.settle => return Err(()),
            _ => self.enable_first = None,
        }
        if let Course::RollingBack { since, .. } = &mut self.course {
            // From now on it is expected to work.
            *since = at.clone();
        }
        Ok(())
    }

    /// How long after a job a target may go by the old key: what was asked with it just before may be seen that much later too,
    /// and says nothing against the target.
    fn longest_readback(&self) -> Duration {
        self.snapshot.targets.iter().map(|found| found.spec.readback).max().unwrap_or_default()
    }

    pub(super) fn is_ours(&self, key: &KeyId) -> bool {
        *key != self.former.key || self.former.ours
    }
}

impl TargetProgress {
    fn pending(name: TargetName) -> Self {
        Self { name, push: Push::Pending, attempts: 0, touched: false, lost: None, other_lost: None, trouble: None }
    }
}

fn progress<'a>(rotation: &'a mut Rotation, name: &TargetName) -> Result<&'a mut TargetProgress, ()> {
    rotation.targets.iter_mut().find(|target| target.name == *name).ok_or(())
}

fn end<'a>(progress: &mut TargetProgress, how: JobEnd, at: &'a Instant) -> Result<&'a Instant, ()> {
    let (begun, how) = match &progress.push {
        Push::Submitted { at: begun, guessed: true, .. } if how == JobEnd::Succeeded => {
            (begun.clone(), JobEnd::Guessed)
        }
        // It may have been somebody else's that failed, and ours still runs.
        Push::Submitted { at: begun, guessed: true, .. } => (begun.clone(), JobEnd::Lost),
        Push::Submitted { at: begun, .. } => (begun.clone(), how),
        // A push whose answer was lost ends as lost when no job can be found for it.
        Push::Unknown { at: begun, .. } if how == JobEnd::Lost => (begun.clone(), how),
        _ => return Err(()),
    };
    progress.push = Push::Ended { begun, at: at.clone(), how };
    Ok(at)
}
