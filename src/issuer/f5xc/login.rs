//! Which credential rekeyd itself logs in with, and whose a token is that an operator brings. Whoever revokes the former, or takes its
//! rights, stands before a locked door.
//!
//! No answer of the console names the credential behind a login; `whoami` shows its user. So it takes a proof to call a credential
//! another one, and where there is none, this says so and nothing is done.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};

use super::account::Login;
use super::policy::WHOAMI;
use super::wire::{API_CERTIFICATE, API_TOKEN, Who};
use super::{F5xc, read};
use crate::model::{KeyId, Reason, Secret};
use crate::net::Context;
use crate::net::redact::Redactor;
use crate::ports::Fault;

/// How many tokens are remembered by their hash.
const KNOWN_MAX: usize = 64;

/// Whether a credential is the one that rekeyd logs in with.
pub(super) enum IsLogin {
    /// It is, and this shows it.
    Yes(&'static str),
    /// It is another one, for certain.
    No,
    /// Nothing tells; and why that is.
    Untold(String),
}

/// Whose tokens have been tried, by their hash, at one tenant: all its services share them, for one may rotate the token that the others
/// log in with.
pub(super) struct Tokens {
    host: String,
    known: Mutex<HashMap<[u8; 32], KeyId>>,
}

impl Tokens {
    /// Those of the tenant at `host`.
    pub(super) fn of(host: &str, context: &Context) -> Arc<Self> {
        if let Some(known) = context.shared.find(|known: &Self| known.host == host) {
            return known;
        }
        let made = Arc::new(Self { host: host.to_owned(), known: Mutex::default() });
        context.shared.keep(&made);
        made
    }

    /// This token was tried as this credential's, and taken.
    pub(super) fn learn(&self, id: &KeyId, token: &Secret) {
        let mut known = self.known();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(hash(token), id.clone());
    }

    fn owner(&self, token: &Secret) -> Option<KeyId> {
        self.known().get(&hash(token)).cloned()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<[u8; 32], KeyId>> {
        // Whole entries only.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl F5xc {
    /// Asks who rekeyd is with what its login is at this moment, and holds that against `key`.
    pub(super) async fn is_login(&self, key: &KeyId) -> Result<IsLogin, Fault> {
        let tried = self.console.token()?.and_then(|token| self.tokens.owner(&token));
        if tried.as_ref() == Some(key) {
            return Ok(IsLogin::Yes("its token shows"));
        }
        let who = self.who().await?;
        let named = who.credential();
        if named.is_some_and(|name| name.eq_ignore_ascii_case(key.as_str())) {
            return Ok(IsLogin::Yes("the name of its user shows"));
        }
        if tried.is_some() || who.is_person() {
            return Ok(IsLogin::No);
        }
        if let Some(name) = named
            && self.items().await?.0.iter().any(|item| item.name.eq_ignore_ascii_case(name))
        {
            return Ok(IsLogin::No);
        }
        let item = match self.item(key).await {
            // What is not there opens nothing.
            Err(Fault::Refused { reason: Reason::NotFound, .. }) => return Ok(IsLogin::No),
            item => item?,
        };
        let other_sort = match self.console.account.login {
            Login::Token(_) => API_CERTIFICATE,
            Login::Certificate { .. } => API_TOKEN,
        };
        if item.kind == other_sort {
            return Ok(IsLogin::No);
        }
        // "Email of the service user attached to service credential". That it is another's proves nothing: a listing has the address of
        // who asked for a credential in the same field (both: published OpenAPI of `ves.io.schema.api_credential`, 2026-01).
        if !who.email.is_empty() && item.user_email.is_some_and(|email| email.eq_ignore_ascii_case(&who.email)) {
            return Ok(IsLogin::Yes("the e-mail address of its user shows"));
        }
        Ok(IsLogin::Untold(match Redactor::default().clean(&who.email) {
            email if email.is_empty() => "the console shows no address for that login".to_owned(),
            email => {
                format!("the console shows {email} for that login, which is neither a person nor a credential's name")
            }
        }))
    }

    /// Who else a token belongs to that was brought as `key`'s: another credential that is listed, or a person. None where it is `key`'s
    /// or the console does not tell; whether it works is for a probe to find.
    pub(super) async fn other_owner(&self, key: &KeyId, token: &Secret) -> Option<String> {
        let call = self.call(&format!("ask whose token was given for service credential {key}"));
        let answer = self.console.get_as(&call, WHOAMI, token).await.ok().filter(|answer| answer.status == 200)?;
        let who: Who = read(&call, &answer, "an answer that names no tenant").ok()?;
        let clean = |text: &str| Redactor::new([token]).clean(text);
        match who.credential() {
            Some(name) if name.eq_ignore_ascii_case(key.as_str()) => None,
            Some(name) => {
                let (items, _) = self.items().await.ok()?;
                items.iter().any(|item| item.name.eq_ignore_ascii_case(name)).then(|| clean(name))
            }
            None => who.is_person().then(|| clean(&who.email)),
        }
    }

    /// Refuses a revocation of `key` unless rekeyd surely logs in with something else.
    pub(super) async fn refuse_to_lock_ourselves_out(&self, key: &KeyId) -> Result<(), Fault> {
        let login = self.console.login();
        let why = match self.is_login(key).await? {
            IsLogin::No => return Ok(()),
            IsLogin::Yes(how) => format!("rekeyd itself logs in with it, as {how}; put another one into {login} first"),
            IsLogin::Untold(why) => format!(
                "whether rekeyd itself logs in with it cannot be told, since {why}; log in with a person's token instead of {login}, or \
                 adopt the credential behind that with its token, so that it is tried and known"
            ),
        };
        let why = format!("revoke service credential {key} at {}: {why}", self.on);
        Err(Fault::Refused { reason: Reason::CurrentKeyBroken, why })
    }
}

fn hash(token: &Secret) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.expose().as_bytes()).as_ref());
    hash
}
