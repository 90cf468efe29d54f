//! What operators and signals can ask of the engine, and what it answers.

use std::sync::Arc;

use crate::model::{KeyId, Keyless, Secret, ServiceName, TargetName};
use crate::policy::Policy;

/// An order to the engine. `by` says who gave it, for the journal: `uid 0 (root)`, `SIGUSR1`.
#[derive(Debug)]
pub enum Command {
    /// Rotate these services now; none named means all.
    Rotate {
        /// Which.
        services: Vec<ServiceName>,
        /// The old keys are in wrong hands: no window, no soak.
        compromised: bool,
        /// Who.
        by: String,
    },
    /// SIGUSR1: rotate every service with `on_signal`.
    RotateOnSignal,
    /// SIGUSR2: end every back-off.
    TryNow,
    /// SIGHUP: a policy that was read and found good.
    Reload(Arc<Policy>),
    /// Take this key for the one the targets hold.
    Adopt {
        /// Which.
        service: ServiceName,
        /// The key.
        key: KeyId,
        /// Its secret, where the operator has it.
        secret: Option<Secret>,
        /// Whether the operator says that nobody uses the idle slot, where there are slots.
        idle_slot_free: bool,
        /// Who.
        by: String,
    },
    /// Open no new rotation.
    Pause {
        /// Which.
        service: ServiceName,
        /// Who.
        by: String,
    },
    /// Open rotations again.
    Resume {
        /// Which.
        service: ServiceName,
        /// Who.
        by: String,
    },
    /// Look again, and go on if the world now allows it.
    Retry {
        /// Which.
        service: ServiceName,
        /// Who.
        by: String,
    },
    /// Put the previous key back.
    Rollback {
        /// Which.
        service: ServiceName,
        /// Who.
        by: String,
    },
    /// Push the current key again.
    Repush {
        /// Which.
        service: ServiceName,
        /// To one target only.
        target: Option<TargetName>,
        /// Who.
        by: String,
    },
    /// Move the targets to a credential without a key, or back to a key.
    Switch {
        /// Which.
        service: ServiceName,
        /// To what; `None` is a key, freshly minted.
        to: Option<Keyless>,
        /// Also where the secret of the key in use is not held, so that it cannot be put back.
        no_way_back: bool,
        /// Who.
        by: String,
    },
    /// Retire the old key though it is in use.
    RetireDespiteUse {
        /// Which.
        service: ServiceName,
        /// Who.
        by: String,
    },
    /// End the open rotation.
    Abandon {
        /// Which.
        service: ServiceName,
        /// The key the targets hold.
        holds: Option<KeyId>,
        /// Who.
        by: String,
    },
    /// A stranger is ours and unused: destroy it.
    Reclaim {
        /// Which.
        service: ServiceName,
        /// The key.
        key: KeyId,
        /// Who.
        by: String,
    },
    /// A stranger is somebody else's: leave it alone.
    Disown {
        /// Which.
        service: ServiceName,
        /// The key.
        key: KeyId,
        /// Who.
        by: String,
    },
}

/// What the engine answers: one line for each service an order touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// In the policy's order.
    pub said: Vec<Said>,
}

/// What became of an order at one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The service; `None` where the order was about none.
    pub service: Option<ServiceName>,
    /// Whether it was accepted.
    pub accepted: bool,
    /// In a sentence.
    pub message: String,
}

impl Reply {
    pub(super) fn one(service: &ServiceName, accepted: bool, message: impl Into<String>) -> Reply {
        Reply { said: vec![Said { service: Some(service.clone()), accepted, message: message.into() }] }
    }

    /// Whether everything ordered was accepted.
    pub fn all_accepted(&self) -> bool {
        self.said.iter().all(|said| said.accepted)
    }
}

impl Command {
    pub(super) fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Rotate { .. } | Self::RotateOnSignal | Self::TryNow | Self::Reload(_) => None,
            Self::Adopt { service, .. }
            | Self::Pause { service, .. }
            | Self::Resume { service, .. }
            | Self::Retry { service, .. }
            | Self::Rollback { service, .. }
            | Self::Repush { service, .. }
            | Self::Switch { service, .. }
            | Self::RetireDespiteUse { service, .. }
            | Self::Abandon { service, .. }
            | Self::Reclaim { service, .. }
            | Self::Disown { service, .. } => Some(service),
        }
    }
}
