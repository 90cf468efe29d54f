//! Looks at the whole world once and changes nothing: what `doctor`, `plan` and `advise` tell.
//!
//! It asks through the ports, only what they call repeatable and harmless, each system by itself and for a bounded time, and beside a
//! running engine without its knowing. What is asked too slowly is left to end by itself and never cut off: a login that nobody waits
//! for must still be remembered where it was refused. A deployment that cannot be reached is asked once, and nothing more of it.
//!
//! It writes nothing, names no secret to a port (the engine does, and would be talked over), and decides nothing about keys.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant as Started};

use futures_util::{StreamExt, stream};

use crate::model::{KeyId, Material, Reason, Secret, ServiceName, SystemRef, TargetName, TargetSpec};
use crate::net::redact::Redactor;
use crate::policy::{Policy, Service};
use crate::ports::{Clock, Connect, Fault, FoundHolder, Meter, Reading, Site, Standing, WithoutKey};
use crate::rotation::{ServiceState, TakeUp};

use super::Report;
use super::advice::login_at;

mod holders;
mod service;
pub mod told;

use told::{Advice, Deployment, Examination, Finding, TargetAdvice, Verdict};

/// So many services or deployments are looked at side by side.
const AT_ONCE: usize = 4;

/// What is known of the past.
#[derive(Default)]
pub struct Records {
    /// Each service's fold.
    pub states: BTreeMap<ServiceName, ServiceState>,
    /// How everything stands.
    pub report: Report,
    /// The current keys whose secrets are held, or why they cannot be opened.
    pub held: BTreeMap<ServiceName, Result<Material, String>>,
    /// Every secret held: none may be shown, whoever repeats it.
    pub secrets: Vec<Secret>,
    /// What is to be said of the journal itself.
    pub findings: Vec<Finding>,
}

/// Whether this is still the current key of a service at rest, where nothing has happened since its past was read: nobody uses a key that may be on its way out by now.
pub type AtRest = Box<dyn Fn(&ServiceName, &KeyId) -> bool + Send + Sync>;

/// Everything an examination is given.
pub struct Examiner {
    /// The policy in force.
    pub policy: Arc<Policy>,
    /// Makes ports out of specs.
    pub connect: Arc<dyn Connect>,
    /// Both clocks.
    pub clock: Arc<dyn Clock>,
    /// Counts requests.
    pub meter: Arc<dyn Meter>,
    /// What the journal says.
    pub records: Records,
    /// Asked just before a key is used.
    pub is_at_rest: AtRest,
    /// How long one system may take.
    pub patience: Duration,
}

/// What became of one deployment.
struct Asked {
    told: Deployment,
    /// The type of each holder's credential that is no key.
    keyless: Vec<(TargetName, String)>,
    /// Whether more can be asked of it.
    is_reached: bool,
}

impl Examiner {
    /// Everything.
    pub async fn examine(&self) -> Examination {
        let asked = self.deployments().await;
        let mut services = Vec::new();
        for service in &self.policy.services {
            services.push(self.service(service, &asked));
        }
        let services = side_by_side(services).await;
        self.whole(asked.into_values().map(|asked| asked.told).collect(), services)
    }

    /// The deployments and what they hold.
    pub async fn holders(&self) -> Examination {
        let deployments = self.deployments().await;
        self.whole(deployments.into_values().map(|asked| asked.told).collect(), Vec::new())
    }

    /// Whether services could leave their keys behind.
    pub async fn advise(&self) -> Vec<Advice> {
        let mut services = Vec::new();
        for service in &self.policy.services {
            services.push(self.advice(service));
        }
        clean(&Redactor::new(&self.records.secrets), side_by_side(services).await)
    }

    fn whole(&self, deployments: Vec<Deployment>, services: Vec<told::Service>) -> Examination {
        let findings = self.records.findings.clone();
        clean(&Redactor::new(&self.records.secrets), Examination { version: 1, findings, deployments, services })
    }

    async fn deployments(&self) -> BTreeMap<SystemRef, Asked> {
        let specs = self.policy.services.iter().flat_map(|service| &service.targets);
        let mut by_system: BTreeMap<&SystemRef, &TargetSpec> = BTreeMap::new();
        for spec in specs {
            if let Some(system) = &spec.system {
                by_system.entry(system).or_insert(spec);
            }
        }
        let mut asked = Vec::new();
        for (at, spec) in &by_system {
            asked.push(self.deployment(at, spec));
        }
        let asked = side_by_side(asked).await;
        by_system.into_keys().cloned().zip(asked).collect()
    }

    async fn deployment(&self, at: &SystemRef, spec: &TargetSpec) -> Asked {
        let mut told = Deployment {
            name: at.to_string(),
            product: None,
            version: None,
            user: None,
            findings: Vec::new(),
            holders: None,
            beyond: Vec::new(),
            road: None,
        };
        let asked = self.ask_deployment(spec, &mut told).await;
        let is_reached = asked.is_ok();
        let found = asked.unwrap_or_else(|fault| {
            told.findings.push(of_fault("reach", &fault, Some(at), &self.policy));
            None
        });
        if let Some(found) = &found {
            told.holders = Some(holders::covered(found, &self.policy));
            told.findings.extend(holders::told(at, found, &self.policy, &self.records.states));
        }
        let found = found.unwrap_or_default();
        let keyless = found.into_iter().filter(is_keyless).map(|holder| (holder.name, holder.credential)).collect();
        Asked { told, keyless, is_reached }
    }

    /// What it tells of itself goes into `told`; the holders come back.
    async fn ask_deployment(
        &self,
        spec: &TargetSpec,
        told: &mut Deployment,
    ) -> Result<Option<Vec<FoundHolder>>, Fault> {
        let port = self.connect.target(spec)?;
        let asked = port.clone();
        let site = self.bounded(&told.name, "site", async move { asked.site().await }).await?;
        if let Some(site) = site {
            note_site(told, site);
        }
        let found = match self.bounded(&told.name, "holders", async move { port.holders().await }).await {
            Ok(found) => found,
            // It answered before; what it does not do just now it may do later.
            Err(fault @ (Fault::Retry { .. } | Fault::Unknown(_))) if told.product.is_some() => {
                told.findings.push(Finding::warning(
                    "holders",
                    format!("they could not be listed: {}", fault.why()),
                    Some("none: rekeyd looks again by itself before it disables a key".to_owned()),
                ));
                return Ok(None);
            }
            Err(fault) => return Err(fault),
        };
        let (unread, found): (Vec<_>, Vec<_>) = found.into_iter().partition(|holder| holder.unread.is_some());
        for list in unread {
            let said = format!("{} cannot be looked at: {}", list.what, list.unread.unwrap_or_default());
            let next =
                format!("give the user of [{}] the right, or say accept_holders = [\"{}\"]", told.name, list.name);
            told.findings.push(Finding::warning("holders", said, Some(next)));
        }
        Ok(Some(found))
    }

    async fn advice(&self, service: &Service) -> Advice {
        let mut targets = Vec::new();
        let mut offers = BTreeSet::new();
        for spec in &service.targets {
            let asked = match self.connect.target(spec) {
                Ok(port) => {
                    self.bounded(spec.name.as_str(), "without_key", async move { port.without_key().await }).await
                }
                Err(fault) => Err(fault),
            };
            if let Ok(WithoutKey::Possible { to, arguments, .. }) = &asked {
                offers.insert((to.clone(), arguments.clone()));
            }
            targets.push(target_advice(spec, asked));
        }
        let verdicts: BTreeSet<Verdict> = targets.iter().map(|target| target.verdict).collect();
        let verdict = match verdicts.into_iter().collect::<Vec<_>>()[..] {
            [one] if one != Verdict::Possible || offers.len() == 1 => one,
            // What has no key needs no switch, so it holds nobody back.
            [Verdict::Already, Verdict::Possible] if offers.len() == 1 => Verdict::Possible,
            ref all if all.contains(&Verdict::Unknown) => Verdict::Unknown,
            _ => Verdict::Impossible,
        };
        let offer = offers.into_iter().next().filter(|_| verdict == Verdict::Possible);
        Advice {
            service: service.name.to_string(),
            verdict,
            command: offer.as_ref().map(|(_, arguments)| format!("rekeyd switch {} {arguments}", service.name)),
            to: offer.map(|(to, _)| to),
            targets,
        }
    }

    /// One question, counted like any other, and given up when its time is over; it goes on to its own end then.
    async fn bounded<T: Send + 'static>(
        &self,
        system: &str,
        operation: &'static str,
        question: impl Future<Output = Result<T, Fault>> + Send + 'static,
    ) -> Result<T, Fault> {
        let started = Started::now();
        let answer = match tokio::time::timeout(self.patience, tokio::spawn(question)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => {
                Err(Fault::Unknown(format!("asking {system}: the question broke off, which is a mistake of rekeyd's")))
            }
            Err(_) => Err(Fault::Unknown(format!("asking {system}: no answer within {} s", self.patience.as_secs()))),
        };
        let outcome = answer.as_ref().map_or_else(Fault::outcome, |_| "ok");
        self.meter.request(system, operation, outcome, started.elapsed());
        answer
    }
}

/// In the order in which they were given, a few at a time.
async fn side_by_side<T>(questions: Vec<impl Future<Output = T>>) -> Vec<T> {
    stream::iter(questions).buffered(AT_ONCE).collect().await
}

fn note_site(told: &mut Deployment, site: Site) {
    let next = format!(
        "give the user of [{}] the default administrator role, if a rotation halts with missing-right",
        told.name
    );
    told.findings.push(of_standing(site.standing, next));
    told.product = Some(site.product);
    told.version = site.version;
    told.user = Some(site.user);
    told.road = (!site.beyond.is_empty()).then(|| ROAD.to_owned());
    told.beyond = site.beyond;
}

/// How a key gets to what no request reaches.
const ROAD: &str =
    "give the key to a script of yours that moves it there: a [[service.target]] with kind = \"command\"";

/// A credential is there, and no key in it.
fn is_keyless(holder: &FoundHolder) -> bool {
    holder.reading == Reading::Nothing && holder.inherits.is_none() && !holder.credential.is_empty()
}

fn target_advice(spec: &TargetSpec, asked: Result<WithoutKey, Fault>) -> TargetAdvice {
    let none = TargetAdvice {
        target: spec.name.to_string(),
        verdict: Verdict::Unknown,
        now: None,
        why: None,
        prepare: Vec::new(),
        unseen: Vec::new(),
    };
    match asked {
        Ok(WithoutKey::Already(now)) => TargetAdvice { verdict: Verdict::Already, now: Some(now), ..none },
        Ok(WithoutKey::Possible { now, prepare, unseen, .. }) => {
            TargetAdvice { verdict: Verdict::Possible, now: Some(now), prepare, unseen, ..none }
        }
        Ok(WithoutKey::Impossible(why)) => TargetAdvice { verdict: Verdict::Impossible, why: Some(why), ..none },
        Err(fault) => TargetAdvice { why: Some(fault.why().to_owned()), ..none },
    }
}

/// What is told of rights; `next` is for those that are in doubt.
fn of_standing(standing: Standing, next: String) -> Finding {
    match standing {
        Standing::Doubtful(said) => Finding::warning("rights", said, Some(next)),
        Standing::Enough(said) | Standing::Untold(said) => Finding::ok("rights", said),
    }
}

/// What a fault comes to for whoever reads it. What passes by itself is no trouble of an operator's, unless nothing can be reached.
/// `system` is the table that says where it is; a program and a file have none.
fn of_fault(about: &str, fault: &Fault, system: Option<&SystemRef>, policy: &Policy) -> Finding {
    let Some(system) = system else { return Finding::trouble(about, fault.why(), Some(of_ours(fault))) };
    let next = match fault {
        Fault::NotSent(_) | Fault::Unknown(_) => {
            format!(
                "see that it is up, and that the addresses of [{system}] are right; rekeyd goes on by itself once it answers"
            )
        }
        Fault::Retry { .. } => "none, if it is known to be down or under change: rekeyd goes on by itself".to_owned(),
        Fault::Refused { reason, .. } => match reason {
            Reason::LoginRefused => format!(
                "correct the login of [{system}] where the policy says it is kept, then {}; rekeyd retry SERVICE tries a refused one \
                 again",
                login_at(system, policy).command()
            ),
            Reason::MissingRight => "grant it, then rekeyd doctor".to_owned(),
            Reason::NotFound | Reason::Inherits => "correct the policy, then systemctl reload rekeyd".to_owned(),
            Reason::TlsUntrusted => {
                format!("name the authority of its certificate: ca_file in [{system}], then systemctl reload rekeyd")
            }
            Reason::SecretNotHeld if login_at(system, policy) == TakeUp::Restart => format!(
                "put it in its place, then {}; what the daemon is given by systemd, it alone can read, so ask while it runs",
                TakeUp::Restart.command()
            ),
            Reason::SecretNotHeld => "let this user read it, or ask again while the daemon runs".to_owned(),
            _ => "mend what the message names, then rekeyd doctor".to_owned(),
        },
    };
    Finding::trouble(about, fault.why(), Some(next))
}

/// The next step where what failed is on this machine.
fn of_ours(fault: &Fault) -> String {
    match fault {
        Fault::NotSent(_) | Fault::Unknown(_) | Fault::Retry { .. } => {
            "mend what the message names; rekeyd goes on by itself then".to_owned()
        }
        Fault::Refused { .. } => {
            "mend what the message names, or correct the policy and systemctl reload rekeyd; then rekeyd doctor"
                .to_owned()
        }
    }
}

/// Without a secret, in whatever text somebody may have repeated one.
fn clean<T: serde::Serialize + serde::de::DeserializeOwned>(redactor: &Redactor, told: T) -> T {
    let mut value = serde_json::to_value(&told).expect("what is told is plain data");
    hide(redactor, &mut value);
    serde_json::from_value(value).unwrap_or(told)
}

fn hide(redactor: &Redactor, value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => *text = redactor.hide(text).to_string(),
        serde_json::Value::Array(list) => list.iter_mut().for_each(|value| hide(redactor, value)),
        serde_json::Value::Object(map) => map.values_mut().for_each(|value| hide(redactor, value)),
        _ => {}
    }
}
