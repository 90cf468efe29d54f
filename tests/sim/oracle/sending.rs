//! When a changing request leaves: its intent is durable, a mint is sent once, and nothing of somebody else's is overwritten. When
//! what was pushed is stored: it works.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rekeyd::model::{KeyId, Reading, Shape, TargetName};

use super::Promise;
use crate::faults::Op;
use crate::stand_in::Kept;
use crate::world::{Actor, Deed, World, is_role};

impl World {
    /// A changing request leaves: its intent must be durable, and a mint is sent once.
    pub fn check_sent(&mut self, process: usize, deed: &Deed) {
        if let Deed::Push { target, .. } = deed {
            self.check_overwritten(process, target);
        }
        let Deed::Mint { object, intent, .. } = deed else { return };
        let durable = self
            .oracle
            .ledgers
            .iter()
            .any(|((of, _), ledger)| *of == process && ledger.intents.contains(intent.as_str()));
        self.hold(Promise::NoUntrackedKey, durable, || {
            format!("a mint of {intent} is sent, and its intent is not durable")
        });
        let sends = self.oracle.sends.entry((process, intent.to_string())).or_default();
        *sends += 1;
        let (sends, shape) = (*sends, self.vaults[object].shape);
        let once = sends == 1 || shape == Shape::ClientNamed;
        self.hold(Promise::NoUntrackedKey, once, || format!("a mint of {intent} is sent {sends} times"));
        let (now, settle) = (self.now(), self.vaults[object].settle);
        let place = (process, object.clone());
        let lost = self.oracle.unanswered.get(&place).filter(|(other, _)| *other != intent.as_str()).cloned();
        // Where a mint replaces what a slot holds, the slot says what came of the one before.
        if let Some((other, sent)) = lost.filter(|_| !shape.has_slots()) {
            let waited = now.saturating_sub(sent) + Duration::from_secs(1);
            self.hold(Promise::NoUntrackedKey, waited >= settle, || {
                format!("a mint of {intent} is sent while that of {other}, never answered, may still arrive")
            });
        }
        self.oracle.unanswered.insert(place, (intent.to_string(), now));
    }

    /// What somebody else put into a target since the rotation was opened, and rekeyd has seen there, is not overwritten.
    fn check_overwritten(&mut self, process: usize, target: &str) {
        let name = TargetName::new(target);
        let place = &self.places[target];
        let mut ledgers = self.oracle.ledgers.iter().filter(|((of, _), _)| *of == process).map(|(_, ledger)| ledger);
        let moving = ledgers.find_map(|ledger| {
            let open = ledger.open.as_ref().filter(|open| open.fresh)?;
            open.snapshot.targets.iter().any(|found| found.spec.name == name).then_some((ledger, open))
        });
        let Some((ledger, open)) = moving else { return };
        let changed = place.put_by != Actor::Rekeyd(process) && place.since > open.at;
        let seen = place.shows && self.seen_since(process, Op::Read, target, place.since);
        // An end that a key of ours has as well tells nothing.
        let end = |key: &KeyId| self.find(key).map(|(_, key)| key.secret[key.secret.len() - 4..].to_owned());
        let ends: BTreeSet<_> = [&open.former, &open.installing].into_iter().flatten().map(end).collect();
        let stranger = place.holds.clone().filter(|held| !ledger.knows(held) && !ends.contains(&end(held)));
        // Where nothing was shown when the rotation opened, what is shown now may be what was there then.
        let mut found = open.snapshot.targets.iter().filter(|found| found.spec.name == name);
        let known = found.any(|found| found.reading != Reading::Hidden);
        let overwritten = stranger.filter(|_| changed && seen && known);
        self.hold(Promise::StrangersSafe, overwritten.is_none(), || {
            format!("{target} was changed by hand to key {overwritten:?}, which was seen, and it is overwritten")
        });
    }

    /// A job has stored a key: it must work, unless somebody else killed it.
    pub fn check_store(&mut self, target: &str, key: &KeyId, by: Actor) {
        let Actor::Rekeyd(_) = by else { return };
        if is_role(key) {
            // Whether it may use the store is not of this world.
            return;
        }
        let now = self.now();
        let known = self.find(key).map(|(object, key)| {
            let vault = &self.vaults[object];
            let everywhere = key.made.is_zero() || key.made + vault.propagation <= now;
            let place = &self.places[target];
            // A consumer that has it asks the provider's own stand-in.
            let let_in = |kept: &Arc<Kept>| {
                let is_signed = place.is_signed || vault.shape == Shape::Derived;
                place.forms.get(&key.id).is_some_and(|held| kept.provider.opens(held, is_signed))
            };
            (key.works() && everywhere && vault.kept.as_ref().is_none_or(let_in), key.killed_by)
        });
        // What somebody else killed, or the twin that has a copy of the journal, this one could not know.
        let by_other = |killed_by: Option<Actor>| killed_by.is_some_and(|killer| killer != by);
        let fine = known.is_some_and(|(works, killed_by)| works || by_other(killed_by));
        self.hold(Promise::NoOutage, fine, || format!("{target} is given key {key}, which does not work"));
    }
}
