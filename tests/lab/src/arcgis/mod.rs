//! The ArcGIS stand-in: its handle, and what a test or a human in the admin directory may do to it.

mod cloud;
mod credential;
mod data;
mod jobs;
mod options;
mod reply;
mod serve;
mod site;
#[cfg(test)]
mod tests;
mod tokens;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::Utc;
use tokio::net::TcpListener;

pub use jobs::{JobScript, JobView};
pub use options::{ArcGisOptions, ItemView, JobPath, Product, Restart, ServiceSpec, Spelling, StoredCredential};

use crate::record::{Exchange, Recorded, Tape};
use crate::{Aws, Azure, ConsumerCount, Fault, Ibm, RequestLine, consumer, http, tls};
use credential::Credential;
use site::{Provider, Service, Site, lock};

/// Providers, services and jobs at one moment: a backup.
#[derive(Clone)]
pub struct ArcGisSnapshot {
    providers: Vec<Provider>,
    services: Vec<Service>,
    items: Vec<data::DataItem>,
    jobs: Vec<jobs::Job>,
}

/// One deployment on one loopback port: admin directory, token endpoint, and the services behind them.
#[derive(Clone)]
pub struct ArcGis {
    origin: String,
    papers: Option<tls::Papers>,
    aws_endpoint: String,
    tape: Tape,
    site: Arc<Mutex<Site>>,
}

impl ArcGis {
    /// A site without providers or services. `aws` is where its services will use their credentials.
    pub async fn start(options: ArcGisOptions, aws: &Aws) -> ArcGis {
        ArcGis::serve(http::loopback().await, options, aws.endpoint(), Some(aws.clone())).await
    }

    /// The same on a port of one's choice, so that it is found again; 0 is any that is free.
    ///
    /// # Errors
    /// Where somebody else has the port.
    pub async fn start_on(port: u16, options: ArcGisOptions, aws: &Aws) -> std::io::Result<ArcGis> {
        let bound = http::loopback_at(port).await?;
        Ok(ArcGis::serve(bound, options, aws.endpoint(), Some(aws.clone())).await)
    }

    /// The same, with its services using their credentials at another S3: the URL of a server that speaks it path-style, such as
    /// moto's. Validations cannot look into that one, and take every credential for good; the consumers find out in truth.
    pub async fn start_at(options: ArcGisOptions, s3_endpoint: &str) -> ArcGis {
        let endpoint = s3_endpoint.trim_end_matches('/').to_owned();
        ArcGis::serve(http::loopback().await, options, endpoint, None).await
    }

    async fn serve(
        (listener, port): (TcpListener, u16),
        options: ArcGisOptions,
        aws_endpoint: String,
        aws: Option<Aws>,
    ) -> ArcGis {
        let tls = options.tls.then(|| tls::acceptor(options.self_signed.as_ref(), options.demands_certificate));
        let (acceptor, papers) = tls.unzip();
        let scheme = if options.tls { "https" } else { "http" };
        let site = Arc::new(Mutex::new(Site::new(options, aws)));
        let (inner, tape) = (Arc::new(serve::Server::new(site.clone())), Tape::default());
        http::serve(Arc::new(Recorded { inner, tape: tape.clone() }), listener, acceptor).await;
        ArcGis { origin: format!("{scheme}://127.0.0.1:{port}"), papers, aws_endpoint, tape, site }
    }

    fn site(&self) -> MutexGuard<'_, Site> {
        lock(&self.site)
    }

    /// `…/<context>/admin`
    pub fn admin_url(&self) -> String {
        format!("{}/{}/admin", self.origin, self.site().options.context)
    }

    /// `…/<context>/sharing/rest`, where the tokens of Kubernetes and of a federated Server come from.
    pub fn portal_url(&self) -> String {
        format!("{}/{}/sharing/rest", self.origin, self.site().options.context)
    }

    /// Where its account logs in, by `POST`.
    pub fn token_url(&self) -> String {
        let by_portal = self.site().has_portal();
        let giver = if by_portal { self.portal_url() } else { self.admin_url() };
        format!("{giver}/generateToken")
    }

    /// The authority that signed the certificate, or the certificate where that signed itself; `None` without TLS.
    pub fn ca_pem(&self) -> Option<String> {
        self.papers.as_ref().map(|papers| papers.ca.clone())
    }

    /// A client's certificate of that authority and its key, in PEM; `None` without TLS.
    pub fn client_identity(&self) -> Option<(String, String)> {
        self.papers.as_ref().map(|papers| papers.client.clone())
    }

    /// From now on services on Azure Blob Storage read their containers there, with whatever they hold: the key of an account, a SAS, or
    /// an application's secret. Before, nobody used what they held. What holds something else goes on as it was.
    pub fn use_azure(&self, azure: &Azure) {
        self.site().azure = Some(azure.clone());
    }

    /// From now on a service that holds a key of this system reads its bucket there. What holds another key goes on as it was.
    pub fn use_ibm(&self, ibm: &Ibm) {
        self.site().ibm = Some(ibm.clone());
    }

    /// From now on services on Google Cloud Storage read their buckets at this store ([`crate::s3::S3Store::url`]), with the HMAC keys
    /// they hold. Before, nobody used what they held.
    pub fn use_google(&self, store_url: &str) {
        self.site().google_store = Some(store_url.to_owned());
    }

    /// A cloud provider: `name` is `AWS`, `AZURE` or `GCP`.
    pub fn add_provider(&self, id: &str, name: &str, credential: Option<StoredCredential>) {
        let mut site = self.site();
        let credential = credential.as_ref().map(Credential::access_key);
        site.note_secrets(credential.as_ref());
        site.providers.push(Provider { id: id.to_owned(), name: name.to_owned(), credential });
    }

    /// An S3 object store that is used from now on; without a credential of its own it uses its provider's.
    pub fn add_service(&self, id: &str, provider: &str, bucket: &str, credential: Option<StoredCredential>) {
        self.add_service_with(ServiceSpec { credential, ..ServiceSpec::new(id, provider, bucket) });
    }

    /// Any cloud service. Its consumer starts at once, unless it has neither a bucket nor a container.
    pub fn add_service_with(&self, spec: ServiceSpec) {
        let credential = spec.credential.as_ref().map(Credential::access_key);
        let consumed = !spec.bucket.is_empty() || spec.container().is_some() || spec.google_bucket().is_some();
        let id = spec.id.clone();
        {
            let mut site = self.site();
            site.note_secrets(credential.as_ref());
            site.counts.insert(id.clone(), ConsumerCount::default());
            site.services.push(Service { spec, credential });
        }
        if consumed {
            self.consume(id);
        }
    }

    fn consume(&self, id: String) {
        let (site, endpoint, place) = (self.site.clone(), self.aws_endpoint.clone(), id.clone());
        let errand = move || lock(&site).errand(&place, &endpoint);
        let site = self.site.clone();
        consumer::spawn(errand, move |key_id, ended| {
            lock(&site).counts.entry(id.clone()).or_default().add(key_id, ended);
        });
    }

    /// A cloud store registered as a data item, `/cloudStores/<name>`, with a consumer of its own. It is known by its path wherever
    /// a service is known by its id.
    pub fn add_data_item(&self, path: &str, bucket: &str, credential: StoredCredential) {
        let credential = Some(Credential::access_key(&credential));
        {
            let mut site = self.site();
            site.note_secrets(credential.as_ref());
            site.counts.insert(path.to_owned(), ConsumerCount::default());
            site.items.push(data::DataItem::new(path, bucket, credential));
        }
        self.consume(path.to_owned());
    }

    /// A human edits a data item, or registers one, by writing all of it, its connection string as an object in clear. Nobody uses
    /// one that was not there before.
    ///
    /// # Panics
    /// If it is no data item.
    pub fn set_data_item(&self, item: serde_json::Value) {
        let mut site = self.site();
        let (_, item) = data::parse(&mut site, item).expect("set_data_item: this is no data item");
        site.items.retain(|held| held.path != item.path);
        site.items.push(item);
    }

    /// All of a data item in clear, its connection string as an object.
    pub fn data_item(&self, path: &str) -> Option<serde_json::Value> {
        self.site().items.iter().find(|item| item.path == path).map(data::DataItem::truth)
    }

    /// A human unregisters a data item.
    pub fn remove_data_item(&self, path: &str) {
        self.site().items.retain(|item| item.path != path);
    }

    /// How many ciphertexts stood in the data items that were posted. The site takes its own back, which no document promises.
    pub fn veils_posted(&self) -> usize {
        self.site().veils_posted
    }

    /// From now on data items show their connection string so.
    pub fn set_item_view(&self, view: ItemView) {
        self.site().options.item_view = view;
    }

    /// A backup store (Kubernetes) on a cloud service, for `stores/<name>/validate`.
    pub fn add_backup_store(&self, name: &str, service: &str) {
        self.site().stores.insert(name.to_owned(), service.to_owned());
    }

    /// Gives the nodes a role: services whose credential is `IAM-ROLE` read with this key pair from now on, as if their cloud had
    /// handed it to them.
    pub fn set_node_role(&self, access_key: &str, secret: &str) {
        let mut site = self.site();
        site.secrets.insert(secret.to_owned());
        site.node_role = Some((access_key.to_owned(), secret.to_owned()));
    }

    /// Takes the role from the nodes, or gives it back.
    pub fn take_node_role(&self, taken: bool) {
        self.site().node_role_taken = taken;
    }

    /// The key pair a service uses, or a provider or data item holds, in truth.
    pub fn held_key(&self, service_or_provider: &str) -> Option<(String, String)> {
        self.site().held(service_or_provider)
    }

    /// What [`ArcGis::consumer`] calls the key a service uses, or a provider or data item holds: its id, or its [`crate::key_name`].
    pub fn held_key_name(&self, place: &str) -> Option<String> {
        self.site().held_name(place)
    }

    /// A human in the admin directory stores another key, at once and without a job.
    ///
    /// # Panics
    /// If there is no such service or provider.
    pub fn set_credential(&self, service_or_provider: &str, access_key: &str, secret: &str) {
        let stored = StoredCredential { access_key: access_key.to_owned(), secret_key: secret.to_owned() };
        let stored = Credential::access_key(&stored);
        let mut site = self.site();
        site.note_secrets(Some(&stored));
        *site.slot(service_or_provider).expect("set_credential: no such service or provider") = Some(stored);
    }

    /// The same with a credential of any type, as a plain object in the spelling of the answers, unknown members and all.
    ///
    /// # Panics
    /// If there is no such place, or this is no credential: an object with a `type`, and `secret` an object if it is there.
    pub fn set_credential_object(&self, place: &str, object: &serde_json::Value) {
        let stored = Credential::plain(object).expect("set_credential_object: not a credential");
        let mut site = self.site();
        site.note_secrets(Some(&stored));
        *site.slot(place).expect("set_credential_object: no such place") = Some(stored);
    }

    /// What a service, provider or data item holds of its own, in plain text and to the last character, so that a test can tell a
    /// key that was mangled on its way.
    pub fn credential_object(&self, place: &str) -> Option<serde_json::Value> {
        self.site().slot(place)?.as_ref().map(Credential::to_plain)
    }

    /// What the service has seen with the keys it held.
    pub fn consumer(&self, service: &str) -> ConsumerCount {
        self.site().counts.get(service).cloned().unwrap_or_default()
    }

    /// Refusals of all services together: the outage.
    pub fn consumer_refusals(&self) -> u64 {
        self.site().counts.values().map(|count| count.refusals).sum()
    }

    /// Queues a mishap for the next call of `operation`: `generateToken`, `self`, `root`, `mode`, `upgrade`, `info`, `providers`, `provider`,
    /// `services`, `service`, `status`, `credential/update`, `credential/add`, `jobs`, `job`; of data items `findItems`, `item`,
    /// `validateDataItem`, `edit`; of backup stores `validate`.
    pub fn fault(&self, operation: &str, fault: Fault) {
        self.site().faults.push(operation, fault);
    }

    /// How many of the mishaps queued for this operation are not yet spent: a test that holds a request back learns from this that
    /// it has arrived.
    pub fn faults_left(&self, operation: &str) -> usize {
        self.site().faults.left(operation)
    }

    /// Forgets the faults not yet spent.
    pub fn clear_faults(&self) {
        self.site().faults.clear();
    }

    /// How the next job without a script goes.
    pub fn job_script(&self, script: JobScript) {
        self.site().scripts.push_back(script);
    }

    /// Every job there was, oldest first, also those that vanished.
    pub fn jobs(&self) -> Vec<JobView> {
        self.site().jobs.iter().map(jobs::Job::view).collect()
    }

    /// Read-only mode: POSTs are refused, `generateToken` is not.
    pub fn set_read_only(&self, on: bool) {
        self.site().read_only = on;
    }

    /// What `admin/upgrade` of a Server says: `IN_PROGRESS`, `UPGRADE_REQUIRED`, … (Esri's cookbook reads it).
    pub fn set_upgrade(&self, status: Option<&str>) {
        self.site().upgrade = status.map(str::to_owned);
    }

    /// Somebody else's credential job, with a key nobody here knows; its id.
    pub fn start_foreign_job(&self, service: &str, lasts: Duration) -> String {
        jobs::start_foreign(&mut self.site(), service, lasts)
    }

    /// "Another administrative operation is currently accessing the store."
    pub fn set_site_locked(&self, on: bool) {
        self.site().locked = on;
    }

    /// Every token issued so far is invalid from now on.
    pub fn expire_tokens(&self) {
        self.site().tokens.expire_all();
    }

    /// While down, connections are accepted and closed at once. The consumers go on: the stores are elsewhere.
    pub fn down(&self, yes: bool) {
        self.site().down = yes;
    }

    /// The next job restarts the site half-way, for this long, and the site then answers like this.
    pub fn restart_in_next_job(&self, how: Restart, lasts: Duration) {
        self.site().restart_next = Some((how, lasts));
    }

    /// A human changes the password. Tokens stay good, as they do in truth.
    pub fn set_password(&self, p: &str) {
        let mut site = self.site();
        site.secrets.insert(p.to_owned());
        site.options.password = p.to_owned();
    }

    /// Ends a lockout, as fifteen minutes would.
    pub fn unlock_account(&self) {
        self.site().tokens.unlock();
    }

    /// Every attempt to log in: whether a token was granted.
    pub fn logins(&self) -> Vec<bool> {
        self.site().tokens.logins.clone()
    }

    /// Without the privilege: "Token is valid but access is denied."
    pub fn set_username_privilege(&self, ok: bool) {
        self.site().privileged = ok;
    }

    /// Takes the right to one operation from the account, by the name that [`ArcGis::fault`] takes, or gives it back: what a role
    /// with privileges of its own may come to from 12.0 on.
    pub fn set_denied(&self, operation: &str, denied: bool) {
        let mut site = self.site();
        match denied {
            true => site.denied.insert(operation.to_owned()),
            false => site.denied.remove(operation),
        };
    }

    /// The account's role as the portal tells it: `org_admin` at first, `org_publisher`, `org_user`. What it may do here is
    /// [`ArcGis::set_username_privilege`]'s to say.
    pub fn set_role(&self, role: &str, privileges: &[&str]) {
        self.site().role = (role.to_owned(), privileges.iter().map(|name| (*name).to_owned()).collect());
    }

    /// A backup of the site.
    pub fn snapshot(&self) -> ArcGisSnapshot {
        let site = self.site();
        ArcGisSnapshot {
            providers: site.providers.clone(),
            services: site.services.clone(),
            items: site.items.clone(),
            jobs: site.jobs.clone(),
        }
    }

    /// Restores a backup: what was stored since is gone, jobs included. Jobs that run store nothing any more.
    pub fn restore(&self, s: ArcGisSnapshot) {
        let mut site = self.site();
        site.providers = s.providers;
        site.services = s.services;
        site.items = s.items;
        site.jobs = s.jobs;
        // Nobody works on them any more.
        site.jobs.iter_mut().for_each(|job| job.done = true);
    }

    /// An upgrade, at once.
    pub fn set_version(&self, v: &str) {
        self.site().options.version = v.to_owned();
    }

    /// How long the jobs accepted from now on take.
    pub fn set_job_duration(&self, d: Duration) {
        self.site().options.job_duration = d;
    }

    /// Every request.
    pub fn requests(&self) -> Vec<RequestLine> {
        self.site().requests.clone()
    }

    /// Path and query of every request as they would stand in a proxy's log: the place to look for secrets in URLs.
    pub fn urls(&self) -> Vec<String> {
        self.site().urls.clone()
    }

    /// Records every request and its answer from now on; an earlier recording is forgotten.
    pub fn record(&self) {
        self.tape.start();
    }

    /// What was recorded, in the order in which the requests came. Secrets and tokens stand in it.
    pub fn conversation(&self) -> Vec<Exchange> {
        self.tape.exchanges()
    }

    /// The names of all headers that were ever sent, in lower case.
    pub fn header_names(&self) -> Vec<String> {
        self.site().headers.iter().cloned().collect()
    }

    /// Passwords, tokens issued, secrets ever stored or sent.
    pub fn all_secrets(&self) -> Vec<String> {
        self.site().secrets.iter().cloned().collect()
    }

    /// Waits until no job runs.
    pub async fn settled(&self) {
        while self.site().jobs.iter().any(|job| !job.ended(Utc::now())) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
