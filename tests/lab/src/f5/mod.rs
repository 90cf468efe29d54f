//! The console of F5 Distributed Cloud: its handle, and what a test or a human may do to it.

mod api;
mod serve;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::{Fault, RequestLine, chance, http, tls};
use serve::Server;
use state::{Credential, PERSON, State};

/// How this console behaves. Everything that differs from an instant, patient one is off by default, but for the suffix.
#[derive(Clone, Debug)]
pub struct F5Options {
    /// The tenant's id, as `whoami` tells it.
    pub tenant: String,
    /// HTTPS, with a certificate of an authority nobody knows ([`F5::ca_pem`]).
    pub tls: bool,
    /// With `tls`: whoever shows no certificate of that authority's is not even heard, and [`F5::client_identity`] is the person's.
    pub demands_certificate: bool,
    /// Names are made one's own by eight letters (`svc-cred-73c7cbd9-…` in the published examples); nobody says when.
    pub name_suffix: bool,
    /// Names are the console's alone, whatever was asked for.
    pub own_names: bool,
    /// Names are cut here before a suffix is appended; F5 names no number.
    pub name_length_max: Option<usize>,
    /// A create is answered as if it had made this one, whatever it made.
    pub answered_name: Option<String>,
    /// New tokens are unknown this long.
    pub propagation: Duration,
    /// New credentials are not listed this long.
    pub listing_lag: Duration,
    /// Revoked ones are listed as inactive this long: "removal in background" (of bulk revocation).
    pub removal_lag: Duration,
    /// `user_email` is of who made a credential also where one is shown alone, and not of its own user. In listings it is documented so.
    pub maker_email: bool,
    /// The users of credentials have addresses elsewhere that do not name them, and nobody says that they are no persons; that they have
    /// names was seen once.
    pub nameless_users: bool,
    /// `activate` makes an active credential inactive; which of the two it does is not documented.
    pub activate_toggles: bool,
    /// A replace is answered with 200 and changes nothing.
    pub replace_is_ignored: bool,
    /// In which form refusals are worded.
    pub words: Words,
    /// More than that are answered with 429.
    pub requests_per_second: Option<usize>,
    /// Longer lives are refused with 400; F5 names no number.
    pub expiration_days_max: Option<u32>,
}

impl Default for F5Options {
    fn default() -> Self {
        Self {
            tenant: "acme-hcggqodh".to_owned(),
            tls: false,
            demands_certificate: false,
            name_suffix: true,
            own_names: false,
            name_length_max: None,
            answered_name: None,
            propagation: Duration::ZERO,
            listing_lag: Duration::ZERO,
            removal_lag: Duration::ZERO,
            maker_email: false,
            nameless_users: false,
            activate_toggles: true,
            replace_is_ignored: false,
            words: Words::Quoted,
            requests_per_second: None,
            expiration_days_max: None,
        }
    }
}

/// In which form refusals are worded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// A JSON string, as documented.
    Quoted,
    /// The same without quotes.
    Bare,
    /// As gateways before gRPC servers word it.
    Gateway,
}

/// A service credential as it truly is, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct F5Credential {
    /// What it is called by now.
    pub name: String,
    /// `SERVICE_API_TOKEN`, `SERVICE_API_CERTIFICATE`.
    pub kind: &'static str,
    /// Whether it opens anything, its end apart.
    pub active: bool,
    /// When it was made.
    pub created: DateTime<Utc>,
    /// When it ends.
    pub expires: DateTime<Utc>,
    /// `ROLE in NAMESPACE`, and `group GROUP`.
    pub access: BTreeSet<String>,
}

/// One tenant's console on a loopback port, with one person, whose token may do everything.
#[derive(Clone)]
pub struct F5 {
    url: String,
    papers: Option<tls::Papers>,
    state: Arc<Mutex<State>>,
}

impl F5 {
    /// A tenant without service credentials.
    pub async fn start(options: F5Options) -> F5 {
        let (acceptor, papers) = options.tls.then(|| tls::acceptor(None, options.demands_certificate)).unzip();
        let scheme = if options.tls { "https" } else { "http" };
        let (listener, port) = http::loopback().await;
        let state = Arc::new(Mutex::new(State::new(options)));
        http::serve(Arc::new(Server { state: state.clone() }), listener, acceptor).await;
        F5 { url: format!("{scheme}://127.0.0.1:{port}"), papers, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        state::lock(&self.state)
    }

    /// In place of `https://TENANT.console.ves.volterra.io`.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The authority behind the certificate, in PEM; `None` without TLS.
    pub fn ca_pem(&self) -> Option<String> {
        self.papers.as_ref().map(|papers| papers.ca.clone())
    }

    /// The person's certificate and its key, in PEM; `None` without TLS.
    pub fn client_identity(&self) -> Option<(String, String)> {
        self.papers.as_ref().map(|papers| papers.client.clone())
    }

    /// The token of the person.
    pub fn admin_token(&self) -> String {
        self.state().token.clone()
    }

    /// A token that a person makes in the console, under exactly this name, with `(namespace, role)` pairs: the token.
    pub fn create_token(&self, name: &str, roles: &[(&str, &str)]) -> String {
        let (data, now) = (chance::account_key::<30>(), Utc::now());
        let mut map: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (namespace, role) in roles {
            map.entry((*namespace).to_owned()).or_default().insert((*role).to_owned());
        }
        let made = Credential {
            name: name.to_owned(),
            kind: "SERVICE_API_TOKEN",
            data: data.clone(),
            active: true,
            created: now,
            expires: now + TimeDelta::days(365),
            maker: PERSON.to_owned(),
            roles: map,
            groups: BTreeSet::new(),
            by_hand: true,
            revoked: None,
        };
        let mut state = self.state();
        state.secrets.push(data.clone());
        state.credentials.push(made);
        data
    }

    /// All that were not revoked.
    pub fn credentials(&self) -> Vec<F5Credential> {
        let state = self.state();
        let alive = state.credentials.iter().filter(|one| one.revoked.is_none());
        let view = |one: &Credential| {
            let roles = one.roles.iter();
            let roles =
                roles.flat_map(|(namespace, roles)| roles.iter().map(move |role| format!("{role} in {namespace}")));
            F5Credential {
                name: one.name.clone(),
                kind: one.kind,
                active: one.active,
                created: one.created,
                expires: one.expires,
                access: roles.chain(one.groups.iter().map(|group| format!("group {group}"))).collect(),
            }
        };
        alive.map(view).collect()
    }

    /// Changes one as a person does in the console.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn set_active(&self, name: &str, active: bool) {
        self.state().find(name).expect("there is no such credential").active = active;
    }

    /// When it ends.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn set_end(&self, name: &str, end: DateTime<Utc>) {
        self.state().find(name).expect("there is no such credential").expires = end;
    }

    /// A person revokes it.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn revoke(&self, name: &str) {
        api::revoke(name, &mut self.state(), Utc::now()).expect("there is no such credential");
    }

    /// Nobody may do this operation any more.
    pub fn deny(&self, operation: &str) {
        self.state().denied.insert(operation.to_owned());
    }

    /// Whoever might may again.
    pub fn allow(&self, operation: &str) {
        self.state().denied.remove(operation);
    }

    /// Changes how it behaves from now on.
    pub fn set_options(&self, change: impl FnOnce(&mut F5Options)) {
        change(&mut self.state().options);
    }

    /// The next call of this operation goes wrong so. Operations: `WhoAmI`, `ListNamespaces`, and `List`, `Get`, `Create`,
    /// `Replace`, `Renew`, `Activate`, `Revoke` or `BulkRevoke` before `ServiceCredentials`.
    pub fn fault(&self, operation: &str, fault: Fault) {
        self.state().faults.push(operation, fault);
    }

    /// How many faults still wait for a call of this operation.
    pub fn faults_left(&self, operation: &str) -> usize {
        self.state().faults.left(operation)
    }

    /// Forgets the faults not yet spent.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// The token or the certificate of a credential that was not revoked.
    pub fn secret_of(&self, name: &str) -> Option<String> {
        let state = self.state();
        let one = state.credentials.iter().find(|one| one.name == name && one.revoked.is_none());
        one.map(|one| one.data.clone())
    }

    /// Every request, in the order in which they were answered.
    pub fn requests(&self) -> Vec<RequestLine> {
        self.state().requests.clone()
    }

    /// The clock it shows in its answers is this much ahead.
    pub fn set_date_skew(&self, skew: TimeDelta) {
        self.state().date_skew = skew;
    }

    /// Connections are closed at once, or not any more.
    pub fn set_down(&self, down: bool) {
        self.state().down = down;
    }

    /// Every token, certificate and password there ever was, for a search.
    pub fn all_secrets(&self) -> Vec<String> {
        self.state().secrets.clone()
    }
}
