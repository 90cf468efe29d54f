//! When an event becomes durable: what it says is so.

use rekeyd::model::{Instant, KeyId, ServiceName, Shape};
use rekeyd::rotation::event::{Event, Outcome};

use super::{Promise, Told, only_vouches};
use crate::world::{Actor, Key, World, is_role};

impl World {
    /// An event has become durable.
    pub fn check_event(&mut self, process: usize, service: &ServiceName, event: &Event, at: &Instant) {
        let now = self.now();
        match event {
            Event::Gone { key } => {
                let alive = self.find(key).is_some_and(|(_, key)| key.died.is_none());
                self.hold(Promise::NothingForgotten, !alive, || format!("key {key} is called gone and lives"));
                let settle = self.find(key).map(|(object, _)| self.vaults[object].settle).unwrap_or_default();
                let ledger = self.oracle.ledgers.get(&(process, service.clone()));
                let apart =
                    ledger.and_then(|ledger| ledger.absent_once.get(key)).map(|once| now - *once).unwrap_or_default();
                self.hold(Promise::NothingForgotten, apart >= settle, || {
                    format!("key {key} is called gone on listings {apart:?} apart, and not {settle:?}")
                });
            }
            Event::Closed { outcome: Outcome::Done } => {
                let open = self.oracle.ledgers.get(&(process, service.clone())).and_then(|ledger| ledger.open.clone());
                if let Some(open) = open.filter(|open| open.fresh) {
                    let old = open.former.filter(|old| Some(old) != open.installing.as_ref());
                    let alive = old.as_ref().and_then(|old| self.find(old)).is_some_and(|(_, key)| key.died.is_none());
                    self.hold(Promise::NothingForgotten, !alive, || {
                        format!("a rotation is done and key {old:?} lives")
                    });
                    for target in &open.snapshot.targets {
                        let verified = open.verified.contains_key(&target.spec.name);
                        self.hold(Promise::NoOutage, verified, || {
                            format!("a rotation is done and {} was never Verified", target.spec.name)
                        });
                    }
                }
            }
            Event::Verified { target, proven: true } => {
                let ledger = self.oracle.ledgers.get(&(process, service.clone()));
                let installing = ledger.and_then(|ledger| ledger.open.as_ref()?.installing.clone());
                let opened = ledger.and_then(|ledger| Some(ledger.open.as_ref()?.at)).unwrap_or_default();
                let shown_before = ledger.and_then(|ledger| {
                    let targets = &ledger.open.as_ref()?.snapshot.targets;
                    targets.iter().find(|found| found.spec.name == *target)?.reading.tail().cloned()
                });
                let place = &self.places[target.as_str()];
                // What somebody else put there since is not of our making; what was there all the time is.
                let excused = place.put_by != Actor::Rekeyd(process) && place.since > opened;
                let holds = place.holds == installing;
                self.hold(Promise::NoOutage, holds || excused, || {
                    format!("{target} is called proven to hold key {installing:?} and does not")
                });
                // Of a key that was minted since, only a change of what is shown proves that it arrived.
                let new = installing.as_ref().and_then(|key| self.find(key)).map(|(_, key)| key);
                let new = new.filter(|key| key.made >= opened);
                let shows = |key: &Key| shown_before.as_ref().is_some_and(|end| key.secret.ends_with(end.as_str()));
                let told = self.places[target.as_str()].shows || installing.as_ref().is_some_and(is_role);
                let told = told && !new.is_some_and(shows);
                self.hold(Promise::FreshEvidence, told, || {
                    format!("{target} is called proven to hold key {installing:?}, and what it shows cannot tell")
                });
            }
            Event::Halted { reason, message } => {
                let own = message.contains("mistake of rekeyd's own");
                self.hold(Promise::NoMistakeOfOurOwn, !own, || format!("{service} halts ({reason}): {message}"));
            }
            _ => {}
        }
        match event {
            Event::MintSettled { found, reclaim: true } => {
                let guessed: Vec<KeyId> =
                    found.iter().filter(|key| !self.is_proven_by_look(process, service, key)).cloned().collect();
                self.oracle.guessed.extend(guessed);
            }
            Event::ReclaimOrdered { key, .. } | Event::Adopted { key, .. } => _ = self.oracle.guessed.remove(key),
            _ => {}
        }
        let told = Told::of(at);
        let before = self.shelves[process].records.get(service).and_then(|records| records.split_last());
        let vouches = before.is_some_and(|(_, before)| only_vouches(before, event, at));
        self.oracle.read(process, service, event, now, told, vouches);
    }

    /// Whether a look after an unknown mint proves a key ours: where every key is rekeyd's to manage, or where the listing tells
    /// what each was made for.
    fn is_proven_by_look(&self, process: usize, service: &ServiceName, key: &KeyId) -> bool {
        let Some(ledger) = self.oracle.ledgers.get(&(process, service.clone())) else { return false };
        let Some(issuer) = ledger.open.as_ref().map(|open| &open.snapshot.issuer) else { return false };
        let intent = self.find(key).and_then(|(_, key)| key.intent.as_ref());
        let told = matches!(issuer.shape, Shape::Labelled | Shape::ClientNamed);
        issuer.exclusive || (told && intent.is_some_and(|intent| ledger.intents.contains(intent.as_str())))
    }
}
