//! What to type next, where the policy has a word in it: how a login or a secret that was changed is taken up depends on where the
//! policy says it is kept. All else is the machine's own advice.

use crate::model::{Reason, SecretRef, ServiceName, SystemRef};
use crate::net::secrets;
use crate::policy::Policy;
use crate::rotation::{ServiceState, TakeUp};

/// What to type next for a service in `state`, under the policy in force; `None` where nothing is to be typed.
pub fn next_command(name: &ServiceName, state: &ServiceState, policy: &Policy) -> Option<String> {
    let said = state.halt.as_ref().map_or("", |halt| halt.message.as_str());
    if let Some(secret) = unread(state, policy) {
        let command = TakeUp::of(secret).command();
        return Some(format!("put the secret named above in its place, then {command} and rekeyd retry {name}"));
    }
    state.next_command(name, login_of(name, state, policy, said))
}

/// How the login of one account or deployment is taken up once it is changed. One secret that systemd hands over is enough.
pub(super) fn login_at(system: &SystemRef, policy: &Policy) -> TakeUp {
    let table = format!(" in [{system}]");
    let secrets = policy.secret_refs().iter().filter(|used| used.key.ends_with(&table));
    match secrets.map(|used| TakeUp::of(&used.secret)).any(|take_up| take_up == TakeUp::Restart) {
        true => TakeUp::Restart,
        false => TakeUp::Reload,
    }
}

/// The same for a service, of which `said` may name the one that it is about.
fn login_of(name: &ServiceName, state: &ServiceState, policy: &Policy, said: &str) -> TakeUp {
    let service = policy.service(name);
    let of_policy = service.into_iter().flat_map(|service| {
        service.issuer.system.iter().chain(service.targets.iter().filter_map(|target| target.system.as_ref()))
    });
    let of_rotation = state.rotation.iter().flat_map(|rotation| {
        let snapshot = &rotation.snapshot;
        snapshot.issuer.system.iter().chain(snapshot.targets.iter().filter_map(|target| target.spec.system.as_ref()))
    });
    let systems: Vec<&SystemRef> = of_policy.chain(of_rotation).collect();
    let named: Vec<&SystemRef> = systems.iter().copied().filter(|system| is_named(&system.to_string(), said)).collect();
    let meant = if named.is_empty() { systems } else { named };
    match meant.into_iter().any(|system| login_at(system, policy) == TakeUp::Restart) {
        true => TakeUp::Restart,
        false => TakeUp::Reload,
    }
}

/// Whether a text has a name as a word of its own: `aws.main` is not in `aws.main-2`.
fn is_named(name: &str, text: &str) -> bool {
    let part = |char: char| char.is_ascii_alphanumeric() || char == '-' || char == '_';
    text.match_indices(name).any(|(at, _)| !text[..at].ends_with(part) && !text[at + name.len()..].starts_with(part))
}

/// The secret of the policy that a halt says could not be read.
fn unread<'p>(state: &ServiceState, policy: &'p Policy) -> Option<&'p SecretRef> {
    let halt = state.halt.as_ref().filter(|halt| halt.reason == Reason::SecretNotHeld)?;
    let mut secrets = policy.secret_refs().iter().map(|used| &used.secret);
    secrets.find(|secret| halt.message.contains(&secrets::describe(secret)))
}
