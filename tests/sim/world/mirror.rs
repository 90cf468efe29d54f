//! Vaults whose keys a stand-in of the provider keeps: what came of a request there becomes true here, and the oracle is asked as
//! where the world does it itself.

use std::sync::Arc;

use rekeyd::model::KeyId;

use super::{Actor, At, Deed, World};
use crate::faults::Op;
use crate::stand_in::{Kept, Living};

impl World {
    /// Who keeps this vault's keys, where the world does not.
    pub fn kept(&self, object: &str) -> Option<Arc<Kept>> {
        self.vaults.get(object)?.kept.clone()
    }

    /// What a request that was `sent` then made of the keys at the stand-in.
    pub fn mirror(&mut self, deed: &Deed, by: Actor, sent: At) {
        let (object, op, intent) = match deed {
            Deed::Mint { object, intent, .. } => (object, Op::Mint, Some(intent)),
            Deed::Disable { object, .. } => (object, Op::Disable, None),
            Deed::Enable { object, .. } => (object, Op::Enable, None),
            Deed::Delete { object, .. } => (object, Op::Delete, None),
            Deed::Push { .. } => return,
        };
        let Some(kept) = self.kept(object) else { return };
        let there = kept.provider.keys();
        let lives = |key: &KeyId| there.iter().any(|living| living.id == *key);
        let here = self.vaults[object].keys.iter().filter(|key| key.died.is_none());
        let gone: Vec<KeyId> = here.map(|key| key.id.clone()).filter(|key| !lives(key)).collect();
        for key in gone {
            self.check_kill(object, &key, op, by, sent);
            self.bury(object, &key, by);
        }
        for Living { id, secret, active } in there {
            match self.key(object, &id).map(|key| key.active) {
                None => {
                    let intent = intent.filter(|_| by != Actor::Human).cloned();
                    self.make_with(object, id, secret, by, intent, op == Op::Delete);
                }
                Some(was) if was == active => {}
                Some(_) => {
                    if !active {
                        self.check_kill(object, &id, op, by, sent);
                    }
                    self.switch(object, &id, active, by);
                }
            }
        }
    }
}
