//! What somebody else does: with the keys, at the targets, or to a journal. No promise is held against it.

use std::collections::BTreeMap;

use rekeyd::model::{IntentId, JobState, KeyId};

use super::{Actor, Deed, Happening, Job, World, slot_of};
use crate::journal::Shelf;
use crate::oracle::{Told, only_vouches};

impl World {
    /// Uses a key as somebody who has its secret.
    pub fn use_key(&mut self, key: &KeyId) {
        let now = self.now();
        self.touch("", key, now);
    }

    /// Somebody else deletes a key.
    pub fn bury_by_hand(&mut self, object: &str, key: &KeyId) {
        if let Some(kept) = self.kept(object) {
            kept.provider.remove(key);
            let now = self.now();
            self.mirror(&Deed::Delete { object: object.to_owned(), key: key.clone() }, Actor::Human, now);
            return;
        }
        self.bury(object, key, Actor::Human);
        if self.vaults[object].shape.has_slots() {
            let _ = self.fill(object, &slot_of(key), Actor::Human, None, true);
        }
    }

    /// Somebody else makes a key beside the others.
    pub fn make_by_hand(&mut self, object: &str) -> KeyId {
        let id = KeyId::new(format!("BYHAND{}", self.number()));
        let Some(kept) = self.kept(object) else {
            self.make(object, id.clone(), Actor::Human, None, false);
            return id;
        };
        kept.provider.make();
        let now = self.now();
        let mint = Deed::Mint { object: object.to_owned(), intent: IntentId::new("by hand"), replaces: None };
        self.mirror(&mint, Actor::Human, now);
        self.vaults[object].keys.last().map(|key| key.id.clone()).unwrap_or(id)
    }

    /// Somebody has read the secret of what fills a slot.
    pub fn unfill(&mut self, object: &str, key: &KeyId) {
        if let Some(key) = self.key_mut(object, key) {
            key.filler = false;
        }
    }

    /// Somebody else disables a key that is active, or enables one that is not.
    pub fn switch_by_hand(&mut self, object: &str, key: &KeyId) {
        let Some(active) = self.key(object, key).map(|key| !key.active) else { return };
        if let Some(kept) = self.kept(object) {
            kept.provider.switch(key, active);
        }
        self.switch(object, key, active, Actor::Human);
    }

    /// Targets hold what they held, and know the jobs they knew.
    pub fn restore_places(&mut self, earlier: &BTreeMap<String, (Option<KeyId>, Vec<Job>)>) {
        let now = self.now();
        for (name, (held, jobs)) in earlier {
            let Some(place) = self.places.get_mut(name) else { continue };
            place.jobs.clone_from(jobs);
            for job in &mut place.jobs {
                // What ran then runs no more.
                if matches!(job.state, JobState::Running(_)) {
                    job.state = JobState::Failed("the site was restored".into());
                }
            }
            if let Some(key) = held.clone().filter(|key| place.holds.as_ref() != Some(key)) {
                self.tell(|| format!("{name} holds key {key} again"));
                self.put(name, &key, Actor::Human, now);
            }
        }
    }

    /// A process finds another journal; what was read of the old one is forgotten.
    pub fn restore_shelf(&mut self, process: usize, shelf: Shelf) {
        let now = self.now();
        self.oracle.forget(process, &self.shelves[process], now);
        for (service, records) in &shelf.records {
            let times = shelf.times.get(service).cloned().unwrap_or_default();
            for (index, (record, at)) in records.iter().zip(times).enumerate() {
                let vouches = only_vouches(&records[..index], &record.event, &record.at);
                self.oracle.read(process, service, &record.event, at, Told::of(&record.at), vouches);
            }
        }
        // What the journal does not know of was done by an earlier life, and is as good as anybody else's doing.
        let last = shelf.times.values().flatten().max().copied().unwrap_or_default();
        for place in self.places.values_mut().filter(|place| place.put_by == Actor::Rekeyd(process)) {
            if place.since >= last {
                place.put_by = Actor::Human;
            }
        }
        // And so was what it is still handing over.
        for job in
            self.places.values_mut().flat_map(|place| &mut place.jobs).filter(|job| job.by == Actor::Rekeyd(process))
        {
            job.by = Actor::Human;
        }
        for happening in self.queue.values_mut() {
            if let Happening::Late { deed: Deed::Push { .. }, by, .. } = happening
                && *by == Actor::Rekeyd(process)
            {
                *by = Actor::Human;
            }
        }
        self.shelves[process] = shelf;
    }
}
