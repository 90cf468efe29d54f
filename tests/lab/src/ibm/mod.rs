//! The stand-in of an IBM Cloud Object Storage system in container mode: an accesser with the credential API, and a store that takes
//! its keys. Its handle, and what a test or a human with `curl` may do to it.
//!
//! Written from IBM's pages of version 3.20.1 ("Container Mode Credentials Management API"). What they leave open (the bodies of
//! refusals, a name that is taken, how many keys a user may have, when a listing shows what is new) is an option here.

mod serve;
mod state;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::s3::{KeyState, S3Store};
use crate::{Fault, RequestLine, chance, http, tls};
use state::{Key, State};

/// How this system behaves. Everything that differs from an instant system with all in the form of IBM's examples is off by default.
#[derive(Clone, Debug)]
pub struct IbmOptions {
    /// HTTPS, with a certificate of an authority nobody knows ([`Ibm::ca_pem`]), as accessers have it.
    pub tls: bool,
    /// `blob` is a text with JSON inside, as the tables of parameters have it; in a PATCH it must come back so.
    pub blob_as_text: bool,
    /// `secrete` for `secret` in every answer, as one page prints it.
    pub misspelt: bool,
    /// By operation, as [`Ibm::fault`] calls it: the access key and id in its answer, whichever key it was about, as in IBM's example
    /// of an update.
    pub answers_as: BTreeMap<&'static str, String>,
    /// List, show and update show secrets, as in IBM's examples.
    pub shows_secrets: bool,
    /// The user of the same storage account for whom a POST makes its key, whomever it names: an accesser that takes the caller's, say.
    pub made_for: Option<String>,
    /// Answers name no user, as the tables of parameters have it; every example does.
    pub names_no_user: bool,
    /// Refusals have no body. With one it is in Keystone's form; no page shows any.
    pub silent: bool,
    /// Keys a user may have, active or not. No page names the number.
    pub keys_max: usize,
    /// What a POST with an access key that is taken does. No page says.
    pub taken: TakenName,
    /// List and show do not know keys younger than this, and still know keys deleted less than this ago.
    pub listing_lag: Duration,
    /// The store does not know keys younger than this.
    pub propagation: Duration,
    /// A list has this many keys at most, and says in Keystone's words that it goes on. No page says that lists have pages.
    pub page: Option<usize>,
    /// The query of a list is ignored, and every key of the system is shown.
    pub ignores_filters: bool,
}

impl Default for IbmOptions {
    fn default() -> Self {
        Self {
            tls: false,
            blob_as_text: false,
            misspelt: false,
            answers_as: BTreeMap::new(),
            shows_secrets: true,
            made_for: None,
            names_no_user: false,
            silent: false,
            keys_max: 10,
            taken: TakenName::Conflict,
            listing_lag: Duration::ZERO,
            propagation: Duration::ZERO,
            page: None,
            ignores_filters: false,
        }
    }
}

/// What becomes of a POST whose access key is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakenName {
    /// 409.
    Conflict,
    /// 201, with the key as it is.
    SameKey,
    /// 201, and the key has another secret from then on.
    NewSecret,
}

/// What an account of the Manager's may be allowed, as "Roles and permissions" calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IbmRight {
    /// To create, change and delete keys; else 403.
    KeyManagement,
    /// To list and show them; else 403.
    KeyListing,
    /// To do so for a storage account that is not one's own; else 403.
    Impersonate,
    /// To have to do with the storage account at all; else 405.
    StorageAccount,
}

impl IbmRight {
    /// As IBM's pages write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::KeyManagement => "Key Management Permission",
            Self::KeyListing => "Key Listing Permission",
            Self::Impersonate => "Impersonate",
            Self::StorageAccount => "storage account",
        }
    }
}

/// A key as it truly is, whatever the API shows at this moment.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct IbmKeyView {
    /// The access key.
    pub access: String,
    /// Not disabled.
    pub active: bool,
    /// `subject_ibm_id`, where it was given.
    pub subject: Option<String>,
    /// When it was made; no answer tells.
    pub made: DateTime<Utc>,
}

/// An accesser on a loopback port, and a store on another. It stops when the last of its handles is dropped.
#[derive(Clone)]
pub struct Ibm {
    origin: String,
    ca_pem: Option<String>,
    state: Arc<Mutex<State>>,
    store: Arc<S3Store>,
}

impl Ibm {
    /// A system with one account of the Manager's, `rotator`, who may do everything, and no user of its own.
    pub async fn start(options: IbmOptions) -> Ibm {
        let (acceptor, papers) = options.tls.then(|| tls::acceptor(None, false)).unzip();
        let scheme = if options.tls { "https" } else { "http" };
        let (listener, port) = http::loopback().await;
        let state = Arc::new(Mutex::new(State::new(options)));
        http::serve(Arc::new(serve::Server::new(state.clone())), listener, acceptor).await;
        let keys = state.clone();
        let store = S3Store::start(Arc::new(move |access| state::lock(&keys).standing(access, Utc::now()))).await;
        Ibm {
            origin: format!("{scheme}://127.0.0.1:{port}"),
            ca_pem: papers.map(|papers| papers.ca),
            state,
            store: Arc::new(store),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        state::lock(&self.state)
    }

    /// Where the credential API is: `http://127.0.0.1:PORT`, or `https://…`.
    pub fn accesser_url(&self) -> String {
        self.origin.clone()
    }

    /// The authority that signed the accesser's certificate; `None` without TLS.
    pub fn ca_pem(&self) -> Option<String> {
        self.ca_pem.clone()
    }

    /// Where the buckets are.
    pub fn s3_url(&self) -> String {
        self.store.url()
    }

    /// The store behind, for what is asked of that.
    pub fn store(&self) -> &S3Store {
        &self.store
    }

    /// The rotator's name and password.
    pub fn login(&self) -> (String, String) {
        self.state().login.clone()
    }

    /// Somebody gives the rotator another password.
    pub fn set_password(&self, password: &str) {
        self.state().login.1 = password.to_owned();
    }

    /// How many requests came with a login that was refused.
    pub fn refused_logins(&self) -> usize {
        self.state().refused_logins
    }

    /// A user of a storage account. Adding one twice changes nothing.
    pub fn add_user(&self, project: &str, user: &str) {
        self.state().users.insert((project.to_owned(), user.to_owned()));
    }

    /// An empty bucket that every usable key may read.
    pub fn add_bucket(&self, name: &str) {
        self.store.add_bucket(name);
    }

    /// A key made "by a human": named by the system, shown at once, and not counted in [`Ibm::mints`].
    ///
    /// # Panics
    /// If there is no such user.
    pub fn create_key(&self, project: &str, user: &str) -> (String, String) {
        let mut state = self.state();
        assert!(state.users.contains(&(project.to_owned(), user.to_owned())), "create_key: no such user");
        let owner = (project, user);
        let key = Key::new(owner, &chance::hexadecimal(), chance::secret_access_key(), None, DateTime::UNIX_EPOCH);
        let pair = (key.access.clone(), key.secret.clone());
        state.keys.push(key);
        pair
    }

    /// Deletes a key, as a human would.
    ///
    /// # Panics
    /// If there is no such key.
    pub fn delete_key(&self, access: &str) {
        self.state().living(access).expect("delete_key: no such key").deleted = Some(Utc::now());
    }

    /// Enables or disables a key, as a human would.
    ///
    /// # Panics
    /// If there is no such key.
    pub fn set_status(&self, access: &str, active: bool) {
        self.state().living(access).expect("set_status: no such key").active = active;
    }

    /// The user's keys, oldest first, those deleted left out.
    pub fn keys(&self, project: &str, user: &str) -> Vec<IbmKeyView> {
        let state = self.state();
        let own = state.keys.iter().filter(|key| key.deleted.is_none() && key.is_of(project, user));
        own.map(Key::view).collect()
    }

    /// The access key of every key there ever was, deleted ones too.
    pub fn all_access_keys(&self) -> Vec<String> {
        self.state().keys.iter().map(|key| key.access.clone()).collect()
    }

    /// The secret of a key that was not deleted.
    pub fn secret_of(&self, access: &str) -> Option<String> {
        let state = self.state();
        let one = state.keys.iter().find(|key| key.access == access && key.deleted.is_none());
        one.map(|key| key.secret.clone())
    }

    /// Every secret there ever was, and the password.
    pub fn all_secrets(&self) -> Vec<String> {
        let state = self.state();
        let secrets = state.keys.iter().map(|key| &key.secret).chain(&state.replaced).chain([&state.login.1]);
        secrets.cloned().collect()
    }

    /// Takes a right from the rotator.
    pub fn deny(&self, right: IbmRight) {
        self.state().denied.insert(right);
    }

    /// Gives back what [`Ibm::deny`] took.
    pub fn allow(&self, right: IbmRight) {
        self.state().denied.remove(&right);
    }

    /// Changes how it behaves from now on. Whether it speaks TLS stays as it was.
    pub fn set_options(&self, change: impl FnOnce(&mut IbmOptions)) {
        change(&mut self.state().options);
    }

    /// Queues a mishap for the next call of `operation`: `CreateCredential`, `ListCredentials`, `ShowCredential`, `UpdateCredential`,
    /// `DeleteCredential`.
    pub fn fault(&self, operation: &str, fault: Fault) {
        self.state().faults.push(operation, fault);
    }

    /// How many of the mishaps queued for this operation are not yet spent.
    pub fn faults_left(&self, operation: &str) -> usize {
        self.state().faults.left(operation)
    }

    /// Forgets the faults not yet spent.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// Moves the `Date` header of the answers, and nothing else.
    pub fn set_date_skew(&self, skew: chrono::Duration) {
        self.state().date_skew = skew;
    }

    /// Every request to the accesser.
    pub fn requests(&self) -> Vec<RequestLine> {
        self.state().requests.clone()
    }

    /// How many POSTs made a key.
    pub fn mints(&self) -> usize {
        self.state().mints
    }

    /// Whether there ever was a key of this name: whose consumers read here.
    pub(crate) fn knows(&self, access: &str) -> bool {
        self.state().keys.iter().any(|key| key.access == access)
    }

    /// Whether this pair works now: what ArcGIS's own validations find out.
    pub(crate) fn opens(&self, access: &str, secret: &str) -> bool {
        matches!(self.state().standing(access, Utc::now()), KeyState::Usable(right) if right == secret)
    }
}
