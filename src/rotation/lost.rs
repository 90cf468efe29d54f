//! Pushes that were lost: nobody knows whether they were carried out, and they may still be, after a push that came later.

use std::time::Duration;

use crate::model::{Instant, KeyId, TargetName};

use super::{JobEnd, Push, Rotation, ServiceState, TargetProgress};

/// A push that may still be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostPush {
    /// Where.
    pub target: TargetName,
    /// Of which key.
    pub key: KeyId,
    /// When it was begun.
    pub begun: Instant,
    /// How long its job may take from then.
    pub takes: Duration,
}

impl LostPush {
    /// How much longer it may run.
    pub(super) fn left(&self, now: &Instant) -> Duration {
        self.takes.saturating_sub(now.since(&self.begun))
    }
}

impl ServiceState {
    /// What a rotation that is over has sent and lost is remembered: it may come after the next one's push.
    pub(super) fn remember_lost_pushes(&mut self, rotation: &Rotation, at: &Instant) {
        self.lost_pushes.retain(|push| !push.left(at).is_zero());
        let new: Vec<_> =
            rotation.lost_pushes(at).into_iter().filter(|push| !self.lost_pushes.contains(push)).collect();
        self.lost_pushes.extend(new);
    }

    /// How much longer a push of a key that an earlier rotation lost may still be carried out.
    pub(super) fn lost_push_left(&self, key: &KeyId, now: &Instant) -> Duration {
        let of_key = self.lost_pushes.iter().filter(|push| push.key == *key);
        of_key.map(|push| push.left(now)).max().unwrap_or_default()
    }

    /// When the last push of another key was begun that an earlier rotation lost at a target.
    pub(super) fn lost_before(&self, target: &TargetName, installing: Option<&KeyId>, at: &Instant) -> Option<Instant> {
        let other = |push: &&LostPush| push.target == *target && Some(&push.key) != installing;
        let running = self.lost_pushes.iter().filter(other).filter(|push| !push.left(at).is_zero());
        running.map(|push| &push.begun).reduce(|last, begun| if begun.is_after(last) { begun } else { last }).cloned()
    }
}

impl Rotation {
    /// The pushes that were lost or are under way, and may still be carried out.
    pub(super) fn lost_pushes(&self, now: &Instant) -> Vec<LostPush> {
        let mut lost = Vec::new();
        for target in &self.targets {
            let under_way = match &target.push {
                Push::Begun { at, .. } | Push::Unknown { at, .. } | Push::Submitted { at, .. } => Some(at),
                _ => None,
            };
            let installing = under_way.or(target.last_lost());
            for (key, begun) in [(&self.installing, installing), (&self.retiring, target.other_lost.as_ref())] {
                let (Some(key), Some(begun)) = (key.clone(), begun.cloned()) else { continue };
                let takes = self.job_timeout(&target.name);
                lost.push(LostPush { target: target.name.clone(), key, begun, takes });
            }
        }
        lost.retain(|push| !push.left(now).is_zero());
        lost
    }
}

impl TargetProgress {
    /// When the last push was begun whose job is not known to be over.
    pub(super) fn last_lost(&self) -> Option<&Instant> {
        match &self.push {
            Push::Ended { begun, how: JobEnd::Lost | JobEnd::Guessed, .. } => Some(begun),
            _ => self.lost.as_ref(),
        }
    }
}
