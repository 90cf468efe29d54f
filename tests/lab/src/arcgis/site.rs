//! What the site holds: providers, services, tokens, jobs, and its mood.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::credential::{Credential, Vault};
use super::data::DataItem;
use super::jobs::{Job, JobScript};
use super::options::{ArcGisOptions, Product, Restart, ServiceSpec};
use super::tokens::Tokens;
use crate::consumer::{Bucket, Container, Errand, Pass};
use crate::faults::FaultQueue;
use crate::{Aws, Azure, ConsumerCount, Ibm, RequestLine};

#[derive(Clone)]
pub(crate) struct Provider {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) credential: Option<Credential>,
}

#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) spec: ServiceSpec,
    /// Its own; without one it uses its provider's.
    pub(crate) credential: Option<Credential>,
}

pub(crate) struct Site {
    pub(crate) options: ArcGisOptions,
    pub(crate) vault: Vault,
    /// Where validations look whether a credential works; `None` where the store is not the lab's.
    aws: Option<Aws>,
    /// Where services on Azure Blob Storage use their credentials.
    pub(crate) azure: Option<Azure>,
    /// Where services use the keys that it made.
    pub(crate) ibm: Option<Ibm>,
    /// Where buckets of Google are read, if anywhere.
    pub(crate) google_store: Option<String>,
    pub(crate) providers: Vec<Provider>,
    pub(crate) services: Vec<Service>,
    pub(crate) items: Vec<DataItem>,
    pub(crate) veils_posted: usize,
    /// Backup stores: by name, the cloud service behind.
    pub(crate) stores: BTreeMap<String, String>,
    /// What the nodes get from their cloud when they ask who they are.
    pub(crate) node_role: Option<(String, String)>,
    pub(crate) node_role_taken: bool,
    pub(crate) tokens: Tokens,
    pub(crate) jobs: Vec<Job>,
    pub(crate) scripts: VecDeque<JobScript>,
    pub(crate) counts: BTreeMap<String, ConsumerCount>,
    pub(crate) faults: FaultQueue,
    pub(crate) requests: Vec<RequestLine>,
    pub(crate) urls: Vec<String>,
    /// The names of the headers ever sent.
    pub(crate) headers: BTreeSet<String>,
    pub(crate) secrets: BTreeSet<String>,
    pub(crate) privileged: bool,
    /// Operations for which the account lacks the right, by their names in the fault queue.
    pub(crate) denied: BTreeSet<String>,
    /// The account's role and privileges, as the portal tells them.
    pub(crate) role: (String, Vec<String>),
    pub(crate) read_only: bool,
    /// The `upgradeStatus` of a Server; `None` where it says nothing of one.
    pub(crate) upgrade: Option<String>,
    pub(crate) locked: bool,
    pub(crate) down: bool,
    pub(crate) restart_next: Option<(Restart, Duration)>,
    pub(crate) restarting: Option<(Restart, DateTime<Utc>)>,
}

impl Site {
    pub(crate) fn new(options: ArcGisOptions, aws: Option<Aws>) -> Self {
        Self {
            vault: Vault::new(options.product),
            secrets: BTreeSet::from([options.password.clone()]),
            options,
            aws,
            azure: None,
            ibm: None,
            google_store: None,
            providers: Vec::new(),
            services: Vec::new(),
            items: Vec::new(),
            veils_posted: 0,
            stores: BTreeMap::new(),
            node_role: None,
            node_role_taken: false,
            tokens: Tokens::default(),
            jobs: Vec::new(),
            scripts: VecDeque::new(),
            counts: BTreeMap::new(),
            faults: FaultQueue::default(),
            requests: Vec::new(),
            urls: Vec::new(),
            headers: BTreeSet::new(),
            privileged: true,
            denied: BTreeSet::new(),
            role: ("org_admin".to_owned(), vec!["portal:admin:manageSecurity".to_owned()]),
            read_only: false,
            upgrade: None,
            locked: false,
            down: false,
            restart_next: None,
            restarting: None,
        }
    }

    pub(crate) fn is_server(&self) -> bool {
        self.options.product == Product::Server
    }

    /// Whether tokens come from a portal.
    pub(crate) fn has_portal(&self) -> bool {
        !self.is_server() || self.options.federated
    }

    /// Major and minor, so that 11.5 comes before 12.0.
    pub(crate) fn version(&self) -> (u32, u32) {
        let mut parts = self.options.version.split('.').map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }

    /// Cloud services came to Kubernetes with 11.2, to Server with 12.0.
    pub(crate) fn has_cloud(&self) -> bool {
        self.version() >= if self.is_server() { (12, 0) } else { (11, 2) }
    }

    pub(crate) fn service(&self, id: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.spec.id == id)
    }

    pub(crate) fn provider(&self, id: &str) -> Option<&Provider> {
        self.providers.iter().find(|provider| provider.id == id)
    }

    /// Where the credential of a service, a provider or a data item is kept.
    pub(crate) fn slot(&mut self, id: &str) -> Option<&mut Option<Credential>> {
        let service = self.services.iter_mut().find(|service| service.spec.id == id);
        let provider = self.providers.iter_mut().find(|provider| provider.id == id);
        let item = self.items.iter_mut().find(|item| item.path == id);
        service
            .map(|service| &mut service.credential)
            .or(provider.map(|provider| &mut provider.credential))
            .or(item.map(|item| &mut item.credential))
    }

    /// The credential in use, inheritance resolved.
    fn used(&self, id: &str) -> Option<&Credential> {
        let providers = |id: &str| self.provider(id)?.credential.as_ref();
        match (self.service(id), self.items.iter().find(|item| item.path == id)) {
            (Some(service), _) => service.credential.as_ref().or_else(|| providers(&service.spec.provider)),
            (None, Some(item)) => item.credential.as_ref(),
            (None, None) => providers(id),
        }
    }

    /// The key pair in use, inheritance resolved.
    pub(crate) fn held(&self, id: &str) -> Option<(String, String)> {
        let credential = self.used(id)?;
        match credential.kind.as_str() {
            // Without a role the nodes ask all the same, and are refused.
            "IAM-ROLE" => {
                let role = self.node_role.clone().filter(|_| !self.node_role_taken);
                Some(role.unwrap_or_else(|| ("no-role".to_owned(), "no-role".to_owned())))
            }
            _ => credential.pair(),
        }
    }

    /// What the counts call the key in use.
    pub(crate) fn held_name(&self, id: &str) -> Option<String> {
        let of_azure = || {
            let credential = self.used(id)?;
            Some(credential.pass()?.name(&self.storage_account(id)?))
        };
        self.held(id).map(|(key, _)| key).or_else(of_azure)
    }

    /// The storage account that the credential in use names, or else the connection.
    fn storage_account(&self, id: &str) -> Option<String> {
        let endpoint = || {
            let url = self.service(id)?.spec.connection.get("accountEndpointUrl")?.as_str()?;
            url.split_once("://")?.1.split('.').next()
        };
        self.used(id)?.storage_account().or_else(endpoint).map(str::to_owned)
    }

    /// What the consumer of a service on Azure Blob Storage opens, and with what.
    fn opens(&self, id: &str) -> Option<(String, String, Pass)> {
        let container = self.service(id)?.spec.container()?;
        Some((self.storage_account(id)?, container.to_owned(), self.used(id)?.pass()?))
    }

    /// What the consumer of a service or data item does next. `s3_endpoint` is where the buckets are.
    pub(crate) fn errand(&self, id: &str, s3_endpoint: &str) -> Option<Errand> {
        if let (Some(azure), Some((account, container, pass))) = (&self.azure, self.opens(id)) {
            let (blob_url, authority_url, ca) = (azure.blob_url(), azure.authority_url(), azure.ca_pem());
            return Some(Errand::Blob(Container { blob_url, authority_url, ca, account, container, pass }));
        }
        if let Some(bucket) = self.service(id).and_then(|service| service.spec.google_bucket()) {
            let (endpoint, bucket, region) = (self.google_store.clone()?, bucket.to_owned(), "auto".to_owned());
            return Some(Errand::S3(Bucket { endpoint, bucket, region, key: self.held(id)? }));
        }
        let (key, (bucket, region)) = (self.held(id)?, self.reads(id)?);
        let endpoint = match self.ibm_of(&key.0) {
            Some(ibm) => ibm.s3_url(),
            None => s3_endpoint.to_owned(),
        };
        Some(Errand::S3(Bucket { endpoint, bucket, region, key }))
    }

    /// Whether a service opens its bucket or container now, as far as a validation can tell; `None` where it has neither, or where
    /// nobody could know.
    pub(crate) fn reaches(&self, id: &str) -> Option<bool> {
        let spec = &self.service(id)?.spec;
        if spec.container().is_some() {
            let azure = self.azure.as_ref()?;
            return Some(
                self.opens(id).is_some_and(|(account, container, pass)| azure.opens(&account, &container, &pass)),
            );
        }
        let works = |(key, secret): (String, String)| self.works(&key, &secret, &spec.bucket);
        (!spec.bucket.is_empty()).then(|| self.held(id).is_some_and(works))
    }

    /// What the consumer of a service or a data item reads: bucket and region.
    pub(crate) fn reads(&self, id: &str) -> Option<(String, String)> {
        let service = self.service(id).map(|service| (&service.spec.bucket, &service.spec.region));
        let item = self.items.iter().find(|item| item.path == id).map(|item| (&item.bucket, &item.region));
        let (bucket, region) = service.or(item)?;
        // A data item may name a folder of the bucket.
        let bucket = bucket.split('/').next().filter(|bucket| !bucket.is_empty())?;
        Some((bucket.to_owned(), region.clone()))
    }

    /// Whether this pair reads the bucket now, as far as a validation can tell.
    pub(crate) fn works(&self, id: &str, secret: &str, bucket: &str) -> bool {
        match self.ibm_of(id) {
            Some(ibm) => ibm.opens(id, secret),
            None => self.aws.as_ref().is_none_or(|aws| aws.reads(id, secret, bucket)),
        }
    }

    /// The system that made a key, where it is one of IBM's.
    fn ibm_of(&self, key: &str) -> Option<&Ibm> {
        self.ibm.as_ref().filter(|ibm| ibm.knows(key))
    }

    pub(crate) fn note_secrets(&mut self, credential: Option<&Credential>) {
        self.secrets.extend(credential.map(Credential::strings).unwrap_or_default());
    }

    /// How the site answers if it restarts at this moment.
    pub(crate) fn restarting(&self, now: DateTime<Utc>) -> Option<Restart> {
        self.restarting.and_then(|(how, until)| (now < until).then_some(how))
    }
}

pub(crate) fn lock(site: &Mutex<Site>) -> MutexGuard<'_, Site> {
    site.lock().unwrap_or_else(PoisonError::into_inner)
}
