//! The orders that say whose a key is: adopt and reclaim. Issuer and targets are looked at before either is followed.
//!
//! They record the operator's word beside what was found, and nothing else: no key is pushed, disabled or deleted here.

use tokio::sync::oneshot;

use super::super::order::Reply;
use super::super::{Engine, Performed, Place, World};
use crate::model::{
    AccountIdentity, IssuerSpec, KeyId, LastUse, Listing, Material, Reading, Secret, ServiceName, Tail, TargetName,
    Timestamp,
};
use crate::ports::JournalError;
use crate::rotation::event::{AdoptedBy, Event};
use crate::rotation::{Effect, Finding};

/// An order whose answer needs a look at the world first.
pub(crate) enum Pending {
    /// `looked` names the issuer objects that do not list the key.
    Adopt {
        key: KeyId,
        secret: Option<Secret>,
        idle_slot_free: bool,
        by: String,
        looked: Vec<String>,
        reply: oneshot::Sender<Reply>,
    },
    Reclaim {
        key: KeyId,
        by: String,
        looked: Vec<String>,
        reply: oneshot::Sender<Reply>,
    },
}

/// What was asked about a key besides the look itself.
#[derive(Default)]
pub(crate) struct Asked {
    /// What targets need of it: with the secret that was brought, or as its issuer shows it.
    material: Option<Material>,
    /// Why the order cannot be followed.
    objection: Option<String>,
    /// The targets that hold something derived from the key, with the end of what would be derived now, where that is known.
    derived: Vec<(TargetName, Option<Tail>)>,
}

impl Pending {
    /// A secret that does not work with its key id is not sealed: it would only be found out when it is needed. Nobody is asked about
    /// a key that is not listed there: its secret may be another provider's.
    pub(crate) async fn ask(&self, world: &World, place: &Place, performed: &Performed) -> Asked {
        let Pending::Adopt { key, secret, .. } = self else { return Asked::default() };
        let Ok(Finding::FirstContact { listing, .. }) = &performed.found else { return Asked::default() };
        if listing.keys.iter().all(|listed| listed.id != *key) {
            return Asked::default();
        }
        let brought = secret.is_some();
        let material = match world.known(&place.issuer, key, secret.clone()).await {
            Ok(material) => material,
            Err(fault) if brought => {
                return Asked { objection: Some(fault.why().to_owned()), ..Asked::default() };
            }
            // Without its secret it is adopted all the same; `rollback` and `repush` then say what they lack.
            Err(_) => None,
        };
        let wrong = match &material {
            Some(material) => world.is_wrong(&place.issuer, material).await,
            None => None,
        };
        let derived = world.derived(place, material.as_ref());
        let objection = wrong.filter(|_| brought);
        let objection = objection.map(|why| format!("the secret given does not belong to key {key}: {why}"));
        Asked { material, objection, derived }
    }
}

/// Issuer and targets as an order about a key found them.
struct Seen {
    issuer: Box<IssuerSpec>,
    account: AccountIdentity,
    listing: Listing,
    uses: Vec<(KeyId, LastUse)>,
    readings: Vec<(TargetName, Reading)>,
}

impl Engine {
    /// Why an order about a stranger is refused; `ours` where it claims the key, which may have been disowned before.
    pub(super) fn stranger_refusal(&self, name: &ServiceName, key: &KeyId, ours: bool) -> Option<String> {
        let state = &self.services[name].state;
        if state.strangers.contains(key) || (ours && state.disowned.contains(key)) {
            return None;
        }
        let known: Vec<_> = state.strangers.iter().map(KeyId::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Some(format!("key {key} is no stranger of this service; strangers: {known}"))
    }

    /// Why a key is not adopted, as far as that can be told without a look.
    pub(super) fn adopt_refusal(&self, name: &ServiceName, key: &KeyId) -> Option<String> {
        let runner = &self.services[name];
        let state = &runner.state;
        if runner.policy.is_none() {
            return Some("it is no longer in the policy".into());
        }
        let rotation = state.rotation.as_ref()?;
        let of_old = state.leaving.contains_key(key) || rotation.former.key == *key;
        (!of_old && !state.adoption_ends_rotation()).then(|| "a rotation is open; rekeyd abandon ends it".into())
    }

    /// Looks at issuer and targets before an order about a key is followed.
    pub(super) fn look_first(&mut self, name: &ServiceName, pending: Pending) -> Result<(), JournalError> {
        let effect = Effect::FirstContact;
        match self.place(name, &effect) {
            Some(place) => self.spawn(name, effect, place, Some(pending)),
            None => {
                let (Pending::Adopt { reply, .. } | Pending::Reclaim { reply, .. }) = pending;
                let _ = reply.send(Reply::one(name, false, "it is no longer in the policy"));
            }
        }
        Ok(())
    }

    /// Follows an order about a key, now that the look at the world is back; looks at another issuer object first, where the key may
    /// still or already be.
    pub(in crate::engine) async fn finish_command(
        &mut self,
        name: &ServiceName,
        mut pending: Pending,
        performed: Performed,
        asked: Asked,
    ) -> Result<(), JournalError> {
        let seen = match performed.found {
            Ok(Finding::FirstContact { issuer, account, listing, uses, readings }) => {
                Ok(Seen { issuer, account, listing, uses, readings })
            }
            Ok(_) => unreachable!("a first contact finds a first contact"),
            Err(fault) => Err(fault.why().to_owned()),
        };
        // While a service moves to another issuer object, a key may be where the policy no longer, or the rotation not yet, is.
        if let (Pending::Adopt { key, looked, .. } | Pending::Reclaim { key, looked, .. }, Ok(seen)) =
            (&mut pending, &seen)
            && seen.listing.keys.iter().all(|listed| listed.id != *key)
        {
            looked.push(seen.issuer.object.clone());
            let elsewhere = self.places_of_keys(name).into_iter().find(|place| !looked.contains(&place.issuer.object));
            if let Some(place) = elsewhere {
                self.spawn(name, Effect::FirstContact, place, Some(pending));
                return Ok(());
            }
        }
        let (answer, reply) = match (pending, seen) {
            (Pending::Adopt { reply, .. } | Pending::Reclaim { reply, .. }, Err(why)) => {
                (Reply::one(name, false, why), reply)
            }
            (Pending::Adopt { key, idle_slot_free, by, reply, .. }, Ok(seen)) => {
                let by = if idle_slot_free { format!("{by}, who says that the idle slot is free") } else { by };
                (self.adopt(name, key, idle_slot_free, by, seen, asked).await?, reply)
            }
            (Pending::Reclaim { key, by, reply, .. }, Ok(seen)) => (self.reclaim(name, key, by, &seen).await?, reply),
        };
        self.publish();
        let _ = reply.send(answer);
        Ok(())
    }

    async fn adopt(
        &mut self,
        name: &ServiceName,
        key: KeyId,
        idle_slot_free: bool,
        by: String,
        seen: Seen,
        asked: Asked,
    ) -> Result<Reply, JournalError> {
        let Asked { material, objection, derived } = asked;
        let state = &self.services[name].state;
        let about_old = state.only_vouches(&key, &seen.readings, &self.clock.now());
        let Some(listed) = seen.listing.keys.iter().find(|listed| listed.id == key).cloned() else {
            let ids: Vec<_> = seen.listing.keys.iter().map(|listed| listed.id.as_str()).collect();
            let ids = if ids.is_empty() { "none".to_owned() } else { ids.join(", ") };
            return Ok(Reply::one(name, false, format!("key {key} is not at the issuer, which lists: {ids}")));
        };
        if !listed.active && !about_old {
            let why = format!("key {key} is inactive at the issuer, so no target can be using it");
            return Ok(Reply::one(name, false, why));
        }
        if let Some(why) = slot_objection(name, &key, &seen, idle_slot_free).filter(|_| !about_old) {
            return Ok(Reply::one(name, false, why));
        }
        let tail = material.as_ref().and_then(|material| material.secret().tail());
        let contradicted =
            if about_old { None } else { state.adoption_contradicted(&key, tail.as_ref(), &seen.readings, &derived) };
        if let Some(why) = objection.filter(|_| listed.active).or(contradicted) {
            return Ok(Reply::one(name, false, why));
        }
        let event = Event::Adopted {
            key: key.clone(),
            created: listed.created,
            by: AdoptedBy::Operator(by),
            readings: seen.readings,
            account: Some(seen.account),
            issuer: Some(seen.issuer),
            tail,
            derived: derived.into_iter().map(|(target, _)| target).collect(),
        };
        let secret = if material.is_some() { ", and its secret is sealed" } else { "" };
        if !self.record(name, event, material.as_ref()).await? {
            return Ok(Reply::one(name, false, "the key could not be adopted; rekeyd status says why"));
        }
        self.runner(name).pacing.hurry();
        let message = match about_old {
            true => format!("key {key} is taken for ours and may be deleted when its time comes{secret}"),
            false => format!("key {key} is the current key{}{secret}", last_use(&seen.uses, &key)),
        };
        Ok(Reply::one(name, true, message))
    }

    async fn reclaim(
        &mut self,
        name: &ServiceName,
        key: KeyId,
        by: String,
        seen: &Seen,
    ) -> Result<Reply, JournalError> {
        if seen.listing.keys.iter().all(|listed| listed.id != key) {
            let object = &seen.issuer.object;
            return Ok(Reply::one(
                name,
                false,
                format!("key {key} is not listed by {object}; if it is gone, rekeyd retry {name} goes on"),
            ));
        }
        let used = seen.uses.iter().find(|(used, _)| *used == key).map(|(_, last_use)| last_use);
        let (unused, message) = match used {
            Some(LastUse::At { at, by }) => (
                false,
                format!(
                    "key {key} was last used {} ({by}); it is retired once it has been silent from now on, and watched before \
                     it is deleted",
                    short(*at)
                ),
            ),
            Some(LastUse::Never) => (true, format!("key {key} is ours and unused; it is destroyed")),
            Some(LastUse::Untold) | None => {
                (false, format!("key {key} is ours; it is retired, and watched before it is deleted"))
            }
        };
        self.record(
            name,
            Event::ReclaimOrdered {
                key,
                unused,
                by,
                issuer: Some(seen.issuer.clone()),
                account: Some(seen.account.clone()),
            },
            None,
        )
        .await?;
        self.runner(name).pacing.hurry();
        Ok(Reply::one(name, true, message))
    }
}

/// The first rotation destroys what the idle slot holds, and only an operator can know that nobody uses it.
fn slot_objection(name: &ServiceName, key: &KeyId, seen: &Seen, idle_slot_free: bool) -> Option<String> {
    let object = &seen.issuer.object;
    match (seen.issuer.shape.has_slots(), idle_slot_free) {
        (true, false) => {
            let idle = seen.listing.keys.iter().map(|listed| &listed.id).filter(|id| *id != key);
            let idle: Vec<_> = idle.map(KeyId::as_str).collect();
            Some(format!(
                "the first rotation puts its new key in place of {} of {object}, and whoever uses that loses it at once; see that \
                 nobody does, then: rekeyd adopt {name} {key} --idle-slot-free",
                idle.join(", ")
            ))
        }
        (false, true) => Some(format!("--idle-slot-free is for issuers with two slots, and {object} has none")),
        _ => None,
    }
}

fn last_use(uses: &[(KeyId, LastUse)], key: &KeyId) -> String {
    match uses.iter().find(|(used, _)| used == key) {
        Some((_, LastUse::At { at, by })) => format!(", last used {} ({by})", short(*at)),
        Some((_, LastUse::Never)) => ", which the provider has not seen in use".into(),
        _ => String::new(),
    }
}

fn short(at: Timestamp) -> String {
    at.format("%Y-%m-%d %H:%M UTC").to_string()
}
