//! The written forms of what events are made of: names, times, waits, and the snapshot a rotation is opened under.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Stored, Unread};
use crate::model::{
    AccountIdentity, Holder, IntentId, IssuerSpec, JobId, KeepSecret, KeyId, Keyless, Reason, RotationId, Shape,
    SystemRef, Tail, TargetName, TargetSpec, Terms, Timestamp,
};
use crate::ports::Reading;
use crate::rotation::event::{AdoptedBy, Cause, Outcome, RotationKind, Snapshot, SnapshotTarget};

/// Written as they are.
macro_rules! plain {
    ($($type:ty),*) => { $(
        impl Stored for $type {
            type Form = Self;
            fn form(&self) -> Self { self.clone() }
            fn read(form: Self) -> Result<Self, Unread> { Ok(form) }
        }
    )* };
}

/// Written as their text.
macro_rules! names {
    ($($type:ty),*) => { $(
        impl Stored for $type {
            type Form = String;
            fn form(&self) -> String { self.as_str().to_owned() }
            fn read(form: String) -> Result<Self, Unread> { Ok(Self::new(form)) }
        }
    )* };
}

/// Written as one of a list of words. A word that is not in the list was written by a newer rekeyd.
macro_rules! words {
    ($what:literal, $type:ident { $($variant:ident = $word:literal),* $(,)? }) => {
        impl Stored for $type {
            type Form = String;
            fn form(&self) -> String {
                match self { $( $type::$variant => $word ),* }.to_owned()
            }
            fn read(form: String) -> Result<Self, Unread> {
                match form.as_str() {
                    $( $word => Ok($type::$variant), )*
                    other => Err(Unread::Newer(format!(concat!("the ", $what, " `{}`, which is not known"), other))),
                }
            }
        }
    };
}

/// Written as objects with these fields.
macro_rules! objects {
    ($( $form:ident of $type:ident { $( $(#[$meta:meta])* $field:ident: $of:ty ),* $(,)? } )*) => { $(
        #[derive(Serialize, Deserialize)]
        pub(super) struct $form { $( $(#[$meta])* $field: <$of as Stored>::Form ),* }

        impl Stored for $type {
            type Form = $form;
            fn form(&self) -> $form {
                $form { $( $field: self.$field.form() ),* }
            }
            fn read(form: $form) -> Result<Self, Unread> {
                Ok($type { $( $field: Stored::read(form.$field)? ),* })
            }
        }
    )* };
}

plain!(String, bool, u32, Value);
names!(KeyId, RotationId, IntentId, TargetName, JobId, AccountIdentity, Holder, Tail);

words!("term", KeepSecret { Key = "key", Rotation = "rotation" });
words!(
    "shape",
    Shape {
        ShownOnce = "shown-once",
        ClientNamed = "client-named",
        Labelled = "labelled",
        Slots = "slots",
        Derived = "derived",
    }
);

/// The shape that is not written: all there was before others were.
fn shown_once() -> String {
    Shape::ShownOnce.form()
}

fn is_shown_once(shape: &String) -> bool {
    *shape == shown_once()
}

words!(
    "reason",
    Reason {
        NoCurrentKey = "no-current-key",
        Stranger = "stranger",
        Quota = "quota",
        MintUnsettled = "mint-unsettled",
        ProbeFailed = "probe-failed",
        ProbeNotAllowed = "probe-not-allowed",
        TargetChanged = "target-changed",
        Inherits = "inherits",
        PushRefused = "push-refused",
        PushFailed = "push-failed",
        PushUnproven = "push-unproven",
        StuckBetween = "stuck-between",
        OldKeyStillUsed = "old-key-still-used",
        AdoptNeeded = "adopt-needed",
        CurrentKeyBroken = "current-key-broken",
        AccountChanged = "account-changed",
        JournalBehind = "journal-behind",
        JournalDamaged = "journal-damaged",
        LoginRefused = "login-refused",
        MissingRight = "missing-right",
        NotFound = "not-found",
        TlsUntrusted = "tls-untrusted",
        Refused = "refused",
        Unhealthy = "unhealthy",
        SecretNotHeld = "secret-not-held",
        PolicyMismatch = "policy-mismatch",
        EnabledAgain = "enabled-again",
        RolledBack = "rolled-back",
    }
);

objects! {
    SnapshotForm of Snapshot {
        issuer: IssuerSpec,
        account: AccountIdentity,
        targets: Vec<SnapshotTarget>,
        terms: Terms,
    }
    SnapshotTargetForm of SnapshotTarget {
        spec: TargetSpec,
        holder: Holder,
        reading: Reading,
        jobs: Vec<JobId>,
        healthy: bool,
    }
    IssuerForm of IssuerSpec {
        kind: String,
        system: Option<SystemRef>,
        object: String,
        #[serde(default = "shown_once", skip_serializing_if = "is_shown_once")] shape: Shape,
        exclusive: bool,
        #[serde(rename = "propagation_ms")] propagation: Duration,
        #[serde(rename = "settle_ms")] settle: Duration,
        #[serde(rename = "last_used_lag_ms")] last_used_lag: Option<Duration>,
        config: Value,
    }
    TargetForm of TargetSpec {
        kind: String,
        system: Option<SystemRef>,
        name: TargetName,
        #[serde(rename = "readback_ms")] readback: Duration,
        #[serde(rename = "job_timeout_ms")] job_timeout: Duration,
        #[serde(rename = "poll_ms")] poll: Duration,
        #[serde(default, skip_serializing_if = "Option::is_none")] derived_by: Option<Box<IssuerSpec>>,
        config: Value,
    }
    SystemForm of SystemRef { table: String, name: String }
    TermsForm of Terms {
        probes: u32,
        #[serde(rename = "probe_interval_ms")] probe_interval: Duration,
        #[serde(rename = "soak_ms")] soak: Duration,
        #[serde(rename = "soak_unproven_ms")] soak_unproven: Duration,
        #[serde(rename = "watch_ms")] watch: Duration,
        keep_secret: KeepSecret,
    }
}

/// RFC 3339 in UTC, with as many digits of a second as it has.
impl Stored for Timestamp {
    type Form = String;

    fn form(&self) -> String {
        self.to_rfc3339_opts(SecondsFormat::AutoSi, true)
    }

    fn read(form: String) -> Result<Self, Unread> {
        DateTime::parse_from_rfc3339(&form)
            .map(|time| time.with_timezone(&Utc))
            .map_err(|error| Unread::Damaged(format!("the time `{form}`: {error}")))
    }
}

/// Whole milliseconds, rounded up: a wait that was promised is never shortened by writing it down.
impl Stored for Duration {
    type Form = u64;

    fn form(&self) -> u64 {
        u64::try_from(self.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }

    fn read(form: u64) -> Result<Self, Unread> {
        Ok(Duration::from_millis(form))
    }
}

impl<T: Stored> Stored for Option<T> {
    type Form = Option<T::Form>;

    fn form(&self) -> Self::Form {
        self.as_ref().map(T::form)
    }

    fn read(form: Self::Form) -> Result<Self, Unread> {
        form.map(T::read).transpose()
    }
}

impl<T: Stored> Stored for Vec<T> {
    type Form = Vec<T::Form>;

    fn form(&self) -> Self::Form {
        self.iter().map(T::form).collect()
    }

    fn read(form: Self::Form) -> Result<Self, Unread> {
        form.into_iter().map(T::read).collect()
    }
}

impl<T: Stored> Stored for Box<T> {
    type Form = Box<T::Form>;

    fn form(&self) -> Self::Form {
        Box::new(T::form(self))
    }

    fn read(form: Self::Form) -> Result<Self, Unread> {
        T::read(*form).map(Box::new)
    }
}

/// What one target showed.
#[derive(Serialize, Deserialize)]
pub(super) struct ReadingAtForm {
    target: String,
    reading: ReadingForm,
}

impl Stored for (TargetName, Reading) {
    type Form = ReadingAtForm;

    fn form(&self) -> ReadingAtForm {
        ReadingAtForm { target: self.0.form(), reading: self.1.form() }
    }

    fn read(form: ReadingAtForm) -> Result<Self, Unread> {
        Ok((Stored::read(form.target)?, Stored::read(form.reading)?))
    }
}

// The choices below are objects with a `kind`, like events, so that each can get fields of its own later. `Unknown` catches a
// kind that is not in the list; it is read and never written.

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum ReadingForm {
    Tail {
        tail: String,
    },
    Keyless {
        word: String,
    },
    Hidden,
    Nothing,
    #[serde(other, skip_serializing)]
    Unknown,
}

impl Stored for Reading {
    type Form = ReadingForm;

    fn form(&self) -> ReadingForm {
        match self {
            Reading::Tail(tail) => ReadingForm::Tail { tail: tail.form() },
            Reading::Keyless(word) => ReadingForm::Keyless { word: word.form() },
            Reading::Hidden => ReadingForm::Hidden,
            Reading::Nothing => ReadingForm::Nothing,
        }
    }

    fn read(form: ReadingForm) -> Result<Self, Unread> {
        Ok(match form {
            ReadingForm::Tail { tail } => Reading::Tail(Stored::read(tail)?),
            ReadingForm::Keyless { word } => Reading::Keyless(Stored::read(word)?),
            ReadingForm::Hidden => Reading::Hidden,
            ReadingForm::Nothing => Reading::Nothing,
            ReadingForm::Unknown => return Err(Unread::Newer("a reading that is not known".into())),
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum AdoptedByForm {
    FirstContact,
    Operator {
        by: String,
    },
    #[serde(other, skip_serializing)]
    Unknown,
}

impl Stored for AdoptedBy {
    type Form = AdoptedByForm;

    fn form(&self) -> AdoptedByForm {
        match self {
            AdoptedBy::FirstContact => AdoptedByForm::FirstContact,
            AdoptedBy::Operator(by) => AdoptedByForm::Operator { by: by.form() },
        }
    }

    fn read(form: AdoptedByForm) -> Result<Self, Unread> {
        Ok(match form {
            AdoptedByForm::FirstContact => AdoptedBy::FirstContact,
            AdoptedByForm::Operator { by } => AdoptedBy::Operator(by),
            AdoptedByForm::Unknown => return Err(Unread::Newer("a word that is not known".into())),
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum CauseForm {
    Timetable,
    MaxAge,
    Signal,
    Operator {
        by: String,
        compromised: bool,
    },
    Drift,
    #[serde(other, skip_serializing)]
    Unknown,
}

impl Stored for Cause {
    type Form = CauseForm;

    fn form(&self) -> CauseForm {
        match self {
            Cause::Timetable => CauseForm::Timetable,
            Cause::MaxAge => CauseForm::MaxAge,
            Cause::Signal => CauseForm::Signal,
            Cause::Operator { by, compromised } => CauseForm::Operator { by: by.form(), compromised: *compromised },
            Cause::Drift => CauseForm::Drift,
        }
    }

    fn read(form: CauseForm) -> Result<Self, Unread> {
        Ok(match form {
            CauseForm::Timetable => Cause::Timetable,
            CauseForm::MaxAge => Cause::MaxAge,
            CauseForm::Signal => Cause::Signal,
            CauseForm::Operator { by, compromised } => Cause::Operator { by, compromised },
            CauseForm::Drift => Cause::Drift,
            CauseForm::Unknown => return Err(Unread::Newer("a cause that is not known".into())),
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum RotationKindForm {
    Fresh,
    Repush {
        targets: Vec<String>,
    },
    Switch {
        to: KeylessForm,
    },
    #[serde(other, skip_serializing)]
    Unknown,
}

impl Stored for RotationKind {
    type Form = RotationKindForm;

    fn form(&self) -> RotationKindForm {
        match self {
            RotationKind::Fresh => RotationKindForm::Fresh,
            RotationKind::Repush(targets) => RotationKindForm::Repush { targets: targets.form() },
            RotationKind::Switch(to) => RotationKindForm::Switch { to: to.form() },
        }
    }

    fn read(form: RotationKindForm) -> Result<Self, Unread> {
        Ok(match form {
            RotationKindForm::Fresh => RotationKind::Fresh,
            RotationKindForm::Repush { targets } => RotationKind::Repush(Stored::read(targets)?),
            RotationKindForm::Switch { to } => RotationKind::Switch(Stored::read(to)?),
            RotationKindForm::Unknown => return Err(Unread::Newer("a kind of rotation that is not known".into())),
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum KeylessForm {
    IamRole,
    UserAssignedIdentity {
        client: String,
        storage_account: Option<String>,
    },
    #[serde(other, skip_serializing)]
    Unknown,
}

impl Stored for Keyless {
    type Form = KeylessForm;

    fn form(&self) -> KeylessForm {
        match self.clone() {
            Keyless::IamRole => KeylessForm::IamRole,
            Keyless::UserAssignedIdentity { client, storage_account } => {
                KeylessForm::UserAssignedIdentity { client, storage_account }
            }
        }
    }

    fn read(form: KeylessForm) -> Result<Self, Unread> {
        Ok(match form {
            KeylessForm::IamRole => Keyless::IamRole,
            KeylessForm::UserAssignedIdentity { client, storage_account } => {
                Keyless::UserAssignedIdentity { client, storage_account }
            }
            KeylessForm::Unknown => {
                return Err(Unread::Newer("a credential without a key that is not known".into()));
            }
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum OutcomeForm {
    Done,
    Failed {
        reason: String,
        why: String,
    },
    RolledBack,
    Abandoned {
        by: String,
        holds: Option<String>,
    },
    #[serde(other, skip_serializing)]
    Unknown,
}

impl Stored for Outcome {
    type Form = OutcomeForm;

    fn form(&self) -> OutcomeForm {
        match self {
            Outcome::Done => OutcomeForm::Done,
            Outcome::Failed { reason, why } => OutcomeForm::Failed { reason: reason.form(), why: why.form() },
            Outcome::RolledBack => OutcomeForm::RolledBack,
            Outcome::Abandoned { by, holds } => OutcomeForm::Abandoned { by: by.form(), holds: holds.form() },
        }
    }

    fn read(form: OutcomeForm) -> Result<Self, Unread> {
        Ok(match form {
            OutcomeForm::Done => Outcome::Done,
            OutcomeForm::Failed { reason, why } => Outcome::Failed { reason: Stored::read(reason)?, why },
            OutcomeForm::RolledBack => Outcome::RolledBack,
            OutcomeForm::Abandoned { by, holds } => Outcome::Abandoned { by, holds: Stored::read(holds)? },
            OutcomeForm::Unknown => return Err(Unread::Newer("an outcome that is not known".into())),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_written_as_status_and_metric_write_it() {
        for word in super::super::samples::REASONS {
            assert_eq!(word.form(), word.as_str());
            assert_eq!(Reason::read(word.form()).unwrap(), *word);
        }
    }
}
