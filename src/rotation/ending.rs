//! How a rotation ends: closed with its outcome, or abandoned on the word of somebody who has looked.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::model::{Instant, KeyId};

use super::event::{Outcome, Snapshot};
use super::retire::Why;
use super::{Course, Halt, Phase, Push, Rotation, ServiceState};

impl ServiceState {
    pub(super) fn close(&mut self, outcome: &Outcome, at: &Instant) -> Result<(), ()> {
        let rotation = self.rotation.take().ok_or(())?;
        self.remember_lost_pushes(&rotation, at);
        match outcome {
            Outcome::Done if rotation.phase >= Phase::Deployed => self.tally.done += 1,
            Outcome::RolledBack if rotation.phase >= Phase::Deployed => {
                self.tally.rolled_back += 1;
                self.failures += 1;
                // The restored key is as old as it was, and the next rotation would be opened at once.
                let by = if let Course::RollingBack { by, .. } = &rotation.course { by.as_str() } else { "" };
                let key = rotation.installing.as_ref().map_or("", KeyId::as_str);
                let message = format!(
                    "key {key} was put back, on the word of {by}; the newer key is gone, and no other is made until somebody \
                     has looked"
                );
                self.halt = Some(Halt { reason: super::Reason::RolledBack, message, at: at.wall });
            }
            Outcome::Failed { reason, why } if matches!(rotation.course, Course::Undoing { .. }) => {
                self.tally.failed += 1;
                self.failures += 1;
                self.halt = Some(Halt { reason: *reason, message: why.clone(), at: at.wall });
            }
            // A key that may have been made would be forgotten.
            Outcome::Abandoned { .. } if rotation.phase == Phase::Minting => return Err(()),
            Outcome::Abandoned { holds, .. } => {
                self.tally.abandoned += 1;
                self.abandon(&rotation, holds.as_ref(), at)?;
            }
            _ => return Err(()),
        }
        Ok(())
    }

    /// The operator says which key the targets hold; the other one becomes a debt.
    fn abandon(&mut self, rotation: &Rotation, holds: Option<&KeyId>, at: &Instant) -> Result<(), ()> {
        self.halt = None;
        let both = [rotation.installing.clone(), rotation.retiring.clone()];
        let holds = match holds {
            Some(key) if both.iter().flatten().any(|known| known == key) => key.clone(),
            Some(_) => return Err(()),
            // Nothing was pushed, so the targets hold what they held.
            None if !rotation.any_touched() && rotation.course == Course::Forward => rotation.former.key.clone(),
            None => return Err(()),
        };
        let mut unsure = Duration::ZERO;
        for target in &rotation.targets {
            let mut held = BTreeSet::from([holds.clone()]);
            // A job that may still run may store the other key after the operator has looked.
            let under_way = matches!(target.push, Push::Begun { .. } | Push::Unknown { .. } | Push::Submitted { .. });
            let (lost, other_lost) = (target.last_lost().is_some(), target.other_lost.is_some());
            if under_way || lost {
                held.extend(rotation.installing.clone());
            }
            if other_lost {
                held.extend(rotation.retiring.clone());
            }
            if under_way || lost || other_lost {
                let spec = rotation.snapshot.targets.iter().find(|found| found.spec.name == target.name);
                let timeout = spec.map_or(Duration::ZERO, |found| found.spec.job_timeout);
                unsure = unsure.max(timeout).max(rotation.snapshot.terms.soak_unproven);
            }
            self.may_hold.insert(target.name.clone(), held);
        }
        let lives: Vec<(KeyId, Snapshot)> =
            both.iter().flatten().map(|key| (key.clone(), self.where_it_lives(rotation, key))).collect();
        if let Some((_, home)) = lives.iter().find(|(key, _)| *key == holds) {
            self.home = Some(home.issuer.clone());
            self.account = Some(home.account.clone());
        }
        if self.leaving.remove(&holds).is_some_and(|leaving| !leaving.is_untouched(at)) {
            return Err(());
        }
        for (key, place) in lives {
            if key == holds {
                self.current = Some(rotation.as_current(key, at));
            } else if !self.leaving.contains_key(&key) && rotation.kind.replaces() {
                let watch = rotation.snapshot.terms.watch;
                self.leave_from(&key, Why::Debt, at, unsure, watch, Some(place));
                if let Some(retirement) = self.leaving.get_mut(&key) {
                    retirement.unproven = !unsure.is_zero();
                    retirement.ours = rotation.is_ours(&key);
                    retirement.silent_since = Some(at.clone());
                }
            }
        }
        Ok(())
    }
}
