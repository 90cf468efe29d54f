//! At the end of a history: everything that was made is accounted for.

use std::collections::BTreeMap;

use rekeyd::model::{KeyId, Reason, ServiceName};
use rekeyd::rotation::ServiceState;

use super::{Ledger, Promise};
use crate::world::{Actor, World};

impl World {
    /// At the end of a history, when nothing is on its way: everything that was made is accounted for.
    pub fn check_end(&mut self, process: usize, halted: &BTreeMap<ServiceName, Reason>) {
        let keys: Vec<(String, KeyId)> = self
            .vaults
            .iter()
            // What lives at an object that no policy names any more, in a journal that was lost, is beyond anybody's sight.
            .filter(|(object, _)| !self.oracle.restored || self.is_home(process, object))
            .flat_map(|(object, vault)| {
                let made = vault.keys.iter().filter(|key| key.died.is_none() && key.made_by == Actor::Rekeyd(process));
                made.filter(|key| !key.filler).map(move |key| (object.clone(), key.id.clone()))
            })
            .collect();
        for (object, key) in keys {
            let slots = self.vaults[&object].shape.has_slots();
            let ledgers: Vec<&Ledger> =
                self.oracle.ledgers.iter().filter(|((of, _), _)| *of == process).map(|(_, ledger)| ledger).collect();
            let known = ledgers.iter().any(|ledger| {
                ledger.ours.contains(&key) || ledger.strangers.contains(&key) || ledger.disowned.contains(&key)
            });
            self.hold(Promise::NoUntrackedKey, known || slots, || {
                format!("key {key} was minted, lives, and nobody knows it")
            });
            let ledgers = self.oracle.ledgers.iter().filter(|((of, _), _)| *of == process);
            let needed = ledgers.into_iter().any(|(_, ledger)| {
                ledger.current.as_ref() == Some(&key)
                    || ledger.strangers.contains(&key)
                    || ledger.disowned.contains(&key)
            });
            let waiting = !halted.is_empty() || self.is_leaving(process, &key);
            self.hold(Promise::NothingForgotten, needed || slots || waiting, || {
                format!("key {key} of {object} is not needed, lives, and nothing is done about it")
            });
        }
    }

    /// Whether a service's last rotation was at this issuer object.
    fn is_home(&self, process: usize, object: &str) -> bool {
        let mut ledgers = self.oracle.ledgers.iter().filter(|((of, _), _)| *of == process).map(|(_, ledger)| ledger);
        ledgers.any(|ledger| ledger.last.as_ref().is_some_and(|last| last.issuer.object == object))
    }

    /// Whether the journal says that a key is on its way out.
    fn is_leaving(&self, process: usize, key: &KeyId) -> bool {
        self.shelves[process].records.values().any(|records| {
            let state = ServiceState::replay(records.iter().map(|record| (&record.event, &record.at)));
            state.is_ok_and(|state| state.leaving.contains_key(key))
        })
    }
}
