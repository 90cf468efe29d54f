//! Who is given what for an examination of the world: the daemon beside its engine, or a command by itself where no daemon runs.
//!
//! Beside the engine it uses the same ports, so the same sessions, and the same memory of refused logins; alone it reads the journal
//! without its lock, opens what the seal key of this user opens, and says what it had to leave out.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::engine::examine::told::{Advice, Examination, Finding};
use crate::engine::examine::{Examiner, Records};
use crate::engine::{Handle, look};
use crate::journal::sqlite::{self, Mode, ReadOnlyJournal, SqliteJournal};
use crate::metrics::Metrics;
use crate::model::{IssuerSpec, KeyId, Material, Reason, ServiceName, SystemRef, TargetSpec};
use crate::policy::Policy;
use crate::ports::{Clock, Connect, Fault, History, Issuer, Journal, JournalError, Meter, Target};
use crate::seal::SealKey;

use super::attempts::Attempts;
use super::clock::SystemClock;
use super::connect::Connector;
use super::refusals::Refusals;
use super::startup;

/// How long one question to one system may take when somebody waits for a whole examination.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The same where the answer is a supplement to something else.
pub const BRIEF: Duration = Duration::from_secs(10);

/// What an examination is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Everything.
    All,
    /// Deployments and what they hold.
    Holders,
    /// Whether services could do without a key.
    Advice,
}

/// What came of it.
pub enum Checked {
    /// To the first two.
    Examination(Examination),
    /// To the third.
    Advice(Vec<Advice>),
}

/// Examinations beside a running engine, one at a time.
#[derive(Clone)]
pub struct Checkup {
    connector: Arc<Connector>,
    journal: Arc<SqliteJournal>,
    handle: Handle,
    meter: Arc<dyn Meter>,
    turn: Arc<Semaphore>,
}

impl Checkup {
    /// With the engine's own ports.
    pub fn new(connector: Arc<Connector>, journal: Arc<SqliteJournal>, handle: Handle, meter: Arc<dyn Meter>) -> Self {
        Checkup { connector, journal, handle, meter, turn: Arc::new(Semaphore::new(1)) }
    }

    /// Looks at the world as the policy in force names it.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub async fn check(&self, question: Question) -> Result<Checked, JournalError> {
        let _turn = self.turn.acquire().await.expect("the semaphore is never closed");
        let policy = self.connector.policy();
        let clock = Arc::new(SystemClock::new());
        let path = self.journal.path().to_owned();
        // Reading a long journal takes time, which is neither the runtime's nor the engine's.
        let histories = tokio::task::spawn_blocking(move || sqlite::open_read_only(&path)?.load()).await;
        let histories = histories
            .map_err(|error| JournalError::Unreachable(format!("reading the journal broke off: {error}")))??;
        let mut records = records_of(histories, &policy, clock.as_ref());
        records.report = self.handle.reports().borrow().as_ref().clone();
        for service in &policy.services {
            let current = current_of(&records, &service.name);
            for key in self.journal.materials(&service.name).await.unwrap_or_default() {
                let opened = self.journal.material(&service.name, &key).await;
                note(&mut records, &service.name, current.as_ref(), opened);
            }
        }
        let reports = self.handle.reports();
        let is_at_rest = move |service: &ServiceName, key: &KeyId| {
            let report = reports.borrow();
            let service = report.services.iter().find(|report| report.name == *service);
            service.is_some_and(|service| service.rotation.is_none() && service.current_key.as_ref() == Some(key))
        };
        let examiner = Examiner {
            policy,
            connect: self.connector.clone(),
            clock,
            meter: self.meter.clone(),
            records,
            is_at_rest: Box::new(is_at_rest),
            patience: patience_for(question),
        };
        Ok(answer(&examiner, question).await)
    }
}

/// Looks at the world from this process, where no daemon runs. Whoever ends the process waits for `attempts` first: a login that
/// takes longer than the answer to `question` may still be refused.
pub async fn check_alone(policy: Policy, question: Question, attempts: Attempts) -> Checked {
    let policy = Arc::new(policy);
    let clock = Arc::new(SystemClock::new());
    let refusals = Refusals::new(policy.clone(), attempts);
    let forgetful = refusals.why_forgetful();
    let connector = Connector::new(policy.clone(), Arc::new(refusals));
    let connect: Arc<dyn Connect> = match forgetful {
        None => Arc::new(connector),
        Some(why) => Arc::new(NoLogins { connector, why }),
    };
    let records = read_alone(&policy, clock.as_ref());
    let path = startup::journal_path(&policy);
    let sequences: BTreeMap<ServiceName, u64> =
        records.states.iter().map(|(service, state)| (service.clone(), state.sequence)).collect();
    let examiner = Examiner {
        policy,
        connect,
        clock,
        meter: Arc::new(Metrics::new()),
        records,
        // A daemon may have been started since, or somebody else's command rotates.
        is_at_rest: Box::new(move |service, _| {
            let heads = sqlite::open_read_only(&path).and_then(|journal| journal.heads()).unwrap_or_default();
            heads.iter().any(|(name, sequence, _)| name == service && sequences.get(service) == Some(sequence))
        }),
        patience: patience_for(question),
    };
    answer(&examiner, question).await
}

fn patience_for(question: Question) -> Duration {
    if question == Question::Holders { BRIEF } else { PATIENCE }
}

async fn answer(examiner: &Examiner, question: Question) -> Checked {
    match question {
        Question::All => Checked::Examination(examiner.examine().await),
        Question::Holders => Checked::Examination(examiner.holders().await),
        Question::Advice => Checked::Advice(examiner.advise().await),
    }
}

fn records_of(histories: Vec<History>, policy: &Policy, clock: &SystemClock) -> Records {
    let picture = look(histories, policy, &clock.now());
    Records { states: picture.states, report: picture.report, ..Records::default() }
}

fn current_of(records: &Records, service: &ServiceName) -> Option<KeyId> {
    Some(records.states.get(service)?.current.as_ref()?.key.clone())
}

/// Keeps what was opened: the secrets so that none is shown, the current key's material so that it can be probed.
fn note(
    records: &mut Records,
    service: &ServiceName,
    current: Option<&KeyId>,
    opened: Result<Option<Material>, JournalError>,
) {
    match opened {
        Ok(Some(material)) => {
            records.secrets.extend(material.secrets());
            if Some(material.key()) == current {
                records.held.insert(service.clone(), Ok(material));
            }
        }
        Ok(None) => {}
        Err(error) => {
            let why = format!("its secret could not be opened: {error}");
            records.held.entry(service.clone()).or_insert(Err(why));
        }
    }
}

/// The journal as far as this user can read it.
fn read_alone(policy: &Policy, clock: &SystemClock) -> Records {
    let path = startup::journal_path(policy);
    let opened = match path.try_exists() {
        Ok(false) => {
            let said = format!(
                "there is no journal {} yet, so no key is known to be ours; rekeyd run makes it",
                path.display()
            );
            return Records { findings: vec![Finding::ok("journal", said)], ..records_of(Vec::new(), policy, clock) };
        }
        Ok(true) => open(&path),
        Err(error) => Err(format!("journal {} cannot be looked at: {error}", path.display())),
    };
    let (journal, histories) = match opened {
        Ok(opened) => opened,
        Err(why) => {
            let next = "run it as a user who may read the journal, or while the daemon runs".to_owned();
            let finding = Finding::warning("journal", why, Some(next));
            return Records { findings: vec![finding], ..records_of(Vec::new(), policy, clock) };
        }
    };
    let mut records = records_of(histories, policy, clock);
    match startup::seal_key(policy, Mode::Existing) {
        Ok(seal) => open_secrets(&mut records, policy, &journal, &seal),
        Err(why) => {
            let said = "the seal key cannot be read by this user, or not without the daemon";
            for service in &policy.services {
                records.held.insert(service.name.clone(), Err(format!("{said} ({})", why.to_string().trim())));
            }
        }
    }
    records
}

fn open(path: &Path) -> Result<(ReadOnlyJournal, Vec<History>), String> {
    let opened = || {
        let journal = sqlite::open_read_only(path)?;
        let histories = journal.load()?;
        Ok((journal, histories))
    };
    opened().map_err(|error: JournalError| error.to_string())
}

fn open_secrets(records: &mut Records, policy: &Policy, journal: &ReadOnlyJournal, seal: &SealKey) {
    for service in &policy.services {
        let current = current_of(records, &service.name);
        for key in journal.materials(&service.name).unwrap_or_default() {
            note(records, &service.name, current.as_ref(), journal.material(seal, &service.name, &key));
        }
    }
}

/// Issuers as they are, and no target: none is logged in to while a refusal would be forgotten.
struct NoLogins {
    connector: Connector,
    why: String,
}

impl Connect for NoLogins {
    fn issuer(&self, spec: &IssuerSpec) -> Result<Arc<dyn Issuer>, Fault> {
        self.connector.issuer(spec)
    }

    fn target(&self, _: &TargetSpec) -> Result<Arc<dyn Target>, Fault> {
        Err(Fault::Refused { reason: Reason::SecretNotHeld, why: format!("not asked: {}", self.why) })
    }

    fn forgive(&self, _: &SystemRef) {}
}
