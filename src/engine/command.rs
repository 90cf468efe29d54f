//! What each order may do to a service. Only ever between two effects.

use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::info;

use crate::model::{
    AccountIdentity, IssuerSpec, KeyId, LastUse, Listing, Material, Reading, Reason, ServiceName, TargetName, Timestamp,
};
use crate::policy::Policy;
use crate::ports::JournalError;
use crate::rotation::event::{AdoptedBy, Cause, Event, Outcome, RotationKind};
use crate::rotation::{Course, Effect, Finding, Phase, Stage};

use super::order::{Command, Reply, Said};
use super::{Engine, Performed, Place, Runner, World};

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

impl Engine {
    /// Takes an order: at once where it is about no one service in particular, else when the service is between two effects.
    pub(super) async fn command(
        &mut self,
        command: Command,
        reply: oneshot::Sender<Reply>,
    ) -> Result<(), JournalError> {
        if let Some(service) = command.service().cloned() {
            match self.services.get_mut(&service) {
                Some(runner) => runner.queue.push_back((command, reply)),
                None => {
                    let _ = reply.send(Reply::one(&service, false, self.unknown(&service)));
                }
            }
            return Ok(());
        }
        let answer = match command {
            Command::Rotate { services, compromised, by } => {
                let chosen = if services.is_empty() { self.in_policy(|_| true) } else { services };
                self.order_rotations(chosen, Cause::Operator { by, compromised }).await?
            }
            Command::RotateOnSignal => {
                let chosen = self.in_policy(|service| service.on_signal);
                self.order_rotations(chosen, Cause::Signal).await?
            }
            Command::TryNow => {
                self.world.connect.hurry();
                for runner in self.services.values_mut() {
                    runner.pacing.hurry();
                }
                Reply::default()
            }
            Command::Reload(policy) => self.reload(policy),
            _ => unreachable!("every other command names a service"),
        };
        let _ = reply.send(answer);
        Ok(())
    }

    fn unknown(&self, service: &ServiceName) -> String {
        let known: Vec<_> = self.services.keys().map(ServiceName::as_str).collect();
        format!("there is no service {service}; there are: {}", known.join(", "))
    }

    fn in_policy(&self, wanted: impl Fn(&crate::policy::Service) -> bool) -> Vec<ServiceName> {
        self.policy.services.iter().filter(|service| wanted(service)).map(|service| service.name.clone()).collect()
    }

    async fn order_rotations(&mut self, services: Vec<ServiceName>, cause: Cause) -> Result<Reply, JournalError> {
        let mut reply = Reply::default();
        for name in services {
            let (accepted, message) = match self.services.get(&name).map(refusal) {
                None => (false, self.unknown(&name)),
                Some(Some(why)) => (false, why),
                Some(None) => {
                    self.record(&name, Event::Ordered { cause: cause.clone() }, None).await?;
                    let runner = self.runner(&name);
                    runner.pacing.hurry();
                    if runner.busy == Some(Effect::Survey) && runner.pacing.opening.1 == RotationKind::Fresh {
                        // What is being looked at already is what was ordered.
                        runner.pacing.opening.0 = runner.state.order.clone().unwrap_or(cause.clone());
                    }
                    (true, "rotation ordered".to_owned())
                }
            };
            reply.said.push(Said { service: Some(name), accepted, message });
        }
        Ok(reply)
    }

    /// Takes a new policy, unless the journal still needs what it no longer has.
    fn reload(&mut self, policy: Arc<Policy>) -> Reply {
        let missing = self.objections(&policy);
        if !missing.is_empty() {
            let said = missing.into_iter().map(|message| Said { service: None, accepted: false, message });
            return Reply { said: said.collect() };
        }
        info!(services = policy.services.len(), "took the new policy");
        self.take_policy(policy);
        Reply { said: vec![Said { service: None, accepted: true, message: "the new policy is in force".into() }] }
    }

    /// Why a policy cannot be taken while the journal holds what it holds.
    pub fn objections(&self, policy: &Policy) -> Vec<String> {
        let mut objections = Vec::new();
        for (name, runner) in &self.services {
            // At rest, the current key of a service that is to move lives where no snapshot says.
            let home = runner.state.home.as_ref();
            let moving =
                home.filter(|home| policy.service(name).is_some_and(|service| service.issuer.object != home.object));
            if let Some(system) = moving.and_then(|home| home.system.as_ref())
                && !policy.systems.contains_key(system)
            {
                objections.push(format!(
                    "[{system}] may not leave the policy yet: the current key of service {name} lives there until it is rotated"
                ));
            }
            let snapshots = runner
                .state
                .rotation
                .iter()
                .map(|rotation| &rotation.snapshot)
                .chain(runner.state.leaving.values().filter_map(|retirement| retirement.place.as_deref()));
            for snapshot in snapshots {
                let systems = snapshot.targets.iter().filter_map(|found| found.spec.system.as_ref());
                for system in systems.chain(snapshot.issuer.system.as_ref()) {
                    if !policy.systems.contains_key(system) {
                        objections.push(format!(
                            "[{system}] may not leave the policy yet: service {name} still has a rotation or a key to retire there"
                        ));
                    }
                }
                let other = policy
                    .services
                    .iter()
                    .find(|service| service.name != *name && service.issuer.object == snapshot.issuer.object);
                if let Some(other) = other {
                    objections.push(format!(
                        "service {} may not take {} yet: service {name} still has a rotation or a key to retire there",
                        other.name, snapshot.issuer.object
                    ));
                }
            }
        }
        objections.sort();
        objections.dedup();
        objections
    }

    /// Follows an order for one service that is between two effects.
    pub(super) async fn obey(
        &mut self,
        name: &ServiceName,
        command: Command,
        reply: oneshot::Sender<Reply>,
    ) -> Result<(), JournalError> {
        if self.services[name].damage.is_some() {
            let why = "its journal does not verify; rekeyd ledger verify says where";
            let _ = reply.send(Reply::one(name, false, why));
            return Ok(());
        }
        let answer = match command {
            Command::Adopt { key, secret, by, .. } => match self.adopt_refusal(name, &key) {
                Some(why) => Reply::one(name, false, why),
                None => {
                    let material = secret.map(|secret| Material::AccessKey { id: key.clone(), secret });
                    return self.look_first(name, Pending::Adopt { key, material, by, looked: Vec::new(), reply });
                }
            },
            Command::Reclaim { key, by, .. } => match self.stranger_refusal(name, &key, true) {
                Some(why) => Reply::one(name, false, why),
                None => return self.look_first(name, Pending::Reclaim { key, by, looked: Vec::new(), reply }),
            },
            Command::Pause { by, .. } => {
                self.record(name, Event::Paused { by }, None).await?;
                let open = self.services[name].state.rotation.is_some();
                let rest = if open { "; the open rotation is finished" } else { "" };
                Reply::one(name, true, format!("paused: no new rotation is opened{rest}"))
            }
            Command::Resume { by, .. } => {
                self.record(name, Event::Resumed { by }, None).await?;
                Reply::one(name, true, "resumed")
            }
            Command::Retry { by, .. } => self.retry(name, by).await?,
            Command::Rollback { by, .. } => self.rollback(name, by).await?,
            Command::Repush { target, by, .. } => self.repush(name, target, by).await?,
            Command::RetireDespiteUse { by, .. } => {
                if self.services[name].state.leaving.is_empty() {
                    Reply::one(name, false, "no key is on its way out")
                } else {
                    self.record(name, Event::DespiteUseOrdered { by }, None).await?;
                    Reply::one(name, true, "the old key is retired though it is in use")
                }
            }
            Command::Abandon { holds, by, .. } => self.abandon(name, holds, by).await?,
            Command::Disown { key, by, .. } => match self.stranger_refusal(name, &key, false) {
                Some(why) => Reply::one(name, false, why),
                None => {
                    self.record(name, Event::Disowned { key: key.clone(), by }, None).await?;
                    self.runner(name).pacing.hurry();
                    Reply::one(name, true, format!("key {key} is somebody else's and is left alone"))
                }
            },
            Command::Rotate { .. } | Command::RotateOnSignal | Command::TryNow | Command::Reload(_) => {
                unreachable!("these name no service")
            }
        };
        let _ = reply.send(answer);
        Ok(())
    }

    async fn retry(&mut self, name: &ServiceName, by: String) -> Result<Reply, JournalError> {
        self.forgive(name);
        self.record(name, Event::Retried { by }, None).await?;
        let runner = self.runner(name);
        runner.pacing.hurry();
        runner.observed = None;
        Ok(Reply::one(name, true, "looking again"))
    }

    /// A refused password may be tried again on the operator's word.
    fn forgive(&self, name: &ServiceName) {
        let runner = &self.services[name];
        let targets = runner.policy.iter().flat_map(|service| &service.targets);
        let opened =
            runner.state.rotation.iter().flat_map(|rotation| &rotation.snapshot.targets).map(|found| &found.spec);
        for system in targets.chain(opened).filter_map(|spec| spec.system.as_ref()) {
            self.world.connect.forgive(system);
        }
    }

    async fn rollback(&mut self, name: &ServiceName, by: String) -> Result<Reply, JournalError> {
        let state = &self.services[name].state;
        let Some(rotation) = &state.rotation else {
            let why = match &state.previous {
                Some(key) if state.leaving.contains_key(key) => {
                    format!("the rotation that replaced key {key} is closed")
                }
                _ => "the previous key is gone; only rotate makes another one".to_owned(),
            };
            return Ok(Reply::one(name, false, why));
        };
        let Some(old) = rotation.retiring.clone() else {
            return Ok(Reply::one(name, false, "this rotation replaces no key"));
        };
        if rotation.phase < Phase::Ready {
            return Ok(Reply::one(name, false, "nothing has been pushed yet; rekeyd abandon ends the rotation"));
        }
        if let Some(why) = rotation.cannot_turn_back() {
            return Ok(Reply::one(name, false, why));
        }
        if state.moves_house() {
            let why =
                format!("key {old} lives at another issuer object than the new one; rotate back by the policy instead");
            return Ok(Reply::one(name, false, why));
        }
        let held = self.journal.material(name, &old).await.ok().flatten();
        if held.is_none() {
            let why = format!(
                "the secret of key {old} is not held, so it cannot be put back; rekeyd adopt {name} {old} --secret-file FILE \
                 brings it"
            );
            return Ok(Reply::one(name, false, why));
        }
        let event = Event::RollbackBegun { by };
        if self.services[name].state.clone().apply(&event, &self.clock.now()).is_err() {
            return Ok(Reply::one(name, false, format!("key {old} is already being deleted and cannot be put back")));
        }
        self.record(name, event, None).await?;
        self.runner(name).pacing.hurry();
        Ok(Reply::one(name, true, format!("key {old} is put back")))
    }

    async fn repush(
        &mut self,
        name: &ServiceName,
        target: Option<TargetName>,
        by: String,
    ) -> Result<Reply, JournalError> {
        let runner = &self.services[name];
        let Some(service) = &runner.policy else { return Ok(Reply::one(name, false, "it is no longer in the policy")) };
        if runner.state.rotation.is_some() {
            return Ok(Reply::one(name, false, "a rotation is open"));
        }
        let Some(current) = runner.state.current.clone() else {
            return Ok(Reply::one(name, false, "no current key is known"));
        };
        let all: Vec<TargetName> = service.targets.iter().map(|target| target.name.clone()).collect();
        let chosen = match target {
            None => all,
            Some(target) if all.contains(&target) => vec![target],
            Some(target) => {
                let known: Vec<_> = all.iter().map(TargetName::as_str).collect();
                return Ok(Reply::one(
                    name,
                    false,
                    format!("there is no target {target}; there are: {}", known.join(", ")),
                ));
            }
        };
        if self.journal.material(name, &current.key).await.ok().flatten().is_none() {
            let why = format!("the secret of key {} is not held, so it cannot be pushed again", current.key);
            return Ok(Reply::one(name, false, why));
        }
        if runner.state.halt.is_some() {
            self.record(name, Event::Retried { by: by.clone() }, None).await?;
        }
        self.runner(name).pacing.hurry();
        let cause = Cause::Operator { by, compromised: false };
        self.start(name, Effect::Survey, cause, RotationKind::Repush(chosen));
        Ok(Reply::one(name, true, format!("key {} is pushed again", current.key)))
    }

    async fn abandon(&mut self, name: &ServiceName, holds: Option<KeyId>, by: String) -> Result<Reply, JournalError> {
        let state = &self.services[name].state;
        let Some(rotation) = &state.rotation else { return Ok(Reply::one(name, false, "no rotation is open")) };
        let keys: Vec<KeyId> = [&rotation.installing, &rotation.retiring].into_iter().flatten().cloned().collect();
        let names: Vec<_> = keys.iter().map(KeyId::as_str).collect();
        if let Some(key) = &holds
            && !keys.contains(key)
        {
            let why = format!("key {key} is not part of this rotation, which is about {}", names.join(" and "));
            return Ok(Reply::one(name, false, why));
        }
        if rotation.phase == Phase::Minting {
            let why = "whether a key was minted is not settled yet, and ending the rotation would forget it; it settles by \
                       itself, or by rekeyd reclaim or disown";
            return Ok(Reply::one(name, false, why));
        }
        if rotation.any_in_flight() && state.halt.is_none() {
            return Ok(Reply::one(name, false, "a push is under way; wait until its job has ended"));
        }
        if let Some(leaving) = holds.as_ref().and_then(|key| state.leaving.get(key))
            && !leaving.is_untouched(&self.clock.now())
        {
            let why = match leaving.stage.reversible() {
                true if leaving.stage == Stage::Waiting => {
                    format!("a request that was sent may still hit key {}; try again in a while", leaving.key)
                }
                true if rotation.cannot_turn_back().is_none() => {
                    format!("key {} is disabled already; rekeyd rollback {name} brings it back", leaving.key)
                }
                true => format!(
                    "key {0} is disabled already; enable it at its issuer, then rekeyd adopt {name} {0}",
                    leaving.key
                ),
                false => format!("key {} is already being deleted, so no target can go on using it", leaving.key),
            };
            return Ok(Reply::one(name, false, why));
        }
        let gone = |key: &KeyId| rotation.retiring.as_ref() == Some(key) && !state.leaving.contains_key(key);
        if let Some(key) = holds.as_ref().filter(|key| rotation.phase >= Phase::Soaking && gone(key)) {
            return Ok(Reply::one(name, false, format!("key {key} is gone, so no target can be using it")));
        }
        let forward = rotation.course == Course::Forward;
        if holds.is_none() && (rotation.any_touched() || !forward) && rotation.kind == RotationKind::Fresh {
            let why =
                format!("a push was begun, so say which key the targets hold: --holds {}", names.join(" or --holds "));
            return Ok(Reply::one(name, false, why));
        }
        let holds = holds.or((rotation.kind != RotationKind::Fresh).then(|| rotation.former.key.clone()));
        let event = Event::Closed { outcome: Outcome::Abandoned { by, holds } };
        if !self.record(name, event, None).await? {
            return Ok(Reply::one(name, false, "the rotation could not be ended; rekeyd status says why"));
        }
        self.runner(name).pacing.hurry();
        let now = self.clock.now();
        let debts: Vec<_> = self.services[name].state.debts(&now).iter().map(ToString::to_string).collect();
        let rest = if debts.is_empty() { String::new() } else { format!("; to be retired: {}", debts.join(", ")) };
        Ok(Reply::one(name, true, format!("the rotation is ended{rest}")))
    }

    fn stranger_refusal(&self, name: &ServiceName, key: &KeyId, ours: bool) -> Option<String> {
        let state = &self.services[name].state;
        if state.strangers.contains(key) || (ours && state.disowned.contains(key)) {
            return None;
        }
        let known: Vec<_> = state.strangers.iter().map(KeyId::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Some(format!("key {key} is no stranger of this service; strangers: {known}"))
    }

    fn adopt_refusal(&self, name: &ServiceName, key: &KeyId) -> Option<String> {
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
    fn look_first(&mut self, name: &ServiceName, pending: Pending) -> Result<(), JournalError> {
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

    pub(super) async fn finish_command(
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

/// Issuer and targets as an order about a key found them.
struct Seen {
    issuer: Box<IssuerSpec>,
    account: AccountIdentity,
    listing: Listing,
    uses: Vec<(KeyId, LastUse)>,
    readings: Vec<(TargetName, Reading)>,
}

fn refusal(runner: &Runner) -> Option<String> {
    let state = &runner.state;
    if runner.damage.is_some() {
        return Some(format!("halted ({}), not ordered", Reason::JournalDamaged));
    }
    if let Some(halt) = &state.halt {
        return Some(format!("halted ({}), not ordered; rekeyd status says why and what to type", halt.reason));
    }
    if state.paused.is_some() {
        return Some("paused, not ordered".into());
    }
    if state.rotation.is_some() {
        return Some("already in rotation, skipped".into());
    }
    if runner.policy.is_none() {
        return Some("no longer in the policy, not ordered".into());
    }
    None
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
