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
use crate::faults::FaultQueue;
use crate::{Aws, ConsumerCount, RequestLine};

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

    /// The key pair in use, inheritance resolved.
    pub(crate) fn held(&self, id: &str) -> Option<(String, String)> {
        let providers = |id: &str| self.provider(id)?.credential.as_ref();
        let credential = match (self.service(id), self.items.iter().find(|item| item.path == id)) {
            (Some(service), _) => service.credential.as_ref().or_else(|| providers(&service.spec.provider)),
            (None, Some(item)) => item.credential.as_ref(),
            (None, None) => providers(id),
        };
        let credential = credential?;
        match credential.kind.as_str() {
            // Without a role the nodes ask all the same, and are refused.
            "IAM-ROLE" => {
                let role = self.node_role.clone().filter(|_| !self.node_role_taken);
                Some(role.unwrap_or_else(|| ("no-role".to_owned(), "no-role".to_owned())))
            }
            _ => credential.pair(),
        }
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
        self.aws.as_ref().is_none_or(|aws| aws.reads(id, secret, bucket))
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
