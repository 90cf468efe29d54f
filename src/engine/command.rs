//! What each order may do to a service. Only ever between two effects.
//!
//! An order becomes an event, or is refused with the reason; how a rotation goes on after it is the machine's decision. The orders
//! that need a look at the world before they are followed, adopt and reclaim, stand in `key`, and the move to no key in `switch`.

mod key;
mod switch;

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::info;

use crate::model::{KeyId, Reason, ServiceName, TargetName};
use crate::policy::Policy;
use crate::ports::JournalError;
use crate::rotation::event::{Cause, Event, Outcome, RotationKind};
use crate::rotation::{Course, Effect, Phase, Stage};

use super::order::{Command, Reply, Said};
use super::{Engine, Runner, report};
pub(crate) use key::{Asked, Pending};

impl Engine {
    /// Takes an order: at once where it is about no one service in particular, else when the service is between two effects.
    pub(super) async fn command(
        &mut self,
        command: Command,
        reply: oneshot::Sender<Reply>,
    ) -> Result<(), JournalError> {
        if let Some(service) = command.service().cloned() {
            // What once was a service of its own may have left a history.
            let follows = self.policy.no_keys_of_its_own(&service);
            match self.services.get_mut(&service) {
                Some(runner) if follows.is_none() || !report::clean(runner) => runner.queue.push_back((command, reply)),
                _ => {
                    let _ = reply.send(Reply::one(&service, false, self.unknown(&service)));
                }
            }
            return Ok(());
        }
        let answer = match command {
            Command::Rotate { services, compromised, by } => {
                let chosen = if services.is_empty() { self.in_policy(|_| true) } else { services };
                if chosen.is_empty() {
                    let said = Said { service: None, accepted: true, message: "no service has a key to rotate".into() };
                    let _ = reply.send(Reply { said: vec![said] });
                    return Ok(());
                }
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
        // Whoever reads the report after the answer finds the order in it.
        self.publish();
        let _ = reply.send(answer);
        Ok(())
    }

    fn unknown(&self, service: &ServiceName) -> String {
        if let Some(why) = self.policy.no_keys_of_its_own(service) {
            return why;
        }
        let known: Vec<_> = self.services.keys().map(ServiceName::as_str).collect();
        format!("there is no service {service}; there are: {}", known.join(", "))
    }

    /// The services of the policy that are meant where none is named: one without a key has nothing to rotate.
    fn in_policy(&self, wanted: impl Fn(&crate::policy::Service) -> bool) -> Vec<ServiceName> {
        let has_a_key =
            |name: &ServiceName| self.services.get(name).is_none_or(|runner| runner.state.uses_no_key().is_none());
        let chosen = self.policy.services.iter().filter(|service| wanted(service) && has_a_key(&service.name));
        chosen.map(|service| service.name.clone()).collect()
    }

    async fn order_rotations(&mut self, services: Vec<ServiceName>, cause: Cause) -> Result<Reply, JournalError> {
        let mut reply = Reply::default();
        for name in services {
            let compromised = matches!(cause, Cause::Operator { compromised: true, .. });
            let (accepted, message) = match self.services.get(&name).map(|runner| refusal(runner, compromised)) {
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
            if let Some(root) = policy.followed_by(name).filter(|_| !report::clean(runner)) {
                objections.push(format!(
                    "service {name} may not follow {} yet: under that name there is still a rotation or a key to retire",
                    root.name
                ));
            }
            // At rest, the current key of a service that is to move lives where no snapshot says.
            let home = runner.state.home.as_ref().filter(|_| runner.state.uses_no_key().is_none());
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
            Command::Adopt { key, secret, idle_slot_free, by, .. } => match self.adopt_refusal(name, &key) {
                Some(why) => Reply::one(name, false, why),
                None => {
                    let looked = Vec::new();
                    let pending = Pending::Adopt { key, secret, idle_slot_free, by, looked, reply };
                    return self.look_first(name, pending);
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
            Command::Switch { to, no_way_back, by, .. } => self.switch(name, to, no_way_back, by).await?,
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
        // Whoever reads the report after the answer finds the order in it.
        self.publish();
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
        let targets = runner.policy.iter().flat_map(|service| &service.targets).filter_map(|spec| spec.system.as_ref());
        let issuer = runner.policy.iter().filter_map(|service| service.issuer.system.as_ref());
        for system in targets.chain(issuer).chain(runner.state.systems()).collect::<BTreeSet<_>>() {
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
        if held.is_none() && !state.keyless.contains_key(&old) {
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
        if runner.state.rotation.is_some() || runner.state.switch.is_some() {
            return Ok(Reply::one(name, false, "a rotation is open, or ordered"));
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
        let held = self.journal.material(name, &current.key).await.ok().flatten();
        if held.is_none() && runner.state.uses_no_key().is_none() {
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
        if holds.is_none() && (rotation.any_touched() || !forward) && rotation.kind.replaces() {
            let why =
                format!("a push was begun, so say which key the targets hold: --holds {}", names.join(" or --holds "));
            return Ok(Reply::one(name, false, why));
        }
        let holds = holds.or((!rotation.kind.replaces()).then(|| rotation.former.key.clone()));
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
}

fn refusal(runner: &Runner, compromised: bool) -> Option<String> {
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
    if state.switch.is_some() && !compromised {
        return Some("a switch is ordered, skipped".into());
    }
    if let Some(keyless) = state.uses_no_key() {
        return Some(format!("it uses {keyless} since it was switched, and has no key to rotate, skipped"));
    }
    None
}
