//! The table of events: what each is called in the journal and what it holds. A row here is the written form and both ways
//! of translation at once; a domain event without a row does not compile.

use serde::{Deserialize, Serialize};

use super::{Stored, Unread};
use crate::model::{
    AccountIdentity, IntentId, IssuerSpec, JobId, KeyId, Keyless, Reason, RotationId, Tail, TargetName, Timestamp,
};
use crate::ports::Reading;
use crate::rotation::event::{AdoptedBy, Cause, Event, Outcome, RotationKind, Snapshot};

macro_rules! events {
    ($( $variant:ident as $kind:literal { $( $(#[$meta:meta])* $field:ident: $type:ty ),* $(,)? } )*) => {
        /// Every kind of event this rekeyd knows.
        pub(super) const KINDS: &[&str] = &[$($kind),*];

        /// The written form of an event, all of it but the version.
        #[derive(Serialize, Deserialize)]
        #[serde(tag = "kind")]
        pub(super) enum EventForm {
            $( #[serde(rename = $kind)] $variant { $( $(#[$meta])* $field: <$type as Stored>::Form ),* }, )*
        }

        impl Stored for Event {
            type Form = EventForm;

            fn form(&self) -> EventForm {
                match self {
                    $( Event::$variant { $($field),* } => EventForm::$variant { $($field: $field.form()),* }, )*
                }
            }

            fn read(form: EventForm) -> Result<Self, Unread> {
                Ok(match form {
                    $( EventForm::$variant { $($field),* } => Event::$variant { $($field: Stored::read($field)?),* }, )*
                })
            }
        }
    };
}

events! {
    Adopted as "adopted" {
        key: KeyId,
        created: Option<Timestamp>,
        by: AdoptedBy,
        readings: Vec<(TargetName, Reading)>,
        account: Option<AccountIdentity>,
        issuer: Option<Box<IssuerSpec>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tail: Option<Tail>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        derived: Vec<TargetName>,
    }
    Ordered as "ordered" { cause: Cause }
    SwitchOrdered as "switch_ordered" { to: Option<Keyless>, by: String }
    Paused as "paused" { by: String }
    Resumed as "resumed" { by: String }
    Halted as "halted" { reason: Reason, message: String }
    Retried as "retried" { by: String }
    DriftFound as "drift_found" { what: String }
    DriftCleared as "drift_cleared" {}
    StrangersSeen as "strangers_seen" { keys: Vec<KeyId> }
    Disowned as "disowned" { key: KeyId, by: String }
    ReclaimOrdered as "reclaim_ordered" {
        key: KeyId,
        unused: bool,
        by: String,
        #[serde(default, skip_serializing_if = "Option::is_none")] issuer: Option<Box<IssuerSpec>>,
        #[serde(default, skip_serializing_if = "Option::is_none")] account: Option<AccountIdentity>,
    }
    DespiteUseOrdered as "despite_use_ordered" { by: String }

    Opened as "opened" {
        rotation: RotationId,
        cause: Cause,
        // `kind` is the event's own.
        #[serde(rename = "installs")] kind: RotationKind,
        snapshot: Box<Snapshot>,
    }
    MintBegun as "mint_begun" {
        intent: IntentId,
        before: Vec<KeyId>,
        #[serde(default, skip_serializing_if = "Option::is_none")] replaces: Option<KeyId>,
    }
    Minted as "minted" { key: KeyId, created: Option<Timestamp>, tail: Option<Tail> }
    MintFailed as "mint_failed" { why: String }
    MintUnknown as "mint_unknown" { why: String }
    MintSettled as "mint_settled" { found: Vec<KeyId>, reclaim: bool }
    ProbePassed as "probe_passed" { key: KeyId }
    ProbeFailed as "probe_failed" { key: KeyId, why: String }
    PushBegun as "push_begun" {
        target: TargetName,
        key: KeyId,
        jobs: Vec<JobId>,
        #[serde(default, skip_serializing_if = "Option::is_none")] derived: Option<Tail>,
        #[serde(default, skip_serializing_if = "Option::is_none")] until: Option<Timestamp>,
    }
    Submitted as "submitted" { target: TargetName, job: Option<JobId> }
    PushFailed as "push_failed" { target: TargetName, refused: bool, why: String }
    PushUnknown as "push_unknown" { target: TargetName, why: String }
    Confirmed as "confirmed" { target: TargetName }
    JobFailed as "job_failed" { target: TargetName, why: String }
    JobLost as "job_lost" { target: TargetName, why: String }
    NotMoved as "not_moved" { target: TargetName, shows: Option<KeyId> }
    Verified as "verified" { target: TargetName, proven: bool }
    UndoBegun as "undo_begun" { reason: Reason, why: String }
    RollbackBegun as "rollback_begun" { by: String }
    Closed as "closed" { outcome: Outcome }

    DisableBegun as "disable_begun" { key: KeyId, evidence: String }
    Disabled as "disabled" { key: KeyId }
    EnableBegun as "enable_begun" { key: KeyId, why: String }
    Enabled as "enabled" { key: KeyId }
    DeleteBegun as "delete_begun" { key: KeyId, evidence: String }
    Deleted as "deleted" { key: KeyId }
    RetireRefused as "retire_refused" { key: KeyId, why: String }
    AbsentOnce as "absent_once" { key: KeyId }
    Reappeared as "reappeared" { key: KeyId }
    Gone as "gone" { key: KeyId }
}
