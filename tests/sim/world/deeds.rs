//! What requests do to the world, and jobs when they end. The oracle is asked at each that could break a promise.

use rekeyd::model::{Fault, IntentId, JobId, JobState, KeyId, Reason, Shape};

use super::{Actor, At, Deed, Happening, Job, Key, Outcome, World, epoch, slot_of};
use crate::faults::Op;

impl World {
    /// Does what a request asks. `sent` is when it left; `late` that nobody waits for its answer.
    pub fn execute(&mut self, deed: &Deed, by: Actor, sent: At, late: bool) -> Result<Outcome, Fault> {
        if let Some(kept) = deed.object().and_then(|object| self.kept(object)) {
            kept.carry_out(deed);
            self.mirror(deed, by, sent);
            return Ok(Outcome::Done);
        }
        match deed {
            Deed::Mint { object, intent, replaces } => self.mint(object, intent, replaces.as_ref(), by, sent, late),
            Deed::Disable { object, key } => {
                self.must_exist(object, key)?;
                if self.key(object, key).is_some_and(Key::works) {
                    self.check_kill(object, key, Op::Disable, by, sent);
                }
                self.switch(object, key, false, by);
                Ok(Outcome::Done)
            }
            Deed::Enable { object, key } => {
                self.must_exist(object, key)?;
                self.switch(object, key, true, by);
                Ok(Outcome::Done)
            }
            Deed::Delete { object, key } => {
                let slots = self.vaults[object].shape.has_slots();
                // The look whether the slot still holds the key came before; a late request hits whatever is there.
                let hit = if slots && late { self.in_slot_of(object, key) } else { Some(key.clone()) };
                let Some(hit) = hit.filter(|hit| self.key(object, hit).is_some_and(|key| key.died.is_none())) else {
                    return Ok(Outcome::Done);
                };
                self.check_kill(object, &hit, Op::Delete, by, sent);
                self.bury(object, &hit, by);
                if slots {
                    let _ = self.fill(object, &slot_of(&hit), by, None, true);
                }
                Ok(Outcome::Done)
            }
            Deed::Push { target, key } => {
                let now = self.now();
                let id = JobId::new(format!("job-{}", self.number()));
                let place = self.places.get_mut(target).expect("targets do not vanish");
                if place.jobless {
                    // For the oracle's eyes only.
                    place.jobs.push(Job { id, key: key.clone(), by, state: JobState::Succeeded });
                    self.put(target, key, by, now);
                    self.tell(|| format!("{target}: holds key {key} by {by:?} at once"));
                    self.check_store(target, key, by);
                    return Ok(Outcome::Done);
                }
                let ends = now + place.takes;
                let state = JobState::Running("in progress".into());
                place.jobs.push(Job { id: id.clone(), key: key.clone(), by, state });
                self.tell(|| format!("{target}: takes key {key} from {by:?} as {id}"));
                let number = self.number();
                self.queue.insert((ends, number), Happening::JobEnds { target: target.clone(), job: id.clone() });
                Ok(Outcome::Job(id))
            }
        }
    }

    fn mint(
        &mut self,
        object: &str,
        intent: &IntentId,
        replaces: Option<&KeyId>,
        by: Actor,
        sent: At,
        late: bool,
    ) -> Result<Outcome, Fault> {
        let refused = |why: &str| Err(Fault::Refused { reason: Reason::Refused, why: why.to_owned() });
        let vault = &self.vaults[object];
        let living = vault.keys.iter().filter(|key| key.died.is_none()).count();
        let shape = vault.shape;
        if shape == Shape::ClientNamed
            && let Some(known) = vault.keys.iter().find(|key| key.intent.as_ref() == Some(intent))
        {
            return match known.died {
                None => Ok(Outcome::Minted(known.id.clone(), epoch() + known.made)),
                Some(_) => refused("a key of that name was deleted"),
            };
        }
        if shape.has_slots() {
            let Some(replaced) = replaces else { return refused("no slot is named") };
            let slot = slot_of(replaced);
            let there = self.in_slot_of(object, replaced);
            if !late && there.as_ref() != Some(replaced) {
                return refused("the slot holds another key by now");
            }
            if let Some(there) = there {
                self.check_kill(object, &there, Op::Mint, by, sent);
                self.bury(object, &there, by);
            }
            return Ok(self.fill(object, &slot, by, Some(intent.clone()), false));
        }
        if vault.quota.is_some_and(|quota| living >= quota) {
            return Err(Fault::Refused { reason: Reason::Quota, why: "no key fits any more".into() });
        }
        let id = match shape {
            Shape::ClientNamed => KeyId::new(format!("{intent}-key")),
            _ => KeyId::new(format!("KEY{}", self.number())),
        };
        Ok(self.make(object, id, by, Some(intent.clone()), false))
    }

    pub(super) fn fill(
        &mut self,
        object: &str,
        slot: &str,
        by: Actor,
        intent: Option<IntentId>,
        filler: bool,
    ) -> Outcome {
        let id = KeyId::new(format!("{slot}@{}", self.number()));
        self.make(object, id, by, intent, filler)
    }

    /// Makes a key, whoever wants it.
    pub fn make(&mut self, object: &str, id: KeyId, by: Actor, intent: Option<IntentId>, filler: bool) -> Outcome {
        let number = self.number();
        let secret = format!("{:036}{:04}", number * 7919, number % self.ends);
        self.make_with(object, id, secret, by, intent, filler)
    }

    /// The same, with this secret.
    pub fn make_with(
        &mut self,
        object: &str,
        id: KeyId,
        secret: String,
        by: Actor,
        intent: Option<IntentId>,
        filler: bool,
    ) -> Outcome {
        let now = self.now();
        self.tell(|| format!("{object}: key {id} is made by {by:?}"));
        let key = Key {
            id: id.clone(),
            secret,
            made: now,
            made_by: by,
            intent,
            active: true,
            died: None,
            killed_by: None,
            disabled: None,
            enabled_by_hand: None,
            used: None,
            filler,
            told: by == Actor::Human,
        };
        self.vaults.get_mut(object).expect("issuers do not vanish").keys.push(key);
        Outcome::Minted(id, epoch() + now)
    }

    /// A key is disabled, or enabled again.
    pub(super) fn switch(&mut self, object: &str, key: &KeyId, active: bool, by: Actor) {
        let now = self.now();
        self.tell(|| format!("{object}: key {key} is {} by {by:?}", if active { "enabled" } else { "disabled" }));
        let Some(key) = self.key_mut(object, key) else { return };
        (key.active, key.killed_by) = (active, (!active).then_some(by));
        match active {
            true if by == Actor::Human => key.enabled_by_hand = Some(now),
            true => {}
            false => key.disabled = Some(now),
        }
    }

    pub(super) fn bury(&mut self, object: &str, key: &KeyId, by: Actor) {
        let now = self.now();
        self.tell(|| format!("{object}: key {key} is deleted by {by:?}"));
        if let Some(key) = self.key_mut(object, key) {
            (key.died, key.killed_by) = (Some(now), Some(by));
        }
    }

    pub(super) fn job_ends(&mut self, target: &str, id: &JobId) {
        let now = self.now();
        let place = self.places.get_mut(target).expect("targets do not vanish");
        let running = |job: &&mut Job| job.id == *id && matches!(job.state, JobState::Running(_));
        let Some(job) = place.jobs.iter_mut().find(running) else { return };
        if place.failing > 0 {
            place.failing -= 1;
            job.state = JobState::Failed("the store did not answer".into());
            self.tell(|| format!("{target}: {id} fails"));
            return;
        }
        job.state = JobState::Succeeded;
        if place.hollow > 0 {
            place.hollow -= 1;
            self.tell(|| format!("{target}: {id} says that it is done, and stored nothing"));
            return;
        }
        let (key, by) = (job.key.clone(), job.by);
        self.put(target, &key, by, now);
        self.tell(|| format!("{target}: {id} is done, it holds key {key}"));
        self.check_store(target, &key, by);
    }

    /// A target holds a key from now on.
    pub fn put(&mut self, target: &str, key: &KeyId, by: Actor, now: At) {
        let place = self.places.get_mut(target).expect("targets do not vanish");
        let (object, former) = (place.object.clone(), place.holds.replace(key.clone()));
        let same = former.as_ref() == Some(key);
        if !same {
            (place.since, place.put_by) = (now, by);
        }
        if let Some(former) = former.filter(|_| !same) {
            self.touch(&object, &former, now);
        }
    }

    pub(super) fn touch(&mut self, _object: &str, key: &KeyId, now: At) {
        for vault in self.vaults.values_mut() {
            for known in vault.keys.iter_mut().filter(|known| known.id == *key) {
                known.used = Some(now);
            }
        }
    }
}
