//! What several services may not do at the same time: two of one group between MintBegun and Verified, and more pushes on one
//! deployment than its policy allows.

use std::collections::BTreeMap;

use crate::model::{ServiceName, SystemRef, TargetName};
use crate::policy::Policy;
use crate::rotation::{Effect, Push};
use crate::target;

use super::Runner;

/// Why an effect has to wait for another service; `None` where it may run.
pub(crate) fn full(
    services: &BTreeMap<ServiceName, Runner>,
    name: &ServiceName,
    effect: &Effect,
    policy: &Policy,
) -> Option<String> {
    match effect {
        Effect::PlanMint => group_taken(services, name),
        Effect::BeforePush(target) => deployment_full(services, name, target, policy),
        _ => None,
    }
}

fn group_taken(services: &BTreeMap<ServiceName, Runner>, name: &ServiceName) -> Option<String> {
    let group = services[name].policy.as_ref()?.group.clone()?;
    let other = services.iter().find(|(other, runner)| {
        let same = runner.policy.as_ref().is_some_and(|service| service.group.as_ref() == Some(&group));
        let moving = runner.state.rotation.as_ref().is_some_and(|rotation| rotation.moving());
        // One that looks before its mint has the turn already.
        *other != name && same && (moving || runner.busy == Some(Effect::PlanMint))
    })?;
    Some(format!("waits for {}, which is of the same group {group}", other.0))
}

fn deployment_full(
    services: &BTreeMap<ServiceName, Runner>,
    name: &ServiceName,
    target: &TargetName,
    policy: &Policy,
) -> Option<String> {
    let system = system_of(&services[name], target)?;
    let kind = target::KINDS.iter().find(|kind| kind.system == Some(system.table.as_str()))?;
    let most = (kind.jobs_max)(policy.systems.get(&system)?)?;
    let pushing: Vec<&ServiceName> = services
        .iter()
        .filter(|(other, runner)| *other != name && pushes_at(runner, &system))
        .map(|(other, _)| other)
        .collect();
    let names: Vec<_> = pushing.iter().map(|name| name.as_str()).collect();
    (pushing.len() >= most as usize)
        .then(|| format!("waits for its turn at {system} ({most} at once); now: {}", names.join(", ")))
}

fn pushes_at(runner: &Runner, system: &SystemRef) -> bool {
    let at = |target: &TargetName| system_of(runner, target).as_ref() == Some(system);
    if let Some(Effect::BeforePush(target)) = &runner.busy
        && at(target)
    {
        return true;
    }
    // A halted service pushes nothing, and would block the others for as long as its operator sleeps.
    let Some(rotation) =
        runner.state.rotation.as_ref().filter(|_| runner.state.halt.is_none() && runner.damage.is_none())
    else {
        return false;
    };
    rotation.targets.iter().any(|target| {
        matches!(target.push, Push::Begun { .. } | Push::Unknown { .. } | Push::Submitted { .. }) && at(&target.name)
    })
}

fn system_of(runner: &Runner, target: &TargetName) -> Option<SystemRef> {
    let rotation = runner.state.rotation.as_ref()?;
    let found = rotation.snapshot.targets.iter().find(|found| found.spec.name == *target)?;
    found.spec.system.clone()
}
