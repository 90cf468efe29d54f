//! rekeyd's own login at one system: a password, and whether it may go out now.
//!
//! HTTP Basic sends it with every request, and all services of one account have the same. So that one that has become wrong is sent once
//! and not by each of them, a request goes alone until an answer has shown that the password is taken; those behind it hear first what
//! became of it. For a moment after such an answer they go side by side.
//!
//! Invariant: a password that was refused is not sent again until it changes or is forgiven. Does not say what is asked, nor what an
//! answer means.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::{Mutex as Turns, MutexGuard};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::model::{Secret, SystemRef};
use crate::net::Context;
use crate::ports::{Attempt, LoginGuard};

/// How long an answer counts as proof that the password is still taken. Somebody may change it at any time: as many requests as go out
/// within this time of the last good answer may carry the old one.
const TAKEN_FOR: Duration = Duration::from_secs(10);

/// One password of one user at one system.
pub(super) struct Login {
    at: SystemRef,
    user: String,
    password: Secret,
    /// The value of the header.
    header: Secret,
    guard: Arc<dyn LoginGuard>,
    /// Who may send while nobody knows whether the password is taken.
    turn: Turns<()>,
    taken: Mutex<Option<Instant>>,
}

/// Leave to send one request with the password in it: kept until its answer was told to the [`Login`].
pub(super) struct Leave<'l> {
    _turn: Option<MutexGuard<'l, ()>>,
    _attempt: Attempt,
}

/// Why there is none.
pub(super) enum Barred {
    /// The password was refused.
    Refused,
    /// The process ends.
    Ending,
}

impl Login {
    /// The login as all ports share it that have the same password: one that is in use, or a new one.
    pub(super) fn shared(at: &SystemRef, user: &str, password: Secret, context: &Context) -> Arc<Self> {
        let same = |known: &Self| {
            known.at == *at
                && known.user == user
                && known.password == password
                && Arc::ptr_eq(&known.guard, &context.guard)
        };
        if let Some(known) = context.shared.find(same) {
            return known;
        }
        let pair = Zeroizing::new(format!("{user}:{}", password.expose()));
        let made = Arc::new(Self {
            at: at.clone(),
            user: user.to_owned(),
            header: Secret::new(format!("Basic {}", STANDARD.encode(pair.as_bytes()))),
            password,
            guard: context.guard.clone(),
            turn: Turns::default(),
            taken: Mutex::default(),
        });
        context.shared.keep(&made);
        made
    }

    /// Waits until a request may go out.
    pub(super) async fn leave(&self) -> Result<Leave<'_>, Barred> {
        let turn = match self.is_taken() {
            true => None,
            false => Some(self.turn.lock().await),
        };
        if self.guard.is_refused(&self.at.to_string(), &self.user, &self.password) {
            return Err(Barred::Refused);
        }
        let attempt = self.guard.attempt().ok_or(Barred::Ending)?;
        // Those behind need not wait for the answer of one who goes after a good one.
        Ok(Leave { _turn: turn.filter(|_| !self.is_taken()), _attempt: attempt })
    }

    fn is_taken(&self) -> bool {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.is_some_and(|at| at.elapsed() < TAKEN_FOR)
    }

    /// An answer that nobody gives who was not let in.
    pub(super) fn was_taken(&self) {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// The password was refused: remembered when this returns.
    pub(super) fn was_refused(&self) {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.guard.refused(&self.at.to_string(), &self.user, &self.password);
    }

    /// The value of `Authorization`.
    pub(super) fn header(&self) -> &Secret {
        &self.header
    }

    /// What no message may repeat: the password, and how it stands in the header.
    pub(super) fn secrets(&self) -> [Secret; 2] {
        let encoded = self.header.expose().trim_start_matches("Basic ").to_owned();
        [self.password.clone(), Secret::new(encoded)]
    }
}
