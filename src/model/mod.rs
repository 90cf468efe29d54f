//! The words of the house as types: names, keys, time, secrets, and the plain data a policy hands to the machine.
//!
//! Lowest floor: imports nothing of ours, does no I/O, reads no clock.

use std::fmt;
use std::time::Duration;

mod answer;
mod keyless;
mod material;

pub use answer::{
    Fault, FoundHolder, Health, Inspection, JobState, LastUse, ListedKey, Listing, Probe, Reading, Receipt, Site,
    Standing, WithoutKey,
};
pub use keyless::Keyless;
pub use material::{Material, MaterialKind};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// An instant of wall time, always UTC.
pub type Timestamp = DateTime<Utc>;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes the text as it is.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// A service's name in the policy: `[a-z0-9][a-z0-9-]{0,62}`.
    ServiceName
}
text_id! {
    /// What names a key at its issuer; never secret.
    KeyId
}
text_id! {
    /// One rotation, from Opened to Closed.
    RotationId
}
text_id! {
    /// One durable intent to mint; a mint is sent at most once for each.
    IntentId
}
text_id! {
    /// A target as the status shows it, such as `arcgis:prod:eg7hrelq6b`.
    TargetName
}
text_id! {
    /// A job at a target, as the target names it.
    JobId
}
text_id! {
    /// What the provider says an account is (AWS: the account number and partition), not what the policy calls it.
    AccountIdentity
}
text_id! {
    /// The place at a target that really stores the key, such as `cloud/providers/betc4g098c`; two targets with one holder are one place.
    Holder
}
text_id! {
    /// The last characters of a secret that a target shows in clear (ArcGIS: four). Weak evidence: only a change of tail proves anything.
    Tail
}

/// A secret text. It cannot be displayed, its `Debug` prints `***`, and its memory is wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes ownership, so that no second copy stays behind.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret itself, for the moment of its use; never store or format what this returns.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The last four characters, which ArcGIS shows too; `None` where the secret is too short for that to be harmless.
    pub fn tail(&self) -> Option<Tail> {
        let length = self.0.chars().count();
        (length >= 16).then(|| Tail::new(self.0.chars().skip(length - 4).collect::<String>()))
    }
}

/// For the fields of an answer that are secret: `#[serde(deserialize_with = "deserialize_secret")]`. The text is moved, not copied. There is
/// no `Deserialize`, so that nothing becomes a secret, or stops being one, by the way.
///
/// # Errors
/// It is no text.
pub fn deserialize_secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a secret of the policy comes from; the policy never holds the secret itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretRef {
    /// A systemd credential: a file of that name in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    /// A file; one trailing newline is stripped.
    File(String),
    /// An environment variable.
    Env(String),
}

/// An instant on both clocks. Wall time can be set by anyone; boot time cannot, but is lost with the boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instant {
    /// Wall time.
    pub wall: Timestamp,
    /// Time since boot, suspend included (`CLOCK_BOOTTIME`).
    pub boot: Duration,
    /// Which boot `boot` belongs to (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
}

impl Instant {
    /// How much time has surely passed since `earlier`: the lesser of wall and boot time within one boot, wall time across
    /// boots, and never less than zero. A clock set forward therefore shortens no wait. Where wall time went backwards within
    /// one boot it says nothing, and boot time alone counts, or a clock that was ahead for a moment would stop every wait.
    pub fn since(&self, earlier: &Instant) -> Duration {
        let wall = (self.wall - earlier.wall).to_std();
        if self.boot_id != earlier.boot_id {
            return wall.unwrap_or_default();
        }
        let boot = self.boot.saturating_sub(earlier.boot);
        wall.map_or(boot, |wall| wall.min(boot))
    }

    /// This much later, on both clocks.
    pub fn plus(&self, later: Duration) -> Instant {
        let wall = TimeDelta::from_std(later).ok().and_then(|later| self.wall.checked_add_signed(later));
        Instant {
            wall: wall.unwrap_or(Timestamp::MAX_UTC),
            boot: self.boot.saturating_add(later),
            boot_id: self.boot_id.clone(),
        }
    }

    /// Whether it is the later one: by boot time within one boot, by wall time across boots.
    pub fn is_after(&self, other: &Instant) -> bool {
        match self.boot_id == other.boot_id {
            true => self.boot > other.boot,
            false => self.wall > other.wall,
        }
    }
}

/// An issuer as the policy declares it: plain data, so that an open rotation can keep it whatever happens to the policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IssuerSpec {
    /// The kind's name, such as `aws-iam`; finds the code in `issuer::KINDS`.
    pub kind: String,
    /// The provider account in the policy: its table (`aws`) and its name (`main`). Secrets and endpoints stay there.
    pub system: Option<SystemRef>,
    /// The issuer object, as the status shows it, such as `aws-iam:main:arcgis-object-store`; two services may not share one.
    pub object: String,
    /// How keys come and go there.
    pub shape: Shape,
    /// Every key of this object is rekeyd's to manage.
    pub exclusive: bool,
    /// How long after a mint the first probe is believed.
    pub propagation: Duration,
    /// Horizon of an unknown mint: request timeout, plus how long a sent request stays valid, plus listing lag.
    pub settle: Duration,
    /// How late the provider reports a key's use; `None` where it reports none.
    pub last_used_lag: Option<Duration>,
    /// The kind's own table, as its file reads it.
    pub config: serde_json::Value,
}

/// How keys come and go at an issuer: what the machine may assume about a mint and a retire there (DESIGN 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// A key is made with a secret that is shown once, and nothing ties it to the intent it was made for; it can be disabled
    /// (AWS IAM, GCS HMAC).
    #[default]
    ShownOnce,
    /// The client names the key, so the mint of one intent may be sent again and yields the same key; it can be disabled (IBM COS).
    ClientNamed,
    /// The listing tells for which intent a key was made; it cannot be disabled, only deleted (Entra client secrets).
    Labelled,
    /// A fixed number of slots that always hold a key each: a mint replaces what an idle slot holds, a delete replaces the key
    /// by one that nobody has (Azure account keys).
    Slots,
    /// As slots; what the targets hold is derived from the slot's key and dies with it (SAS tokens).
    Derived,
}

impl Shape {
    /// Whether a key can be made unusable reversibly; where it cannot, there is no watch.
    pub fn can_disable(self) -> bool {
        matches!(self, Self::ShownOnce | Self::ClientNamed)
    }

    /// Whether the mint of one intent may be sent more than once, with one key as the result.
    pub fn mint_may_be_repeated(self) -> bool {
        self == Self::ClientNamed
    }

    /// Whether keys live in slots that are never empty.
    pub fn has_slots(self) -> bool {
        matches!(self, Self::Slots | Self::Derived)
    }
}

/// A target as the policy declares it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetSpec {
    /// The kind's name, such as `arcgis`; finds the code in `target::KINDS`.
    pub kind: String,
    /// The deployment in the policy, where there is one.
    pub system: Option<SystemRef>,
    /// Its name in status, log and journal.
    pub name: TargetName,
    /// How long a read-back may still show the old key after the job ended.
    pub readback: Duration,
    /// After this a job without an end is given up as unknown.
    pub job_timeout: Duration,
    /// First pause between two looks at a job; it grows to 30 s.
    pub poll: Duration,
    /// Where it holds something derived from the service's key and not the key itself (a SAS): the issuer that derives it.
    pub derived_by: Option<Box<IssuerSpec>>,
    /// The kind's own table, as its file reads it.
    pub config: serde_json::Value,
}

/// A named table of the policy that others refer to: `[aws.main]`, `[arcgis.prod]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SystemRef {
    /// The table: `aws`, `arcgis`.
    pub table: String,
    /// The name in it: `main`, `prod`.
    pub name: String,
}

impl fmt::Display for SystemRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.table, self.name)
    }
}

/// A provider account or an ArcGIS deployment, as its kind's file reads it. Secrets are references.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SystemSpec {
    /// Which table of the policy this is.
    pub at: SystemRef,
    /// Its contents.
    pub config: serde_json::Value,
}

/// The terms a rotation is opened under and keeps to its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// Probe successes in a row before a new key is pushed.
    pub probes: u32,
    /// Pause between two probes.
    pub probe_interval: Duration,
    /// How long the old key stays usable after the last Verified.
    pub soak: Duration,
    /// The same where a read-back could not tell.
    pub soak_unproven: Duration,
    /// How long a disabled key waits for its deletion.
    pub watch: Duration,
    /// When a key's sealed secret is shredded.
    pub keep_secret: KeepSecret,
}

/// When a sealed secret is shredded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeepSecret {
    /// When its key is seen gone, so that `rollback` and `repush` work.
    Key,
    /// At Done of the rotation that minted it.
    Rotation,
}

/// Why a service is halted. The text is part of the interface: it stands in status, metric and runbook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// No current key is known and none could be taken on by itself.
    NoCurrentKey,
    /// The issuer has a key that nobody can explain.
    Stranger,
    /// All key slots at the issuer are taken.
    Quota,
    /// A mint's outcome is unknown and more than one explanation is left.
    MintUnsettled,
    /// The new key did not work in time.
    ProbeFailed,
    /// The new key authenticates but may not do what the probe asks.
    ProbeNotAllowed,
    /// A target holds something that neither we nor the journal put there.
    TargetChanged,
    /// A target has no credential of its own and inherits its provider's.
    Inherits,
    /// The target refused the push; the new key was taken back.
    PushRefused,
    /// The push failed as often as it is tried; the new key was taken back.
    PushFailed,
    /// A push's outcome stays unknown.
    PushUnproven,
    /// One target moved and another cannot be moved; both keys are alive.
    StuckBetween,
    /// The old key is still in use after its soak.
    OldKeyStillUsed,
    /// The old key was disabled and somebody enabled it again.
    EnabledAgain,
    /// The previous key was put back; nothing new is made until somebody has looked.
    RolledBack,
    /// The key was taken on by itself and may not be deleted before an operator confirms it.
    AdoptNeeded,
    /// The current key is missing, inactive or refused at the issuer.
    CurrentKeyBroken,
    /// The provider answers for another account than when the rotation opened.
    AccountChanged,
    /// The world is ahead of the journal: it was restored from an older copy.
    JournalBehind,
    /// The service's rows in the journal do not verify.
    JournalDamaged,
    /// A login was refused.
    LoginRefused,
    /// The provider or the target refused for want of a right.
    MissingRight,
    /// The user, service or provider named in the policy does not exist.
    NotFound,
    /// The server's certificate does not verify.
    TlsUntrusted,
    /// The other side answered something its documentation rules out, or refused for another reason.
    Refused,
    /// A consumer's health check failed after the push.
    Unhealthy,
    /// A secret the work needs is not held (adopted without one, or already shredded).
    SecretNotHeld,
    /// The policy in force cannot serve what the journal needs.
    PolicyMismatch,
}

impl Reason {
    /// The reason as status, metric and log write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoCurrentKey => "no-current-key",
            Self::Stranger => "stranger",
            Self::Quota => "quota",
            Self::MintUnsettled => "mint-unsettled",
            Self::ProbeFailed => "probe-failed",
            Self::ProbeNotAllowed => "probe-not-allowed",
            Self::TargetChanged => "target-changed",
            Self::Inherits => "inherits",
            Self::PushRefused => "push-refused",
            Self::PushFailed => "push-failed",
            Self::PushUnproven => "push-unproven",
            Self::StuckBetween => "stuck-between",
            Self::OldKeyStillUsed => "old-key-still-used",
            Self::EnabledAgain => "enabled-again",
            Self::RolledBack => "rolled-back",
            Self::AdoptNeeded => "adopt-needed",
            Self::CurrentKeyBroken => "current-key-broken",
            Self::AccountChanged => "account-changed",
            Self::JournalBehind => "journal-behind",
            Self::JournalDamaged => "journal-damaged",
            Self::LoginRefused => "login-refused",
            Self::MissingRight => "missing-right",
            Self::NotFound => "not-found",
            Self::TlsUntrusted => "tls-untrusted",
            Self::Refused => "refused",
            Self::Unhealthy => "unhealthy",
            Self::SecretNotHeld => "secret-not-held",
            Self::PolicyMismatch => "policy-mismatch",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
