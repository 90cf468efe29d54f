//! The operator at 3 a.m.: looks at ArcGIS and the provider's console, and types what `status` says.

use rekeyd::engine::{Command, Handle, Report, ServiceReport};
use rekeyd::model::{KeyId, Reason, Secret, ServiceName};
use std::collections::BTreeMap;

use crate::scene::Scene;
use crate::world::{Actor, Shared};

/// No operator types more than this for one service before calling it hopeless.
const PATIENCE: u32 = 40;

#[derive(Default)]
pub struct Operator {
    pub typed: u32,
    pub gave_up: bool,
    tries: BTreeMap<(ServiceName, Reason), u32>,
}

impl Operator {
    /// Does what the next command says, with what can be seen by looking.
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
        let command = self.choose(shared, scene, service, reason, tries);
        self.typed += 1;
        let shown = format!("{command:?}");
        shared.world().tell(|| {
            format!(
                "the operator reads of {name}: {reason}: {} — next: {}",
                service.message.as_deref().unwrap_or("-"),
                service.next_command.as_deref().unwrap_or("-")
            )
        });
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
                match ours && !in_use {
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
            Command::Adopt { service: name.clone(), key, secret, by: by.clone() }
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
                match made_by {
                    Some(Actor::Rekeyd(_)) if !in_use => Command::Reclaim { service: name, key, by },
                    Some(Actor::Rekeyd(_)) => adopt(key),
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
                } else if service.phase.is_none() && tries % 2 == 0 {
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
