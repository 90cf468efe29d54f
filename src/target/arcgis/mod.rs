//! ArcGIS Enterprise on Kubernetes and ArcGIS Server: a cloud service, a provider or a registered data store that holds a key of AWS,
//! Azure or Google.
//!
//! ```text
//! inspect   version, mode, upgrade, cloud/services or cloud/providers/<id>, jobs and what of them runs   changes nothing
//! push      the same looks again, then one POST credential/{add|update}      sends at most once; see `push`
//! poll      jobs/<id>, on Server system/jobs/<id> too                        a job that cannot be seen has not failed
//! ```
//!
//! A data store has another resource and no jobs: `data` and `item`.
//!
//! Does not wait, retry or decide: the engine does. Does not compare ciphertexts, and never posts back a mask. What of this is
//! Esri's word and what is our reading of it stands beside the code that relies on it; none of it was tried on a real ArcGIS.

mod advice;
mod breaker;
mod cloud;
mod config;
mod credential;
mod data;
mod envelope;
mod health;
mod holders;
mod item;
mod jobs;
mod keyless;
mod operation;
mod preflight;
mod session;
mod shown;
mod site;
mod tables;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use serde_json::Value;

use self::config::{Operation, Place, TargetConfig};
use self::credential::{Form, Spelling};
use self::envelope::{Complaint, Meaning, RIGHT_NEEDED, Verdict, messages};
use self::operation::{Coming, Found, Verb};
use self::session::{Ask, Deployment, before_sending};
use crate::model::{Holder, JobId, Keyless, Material, MaterialKind, Reason, Secret, SystemSpec, TargetSpec};
use crate::net::Context;
use crate::net::redact::Redactor;
use crate::ports::{Fault, FoundHolder, Health, Inspection, JobState, Reading, Receipt, Site, Target, WithoutKey};

pub use self::config::Product;
pub use self::credential::takes;
use self::keyless::keyless_object;

/// ArcGIS as a kind of target.
pub const KIND: super::Kind = super::Kind {
    name: "arcgis",
    system: Some("arcgis"),
    read_system: tables::read_system,
    read: tables::read,
    expect: config::expect,
    refuses: |material| (!takes(material)).then_some("ArcGIS takes no such credential"),
    jobs_max: |system| config::deployment(system).map(|deployment| deployment.max_jobs),
    connect,
};

fn connect(spec: &TargetSpec, system: Option<&SystemSpec>, context: &Context) -> Result<Arc<dyn Target>, Fault> {
    let mismatch =
        |what: &str| Fault::Refused { reason: Reason::PolicyMismatch, why: format!("reaching {}: {what}", spec.name) };
    let system = system.ok_or_else(|| mismatch("its deployment is no longer in the policy"))?;
    let config =
        serde_json::from_value(spec.config.clone()).map_err(|_| mismatch("not a target this rekeyd can read"))?;
    Ok(Arc::new(ArcGis { deployment: Deployment::connect(system, context)?, config }))
}

/// One cloud service, provider or data store of one deployment.
struct ArcGis {
    deployment: Arc<Deployment>,
    config: TargetConfig,
}

/// What is to arrive.
#[derive(Clone, Copy)]
enum What<'a> {
    /// A key, of a kind that may be known.
    Key(Option<MaterialKind>),
    /// A credential without a key.
    Keyless(&'a Keyless),
}

/// A credential object as it is sent, and what of it no message may repeat.
#[derive(Clone, Copy)]
struct Credential<'a> {
    text: &'a str,
    secrets: &'a [Secret],
}

/// What became of one POST that the other side certainly did not carry out.
enum NotTaken {
    /// 404: no such resource or operation under this root.
    Absent(Complaint),
    /// Refused in words that speak of the secret's field names.
    Spelling(Complaint),
}

#[async_trait]
impl Target for ArcGis {
    async fn inspect(&self) -> Result<Inspection, Fault> {
        if let Place::Item(path) = &self.config.place {
            return self.inspect_item(path).await;
        }
        let found = self.survey(What::Key(self.config.material)).await?;
        self.inspection(found).await
    }

    async fn inspect_switch(&self, to: &Keyless) -> Result<Inspection, Fault> {
        if let Place::Item(path) = &self.config.place {
            return Err(self.no_switch(path, to));
        }
        let found = self.survey(What::Keyless(to)).await?;
        self.inspection(found).await
    }

    async fn read(&self) -> Result<Reading, Fault> {
        match &self.config.place {
            Place::Service(id) => {
                let services = self.services().await?;
                let service = services.iter().find(|service| service.id == *id).ok_or_else(|| {
                    let known = services.iter().map(|service| (service.id.as_str(), service.label.as_str()));
                    self.deployment.discreet(operation::not_found("cloud service", id, known, &self.site()))
                })?;
                Ok(service.own.as_ref().map_or(Reading::Nothing, |own| own.reading.clone()))
            }
            Place::Provider(id) => {
                let credential = self.provider(id).await?.credential;
                Ok(credential.map_or(Reading::Nothing, |credential| credential.reading))
            }
            Place::Item(path) => Ok(self.item(path).await?.reading()),
        }
    }

    /// Sends once, save after an answer by which nothing was done: an expired token (once), a 404 under `cloud` (once under `clouds`,
    /// which only the documents' POST examples say), and with `credential_keys = "auto"` a refusal that names a field of the secret.
    async fn push(&self, material: &Material) -> Result<Receipt, Fault> {
        if let Place::Item(path) = &self.config.place {
            return self.push_item(path, material).await;
        }
        // The look before the push is part of it: after a restart nobody else has looked. It judges the key that is there, whatever
        // the policy said would come.
        let found = self.survey(What::Key(Some(material.kind()))).await.map_err(before_sending)?;
        let spellings = self.deployment.config.credential_keys.spellings(material.kind());
        let mut said = None;
        for (index, spelling) in spellings.iter().enumerate() {
            match self.submit(material, &found, *spelling).await? {
                Ok(receipt) => return Ok(receipt),
                Err(NotTaken::Spelling(complaint)) if index + 1 < spellings.len() => said = Some(complaint),
                Err(NotTaken::Spelling(complaint) | NotTaken::Absent(complaint)) => {
                    // The first refusal is about the documented spelling and says more.
                    return Err(self.refusal_of(found.verb, said.unwrap_or(complaint)));
                }
            }
        }
        Err(Fault::Refused {
            reason: Reason::Refused,
            why: format!("{}: no way to write the key", self.doing_push(found.verb)),
        })
    }

    async fn switch(&self, to: &Keyless) -> Result<Receipt, Fault> {
        if let Place::Item(path) = &self.config.place {
            return Err(self.no_switch(path, to));
        }
        let found = self.survey(What::Keyless(to)).await.map_err(before_sending)?;
        let doing = self.doing_push(found.verb);
        let object = keyless_object(to, self.deployment.config.product)
            .map_err(|what| Fault::Refused { reason: Reason::Refused, why: format!("{doing}: {what}") })?;
        let credential = Credential { text: &object.to_string(), secrets: &[] };
        match self.send(credential, found.verb).await? {
            Ok(receipt) => Ok(receipt),
            Err(NotTaken::Spelling(complaint) | NotTaken::Absent(complaint)) => {
                Err(self.refusal_of(found.verb, complaint))
            }
        }
    }

    async fn jobs(&self) -> Result<Vec<JobId>, Fault> {
        if let Place::Item(_) = self.config.place {
            // The site's jobs are about other places.
            return Ok(Vec::new());
        }
        let (mut all, mut page) = (Vec::new(), None);
        for path in self.job_roots() {
            let ask = Ask::get("reading the jobs", path);
            match self.deployment.ask(ask).await?.0 {
                Verdict::Good(value) => {
                    // No document shows the list of Kubernetes; one we cannot read knows no jobs, and the read-back decides.
                    let more = jobs::ids_of_list(&value).unwrap_or_default();
                    all.extend(more.into_iter().filter(|id| !all.contains(id)).collect::<Vec<_>>());
                }
                Verdict::Text(_) => return Err(self.deployment.page(&self.doing("reading the jobs"))),
                // Not there, or not for us: the same as unreadable.
                Verdict::Complaint(Complaint {
                    meaning: Meaning::Absent | Meaning::Denied | Meaning::Refused, ..
                }) => {}
                Verdict::Complaint(complaint) if complaint.meaning == Meaning::PageAbsent => page = Some(complaint),
                Verdict::Complaint(complaint) => return Err(complaint.after_read(&self.doing("reading the jobs"))),
            }
        }
        if all.is_empty() && page.is_some() {
            // A page for a 404 may come from a web adaptor whose server is restarting, and then "no jobs" would be a lie.
            self.root().await?;
        }
        Ok(all)
    }

    async fn poll(&self, job: &JobId) -> Result<JobState, Fault> {
        let what = format!("reading job {job}");
        if !jobs::is_job_id(job.as_str()) {
            let why = format!("{}: not a job id", self.doing("reading a job"));
            return Err(Fault::Refused { reason: Reason::Refused, why });
        }
        let (mut absent, mut page) = (None, None);
        for root in self.job_roots() {
            let path = format!("{root}/{job}");
            let (verdict, redactor) = self.deployment.ask(Ask::get(&what, &path)).await?;
            match verdict {
                Verdict::Good(value) => {
                    self.deployment.classic_jobs.store(root == CLASSIC_JOBS, Ordering::Relaxed);
                    let state = jobs::state_of(&value, |text| redactor.clean(text));
                    if !matches!(state, Some(JobState::Running(_))) {
                        self.deployment.forget_ready();
                    }
                    return state
                        .ok_or_else(|| Fault::Unknown(format!("{}: an answer without a status", self.doing(&what))));
                }
                Verdict::Text(_) => return Err(self.deployment.page(&self.doing(&what))),
                Verdict::Complaint(complaint) if complaint.meaning == Meaning::Absent || complaint.says_not_found() => {
                    absent = Some(complaint);
                }
                Verdict::Complaint(complaint) if complaint.meaning == Meaning::PageAbsent => page = Some(complaint),
                Verdict::Complaint(complaint) => return Err(complaint.after_read(&self.doing(&what))),
            }
        }
        match (absent, page) {
            // ArcGIS itself says so; a page alone may be a web adaptor that waits for its server.
            (Some(complaint), _) => Ok(JobState::Vanished(format!("{}: {}", self.doing(&what), complaint.said))),
            (None, Some(complaint)) => Err(complaint.after_read(&self.doing(&what))),
            (None, None) => Err(Fault::Unknown(format!("{}: nowhere to look", self.doing(&what)))),
        }
    }

    fn know(&self, secrets: Vec<Secret>) {
        self.deployment.given(self.holder().as_str(), secrets);
    }

    async fn holders(&self) -> Result<Vec<FoundHolder>, Fault> {
        self.all_holders().await
    }

    async fn site(&self) -> Result<Option<Site>, Fault> {
        self.tell_site().await.map(Some)
    }

    async fn without_key(&self) -> Result<WithoutKey, Fault> {
        self.advise().await
    }

    fn hurry(&self) {
        self.deployment.hurry();
    }

    async fn health(&self) -> Health {
        match &self.config.health {
            Some(watched) => self.check_health(watched).await,
            None => Health::NotWatched,
        }
    }
}

/// Where the 12.0 pages say a credential job is polled, and Kubernetes' only place.
const JOBS: &str = "jobs";

/// Where Server's job resource has been since 10.1.
const CLASSIC_JOBS: &str = "system/jobs";

impl ArcGis {
    fn site(&self) -> String {
        self.deployment.at.to_string()
    }

    fn doing(&self, what: &str) -> String {
        self.deployment.doing(what)
    }

    fn holder(&self) -> Holder {
        let place = &self.config.place;
        Holder::new(match place {
            Place::Item(path) => format!("{}/data/items{path}", self.site()),
            Place::Service(id) | Place::Provider(id) => format!("{}/cloud/{}/{id}", self.site(), place.resource()),
        })
    }

    async fn inspection(&self, found: Found) -> Result<Inspection, Fault> {
        let jobs = self.jobs().await?;
        self.no_other_job_runs(&jobs).await?;
        Ok(Inspection { holder: self.holder(), reading: found.reading, jobs })
    }

    /// Everything that may keep a push from succeeding, looked at without changing anything.
    async fn survey(&self, what: What<'_>) -> Result<Found, Fault> {
        let root = self.root().await?;
        self.takes_changes().await?;
        let (site, operation) = (self.site(), self.config.operation);
        let (material, keyless) = match what {
            What::Key(material) => (material, None),
            What::Keyless(to) => (None, Some(to)),
        };
        let version = cloud::version_of(&root);
        let coming = Coming { material, keyless, version, product: self.deployment.config.product, site: &site };
        let found = match &self.config.place {
            Place::Service(id) => operation::service_road(&self.services().await?, id, operation, coming),
            Place::Provider(id) => operation::provider_road(&self.provider(id).await?, operation, coming),
            Place::Item(path) => unreachable!("data item {path} has a survey of its own"),
        };
        // Its messages list what the server calls its services.
        found.map_err(|fault| self.deployment.discreet(fault))
    }

    async fn root(&self) -> Result<Value, Fault> {
        self.deployment.get(Ask::get("reading the admin directory", "")).await
    }

    async fn services(&self) -> Result<Vec<cloud::Service>, Fault> {
        let what = "reading cloud/services";
        let ask = Ask { query: &MASKED, ..Ask::get(what, "cloud/services") };
        let value = self.deployment.get(ask).await?;
        cloud::services_of(&value).ok_or_else(|| self.odd(what))
    }

    async fn provider(&self, id: &str) -> Result<cloud::Provider, Fault> {
        let what = format!("reading cloud/providers/{id}");
        let path = format!("cloud/providers/{id}");
        let ask = Ask { query: &MASKED, ..Ask::get(&what, &path) };
        let provider = match self.deployment.get(ask).await {
            Ok(value) => cloud::provider_of(&value).ok_or_else(|| self.odd(&what))?,
            Err(Fault::Refused { reason: Reason::NotFound, .. }) => {
                let known = self.providers().await?;
                let known = known.iter().map(|provider| (provider.id.as_str(), provider.label.as_str()));
                return Err(self.deployment.discreet(operation::not_found("cloud provider", id, known, &self.site())));
            }
            Err(fault) => return Err(fault),
        };
        let is_hidden =
            provider.credential.as_ref().is_some_and(|shown| shown.reading == Reading::Hidden && !shown.is_keyless());
        if !is_hidden {
            return Ok(provider);
        }
        // `maskedSecret` is documented for the list alone; where the provider's own page passes over it, the list may show the end.
        let listed = self.providers().await.unwrap_or_default();
        Ok(listed.into_iter().find(|listed| listed.id == id && listed.credential.is_some()).unwrap_or(provider))
    }

    async fn providers(&self) -> Result<Vec<cloud::Provider>, Fault> {
        let what = "reading cloud/providers";
        let ask = Ask { query: &MASKED, ..Ask::get(what, "cloud/providers") };
        let value = self.deployment.get(ask).await?;
        cloud::providers_of(&value).ok_or_else(|| self.odd(what))
    }

    fn odd(&self, what: &str) -> Fault {
        Fault::Refused {
            reason: Reason::Refused,
            why: format!("{}: an answer of another shape than documented", self.doing(what)),
        }
    }

    /// Where jobs may be, the likelier place first.
    fn job_roots(&self) -> impl Iterator<Item = &'static str> + use<> {
        let roots: [Option<&str>; 2] = match self.deployment.config.product {
            Product::Kubernetes => [Some(JOBS), None],
            Product::Server if self.deployment.classic_jobs.load(Ordering::Relaxed) => [Some(CLASSIC_JOBS), Some(JOBS)],
            Product::Server => [Some(JOBS), Some(CLASSIC_JOBS)],
        };
        roots.into_iter().flatten()
    }

    fn no_switch(&self, path: &str, to: &Keyless) -> Fault {
        let what = format!("switching data item {path} to {to}");
        let why = format!("{}: only cloud services and providers are documented to take it", self.doing(&what));
        Fault::Refused { reason: Reason::Refused, why }
    }

    /// One spelling of a key.
    async fn submit(
        &self,
        material: &Material,
        found: &Found,
        spelling: Spelling,
    ) -> Result<Result<Receipt, NotTaken>, Fault> {
        // Nothing of a credential without a key belongs into one with a key.
        let current = found.current.as_ref().filter(|current| !current.is_keyless());
        let form = Form::new(material.kind(), self.deployment.config.product, spelling, current).map_err(|what| {
            let why = format!("{}: its credential {}", self.doing_push(found.verb), Redactor::default().clean(&what));
            Fault::Refused { reason: Reason::Refused, why }
        })?;
        let text = form.write(material);
        let secrets = [material.secrets(), form.ciphertexts()].concat();
        self.send(Credential { text: &text, secrets: &secrets }, found.verb).await
    }

    /// Under `cloud`, and after a 404 under `clouds`.
    async fn send(&self, credential: Credential<'_>, verb: Verb) -> Result<Result<Receipt, NotTaken>, Fault> {
        match self.post("cloud", credential, verb).await? {
            Err(NotTaken::Absent(complaint)) => match self.post("clouds", credential, verb).await? {
                Err(NotTaken::Absent(_)) => Ok(Err(NotTaken::Absent(complaint))),
                other => Ok(other),
            },
            other => Ok(other),
        }
    }

    /// The one request that changes something.
    async fn post(
        &self,
        root: &str,
        credential: Credential<'_>,
        verb: Verb,
    ) -> Result<Result<Receipt, NotTaken>, Fault> {
        let place = &self.config.place;
        let path = format!("{root}/{}/{}/credential/{}", place.resource(), place.id(), verb.as_str());
        let what = push_title(place, verb);
        let ask = Ask {
            form: Some(&[("credential", credential.text)]),
            secrets: &credential.secrets.iter().collect::<Vec<_>>(),
            ..Ask::get(&what, &path)
        };
        let (verdict, redactor) = self.deployment.ask(ask).await?;
        match verdict {
            Verdict::Good(value) => self.receipt(&value, &redactor, verb).map(Ok),
            Verdict::Text(body) => match jobs::id_of_malformed(&body) {
                Some(job) => Ok(Ok(Receipt { job: Some(job) })),
                None => Err(Fault::Unknown(format!(
                    "{}: a page instead of JSON; the job may have started",
                    self.doing(&what)
                ))),
            },
            Verdict::Complaint(complaint) => match complaint.meaning {
                Meaning::Absent | Meaning::PageAbsent => Ok(Err(NotTaken::Absent(complaint))),
                Meaning::Refused if credential::is_about_spelling(&complaint.said) => {
                    Ok(Err(NotTaken::Spelling(complaint)))
                }
                Meaning::Broken => Err(Fault::Unknown(format!("{}: {}", self.doing(&what), complaint.said))),
                _ => Err(self.refusal_of(verb, complaint)),
            },
        }
    }

    fn receipt(&self, value: &Value, redactor: &Redactor, verb: Verb) -> Result<Receipt, Fault> {
        self.deployment.forget_ready();
        let is_done = value.get("success") == Some(&Value::Bool(true))
            || value.get("status").and_then(Value::as_str) == Some("success");
        match jobs::id_of(value) {
            Some(job) => Ok(Receipt { job: Some(job) }),
            None if is_done => Ok(Receipt { job: None }),
            None => {
                let said = redactor.clean(&messages(value));
                Err(Fault::Unknown(format!("{}: accepted without naming a job: \"{said}\"", self.doing_push(verb))))
            }
        }
    }

    fn doing_push(&self, verb: Verb) -> String {
        self.doing(&push_title(&self.config.place, verb))
    }

    fn refusal_of(&self, verb: Verb, complaint: Complaint) -> Fault {
        let chosen = if self.config.operation == Operation::Auto { "" } else { " (the policy chose this operation)" };
        self.refusal(self.doing_push(verb), chosen, complaint)
    }

    /// The fault of a push that was surely not carried out.
    fn refusal(&self, doing: String, chosen: &str, complaint: Complaint) -> Fault {
        let Complaint { meaning, said, retry_after, .. } = complaint;
        let refused = |reason, why| Fault::Refused { reason, why };
        match meaning {
            Meaning::Busy => Fault::Retry { after: retry_after, why: format!("{doing}: {said}") },
            Meaning::PageAbsent => Fault::Retry {
                after: retry_after,
                why: format!("{doing}: {said}: restarting, or this version has no such operation"),
            },
            Meaning::Absent => {
                refused(Reason::Refused, format!("{doing}: {said}: this version has no such operation{chosen}"))
            }
            Meaning::Denied => refused(Reason::MissingRight, format!("{doing}: {said} ({RIGHT_NEEDED})")),
            Meaning::Moved { .. } => refused(
                Reason::Refused,
                format!("{doing}: {said}; a key is not sent after a redirect: put the right address in admin_url"),
            ),
            Meaning::Token => refused(Reason::LoginRefused, format!("{doing}: {said}")),
            Meaning::Refused => refused(Reason::Refused, format!("{doing}: {said}")),
            Meaning::Broken => Fault::Unknown(format!("{doing}: {said}")),
        }
    }
}

/// Shows the last four characters of a secret.
const MASKED: [(&str, &str); 1] = [("maskedSecret", "true")];

fn push_title(place: &Place, verb: Verb) -> String {
    format!("pushing to cloud/{}/{} (credential/{})", place.resource(), place.id(), verb.as_str())
}
