//! Where an effect acts: the issuer and targets of the policy, of an open rotation, or of a key on its way out.

use std::time::Duration;

use crate::model::{IssuerSpec, KeyId, Keyless, ServiceName, TargetName, TargetSpec, Terms};
use crate::rotation::Effect;
use crate::rotation::event::Snapshot;

use super::Engine;

/// Where an effect acts: the issuer and targets of the policy, of an open rotation, or of a key on its way out.
#[derive(Clone, Debug)]
pub struct Place {
    /// Whose.
    pub service: ServiceName,
    /// The issuer object.
    pub issuer: IssuerSpec,
    /// The targets.
    pub targets: Vec<TargetSpec>,
    /// The terms a rotation would be opened under.
    pub terms: Terms,
    /// Where the current key lives, if that is another issuer object.
    pub current_at: Option<IssuerSpec>,
    /// Holders that the policy leaves to somebody else.
    pub accepted: Vec<TargetName>,
    /// What the rotation that is about to be opened switches the targets to, where it brings no key.
    pub switch_to: Option<Keyless>,
}

impl Place {
    /// How often a target's job is looked at, for effects that wait for one.
    pub(super) fn poll_of(&self, effect: &Effect) -> Option<Duration> {
        let (Effect::Poll(name, _) | Effect::ReadBack(name)) = effect else { return None };
        self.targets.iter().find(|spec| spec.name == *name).map(|spec| spec.poll)
    }
}

impl Engine {
    /// The policy's targets with every issuer object at which a key of the service may live: the policy's, the open rotation's,
    /// and where the current key is at home.
    pub(super) fn places_of_keys(&self, name: &ServiceName) -> Vec<Place> {
        let Some(place) = self.place(name, &Effect::FirstContact) else { return Vec::new() };
        let state = &self.services[name].state;
        let opened = state.rotation.as_ref().map(|rotation| rotation.snapshot.issuer.clone());
        let issuers = [Some(place.issuer.clone()), opened, state.home.clone()].into_iter().flatten();
        issuers.map(|issuer| Place { issuer, current_at: None, ..place.clone() }).collect()
    }

    /// Where an effect acts. An open rotation and a key on its way out keep the specs they were opened with.
    pub(super) fn place(&self, name: &ServiceName, effect: &Effect) -> Option<Place> {
        let runner = &self.services[name];
        let state = &runner.state;
        let accepted = runner.policy.as_ref().map(|service| service.accept_holders.clone()).unwrap_or_default();
        let from_policy = runner.policy.as_ref().map(|service| Place {
            service: name.clone(),
            issuer: service.issuer.clone(),
            targets: service.targets.clone(),
            terms: service.terms.clone(),
            current_at: state.home.clone().filter(|home| home.object != service.issuer.object),
            accepted: accepted.clone(),
            switch_to: None,
        });
        let from_snapshot = |snapshot: &Snapshot| Place {
            service: name.clone(),
            issuer: snapshot.issuer.clone(),
            targets: snapshot.targets.iter().map(|found| found.spec.clone()).collect(),
            terms: snapshot.terms.clone(),
            current_at: state.home.clone().filter(|home| home.object != snapshot.issuer.object),
            accepted: accepted.clone(),
            switch_to: None,
        };
        let of_leaving = |key: &KeyId| {
            let leaving = state.leaving.get(key)?;
            let told = leaving.place.as_deref().or(state.last_place.as_ref()).map(from_snapshot);
            // Without a rotation that tells, the key lives where the current one does, whatever the policy says by now.
            let at_home = from_policy.clone().map(|place| Place {
                issuer: state.home.clone().unwrap_or_else(|| place.issuer.clone()),
                current_at: None,
                ..place
            });
            told.or(at_home)
        };
        let of_rotation = || state.rotation.as_ref().map(|rotation| from_snapshot(&rotation.snapshot));
        match effect {
            Effect::Survey | Effect::FirstContact | Effect::Observe => from_policy,
            Effect::Evidence(key, _) => {
                let mut place = of_leaving(key).or_else(of_rotation)?;
                // A key may have come to any target that the service has had since.
                let latest = of_rotation().or_else(|| state.last_place.as_ref().map(from_snapshot));
                for spec in [latest, from_policy].into_iter().flatten().flat_map(|place| place.targets) {
                    if place.targets.iter().all(|known| known.name != spec.name) {
                        place.targets.push(spec);
                    }
                }
                Some(place)
            }
            Effect::Disable(key) | Effect::Enable(key) | Effect::Delete(key) | Effect::Absence(key) => {
                of_leaving(key).or_else(of_rotation)
            }
            _ => of_rotation(),
        }
    }
}
