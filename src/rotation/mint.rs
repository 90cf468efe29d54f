//! Judging everything about a mint: whether there is room, what it replaces, what became of it.

use std::time::Duration;

use chrono::TimeDelta;

use crate::model::{
    AccountIdentity, Fault, Instant, IntentId, IssuerSpec, KeyId, LastUse, Listing, Reading, Reason, Shape, Tail,
    TargetName, Timestamp,
};

use super::event::Event;
use super::evidence::{clocks_differ, on_the_clock_of};
use super::finding::{Conclusion, Others, Pace};
use super::readback::ReadBack;
use super::{Mint, Retirement, Rotation, ServiceState};

/// How far a provider's idea of a creation time may lie before our own of the request.
const CREATED_SLACK: TimeDelta = TimeDelta::minutes(5);

/// How often it is looked whether a slot is free by now.
const ROOM_PAUSE: Duration = Duration::from_secs(60);

/// Where a new key would go.
pub(super) enum Room {
    /// There is room, in place of this idle key where keys live in slots.
    Free(Option<KeyId>),
    /// Not yet; it passes by itself.
    Later(String),
    /// None, and only an operator can make some.
    None(String),
}

impl ServiceState {
    pub(super) fn planned(
        &self,
        account: &AccountIdentity,
        listing: &Listing,
        readings: &[(TargetName, Reading)],
        others: &Others,
        now: &Instant,
    ) -> Conclusion {
        let rotation = self.open_rotation();
        let issuer = &rotation.snapshot.issuer;
        if let Some(changed) = self.account_changed(Some(&rotation.snapshot.account), account) {
            return Conclusion::record(vec![changed]);
        }
        if let Some(wait) = clocks_differ(listing, now) {
            return wait;
        }
        let unlisted = self.unlisted_at_home(listing, issuer);
        // Before the stranger: to a journal that is behind, the key the targets use now is one.
        if let (Some(current), Some(newer)) = (unlisted, self.newer_than_journal(listing, now)) {
            let why = format!("current key {current} is not listed by its issuer");
            return self.behind(listing, Some(issuer), &why, &newer, now);
        }
        let mut events: Vec<Event> = self.strangers_event(listing, Some(issuer), now).into_iter().collect();
        if let Some(stranger) = self.strangers_in(listing, Some(issuer), now).first() {
            let why =
                format!("the issuer lists key {stranger}, which the journal cannot explain, so nothing was minted");
            events.push(self.halted(Reason::Stranger, &why));
            return Conclusion::record(events);
        }
        // What is idle is told by what is not; a listing without the key in use tells nothing.
        if let Some(current) = unlisted.filter(|_| issuer.shape.has_slots()) {
            let why = format!("current key {current} is not listed by its issuer, so no slot is known to be idle");
            events.push(self.halted(Reason::CurrentKeyBroken, &why));
            return Conclusion::record(events);
        }
        let replaces = match self.room(listing, issuer) {
            Room::Later(wait) => return Conclusion::again(Pace::After(ROOM_PAUSE), wait),
            Room::None(why) => {
                events.push(self.halted(Reason::Quota, &why));
                return Conclusion::record(events);
            }
            Room::Free(replaces) => replaces,
        };
        // Such a mint destroys a key. A target that somebody has moved since may hold that very one.
        if let (Some(idle), Some(why)) = (&replaces, self.moved_since_opened(rotation, readings)) {
            let why = format!("{why}, which may be key {idle}, so that was not replaced and nothing was minted");
            events.push(self.halted(Reason::TargetChanged, &why));
            return Conclusion::record(events);
        }
        if let Some((idle, other)) =
            replaces.as_ref().and_then(|idle| Some((idle, self.shown_by(idle, listing, others)?)))
        {
            let why = format!(
                "{other} is no target of this service and shows the end of idle key {idle}, which the new key would replace, so \
                 nothing was minted; move it by hand, or say accept_holders in the policy where it is another key with the same \
                 end, then retry; before it can be made a target, rekeyd abandon must end this rotation"
            );
            events.push(self.halted(Reason::TargetChanged, &why));
            return Conclusion::record(events);
        }
        events.push(Event::MintBegun {
            intent: IntentId::new(format!("{}.{}", rotation.id, rotation.mints + 1)),
            before: listing.keys.iter().map(|listed| listed.id.clone()).collect(),
            replaces,
        });
        Conclusion::record(events)
    }

    /// The target that shows neither what it did when the rotation opened nor the current key, or was not read.
    fn moved_since_opened(&self, rotation: &Rotation, readings: &[(TargetName, Reading)]) -> Option<String> {
        let current = &rotation.former.key;
        rotation.snapshot.targets.iter().find_map(|found| {
            let name = &found.spec.name;
            match readings.iter().find(|(read, _)| read == name).map(|(_, reading)| reading) {
                None => Some(format!("{name} was not read, and holds a credential")),
                Some(reading) if *reading == found.reading => self.contradiction(name, reading, current),
                Some(reading) if self.read_back(name, reading, current) == ReadBack::New => None,
                Some(_) => Some(format!("{name} shows another credential than when the rotation opened")),
            }
        })
    }

    /// The current key, where the issuer that should have it does not list it.
    fn unlisted_at_home(&self, listing: &Listing, issuer: &IssuerSpec) -> Option<&KeyId> {
        let current = &self.current.as_ref().filter(|_| self.uses_no_key().is_none())?.key;
        let at_home = self.home.as_ref().is_some_and(|home| home.object == issuer.object);
        let listed = listing.keys.iter().any(|listed| listed.id == *current);
        (at_home && !listed).then_some(current)
    }

    /// Another place of the same deployments that shows the end of an idle key: whoever uses it would lose it with its slot.
    fn shown_by<'a>(&self, idle: &KeyId, listing: &Listing, others: &'a Others) -> Option<&'a str> {
        let listed = listing.keys.iter().find(|listed| listed.id == *idle)?;
        others.showing(&listed.ends().collect::<Vec<_>>()).next()
    }

    /// Where a new key would go at an issuer.
    pub(super) fn room(&self, listing: &Listing, issuer: &IssuerSpec) -> Room {
        if issuer.shape.has_slots() {
            return self.free_slot(listing, issuer);
        }
        let Some(quota) = listing.quota.filter(|quota| listing.keys.len() >= *quota) else { return Room::Free(None) };
        if let Some(leaving) = self.leaving_soon(listing) {
            return Room::Later(format!("all {quota} key slots are taken until key {} is gone", leaving.key));
        }
        let ids = ids(listing);
        Room::None(format!("all {quota} key slots at the issuer are taken ({ids}), so nothing was minted"))
    }

    /// The idle key that is replaced: the oldest. None while a deletion may still empty the slot a new key would take: the key
    /// deleted is not listed any more, so nobody can tell which slot that is.
    fn free_slot(&self, listing: &Listing, issuer: &IssuerSpec) -> Room {
        if let Some(moving) = self.slots_in_motion(issuer).next() {
            return match &moving.refused {
                Some(why) => Room::None(format!(
                    "whether the slot of key {} is free is not known, since its deletion is refused ({why}), so nothing was \
                     minted",
                    moving.key
                )),
                None => Room::Later(format!("no slot is free until key {} is gone", moving.key)),
            };
        }
        let idle = listing.keys.iter().filter(|listed| self.is_idle(&listed.id));
        // One without a date was never replaced before.
        if let Some(oldest) = idle.min_by_key(|listed| (listed.created, &listed.id)) {
            return Room::Free(Some(oldest.id.clone()));
        }
        if let Some(leaving) = self.leaving_soon(listing) {
            return Room::Later(format!("no slot is free until key {} is gone", leaving.key));
        }
        Room::None(format!("no key slot at the issuer is idle ({}), so nothing was minted", ids(listing)))
    }

    /// Whether nothing and nobody we know of needs a key that is listed in a slot.
    pub(super) fn is_idle(&self, key: &KeyId) -> bool {
        !self.explains(key) && !self.may_hold.values().any(|held| held.contains(key))
    }

    /// The keys at an issuer of slots whose deletion was sent and is not proven to be over.
    pub(super) fn slots_in_motion<'a>(&'a self, issuer: &'a IssuerSpec) -> impl Iterator<Item = &'a Retirement> {
        let here = |retirement: &&Retirement| {
            retirement.place.as_ref().is_none_or(|place| place.issuer.object == issuer.object)
        };
        self.leaving.values().filter(here).filter(|retirement| retirement.deletion_pending())
    }

    fn leaving_soon(&self, listing: &Listing) -> Option<&Retirement> {
        let leaving = listing.keys.iter().filter_map(|listed| self.leaving.get(&listed.id));
        leaving.into_iter().find(|retirement| retirement.ours && retirement.refused.is_none())
    }

    pub(super) fn minted(&self, key: KeyId, created: Option<Timestamp>, tail: Option<Tail>) -> Conclusion {
        let mint = self.open_rotation().mint.as_ref();
        let named = self.explains(&key) || self.keyless.contains_key(&key);
        let known = named || mint.is_some_and(|mint| mint.before.contains(&key));
        if known {
            let why = format!("the issuer answered the mint with key {key}, which existed before");
            // Asking again would be answered with the same key, so what came of the mint is looked for.
            let unknown = Event::MintUnknown { why: why.clone() };
            return Conclusion::record(vec![unknown, self.halted(Reason::Refused, &why)]);
        }
        Conclusion::record(vec![Event::Minted { key, created, tail }])
    }

    pub(super) fn mint_fault(&self, fault: Fault, now: &Instant) -> Conclusion {
        let why = fault.why().to_owned();
        let rotation = self.open_rotation();
        let repeatable = rotation.snapshot.issuer.shape.mint_may_be_repeated();
        let is_repeat = rotation.mint.as_ref().is_some_and(|mint| mint.unknown.is_some());
        let pace = match &fault {
            Fault::Retry { after, .. } => Pace::asked(*after),
            _ => Pace::BackOff,
        };
        match fault {
            // What became of the first request, a later one that is refused does not tell: that is looked for.
            Fault::Refused { reason, .. } if is_repeat => {
                Conclusion::record(vec![Event::MintUnknown { why: why.clone() }, self.halted(reason, &why)])
            }
            _ if is_repeat => Conclusion::again(pace, why),
            Fault::NotSent(_) => {
                Conclusion::record(vec![Event::MintFailed { why: why.clone() }]).slowly(Pace::BackOff, &why)
            }
            // The issuer says that it did not do it; the machine still looks before it sends another mint (promise 2), or asks
            // again for the same key.
            Fault::Retry { .. } | Fault::Unknown(_) => {
                let pace = if repeatable { pace } else { Pace::Now };
                Conclusion::record(vec![Event::MintUnknown { why: why.clone() }]).slowly(pace, &why)
            }
            Fault::Refused { reason, .. } => {
                let failed = Event::MintFailed { why: why.clone() };
                // The state it leaves is the one after that event. It cannot be refused: a mint was under way.
                let mut after = self.clone();
                let _ = after.apply(&failed, now);
                Conclusion::record(vec![failed, after.halted(reason, &why)])
            }
        }
    }

    pub(super) fn settled(
        &self,
        account: &AccountIdentity,
        listing: &Listing,
        uses: &[(KeyId, LastUse)],
        readings: &[(TargetName, Reading)],
        now: &Instant,
    ) -> Conclusion {
        let rotation = self.open_rotation();
        if let Some(changed) = self.account_changed(Some(&rotation.snapshot.account), account) {
            return Conclusion::record(vec![changed]);
        }
        // After a boot only wall time says that the horizon has passed, and it is believed only as far as the provider's agrees.
        if let Some(wait) = clocks_differ(listing, now) {
            return wait;
        }
        let mint = rotation.mint.as_ref().expect("a mint is settled only in the phase Minting");
        let issuer = &rotation.snapshot.issuer;
        let mut found: Vec<KeyId> = self.unexplained(listing);
        found.retain(|key| !mint.before.contains(key));
        let is_listed = |key: &KeyId| listing.keys.iter().any(|listed| listed.id == *key);
        let untouched = mint.replaces.as_ref().is_some_and(is_listed);
        if found.is_empty() || untouched {
            return Conclusion::record(vec![Event::MintSettled { found: Vec::new(), reclaim: false }]);
        }
        // A target that has moved since may hold the very key whose secret we lack: then nothing is destroyed.
        let unmoved = rotation.snapshot.targets.iter().all(|target| {
            readings.iter().any(|(name, reading)| *name == target.spec.name && *reading == target.reading)
        });
        if issuer.shape.has_slots() {
            // What came later is not of this mint: an older copy of the journal may wait for one that was answered long ago.
            let until = on_the_clock_of(now, &mint.may_arrive_until(issuer)) + CREATED_SLACK;
            let later = |key: &KeyId| listing.created_on_our_clock(key, now).is_some_and(|created| created > until);
            return match unmoved && issuer.exclusive && !found.iter().any(later) {
                true => Conclusion::record(vec![Event::MintSettled { found, reclaim: false }]),
                false => self.unsettled(mint, found.clone(), &found),
            };
        }
        let made_for_it = |key: &KeyId| {
            listing.keys.iter().any(|listed| listed.id == *key && listed.intent.as_ref() == Some(&mint.intent))
        };
        let (labelled, others): (Vec<KeyId>, Vec<KeyId>) = found.iter().cloned().partition(made_for_it);
        let told = !labelled.is_empty() || matches!(issuer.shape, Shape::Labelled | Shape::ClientNamed);
        if told {
            // The label tells: what has none, or another, is not of this mint.
            let before =
                self.strangers_in(listing, Some(issuer), now).into_iter().filter(|key| mint.before.contains(key));
            let strangers = others.into_iter().chain(before).collect();
            return match labelled.as_slice() {
                [] => self.with_strangers(strangers, Event::MintSettled { found: labelled, reclaim: false }),
                [_] if unmoved => self.with_strangers(strangers, Event::MintSettled { found: labelled, reclaim: true }),
                _ => self.unsettled(mint, self.unexplained(listing), &labelled),
            };
        }
        let only = match found.as_slice() {
            [only] if issuer.exclusive => listing.keys.iter().find(|listed| listed.id == *only),
            _ => None,
        };
        let ours = only.is_some_and(|listed| {
            let window = mint.begun.wall - CREATED_SLACK..=mint.may_arrive_until(issuer).wall;
            let made_then = listed.created.is_some_and(|created| window.contains(&created));
            let never_used = uses.iter().any(|(key, last_use)| *key == listed.id && *last_use == LastUse::Never);
            made_then && never_used && unmoved
        });
        if ours {
            return Conclusion::record(vec![Event::MintSettled { found, reclaim: true }]);
        }
        self.unsettled(mint, self.unexplained(listing), &found)
    }

    fn with_strangers(&self, strangers: Vec<KeyId>, settled: Event) -> Conclusion {
        let seen = self.strangers_differ(&strangers).then_some(Event::StrangersSeen { keys: strangers });
        Conclusion::record(seen.into_iter().chain([settled]).collect())
    }

    /// More than one explanation is left: an operator reclaims or disowns what was found.
    fn unsettled(&self, mint: &Mint, strangers: Vec<KeyId>, found: &[KeyId]) -> Conclusion {
        let ids: Vec<_> = found.iter().map(KeyId::as_str).collect();
        let why = format!(
            "the answer to a mint was lost ({}), and since then the issuer lists {}; nothing proves that rekeyd made it, so \
             nothing was minted again and nothing destroyed",
            mint.unknown.as_ref().map_or("no answer", |(why, _)| why.as_str()),
            ids.join(", ")
        );
        self.with_strangers(strangers, self.halted(Reason::MintUnsettled, &why))
    }

    /// The keys listed that the journal cannot explain, whatever that means at this issuer.
    pub(super) fn unexplained(&self, listing: &Listing) -> Vec<KeyId> {
        let ids = listing.keys.iter().map(|listed| &listed.id);
        ids.filter(|id| !self.explains(id)).cloned().collect()
    }

    /// The keys at an issuer that nobody can explain. In slots that are ours alone, such a key is idle; and one that carries
    /// the intent of the mint under way is that mint's.
    pub(super) fn strangers_in(&self, listing: &Listing, issuer: Option<&IssuerSpec>, now: &Instant) -> Vec<KeyId> {
        if let Some(issuer) = issuer.filter(|issuer| issuer.shape.has_slots() && issuer.exclusive) {
            let minting = self.rotation.as_ref().is_some_and(|rotation| rotation.mint.is_some());
            let moving = minting || self.slots_in_motion(issuer).next().is_some();
            // What we left in an idle slot is older than our last look; what is newer was put there by somebody, who may use it.
            return if moving { Vec::new() } else { self.newer_than_journal(listing, now).into_iter().collect() };
        }
        let mint = self.rotation.as_ref().and_then(|rotation| rotation.mint.as_ref());
        let being_made = |id: &KeyId| {
            let listed = listing.keys.iter().find(|listed| listed.id == *id);
            let intent = listed.and_then(|listed| listed.intent.as_ref());
            mint.is_some_and(|mint| intent == Some(&mint.intent) && !mint.before.contains(id))
        };
        let mut strangers = self.unexplained(listing);
        strangers.retain(|id| !being_made(id));
        strangers
    }

    pub(super) fn strangers_event(
        &self,
        listing: &Listing,
        issuer: Option<&IssuerSpec>,
        now: &Instant,
    ) -> Option<Event> {
        let keys = self.strangers_in(listing, issuer, now);
        self.strangers_differ(&keys).then_some(Event::StrangersSeen { keys })
    }

    fn strangers_differ(&self, keys: &[KeyId]) -> bool {
        keys.len() != self.strangers.len() || !keys.iter().all(|key| self.strangers.contains(key))
    }

    /// The issuer the current key lives at, as far as the journal knows it.
    pub(super) fn issuer_at_home(&self) -> Option<&IssuerSpec> {
        let opened = self.rotation.as_ref().map(|rotation| &rotation.snapshot.issuer);
        self.home.as_ref().or(opened).or(self.last_place.as_ref().map(|place| &place.issuer))
    }
}

fn ids(listing: &Listing) -> String {
    let ids: Vec<_> = listing.keys.iter().map(|listed| listed.id.as_str()).collect();
    ids.join(", ")
}
