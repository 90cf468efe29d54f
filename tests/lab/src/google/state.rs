//! What the project holds. No wire here: names, times and rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::{GoogleOptions, HmacKeyView};
use crate::faults::FaultQueue;
use crate::s3::KeyState;
use crate::{RequestLine, chance};

pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) email: String,
    pub(crate) active: bool,
    /// When `active` became what it is.
    pub(crate) changed: DateTime<Utc>,
    pub(crate) created: DateTime<Utc>,
    /// Made in the console: nobody waits for it.
    by_human: bool,
    pub(crate) deleted: Option<DateTime<Utc>>,
    /// Another with each change.
    pub(crate) etag: String,
}

impl Key {
    pub(crate) fn view(&self) -> HmacKeyView {
        HmacKeyView { id: self.id.clone(), active: self.active, created: self.created }
    }

    pub(crate) fn set_active(&mut self, active: bool, now: DateTime<Utc>) {
        self.active = active;
        self.changed = now;
        self.etag = chance::google_etag();
    }
}

/// Why there is no new key.
#[derive(Debug)]
pub(crate) enum NoKey {
    NoSuchAccount,
    Quota,
}

pub(crate) struct Token {
    pub(crate) scopes: Vec<String>,
    pub(crate) expires: DateTime<Utc>,
}

pub(crate) struct State {
    pub(crate) options: GoogleOptions,
    pub(crate) url: String,
    pub(crate) accounts: BTreeSet<String>,
    /// Oldest first; deleted ones stay, because they can be shown.
    pub(crate) keys: Vec<Key>,
    /// What the rotator may do.
    pub(crate) permissions: BTreeSet<String>,
    pub(crate) constraint: Option<String>,
    pub(crate) resource_manager_disabled: bool,
    /// Of the rotator's own key.
    pub(crate) signer_id: String,
    pub(crate) subject_token: String,
    /// Of the client that the person granted something to.
    pub(crate) client_secret: String,
    /// What the person granted.
    pub(crate) refresh_token: String,
    /// Nobody may be the rotator but itself.
    pub(crate) impersonation_denied: bool,
    pub(crate) tokens: BTreeMap<String, Token>,
    pub(crate) tokens_given: Vec<String>,
    pub(crate) faults: FaultQueue,
    pub(crate) date_skew: TimeDelta,
    pub(crate) requests: Vec<RequestLine>,
    pub(crate) mints: usize,
    pub(crate) hasty_deletions: usize,
}

impl State {
    pub(crate) fn new(options: GoogleOptions, url: String) -> Self {
        let all = ["create", "list", "get", "update", "delete"];
        Self {
            options,
            url,
            accounts: BTreeSet::new(),
            keys: Vec::new(),
            permissions: all.iter().map(|verb| format!("storage.hmacKeys.{verb}")).collect(),
            constraint: None,
            resource_manager_disabled: false,
            signer_id: signer_id(),
            subject_token: chance::token(),
            client_secret: chance::token(),
            refresh_token: chance::token(),
            impersonation_denied: false,
            tokens: BTreeMap::new(),
            tokens_given: Vec::new(),
            faults: FaultQueue::default(),
            date_skew: TimeDelta::zero(),
            requests: Vec::new(),
            mints: 0,
            hasty_deletions: 0,
        }
    }

    pub(crate) fn rotator(&self) -> String {
        format!("rotator@{}.iam.gserviceaccount.com", self.options.project)
    }

    pub(crate) fn token_url(&self) -> String {
        format!("{}/token", self.url)
    }

    pub(crate) fn sts_url(&self) -> String {
        format!("{}/v1/token", self.url)
    }

    pub(crate) fn give_token(&mut self, scopes: Vec<String>, now: DateTime<Utc>) -> String {
        let text = format!("ya29.{}", chance::token().trim_end_matches('.'));
        let expires = now + delta(self.options.token_lifetime);
        self.tokens.insert(text.clone(), Token { scopes, expires });
        self.tokens_given.push(text.clone());
        text
    }

    pub(crate) fn mint(&mut self, email: &str, now: DateTime<Utc>, by_human: bool) -> Result<&Key, NoKey> {
        if !self.accounts.contains(email) {
            return Err(NoKey::NoSuchAccount);
        }
        if self.living(email).count() >= self.options.quota {
            return Err(NoKey::Quota);
        }
        self.keys.push(Key {
            id: chance::access_id(),
            secret: chance::secret_access_key(),
            email: email.to_owned(),
            active: true,
            changed: DateTime::UNIX_EPOCH,
            created: now,
            by_human,
            deleted: None,
            etag: chance::google_etag(),
        });
        self.keys.last().ok_or(NoKey::Quota)
    }

    /// The keys the account has.
    pub(crate) fn living(&self, email: &str) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(move |key| key.email == email && key.deleted.is_none())
    }

    pub(crate) fn key(&mut self, id: &str) -> Option<&mut Key> {
        self.keys.iter_mut().find(|key| key.id == id && key.deleted.is_none())
    }

    /// What the store knows of a key: less than the API, for a while.
    pub(crate) fn known(&self, id: &str, now: DateTime<Utc>) -> KeyState {
        let Some(key) = self.keys.iter().find(|key| key.id == id && key.deleted.is_none()) else {
            return KeyState::Unknown;
        };
        if !key.by_human && now < key.created + delta(self.options.propagation) {
            return KeyState::Unknown;
        }
        let is_told = now >= key.changed + delta(self.options.state_lag);
        match key.active == is_told {
            true => KeyState::Usable(key.secret.clone()),
            false => KeyState::Inactive,
        }
    }
}

/// As Google numbers the keys of service accounts: forty hexadecimal digits.
pub(crate) fn signer_id() -> String {
    chance::bytes::<20>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A panic in one request of a test must not hide the state from the next.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn delta(d: Duration) -> TimeDelta {
    TimeDelta::from_std(d).unwrap_or(TimeDelta::MAX)
}
