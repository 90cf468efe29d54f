//! The Google Cloud stand-in: its handle, and what a test or a human in the console may do to it.
//!
//! One loopback port for all doors, since their paths differ: the JSON API of Cloud Storage as far as HMAC keys go, Resource Manager's
//! question about permissions, the token endpoint for service accounts and persons, the exchange of federated tokens, impersonation,
//! and a machine's metadata server. What the keys open stands elsewhere: a [`crate::s3::S3Store`] that asks [`Google::lookup`].

mod hmac;
mod impersonation;
mod oauth;
mod resource_manager;
mod serve;
mod state;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::json;

use crate::s3::{KeyState, Lookup};
use crate::{Fault, RequestLine, http};
use oauth::Signer;
use state::{Key, State};

/// How this Google behaves. Everything that differs from an instant, patient Google is off by default.
#[derive(Clone, Debug)]
pub struct GoogleOptions {
    /// The project's id; every other project is unknown.
    pub project: String,
    /// A fresh key is not known to the store this long: up to 60 seconds at Google ("HMAC keys").
    pub propagation: Duration,
    /// A key whose state was changed goes on as before this long: up to 3 minutes at Google ("Manage HMAC keys").
    pub state_lag: Duration,
    /// Keys that are not deleted fit to a service account so many times: ten at Google.
    pub quota: usize,
    /// Keys per page of a listing, where the caller does not ask for fewer.
    pub page_size: usize,
    /// How long a token is good.
    pub token_lifetime: Duration,
    /// Whether a deleted key is still shown to who asks for it by its id. No document says; both were seen.
    pub shows_deleted: bool,
    /// The access scopes of the machine.
    pub machine_scopes: Vec<String>,
}

impl Default for GoogleOptions {
    fn default() -> Self {
        Self {
            project: "gis-prod-123".to_owned(),
            propagation: Duration::ZERO,
            state_lag: Duration::ZERO,
            quota: 10,
            page_size: 250,
            token_lifetime: Duration::from_secs(3600),
            shows_deleted: false,
            machine_scopes: vec!["https://www.googleapis.com/auth/cloud-platform".to_owned()],
        }
    }
}

/// A key as it truly is, whatever the API shows at this moment.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct HmacKeyView {
    /// The access id.
    pub id: String,
    /// Not disabled.
    pub active: bool,
    /// Its creation date.
    pub created: DateTime<Utc>,
}

/// A project with service accounts, their HMAC keys, and an identity that may rotate them.
#[derive(Clone)]
pub struct Google {
    url: String,
    state: Arc<Mutex<State>>,
}

impl Google {
    /// A project whose rotator may do everything with HMAC keys, and nothing else.
    pub async fn start(options: GoogleOptions) -> Google {
        let (listener, port) = http::loopback().await;
        let url = format!("http://127.0.0.1:{port}");
        let state = Arc::new(Mutex::new(State::new(options, url.clone())));
        http::serve(Arc::new(serve::Server::new(state.clone())), listener, None).await;
        Google { url, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        state::lock(&self.state)
    }

    /// `http://127.0.0.1:PORT`, for Cloud Storage and Resource Manager.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Where a service account's assertion is taken.
    pub fn token_url(&self) -> String {
        self.state().token_url()
    }

    /// Where a federated token is exchanged.
    pub fn sts_url(&self) -> String {
        self.state().sts_url()
    }

    /// What `GCE_METADATA_HOST` is to be on the machine.
    pub fn metadata_host(&self) -> String {
        self.url.trim_start_matches("http://").to_owned()
    }

    /// The service account that rotates, and that the machine runs as.
    pub fn rotator(&self) -> String {
        self.state().rotator()
    }

    /// The credentials file of the rotator, as `gcloud iam service-accounts keys create` writes it, with this token endpoint in it.
    pub fn service_account_file(&self, token_uri: &str) -> String {
        let state = self.state();
        json!({
            "type": "service_account", "project_id": state.options.project, "private_key_id": state.signer_id,
            "private_key": Signer::shared().pem(), "client_email": state.rotator(), "client_id": "104857600000000000001",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth", "token_uri": token_uri,
        })
        .to_string()
    }

    /// The credentials file of a workload outside of Google, as `gcloud iam workload-identity-pools create-cred-config` writes it, for
    /// a proof that stands in this file.
    pub fn federation_file(&self, proof: &str) -> String {
        json!({
            "type": "external_account", "audience": oauth::AUDIENCE, "token_url": self.sts_url(),
            "subject_token_type": oauth::SUBJECT_TYPE, "credential_source": { "file": proof },
        })
        .to_string()
    }

    /// The credentials file of a person, as `gcloud auth application-default login` leaves it, with this token endpoint in it.
    pub fn person_file(&self) -> String {
        let state = self.state();
        json!({
            "type": "authorized_user", "account": "", "universe_domain": "googleapis.com", "client_id": oauth::CLIENT,
            "client_secret": state.client_secret, "refresh_token": state.refresh_token, "token_uri": state.token_url(),
        })
        .to_string()
    }

    /// The credentials file of whoever stands in `source` and is the rotator by impersonation, as `gcloud auth application-default
    /// login --impersonate-service-account` leaves it.
    ///
    /// # Panics
    /// If `source` is no JSON.
    pub fn impersonation_file(&self, source: &str) -> String {
        let source: serde_json::Value =
            serde_json::from_str(source).expect("impersonation_file: the source is no JSON");
        json!({
            "type": "impersonated_service_account", "delegates": [], "source_credentials": source,
            "service_account_impersonation_url": self.impersonation_url(),
        })
        .to_string()
    }

    /// Where the rotator is impersonated.
    pub fn impersonation_url(&self) -> String {
        format!("{}/v1/projects/-/serviceAccounts/{}:generateAccessToken", self.url, self.rotator())
    }

    /// Nobody has the permission to be the rotator any more.
    pub fn deny_impersonation(&self) {
        self.state().impersonation_denied = true;
    }

    /// The proof that the identity pool takes.
    pub fn subject_token(&self) -> String {
        self.state().subject_token.clone()
    }

    /// The proof that was taken is not any more.
    pub fn withdraw_subject(&self) {
        self.state().subject_token = crate::chance::token();
    }

    /// Somebody deletes the rotator's key: nothing it signs is taken any more. A new file has another.
    pub fn delete_rotator_key(&self) {
        let mut state = self.state();
        state.signer_id = state::signer_id();
        state.tokens.clear();
    }

    /// No token that was given is good any more.
    pub fn revoke_tokens(&self) {
        self.state().tokens.clear();
    }

    /// A service account of the project; its address.
    pub fn add_service_account(&self, name: &str) -> String {
        let mut state = self.state();
        let email = format!("{name}@{}.iam.gserviceaccount.com", state.options.project);
        state.accounts.insert(email.clone());
        email
    }

    /// A key made "by a human in the console": known everywhere at once, and not counted in [`Google::mints`].
    ///
    /// # Panics
    /// Where Google would refuse: no such account, or no room.
    pub fn create_key(&self, email: &str) -> (String, String) {
        let mut state = self.state();
        let key = state.mint(email, Utc::now(), true).unwrap_or_else(|why| panic!("create_key: {why:?}"));
        (key.id.clone(), key.secret.clone())
    }

    /// Enables or disables a key, as a human would; the store knows at once.
    ///
    /// # Panics
    /// If there is no such key.
    pub fn set_active(&self, id: &str, active: bool) {
        let mut state = self.state();
        let key = state.key(id).expect("set_active: no such key");
        key.set_active(active, DateTime::UNIX_EPOCH);
    }

    /// Shows a key under another id, as no Google would.
    ///
    /// # Panics
    /// If there is no such key.
    pub fn rename_key(&self, id: &str, to: &str) {
        to.clone_into(&mut self.state().key(id).expect("rename_key: no such key").id);
    }

    /// Deletes a key, as a human would.
    ///
    /// # Panics
    /// If there is no such key.
    pub fn delete_key(&self, id: &str) {
        self.state().key(id).expect("delete_key: no such key").deleted = Some(Utc::now());
    }

    /// The account's keys that are not deleted, oldest first.
    pub fn keys(&self, email: &str) -> Vec<HmacKeyView> {
        self.state().living(email).map(Key::view).collect()
    }

    /// What the store knows of a key at this moment.
    pub fn lookup(&self) -> Lookup {
        let state = self.state.clone();
        Arc::new(move |id| state::lock(&state).known(id, Utc::now()))
    }

    /// Whether this pair opens anything now.
    pub fn opens(&self, id: &str, secret: &str) -> bool {
        self.state().known(id, Utc::now()) == KeyState::Usable(secret.to_owned())
    }

    /// Takes a permission from the rotator: `storage.hmacKeys.delete`.
    pub fn deny(&self, permission: &str) {
        self.state().permissions.remove(permission);
    }

    /// Gives back what [`Google::deny`] took.
    pub fn allow(&self, permission: &str) {
        self.state().permissions.insert(permission.to_owned());
    }

    /// The rotator has a role with these permissions, and no other.
    pub fn set_role(&self, permissions: &[&str]) {
        self.state().permissions = permissions.iter().map(|one| (*one).to_owned()).collect();
    }

    /// A constraint of the organization forbids keys from now on: `constraints/iam.disableServiceAccountKeyCreation`.
    pub fn forbid_keys(&self, constraint: Option<&str>) {
        self.state().constraint = constraint.map(str::to_owned);
    }

    /// Nobody has enabled the API of Resource Manager.
    pub fn disable_resource_manager(&self) {
        self.state().resource_manager_disabled = true;
    }

    /// Changes how it behaves from now on.
    pub fn set_options(&self, change: impl FnOnce(&mut GoogleOptions)) {
        change(&mut self.state().options);
    }

    /// Queues a mishap for the next call of `operation`: `ListHmacKeys`, `CreateHmacKey`, `GetHmacKey`, `UpdateHmacKey`,
    /// `DeleteHmacKey`, `TestIamPermissions`, `Token` (a service account's), `RefreshToken` (a person's), `ExchangeToken`,
    /// `MachineToken`, `GenerateAccessToken`.
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

    /// Every request, without its secrets.
    pub fn requests(&self) -> Vec<RequestLine> {
        self.state().requests.clone()
    }

    /// How many creations took effect.
    pub fn mints(&self) -> usize {
        self.state().mints
    }

    /// How many keys were deleted before the store knew that they were disabled. Must stay 0.
    pub fn hasty_deletions(&self) -> usize {
        self.state().hasty_deletions
    }

    /// The secret of any key there ever was.
    pub fn secret_of(&self, id: &str) -> Option<String> {
        self.state().keys.iter().find(|key| key.id == id).map(|key| key.secret.clone())
    }

    /// Every secret there ever was: of keys, tokens, and the rotator's own.
    pub fn all_secrets(&self) -> Vec<String> {
        let state = self.state();
        let keys: BTreeSet<String> = state.keys.iter().map(|key| key.secret.clone()).collect();
        let own = [&state.subject_token, &state.client_secret, &state.refresh_token].map(String::clone);
        let own = own.into_iter().chain(Signer::shared().lines());
        keys.into_iter().chain(state.tokens_given.iter().cloned()).chain(own).collect()
    }
}
