//! One service as the engine runs it: its state, the policy it is under, what it does now and what it waits for.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::oneshot;
use tokio::time::Instant as Tick;

use crate::model::{Instant, KeyId, Listing, ServiceName, Timestamp};
use crate::policy::{Policy, Service};
use crate::ports::History;
use crate::rotation::{Effect, ServiceState};

use super::order::{Command, Reply};
use super::pace::Pacing;
use super::plan::Seen;

/// One service as the engine runs it.
pub(crate) struct Runner {
    pub(super) state: ServiceState,
    pub(super) policy: Option<Service>,
    pub(super) busy: Option<Effect>,
    pub(super) pacing: Pacing,
    pub(super) waits_for: String,
    pub(super) observed: Option<Tick>,
    /// When a key ends by itself, as it was listed when the service was last observed.
    pub(super) expires: Option<(KeyId, Timestamp)>,
    pub(super) queue: VecDeque<(Command, oneshot::Sender<Reply>)>,
    pub(super) damage: Option<String>,
}

impl Runner {
    pub(super) fn new() -> Self {
        Runner {
            state: ServiceState::default(),
            policy: None,
            busy: None,
            pacing: Pacing::default(),
            waits_for: String::new(),
            observed: None,
            expires: None,
            queue: VecDeque::new(),
            damage: None,
        }
    }

    /// What was seen of it at rest.
    pub(super) fn seen(&self) -> Seen {
        let current = self.state.current.as_ref().map(|current| &current.key);
        let expires = self.expires.as_ref().filter(|(key, _)| Some(key) == current);
        Seen { observed: self.observed, expires: expires.map(|(_, at)| *at) }
    }

    /// Remembers when the current key ends, by what was listed.
    pub(super) fn note_expiry(&mut self, listing: &Listing, now: &Instant) {
        let current = self.state.current.as_ref().map(|current| &current.key);
        let listed = listing.keys.iter().find(|listed| Some(&listed.id) == current);
        let ends = listed.and_then(|listed| Some((listed.id.clone(), listed.expires?)));
        self.expires = ends.map(|(key, at)| (key, listing.on_our_clock(at, now)));
    }

    /// A service as its history leaves it, up to the first event that does not verify or does not fit.
    pub(super) fn replayed(history: History) -> (ServiceName, Runner) {
        let replayed = ServiceState::replay(history.records.iter().map(|record| (&record.event, &record.at)));
        let (state, illegal) = match replayed {
            Ok(state) => (state, None),
            Err((sequence, illegal)) => {
                let sound = history.records.iter().take_while(|record| record.sequence < sequence);
                let state = ServiceState::replay(sound.map(|record| (&record.event, &record.at)));
                (state.unwrap_or_default(), Some(format!("event {sequence} does not fit: {illegal}")))
            }
        };
        (history.service, Runner { state, damage: history.damage.or(illegal), ..Runner::new() })
    }
}

/// New services appear, others lose their policy and leave once they are clean.
pub(super) fn put_under(services: &mut BTreeMap<ServiceName, Runner>, policy: &Policy) {
    for runner in services.values_mut() {
        runner.policy = None;
    }
    for service in &policy.services {
        let runner = services.entry(service.name.clone()).or_insert_with(Runner::new);
        runner.policy = Some(service.clone());
        runner.observed = None;
    }
}
