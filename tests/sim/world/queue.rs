//! What is still on its way: requests that arrive late, jobs that end, and what somebody else will do. It happens when it is due,
//! not when somebody looks.

use std::collections::BTreeSet;
use std::time::Duration;

use rekeyd::model::{JobId, JobState, KeyId};

use super::{Actor, At, ByHand, Deed, World};

/// One thing that is due some day.
#[derive(Clone)]
pub(super) enum Happening {
    /// A request arrives that was sent before.
    Late { deed: Deed, by: Actor, sent: At },
    /// A job ends.
    JobEnds { target: String, job: JobId },
    /// Somebody else does something.
    ByHand(ByHand),
}

impl World {
    /// Whether something is still on its way.
    pub fn quiet_at(&self) -> Option<At> {
        self.queue.keys().next_back().map(|(at, _)| *at)
    }

    pub(super) fn catch_up(&mut self) {
        let now = self.now();
        while let Some(((at, _), _)) = self.queue.first_key_value()
            && *at <= now
        {
            let ((at, _), happening) = self.queue.pop_first().expect("it was just looked at");
            // Nobody looked since, and it happened when it was due.
            self.as_of = Some(at);
            match happening {
                Happening::Late { deed, by, sent } => {
                    self.tell(|| format!("what was sent at {:.2} s arrives: {deed:?}", sent.as_secs_f64()));
                    let _ = self.execute(&deed, by, sent, true);
                }
                Happening::JobEnds { target, job } => self.job_ends(&target, &job),
                Happening::ByHand(deed) => deed(self),
            }
        }
        self.as_of = None;
    }

    /// Somebody else will do something.
    pub fn schedule(&mut self, at: At, deed: ByHand) {
        let number = self.number();
        self.queue.insert((at, number), Happening::ByHand(deed));
    }

    /// A request that is executed when it is too late for its answer.
    pub fn send_late(&mut self, deed: Deed, by: Actor, edge: bool) {
        let delay = match (&deed, edge) {
            (_, false) => Duration::from_secs(3),
            (Deed::Push { target, .. }, true) => {
                let place = &self.places[target];
                place.job_timeout.saturating_sub(place.takes + Duration::from_secs(2))
            }
            (
                Deed::Mint { object, .. }
                | Deed::Disable { object, .. }
                | Deed::Enable { object, .. }
                | Deed::Delete { object, .. },
                true,
            ) => {
                // The horizon is that of a look, and what arrives must be listed by then.
                let vault = &self.vaults[object];
                vault.settle.saturating_sub(vault.lag + Duration::from_secs(2))
            }
        };
        let sent = self.now();
        if let Deed::Mint { object, .. } | Deed::Disable { object, .. } | Deed::Delete { object, .. } = &deed {
            let vault = self.vaults.get_mut(object).expect("a deed is about a vault that is there");
            vault.steady_until = sent + vault.settle;
        }
        let number = self.number();
        self.queue.insert((sent + delay, number), Happening::Late { deed, by, sent });
    }

    /// Keys that a target holds, or may be given by what is on its way already.
    pub fn held_or_coming(&self, target: &str) -> BTreeSet<KeyId> {
        let place = &self.places[target];
        let running = place.jobs.iter().filter(|job| matches!(job.state, JobState::Running(_)));
        let mut keys: BTreeSet<KeyId> = running.map(|job| job.key.clone()).collect();
        keys.extend(place.holds.clone());
        for happening in self.queue.values() {
            if let Happening::Late { deed: Deed::Push { target: at, key }, .. } = happening
                && at == target
            {
                keys.insert(key.clone());
            }
        }
        keys
    }

    /// Whether a push that another process sent is on its way, and no job tells of it yet.
    pub fn is_coming_from_another(&self, target: &str, key: &KeyId, process: usize) -> bool {
        self.queue.values().any(|happening| match happening {
            Happening::Late { deed: Deed::Push { target: at, key: pushed }, by, .. } => {
                at == target && pushed == key && *by != Actor::Rekeyd(process)
            }
            _ => false,
        })
    }
}
