//! What must be true, and freshly seen, before a key is disabled or deleted (promise 4).

use std::time::Duration;

use chrono::TimeDelta;

use crate::model::{
    AccountIdentity, Instant, KeyId, LastUse, ListedKey, Listing, Probe, Reason, TargetName, Timestamp,
};

use super::event::Event;
use super::finding::{Conclusion, Evidence, Pace};
use super::readback::ReadBack;
use super::{Act, Retirement, ServiceState, Stage};

/// Our clock and the provider's may differ by this much at most when something is done to a key.
pub const CLOCK_DIFFERENCE_MAX: TimeDelta = TimeDelta::minutes(5);

/// The same, as a wait.
pub(super) const CLOCK_WRONG_MAX: Duration = Duration::from_secs(300);

/// When an earlier instant was, on a wall clock that was compared with the provider's just now: ours may have been wrong then.
pub(super) fn on_the_clock_of(now: &Instant, earlier: &Instant) -> Timestamp {
    let passed = now.boot.checked_sub(earlier.boot).and_then(|passed| TimeDelta::from_std(passed).ok());
    match passed.filter(|_| now.boot_id == earlier.boot_id) {
        Some(passed) => now.wall - passed,
        None => earlier.wall,
    }
}

/// No key is minted, handed over, disabled, deleted or called gone while our clock and the provider's differ: whatever was used since
/// is told by the provider's clock, and after a boot only wall time says since when.
pub(super) fn clocks_differ(listing: &Listing, now: &Instant) -> Option<Conclusion> {
    let apart = listing.date? - now.wall;
    let why = format!(
        "our clock and the provider's differ by {} s, and no key is touched while they do; check time synchronisation",
        apart.num_seconds()
    );
    (apart.abs() > CLOCK_DIFFERENCE_MAX).then(|| Conclusion::again(Pace::After(Duration::from_secs(30)), why))
}

impl ServiceState {
    pub(super) fn weigh(&self, key: &KeyId, act: Act, seen: &Evidence, now: &Instant) -> Conclusion {
        let Some(retirement) = self.leaving.get(key) else { return Conclusion::record(Vec::new()) };
        let halt = |reason, why: String| Conclusion::record(vec![self.halted(reason, &why)]);
        if let Some(place) = &retirement.place
            && place.account != seen.account
        {
            let why =
                format!("{} answers as account {}, and not as {}", place.issuer.object, seen.account, place.account);
            return halt(Reason::AccountChanged, why);
        }
        if let Some(wait) = clocks_differ(&seen.listing, now) {
            return wait;
        }
        let left = self.lost_push_left(key, now);
        if !left.is_zero() {
            let why = format!("a push of key {key} whose answer was lost may still be carried out");
            return Conclusion::again(Pace::After(left), why);
        }
        if let Err((reason, why)) = self.current_stands(key, seen) {
            let listing = seen.current_listing.as_ref().unwrap_or(&seen.listing);
            return match self.newer_than_journal(listing, now) {
                Some(newer) => self.behind(listing, self.issuer_at_home(), &why, &newer, now),
                None => halt(reason, why),
            };
        }
        let listed = seen.listing.keys.iter().find(|listed| listed.id == *key);
        // Before its use, since it says who uses it.
        if let (Some(why), true) = (self.held_by_another(retirement, seen), listed.is_some()) {
            return halt(Reason::OldKeyStillUsed, why);
        }
        if let (true, LastUse::At { at, by }) = (retirement.unused, &seen.last_use) {
            let why = format!("key {key}, which nobody was known to have, was used at {at} ({by})");
            return halt(Reason::OldKeyStillUsed, why);
        }
        if let (Some(confirmed), LastUse::At { at, by }) = (&retirement.silent_since, &seen.last_use)
            && seen.listing.on_our_clock(*at, now) > on_the_clock_of(now, confirmed)
        {
            let why =
                format!("old key {key} was used at {at} ({by}), after every target was confirmed to hold the new one");
            return halt(Reason::OldKeyStillUsed, why);
        }
        // A key that is gone already is no longer held in any way that matters.
        if let (Some(why), true) = (self.held_elsewhere(retirement, seen), listed.is_some()) {
            return halt(Reason::OldKeyStillUsed, why);
        }
        if let (Act::Delete, Some(true), Stage::Disabled(since)) =
            (act, listed.map(|listed| listed.active), &retirement.stage)
            && now.since(since) < retirement.settle
        {
            return Conclusion::again(Pace::BackOff, format!("disabled key {key} is still listed as active"));
        }
        if let (false, Some(_), Err((reason, why))) =
            (retirement.shape.can_disable(), listed, self.proven_to_serve(retirement, seen))
        {
            return halt(reason, why);
        }
        if retirement.shape.can_disable() && act == Act::Delete && listed.is_some_and(|listed| listed.active) {
            let why = format!("old key {key} was disabled and somebody enabled it again, so somebody needs it");
            return halt(Reason::EnabledAgain, why);
        }
        let issuer = retirement.place.as_ref().map(|place| &place.issuer).or(self.issuer_at_home());
        // What lives where the key is that leaves says nothing about the strangers where the service is at home.
        let at_home = issuer.is_none_or(|issuer| self.issuer_at_home().is_none_or(|home| home.object == issuer.object));
        let strangers = if at_home { self.strangers_event(&seen.listing, issuer, now) } else { None };
        let mut events: Vec<Event> = strangers.into_iter().collect();
        if let Some(issuer) = issuer.filter(|issuer| issuer.shape.has_slots() && at_home)
            && let Some(stranger) = self.strangers_in(&seen.listing, Some(issuer), now).first()
        {
            // A slot holds what nobody here put there; whatever is retired now would let it pass for idle.
            let why = format!("the issuer lists key {stranger} in a slot, which the journal cannot explain");
            events.push(self.halted(Reason::Stranger, &why));
            return Conclusion::record(events);
        }
        let evidence = self.in_words(key, seen);
        events.push(match (listed, act) {
            // It is gone already; two listings will have to agree.
            (None, _) => Event::Deleted { key: key.clone() },
            (Some(_), Act::Disable) => Event::DisableBegun { key: key.clone(), evidence },
            (Some(_), Act::Delete) => Event::DeleteBegun { key: key.clone(), evidence },
        });
        Conclusion::record(events)
    }

    /// A target that left the policy while it may hold the key is no longer read, so only an operator can say that it moved. Of
    /// one that is read, the longer soak says it.
    fn held_elsewhere(&self, retirement: &Retirement, seen: &Evidence) -> Option<String> {
        let key = &retirement.key;
        let holding = self.may_hold.iter().filter(|(_, held)| held.contains(key)).map(|(name, _)| name);
        let name = holding.into_iter().find(|name| !retirement.unproven || !retirement.reads(name))?;
        Some(match seen.readings.iter().any(|(read, _)| read == name) {
            false => format!("{name} is no longer a target of this service and may still hold old key {key}"),
            true => format!("{name} may still hold old key {key}, and nothing that it shows tells"),
        })
    }

    /// Another place of the same deployments that shows the key: whoever uses it would lose it with ours.
    fn held_by_another(&self, retirement: &Retirement, seen: &Evidence) -> Option<String> {
        if retirement.despite_use {
            return None;
        }
        let current = self.current.as_ref().map(|current| self.ends_of(&current.key)).unwrap_or_default();
        let listed = seen.listing.keys.iter().find(|listed| listed.id == retirement.key);
        let known = self.ends_of(&retirement.key).into_iter().chain(listed.into_iter().flat_map(ListedKey::ends));
        let ends: Vec<_> = known.filter(|end| !current.contains(end)).collect();
        let other = seen.others.showing(&ends).next()?;
        Some(format!(
            "{other} is no target of this service and shows the end of old key {}; make it a target and rekeyd moves it, or move \
             it by hand, or say accept_holders in the policy where it is another key with the same end",
            retirement.key
        ))
    }

    /// What a deletion without a disable before it needs besides: it cannot be undone, so the key the targets need must be seen
    /// to work, and each of them must have been read just now.
    fn proven_to_serve(&self, retirement: &Retirement, seen: &Evidence) -> Result<(), (Reason, String)> {
        let key = &retirement.key;
        if seen.probe.is_none() && self.uses_no_key().is_none() {
            let current = self.current.as_ref().map_or("none", |current| current.key.as_str());
            let why = format!(
                "key {key} was to be deleted, which cannot be undone, and whether current key {current} works cannot be seen, \
                 since its secret is not held"
            );
            return Err((Reason::SecretNotHeld, why));
        }
        let read = |name: &TargetName| seen.readings.iter().any(|(read, _)| read == name);
        let mut targets = retirement.place.iter().flat_map(|place| &place.targets).map(|found| &found.spec.name);
        match targets.find(|name| !read(name)) {
            Some(name) => {
                Err((Reason::OldKeyStillUsed, format!("key {key} was to be deleted and {name} could not be read")))
            }
            None => Ok(()),
        }
    }

    /// Whether a target was one of this service's when a rotation was last opened.
    pub(super) fn serves(&self, target: &TargetName) -> bool {
        let place = self.rotation.as_ref().map(|rotation| &rotation.snapshot).or(self.last_place.as_ref());
        place.is_none_or(|place| place.targets.iter().any(|found| found.spec.name == *target))
    }

    /// The key the targets need is listed, works, and no target shows the one to be retired.
    fn current_stands(&self, leaving: &KeyId, seen: &Evidence) -> Result<(), (Reason, String)> {
        let Some(current) = self.current.as_ref().map(|current| &current.key) else {
            return Err((Reason::NoCurrentKey, format!("key {leaving} was to be retired and no current key is known")));
        };
        let listing = seen.current_listing.as_ref().unwrap_or(&seen.listing);
        match listing.keys.iter().find(|listed| listed.id == *current) {
            // No issuer lists what is no key; that the targets show it, and that the old key is silent, is what there is.
            _ if self.uses_no_key().is_some() => {}
            Some(listed) if listed.active => {}
            Some(_) => {
                return Err((Reason::CurrentKeyBroken, format!("current key {current} is inactive at its issuer")));
            }
            None => {
                return Err((Reason::CurrentKeyBroken, format!("current key {current} is not listed by its issuer")));
            }
        }
        if let Some(Probe::NotYet(why) | Probe::Wrong(why) | Probe::NotAllowed(why)) = &seen.probe {
            return Err((Reason::CurrentKeyBroken, format!("current key {current} does not work: {why}")));
        }
        for (target, reading) in &seen.readings {
            // What a target that left the policy holds is its own affair, as long as it is not the key to be retired.
            if let (true, Some(why)) = (self.serves(target), self.contradiction(target, reading, current)) {
                return Err((Reason::TargetChanged, why));
            }
            // The end of its secret is shown, and that of the current key is another or unknown: no proof, and reason enough.
            let shown = reading.tail();
            let is_of_leaving = shown.is_some_and(|shown| self.ends_of(leaving).contains(&shown));
            let alone = is_of_leaving && self.end_at(target, current) != shown;
            let shows_it = alone || self.read_back(target, reading, leaving) == ReadBack::New;
            // What was a target once and shows the key is what an operator's word is about; a target never is.
            let accepted = self.leaving.get(leaving).is_some_and(|retirement| retirement.despite_use);
            if shows_it && (self.serves(target) || !accepted) {
                return Err(match self.serves(target) {
                    true => (Reason::TargetChanged, format!("{target} shows key {leaving}, which was to be retired")),
                    false => (
                        Reason::OldKeyStillUsed,
                        format!("{target} is no longer a target of this service and shows key {leaving}"),
                    ),
                });
            }
        }
        Ok(())
    }

    fn in_words(&self, key: &KeyId, seen: &Evidence) -> String {
        let current = self.current.as_ref().map_or("none", |current| current.key.as_str());
        let probe = match (&seen.probe, self.uses_no_key()) {
            (_, Some(_)) => "is no key, so it is neither listed nor probed",
            (Some(_), None) => "listed and probed",
            (None, None) => "listed; its secret is not held to probe it",
        };
        let used = match &seen.last_use {
            LastUse::Never => "never used".to_owned(),
            LastUse::At { at, by } => format!("last used {at} ({by})"),
            LastUse::Untold => "its use is not reported by this provider".to_owned(),
        };
        let names: Vec<_> = seen.readings.iter().map(|(target, _)| target.as_str()).collect();
        let unread: String = seen.others.unread.iter().map(|unread| format!("; {unread}")).collect();
        format!(
            "account {}; current key {current} {probe}; key {key} {used}; not shown by {}{unread}",
            seen.account,
            names.join(", ")
        )
    }

    pub(super) fn owe(&self, key: &KeyId, why: &str) -> Conclusion {
        let known = self.leaving.get(key).and_then(|retirement| retirement.refused.as_deref()) == Some(why);
        // Each try gathers evidence and writes it down; a refusal that stands is not worth that every five minutes.
        let pause = Duration::from_secs(if known { 3600 } else { 300 });
        let events =
            if known { Vec::new() } else { vec![Event::RetireRefused { key: key.clone(), why: why.to_owned() }] };
        Conclusion::record(events).slowly(Pace::After(pause), why)
    }

    pub(super) fn absence(
        &self,
        key: &KeyId,
        account: &AccountIdentity,
        listing: &Listing,
        now: &Instant,
    ) -> Conclusion {
        let Some(retirement) = self.leaving.get(key) else { return Conclusion::record(Vec::new()) };
        let expected = retirement.place.as_ref().map(|place| &place.account).or(self.account.as_ref());
        if let Some(changed) = self.account_changed(expected, account) {
            return Conclusion::record(vec![changed]);
        }
        if let Some(wait) = clocks_differ(listing, now) {
            return wait;
        }
        // What follows says that journal and issuer agree, after which nothing older would look newer than the journal.
        let is_home = match (&retirement.place, &self.home) {
            (Some(place), Some(home)) => place.issuer.object == home.object,
            _ => true,
        };
        let listed = listing.keys.iter().any(|listed| listed.id == *key);
        let is_back = match &retirement.stage {
            // A listing lags; only after the horizon does it prove that the deletion did not take.
            Stage::Deleted(since) => listed && now.since(since) >= retirement.settle,
            _ => listed,
        };
        if let (true, Some(current), Some(newer)) = (is_home, &self.current, self.newer_than_journal(listing, now))
            && self.uses_no_key().is_none()
            && !listing.keys.iter().any(|listed| listed.id == current.key)
        {
            let why = format!("current key {} is not listed by its issuer", current.key);
            let mut behind = self.behind(listing, self.issuer_at_home(), &why, &newer, now);
            // A key that lives may be the one an operator says the targets use.
            behind.events.splice(0..0, is_back.then(|| Event::Reappeared { key: key.clone() }));
            return behind;
        }
        match (&retirement.stage, listed) {
            _ if is_back => Conclusion::record(vec![Event::Reappeared { key: key.clone() }]),
            (_, true) => Conclusion::again(Pace::BackOff, format!("deleted key {key} is still listed")),
            (Stage::Deleted(_), false) => Conclusion::record(vec![Event::AbsentOnce { key: key.clone() }]),
            (Stage::Absent(_), false) => Conclusion::record(vec![Event::Gone { key: key.clone() }]),
            (_, false) => Conclusion::record(Vec::new()),
        }
    }
}
