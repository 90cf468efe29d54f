//! What can happen to a service, in the words of the journal.
//!
//! An event ending in `Begun` is an intent: it is durable before its effect. Every other event is a result: it is durable
//! before the next effect. Domain types only; how they are written is `journal::wire`'s business.

use crate::model::Reading;
use crate::model::{
    AccountIdentity, Holder, IntentId, IssuerSpec, JobId, KeyId, Keyless, Reason, RotationId, Tail, TargetName,
    TargetSpec, Terms, Timestamp,
};

/// One thing that happened to one service.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    // The service at rest.
    /// A current key is known from now on.
    Adopted {
        /// The key.
        key: KeyId,
        /// When the provider says it was made.
        created: Option<Timestamp>,
        /// On whose word.
        by: AdoptedBy,
        /// What each target showed then, where that was read.
        readings: Vec<(TargetName, Reading)>,
        /// The provider account it lives in.
        account: Option<AccountIdentity>,
        /// The issuer object it lives at.
        issuer: Option<Box<IssuerSpec>>,
        /// The end of its secret, where that came with the word.
        tail: Option<Tail>,
        /// The targets that hold something derived from it and not the key itself.
        derived: Vec<TargetName>,
    },
    /// Somebody ordered a rotation; it is opened when window, group and budget allow.
    Ordered {
        /// Who.
        cause: Cause,
    },
    /// Somebody ordered the move to a credential without a key, or back to a key. It is opened at once, or halts.
    SwitchOrdered {
        /// To what; `None` is a key, freshly minted.
        to: Option<Keyless>,
        /// Who.
        by: String,
    },
    /// No new rotation is opened.
    Paused {
        /// Who.
        by: String,
    },
    /// Rotations are opened again.
    Resumed {
        /// Who.
        by: String,
    },
    /// The service waits for an operator.
    Halted {
        /// Why, as a fixed word.
        reason: Reason,
        /// What was tried, on what, what came back, what state that left.
        message: String,
    },
    /// The operator wants it looked at again.
    Retried {
        /// Who.
        by: String,
    },
    /// The world differs from the journal and we did not do it.
    DriftFound {
        /// What differs.
        what: String,
    },
    /// It no longer does.
    DriftCleared,
    /// Keys at the issuer that the journal does not know, as seen now (empty when there are none any more).
    StrangersSeen {
        /// Their ids.
        keys: Vec<KeyId>,
    },
    /// The operator says that a key is somebody else's; it is left alone.
    Disowned {
        /// The key.
        key: KeyId,
        /// Who.
        by: String,
    },
    /// The operator says that a key is ours and not needed; it is retired.
    ReclaimOrdered {
        /// The key.
        key: KeyId,
        /// Whether the provider had not seen it in use.
        unused: bool,
        /// Who.
        by: String,
        /// The issuer object it was listed at; a migration may have left it elsewhere than the current key.
        issuer: Option<Box<IssuerSpec>>,
        /// The provider account it lives in.
        account: Option<AccountIdentity>,
    },
    /// The operator takes responsibility for a key that is still in use.
    DespiteUseOrdered {
        /// Who.
        by: String,
    },

    // A rotation.
    /// A rotation begins. It ends under this snapshot, whatever happens to the policy.
    Opened {
        /// Its id.
        rotation: RotationId,
        /// Why.
        cause: Cause,
        /// A fresh key, or the current one again.
        kind: RotationKind,
        /// How the world was.
        snapshot: Box<Snapshot>,
    },
    /// A mint is about to be sent.
    MintBegun {
        /// The intent; at most one request is ever sent for it.
        intent: IntentId,
        /// The keys that existed.
        before: Vec<KeyId>,
        /// The idle key it destroys, where keys live in slots.
        replaces: Option<KeyId>,
    },
    /// The mint answered. The sealed material is written in the same transaction.
    Minted {
        /// The new key.
        key: KeyId,
        /// When the provider says it was made.
        created: Option<Timestamp>,
        /// The end of its secret, as a target would show it.
        tail: Option<Tail>,
    },
    /// Surely no key was made: the request was not sent, or refused.
    MintFailed {
        /// What came back.
        why: String,
    },
    /// A key may have been made.
    MintUnknown {
        /// What is known.
        why: String,
    },
    /// The horizon has passed and the issuer was looked at.
    MintSettled {
        /// Keys that did not exist before.
        found: Vec<KeyId>,
        /// Whether the one found may be taken for ours and destroyed (exclusive, made in the window, never used).
        reclaim: bool,
    },
    /// The new key worked once.
    ProbePassed {
        /// The key.
        key: KeyId,
    },
    /// The new key did not work; the row of successes starts again.
    ProbeFailed {
        /// The key.
        key: KeyId,
        /// What came back.
        why: String,
    },
    /// A key is about to be handed to a target, which may hold it from now on.
    PushBegun {
        /// The target.
        target: TargetName,
        /// The key.
        key: KeyId,
        /// The jobs known there before.
        jobs: Vec<JobId>,
        /// The end of what is handed over, where that is derived from the key.
        derived: Option<Tail>,
        /// When that ends by itself, where it does.
        until: Option<Timestamp>,
    },
    /// The target took it.
    Submitted {
        /// The target.
        target: TargetName,
        /// The job to follow; `None` where the push was done with the answer.
        job: Option<JobId>,
    },
    /// Surely nothing was pushed.
    PushFailed {
        /// The target.
        target: TargetName,
        /// Whether asking again cannot help.
        refused: bool,
        /// What came back.
        why: String,
    },
    /// It may have been pushed.
    PushUnknown {
        /// The target.
        target: TargetName,
        /// What is known.
        why: String,
    },
    /// The job's own result says that it worked.
    Confirmed {
        /// The target.
        target: TargetName,
    },
    /// The job ended and did not work.
    JobFailed {
        /// The target.
        target: TargetName,
        /// What it says.
        why: String,
    },
    /// The job's outcome can no longer be learnt.
    JobLost {
        /// The target.
        target: TargetName,
        /// What is known.
        why: String,
    },
    /// The push is over and not proven: the target shows another key, or no job vouches for what it shows. It is pushed again.
    NotMoved {
        /// The target.
        target: TargetName,
        /// The key it shows, where that can be told.
        shows: Option<KeyId>,
    },
    /// The target holds the key.
    Verified {
        /// The target.
        target: TargetName,
        /// Whether the read-back proved it; if not, the longer soak applies.
        proven: bool,
    },
    /// The new key is taken back; no target holds it.
    UndoBegun {
        /// Why, as a fixed word.
        reason: Reason,
        /// What happened.
        why: String,
    },
    /// The previous key is put back.
    RollbackBegun {
        /// Who, or what check.
        by: String,
    },
    /// The rotation is over.
    Closed {
        /// How.
        outcome: Outcome,
    },

    // A key on its way out: the old one, one taken back, one reclaimed, a debt.
    /// A key is about to be disabled.
    DisableBegun {
        /// The key.
        key: KeyId,
        /// What was looked at, for the record.
        evidence: String,
    },
    /// It is disabled.
    Disabled {
        /// The key.
        key: KeyId,
    },
    /// A disabled key is about to be enabled again, since a consumer failed; the service halts when it is.
    EnableBegun {
        /// The key.
        key: KeyId,
        /// Why.
        why: String,
    },
    /// It is enabled.
    Enabled {
        /// The key.
        key: KeyId,
    },
    /// A key is about to be deleted.
    DeleteBegun {
        /// The key.
        key: KeyId,
        /// What was looked at, for the record.
        evidence: String,
    },
    /// The issuer took the deletion, or no longer lists the key.
    Deleted {
        /// The key.
        key: KeyId,
    },
    /// The issuer will not retire it: a debt, retried.
    RetireRefused {
        /// The key.
        key: KeyId,
        /// What came back.
        why: String,
    },
    /// A complete listing did not show it.
    AbsentOnce {
        /// The key.
        key: KeyId,
    },
    /// A listing showed it again.
    Reappeared {
        /// The key.
        key: KeyId,
    },
    /// A second listing, the horizon later, did not show it either.
    Gone {
        /// The key.
        key: KeyId,
    },
}

/// On whose word a key became current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdoptedBy {
    /// The only Active key, used lately: taken on by itself. It is disabled in its time, never deleted.
    FirstContact,
    /// An operator's.
    Operator(String),
}

/// Why a rotation was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It was due.
    Timetable,
    /// `max_age` is over and `break_window` is on.
    MaxAge,
    /// SIGUSR1.
    Signal,
    /// An operator's command.
    Operator {
        /// Who.
        by: String,
        /// The old key is in wrong hands: no window, no soak.
        compromised: bool,
    },
    /// A target lost the key and `on_drift = "push"`.
    Drift,
}

/// What a rotation installs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RotationKind {
    /// A key yet to be minted, in place of the current one.
    Fresh,
    /// The current key again, at these targets.
    Repush(Vec<TargetName>),
    /// A credential without a key, in place of the current one. Nothing is minted.
    Switch(Keyless),
}

impl RotationKind {
    /// What brings such a credential, or a key where that is wanted.
    pub fn to(keyless: Option<Keyless>) -> Self {
        keyless.map_or(Self::Fresh, Self::Switch)
    }

    /// Whether it puts something else in place of the current key.
    pub fn replaces(&self) -> bool {
        !matches!(self, Self::Repush(_))
    }
}

/// How the world was when a rotation opened, and the terms it keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The issuer as the policy had it.
    pub issuer: IssuerSpec,
    /// The provider's own identity of its account.
    pub account: AccountIdentity,
    /// The targets as the policy had them, and as found.
    pub targets: Vec<SnapshotTarget>,
    /// The timing.
    pub terms: Terms,
}

impl Snapshot {
    /// The targets that hold something derived.
    pub fn derived_targets(&self) -> impl Iterator<Item = &TargetName> {
        self.targets.iter().filter(|found| found.spec.derived_by.is_some()).map(|found| &found.spec.name)
    }
}

/// One target of a snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotTarget {
    /// As the policy had it.
    pub spec: TargetSpec,
    /// What really stores the key there.
    pub holder: Holder,
    /// What it showed.
    pub reading: Reading,
    /// The jobs known there.
    pub jobs: Vec<JobId>,
    /// Whether its health check was good; false where none is configured.
    pub healthy: bool,
}

/// How a rotation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The new key is in place and the old one is gone.
    Done,
    /// The new key was taken back; the service halts with this.
    Failed {
        /// Why, as a fixed word.
        reason: Reason,
        /// What happened.
        why: String,
    },
    /// The previous key is in place again and the newer one is gone.
    RolledBack,
    /// An operator ended it.
    Abandoned {
        /// Who.
        by: String,
        /// The key the targets hold, by the operator's word.
        holds: Option<KeyId>,
    },
}

impl Event {
    /// Whether it is written only after a look at the issuer that fits the journal.
    pub fn agrees_with_issuer(&self) -> bool {
        matches!(
            self,
            Self::Adopted { .. }
                | Self::Opened { .. }
                | Self::MintBegun { .. }
                | Self::Minted { .. }
                | Self::MintSettled { .. }
                | Self::PushBegun { .. }
                | Self::DisableBegun { .. }
                | Self::DeleteBegun { .. }
                | Self::AbsentOnce { .. }
                | Self::Gone { .. }
        )
    }

    /// The event's name, as history and log write it and the journal stores it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Adopted { .. } => "adopted",
            Self::Ordered { .. } => "ordered",
            Self::SwitchOrdered { .. } => "switch_ordered",
            Self::Paused { .. } => "paused",
            Self::Resumed { .. } => "resumed",
            Self::Halted { .. } => "halted",
            Self::Retried { .. } => "retried",
            Self::DriftFound { .. } => "drift_found",
            Self::DriftCleared => "drift_cleared",
            Self::StrangersSeen { .. } => "strangers_seen",
            Self::Disowned { .. } => "disowned",
            Self::ReclaimOrdered { .. } => "reclaim_ordered",
            Self::DespiteUseOrdered { .. } => "despite_use_ordered",
            Self::Opened { .. } => "opened",
            Self::MintBegun { .. } => "mint_begun",
            Self::Minted { .. } => "minted",
            Self::MintFailed { .. } => "mint_failed",
            Self::MintUnknown { .. } => "mint_unknown",
            Self::MintSettled { .. } => "mint_settled",
            Self::ProbePassed { .. } => "probe_passed",
            Self::ProbeFailed { .. } => "probe_failed",
            Self::PushBegun { .. } => "push_begun",
            Self::Submitted { .. } => "submitted",
            Self::PushFailed { .. } => "push_failed",
            Self::PushUnknown { .. } => "push_unknown",
            Self::Confirmed { .. } => "confirmed",
            Self::JobFailed { .. } => "job_failed",
            Self::JobLost { .. } => "job_lost",
            Self::NotMoved { .. } => "not_moved",
            Self::Verified { .. } => "verified",
            Self::UndoBegun { .. } => "undo_begun",
            Self::RollbackBegun { .. } => "rollback_begun",
            Self::Closed { .. } => "closed",
            Self::DisableBegun { .. } => "disable_begun",
            Self::Disabled { .. } => "disabled",
            Self::EnableBegun { .. } => "enable_begun",
            Self::Enabled { .. } => "enabled",
            Self::DeleteBegun { .. } => "delete_begun",
            Self::Deleted { .. } => "deleted",
            Self::RetireRefused { .. } => "retire_refused",
            Self::AbsentOnce { .. } => "absent_once",
            Self::Reappeared { .. } => "reappeared",
            Self::Gone { .. } => "gone",
        }
    }
}
