//! What each event of a rotation does to it, from Opened to Closed.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::model::{Instant, KeyId, Reading, TargetName};

use super::event::{Event, Outcome, RotationKind, Snapshot};
use super::retire::{Stage, Why};
use super::state::LostPush;
use super::{Course, Current, EnableFirst, Halt, JobEnd, Mint, Phase, Push, Rotation, ServiceState, TargetProgress};

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
            Event::PushBegun { target, key, jobs } => {
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
        for found in &snapshot.targets {
            if !matches!(found.reading, Reading::Keyless(_)) {
                self.forget_keyless(&found.spec.name, current);
            }
            self.may_hold.entry(found.spec.name.clone()).or_default().insert(current.clone());
            let (Reading::Tail(shown), true) = (&found.reading, rotation.kind.replaces()) else { continue };
            // What a push is ordered to replace tells nothing of the key that is pushed.
            if !self.tails.contains_key(current) && !self.tails.values().any(|known| known == shown) {
                self.tails.insert(current.clone(), shown.clone());
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

    /// What a rotation that is over has sent and lost is remembered: it may come after the next one's push.
    pub(super) fn remember_lost_pushes(&mut self, rotation: &Rotation, at: &Instant) {
        self.lost_pushes.retain(|push| !push.left(at).is_zero());
        let new: Vec<_> =
            rotation.lost_pushes(at).into_iter().filter(|push| !self.lost_pushes.contains(push)).collect();
        self.lost_pushes.extend(new);
    }

    /// How much longer a push of a key that an earlier rotation lost may still be carried out.
    pub(super) fn lost_push_left(&self, key: &KeyId, now: &Instant) -> Duration {
        let of_key = self.lost_pushes.iter().filter(|push| push.key == *key);
        of_key.map(|push| push.left(now)).max().unwrap_or_default()
    }

    /// When the last push of another key was begun that an earlier rotation lost at a target.
    fn lost_before(&self, target: &TargetName, installing: Option<&KeyId>, at: &Instant) -> Option<Instant> {
        let other = |push: &&LostPush| push.target == *target && Some(&push.key) != installing;
        let running = self.lost_pushes.iter().filter(other).filter(|push| !push.left(at).is_zero());
        running.map(|push| &push.begun).reduce(|last, begun| if begun.is_after(last) { begun } else { last }).cloned()
    }

    pub(super) fn close(&mut self, outcome: &Outcome, at: &Instant) -> Result<(), ()> {
        let rotation = self.rotation.take().ok_or(())?;
        self.remember_lost_pushes(&rotation, at);
        match outcome {
            Outcome::Done if rotation.phase >= Phase::Deployed => self.tally.done += 1,
            Outcome::RolledBack if rotation.phase >= Phase::Deployed => {
                self.tally.rolled_back += 1;
                self.failures += 1;
                // The restored key is as old as it was, and the next rotation would be opened at once.
                let by = if let Course::RollingBack { by, .. } = &rotation.course { by.as_str() } else { "" };
                let key = rotation.installing.as_ref().map_or("", KeyId::as_str);
                let message = format!(
                    "key {key} was put back, on the word of {by}; the newer key is gone, and no other is made until somebody \
                     has looked"
                );
                self.halt = Some(Halt { reason: super::Reason::RolledBack, message, at: at.wall });
            }
            Outcome::Failed { reason, why } if matches!(rotation.course, Course::Undoing { .. }) => {
                self.tally.failed += 1;
                self.failures += 1;
                self.halt = Some(Halt { reason: *reason, message: why.clone(), at: at.wall });
            }
            // A key that may have been made would be forgotten.
            Outcome::Abandoned { .. } if rotation.phase == Phase::Minting => return Err(()),
            Outcome::Abandoned { holds, .. } => {
                self.tally.abandoned += 1;
                self.abandon(&rotation, holds.as_ref(), at)?;
            }
            _ => return Err(()),
        }
        Ok(())
    }

    /// The operator says which key the targets hold; the other one becomes a debt.
    fn abandon(&mut self, rotation: &Rotation, holds: Option<&KeyId>, at: &Instant) -> Result<(), ()> {
        self.halt = None;
        let both = [rotation.installing.clone(), rotation.retiring.clone()];
        let holds = match holds {
            Some(key) if both.iter().flatten().any(|known| known == key) => key.clone(),
            Some(_) => return Err(()),
            // Nothing was pushed, so the targets hold what they held.
            None if !rotation.any_touched() && rotation.course == Course::Forward => rotation.former.key.clone(),
            None => return Err(()),
        };
        let mut unsure = Duration::ZERO;
        for target in &rotation.targets {
            let mut held = BTreeSet::from([holds.clone()]);
            // A job that may still run may store the other key after the operator has looked.
            let under_way = matches!(target.push, Push::Begun { .. } | Push::Unknown { .. } | Push::Submitted { .. });
            let (lost, other_lost) = (target.last_lost().is_some(), target.other_lost.is_some());
            if under_way || lost {
                held.extend(rotation.installing.clone());
            }
            if other_lost {
                held.extend(rotation.retiring.clone());
            }
            if under_way || lost || other_lost {
                let spec = rotation.snapshot.targets.iter().find(|found| found.spec.name == target.name);
                let timeout = spec.map_or(Duration::ZERO, |found| found.spec.job_timeout);
                unsure = unsure.max(timeout).max(rotation.snapshot.terms.soak_unproven);
            }
            self.may_hold.insert(target.name.clone(), held);
        }
        let lives: Vec<(KeyId, Snapshot)> =
            both.iter().flatten().map(|key| (key.clone(), self.where_it_lives(rotation, key))).collect();
        if let Some((_, home)) = lives.iter().find(|(key, _)| *key == holds) {
            self.home = Some(home.issuer.clone());
            self.account = Some(home.account.clone());
        }
        if self.leaving.remove(&holds).is_some_and(|leaving| !leaving.is_untouched(at)) {
            return Err(());
        }
        for (key, place) in lives {
            if key == holds {
                self.current = Some(rotation.as_current(key, at));
            } else if !self.leaving.contains_key(&key) && rotation.kind.replaces() {
                let watch = rotation.snapshot.terms.watch;
                self.leave_from(&key, Why::Debt, at, unsure, watch, Some(place));
                if let Some(retirement) = self.leaving.get_mut(&key) {
                    retirement.unproven = !unsure.is_zero();
                    retirement.ours = rotation.is_ours(&key);
                    retirement.silent_since = Some(at.clone());
                }
            }
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
}

impl Rotation {
    /// The key as the current one: the former keeps its birthday and its standing, a new one is ours.
    fn as_current(&self, key: KeyId, at: &Instant) -> Current {
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

    /// The pushes that were lost or are under way, and may still be carried out.
    pub(super) fn lost_pushes(&self, now: &Instant) -> Vec<LostPush> {
        let mut lost = Vec::new();
        for target in &self.targets {
            let under_way = match &target.push {
                Push::Begun { at, .. } | Push::Unknown { at, .. } | Push::Submitted { at, .. } => Some(at),
                _ => None,
            };
            let installing = under_way.or(target.last_lost());
            for (key, begun) in [(&self.installing, installing), (&self.retiring, target.other_lost.as_ref())] {
                let (Some(key), Some(begun)) = (key.clone(), begun.cloned()) else { continue };
                let takes = self.job_timeout(&target.name);
                lost.push(LostPush { target: target.name.clone(), key, begun, takes });
            }
        }
        lost.retain(|push| !push.left(now).is_zero());
        lost
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

    /// When the last push was begun whose job is not known to be over.
    fn last_lost(&self) -> Option<&Instant> {
        match &self.push {
            Push::Ended { begun, how: JobEnd::Lost | JobEnd::Guessed, .. } => Some(begun),
            _ => self.lost.as_ref(),
        }
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
