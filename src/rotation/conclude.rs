//! What an effect found, turned into events: the judgement of the machine.
//!
//! Pure. Every rule of DESIGN 3 that looks at the world and decides stands in this file, in `mint.rs`, `push.rs` or
//! `evidence.rs`.

use std::time::Duration;

use chrono::TimeDelta;

use crate::model::{
    AccountIdentity, Fault, Instant, IssuerSpec, KeyId, LastUse, ListedKey, Listing, Probe, Reading, Reason, Tail,
    TargetName,
};

use super::event::{AdoptedBy, Cause, Event, RotationKind, Snapshot};
use super::evidence::on_the_clock_of;
use super::finding::{Circumstances, Conclusion, Finding, Found, Others, Pace};
use super::mint::Room;
use super::push::SeenBefore;
use super::readback::ReadBack;
use super::{Effect, Rotation, ServiceState};

/// How far apart a provider's and our own idea may be of when a slot was filled, where both clocks were compared.
const PUT_THERE_SLACK: TimeDelta = TimeDelta::minutes(1);

/// A key that is to be taken on by itself must have been used this lately.
const USED_LATELY: TimeDelta = TimeDelta::days(7);

impl ServiceState {
    /// Judges what `effect` came to. Never changes anything.
    pub fn conclude(&self, effect: &Effect, found: Found, now: &Instant, around: &Circumstances) -> Conclusion {
        match found {
            Ok(finding) => self.conclude_finding(effect, finding, now, around),
            Err(fault) => self.conclude_fault(effect, fault, now),
        }
    }

    fn conclude_finding(&self, effect: &Effect, finding: Finding, now: &Instant, around: &Circumstances) -> Conclusion {
        match (effect, finding) {
            (Effect::Survey, Finding::Survey { snapshot, listing }) => {
                let knowing = self.knowing_derived(snapshot.derived_targets());
                knowing.surveyed(snapshot, &listing, around, now)
            }
            (Effect::FirstContact, Finding::FirstContact { issuer, account, listing, uses, readings }) => {
                self.first_contact(issuer, account, &listing, &uses, readings, now)
            }
            (Effect::Observe, Finding::Observed { listing, readings, others, probe, unkept }) => {
                let (listing, readings, others) = (&listing, &readings[..], &others);
                let seen = Observed { listing, readings, others, probe: probe.as_ref(), unkept: unkept.as_deref() };
                self.knowing_derived(around.derived.iter()).observed(&seen, around, now)
            }
            (Effect::PlanMint, Finding::Listing { account, listing }) => {
                self.planned(&account, &listing, &[], &Others::default(), now)
            }
            (Effect::PlanMint, Finding::Slots { account, listing, readings, others }) => {
                self.planned(&account, &listing, &readings, &others, now)
            }
            (Effect::Mint(_), Finding::Minted { key, created, tail }) => self.minted(key, created, tail),
            (Effect::SettleMint, Finding::Settled { account, listing, uses, readings }) => {
                self.settled(&account, &listing, &uses, &readings, now)
            }
            (Effect::Probe(key), Finding::Probe(probe)) => self.probed(key, probe, now),
            (Effect::BeforePush(target), Finding::BeforePush { probe, reading, jobs, listing, derived, until }) => {
                self.before_push(target, SeenBefore { probe, reading, jobs, listing, derived, until }, now)
            }
            (Effect::Push(target), Finding::Receipt(receipt)) => {
                Conclusion::record(vec![Event::Submitted { target: target.clone(), job: receipt.job }])
            }
            (Effect::SettlePush(target), Finding::Jobs(jobs)) => self.push_settled(target, jobs),
            (Effect::Poll(target, _), Finding::Job(job)) => self.polled(target, job, now, around.tries),
            (Effect::ReadBack(target), Finding::Reading(reading)) => self.read_after_job(target, &reading, now),
            (Effect::Evidence(key, act), Finding::Evidence(evidence)) => self.weigh(key, *act, &evidence, now),
            (Effect::Disable(key), Finding::Done) => Conclusion::record(vec![Event::Disabled { key: key.clone() }]),
            (Effect::Enable(key), Finding::Done) => Conclusion::record(vec![Event::Enabled { key: key.clone() }]),
            (Effect::Delete(key), Finding::Done) => Conclusion::record(vec![Event::Deleted { key: key.clone() }]),
            (Effect::Absence(key), Finding::Listing { account, listing }) => self.absence(key, &account, &listing, now),
            (Effect::Health, Finding::Health { targets, old_is_held }) => {
                self.health_seen(&targets, old_is_held, now, around.tries)
            }
            (effect, finding) => {
                unreachable!("the engine answers each effect with its own finding, not {effect:?} with {finding:?}")
            }
        }
    }

    fn conclude_fault(&self, effect: &Effect, fault: Fault, now: &Instant) -> Conclusion {
        let why = fault.why().to_owned();
        match (effect, fault) {
            (Effect::Mint(_), fault) => self.mint_fault(fault, now),
            (Effect::Push(target), Fault::NotSent(_)) => self.push_failed(target, &why, Pace::BackOff),
            (Effect::Push(target), Fault::Retry { after, .. }) => self.push_failed(target, &why, Pace::asked(after)),
            (Effect::Push(target), Fault::Unknown(_)) => {
                Conclusion::record(vec![Event::PushUnknown { target: target.clone(), why: why.clone() }])
                    .slowly(Pace::BackOff, &why)
            }
            // Only a refusal of the key itself takes the key back; what an operator can put right halts with everything in place.
            (Effect::Push(target), Fault::Refused { reason: Reason::Refused | Reason::PushRefused, .. }) => {
                Conclusion::record(vec![Event::PushFailed { target: target.clone(), refused: true, why }])
            }
            (Effect::Push(target), Fault::Refused { reason, .. }) => Conclusion::record(vec![
                Event::PushFailed { target: target.clone(), refused: false, why: why.clone() },
                self.halted(reason, &why),
            ]),
            (Effect::Disable(key), Fault::Refused { reason: Reason::NotFound, .. }) => {
                Conclusion::record(vec![Event::Deleted { key: key.clone() }])
            }
            (Effect::Disable(key) | Effect::Delete(key), Fault::Refused { .. }) => self.owe(key, &why),
            // Nothing can bring a key back that was deleted: what is left is another key, by an operator's word.
            (Effect::Enable(key), Fault::Refused { reason: Reason::NotFound, .. }) => match self.leaving.get(key) {
                Some(_) => Conclusion::record(vec![
                    Event::Deleted { key: key.clone() },
                    self.halted(Reason::Unhealthy, &format!("key {key} was to be enabled again and is gone: {why}")),
                ]),
                None => Conclusion::record(vec![
                    self.halted(Reason::CurrentKeyBroken, &format!("key {key} was to be put back and is gone: {why}")),
                ]),
            },
            // It is owed to a consumer and goes on being tried under the halt, but not at the network's speed.
            (Effect::Enable(_), Fault::Refused { reason, .. }) => {
                let said = self.halt.as_ref().is_some_and(|halt| halt.reason == reason);
                let events = if said { Vec::new() } else { vec![self.halted(reason, &why)] };
                Conclusion::record(events).slowly(Pace::After(Duration::from_secs(300)), &why)
            }
            (Effect::Observe, Fault::Refused { reason, .. }) if reason != Reason::LoginRefused => {
                self.drifted(Some(format!("cannot be observed: {why}")), Vec::new())
            }
            (Effect::Observe, Fault::NotSent(_) | Fault::Retry { .. } | Fault::Unknown(_)) => {
                Conclusion::again(Pace::BackOff, why)
            }
            (_, Fault::Refused { reason, .. }) => Conclusion::record(vec![self.halted(reason, &why)]),
            (_, Fault::Retry { after, .. }) => Conclusion::again(Pace::asked(after), why),
            // What may pass by itself is tried again. A job that cannot be asked about is waited for: it may still run.
            (_, Fault::NotSent(_) | Fault::Unknown(_)) => Conclusion::again(Pace::BackOff, why),
        }
    }

    fn surveyed(
        &self,
        snapshot: Box<Snapshot>,
        listing: &Listing,
        around: &Circumstances,
        now: &Instant,
    ) -> Conclusion {
        if self.current.is_none() {
            return Conclusion::record(vec![self.halted(Reason::NoCurrentKey, "no current key is known")]);
        }
        let moves = self.home.as_ref().is_some_and(|home| home.object != snapshot.issuer.object);
        if let Some(account) = &self.account
            && *account != snapshot.account
            && !moves
        {
            let why =
                format!("{} answers as account {}, and not as {account}", snapshot.issuer.object, snapshot.account);
            return Conclusion::record(vec![self.halted(Reason::AccountChanged, &why)]);
        }
        let issuer = &snapshot.issuer;
        if moves && issuer.shape.has_slots() {
            let ids: Vec<_> = listing.keys.iter().map(|listed| listed.id.as_str()).collect();
            let why = format!(
                "{} has two slots, and nobody has said which of {} is free to be replaced; put one of them into the targets \
                 and say so (rekeyd adopt, with its id and --idle-slot-free), or name the former issuer in the policy again",
                issuer.object,
                ids.join(" and ")
            );
            return Conclusion::record(vec![self.halted(Reason::PolicyMismatch, &why)]);
        }
        let readings: Vec<_> =
            snapshot.targets.iter().map(|found| (found.spec.name.clone(), found.reading.clone())).collect();
        // On a migration the current key lives elsewhere, and everything at the new issuer is looked at before the mint.
        let expected = match moves {
            true => self.targets_as_expected(&readings, around),
            false => self.as_expected(listing, issuer, &readings, around, now),
        };
        if let Err((reason, why)) = expected {
            // What lives where the service is to move says nothing of the strangers where it is at home.
            let strangers = if moves { None } else { self.strangers_event(listing, Some(issuer), now) };
            return Conclusion::record(strangers.into_iter().chain([self.halted(reason, &why)]).collect());
        }
        if let RotationKind::Fresh = around.kind {
            match self.room(listing, issuer) {
                Room::Free(_) => {}
                Room::Later(wait) => return Conclusion::again(Pace::After(Duration::from_secs(60)), wait),
                Room::None(why) => return Conclusion::record(vec![self.halted(Reason::Quota, &why)]),
            }
        }
        Conclusion::record(vec![Event::Opened {
            rotation: around.fresh_id.clone(),
            cause: around.cause.clone(),
            kind: around.kind.clone(),
            snapshot,
        }])
    }

    /// Whether issuer and targets are as the journal says; if not, the reason to halt.
    fn as_expected(
        &self,
        listing: &Listing,
        issuer: &IssuerSpec,
        readings: &[(TargetName, Reading)],
        around: &Circumstances,
        now: &Instant,
    ) -> Result<(), (Reason, String)> {
        let current = &self.current.as_ref().expect("called with a current key").key;
        let strangers = self.strangers_in(listing, Some(issuer), now);
        let listed = listing.keys.iter().find(|listed| listed.id == *current);
        let changed = self.targets_as_expected(readings, around);
        let broken = match listed {
            // It is to be replaced by what needs no key, whatever has become of it.
            _ if self.uses_no_key().is_some() || matches!(around.kind, RotationKind::Switch(_)) => None,
            None => Some(format!("current key {current} is not listed by its issuer")),
            Some(listed) if !listed.active => Some(format!("current key {current} is inactive at its issuer")),
            Some(_) => None,
        };
        if let Some(why) = broken.clone().or(changed.clone().err().map(|(_, why)| why))
            && let Some(newer) = self.newer_than_journal(listing, now)
        {
            return Err((
                Reason::JournalBehind,
                format!(
                    "{why}, and the issuer lists {newer}, made after the journal's last entry: the journal seems restored from an older copy"
                ),
            ));
        }
        if let Some(why) = broken {
            return Err((Reason::CurrentKeyBroken, why));
        }
        if let (Some(stranger), RotationKind::Fresh) = (strangers.first(), &around.kind) {
            return Err((
                Reason::Stranger,
                format!("the issuer lists key {stranger}, which the journal cannot explain"),
            ));
        }
        changed
    }

    /// Whether the targets show what the journal says they hold; what they show instead a push again is ordered to replace.
    fn targets_as_expected(
        &self,
        readings: &[(TargetName, Reading)],
        around: &Circumstances,
    ) -> Result<(), (Reason, String)> {
        let current = &self.current.as_ref().expect("called with a current key").key;
        let there = |reading: &Reading| match (&around.kind, reading) {
            // Somebody was there first.
            (RotationKind::Switch(to), Reading::Keyless(shown)) => *shown == to.mark(),
            _ => false,
        };
        let mut replaced = readings.iter().filter(|(_, reading)| around.kind.replaces() && !there(reading));
        let changed = replaced.find_map(|(target, reading)| self.contradiction(target, reading, current));
        changed.map_or(Ok(()), |why| Err((Reason::TargetChanged, why)))
    }

    /// Why a target's reading contradicts that it holds the current key.
    pub(super) fn contradiction(&self, target: &TargetName, reading: &Reading, current: &KeyId) -> Option<String> {
        match self.read_back(target, reading, current) {
            ReadBack::Old(Some(key)) => Some(format!("{target} shows key {key} instead of {current}")),
            _ if let Some(shown) = reading.tail()
                && self.end_at(target, current).is_none()
                && let Some(key) = self.shows_raw(target, shown).filter(|key| *key != current) =>
            {
                Some(format!("{target} shows key {key} instead of {current}"))
            }
            // Where nothing is known of what the target shows, this reading becomes the first thing known.
            _ if self.end_at(target, current).is_none() && matches!(reading, Reading::Tail(_) | Reading::Hidden) => {
                None
            }
            ReadBack::New | ReadBack::CannotTell => None,
            // A service that inherits has nothing of its own to show; the policy's explicit add is what changes that.
            ReadBack::Other if *reading == Reading::Nothing && !self.has_shown(target) => None,
            ReadBack::Old(None) | ReadBack::Other => Some(match reading {
                Reading::Keyless(word) => format!("{target} uses {word}, which is no key, instead of {current}"),
                _ => {
                    format!("{target} shows a credential that is not key {current} and that the journal does not know")
                }
            }),
        }
    }

    fn has_shown(&self, target: &TargetName) -> bool {
        self.may_hold.contains_key(target)
    }

    /// An unexplained key made after the last time that journal and issuer are known to have agreed; in slots that are ours alone,
    /// after whatever explains an idle one.
    pub(super) fn newer_than_journal(&self, listing: &Listing, now: &Instant) -> Option<KeyId> {
        let in_slots = self.issuer_at_home().is_some_and(|issuer| issuer.shape.has_slots() && issuer.exclusive);
        let last = match in_slots {
            true => on_the_clock_of(now, self.slots_explained.as_ref()?) + PUT_THERE_SLACK,
            false => on_the_clock_of(now, self.agreed.as_ref()?),
        };
        let strangers = self.unexplained(listing);
        let newer = |id: &&KeyId| listing.created_on_our_clock(id, now).is_some_and(|created| created > last);
        strangers.iter().find(newer).cloned()
    }

    /// The journal is older than the world: halted, with the key that shows it among the strangers, so that the operator is told its id.
    pub(super) fn behind(
        &self,
        listing: &Listing,
        issuer: Option<&IssuerSpec>,
        why: &str,
        newer: &KeyId,
        now: &Instant,
    ) -> Conclusion {
        let why = format!(
            "{why}, and the issuer lists {newer}, made after the journal's last entry: the journal seems restored from an older copy"
        );
        let events = [self.strangers_event(listing, issuer, now), Some(self.halted(Reason::JournalBehind, &why))];
        Conclusion::record(events.into_iter().flatten().collect())
    }

    fn first_contact(
        &self,
        issuer: Box<IssuerSpec>,
        account: AccountIdentity,
        listing: &Listing,
        uses: &[(KeyId, LastUse)],
        readings: Vec<(TargetName, Reading)>,
        now: &Instant,
    ) -> Conclusion {
        let halt = |why: String| Conclusion::record(vec![self.halted(Reason::NoCurrentKey, &why)]);
        if issuer.shape.has_slots() {
            let told: Vec<_> = listing.keys.iter().map(|listed| told(listed, uses)).collect();
            let told = told.join(", ");
            return halt(format!(
                "the issuer's slots hold keys {told}; only an operator can say which of them the targets use and that the other \
                 is free: adopt wants --idle-slot-free for that"
            ));
        }
        let active: Vec<_> = listing.keys.iter().filter(|listed| listed.active).collect();
        let [only] = active.as_slice() else {
            let ids: Vec<_> = listing.keys.iter().map(|listed| listed.id.as_str()).collect();
            return halt(match ids.as_slice() {
                [] => "the issuer lists no key at all, so nothing says what the targets use now".to_owned(),
                _ => {
                    let told: Vec<_> = listing.keys.iter().map(|listed| told(listed, uses)).collect();
                    format!("the issuer lists keys {}, and nothing says which of them the targets use", told.join(", "))
                }
            });
        };
        let last_use = uses.iter().find(|(key, _)| *key == only.id).map(|(_, last_use)| last_use);
        match last_use {
            Some(LastUse::At { at, .. }) if now.wall - *at <= USED_LATELY => {}
            Some(LastUse::At { at, .. }) => {
                return halt(format!(
                    "the only key {} was last used at {at}, too long ago to be taken for the one in use",
                    only.id
                ));
            }
            _ => return halt(format!("the only key {} has not been seen in use", only.id)),
        }
        if let Some((target, word)) = readings.iter().find_map(|(target, reading)| match reading {
            Reading::Keyless(word) => Some((target, word)),
            _ => None,
        }) {
            return halt(format!("{target} uses {word}, which is no key, so there is none to rotate there"));
        }
        let mut tails: Vec<&Tail> = readings.iter().filter_map(|(_, reading)| reading.tail()).collect();
        tails.dedup();
        if tails.len() > 1 {
            return halt(format!("the targets show different credentials, so they cannot all hold key {}", only.id));
        }
        Conclusion::record(vec![Event::Adopted {
            key: only.id.clone(),
            created: only.created,
            by: AdoptedBy::FirstContact,
            readings,
            account: Some(account),
            issuer: Some(issuer),
            tail: None,
            // Where targets hold what is derived, keys live in slots, and which is in use is an operator's to say.
            derived: Vec::new(),
        }])
    }

    fn observed(&self, seen: &Observed<'_>, around: &Circumstances, now: &Instant) -> Conclusion {
        let Observed { listing, readings, others, probe, unkept } = *seen;
        let Some(current) = self.current.as_ref().map(|current| &current.key) else {
            return Conclusion::record(Vec::new());
        };
        let issuer = self.issuer_at_home();
        let mut drift = Vec::new();
        match listing.keys.iter().find(|listed| listed.id == *current) {
            _ if self.uses_no_key().is_some() => {}
            None => drift.push(format!("current key {current} is not listed by its issuer")),
            Some(listed) if !listed.active => drift.push(format!("current key {current} is inactive at its issuer")),
            Some(_) => {}
        }
        let broken = !drift.is_empty() || probe.is_some_and(|probe| *probe != Probe::Works);
        let lost: Vec<String> =
            readings.iter().filter_map(|(target, reading)| self.contradiction(target, reading, current)).collect();
        let push = around.push_on_drift && !broken && !lost.is_empty() && probe.is_some();
        drift.extend(lost);
        match probe {
            None | Some(Probe::Works) => {}
            Some(Probe::NotYet(why) | Probe::Wrong(why) | Probe::NotAllowed(why)) => {
                drift.push(format!("current key {current} does not work: {why}"));
            }
        }
        if let (false, Some(newer)) = (drift.is_empty(), self.newer_than_journal(listing, now)) {
            return self.behind(listing, issuer, drift.join("; ").trim_end_matches('.'), &newer, now);
        }
        // Known before the next mint, and in time to say what it is: it will stop the retire.
        let listed = listing.keys.iter().find(|listed| listed.id == *current);
        let ends: Vec<_> =
            self.ends_of(current).into_iter().chain(listed.into_iter().flat_map(ListedKey::ends)).collect();
        drift.extend(others.showing(&ends).map(|other| {
            format!("{other} shows current key {current} too and is no target of this service; see accept_holders")
        }));
        // No stop: whoever may not look there may still rotate. But no silence either.
        drift.extend(others.unread.iter().map(|unread| {
            format!("{unread}; a copy of current key {current} there would not be seen; see accept_holders")
        }));
        drift.extend(unkept.map(|why| format!("current key {current} does not follow the policy: {why}")));
        let mut events: Vec<Event> = self.strangers_event(listing, issuer, now).into_iter().collect();
        if push && self.may_open() && self.order.is_none() {
            // Only where a target lost a key that works: a key that does not would be no help there.
            events.push(Event::Ordered { cause: Cause::Drift });
        }
        self.drifted((!drift.is_empty()).then(|| drift.join("; ")), events)
    }

    fn drifted(&self, drift: Option<String>, mut events: Vec<Event>) -> Conclusion {
        match (drift, &self.drift) {
            (Some(what), known) if known.as_ref() != Some(&what) => events.push(Event::DriftFound { what }),
            (None, Some(_)) => events.push(Event::DriftCleared),
            _ => {}
        }
        Conclusion::record(events)
    }

    fn probed(&self, key: &KeyId, probe: Probe, now: &Instant) -> Conclusion {
        let rotation = self.open_rotation();
        let (why, halts) = match probe {
            Probe::Works => return Conclusion::record(vec![Event::ProbePassed { key: key.clone() }]),
            Probe::NotAllowed(why) => (why, true),
            Probe::NotYet(why) | Probe::Wrong(why) => (why, false),
        };
        let mut events = Vec::new();
        if rotation.streak > 0 {
            events.push(Event::ProbeFailed { key: key.clone(), why: why.clone() });
        }
        if halts {
            events.push(
                self.halted(Reason::ProbeNotAllowed, &format!("new key {key} authenticates but is not allowed: {why}")),
            );
            return Conclusion::record(events);
        }
        let patience = rotation.probe_patience();
        if rotation.minted.as_ref().is_some_and(|minted| now.since(minted) > patience) {
            events.push(Event::UndoBegun {
                reason: Reason::ProbeFailed,
                why: format!("new key {key} did not work within {} s of its mint: {why}", patience.as_secs()),
            });
            return Conclusion::record(events);
        }
        let interval = rotation.snapshot.terms.probe_interval;
        Conclusion::record(events).slowly(Pace::After(interval), &format!("key {key} is not usable yet: {why}"))
    }

    /// The provider answers for another account than it did: nothing it lists says anything about ours.
    pub(super) fn account_changed(
        &self,
        expected: Option<&AccountIdentity>,
        answers: &AccountIdentity,
    ) -> Option<Event> {
        let expected = expected.filter(|expected| *expected != answers)?;
        let why = format!("the provider answers as account {answers}, and not as {expected}");
        Some(self.halted(Reason::AccountChanged, &why))
    }

    /// Why an operator's word that the targets hold `key`, or those in `derived` something derived from it, cannot be right: what
    /// they show says otherwise. With each of those stands the end of what would be derived now, where that is known; a person may have
    /// derived something else.
    pub fn adoption_contradicted(
        &self,
        key: &KeyId,
        tail: Option<&Tail>,
        readings: &[(TargetName, Reading)],
        derived: &[(TargetName, Option<Tail>)],
    ) -> Option<String> {
        readings.iter().find_map(|(target, reading)| {
            if let (Reading::Keyless(word), false) = (reading, self.keyless.contains_key(key)) {
                return Some(format!("{target} uses {word}, which is no key, and not key {key}"));
            }
            let shown = reading.tail()?;
            let (known, ends) = match derived.iter().find(|(name, _)| name == target) {
                Some((_, end)) if end.as_ref() == Some(shown) => return None,
                Some(_) => {
                    // The other key itself stands there, whatever should.
                    if let Some((other, _)) = self.tails.iter().find(|(other, tail)| *other != key && *tail == shown) {
                        return Some(format!("{target} shows key {other} itself, and nothing derived from {key}"));
                    }
                    (self.derived.get(target).and_then(|ends| ends.get(key)), self.derived.get(target))
                }
                None => (tail.or(self.tails.get(key)), Some(&self.tails)),
            };
            let other = ends.into_iter().flatten().find(|(other, tail)| *other != key && *tail == shown);
            match (known, other) {
                (Some(known), _) if known == shown => None,
                (_, Some((other, _))) => Some(format!("{target} shows key {other}, and not {key}")),
                (Some(_), None) => Some(format!("{target} shows the end of another secret than that of key {key}")),
                (None, None) => None,
            }
        })
    }

    /// Whether the open rotation takes the service from one issuer object to another.
    pub fn moves_house(&self) -> bool {
        let old = |rotation: &Rotation| {
            // What is no key lives nowhere.
            let retiring = rotation.retiring.as_ref().filter(|old| !self.keyless.contains_key(*old))?;
            let leaving = self.leaving.get(retiring);
            let place = leaving.and_then(|leaving| leaving.place.as_ref()).map(|place| place.issuer.object.clone());
            place.or(self.home.as_ref().map(|home| home.object.clone()))
        };
        self.rotation
            .as_ref()
            .is_some_and(|rotation| old(rotation).is_some_and(|old| old != rotation.snapshot.issuer.object))
    }

    pub(super) fn open_rotation(&self) -> &Rotation {
        self.rotation.as_ref().expect("this effect belongs to a rotation, and one is open")
    }

    /// A halt that says what state it leaves.
    pub(super) fn halted(&self, reason: Reason, why: &str) -> Event {
        Event::Halted { reason, message: format!("{why}; {}", self.state_left()) }
    }
}

/// What an observation saw.
struct Observed<'a> {
    listing: &'a Listing,
    readings: &'a [(TargetName, Reading)],
    others: &'a Others,
    probe: Option<&'a Probe>,
    unkept: Option<&'a str>,
}

/// A key with what helps to tell it from another: `AKIA… (inactive, last used 2026-11-22 03:00 UTC by s3 in us-east-1)`.
fn told(listed: &crate::model::ListedKey, uses: &[(KeyId, LastUse)]) -> String {
    let inactive = if listed.active { "" } else { "inactive, " };
    let used = match uses.iter().find(|(key, _)| *key == listed.id) {
        Some((_, LastUse::At { at, by })) => format!("last used {} by {by}", at.format("%Y-%m-%d %H:%M UTC")),
        Some((_, LastUse::Never)) => "never used".to_owned(),
        _ => "its use is not told".to_owned(),
    };
    format!("{} ({inactive}{used})", listed.id)
}
