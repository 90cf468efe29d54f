//! The AWS stand-in: its handle, and what a test or a human at the console may do to it.

mod iam;
mod s3;
mod serve;
mod state;
mod sts;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::s3::{KeyState, Lookup};
use crate::{Fault, RequestLine, chance, http};
use state::{Bucket, Key, State, User};

/// How this account behaves. Everything that differs from an instant, patient AWS is off by default.
#[derive(Clone, Debug)]
pub struct AwsOptions {
    /// The twelve digits.
    pub account_id: String,
    /// A fresh key is unknown this long: STS and IAM answer `InvalidClientTokenId`, S3 `InvalidAccessKeyId`.
    pub propagation: Duration,
    /// `ListAccessKeys` does not show keys younger than this, and still shows keys deleted less than this ago.
    pub listing_lag: Duration,
    /// `GetAccessKeyLastUsed` does not yet tell of uses younger than this.
    pub last_used_lag: Duration,
    /// Keys a user may have, active or not.
    pub quota: usize,
    /// Keys per page of `ListAccessKeys`, where the caller does not ask for fewer.
    pub page_size: usize,
    /// Where buckets are; a request signed for another region is refused.
    pub bucket_region: String,
    /// The region IAM wants in a signature.
    pub iam_region: String,
    /// Whether there is an STS. A store of somebody's own that speaks IAM may have none: `InvalidAction`.
    pub sts: bool,
    /// Whether there is `GetAccessKeyLastUsed`; as for `sts`.
    pub last_used: bool,
}

impl Default for AwsOptions {
    fn default() -> Self {
        Self {
            account_id: "111122223333".to_owned(),
            propagation: Duration::ZERO,
            listing_lag: Duration::ZERO,
            last_used_lag: Duration::ZERO,
            quota: 2,
            page_size: 100,
            bucket_region: "us-east-1".to_owned(),
            iam_region: "us-east-1".to_owned(),
            sts: true,
            last_used: true,
        }
    }
}

/// A key as it truly is, whatever the API shows at this moment.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct KeyView {
    /// The access key id.
    pub id: String,
    /// Not disabled.
    pub active: bool,
    /// Its creation date.
    pub created: DateTime<Utc>,
    /// The last request it signed well, without the reporting lag.
    pub last_used: Option<DateTime<Utc>>,
}

/// Users, keys and buckets at one moment.
#[derive(Clone)]
pub struct AwsSnapshot {
    users: std::collections::BTreeMap<String, User>,
    keys: Vec<Key>,
    buckets: std::collections::BTreeMap<String, Bucket>,
}

/// IAM, STS and S3 of one account, on one loopback port. S3 is path-style; the service is read from the signature's scope.
#[derive(Clone)]
pub struct Aws {
    endpoint: String,
    admin: (String, String),
    state: Arc<Mutex<State>>,
}

/// The administrator's name.
const ADMIN: &str = "rotator";

impl Aws {
    /// An account with one user, the administrator `rotator`.
    pub async fn start(options: AwsOptions) -> Aws {
        let (listener, port) = http::loopback().await;
        let mut state = State::new(options);
        state.add_user(ADMIN);
        let admin = state.mint(ADMIN, Utc::now(), true).expect("an empty account has room for a key");
        let state = Arc::new(Mutex::new(state));
        http::serve(Arc::new(serve::Server::new(state.clone())), listener, None).await;
        Aws { endpoint: format!("http://127.0.0.1:{port}"), admin, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        state::lock(&self.state)
    }

    /// `http://127.0.0.1:PORT`, for all three services.
    pub fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    /// Access key id and secret of `rotator`, who may do `iam:*` and nothing else.
    pub fn admin(&self) -> (String, String) {
        self.admin.clone()
    }

    /// A user without rights of its own. Adding one twice changes nothing.
    pub fn add_user(&self, user: &str) {
        self.state().add_user(user);
    }

    /// A bucket whose `readers` may list it and read from it.
    pub fn add_bucket(&self, bucket: &str, readers: &[&str]) {
        let readers = readers.iter().map(|r| (*r).to_owned()).collect();
        self.state().buckets.insert(bucket.to_owned(), Bucket { readers });
    }

    /// A key made "by a human in the console": known everywhere at once, and not counted in [`Aws::mints`].
    ///
    /// # Panics
    /// Where AWS would refuse: no such user, or no room.
    pub fn create_key(&self, user: &str) -> (String, String) {
        self.state().mint(user, Utc::now(), true).unwrap_or_else(|why| panic!("create_key: {why:?}"))
    }

    /// Deletes a key, as a human would.
    ///
    /// # Panics
    /// If the user has no such key.
    pub fn delete_key(&self, user: &str, id: &str) {
        self.state().key(user, id).expect("delete_key: no such key").deleted = Some(Utc::now());
    }

    /// Enables or disables a key, as a human would.
    ///
    /// # Panics
    /// If the user has no such key.
    pub fn set_status(&self, user: &str, id: &str, active: bool) {
        self.state().key(user, id).expect("set_status: no such key").active = active;
    }

    /// Gives a key another creation date. Propagation and listing lag still count from the real one.
    ///
    /// # Panics
    /// If the user has no such key.
    pub fn set_created(&self, user: &str, id: &str, at: DateTime<Utc>) {
        self.state().key(user, id).expect("set_created: no such key").created = at;
    }

    /// Takes a right from everybody: `iam:CreateAccessKey`, `s3:ListBucket`, `iam:*`.
    pub fn deny(&self, action: &str) {
        self.state().denied.insert(action.to_owned());
    }

    /// Gives back what [`Aws::deny`] took.
    pub fn allow(&self, action: &str) {
        self.state().denied.remove(action);
    }

    /// The user's keys, oldest first, those deleted left out.
    pub fn keys(&self, user: &str) -> Vec<KeyView> {
        self.state().living(user).map(Key::view).collect()
    }

    /// The user's deleted keys, oldest first, and when each was deleted.
    pub fn deleted_keys(&self, user: &str) -> Vec<(String, DateTime<Utc>)> {
        let state = self.state();
        let keys = state.keys.iter().filter(|key| key.user == user);
        keys.filter_map(|key| Some((key.id.clone(), key.deleted?))).collect()
    }

    /// A key as `CreateAccessKey` makes it, still to propagate.
    #[cfg(test)]
    pub(crate) fn mint_for_test(&self, user: &str) -> (String, String) {
        self.state().mint(user, Utc::now(), false).expect("there is room for a key")
    }

    /// Whether this pair reads the bucket now: what ArcGIS's own validations find out.
    pub(crate) fn reads(&self, id: &str, secret: &str, bucket: &str) -> bool {
        let mut state = self.state();
        let user = state.signing_key(id, Utc::now()).filter(|key| key.secret == secret).map(|key| key.user.clone());
        let readers = state.buckets.get(bucket).map(|bucket| &bucket.readers);
        user.is_some_and(|user| readers.is_some_and(|readers| readers.contains(&user)))
    }

    /// What a store of its own ([`S3Store`](crate::s3::S3Store)) asks it of keys. A use there is not noted here, and every key opens
    /// every bucket there.
    pub fn lookup(&self) -> Lookup {
        let state = self.state.clone();
        Arc::new(move |id| {
            let mut state = state::lock(&state);
            if let Some(key) = state.signing_key(id, Utc::now()) {
                return KeyState::Usable(key.secret.clone());
            }
            match state.keys.iter().any(|key| key.id == id && key.deleted.is_none() && !key.active) {
                true => KeyState::Inactive,
                false => KeyState::Unknown,
            }
        })
    }

    /// The secret of any key there ever was.
    pub fn secret_of(&self, id: &str) -> Option<String> {
        self.state().secrets.get(id).cloned()
    }

    /// The id of every key there ever was, deleted ones too.
    pub fn all_key_ids(&self) -> Vec<String> {
        self.state().secrets.keys().cloned().collect()
    }

    /// Every secret there ever was.
    pub fn all_secrets(&self) -> Vec<String> {
        self.state().secrets.values().cloned().collect()
    }

    /// Queues a mishap for the next call of `operation`: an IAM or STS action, `S3Get`, `S3Head`, or `ConsumerGet` for the
    /// requests of ArcGIS's consumers, which no other queue touches.
    pub fn fault(&self, operation: &str, fault: Fault) {
        self.state().faults.push(operation, fault);
    }

    /// How many of the mishaps queued for this operation are not yet spent: a test that holds a request back learns from this that
    /// it has arrived.
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

    /// While down, connections are accepted and closed at once.
    pub fn down(&self, yes: bool) {
        self.state().down = yes;
    }

    /// Every request but the consumers', which [`Aws::consumer_requests`] counts.
    pub fn requests(&self) -> Vec<RequestLine> {
        self.state().requests.clone()
    }

    /// How many requests of ArcGIS's consumers arrived.
    pub fn consumer_requests(&self) -> u64 {
        self.state().consumer_requests
    }

    /// How many `CreateAccessKey` calls took effect.
    pub fn mints(&self) -> usize {
        self.state().mints
    }

    /// See [`AwsOptions::propagation`]; holds for young keys too.
    pub fn set_propagation(&self, d: Duration) {
        self.state().options.propagation = d;
    }

    /// See [`AwsOptions::listing_lag`].
    pub fn set_listing_lag(&self, d: Duration) {
        self.state().options.listing_lag = d;
    }

    /// See [`AwsOptions::last_used_lag`].
    pub fn set_last_used_lag(&self, d: Duration) {
        self.state().options.last_used_lag = d;
    }

    /// Another account answers from now on, as when an endpoint or a profile was mixed up.
    pub fn set_account_id(&self, account_id: &str) {
        self.state().options.account_id = account_id.to_owned();
    }

    /// What there is now.
    pub fn snapshot(&self) -> AwsSnapshot {
        let state = self.state();
        AwsSnapshot { users: state.users.clone(), keys: state.keys.clone(), buckets: state.buckets.clone() }
    }

    /// Puts users, keys and buckets back. The requests, the mints and the list of secrets stay: they happened.
    pub fn restore(&self, s: AwsSnapshot) {
        let mut state = self.state();
        state.users = s.users;
        state.keys = s.keys;
        state.buckets = s.buckets;
    }
}

/// A user's unique id.
fn new_user(now: DateTime<Utc>) -> User {
    User { id: chance::user_id(), created: now }
}
