//! What an examination found, as `doctor --json`, `plan --json`, `advise --json` and the control socket say it. A file format: names
//! are never changed, only added. Nothing here is secret: of a stored secret it is told whether its end is shown, never the end.

use serde::{Deserialize, Serialize};

/// The whole answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examination {
    /// The format's version.
    pub version: u32,
    /// About rekeyd itself: its journal.
    pub findings: Vec<Finding>,
    /// The deployments of targets, by name.
    pub deployments: Vec<Deployment>,
    /// The services, in the policy's order; none where only holders were asked for.
    pub services: Vec<Service>,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// As it should be, or good to know.
    Ok,
    /// Nothing fails because of it now; somebody should look.
    Warning,
    /// A rotation would not come to its end.
    Trouble,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// What was looked at: `login`, `clock`, a target, a holder.
    pub about: String,
    /// What was found.
    pub said: String,
    /// What to do, or type, next; null where nothing is to be done.
    pub next: Option<String>,
}

impl Finding {
    /// As it should be.
    pub fn ok(about: impl Into<String>, said: impl Into<String>) -> Self {
        Finding { level: Level::Ok, about: about.into(), said: said.into(), next: None }
    }

    /// Somebody should look.
    pub fn warning(about: impl Into<String>, said: impl Into<String>, next: Option<String>) -> Self {
        Finding { level: Level::Warning, about: about.into(), said: said.into(), next }
    }

    /// A rotation would not come to its end.
    pub fn trouble(about: impl Into<String>, said: impl Into<String>, next: Option<String>) -> Self {
        Finding { level: Level::Trouble, about: about.into(), said: said.into(), next }
    }
}

/// One deployment of targets. Absent values are null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// `arcgis.prod`.
    pub name: String,
    /// Its product.
    pub product: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Who is logged in there.
    pub user: Option<String>,
    /// What was found.
    pub findings: Vec<Finding>,
    /// Every place that holds a credential; null where they could not be listed.
    pub holders: Option<Vec<Holder>>,
    /// Kinds of holders that nobody can ask it about.
    pub beyond: Vec<String>,
    /// How a key gets there all the same.
    pub road: Option<String>,
}

/// A place that holds a credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// As it is called as a target, and in `accept_holders`.
    pub name: String,
    /// `cloud service AWS S3 BACKUP`.
    pub what: String,
    /// Its credential's type; null where it shows none.
    pub credential: Option<String>,
    /// Whether the end of its secret is shown, so that it can be compared.
    pub shows_end: bool,
    /// The holder whose credential it uses.
    pub inherits: Option<String>,
    /// How the policy stands to it.
    pub cover: Cover,
    /// The services that it is a target of, or that the holder it inherits from is a target of.
    pub services: Vec<String>,
}

/// How the policy stands to a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cover {
    /// A target of a service.
    Covered,
    /// It uses another holder's credential.
    Inherits,
    /// Left to somebody else by `accept_holders`.
    Accepted,
    /// It holds no key.
    NoKey,
    /// The policy says nothing of it.
    NotCovered,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its issuer object.
    pub issuer: String,
    /// Its targets.
    pub targets: Vec<String>,
    /// The provider's own word for the account.
    pub account: Option<String>,
    /// Its keys at the issuer; null where they could not be listed.
    pub keys: Option<Vec<Key>>,
    /// How many fit.
    pub quota: Option<usize>,
    /// How far the provider's clock is ahead of ours.
    pub clock_ahead_seconds: Option<i64>,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// A key at an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Its id.
    pub id: String,
    /// Whether it can be used.
    pub active: bool,
    /// What the journal makes of it.
    pub standing: KeyStanding,
}

/// What the journal makes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyStanding {
    /// The key in use.
    Current,
    /// Of the open rotation, or on its way out.
    InRotation,
    /// Somebody else's, by an operator's word.
    Disowned,
    /// Nobody can explain it.
    Stranger,
    /// No current key is known yet, so that nothing can be said of it.
    Unknown,
}

/// Whether a service could leave its key behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advice {
    /// Which.
    pub service: String,
    /// The verdict.
    pub verdict: Verdict,
    /// What it could use instead of a key.
    pub to: Option<String>,
    /// What to type, once all is prepared.
    pub command: Option<String>,
    /// Target by target.
    pub targets: Vec<TargetAdvice>,
}

/// Whether something could do without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It uses none now.
    Already,
    /// It could.
    Possible,
    /// It could not.
    Impossible,
    /// Nobody could be asked.
    Unknown,
}

/// One target's part of an [`Advice`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetAdvice {
    /// Which.
    pub target: String,
    /// The verdict.
    pub verdict: Verdict,
    /// What it has now, by its own name.
    pub now: Option<String>,
    /// Why it could not, or could not be asked.
    pub why: Option<String>,
    /// What somebody has to see to first.
    pub prepare: Vec<String>,
    /// What cannot be seen from here.
    pub unseen: Vec<String>,
}

impl Examination {
    /// Whether somebody has to do something: what exit code 1 of `doctor` says.
    pub fn has_trouble(&self) -> bool {
        self.count(Level::Trouble) > 0
    }

    /// How many findings matter so much.
    pub fn count(&self, level: Level) -> usize {
        self.all().filter(|finding| finding.level == level).count()
    }

    fn all(&self) -> impl Iterator<Item = &Finding> {
        let deployments = self.deployments.iter().flat_map(|deployment| &deployment.findings);
        let services = self.services.iter().flat_map(|service| &service.findings);
        self.findings.iter().chain(deployments).chain(services)
    }
}
