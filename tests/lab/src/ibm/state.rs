//! What the system knows: users, keys, the rotator's rights.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::{IbmKeyView, IbmOptions, IbmRight};
use crate::faults::FaultQueue;
use crate::s3::KeyState;
use crate::{RequestLine, chance};

/// One credential.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) access: String,
    pub(crate) secret: String,
    pub(crate) project: String,
    pub(crate) user: String,
    pub(crate) subject: Option<String>,
    pub(crate) active: bool,
    pub(crate) made: DateTime<Utc>,
    pub(crate) deleted: Option<DateTime<Utc>>,
}

impl Key {
    pub(crate) fn new(
        (project, user): (&str, &str),
        access: &str,
        secret: String,
        subject: Option<String>,
        made: DateTime<Utc>,
    ) -> Self {
        let (access, project, user) = (access.to_owned(), project.to_owned(), user.to_owned());
        Self { access, secret, project, user, subject, active: true, made, deleted: None }
    }

    pub(crate) fn is_of(&self, project: &str, user: &str) -> bool {
        (self.project.as_str(), self.user.as_str()) == (project, user)
    }

    pub(crate) fn view(&self) -> IbmKeyView {
        IbmKeyView { access: self.access.clone(), active: self.active, subject: self.subject.clone(), made: self.made }
    }

    /// Whether list and show know it.
    pub(crate) fn is_shown(&self, lag: Duration, now: DateTime<Utc>) -> bool {
        let settled = |since: DateTime<Utc>| now - since >= TimeDelta::from_std(lag).unwrap_or(TimeDelta::MAX);
        settled(self.made) && self.deleted.is_none_or(|deleted| !settled(deleted))
    }
}

pub(crate) struct State {
    pub(crate) options: IbmOptions,
    /// The rotator's name and password.
    pub(crate) login: (String, String),
    pub(crate) refused_logins: usize,
    /// Storage account and user.
    pub(crate) users: BTreeSet<(String, String)>,
    /// Every key there ever was, oldest first.
    pub(crate) keys: Vec<Key>,
    /// Secrets that a key no longer has.
    pub(crate) replaced: Vec<String>,
    pub(crate) denied: BTreeSet<IbmRight>,
    pub(crate) faults: FaultQueue,
    pub(crate) requests: Vec<RequestLine>,
    pub(crate) mints: usize,
    pub(crate) date_skew: chrono::Duration,
}

impl State {
    pub(crate) fn new(options: IbmOptions) -> Self {
        Self {
            options,
            login: ("rotator".to_owned(), chance::secret_access_key()),
            refused_logins: 0,
            users: BTreeSet::new(),
            keys: Vec::new(),
            replaced: Vec::new(),
            denied: BTreeSet::new(),
            faults: FaultQueue::default(),
            requests: Vec::new(),
            mints: 0,
            date_skew: chrono::Duration::zero(),
        }
    }

    /// A key that is not deleted.
    pub(crate) fn living(&mut self, access: &str) -> Option<&mut Key> {
        self.keys.iter_mut().find(|key| key.access == access && key.deleted.is_none())
    }

    /// What the store is told of a key.
    pub(crate) fn standing(&mut self, access: &str, now: DateTime<Utc>) -> KeyState {
        let propagation = self.options.propagation;
        match self.living(access) {
            Some(key) if !key.is_shown(propagation, now) => KeyState::Unknown,
            Some(key) if key.active => KeyState::Usable(key.secret.clone()),
            Some(_) => KeyState::Inactive,
            None => KeyState::Unknown,
        }
    }
}

/// A panic in one request of a test must not hide the state from the next.
pub(crate) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
