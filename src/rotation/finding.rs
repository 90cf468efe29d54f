//! What effects find and what follows from it, as plain data between the engine and the machine.

use std::borrow::Borrow;
use std::time::Duration;

use crate::model::{
    AccountIdentity, Fault, Health, IssuerSpec, JobId, JobState, KeyId, LastUse, Listing, Probe, Reading, Receipt,
    RotationId, Tail, TargetName, Timestamp,
};

use super::event::{Cause, Event, RotationKind, Snapshot};

/// Everything looked at just before an act.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// The account the provider answers for.
    pub account: AccountIdentity,
    /// The keys of the issuer object.
    pub listing: Listing,
    /// The keys where the current key lives, if that is another object (a migration).
    pub current_listing: Option<Listing>,
    /// How the current key answers; `None` where its secret is not held.
    pub probe: Option<Probe>,
    /// What each target shows.
    pub readings: Vec<(TargetName, Reading)>,
    /// What other places of the same deployments show.
    pub others: Others,
    /// When the key to be retired was last used.
    pub last_use: LastUse,
}

/// Places of the targets' deployments that are neither targets of the service nor accepted by its policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Others {
    /// What each is, and its reading.
    pub shown: Vec<(String, Reading)>,
    /// Those that nobody could look at, each with the reason.
    pub unread: Vec<String>,
}

impl Others {
    /// Those that show one of these ends.
    pub(super) fn showing<'a>(&'a self, ends: &[impl Borrow<Tail>]) -> impl Iterator<Item = &'a str> {
        let shows =
            |reading: &Reading| reading.tail().is_some_and(|shown| ends.iter().any(|end| end.borrow() == shown));
        self.shown.iter().filter(move |(_, reading)| shows(reading)).map(|(other, _)| other.as_str())
    }
}

/// What an effect found in the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// Issuer and targets, for opening a rotation.
    Survey {
        /// The policy's specs with what was found at them.
        snapshot: Box<Snapshot>,
        /// The issuer's keys.
        listing: Listing,
    },
    /// Issuer and targets of a service without a known key.
    FirstContact {
        /// The issuer that was looked at.
        issuer: Box<IssuerSpec>,
        /// The provider's identity of its account.
        account: AccountIdentity,
        /// The issuer's keys.
        listing: Listing,
        /// When each was last used.
        uses: Vec<(KeyId, LastUse)>,
        /// What each target shows.
        readings: Vec<(TargetName, Reading)>,
    },
    /// Issuer and targets of a service at rest.
    Observed {
        /// The issuer's keys.
        listing: Listing,
        /// What each target shows.
        readings: Vec<(TargetName, Reading)>,
        /// What other places show.
        others: Others,
        /// How the current key answers; `None` where its secret is not held.
        probe: Option<Probe>,
        /// Why the current key's rights could not be brought in line with the policy.
        unkept: Option<String>,
    },
    /// The issuer's keys, and whose they are.
    Listing {
        /// The provider's identity of its account.
        account: AccountIdentity,
        /// The keys.
        listing: Listing,
    },
    /// A mint's answer; the material itself goes to the journal, never here.
    Minted {
        /// The new key.
        key: KeyId,
        /// When the provider says it was made.
        created: Option<Timestamp>,
        /// The end of its secret.
        tail: Option<Tail>,
    },
    /// The world just before a mint that replaces what an idle slot holds.
    Slots {
        /// The provider's identity of its account.
        account: AccountIdentity,
        /// The issuer's keys.
        listing: Listing,
        /// What each target shows.
        readings: Vec<(TargetName, Reading)>,
        /// What other places of the same deployments show.
        others: Others,
    },
    /// The world after an unknown mint.
    Settled {
        /// The provider's identity of its account.
        account: AccountIdentity,
        /// The issuer's keys.
        listing: Listing,
        /// When each key that was not there before was last used.
        uses: Vec<(KeyId, LastUse)>,
        /// What each target shows.
        readings: Vec<(TargetName, Reading)>,
    },
    /// A probe's answer.
    Probe(Probe),
    /// The key and the target just before a push.
    BeforePush {
        /// How the key answers.
        probe: Probe,
        /// What the target shows.
        reading: Reading,
        /// The jobs known there.
        jobs: Vec<JobId>,
        /// The issuer's keys.
        listing: Listing,
        /// The end of what would be handed over, where that is derived from the key.
        derived: Option<Tail>,
        /// When that ends by itself, where it does.
        until: Option<Timestamp>,
    },
    /// The push was taken.
    Receipt(Receipt),
    /// The jobs known at a target.
    Jobs(Vec<JobId>),
    /// How a job stands.
    Job(JobState),
    /// What a target shows.
    Reading(Reading),
    /// What must be true before a key is disabled or deleted.
    Evidence(Box<Evidence>),
    /// Whether the consumers work.
    Health {
        /// What each target's health check says.
        targets: Vec<(TargetName, Health)>,
        /// Whether the previous key could be pushed back: its secret is held.
        old_is_held: bool,
    },
    /// It was done.
    Done,
}

/// What an effect came to.
pub type Found = Result<Finding, Fault>;

/// What follows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Conclusion {
    /// To be written down, in this order.
    pub events: Vec<Event>,
    /// When the next step may be taken.
    pub pace: Pace,
    /// What the service waits for, for the status; empty where it does not wait.
    pub waits_for: String,
}

/// When the next step of a service may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// At once.
    Now,
    /// After the usual back-off: 1 s, doubling to 5 min, jittered.
    BackOff,
    /// After at least this long.
    After(Duration),
    /// After the target's polling pause, which grows to 30 s.
    Poll,
}

impl Pace {
    /// The pause a server asks for. Never none: a server that is too busy is not helped by being asked at once.
    pub(super) fn asked(after: Option<Duration>) -> Self {
        after.map_or(Self::BackOff, |after| Self::After(after.max(Duration::from_secs(1))))
    }
}

/// What a conclusion needs besides state and finding.
#[derive(Clone, Debug)]
pub struct Circumstances {
    /// Why a rotation would be opened.
    pub cause: Cause,
    /// What it would install.
    pub kind: RotationKind,
    /// Its id, should one be opened.
    pub fresh_id: RotationId,
    /// How often this effect has been tried in a row with the same kind of outcome and no event.
    pub tries: u32,
    /// `on_drift = "push"`: a target that lost the key gets it again.
    pub push_on_drift: bool,
    /// The targets that hold something derived, by the policy.
    pub derived: Vec<TargetName>,
}

impl Conclusion {
    pub(super) fn record(events: Vec<Event>) -> Self {
        Self { events, pace: Pace::Now, waits_for: String::new() }
    }

    pub(super) fn again(pace: Pace, why: impl Into<String>) -> Self {
        Self { events: Vec::new(), pace, waits_for: why.into() }
    }

    pub(super) fn slowly(mut self, pace: Pace, why: &str) -> Self {
        self.pace = pace;
        self.waits_for = why.to_owned();
        self
    }
}
