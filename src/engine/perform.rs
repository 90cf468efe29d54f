//! Runs one effect: asks the ports what the machine wants to know, and returns what was found. Decides nothing.

use std::sync::Arc;
use std::time::Instant as Started;

use tracing::{info, warn};

use crate::model::{
    AccountIdentity, IntentId, IssuerSpec, KeyId, Material, Reason, Secret, Tail, TargetName, TargetSpec,
};
use crate::ports::{Connect, Fault, Health, Issuer, Journal, LastUse, Meter, Probe, Reading, Target};
use crate::rotation::event::{Snapshot, SnapshotTarget};
use crate::rotation::{Effect, Evidence, Finding, Found, Others, ServiceState};

use super::Place;

/// What an effect may touch.
#[derive(Clone)]
pub struct World {
    /// Makes ports out of specs.
    pub connect: Arc<dyn Connect>,
    /// Holds the sealed material.
    pub journal: Arc<dyn Journal>,
    /// Counts requests.
    pub meter: Arc<dyn Meter>,
}

/// What an effect came to, and the material a mint brought.
pub struct Performed {
    /// For the machine.
    pub found: Found,
    /// For the journal alone.
    pub material: Option<Material>,
}

impl World {
    /// Runs `effect` at `place`, for a service in `state`.
    pub async fn perform(&self, effect: &Effect, place: &Place, state: &ServiceState) -> Performed {
        if let Effect::Mint(intent) = effect {
            let mint = state.rotation.as_ref().and_then(|rotation| rotation.mint.as_ref());
            return self.mint(intent, mint.and_then(|mint| mint.replaces.as_ref()), place).await;
        }
        Performed { found: self.look_or_act(effect, place, state).await, material: None }
    }

    async fn mint(&self, intent: &IntentId, replaces: Option<&KeyId>, place: &Place) -> Performed {
        let minted = match self.issuer(&place.issuer) {
            Ok(issuer) => self.metered(&place.issuer.object, "mint", issuer.mint(intent, replaces)).await,
            // Nothing was sent: the port could not even be made.
            Err(fault) => Err(fault),
        };
        match minted {
            Ok(minted) => Performed {
                found: Ok(Finding::Minted {
                    key: minted.material.key().clone(),
                    created: minted.created,
                    tail: minted.material.secret().tail(),
                }),
                material: Some(minted.material),
            },
            Err(fault) => Performed { found: Err(fault), material: None },
        }
    }

    async fn look_or_act(&self, effect: &Effect, place: &Place, state: &ServiceState) -> Found {
        let at = &place.issuer.object;
        match effect {
            Effect::Mint(_) => unreachable!("a mint is run by itself, since it brings material"),
            Effect::Survey => self.survey(place, state).await,
            Effect::FirstContact => self.first_contact(place, state).await,
            Effect::Observe => self.observe(place, state).await,
            // Such a mint destroys a key, so the targets are read just before it as they are before a deletion.
            Effect::PlanMint if place.issuer.shape.has_slots() => self.slots(place, state).await,
            Effect::PlanMint | Effect::Absence(_) => self.list_with_account(&place.issuer).await,
            Effect::SettleMint => self.settle_mint(place, state).await,
            Effect::Probe(key) => {
                let material = self.material(place, key).await?;
                let targets: Vec<&TargetSpec> = place.targets.iter().collect();
                self.probe_as(place, &targets, &material).await.map(Finding::Probe)
            }
            Effect::BeforePush(target) => {
                let listing = self.list(&place.issuer).await?;
                let key = installing(state)?;
                let (port, spec) = self.target(place, target, state).await?;
                let keyless = state.keyless.get(key);
                let (probe, derived, until) = match keyless {
                    // Only its consumer, which asks the cloud who it is, can tell whether it works.
                    Some(_) => (Probe::Works, None, None),
                    None => {
                        let material = self.material(place, key).await?;
                        let handed = self.handed(spec, &material)?;
                        let derived = spec.derived_by.as_ref().map(|_| (handed.secret().tail(), handed.ends()));
                        let (derived, until) = derived.unwrap_or_default();
                        (self.probe_as(place, &[spec], &material).await?, derived, until)
                    }
                };
                let inspect = async {
                    match keyless {
                        Some(to) => port.inspect_switch(to).await,
                        None => port.inspect().await,
                    }
                };
                let inspected = self.metered(spec.name.as_str(), "inspect", inspect).await?;
                let (reading, jobs) = (inspected.reading, inspected.jobs);
                Ok(Finding::BeforePush { probe, reading, jobs, listing, derived, until })
            }
            Effect::Push(target) => {
                let key = installing(state)?;
                if let Some(to) = state.keyless.get(key) {
                    let (port, spec) = self.target(place, target, state).await?;
                    return self.metered(spec.name.as_str(), "push", port.switch(to)).await.map(Finding::Receipt);
                }
                let material = self.material(place, key).await?;
                let (port, spec) = self.target(place, target, state).await?;
                let handed = self.handed(spec, &material)?;
                self.metered(spec.name.as_str(), "push", port.push(&handed)).await.map(Finding::Receipt)
            }
            Effect::SettlePush(target) => {
                let (port, spec) = self.target(place, target, state).await?;
                self.metered(spec.name.as_str(), "jobs", port.jobs()).await.map(Finding::Jobs)
            }
            Effect::Poll(target, job) => {
                let (port, spec) = self.target(place, target, state).await?;
                self.metered(spec.name.as_str(), "poll", port.poll(job)).await.map(Finding::Job)
            }
            Effect::ReadBack(target) => {
                let (port, spec) = self.target(place, target, state).await?;
                self.metered(spec.name.as_str(), "read", port.read()).await.map(Finding::Reading)
            }
            Effect::Evidence(key, _) => self.evidence(place, key, state).await,
            Effect::Disable(key) => {
                let issuer = self.issuer(&place.issuer)?;
                self.metered(at, "disable", issuer.disable(key)).await.map(|()| Finding::Done)
            }
            Effect::Enable(key) => {
                let issuer = self.issuer(&place.issuer)?;
                self.metered(at, "enable", issuer.enable(key)).await.map(|()| Finding::Done)
            }
            Effect::Delete(key) => {
                let issuer = self.issuer(&place.issuer)?;
                self.metered(at, "delete", issuer.delete(key)).await.map(|()| Finding::Done)
            }
            Effect::Health => self.health(place, state).await,
        }
    }

    async fn survey(&self, place: &Place, state: &ServiceState) -> Found {
        let account = self.account(&place.issuer).await?;
        let listing = self.list(&place.issuer).await?;
        let mut targets = Vec::new();
        for spec in &place.targets {
            let port = self.port(place, spec, state).await?;
            let inspect = async {
                match &place.switch_to {
                    Some(to) => port.inspect_switch(to).await,
                    None => port.inspect().await,
                }
            };
            let inspected = self.metered(spec.name.as_str(), "inspect", inspect).await?;
            targets.push(SnapshotTarget {
                spec: spec.clone(),
                holder: inspected.holder,
                reading: inspected.reading,
                jobs: inspected.jobs,
                healthy: port.health().await == Health::Good,
            });
        }
        let snapshot = Snapshot { issuer: place.issuer.clone(), account, targets, terms: place.terms.clone() };
        Ok(Finding::Survey { snapshot: Box::new(snapshot), listing })
    }

    async fn first_contact(&self, place: &Place, state: &ServiceState) -> Found {
        let account = self.account(&place.issuer).await?;
        let listing = self.list(&place.issuer).await?;
        let uses = self.uses(place, listing.keys.iter().map(|listed| listed.id.clone())).await?;
        let readings = self.readings(place, state).await?;
        Ok(Finding::FirstContact { issuer: Box::new(place.issuer.clone()), account, listing, uses, readings })
    }

    async fn observe(&self, place: &Place, state: &ServiceState) -> Found {
        let mut listing = match self.list(place.current_at.as_ref().unwrap_or(&place.issuer)).await {
            // Whoever needs no key any more may have taken the right, or the user, away.
            Err(Fault::Refused { .. }) if state.uses_no_key().is_some() => {
                crate::ports::Listing { keys: Vec::new(), quota: None, date: None }
            }
            listing => listing?,
        };
        let readings = self.readings(place, state).await?;
        let others = self.others(place, state).await?;
        let held = self.current_material(place, state).await?;
        // An issuer that cannot list what was made of its keys does not list when that ends.
        if let Some(material) = &held {
            for listed in listing.keys.iter_mut().filter(|listed| listed.id == *material.key()) {
                listed.expires = listed.expires.or(material.ends());
            }
        }
        // Before the probe, which shows whether the key still serves with what it may do now.
        let unkept = match self.keep(place, state).await {
            Ok(()) => None,
            Err(Fault::Refused { why, .. }) => Some(why),
            // What passes by itself is tried at the next look; what else was seen is told now.
            Err(fault) => {
                warn!("the current key's rights were not compared: {}", fault.why());
                None
            }
        };
        let probe = self.probe_current(place, state, held.as_ref()).await?;
        Ok(Finding::Observed { listing, readings, others, probe, unkept })
    }

    /// Lets a changed policy reach the key in use, where its provider changes rights without a new secret.
    async fn keep(&self, place: &Place, state: &ServiceState) -> Result<(), Fault> {
        // A key that lives at another issuer object follows another policy, and ends with its migration; and what is halted or
        // paused is not changed behind the operator's back.
        let follows = place.current_at.is_none() && state.uses_no_key().is_none() && state.may_open();
        let Some(current) = state.current.as_ref().filter(|_| follows) else { return Ok(()) };
        let issuer = self.issuer(&place.issuer)?;
        if let Some(changed) = self.metered(&place.issuer.object, "keep", issuer.keep(&current.key)).await? {
            info!(key_id = %current.key, "the current key follows the policy: {changed}");
        }
        Ok(())
    }

    async fn slots(&self, place: &Place, state: &ServiceState) -> Found {
        let others = self.others(place, state).await?;
        let account = self.account(&place.issuer).await?;
        let listing = self.list(&place.issuer).await?;
        Ok(Finding::Slots { account, listing, readings: self.readings(place, state).await?, others })
    }

    async fn settle_mint(&self, place: &Place, state: &ServiceState) -> Found {
        let account = self.account(&place.issuer).await?;
        let listing = self.list(&place.issuer).await?;
        let unexplained = listing.keys.iter().map(|listed| listed.id.clone()).filter(|key| !state.explains(key));
        let uses = self.uses(place, unexplained).await?;
        Ok(Finding::Settled { account, listing, uses, readings: self.readings(place, state).await? })
    }

    async fn evidence(&self, place: &Place, key: &KeyId, state: &ServiceState) -> Found {
        // First, since it may take the longest, and what is decided on most is to be as fresh as it can be.
        let others = self.others(place, state).await?;
        let account = self.account(&place.issuer).await?;
        let held = self.current_material(place, state).await?;
        let probe = self.probe_current(place, state, held.as_ref()).await?;
        let readings = self.readings(place, state).await?;
        let issuer = self.issuer(&place.issuer)?;
        let last_use = self.metered(&place.issuer.object, "last_use", issuer.last_use(key)).await;
        let current_listing = match &place.current_at {
            Some(current_at) => Some(self.list(current_at).await?),
            None => None,
        };
        // Listed last, so that what is decided on is as fresh as it can be.
        let listing = self.list(&place.issuer).await?;
        let last_use = match last_use {
            // Somebody else deleted it: then nobody uses it, and its absence is what counts.
            Err(Fault::Refused { reason: Reason::NotFound, .. })
                if listing.keys.iter().all(|listed| listed.id != *key) =>
            {
                LastUse::Untold
            }
            other => other?,
        };
        let evidence = Evidence { account, listing, current_listing, probe, readings, others, last_use };
        Ok(Finding::Evidence(Box::new(evidence)))
    }

    async fn health(&self, place: &Place, state: &ServiceState) -> Found {
        let mut targets = Vec::new();
        for spec in &place.targets {
            targets.push((spec.name.clone(), self.port(place, spec, state).await?.health().await));
        }
        let old = state.rotation.as_ref().and_then(|rotation| rotation.retiring.clone());
        let old_is_held = match old {
            Some(old) if state.keyless.contains_key(&old) => true,
            // One that cannot be opened cannot be pushed back either.
            Some(old) => self.journal.material(&place.service, &old).await.is_ok_and(|held| held.is_some()),
            None => false,
        };
        Ok(Finding::Health { targets, old_is_held })
    }

    /// What targets need of the current key, where its secret is held.
    async fn current_material(&self, place: &Place, state: &ServiceState) -> Result<Option<Material>, Fault> {
        let Some(current) = &state.current else { return Ok(None) };
        self.journal.material(&place.service, &current.key).await.map_err(journal_fault)
    }

    async fn probe_current(
        &self,
        place: &Place,
        state: &ServiceState,
        material: Option<&Material>,
    ) -> Result<Option<Probe>, Fault> {
        let Some(material) = material else { return Ok(None) };
        if let Some(elsewhere) = &place.current_at {
            // What the targets hold that is derived from it was derived there.
            return self.probe_at(elsewhere, material).await.map(Some);
        }
        let targets = place.targets.iter().filter(|spec| self.is_held(state, spec, material));
        self.probe_as(place, &targets.collect::<Vec<_>>(), material).await.map(Some)
    }

    /// Whether a target was handed just what would be derived from this key now: a person may have derived something else, and so may
    /// rekeyd under an earlier policy.
    fn is_held(&self, state: &ServiceState, spec: &TargetSpec, material: &Material) -> bool {
        let (name, key) = (&spec.name, material.key());
        self.handed(spec, material).is_ok_and(|handed| {
            let until = state.derived_until.get(name).and_then(|ends| ends.get(key)).copied();
            state.end_at(name, key) == handed.secret().tail().as_ref() && until == handed.ends()
        })
    }

    /// Tries a key, and whatever these targets hold that is derived from it; the first that does not work tells for all.
    async fn probe_as(&self, place: &Place, targets: &[&TargetSpec], material: &Material) -> Result<Probe, Fault> {
        let probe = self.probe_at(&place.issuer, material).await?;
        let mut tried: Vec<&IssuerSpec> = Vec::new();
        for spec in targets {
            let Some(by) = spec.derived_by.as_deref().filter(|by| probe == Probe::Works && !tried.contains(by)) else {
                continue;
            };
            tried.push(by);
            let derived = self.probe_at(by, &self.handed(spec, material)?).await?;
            if derived != Probe::Works {
                return Ok(derived);
            }
        }
        Ok(probe)
    }

    async fn probe_at(&self, spec: &IssuerSpec, material: &Material) -> Result<Probe, Fault> {
        let issuer = self.issuer(spec)?;
        self.metered(&spec.object, "probe", issuer.probe(material)).await
    }

    /// What a target is handed for a key: the key, or what its issuer derives from it.
    fn handed(&self, spec: &TargetSpec, material: &Material) -> Result<Material, Fault> {
        match &spec.derived_by {
            Some(by) => self.issuer(by)?.derive(material),
            None => Ok(material.clone()),
        }
    }

    /// The targets that hold something derived from a key, and the end of what would be derived from this one now.
    pub(super) fn derived(&self, place: &Place, material: Option<&Material>) -> Vec<(TargetName, Option<Tail>)> {
        let end = |spec: &TargetSpec| self.handed(spec, material?).ok()?.secret().tail();
        let specs = place.targets.iter().filter(|spec| spec.derived_by.is_some());
        specs.map(|spec| (spec.name.clone(), end(spec))).collect()
    }

    async fn account(&self, spec: &IssuerSpec) -> Result<AccountIdentity, Fault> {
        let issuer = self.issuer(spec)?;
        self.metered(&spec.object, "identity", issuer.identity()).await
    }

    async fn list_with_account(&self, spec: &IssuerSpec) -> Found {
        let account = self.account(spec).await?;
        Ok(Finding::Listing { account, listing: self.list(spec).await? })
    }

    /// What targets need of a key that is there already.
    pub(super) async fn known(
        &self,
        spec: &IssuerSpec,
        key: &KeyId,
        secret: Option<Secret>,
    ) -> Result<Option<Material>, Fault> {
        self.issuer(spec)?.known(key, secret).await
    }

    /// Whether a key and the secret an operator gave for it belong together; `None` where that cannot be told now.
    pub(super) async fn is_wrong(&self, spec: &IssuerSpec, material: &Material) -> Option<String> {
        match self.issuer(spec).ok()?.probe(material).await {
            Ok(Probe::Wrong(why) | Probe::NotYet(why)) => Some(why),
            _ => None,
        }
    }

    async fn list(&self, spec: &IssuerSpec) -> Result<crate::ports::Listing, Fault> {
        let issuer = self.issuer(spec)?;
        self.metered(&spec.object, "list", issuer.list()).await
    }

    async fn uses(
        &self,
        place: &Place,
        keys: impl Iterator<Item = KeyId>,
    ) -> Result<Vec<(KeyId, crate::ports::LastUse)>, Fault> {
        let issuer = self.issuer(&place.issuer)?;
        let mut uses = Vec::new();
        for key in keys {
            let last_use = self.metered(&place.issuer.object, "last_use", issuer.last_use(&key)).await?;
            uses.push((key, last_use));
        }
        Ok(uses)
    }

    async fn readings(&self, place: &Place, state: &ServiceState) -> Result<Vec<(TargetName, Reading)>, Fault> {
        let mut readings = Vec::new();
        for spec in &place.targets {
            let port = self.port(place, spec, state).await?;
            let reading = self.metered(spec.name.as_str(), "read", port.read()).await?;
            readings.push((spec.name.clone(), reading));
        }
        Ok(readings)
    }

    /// The places of the targets' deployments that hold a credential of their own and that the policy says nothing of.
    async fn others(&self, place: &Place, state: &ServiceState) -> Result<Others, Fault> {
        // A deployment may show a place in another case than the policy names it, and keeps no two that differ by case alone.
        let is = |name: &TargetName, other: &TargetName| name.as_str().eq_ignore_ascii_case(other.as_str());
        let mut asked = Vec::new();
        let mut others = Others::default();
        for spec in &place.targets {
            if asked.contains(&&spec.system) {
                continue;
            }
            asked.push(&spec.system);
            let port = self.port(place, spec, state).await?;
            for holder in self.metered(spec.name.as_str(), "holders", port.holders()).await? {
                let is_target = place.targets.iter().any(|target| is(&target.name, &holder.name));
                if is_target || place.accepted.iter().any(|accepted| is(accepted, &holder.name)) {
                    continue;
                }
                let told = format!("{} ({})", holder.name, holder.what);
                match holder.unread {
                    Some(why) => others.unread.push(format!("{told} cannot be looked at: {why}")),
                    None if holder.reading == Reading::Nothing => {}
                    None => others.shown.push((told, holder.reading)),
                }
            }
        }
        Ok(others)
    }

    async fn material(&self, place: &Place, key: &KeyId) -> Result<Material, Fault> {
        let held = self.journal.material(&place.service, key).await.map_err(journal_fault)?;
        held.ok_or_else(|| Fault::Refused {
            reason: Reason::SecretNotHeld,
            why: format!("the secret of key {key} is not held in the journal"),
        })
    }

    fn issuer(&self, spec: &IssuerSpec) -> Result<Arc<dyn Issuer>, Fault> {
        self.connect.issuer(spec)
    }

    async fn target<'a>(
        &self,
        place: &'a Place,
        name: &TargetName,
        state: &ServiceState,
    ) -> Result<(Arc<dyn Target>, &'a TargetSpec), Fault> {
        let spec = place.targets.iter().find(|spec| spec.name == *name);
        let spec = spec.expect("an effect's target stands in the snapshot it belongs to");
        Ok((self.port(place, spec, state).await?, spec))
    }

    /// The target's port, told of every secret of this service that a job there may repeat, of what it would hold for each key, and by
    /// which end each is known.
    async fn port(&self, place: &Place, spec: &TargetSpec, state: &ServiceState) -> Result<Arc<dyn Target>, Fault> {
        let port = self.connect.target(spec)?;
        let (mut secrets, mut handed) = (Vec::new(), Vec::new());
        for key in self.journal.materials(&place.service).await.unwrap_or_default() {
            // One that cannot be opened cannot be hidden either; whoever needs it says so.
            if let Ok(Some(material)) = self.journal.material(&place.service, &key).await {
                secrets.extend(material.secrets());
                let derived = place.targets.iter().filter(|spec| spec.derived_by.is_some());
                let derived = derived.filter_map(|spec| self.handed(spec, &material).ok());
                secrets.extend(derived.flat_map(|derived| derived.secrets()));
                handed.extend(self.handed(spec, &material));
            }
        }
        port.know(secrets);
        port.compare_with(handed);
        let ends = state.tails.keys().filter_map(|key| Some((key.clone(), state.end_at(&spec.name, key)?.clone())));
        port.known_as(ends.collect());
        Ok(port)
    }

    async fn metered<T>(
        &self,
        system: &str,
        operation: &'static str,
        request: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let started = Started::now();
        let answer = request.await;
        let outcome = answer.as_ref().map_or_else(Fault::outcome, |_| "ok");
        self.meter.request(system, operation, outcome, started.elapsed());
        answer
    }
}

fn installing(state: &ServiceState) -> Result<&KeyId, Fault> {
    let rotation = state.rotation.as_ref().expect("this effect belongs to a rotation");
    Ok(rotation.installing.as_ref().expect("apply sets the key before the phase Ready"))
}

/// A secret that cannot be opened (the wrong seal key, a damaged row) will not open by itself.
fn journal_fault(error: crate::ports::JournalError) -> Fault {
    Fault::Refused { reason: Reason::SecretNotHeld, why: format!("the sealed secret could not be opened: {error}") }
}
