//! The orders that say whose a key is: adopt and reclaim. Issuer and targets are looked at before either is followed.
//!
//! They record the operator's word beside what was found, and nothing else: no key is pushed, disabled or deleted here.

use tokio::sync::oneshot;

use super::super::order::Reply;
use super::super::{Engine, Performed, Place, World};
use crate::model::{
    AccountIdentity, IssuerSpec, KeyId, LastUse, Listing, Material, Reading, ServiceName, TargetName, Timestamp,
};
use crate::ports::JournalError;
use crate::rotation::event::{AdoptedBy, Event};
use crate::rotation::{Effect, Finding};

/// An order whose answer needs a look at the world first.
pub(crate) enum Pending {
    /// `looked` names the issuer objects that do not list the key.
    Adopt {
        key: KeyId,
        material: Option<Material>,
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

impl Pending {
    /// A secret that does not work with its key id is not sealed: it would only be found out when it is needed.
    pub(crate) async fn objection(&self, world: &World, place: &Place) -> Option<String> {
        let Pending::Adopt { material: Some(material), .. } = self else { return None };
        let why = world.is_wrong(&place.issuer, material).await?;
        Some(format!("the secret given does not belong to key {}: {why}", material.key()))
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
        objection: Option<String>,
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
            (Pending::Adopt { key, material, by, reply, .. }, Ok(seen)) => {
                (self.adopt(name, key, material, by, seen, objection).await?, reply)
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
        material: Option<Material>,
        by: String,
        seen: Seen,
        objection: Option<String>,
    ) -> Result<Reply, JournalError> {
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
        let tail = material.as_ref().and_then(|material| material.secret().tail());
        let contradicted =
            if about_old { None } else { state.adoption_contradicted(&key, tail.as_ref(), &seen.readings) };
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
