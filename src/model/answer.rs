//! What the world answers, as plain data: faults, listings, probes, readings, jobs. The machine judges them, the ports return them.

use std::time::Duration;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::{Holder, Instant, IntentId, JobId, KeyId, Reason, Tail, TargetName, Timestamp};

/// What became of a request, by what the caller may do next.
///
/// Messages are lower case, without a full stop, and say what was tried, on what, and what came back. They never hold a
/// secret, a token or a URL with a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request surely never reached the other side. The only fault after which an unrepeatable request may be sent again.
    NotSent(String),
    /// The other side said that it did not do it now and may later (throttled, read-only, locked, restarting).
    Retry {
        /// When the other side asks to be asked again.
        after: Option<Duration>,
        /// What was tried and what came back.
        why: String,
    },
    /// The other side will not do it, and asking again will not change that.
    Refused {
        /// The reason, as the operator sees it.
        reason: Reason,
        /// What was tried and what came back.
        why: String,
    },
    /// The request may have been executed: no answer, a broken answer, a 5xx.
    Unknown(String),
}

impl Fault {
    /// What was tried and what came back.
    pub fn why(&self) -> &str {
        match self {
            Self::NotSent(why) | Self::Unknown(why) | Self::Retry { why, .. } | Self::Refused { why, .. } => why,
        }
    }

    /// The label of the metric `rekeyd_api_requests_total`.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::NotSent(_) => "not_sent",
            Self::Retry { .. } => "retry",
            Self::Refused { .. } => "refused",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// A key as its issuer lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedKey {
    /// Its name.
    pub id: KeyId,
    /// Whether it can be used.
    pub active: bool,
    /// When the provider says it was made.
    pub created: Option<Timestamp>,
    /// The intent it was made for, where the issuer can tell (a label, a name the client chose).
    pub intent: Option<IntentId>,
    /// The end of its secret, where the issuer shows secrets again (slots).
    pub tail: Option<Tail>,
    /// Where its secret is something derived from a key that others may hold as it is: the end of that key.
    pub root_tail: Option<Tail>,
    /// When it ends by itself, where keys do.
    pub expires: Option<Timestamp>,
}

impl ListedKey {
    /// The ends by which a place shows that it would lose with this key what it holds.
    pub fn ends(&self) -> impl Iterator<Item = &Tail> {
        self.tail.iter().chain(&self.root_tail)
    }
}

/// All keys of one issuer object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Every key, in the provider's order.
    pub keys: Vec<ListedKey>,
    /// How many keys fit; `None` where the provider states no limit.
    pub quota: Option<usize>,
    /// The provider's `Date` of the answer, to measure our clock against.
    pub date: Option<Timestamp>,
}

impl Listing {
    /// When a key was made, on our wall clock as it goes now: a provider's clock is compared with ours by the answer's date.
    pub fn created_on_our_clock(&self, key: &KeyId, now: &Instant) -> Option<Timestamp> {
        Some(self.on_our_clock(self.keys.iter().find(|listed| listed.id == *key)?.created?, now))
    }

    /// What our wall clock would say, as it goes now, at a time that this provider tells.
    pub fn on_our_clock(&self, told: Timestamp, now: &Instant) -> Timestamp {
        let ahead = self.date.map_or(TimeDelta::zero(), |date| date - now.wall);
        told.checked_sub_signed(ahead).unwrap_or(told)
    }
}

/// How a key answered the consumer's own kind of request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It works.
    Works,
    /// The provider does not know it, which for a young key means not yet.
    NotYet(String),
    /// The provider knows it and the secret or signature is wrong.
    Wrong(String),
    /// It authenticates and may not do what the probe asks.
    NotAllowed(String),
}

/// When a key was last used, as the provider tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LastUse {
    /// Never, as far as the provider knows.
    Never,
    /// Then, and for what.
    At {
        /// The time of use.
        at: Timestamp,
        /// Service and region, as the provider names them.
        by: String,
    },
    /// This provider does not tell.
    Untold,
}

/// What a target shows of the key it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reading {
    /// The last characters of the secret.
    Tail(Tail),
    /// A credential without a key, of this type (the word of [`super::Keyless::word`], or the target's own in lower case).
    Keyless(Tail),
    /// A credential with a key is there, and nothing of it can be compared.
    Hidden,
    /// No credential of its own is there.
    Nothing,
}

/// A place of a deployment that holds a credential, whether or not a policy names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundHolder {
    /// As it would be called if it were a target.
    pub name: TargetName,
    /// For a message: `cloud service uqsip6c2vm (AWS S3 BACKUP backups)`.
    pub what: String,
    /// Its credential's type, as the deployment names it; empty where it shows none.
    pub credential: String,
    /// What it shows of a credential of its own.
    pub reading: Reading,
    /// The holder whose credential it uses, having none of its own.
    pub inherits: Option<TargetName>,
    /// Why it could not be looked at: then nobody can tell what it holds, and the reading says nothing.
    pub unread: Option<String>,
}

/// A deployment as it tells of itself, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The product's name.
    pub product: String,
    /// `12.0`; `None` where it does not say.
    pub version: Option<String>,
    /// Who is logged in.
    pub user: String,
    /// Whether that user may do what is asked here.
    pub standing: Standing,
    /// Kinds of holders that no request tells of, each for a message.
    pub beyond: Vec<String>,
}

/// Whether a user may do what is asked, as far as that is told before it is tried. A sentence each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may.
    Enough(String),
    /// Perhaps not; the first request that is refused will tell.
    Doubtful(String),
    /// Nobody says.
    Untold(String),
}

impl Standing {
    /// The sentence.
    pub fn said(&self) -> &str {
        match self {
            Self::Enough(said) | Self::Doubtful(said) | Self::Untold(said) => said,
        }
    }
}

/// Whether a target could do without a key, as far as can be told from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WithoutKey {
    /// It holds none now; what it has instead, by the target's own name.
    Already(String),
    /// It could.
    Possible {
        /// To what: `iam-role`.
        to: String,
        /// What `rekeyd switch SERVICE` is given: `--to iam-role`.
        arguments: String,
        /// What it has now, by the target's own name.
        now: String,
        /// What somebody has to see to first.
        prepare: Vec<String>,
        /// What cannot be seen from here.
        unseen: Vec<String>,
    },
    /// It could not, and why.
    Impossible(String),
}

/// A target as found: what holds the key there, and how things stand before we touch it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The place that stores the key.
    pub holder: Holder,
    /// What it shows now.
    pub reading: Reading,
    /// The jobs known there now, so that ours can be told from them after a lost reply.
    pub jobs: Vec<JobId>,
}

/// What a target answered to a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The job to follow; `None` where the push was done when the answer came.
    pub job: Option<JobId>,
}

/// How a job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Under way, or not to be told just now.
    Running(String),
    /// Finished, and its inner result says it worked.
    Succeeded,
    /// Finished and did not work, or was rolled back.
    Failed(String),
    /// The target no longer knows it: neither success nor failure.
    Vanished(String),
}

/// What a target's health check says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// None is configured.
    NotWatched,
    /// The consumer works.
    Good,
    /// It does not.
    Bad(String),
}
