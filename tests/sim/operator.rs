//! The operator at 3 a.m.: looks at ArcGIS and the provider's console, and types what `status` says.

use rekeyd::engine::{Command, Handle, Report, ServiceReport};
use rekeyd::model::{KeyId, Reason, Secret, ServiceName};
use std::collections::{BTreeMap, BTreeSet};

use crate::scene::Scene;
use crate::world::{Actor, Shared, World};

/// No operator types more than this for one service before calling it hopeless.
const PATIENCE: u32 = 400;

#[derive(Default)]
pub struct Operator {
    pub typed: u32,
    pub gave_up: bool,
    tries: BTreeMap<(ServiceName, Reason), u32>,
}

impl Operator {
    /// Does what the next command says, with what can be seen by looking; what that does not mend is mended by hand.
    pub async fn act(&mut self, shared: &Shared, scene: &Scene, handle: &Handle, service: &ServiceReport) {
        let Some(reason) = service.reason else { return };
        let name = service.name.clone();
        let tries = self.tries.entry((name.clone(), reason)).or_default();
        *tries += 1;
        let tries = *tries;
        if tries > PATIENCE {
            self.gave_up = true;
            return;
        }
        shared.world().tell(|| {
            format!(
                "the operator reads of {name}: {reason}: {} — next: {}",
                service.message.as_deref().unwrap_or("-"),
                service.next_command.as_deref().unwrap_or("-")
            )
        });
        let mended = mend(&mut shared.world(), scene, service, reason, tries);
        let command = match mended {
            Some(command) => command,
            None => self.choose(shared, scene, service, reason, tries),
        };
        self.typed += 1;
        let shown = format!("{command:?}");
        let reply = handle.order(command).await;
        shared.world().tell(|| format!("the operator types {shown}: {reply:?}"));
    }

    /// Settles a stranger that does not halt anything yet, so that no debt is left with it.
    pub async fn look_after_strangers(&mut self, shared: &Shared, handle: &Handle, report: &Report) {
        for service in &report.services {
            let Some(key) = service.strangers.first() else { continue };
            let (name, by) = (service.name.clone(), "uid 0 (root)".to_owned());
            let command = {
                let world = shared.world();
                let ours = world.find(key).is_some_and(|(_, key)| key.made_by != Actor::Human);
                let in_use = world.places.keys().any(|place| world.held_or_coming(place).contains(key));
                let slots = world.find(key).is_some_and(|(object, _)| world.vaults[object].shape.has_slots());
                match (ours || slots) && !in_use {
                    true => Command::Reclaim { service: name, key: key.clone(), by },
                    false => Command::Disown { service: name, key: key.clone(), by },
                }
            };
            let shown = format!("{command:?}");
            let reply = handle.order(command).await;
            shared.world().tell(|| format!("the operator types {shown}: {reply:?}"));
        }
    }

    fn choose(&self, shared: &Shared, scene: &Scene, service: &ServiceReport, reason: Reason, tries: u32) -> Command {
        let name = service.name.clone();
        let by = "uid 0 (root)".to_owned();
        let retry = Command::Retry { service: name.clone(), by: by.clone() };
        let next = service.next_command.clone().unwrap_or_default();
        let cast = scene.cast.iter().find(|cast| cast.name == name.as_str());
        let world = shared.world();
        let targets: Vec<String> = cast
            .map(|cast| cast.target_names())
            .unwrap_or_default()
            .into_iter()
            .filter(|name| world.places.contains_key(name))
            .collect();
        let held: Option<KeyId> = targets.first().and_then(|target| world.places[target].holds.clone());
        let all_hold_it = targets.iter().all(|target| world.places[target].holds == held);
        let adopt = |key: KeyId| {
            // A secret that rekeyd minted was shown to nobody else.
            let known = world.find(&key).filter(|(_, key)| key.made_by == Actor::Human);
            let secret = known
                .and_then(|_| world.material(&key))
                .map(|material| Secret::new(material.secret().expose().to_owned()));
            let idle_slot_free = world.is_in_slot(&key);
            Command::Adopt { service: name.clone(), key, secret, idle_slot_free, by: by.clone() }
        };
        match reason {
            Reason::Stranger | Reason::MintUnsettled | Reason::JournalBehind if !service.strangers.is_empty() => {
                let key = service.strangers[0].clone();
                let made_by = world.find(&key).map(|(_, key)| key.made_by);
                if let (Reason::JournalBehind, Some(held)) = (reason, &held)
                    && all_hold_it
                    && tries % 2 == 1
                {
                    return adopt(held.clone());
                }
                let in_use = world.places.keys().any(|place| world.held_or_coming(place).contains(&key));
                let slots = cast.is_some_and(|cast| cast.shape.has_slots());
                let gone = world.find(&key).is_none_or(|(_, key)| key.died.is_some());
                match made_by {
                    _ if gone => retry,
                    // Nobody's secret is lost with what fills a slot that no target uses.
                    Some(Actor::Rekeyd(_)) if !in_use => Command::Reclaim { service: name, key, by },
                    _ if slots && !in_use => Command::Reclaim { service: name, key, by },
                    _ if in_use && all_hold_it && tries % 2 == 1 => adopt(key),
                    _ => Command::Disown { service: name, key, by },
                }
            }
            Reason::NoCurrentKey | Reason::JournalBehind => held.map_or(retry, adopt),
            Reason::AdoptNeeded => {
                let key = next.split_whitespace().last().map(KeyId::new);
                key.map_or(retry, adopt)
            }
            Reason::StuckBetween | Reason::PushUnproven if tries > 2 => match (&held, all_hold_it) {
                (Some(key), true) => Command::Abandon { service: name, holds: Some(key.clone()), by },
                _ => retry,
            },
            Reason::TargetChanged | Reason::CurrentKeyBroken if tries > 1 => {
                if service.phase.is_some() && next.contains("rollback") && tries == 2 {
                    Command::Rollback { service: name, by }
                } else if service.phase.is_none() && tries.is_multiple_of(2) {
                    Command::Repush { service: name, target: None, by }
                } else {
                    held.filter(|_| all_hold_it).map_or(retry, adopt)
                }
            }
            Reason::SecretNotHeld if service.phase.is_none() => held.map_or(retry, adopt),
            Reason::OldKeyStillUsed if tries > 3 => Command::RetireDespiteUse { service: name, by },
            _ => retry,
        }
    }
}

/// What nobody can mend by typing: a user that must move, a slot that must be freed, targets without a key that works.
fn mend(world: &mut World, scene: &Scene, service: &ServiceReport, reason: Reason, tries: u32) -> Option<Command> {
    let cast = scene.cast.iter().find(|cast| cast.name == service.name.as_str())?;
    let (name, by) = (service.name.clone(), "uid 0 (root)".to_owned());
    let retry = Command::Retry { service: name.clone(), by: by.clone() };
    let targets: Vec<String> = cast.target_names();
    let works = World::works;
    match reason {
        Reason::OldKeyStillUsed if service.current_key.as_ref().is_some_and(|key| works(world, key)) => {
            let current = service.current_key.clone()?;
            // Whatever still holds the old one, a target that left the policy too.
            put_by_hand(world, &all_places(world, &name), &current);
            None
        }
        Reason::Quota if service.current_key.as_ref().is_some_and(|key| works(world, key)) || tries < 4 => {
            if let Some(current) = service.current_key.clone().filter(|key| works(world, key)) {
                put_by_hand(world, &all_places(world, &name), &current);
            }
            let held: BTreeSet<KeyId> = world.places.keys().flat_map(|place| world.held_or_coming(place)).collect();
            // The message names the keys; on a migration they are not where the policy's own object is.
            let named = |key: &KeyId| service.message.as_ref().is_some_and(|message| message.contains(key.as_str()));
            let all = world.vaults.iter().flat_map(|(object, vault)| vault.keys.iter().map(move |key| (object, key)));
            let spare = all
                .filter(|(_, key)| key.died.is_none() && named(&key.id))
                .find(|(_, key)| !held.contains(&key.id) && Some(&key.id) != service.current_key.as_ref());
            let (object, spare) = spare.map(|(object, key)| (object.clone(), key.id.clone()))?;
            if cast.shape.has_slots() && tries % 2 == 1 {
                // Said to be somebody else's before; nobody uses it now.
                return Some(Command::Reclaim { service: name, key: spare, by });
            }
            if !cast.shape.has_slots() {
                world.bury_by_hand(&object, &spare);
            }
            Some(retry)
        }
        _ if tries < 4 => None,
        Reason::Stranger | Reason::MintUnsettled if tries < 16 => None,
        _ => {
            // Nothing that was typed helped: whoever is called at 3 a.m. puts one good key everywhere and says so.
            let object = cast.object();
            // "Mend the key at the issuer": one that is merely inactive is a click.
            if let Some(current) = service.current_key.as_ref().filter(|_| tries.is_multiple_of(5))
                && let Some(home) = world.find(current).filter(|(_, key)| key.died.is_none() && !key.active)
                && let home = home.0.to_owned()
            {
                world.switch_by_hand(&home, current);
                return Some(retry);
            }
            let own = service.current_key.clone().filter(|key| works(world, key));
            let held = targets.iter().filter_map(|target| world.places[target].holds.clone());
            let here = |key: &KeyId| world.key(&object, key).is_some_and(|key| key.works());
            let held: Option<KeyId> = held.into_iter().find(here);
            let key = own.clone().or(held).unwrap_or_else(|| make_by_hand(world, &object));
            put_by_hand(world, &targets, &key);
            if own.is_some() && !tries.is_multiple_of(3) {
                return (tries % 3 == 1).then_some(retry);
            }
            let secret = world.material(&key).map(|material| Secret::new(material.secret().expose().to_owned()));
            let idle_slot_free = world.is_in_slot(&key);
            Some(match (service.phase, tries % 4) {
                (None, 0..3) | (Some(_), 0 | 2) => Command::Adopt { service: name, key, secret, idle_slot_free, by },
                (None, _) => retry,
                (Some(_), 1) => Command::Abandon { service: name, holds: Some(key), by },
                (Some(_), _) => Command::Rollback { service: name, by },
            })
        }
    }
}

/// Every place that is or was a target of a service.
fn all_places(world: &World, service: &ServiceName) -> Vec<String> {
    let prefix = format!("arcgis:prod:{service}-");
    world.places.keys().filter(|place| place.starts_with(&prefix)).cloned().collect()
}

fn put_by_hand(world: &mut World, targets: &[String], key: &KeyId) {
    let now = world.now();
    for target in targets {
        if world.places.get(target).is_some_and(|place| place.holds.as_ref() != Some(key)) {
            world.tell(|| format!("the operator puts key {key} into {target} by hand"));
            world.put(target, key, Actor::Human, now);
        }
    }
}

/// A key made in the provider's console, in place of one that nobody holds where there is no room.
fn make_by_hand(world: &mut World, object: &str) -> KeyId {
    let number = world.number();
    let held: BTreeSet<KeyId> = world.places.keys().flat_map(|place| world.held_or_coming(place)).collect();
    let vault = &world.vaults[object];
    let living: Vec<KeyId> = vault.keys.iter().filter(|key| key.died.is_none()).map(|key| key.id.clone()).collect();
    let full = vault.shape.has_slots() || vault.quota.is_some_and(|quota| living.len() >= quota);
    let slots = vault.shape.has_slots();
    if full && let Some(spare) = living.iter().find(|key| !held.contains(key)).or(living.first()).cloned() {
        world.bury_by_hand(object, &spare);
        if slots {
            // Regenerating a slot is what makes a key there.
            let there = world.in_slot_of(object, &spare).expect("a slot is never empty");
            world.unfill(object, &there);
            return there;
        }
    }
    if slots {
        let id = KeyId::new(format!("slot1@{number}"));
        world.make(object, id.clone(), Actor::Human, None, false);
        return id;
    }
    world.make_by_hand(object)
}
