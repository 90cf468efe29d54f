//! What the account holds. No wire here: names, times and rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::{AwsOptions, KeyView, new_user};
use crate::faults::FaultQueue;
use crate::{RequestLine, chance};

#[derive(Clone)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) created: DateTime<Utc>,
}

#[derive(Clone)]
pub(crate) struct Bucket {
    pub(crate) readers: BTreeSet<String>,
}

#[derive(Clone)]
pub(crate) struct Use {
    pub(crate) at: DateTime<Utc>,
    pub(crate) service: String,
    pub(crate) region: String,
}

#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) user: String,
    pub(crate) active: bool,
    /// As shown.
    pub(crate) created: DateTime<Utc>,
    /// As it was.
    pub(crate) minted: DateTime<Utc>,
    /// Made in the console: nobody waits for it.
    pub(crate) by_human: bool,
    pub(crate) deleted: Option<DateTime<Utc>>,
    /// Oldest first; at most one for each fifth of a second, so that a busy consumer does not fill the memory.
    uses: Vec<Use>,
}

impl Key {
    pub(crate) fn view(&self) -> KeyView {
        KeyView {
            id: self.id.clone(),
            active: self.active,
            created: self.created,
            last_used: self.uses.last().map(|u| u.at),
        }
    }

    pub(crate) fn used(&mut self, at: DateTime<Utc>, service: &str, region: &str, lag: Duration) {
        let slot = |t: DateTime<Utc>| t.timestamp_millis() / 200;
        if self.uses.last().is_some_and(|last| slot(last.at) == slot(at)) {
            self.uses.pop();
        }
        self.uses.push(Use { at, service: service.to_owned(), region: region.to_owned() });
        if self.uses.len() > 4096 {
            let told = self.uses.iter().rposition(|u| u.at + delta(lag) <= at).unwrap_or(0);
            self.uses.drain(..told);
        }
    }

    /// The last use old enough to be reported.
    pub(crate) fn reported_use(&self, now: DateTime<Utc>, lag: Duration) -> Option<&Use> {
        self.uses.iter().rev().find(|u| u.at + delta(lag) <= now)
    }

    /// Whether the world knows it by now.
    fn propagated(&self, now: DateTime<Utc>, propagation: Duration) -> bool {
        self.by_human || self.minted + delta(propagation) <= now
    }

    /// Whether a listing shows it: not the young, but the lately deleted.
    fn listed(&self, now: DateTime<Utc>, lag: Duration) -> bool {
        let seen = self.by_human || self.minted + delta(lag) <= now;
        seen && self.deleted.is_none_or(|at| at + delta(lag) > now)
    }
}

/// Why there is no new key.
#[derive(Debug)]
pub(crate) enum NoKey {
    NoSuchUser,
    Quota(usize),
}

pub(crate) struct State {
    pub(crate) options: AwsOptions,
    pub(crate) users: BTreeMap<String, User>,
    /// Oldest first; deleted ones stay, because listings lag.
    pub(crate) keys: Vec<Key>,
    pub(crate) buckets: BTreeMap<String, Bucket>,
    pub(crate) denied: BTreeSet<String>,
    pub(crate) faults: FaultQueue,
    pub(crate) date_skew: TimeDelta,
    pub(crate) down: bool,
    pub(crate) requests: Vec<RequestLine>,
    pub(crate) consumer_requests: u64,
    pub(crate) mints: usize,
    /// By key id; survives deletion and [`super::Aws::restore`].
    pub(crate) secrets: BTreeMap<String, String>,
}

impl State {
    pub(crate) fn new(options: AwsOptions) -> Self {
        Self {
            options,
            users: BTreeMap::new(),
            keys: Vec::new(),
            buckets: BTreeMap::new(),
            denied: BTreeSet::new(),
            faults: FaultQueue::default(),
            date_skew: TimeDelta::zero(),
            down: false,
            requests: Vec::new(),
            consumer_requests: 0,
            mints: 0,
            secrets: BTreeMap::new(),
        }
    }

    pub(crate) fn add_user(&mut self, user: &str) {
        self.users.entry(user.to_owned()).or_insert_with(|| new_user(Utc::now()));
    }

    /// A new key: its id and its secret.
    pub(crate) fn mint(&mut self, user: &str, now: DateTime<Utc>, by_human: bool) -> Result<(String, String), NoKey> {
        if !self.users.contains_key(user) {
            return Err(NoKey::NoSuchUser);
        }
        if self.living(user).count() >= self.options.quota {
            return Err(NoKey::Quota(self.options.quota));
        }
        let (id, secret) = (chance::access_key_id(), chance::secret_access_key());
        self.secrets.insert(id.clone(), secret.clone());
        self.keys.push(Key {
            id: id.clone(),
            secret: secret.clone(),
            user: user.to_owned(),
            active: true,
            created: now,
            minted: now,
            by_human,
            deleted: None,
            uses: Vec::new(),
        });
        Ok((id, secret))
    }

    /// The keys the user has, whatever a listing shows.
    pub(crate) fn living(&self, user: &str) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(move |key| key.user == user && key.deleted.is_none())
    }

    /// The keys a listing shows.
    pub(crate) fn listed(&self, user: &str, now: DateTime<Utc>) -> impl Iterator<Item = &Key> {
        let lag = self.options.listing_lag;
        self.keys.iter().filter(move |key| key.user == user && key.listed(now, lag))
    }

    pub(crate) fn key(&mut self, user: &str, id: &str) -> Option<&mut Key> {
        self.keys.iter_mut().find(|key| key.user == user && key.id == id && key.deleted.is_none())
    }

    /// The key that may sign now: there, active, and known by now.
    pub(crate) fn signing_key(&mut self, id: &str, now: DateTime<Utc>) -> Option<&mut Key> {
        let propagation = self.options.propagation;
        self.keys
            .iter_mut()
            .find(|key| key.id == id && key.deleted.is_none() && key.active && key.propagated(now, propagation))
    }

    pub(crate) fn is_denied(&self, action: &str) -> bool {
        let service = action.split(':').next().unwrap_or_default();
        self.denied.contains(action) || self.denied.contains(&format!("{service}:*")) || self.denied.contains("*")
    }

    pub(crate) fn user_arn(&self, user: &str) -> String {
        format!("arn:aws:iam::{}:user/{user}", self.options.account_id)
    }
}

/// A panic in one request of a test must not hide the state from the next.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn delta(d: Duration) -> TimeDelta {
    TimeDelta::from_std(d).unwrap_or(TimeDelta::MAX)
}
