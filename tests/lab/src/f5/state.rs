//! What a tenant holds: service credentials, and the person whose token the rotator has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};

use super::F5Options;
use crate::faults::FaultQueue;
use crate::{RequestLine, chance};

/// The role that may manage service credentials here. Which of F5's own roles may is not documented with the requests.
pub(crate) const MANAGER: &str = "ves-io-admin-role";

/// The person behind the rotator's first login.
pub(crate) const PERSON: &str = "rotator@example.com";

pub(crate) struct State {
    pub(crate) options: F5Options,
    pub(crate) credentials: Vec<Credential>,
    /// The rotator's own token, of a person.
    pub(crate) token: String,
    /// Operations that nobody may do just now.
    pub(crate) denied: BTreeSet<String>,
    pub(crate) faults: FaultQueue,
    pub(crate) requests: Vec<RequestLine>,
    pub(crate) secrets: Vec<String>,
    /// When the last requests came, for the limit.
    pub(crate) lately: Vec<DateTime<Utc>>,
    pub(crate) date_skew: TimeDelta,
    pub(crate) down: bool,
}

#[derive(Clone)]
pub(crate) struct Credential {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) data: String,
    pub(crate) active: bool,
    pub(crate) created: DateTime<Utc>,
    pub(crate) expires: DateTime<Utc>,
    /// Who made it.
    pub(crate) maker: String,
    pub(crate) roles: BTreeMap<String, BTreeSet<String>>,
    pub(crate) groups: BTreeSet<String>,
    /// Made by a person, and so known everywhere at once.
    pub(crate) by_hand: bool,
    pub(crate) revoked: Option<DateTime<Utc>>,
}

impl Credential {
    /// Its own user.
    pub(crate) fn email(&self, options: &F5Options) -> String {
        match options.nameless_users {
            true => format!("{:x}@users.example.com", self.created.timestamp_micros()),
            false => format!("{}@volterracredentials.io", self.name),
        }
    }
}

/// Who a request is.
pub(crate) struct Caller {
    pub(crate) email: String,
    /// Roles by namespace; `None` for the person, who may do everything.
    pub(crate) roles: Option<BTreeMap<String, BTreeSet<String>>>,
}

impl Caller {
    /// Whether it may manage service credentials.
    pub(crate) fn is_manager(&self) -> bool {
        self.roles.as_ref().is_none_or(|roles| {
            ["system", "*"].iter().any(|namespace| roles.get(*namespace).is_some_and(|roles| roles.contains(MANAGER)))
        })
    }

    /// Whether it may look at namespaces.
    pub(crate) fn has_a_role(&self) -> bool {
        self.roles.as_ref().is_none_or(|roles| !roles.is_empty())
    }
}

impl State {
    pub(crate) fn new(options: F5Options) -> Self {
        let token = chance::account_key::<30>();
        Self {
            options,
            credentials: Vec::new(),
            secrets: vec![token.clone()],
            token,
            denied: BTreeSet::new(),
            faults: FaultQueue::default(),
            requests: Vec::new(),
            lately: Vec::new(),
            date_skew: TimeDelta::zero(),
            down: false,
        }
    }

    /// Who has this token: a person, or a credential that is active, has not ended and is known here by now.
    pub(crate) fn caller(&self, token: &str, now: DateTime<Utc>) -> Option<Caller> {
        if token == self.token {
            return Some(Caller { email: PERSON.to_owned(), roles: None });
        }
        let propagation = delta(self.options.propagation);
        let found = self.credentials.iter().find(|one| one.kind == "SERVICE_API_TOKEN" && one.data == token)?;
        let is_known = found.by_hand || found.created + propagation <= now;
        let lives = found.active && found.revoked.is_none() && found.expires > now && is_known;
        lives.then(|| Caller { email: found.email(&self.options), roles: Some(found.roles.clone()) })
    }

    /// Those that a listing shows: young ones later, and revoked ones for a while longer.
    pub(crate) fn listed(&self, now: DateTime<Utc>) -> impl Iterator<Item = &Credential> {
        let (lag, removal) = (delta(self.options.listing_lag), delta(self.options.removal_lag));
        self.credentials.iter().filter(move |one| {
            let is_shown = one.by_hand || one.created + lag <= now;
            is_shown && one.revoked.is_none_or(|at| at + removal > now)
        })
    }

    /// The one of this name, unless it was revoked.
    pub(crate) fn find(&mut self, name: &str) -> Option<&mut Credential> {
        self.credentials.iter_mut().find(|one| one.name == name && one.revoked.is_none())
    }
}

pub(crate) fn delta(duration: std::time::Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

pub(crate) fn lock(state: &Arc<Mutex<State>>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
