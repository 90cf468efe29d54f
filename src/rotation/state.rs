//! What is known of a service and of its open rotation: plain data, changed by `apply` alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::{
    AccountIdentity, Instant, IntentId, IssuerSpec, JobId, KeyId, Keyless, Reason, RotationId, Tail, TargetName,
    Timestamp,
};

use super::event::{Cause, RotationKind, Snapshot};
use super::lost::LostPush;
use super::retire::Retirement;

/// What we know of one service: the fold of its events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceState {
    /// How many events it is the fold of.
    pub sequence: u64,
    /// When the last of them was written.
    pub last_event: Option<Instant>,
    /// When journal and issuer are last known to have agreed; a stranger made later means that the journal may be the older one.
    pub agreed: Option<Instant>,
    /// In slots that are ours alone: what was made until then is idle on an operator's word, or by our own doing. Looking proves
    /// nothing here, since a slot that somebody else filled looks like any other.
    pub slots_explained: Option<Instant>,
    /// The snapshot of the last rotation, for keys that leave while none is open.
    pub last_place: Option<Snapshot>,
    /// The key every target was last Verified to hold.
    pub current: Option<Current>,
    /// The key before it.
    pub previous: Option<KeyId>,
    /// The issuer object the current key lives at, once a rotation has seen it.
    pub home: Option<IssuerSpec>,
    /// The provider account it lives in, by the provider's own word.
    pub account: Option<AccountIdentity>,
    /// The rotation under way.
    pub rotation: Option<Rotation>,
    /// The keys on their way out.
    pub leaving: BTreeMap<KeyId, Retirement>,
    /// Which keys each target may hold, as far as anybody can know.
    pub may_hold: BTreeMap<TargetName, BTreeSet<KeyId>>,
    /// Pushes of rotations that are over whose jobs may still run, and store their key when nobody expects it.
    pub lost_pushes: Vec<LostPush>,
    /// The end of each key's secret, where known.
    pub tails: BTreeMap<KeyId, Tail>,
    /// At the targets that hold something derived from a key and not the key itself: the end of what was derived from each, where
    /// known.
    pub derived: BTreeMap<TargetName, BTreeMap<KeyId, Tail>>,
    /// When what was derived from a key and handed to a target ends by itself, where it does.
    pub derived_until: BTreeMap<TargetName, BTreeMap<KeyId, Timestamp>>,
    /// What the service was switched to that is no key, by the id that stands for it.
    pub keyless: BTreeMap<KeyId, Keyless>,
    /// Keys at the issuer that the journal does not know, as last seen.
    pub strangers: BTreeSet<KeyId>,
    /// Keys an operator said are somebody else's.
    pub disowned: BTreeSet<KeyId>,
    /// A rotation somebody ordered that is not open yet.
    pub order: Option<Cause>,
    /// A move to a credential without a key (or back to a key, where it names none) that somebody ordered and that is not open
    /// yet, and who.
    pub switch: Option<(Option<Keyless>, String)>,
    /// Who paused it.
    pub paused: Option<String>,
    /// What it waits for an operator for.
    pub halt: Option<Halt>,
    /// What differs between journal and world.
    pub drift: Option<String>,
    /// Failed rotations since the last that worked.
    pub failures: u32,
    /// When the last rotation was opened.
    pub last_opened: Option<Timestamp>,
    /// When a key was last Verified at every target.
    pub last_success: Option<Timestamp>,
    /// How the closed rotations ended, for the metrics.
    pub tally: Tally,
    /// How many rotations there were, and the seconds from Opened to Verified of each that got there.
    pub durations: Vec<f64>,
}

/// Rotations by outcome, as the metric counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// New key in place, old key gone.
    pub done: u64,
    /// New key taken back.
    pub failed: u64,
    /// Keys found after an unknown mint and destroyed.
    pub reclaimed: u64,
    /// Ended by an operator.
    pub abandoned: u64,
    /// Previous key put back.
    pub rolled_back: u64,
}

/// The key in service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// Its id.
    pub key: KeyId,
    /// When the provider says it was made, or when we first knew it.
    pub created: Timestamp,
    /// Whether it may ever be deleted: minted by us, or adopted on an operator's word.
    pub ours: bool,
}

/// Why a service stands still, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halt {
    /// The fixed word.
    pub reason: Reason,
    /// The whole story.
    pub message: String,
    /// Since when.
    pub at: Timestamp,
}

/// One passage from an old key to a new one.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotation {
    /// Its id.
    pub id: RotationId,
    /// Why it was opened.
    pub cause: Cause,
    /// What it installs.
    pub kind: RotationKind,
    /// How the world was, and the terms.
    pub snapshot: Snapshot,
    /// When it was opened.
    pub opened: Instant,
    /// How far it is.
    pub phase: Phase,
    /// Which way it goes.
    pub course: Course,
    /// The current key when it was opened.
    pub former: Current,
    /// The key being put in place.
    pub installing: Option<KeyId>,
    /// The key to be replaced.
    pub retiring: Option<KeyId>,
    /// The mint under way.
    pub mint: Option<Mint>,
    /// How many mints were begun.
    pub mints: u32,
    /// When the new key was made, on our clocks.
    pub minted: Option<Instant>,
    /// When the provider says it was made.
    pub created: Option<Timestamp>,
    /// Probe successes in a row.
    pub streak: u32,
    /// The last of them.
    pub last_probe: Option<Instant>,
    /// The key that must be enabled, and stay so, before it is pushed back.
    pub enable_first: Option<EnableFirst>,
    /// How far each target is, in the policy's order.
    pub targets: Vec<TargetProgress>,
    /// When the last target was Verified.
    pub verified: Option<Instant>,
    /// When the last job was confirmed.
    pub confirmed: Option<Instant>,
}

/// The phases, in order. Status writes them in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Snapshot taken.
    Opened,
    /// A mint may have been sent.
    Minting,
    /// The new key exists and its secret is sealed.
    Minted,
    /// It has passed its probes.
    Ready,
    /// It is being handed to the targets.
    Deploying,
    /// Every target holds it.
    Deployed,
    /// The old key is still usable.
    Soaking,
    /// The old key is disabled and watched.
    Disabled,
    /// The old key is deleted and must be seen gone.
    Deleted,
}

impl Phase {
    /// As status, log and history write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Minting => "minting",
            Self::Minted => "minted",
            Self::Ready => "ready",
            Self::Deploying => "deploying",
            Self::Deployed => "deployed",
            Self::Soaking => "soaking",
            Self::Disabled => "disabled",
            Self::Deleted => "deleted",
        }
    }
}

/// Which way a rotation goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Course {
    /// To the new key.
    Forward,
    /// The new key is taken back; no target holds it.
    Undoing {
        /// Why, as a fixed word.
        reason: Reason,
        /// What happened.
        why: String,
    },
    /// To the previous key.
    RollingBack {
        /// On whose word, or what check's.
        by: String,
        /// Since when.
        since: Instant,
    },
}

/// A mint that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mint {
    /// Its intent.
    pub intent: IntentId,
    /// The keys that existed before.
    pub before: Vec<KeyId>,
    /// The idle key it destroys, where keys live in slots.
    pub replaces: Option<KeyId>,
    /// When it was begun.
    pub begun: Instant,
    /// Why its answer is lost, and since when that is known.
    pub unknown: Option<(String, Instant)>,
    /// Whether the issuer refuses to do it again, where that may be asked: what came of it is then looked for.
    pub refused: bool,
}

impl Mint {
    /// Until when the provider may have made the key.
    pub(super) fn may_arrive_until(&self, issuer: &IssuerSpec) -> Instant {
        self.begun.plus(issuer.settle)
    }
}

/// A key to be enabled before it is pushed back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnableFirst {
    /// The key.
    pub key: KeyId,
    /// Whether it was enabled already.
    pub enabled: bool,
    /// When a disable was last sent that may be carried out late: until `settle` after it the key is not pushed, and then it is
    /// enabled once more.
    pub disable_sent: Option<Instant>,
    /// How late a request may be carried out where the key lives.
    pub settle: Duration,
}

/// How far one target is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetProgress {
    /// Which.
    pub name: TargetName,
    /// Where its push stands.
    pub push: Push,
    /// Pushes that were surely accepted, or may have been.
    pub attempts: u32,
    /// Whether an earlier attempt may have left the key there.
    pub touched: bool,
    /// When the last push was begun whose own job is not known to have ended: it may still store the key.
    pub lost: Option<Instant>,
    /// The same for the key that was being installed before the rotation turned back: no other key is pushed before that job
    /// must be over.
    pub other_lost: Option<Instant>,
    /// What the last failed attempt said.
    pub trouble: Option<String>,
}

/// Where a push stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Push {
    /// Not begun, or to be tried again.
    Pending,
    /// Intended; the request is sent next.
    Begun {
        /// When.
        at: Instant,
        /// The jobs known before.
        jobs: Vec<JobId>,
    },
    /// It may have been accepted.
    Unknown {
        /// When it was begun.
        at: Instant,
        /// The jobs known before.
        jobs: Vec<JobId>,
    },
    /// Accepted; the job runs.
    Submitted {
        /// When it was begun.
        at: Instant,
        /// The job.
        job: JobId,
        /// Found after a lost answer: it may be somebody else's.
        guessed: bool,
    },
    /// The job is over, or lost.
    Ended {
        /// When the push was begun.
        begun: Instant,
        /// When the end was seen.
        at: Instant,
        /// How.
        how: JobEnd,
    },
    /// The target holds the key.
    Verified {
        /// Whether the read-back proved it.
        proven: bool,
    },
    /// The target will not take it.
    Refused,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// Its own result says that it worked.
    Succeeded,
    /// A job that was found after a lost answer says so; it may be somebody else's, and only the read-back can vouch.
    Guessed,
    /// It says that it did not.
    Failed,
    /// Nobody can say.
    Lost,
}
