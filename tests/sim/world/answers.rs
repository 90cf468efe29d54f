//! What the world answers whoever asks: as late, and as little, as the vendors do.

use rekeyd::model::{
    Fault, Health, Holder, Inspection, JobId, JobState, KeyId, Keyless, LastUse, ListedKey, Listing, Material, Probe,
    Reading, Secret, Shape, Tail,
};

use super::{At, Key, World, epoch, signed};

impl World {
    pub fn list(&self, object: &str) -> Result<Listing, Fault> {
        let (vault, now) = (&self.vaults[object], self.now());
        let seen = |at: At| at + vault.lag <= now;
        let shown =
            vault.keys.iter().filter(|key| (seen(key.made) || key.made.is_zero()) && !key.died.is_some_and(seen));
        let told = |key: &Key| match vault.shape {
            Shape::Labelled | Shape::ClientNamed => key.intent.clone(),
            Shape::ShownOnce | Shape::Slots | Shape::Derived => None,
        };
        let keys = shown.map(|key| ListedKey {
            id: key.id.clone(),
            active: key.active,
            created: Some(key.born()),
            intent: told(key),
            tail: vault.shape.has_slots().then(|| Tail::new(&key.secret[key.secret.len() - 4..])),
            root_tail: None,
            expires: None,
        });
        Ok(Listing { keys: keys.collect(), quota: vault.quota, date: Some(self.date()) })
    }

    /// `is_signed`: what is signed with the key is tried, and not the key.
    pub fn probe(&mut self, object: &str, material: &Material, is_signed: bool) -> Result<Probe, Fault> {
        self.use_key(material.key());
        let now = self.now();
        let vault = &self.vaults[object];
        let Some(key) = vault.keys.iter().find(|key| key.id == *material.key()) else {
            return Ok(Probe::NotYet("unknown key".into()));
        };
        if !key.works() || (!key.made.is_zero() && key.made + vault.propagation > now) {
            return Ok(Probe::NotYet("unknown key".into()));
        }
        let right = vault.held_form(&key.secret);
        let right = if is_signed { signed(&right) } else { right };
        if right != material.secret().expose() {
            return Ok(Probe::Wrong("wrong secret".into()));
        }
        Ok(Probe::Works)
    }

    pub fn last_use(&self, object: &str, key: &KeyId) -> Result<LastUse, Fault> {
        self.must_exist(object, key)?;
        let vault = &self.vaults[object];
        let Some(lag) = vault.use_lag else { return Ok(LastUse::Untold) };
        let told_until = self.now().saturating_sub(lag);
        let held = self.places.values().filter(|place| place.holds.as_ref() == Some(key));
        let by_targets = held.map(|place| place.since).min().filter(|since| *since <= told_until).map(|_| told_until);
        let before = self.key(object, key).and_then(|key| key.used).filter(|used| *used <= told_until);
        Ok(match by_targets.max(before) {
            Some(at) => LastUse::At { at: epoch() + at, by: "s3 in us-east-1".into() },
            None => LastUse::Never,
        })
    }

    pub fn read(&self, target: &str) -> Reading {
        let place = &self.places[target];
        let Some(key) = &place.holds else { return Reading::Nothing };
        match self.find(key) {
            // Its type is shown wherever a credential is, masks or none.
            None if is_role(key) => Reading::Keyless(Keyless::IamRole.mark()),
            Some((_, key)) if place.shows => {
                let made = || if place.is_signed { signed(&key.secret) } else { key.secret.clone() };
                let held = place.forms.get(&key.id).cloned().unwrap_or_else(made);
                Reading::Tail(Tail::new(&held[held.len() - 4..]))
            }
            _ => Reading::Hidden,
        }
    }

    pub fn health(&self, target: &str) -> Health {
        let place = &self.places[target];
        let works = place.holds.as_ref().is_some_and(|key| self.works(key));
        match (place.watched, works && !place.sick) {
            (false, _) => Health::NotWatched,
            (true, true) => Health::Good,
            (true, false) => Health::Bad("it answers 503".into()),
        }
    }

    /// Whether a consumer that holds this can use it: the role of this world may read everything.
    pub fn works(&self, key: &KeyId) -> bool {
        is_role(key) || self.find(key).is_some_and(|(_, key)| key.works())
    }

    pub fn inspect(&self, target: &str) -> Inspection {
        Inspection { holder: Holder::new(target), reading: self.read(target), jobs: self.jobs(target) }
    }

    pub fn jobs(&self, target: &str) -> Vec<JobId> {
        let place = &self.places[target];
        if place.forgets || place.jobless { Vec::new() } else { place.jobs.iter().map(|job| job.id.clone()).collect() }
    }

    pub fn poll(&self, target: &str, id: &JobId) -> JobState {
        let place = &self.places[target];
        match place.jobs.iter().find(|job| job.id == *id) {
            Some(job) if !place.forgets => job.state.clone(),
            _ => JobState::Vanished(format!("{id} is not known")),
        }
    }

    /// What a target needs of a key, where somebody can bring it: a real provider's slots show theirs to whoever may ask.
    pub fn material(&self, key: &KeyId) -> Option<Material> {
        let (object, known) = self.find(key)?;
        if self.vaults[object].kept.is_some() && self.is_in_slot(key) {
            return None;
        }
        let secret = self.vaults[object].held_form(&known.secret);
        Some(Material::AccessKey { id: known.id.clone(), secret: Secret::new(secret) })
    }
}

/// Whether what stands for a key is the role that a service was switched to.
pub fn is_role(key: &KeyId) -> bool {
    *key == Keyless::IamRole.id()
}
