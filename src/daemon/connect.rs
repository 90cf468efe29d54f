//! Makes ports out of specs, and keeps them: one port, so one session, for each spec.
//!
//! It knows which kind is which code and nothing else of them. A port holds the secrets it was made with, so all ports are
//! forgotten when the policy or a secret may have changed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::model::{IssuerSpec, Reason, SystemRef, SystemSpec, TargetSpec};
use crate::net::{Context, Shared};
use crate::policy::Policy;
use crate::ports::{Connect, Fault, Issuer, LoginGuard, Target};
use crate::{issuer, target};

/// The ports of one process.
pub struct Connector {
    guard: Arc<dyn LoginGuard>,
    shared: Shared,
    inner: Mutex<Inner>,
}

struct Inner {
    policy: Arc<Policy>,
    issuers: HashMap<String, (Option<SystemRef>, Arc<dyn Issuer>)>,
    targets: HashMap<String, (Option<SystemRef>, Arc<dyn Target>)>,
}

impl Connector {
    /// Connects to what `policy` names.
    pub fn new(policy: Arc<Policy>, guard: Arc<dyn LoginGuard>) -> Self {
        let inner = Inner { policy, issuers: HashMap::new(), targets: HashMap::new() };
        Connector { guard, shared: Shared::default(), inner: Mutex::new(inner) }
    }

    /// Goes by another policy from now on, and reads every secret again.
    pub fn take(&self, policy: Arc<Policy>) {
        *self.inner() = Inner { policy, issuers: HashMap::new(), targets: HashMap::new() };
    }

    /// The policy it goes by.
    pub fn policy(&self) -> Arc<Policy> {
        self.inner().policy.clone()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A map of whole entries is whole at every moment.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn context(&self, policy: &Policy) -> Context {
        Context {
            proxy: policy.daemon.proxy.clone(),
            no_proxy: policy.daemon.no_proxy.clone(),
            guard: self.guard.clone(),
            shared: self.shared.clone(),
        }
    }
}

impl Connect for Connector {
    fn issuer(&self, spec: &IssuerSpec) -> Result<Arc<dyn Issuer>, Fault> {
        let key = name_of(spec);
        let mut inner = self.inner();
        if let Some((_, port)) = inner.issuers.get(&key) {
            return Ok(port.clone());
        }
        let kind = issuer::KINDS.iter().find(|kind| kind.name == spec.kind);
        let kind = kind.ok_or_else(|| unknown_kind("issuer", &spec.kind))?;
        let system = system(&inner.policy, spec.system.as_ref())?;
        let port = (kind.connect)(spec, system, &self.context(&inner.policy))?;
        inner.issuers.insert(key, (spec.system.clone(), port.clone()));
        Ok(port)
    }

    fn target(&self, spec: &TargetSpec) -> Result<Arc<dyn Target>, Fault> {
        let key = name_of(spec);
        let mut inner = self.inner();
        if let Some((_, port)) = inner.targets.get(&key) {
            return Ok(port.clone());
        }
        let kind = target::KINDS.iter().find(|kind| kind.name == spec.kind);
        let kind = kind.ok_or_else(|| unknown_kind("target", &spec.kind))?;
        let system = system(&inner.policy, spec.system.as_ref())?;
        let port = (kind.connect)(spec, system, &self.context(&inner.policy))?;
        inner.targets.insert(key, (spec.system.clone(), port.clone()));
        Ok(port)
    }

    /// The password of that system is read again too: correcting it and `retry` is enough.
    fn forgive(&self, system: &SystemRef) {
        self.guard.forgive(&system.to_string());
        let mut inner = self.inner();
        inner.issuers.retain(|_, (at, _)| at.as_ref() != Some(system));
        // What is in use goes on, and so does what it shares with those made anew.
        inner.targets.values().filter(|(at, _)| at.as_ref() == Some(system)).for_each(|(_, port)| port.hurry());
        inner.targets.retain(|_, (at, _)| at.as_ref() != Some(system));
    }

    fn hurry(&self) {
        self.inner().targets.values().for_each(|(_, port)| port.hurry());
    }
}

/// Two specs are one where all they say is the same.
fn name_of(spec: &impl Serialize) -> String {
    serde_json::to_string(spec).expect("a spec is plain data with text keys")
}

fn system<'p>(policy: &'p Policy, at: Option<&SystemRef>) -> Result<Option<&'p SystemSpec>, Fault> {
    let Some(at) = at else { return Ok(None) };
    let found = policy.systems.get(at).ok_or_else(|| Fault::Refused {
        reason: Reason::PolicyMismatch,
        why: format!("[{at}] is not in the policy any more, and it is still needed"),
    });
    found.map(Some)
}

fn unknown_kind(what: &str, kind: &str) -> Fault {
    Fault::Refused { reason: Reason::PolicyMismatch, why: format!("this rekeyd knows no {what} of kind {kind}") }
}
