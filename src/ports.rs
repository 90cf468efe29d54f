//! What the engine asks of the world: clocks, issuers, targets, the journal. Traits only, with their contracts.
//!
//! Invariant: nothing behind these traits retries, sleeps (but see [`Issuer::mint`]) or decides. The machine decides, the engine paces.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::model::{
    AccountIdentity, Instant, IntentId, IssuerSpec, JobId, KeyId, Keyless, Material, Reason, Secret, ServiceName,
    SystemRef, Tail, TargetSpec, Timestamp,
};
pub use crate::model::{
    Fault, FoundHolder, Health, Inspection, JobState, LastUse, ListedKey, Listing, Probe, Reading, Receipt, Site,
    Standing, WithoutKey,
};
use crate::rotation::event::Event;

/// Both clocks.
pub trait Clock: Send + Sync {
    /// The present instant.
    fn now(&self) -> Instant;
}

/// A key fresh from the mint.
#[derive(Debug)]
pub struct MintedKey {
    /// What targets need of it, secret included.
    pub material: Material,
    /// When the provider says it was made.
    pub created: Option<Timestamp>,
}

/// The provider-side object keys are minted from.
#[async_trait]
pub trait Issuer: Send + Sync {
    /// The provider's own identity of the account (never the policy's name for it). Repeatable.
    async fn identity(&self) -> Result<AccountIdentity, Fault>;

    /// All keys of the object. Repeatable. Returns a complete listing or a fault, never a part.
    async fn list(&self) -> Result<Listing, Fault>;

    /// Makes a key. NOT REPEATABLE, unless the issuer's shape says so: sends at most one request, on a fresh connection, with no
    /// retry beneath it. It may look again and again how that request goes on, where the provider answers before it is done, and so may
    /// [`Issuer::delete`]: the waits behind these traits, and bounded ones. After `Unknown` a key may exist whose secret is lost.
    /// `replaces` names the idle key whose slot is taken, where keys live in slots; a slot that holds another key by now is
    /// `Refused`, untouched.
    async fn mint(&self, intent: &IntentId, replaces: Option<&KeyId>) -> Result<MintedKey, Fault>;

    /// Uses the key as its consumer does. Repeatable; changes nothing.
    async fn probe(&self, material: &Material) -> Result<Probe, Fault>;

    /// Whether the rotator may do all that a rotation will ask for, as far as the provider tells before it is tried; a right that is
    /// told missing is `Refused`. Repeatable; changes nothing. None where a provider tells nothing.
    async fn rights(&self) -> Result<Option<Standing>, Fault> {
        Ok(None)
    }

    /// What targets hold that is made of a key by this issuer, where they do not hold the key itself; `key` is another issuer's, over
    /// the same keys. The same key yields the same. Sends nothing.
    fn derive(&self, key: &Material) -> Result<Material, Fault> {
        Err(Fault::Refused {
            reason: Reason::PolicyMismatch,
            why: format!(
                "key {} was to be turned into something else, and its issuer makes nothing of keys",
                key.key()
            ),
        })
    }

    /// When the key was last used. Repeatable.
    async fn last_use(&self, key: &KeyId) -> Result<LastUse, Fault>;

    /// Makes the key unusable, reversibly. Repeatable: an unusable key stays so. A key that does not exist is `Refused(not-found)`.
    async fn disable(&self, key: &KeyId) -> Result<(), Fault>;

    /// Makes a disabled key usable again. Repeatable.
    async fn enable(&self, key: &KeyId) -> Result<(), Fault>;

    /// What targets need of a key that is there already, for its adoption: with the secret an operator brought, or as the provider
    /// shows it where it shows secrets again. `None` where there is neither. Repeatable; changes nothing.
    async fn known(&self, key: &KeyId, secret: Option<Secret>) -> Result<Option<Material>, Fault>;

    /// Brings what a provider lets be changed of a living key, its rights and its end and never its secret, in line with the policy, and
    /// says what was changed. Asked of the current key alone, at rest. Repeatable. None where there is nothing to change.
    async fn keep(&self, _key: &KeyId) -> Result<Option<String>, Fault> {
        Ok(None)
    }

    /// Removes the key for ever; where keys live in slots, by a key that nobody has. Repeatable: a key that does not exist is a
    /// success here, and no proof that it is gone.
    async fn delete(&self, key: &KeyId) -> Result<(), Fault>;
}

/// A place that must hold the key.
#[async_trait]
pub trait Target: Send + Sync {
    /// Resolves the holder, checks that a push would be accepted now (read-only mode, site lock, inheritance, rights), reads.
    /// Repeatable; changes nothing. `Refused(inherits)` names the provider and everything that inherits from it.
    async fn inspect(&self) -> Result<Inspection, Fault>;

    /// As [`Target::inspect`], before a move to a credential without a key: whether that would be accepted now.
    async fn inspect_switch(&self, to: &Keyless) -> Result<Inspection, Fault> {
        Err(takes_keys_only(to))
    }

    /// What the target shows now. Repeatable; changes nothing.
    async fn read(&self) -> Result<Reading, Fault>;

    /// Hands the key over. Pushing the same key again is safe. Sends at most once, except that an answer which says that the
    /// session has expired (so nothing was done) may be followed by one login and one more send.
    async fn push(&self, material: &Material) -> Result<Receipt, Fault>;

    /// Hands a credential without a key over, with what [`Target::push`] promises.
    async fn switch(&self, to: &Keyless) -> Result<Receipt, Fault> {
        Err(takes_keys_only(to))
    }

    /// The jobs known now. Repeatable.
    async fn jobs(&self) -> Result<Vec<JobId>, Fault>;

    /// How a job stands. Repeatable; renews the session by itself and never pushes.
    async fn poll(&self, job: &JobId) -> Result<JobState, Fault>;

    /// Every place of the target's deployment that holds a credential and that this kind can tell of, the target itself among
    /// them. Repeatable; changes nothing. None where a kind knows of no other places.
    async fn holders(&self) -> Result<Vec<FoundHolder>, Fault> {
        Ok(Vec::new())
    }

    /// What the target's deployment is, who we are there, and what it holds that a rotation does not ask for. Repeatable; changes
    /// nothing. None for a kind without deployments.
    async fn site(&self) -> Result<Option<Site>, Fault> {
        Ok(None)
    }

    /// Whether the place could do without a key. Repeatable; changes nothing.
    async fn without_key(&self) -> Result<WithoutKey, Fault> {
        Ok(WithoutKey::Impossible("a target of this kind is given keys and nothing else".to_owned()))
    }

    /// Asks the consumer whether it works. Repeatable.
    async fn health(&self) -> Health;

    /// Names the secrets this place may have been given, by this process or one before, and may repeat in what it says: no message
    /// that comes from here may hold them. Those named before are forgotten. Sends nothing.
    fn know(&self, _secrets: Vec<Secret>) {}

    /// Names what this place would hold for each key whose secret is held, so that one that can be read as it was written compares all
    /// of it. Those named before are forgotten. Sends nothing.
    fn compare_with(&self, _materials: Vec<Material>) {}

    /// Names the end by which each key of this service is known here, those too whose secrets are not held any more, for a place that
    /// shows a key's id and no secret. Those named before are forgotten. Sends nothing.
    fn known_as(&self, _ends: BTreeMap<KeyId, Tail>) {}

    /// The operator wants what waits tried now: nothing remembered of an outage holds the next request back. Sends nothing.
    fn hurry(&self) {}
}

fn takes_keys_only(to: &Keyless) -> Fault {
    Fault::Refused { reason: Reason::Refused, why: format!("switching to {to}: a target of this kind takes keys only") }
}

/// Makes ports out of specs. The only place that knows which kind is which code.
pub trait Connect: Send + Sync {
    /// The issuer a spec names. Errors are for the operator: an account that left the policy, a secret file that is not there.
    fn issuer(&self, spec: &IssuerSpec) -> Result<Arc<dyn Issuer>, Fault>;
    /// The target a spec names.
    fn target(&self, spec: &TargetSpec) -> Result<Arc<dyn Target>, Fault>;
    /// The operator wants a refused login at this system tried again.
    fn forgive(&self, system: &SystemRef);
    /// The operator wants everything that waits tried now, at every system.
    fn hurry(&self) {}
}

/// A password that is under way, until it is dropped.
pub type Attempt = Box<dyn Send>;

/// Remembers which password was refused where, so that no process tries it again (ArcGIS locks an account after five).
///
/// A password is kept as a keyed fingerprint only.
pub trait LoginGuard: Send + Sync {
    /// Leave to send a password: kept until its answer is known and, where it was refused, remembered. `None`: the process ends now,
    /// and a refusal would be forgotten with it.
    fn attempt(&self) -> Option<Attempt> {
        Some(Box::new(()))
    }
    /// Whether this password was refused at this system.
    fn is_refused(&self, system: &str, user: &str, password: &Secret) -> bool;
    /// This password was refused just now; durable when this returns.
    fn refused(&self, system: &str, user: &str, password: &Secret);
    /// An answer to this password may have been a refusal in other words. A process that goes on waits for the next one, and counts
    /// it itself; one that ends after a few questions remembers the first, or every run would be the first.
    fn doubted(&self, _system: &str, _user: &str, _password: &Secret) {}
    /// The operator wants it tried again.
    fn forgive(&self, system: &str);
}

/// A guard that remembers nothing: for whoever asks nobody, or asks once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forgetful;

impl LoginGuard for Forgetful {
    fn is_refused(&self, _: &str, _: &str, _: &Secret) -> bool {
        false
    }

    fn refused(&self, _: &str, _: &str, _: &Secret) {}

    fn forgive(&self, _: &str) {}
}

/// An event as it is written: whose, when, what.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The service whose chain it extends.
    pub service: ServiceName,
    /// Its place in the chain, from 1.
    pub sequence: u64,
    /// When it was written.
    pub at: Instant,
    /// What happened.
    pub event: Event,
}

/// Why the journal did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// Another process holds it.
    #[error("{0}")]
    Locked(String),
    /// A newer rekeyd wrote it.
    #[error("{0}")]
    Newer(String),
    /// It is not there, or cannot be opened.
    #[error("{0}")]
    Unreachable(String),
    /// The write did not happen (disk full, I/O error). The caller must not act as if it had.
    #[error("{0}")]
    Write(String),
    /// What is stored does not verify.
    #[error("{0}")]
    Damaged(String),
}

/// One service's past, as stored.
#[derive(Clone, Debug)]
pub struct History {
    /// Whose.
    pub service: ServiceName,
    /// Its events in order, up to the first that does not verify.
    pub records: Vec<Record>,
    /// Where and why the chain does not verify, if it does not.
    pub damage: Option<String>,
}

/// The append-only record of what was intended and what happened.
#[async_trait]
pub trait Journal: Send + Sync {
    /// All histories. A damaged row damages its service's history and no other.
    async fn load(&self) -> Result<Vec<History>, JournalError>;

    /// Appends one event, durable when this returns. Material is sealed and stored in the same transaction (for `Minted` and
    /// an adoption with a secret). `expected` is the sequence number the caller believes is next; another one is `Damaged`.
    async fn append(
        &self,
        service: &ServiceName,
        expected: u64,
        at: &Instant,
        event: &Event,
        material: Option<&Material>,
    ) -> Result<(), JournalError>;

    /// The sealed material of a key, opened; `None` where it is not held.
    async fn material(&self, service: &ServiceName, key: &KeyId) -> Result<Option<Material>, JournalError>;

    /// The keys of a service whose material is held.
    async fn materials(&self, service: &ServiceName) -> Result<Vec<KeyId>, JournalError>;

    /// Destroys the sealed material of a key beyond recovery from the file. Repeatable.
    async fn shred(&self, service: &ServiceName, key: &KeyId) -> Result<(), JournalError>;

    /// Makes sure that a small write will succeed even on a disk that fills up from now on; called before a mint.
    async fn reserve(&self) -> Result<(), JournalError>;
}

/// Counts what is asked of the world.
pub trait Meter: Send + Sync {
    /// One request of `operation` at `system` came to `outcome` after `took`.
    fn request(&self, system: &str, operation: &'static str, outcome: &'static str, took: Duration);
}
