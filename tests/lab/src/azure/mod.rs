//! The Azure stand-in: its handle, and what a test or a human in the portal may do to it.

mod arm;
mod authorization;
mod blob;
mod cosmos;
mod entra;
mod graph;
mod kind;
mod roles;
mod serve;
mod service_bus;
mod state;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderName, HeaderValue, Method};
use chrono::{DateTime, Utc};

use crate::consumer::{Pass, Principal};
use crate::http::Request;
use crate::shared_key::Sas;
use crate::{Fault, RequestLine, consumer, http, tls};
pub use kind::AccountKind;
use roles::APP_ROLES;
pub use roles::AzureRole;
use serve::{Face, Server};
use state::{Account, Application, Container, LockLevel, Login, State, Stored};

/// How this Azure behaves. Everything that differs from an instant, patient Azure is off by default.
#[derive(Clone, Debug)]
pub struct AzureOptions {
    /// The directory's id; every other tenant is unknown.
    pub tenant_id: String,
    /// The subscription's id; every other one is unknown.
    pub subscription_id: String,
    /// The only resource group.
    pub resource_group: String,
    /// HTTPS, with a certificate of an authority nobody knows ([`Azure::ca_pem`]): Microsoft's own libraries talk to no authority
    /// without it.
    pub tls: bool,
    /// Added passwords are unknown to the token endpoint this long: 4 to 18 seconds were seen (microsoft-graph-docs issue 17966).
    pub propagation: Duration,
    /// After that, for this long, every second login with one is still refused: replicas do not agree.
    pub settling: Duration,
    /// A removed password still logs in this long.
    pub removal_lag: Duration,
    /// Graph does not show passwords younger than this, nor remove them, and still shows those removed less than this ago.
    pub listing_lag: Duration,
    /// A second change of the directory within this time is refused with 409 `Directory_ConcurrencyViolation`.
    pub directory_pause: Duration,
    /// What the tenant lets applications have.
    pub password_policy: PasswordPolicy,
    /// How long a token is good. Removing the password it was asked with does not end it.
    pub token_lifetime: Duration,
    /// How long the data plane takes the old value of a regenerated slot, and not the new one.
    pub key_lag: Duration,
    /// How long Cosmos DB works on a regeneration it has answered with 202. `None`: it is done before the answer, which is 200; the
    /// document allows both.
    pub cosmos_work: Option<Duration>,
    /// How many writes ARM takes; listing keys is one, because it is a POST.
    pub write_limit: Option<WriteLimit>,
    /// How many roles or locks ARM lists before it says where the rest is.
    pub page_size: usize,
}

impl Default for AzureOptions {
    fn default() -> Self {
        Self {
            tenant_id: "72f988bf-0000-4000-8000-2d7cd011db47".to_owned(),
            subscription_id: "5f750a97-0000-4000-8000-c9ee4c0210d4".to_owned(),
            resource_group: "gis".to_owned(),
            tls: false,
            propagation: Duration::ZERO,
            settling: Duration::ZERO,
            removal_lag: Duration::ZERO,
            listing_lag: Duration::ZERO,
            directory_pause: Duration::ZERO,
            password_policy: PasswordPolicy::Any,
            token_lifetime: Duration::from_secs(3599),
            key_lag: Duration::ZERO,
            cosmos_work: Some(Duration::ZERO),
            write_limit: None,
            page_size: 100,
        }
    }
}

/// The tenant's app management policy, as far as passwords go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordPolicy {
    /// There is none.
    Any,
    /// `passwordLifetime`: longer ones are refused with `CredentialInvalidLifetimeAsPerAppPolicy`.
    Lifetime(Duration),
    /// `passwordAddition`: refused with `CredentialTypeNotAllowedAsPerAppPolicy`.
    Forbidden,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteLimit {
    /// Writes at once.
    pub bucket: u32,
    /// Writes per second from then on.
    pub refill_per_second: u32,
}

impl WriteLimit {
    /// Per subscription and principal: "request limits and throttling" of Azure Resource Manager.
    pub const DOCUMENTED: WriteLimit = WriteLimit { bucket: 200, refill_per_second: 10 };
}

/// A slot of an account as it truly is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SlotView {
    /// `key1`, `primary`, `PrimaryKey`: what a regeneration calls it.
    pub name: String,
    /// The key.
    pub value: String,
    /// Since when, as Azure shows it; `None` where it does not know.
    pub created: Option<DateTime<Utc>>,
}

/// What the hook of [`Azure::on_regenerated`] is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegeneratedKey {
    /// The account's ARM id.
    pub account: String,
    /// Its slot.
    pub slot: String,
    /// What is in it now.
    pub value: String,
    /// Since when.
    pub created: DateTime<Utc>,
}

/// A password of an application as it truly is, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PasswordView {
    /// What removes it.
    pub key_id: String,
    /// Its label.
    pub display_name: Option<String>,
    /// Good from then on.
    pub start: DateTime<Utc>,
    /// Good until then.
    pub end: DateTime<Utc>,
}

/// Applications and accounts at one moment.
#[derive(Clone)]
pub struct AzureSnapshot {
    applications: BTreeMap<String, Application>,
    accounts: BTreeMap<String, Account>,
}

/// Entra's token endpoint, Azure Resource Manager, Microsoft Graph and the data planes of one tenant with one subscription, each on a
/// loopback port of its own, so that a client which mixes them up is not served.
///
/// Entra answers at the token endpoint only: `azure_identity` asks for nothing else (its `client_secret_credential.rs`), neither for
/// instance discovery nor for an OpenID configuration.
#[derive(Clone)]
pub struct Azure {
    urls: [String; FACES.len()],
    papers: Option<tls::Papers>,
    admin: (String, String),
    state: Arc<Mutex<State>>,
}

/// Each has a port.
const FACES: [Face; 6] = [Face::Entra, Face::Arm, Face::Graph, Face::Blob, Face::Cosmos, Face::ServiceBus];

/// Where in every list of addresses its own is.
fn place(face: Face) -> usize {
    FACES.iter().position(|known| *known == face).expect("every face has a place")
}

/// Where it listens on 127.0.0.1; 0 is any port that is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AzurePorts {
    /// [`Azure::authority_url`].
    pub entra: u16,
    /// [`Azure::arm_url`].
    pub arm: u16,
    /// [`Azure::graph_url`].
    pub graph: u16,
    /// [`Azure::blob_url`].
    pub blob: u16,
    /// [`Azure::cosmos_url`].
    pub cosmos: u16,
    /// [`Azure::service_bus_url`].
    pub service_bus: u16,
}

impl AzurePorts {
    fn of(self, face: Face) -> u16 {
        match face {
            Face::Entra => self.entra,
            Face::Arm => self.arm,
            Face::Graph => self.graph,
            Face::Blob => self.blob,
            Face::Cosmos => self.cosmos,
            Face::ServiceBus => self.service_bus,
        }
    }
}

/// The rotating application's name.
const ROTATOR: &str = "rotator";

/// Of the SAS made here: new enough for every field, and old enough for every emulator.
const SAS_VERSION: &str = "2025-01-05";

impl Azure {
    /// A tenant with one application, `rotator`, which may do everything in ARM and owns every application in Graph.
    pub async fn start(options: AzureOptions) -> Azure {
        Azure::start_on(AzurePorts::default(), options).await.expect("a loopback port can be bound")
    }

    /// The same on ports of one's choice, so that it is found again.
    ///
    /// # Errors
    /// Where somebody else has one of them.
    pub async fn start_on(ports: AzurePorts, options: AzureOptions) -> std::io::Result<Azure> {
        let (acceptor, papers) = options.tls.then(|| tls::acceptor(None, false)).unzip();
        let scheme = if options.tls { "https" } else { "http" };
        let mut bound = Vec::new();
        for face in FACES {
            let port = ports.of(face);
            let listening = http::loopback_at(port)
                .await
                .map_err(|why| std::io::Error::new(why.kind(), format!("listening on 127.0.0.1:{port}: {why}")))?;
            bound.push((face, listening));
        }
        let urls: Vec<String> = bound.iter().map(|(_, (_, port))| format!("{scheme}://127.0.0.1:{port}")).collect();
        let mut state = State::new(options, urls[1].clone());
        let (object_id, client_id) = state.add_application(ROTATOR);
        let admin = state.add_password(&object_id, Some("by hand".to_owned()), (None, None), Utc::now(), true);
        state.rotator.clone_from(&client_id);
        state.blob_url.clone_from(&urls[place(Face::Blob)]);
        state.cosmos_url.clone_from(&urls[place(Face::Cosmos)]);
        state.service_bus_url.clone_from(&urls[place(Face::ServiceBus)]);
        let state = Arc::new(Mutex::new(state));
        for (face, (listener, _)) in bound {
            http::serve(Arc::new(Server::new(state.clone(), face)), listener, acceptor.clone()).await;
        }
        let urls = urls.try_into().expect("every face has an address");
        Ok(Azure { urls, papers, admin: (client_id, admin.secret), state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        state::lock(&self.state)
    }

    /// Where tokens are asked for: `http://127.0.0.1:PORT`, in place of `https://login.microsoftonline.com`.
    pub fn authority_url(&self) -> String {
        self.urls[0].clone()
    }

    /// In place of `https://management.azure.com`.
    pub fn arm_url(&self) -> String {
        self.urls[1].clone()
    }

    /// In place of `https://graph.microsoft.com`, without `/v1.0`.
    pub fn graph_url(&self) -> String {
        self.urls[2].clone()
    }

    /// In place of `https://ACCOUNT.blob.core.windows.net`, with the account as the first piece of the path, as azurite has it:
    /// `http://127.0.0.1:PORT` and then `/ACCOUNT/CONTAINER`.
    pub fn blob_url(&self) -> String {
        self.state().blob_url.clone()
    }

    /// From now on the blob service is this one (an azurite), for what ARM says and for the consumers of an ArcGIS.
    pub fn serve_blobs_at(&self, url: &str) {
        url.clone_into(&mut self.state().blob_url);
    }

    /// Where the data planes of all Cosmos DB accounts are, each below its name; `documentEndpoint` says it in full.
    pub fn cosmos_url(&self) -> String {
        self.urls[place(Face::Cosmos)].clone()
    }

    /// Where the Service Bus namespaces are, each below its name; `serviceBusEndpoint` says it in full.
    pub fn service_bus_url(&self) -> String {
        self.urls[place(Face::ServiceBus)].clone()
    }

    /// The authority behind the certificate, in PEM; `None` without TLS.
    pub fn ca_pem(&self) -> Option<String> {
        self.papers.as_ref().map(|papers| papers.ca.clone())
    }

    /// The directory's id.
    pub fn tenant_id(&self) -> String {
        self.state().options.tenant_id.clone()
    }

    /// Client id and secret of `rotator`.
    pub fn admin(&self) -> (String, String) {
        self.admin.clone()
    }

    /// An application without passwords, owned by the rotator: its object id, which Graph wants, and its client id, which Entra
    /// wants.
    pub fn add_application(&self, display_name: &str) -> (String, String) {
        self.state().add_application(display_name)
    }

    fn application<T>(&self, object_id: &str, change: impl FnOnce(&mut Application) -> T) -> T {
        change(self.state().applications.get_mut(object_id).expect("there is no such application"))
    }

    /// With personal accounts in its audience an application may have two passwords and no third.
    ///
    /// # Panics
    /// If there is no such application.
    pub fn set_passwords_max(&self, object_id: &str, max: Option<usize>) {
        self.application(object_id, |app| app.passwords_max = max);
    }

    /// Whether the rotator is an owner of it.
    ///
    /// # Panics
    /// If there is no such application.
    pub fn set_owned(&self, object_id: &str, owned: bool) {
        self.application(object_id, |app| app.owned = owned);
    }

    /// The object id of `rotator`.
    pub fn rotator(&self) -> String {
        let state = self.state();
        let found = state.applications.values().find(|app| app.client_id == state.rotator);
        found.expect("it is made at the start and never removed").object_id.clone()
    }

    /// What a machine at Azure finds in `IDENTITY_ENDPOINT` and `IDENTITY_HEADER`: with both it is the rotator.
    pub fn machine(&self) -> (String, String) {
        (format!("{}{}", self.authority_url(), entra::MACHINE), entra::MACHINE_HEADER.to_owned())
    }

    /// From now on an assertion of the right shape is as good as a secret of it; who signed it is not looked at.
    ///
    /// # Panics
    /// If there is no such application.
    pub fn trust_assertions(&self, object_id: &str) {
        self.application(object_id, |app| app.federated = true);
    }

    /// A password made "by a human in the portal": key id and secret. Known everywhere at once, and not counted in [`Azure::mints`].
    ///
    /// # Panics
    /// If there is no such application.
    pub fn create_password(&self, object_id: &str, display_name: &str) -> (String, String) {
        let password =
            self.state().add_password(object_id, Some(display_name.to_owned()), (None, None), Utc::now(), true);
        (password.key_id, password.secret)
    }

    /// Removes a password, as a human would.
    ///
    /// # Panics
    /// If the application has no such password.
    pub fn remove_password(&self, object_id: &str, key_id: &str) {
        self.password(object_id, key_id, |password| password.removed = Some(Utc::now()));
    }

    /// Lets a password end at another time.
    ///
    /// # Panics
    /// If the application has no such password.
    pub fn set_password_end(&self, object_id: &str, key_id: &str, end: DateTime<Utc>) {
        self.password(object_id, key_id, |password| password.end = end);
    }

    fn password(&self, object_id: &str, key_id: &str, change: impl FnOnce(&mut state::Password)) {
        self.application(object_id, |app| {
            let password = app.passwords.iter_mut().find(|p| p.key_id == key_id && p.removed.is_none());
            change(password.expect("the application has no such password"));
        });
    }

    /// The application's passwords, oldest first, those removed left out.
    ///
    /// # Panics
    /// If there is no such application.
    pub fn passwords(&self, object_id: &str) -> Vec<PasswordView> {
        self.application(object_id, |app| app.living().map(state::Password::view).collect())
    }

    /// Whether this pair is given a token now. Asking changes nothing.
    pub fn signs_in(&self, client_id: &str, secret: &str) -> bool {
        let mut state = self.state();
        let options = AzureOptions { settling: Duration::ZERO, ..state.options.clone() };
        let app = state.by_client_id(client_id);
        app.is_some_and(|app| matches!(app.login(secret, Utc::now(), &options), Login::Good(_)))
    }

    /// A storage account with `key1` and `key2`: its ARM id.
    pub fn add_storage_account(&self, name: &str) -> String {
        self.add_account(AccountKind::Storage, name, "")
    }

    /// A Cosmos DB account with its four keys: its ARM id.
    pub fn add_cosmos_account(&self, name: &str) -> String {
        self.add_account(AccountKind::Cosmos, name, "")
    }

    /// An authorization rule of a Service Bus namespace: the rule's ARM id.
    pub fn add_service_bus_rule(&self, namespace: &str, rule: &str) -> String {
        self.add_account(AccountKind::ServiceBus, namespace, rule)
    }

    fn add_account(&self, kind: AccountKind, name: &str, rule: &str) -> String {
        let mut state = self.state();
        let group =
            format!("/subscriptions/{}/resourceGroups/{}", state.options.subscription_id, state.options.resource_group);
        let id = format!("{group}{}", kind.suffix(name, rule));
        state.add_account(Account::new(id, kind, name, rule, Utc::now()))
    }

    fn account<T>(&self, id: &str, change: impl FnOnce(&mut Account) -> T) -> T {
        change(self.state().account(id).expect("there is no such account"))
    }

    /// Whether a container may be called so: three to 63 small letters, digits and hyphens, no hyphen at an end or beside another.
    pub fn is_container_name(name: &str) -> bool {
        blob::is_container_name(name)
    }

    /// A container of a storage account, empty. One that is there already stays as it is.
    ///
    /// # Panics
    /// If there is no such storage account, or no container may be called so.
    pub fn add_container(&self, account: &str, name: &str) {
        assert!(blob::is_container_name(name), "add_container: {name} is no name of a container");
        self.account(account, |account| {
            assert_eq!(account.kind, AccountKind::Storage, "add_container: this is no storage account");
            let container = || Container::new(BTreeMap::new(), Utc::now());
            account.containers.entry(name.to_owned()).or_insert_with(container);
        });
    }

    /// Puts a blob into a container, or another content into it.
    ///
    /// # Panics
    /// If there is no such account or container.
    pub fn put_blob(&self, account: &str, container: &str, name: &str, content: &[u8]) {
        self.account(account, |account| {
            let container = account.containers.get_mut(container).expect("the account has no such container");
            let content = Stored::new(Bytes::copy_from_slice(content), Utc::now());
            container.content.insert(name.to_owned(), content);
        });
    }

    /// A SAS of the account, signed with the key in this slot, for everything that containers and blobs are used for; without the
    /// question mark. HTTP will do for it as well as HTTPS.
    ///
    /// # Panics
    /// If there is no such account or slot.
    pub fn account_sas(&self, account: &str, slot: &str, valid_for: Duration) -> String {
        self.sas(account, slot, valid_for, &[("ss", "b"), ("srt", "sco"), ("sp", "rwdlac")], "")
    }

    /// The same for one container: a service SAS.
    ///
    /// # Panics
    /// If there is no such account or slot.
    pub fn container_sas(&self, account: &str, container: &str, slot: &str, valid_for: Duration) -> String {
        self.sas(account, slot, valid_for, &[("sr", "c"), ("sp", "racwdl")], container)
    }

    fn sas(&self, account: &str, slot: &str, valid_for: Duration, fields: &[(&str, &str)], container: &str) -> String {
        let ends = (Utc::now() + state::delta(valid_for)).format("%Y-%m-%dT%H:%M:%SZ").to_string();
        let fields = [&[("sv", SAS_VERSION), ("se", &ends)], fields].concat();
        let key = self.slot(account, slot).value;
        let name = self.account(account, |account| account.name.clone());
        Sas::make(&fields, (&name, &key), container)
    }

    /// Takes the right to read blobs from an application, by its client id. Every application has it at first.
    pub fn deny_data(&self, client_id: &str) {
        self.state().data_denied.insert(client_id.to_ascii_lowercase());
    }

    /// Gives back what [`Azure::deny_data`] took.
    pub fn allow_data(&self, client_id: &str) {
        self.state().data_denied.remove(&client_id.to_ascii_lowercase());
    }

    /// What is in the account's slots now.
    ///
    /// # Panics
    /// If there is no such account.
    pub fn slots(&self, account: &str) -> Vec<SlotView> {
        self.account(account, |account| account.usable().map(state::Slot::view).collect())
    }

    /// What is in this slot now.
    ///
    /// # Panics
    /// If there is no such account or slot.
    pub fn slot(&self, account: &str, slot: &str) -> SlotView {
        self.account(account, |account| account.slot(slot).expect("the account has no such slot").view())
    }

    /// Whether this key opens the account's data plane now.
    ///
    /// # Panics
    /// If there is no such account.
    pub fn works(&self, account: &str, key: &str) -> bool {
        let lag = self.state().options.key_lag;
        self.account(account, |account| account.works(key, Utc::now(), lag))
    }

    /// Whether a SAS opens this container of this account now. Nothing of it is in the log.
    pub fn sas_opens(&self, account: &str, container: &str, token: &str) -> bool {
        self.opens(account, container, &Pass::Sas(token.to_owned()))
    }

    /// Whether the container can be listed so now: what ArcGIS's own validations find out. Nothing of it is in the log.
    pub(crate) fn opens(&self, account: &str, container: &str, pass: &Pass) -> bool {
        let Some((path, query, headers)) = consumer::letter(account, container, pass, "") else { return false };
        let headers = headers
            .into_iter()
            .filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?)));
        let peer = std::net::Ipv4Addr::LOCALHOST.into();
        let request =
            Request { method: Method::GET, path, query, headers: headers.collect(), body: Bytes::new(), peer };
        let Some(asked) = blob::Asked::read(&request) else { return false };
        match pass {
            Pass::Key(_) | Pass::Sas(_) => asked.execute(&request, &self.state(), Utc::now()).status == 200,
            Pass::Principal(principal) => {
                let Principal { tenant, client_id, secret } = principal;
                let known = tenant.eq_ignore_ascii_case(&self.tenant_id()) && self.signs_in(client_id, secret);
                let state = self.state();
                let held = state.storage_account(account).is_some_and(|found| found.containers.contains_key(container));
                known && held && !state.data_denied.contains(&client_id.to_ascii_lowercase())
            }
        }
    }

    /// Regenerates a slot, as a human would: not counted in [`Azure::regenerations`], and the hook is told.
    ///
    /// # Panics
    /// If there is no such account or slot.
    pub fn regenerate(&self, account: &str, slot: &str) -> String {
        let mut state = self.state();
        let key = state.regenerate(account, slot, None, Utc::now()).expect("there is no such account or slot");
        let hook = state.hook.clone();
        drop(state);
        if let Some(hook) = hook {
            hook(&key);
        }
        key.value
    }

    /// Gives a slot another creation time, or none: keys older than the property have none.
    ///
    /// # Panics
    /// If there is no such account or slot.
    pub fn set_created(&self, account: &str, slot: &str, at: Option<DateTime<Utc>>) {
        self.account(account, |account| {
            let slot = account.slots.iter_mut().find(|s| s.name == slot);
            slot.expect("the account has no such slot").created = at;
        });
    }

    /// `allowSharedKeyAccess` of a storage account, the opposite of `disableLocalAuth` elsewhere, which is a whole namespace's. Keys can
    /// still be listed and regenerated; they open nothing.
    ///
    /// # Panics
    /// If there is no such account.
    pub fn allow_keys(&self, account: &str, yes: bool) {
        self.with_its_siblings(account, |account| (account.keys_refused, account.keys_decided) = (!yes, true));
    }

    /// What a rule of a Service Bus may do, in place of `Listen` and `Send`; `Manage` comes with both.
    ///
    /// # Panics
    /// If there is no such rule.
    pub fn set_rights(&self, rule: &str, rights: &[&str]) {
        self.account(rule, |rule| rule.rights = rights.iter().map(|right| (*right).to_owned()).collect());
    }

    /// Since when there is the account, or the namespace of the rule, as Azure shows it; with `None` it does not. Cosmos DB never
    /// does: it has an instance id.
    ///
    /// # Panics
    /// If there is no such account.
    pub fn set_creation_time(&self, account: &str, at: Option<DateTime<Utc>>) {
        self.with_its_siblings(account, |account| account.created = at);
    }

    /// Rules share what is their namespace's.
    fn with_its_siblings(&self, id: &str, change: impl FnMut(&mut Account)) {
        let mut state = self.state();
        let found = state.account(id).expect("there is no such account").clone();
        let same = |other: &&mut Account| other.id == found.id || other.stands_with(&found);
        state.accounts.values_mut().filter(same).for_each(change);
    }

    /// `keyPolicy` of a storage account: after so many days Azure calls its keys expired, and takes them all the same.
    ///
    /// # Panics
    /// If there is no such account.
    pub fn set_key_policy(&self, account: &str, expiration_days: Option<u32>) {
        self.account(account, |account| account.key_rules.expiration_days = expiration_days);
    }

    /// `sasPolicy` of a storage account: how long a signature should last, as `DD.HH:MM:SS`, and what becomes of longer ones, `Log`
    /// or `Block`.
    ///
    /// # Panics
    /// If there is no such account.
    pub fn set_sas_policy(&self, account: &str, policy: Option<(&str, &str)>) {
        let policy = policy.map(|(period, action)| (period.to_owned(), action.to_owned()));
        self.account(account, |account| account.key_rules.sas = policy);
    }

    /// Deletes an account, a rule, or a namespace with its rules, and makes it again under the same id: other keys, another creation
    /// time, another instance id, and nothing of what was set before. The hook is told of every key.
    ///
    /// # Panics
    /// If there is no such account.
    pub fn recreate(&self, account: &str) {
        let mut state = self.state();
        let keys = state.recreate(account, Utc::now());
        assert!(!keys.is_empty(), "there is no such account");
        let hook = state.hook.clone();
        drop(state);
        if let Some(hook) = hook {
            for key in &keys {
                hook(key);
            }
        }
    }

    /// Active Directory authentication for files: the account has `kerb1` and `kerb2` too.
    ///
    /// # Panics
    /// If there is no such account.
    pub fn enable_kerberos(&self, account: &str) {
        self.account(account, |account| account.kerberos = true);
    }

    /// Tells each regenerated key, over the wire or by a human, to whoever plays the data plane; the answer to the request waits for
    /// it. It is called without a lock on this stand-in.
    pub fn on_regenerated(&self, hook: impl Fn(&RegeneratedKey) + Send + Sync + 'static) {
        self.state().hook = Some(Arc::new(hook));
    }

    /// A ReadOnly lock on a subscription, a resource group or a resource, by its ARM id.
    pub fn lock(&self, scope: &str) {
        self.state().locks.insert(scope.to_owned(), LockLevel::ReadOnly);
    }

    /// A CanNotDelete lock there instead: it is listed, and in nobody's way.
    pub fn lock_against_deletion(&self, scope: &str) {
        self.state().locks.insert(scope.to_owned(), LockLevel::CanNotDelete);
    }

    /// Takes a lock away.
    pub fn unlock(&self, scope: &str) {
        self.state().locks.remove(scope);
    }

    /// From now on what Cosmos DB works on ends as `Failed`, and the key is as it was.
    pub fn fail_operations(&self, yes: bool) {
        self.state().operations_fail = yes;
    }

    /// What the rotator is assigned in ARM from now on, in place of everything; [`Azure::deny`] still takes from it.
    pub fn set_roles(&self, roles: Vec<AzureRole>) {
        self.state().roles = roles;
    }

    /// Gives the rotator a permission of Graph beside `Application.ReadWrite.OwnedBy`: `Application.ReadWrite.All`,
    /// `Application.Read.All`, `Policy.Read.All`.
    ///
    /// # Panics
    /// If the lab does not know it.
    pub fn grant(&self, permission: &str) {
        let role =
            APP_ROLES.iter().find(|role| role.name == permission).expect("the lab does not know this permission");
        let mut state = self.state();
        if !state.app_roles.iter().any(|(given, _)| given.name == permission) {
            state.app_roles.push((role, Utc::now()));
        }
    }

    /// Takes a right from the rotator: `Microsoft.Storage/storageAccounts/listKeys/action`, `Application.ReadWrite.OwnedBy`. A right of
    /// ARM may be a pattern; it is shown among the `notActions` of every role.
    pub fn deny(&self, right: &str) {
        self.state().denied.insert(right.to_ascii_lowercase(), right.to_owned());
    }

    /// Gives back what [`Azure::deny`] took.
    pub fn allow(&self, right: &str) {
        self.state().denied.remove(&right.to_ascii_lowercase());
    }

    /// The secret of any password there ever was.
    pub fn secret_of(&self, key_id: &str) -> Option<String> {
        self.state().secrets.get(key_id).cloned()
    }

    /// Every secret, account key and token there ever was.
    pub fn all_secrets(&self) -> Vec<String> {
        let state = self.state();
        state.secrets.values().chain(&state.keys).chain(state.tokens.keys()).cloned().collect()
    }

    /// Queues a mishap for the next call of `operation`: `Token`; `GetAccount`, `ListKeys`, `RegenerateKey`, `OperationStatus`,
    /// `OperationResult`, whichever service it is; `ListPermissions`, `ListLocks`; `GetApplication`, `ListOwners`, `AddPassword`,
    /// `RemovePassword`, `GetServicePrincipal`, `ListAppRoleAssignments`, `GetAppManagementPolicy`; `ListContainers`,
    /// `ListBlobs`, `GetBlob`, `GetBlobProperties`; `ListDatabases` of Cosmos DB, `ListServices` and `ListQueues` of Service Bus. What the
    /// consumers of an ArcGIS ask is `ConsumerGet`, and `ConsumerToken` at the token endpoint.
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

    /// While down, connections are accepted and closed at once, at every address.
    pub fn down(&self, yes: bool) {
        self.state().down = yes;
    }

    /// Every request, without secrets.
    pub fn requests(&self) -> Vec<RequestLine> {
        self.state().requests.clone()
    }

    /// How many `addPassword` calls took effect.
    pub fn mints(&self) -> usize {
        self.state().mints
    }

    /// How many regenerations asked for over the wire took effect.
    pub fn regenerations(&self) -> usize {
        self.state().regenerations
    }

    /// Changes how it behaves from now on; it holds for young keys too.
    pub fn set_options(&self, change: impl FnOnce(&mut AzureOptions)) {
        change(&mut self.state().options);
    }

    /// What there is now.
    pub fn snapshot(&self) -> AzureSnapshot {
        let state = self.state();
        AzureSnapshot { applications: state.applications.clone(), accounts: state.accounts.clone() }
    }

    /// Puts applications and accounts back. The requests, the counts and the list of secrets stay: they happened.
    pub fn restore(&self, s: AzureSnapshot) {
        let mut state = self.state();
        state.applications = s.applications;
        state.accounts = s.accounts;
    }
}
