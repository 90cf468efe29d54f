//! What must be true, and freshly seen, before a key is disabled or deleted (promise 4).

use std::time::Duration;

use chrono::TimeDelta;

use crate::model::{AccountIdentity, Instant, KeyId, Reason, TargetName};
use crate::model::{LastUse, Listing, Probe, Reading};

use super::conclude::{Conclusion, Pace};
use super::event::Event;
use super::readback::ReadBack;
use super::{Act, ServiceState};

/// Our clock and the provider's may differ by this much at most when something is disabled or deleted.
pub const CLOCK_DIFFERENCE_MAX: TimeDelta = TimeDelta::minutes(5);

/// Everything looked at just before an act.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// The account the provider answers for.
    pub account: AccountIdentity,
    /// The keys of the issuer object.
    pub listing: Listing,
    /// The keys where the current key lives, if that is another object (a migration).
    pub current_listing: Option<Listing>,
    /// How the current key answers; `None` where its secret is not held.
    pub probe: Option<Probe>,
    /// What each target shows.
    pub readings: Vec<(TargetName, Reading)>,
    /// When the key to be retired was last used.
    pub last_use: LastUse,
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
        if let Some(date) = seen.listing.date
            && (date - now.wall).abs() > CLOCK_DIFFERENCE_MAX
        {
            let why = format!(
                "our clock and the provider's differ by {} s, and nothing is disabled or deleted while they do; check time \
                 synchronisation",
                (date - now.wall).num_seconds()
            );
            return Conclusion::again(Pace::After(Duration::from_secs(30)), why);
        }
        if let Err((reason, why)) = self.current_stands(key, seen) {
            return match self.newer_than_journal(seen.current_listing.as_ref().unwrap_or(&seen.listing)) {
                Some(newer) => halt(
                    Reason::JournalBehind,
                    format!(
                        "{why}, and the issuer lists {newer}, made after the journal's last entry: the journal seems restored from an older copy"
                    ),
                ),
                None => halt(reason, why),
            };
        }
        if let (Some(confirmed), LastUse::At { at, by }) = (retirement.silent_since, &seen.last_use)
            && *at > confirmed
        {
            let why =
                format!("old key {key} was used at {at} ({by}), after every target was confirmed to hold the new one");
            return halt(Reason::OldKeyStillUsed, why);
        }
        let still_listed = seen.listing.keys.iter().any(|listed| listed.id == *key);
        if let (Some(former), true) = (self.former_holders(key).first(), still_listed) {
            let why = format!(
                "old key {key} may still be held by {former}, which left the policy while it held it, so nobody can see whether it \
                 was moved"
            );
            return halt(Reason::OldKeyStillUsed, why);
        }
        let mut events: Vec<Event> = self.strangers_event(&seen.listing).into_iter().collect();
        let evidence = self.in_words(key, seen);
        events.push(match (seen.listing.keys.iter().find(|listed| listed.id == *key), act) {
            // It is gone already; two listings will have to agree.
            (None, _) => Event::Deleted { key: key.clone() },
            (Some(_), Act::Disable) => Event::DisableBegun { key: key.clone(), evidence },
            (Some(_), Act::Delete) => Event::DeleteBegun { key: key.clone(), evidence },
        });
        Conclusion::record(events)
    }

    /// The key the targets need is listed, works, and no target shows the one to be retired.
    fn current_stands(&self, leaving: &KeyId, seen: &Evidence) -> Result<(), (Reason, String)> {
        let Some(current) = self.current.as_ref().map(|current| &current.key) else {
            return Err((Reason::NoCurrentKey, format!("key {leaving} was to be retired and no current key is known")));
        };
        let listing = seen.current_listing.as_ref().unwrap_or(&seen.listing);
        match listing.keys.iter().find(|listed| listed.id == *current) {
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
            if let Some(why) = self.contradiction(target, reading, current) {
                return Err((Reason::TargetChanged, why));
            }
            if self.read_back(target, reading, leaving) == ReadBack::New {
                return Err((Reason::TargetChanged, format!("{target} shows key {leaving}, which was to be retired")));
            }
        }
        Ok(())
    }

    /// Targets that may hold a key on its way out and that its rotation did not move, since the policy no longer had them.
    pub(super) fn former_holders(&self, key: &KeyId) -> Vec<TargetName> {
        let place = self.leaving.get(key).and_then(|retirement| retirement.place.as_ref());
        let moved =
            |name: &TargetName| place.is_some_and(|place| place.targets.iter().any(|found| found.spec.name == *name));
        let holders = self.may_hold.iter().filter(|(name, held)| held.contains(key) && !moved(name));
        holders.map(|(name, _)| name.clone()).collect()
    }

    fn in_words(&self, key: &KeyId, seen: &Evidence) -> String {
        let current = self.current.as_ref().map_or("none", |current| current.key.as_str());
        let probe =
            if seen.probe.is_some() { "listed and probed" } else { "listed; its secret is not held to probe it" };
        let used = match &seen.last_use {
            LastUse::Never => "never used".to_owned(),
            LastUse::At { at, by } => format!("last used {at} ({by})"),
            LastUse::Untold => "its use is not reported by this provider".to_owned(),
        };
        let names: Vec<_> = seen.readings.iter().map(|(target, _)| target.as_str()).collect();
        format!(
            "account {}; current key {current} {probe}; key {key} {used}; not shown by {}",
            seen.account,
            names.join(", ")
        )
    }
}
