//! What keeps a change from being taken although its place is there: read-only mode, an upgrade, somebody else's credential job.
//!
//! Looked at before a mint, so that no key is made that cannot be handed over, and again before each push. A site that does not
//! have one of these resources, or shows it to others only, may still be changed; the push will tell.

use serde_json::Value;

use super::config::Product;
use super::envelope::{Complaint, Meaning, Verdict};
use super::jobs;
use super::session::Ask;
use super::{ArcGis, cloud};
use crate::model::{JobId, JobState, Reason};
use crate::net::redact::Redactor;
use crate::ports::Fault;

/// How many jobs that were never seen before one look asks for. No document says how long a site remembers jobs, nor in which
/// order it lists them; the last ones listed are taken for the youngest.
const JOBS_LOOKED_AT_MAX: usize = 20;

/// How a site stands to an upgrade, by `admin/upgrade` as Esri's own cookbook reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// None that anybody tells of.
    None,
    /// One runs: it passes.
    Running,
    /// The software is newer than the site: an operator finishes that first. With the site's own word for it.
    Unfinished(String),
}

/// Reads `upgradeStatus`, whose spelling differs by version (`IN_PROGRESS`, `In Progress`).
pub fn upgrade_of(value: &Value) -> Upgrade {
    let said = value.get("upgradeStatus").and_then(Value::as_str).unwrap_or_default();
    let word: String = said.to_ascii_lowercase().chars().filter(char::is_ascii_alphabetic).collect();
    match word.as_str() {
        "inprogress" => Upgrade::Running,
        "upgraderequired" | "lastattemptfailed" => Upgrade::Unfinished(said.to_owned()),
        _ => Upgrade::None,
    }
}

/// Whether a job hands a credential over: by the operation it names.
pub fn is_credential_job(job: &Value) -> bool {
    job.get("operationURI").and_then(Value::as_str).is_some_and(|uri| uri.contains("/credential/"))
}

impl ArcGis {
    /// Whether the site takes a change now.
    pub(super) async fn takes_changes(&self) -> Result<(), Fault> {
        self.is_writable().await?;
        self.is_not_upgrading().await
    }

    /// A site lock shows itself in any answer; read-only mode only here.
    async fn is_writable(&self) -> Result<(), Fault> {
        let what = "reading the mode";
        let Some((mode, redactor)) = self.look(Ask::get(what, "mode")).await? else { return Ok(()) };
        let Some(message) = cloud::read_only(&mode) else { return Ok(()) };
        let message = redactor.clean(&message);
        let message = if message.is_empty() { message } else { format!(": \"{message}\"") };
        Err(Fault::Retry { after: None, why: format!("{}: the site is in read-only mode{message}", self.doing(what)) })
    }

    async fn is_not_upgrading(&self) -> Result<(), Fault> {
        let what = "reading the state of an upgrade";
        // Only Server has this resource; Kubernetes is in read-only mode meanwhile.
        if self.deployment.config.product != Product::Server {
            return Ok(());
        }
        let Some((value, redactor)) = self.look(Ask::get(what, "upgrade")).await? else { return Ok(()) };
        match upgrade_of(&value) {
            Upgrade::None => Ok(()),
            Upgrade::Running => {
                Err(Fault::Retry { after: None, why: format!("{}: the site is being upgraded", self.doing(what)) })
            }
            Upgrade::Unfinished(said) => Err(Fault::Refused {
                reason: Reason::Refused,
                why: format!("{}: the site says {}; finish its upgrade first", self.doing(what), redactor.clean(&said)),
            }),
        }
    }

    /// A resource that a site need not have.
    pub(super) async fn look(&self, ask: Ask<'_>) -> Result<Option<(Value, Redactor)>, Fault> {
        let what = ask.what;
        match self.deployment.ask(Ask { may_be_absent: true, ..ask }).await? {
            (Verdict::Good(value), redactor) => Ok(Some((value, redactor))),
            (Verdict::Text(_), _) => Err(self.deployment.page(&self.doing(what))),
            (
                Verdict::Complaint(Complaint {
                    meaning: Meaning::Absent | Meaning::PageAbsent | Meaning::Denied | Meaning::Refused,
                    ..
                }),
                _,
            ) => Ok(None),
            (Verdict::Complaint(complaint), _) => Err(complaint.after_read(&self.doing(what))),
        }
    }

    /// Whether a credential job that we know nothing of runs at a site on which the policy wants one at a time.
    pub(super) async fn no_other_job_runs(&self, listed: &[JobId]) -> Result<(), Fault> {
        if self.deployment.config.max_jobs > 1 {
            return Ok(());
        }
        let unknown: Vec<&JobId> = listed.iter().rev().filter(|job| !self.deployment.has_ended(job)).collect();
        for job in unknown.into_iter().take(JOBS_LOOKED_AT_MAX) {
            let what = format!("reading job {job}");
            let Some(shown) = self.job(job, &what).await else { continue };
            match jobs::state_of(&shown, |_| String::new()) {
                Some(JobState::Running(_)) if is_credential_job(&shown) => {
                    let why = format!(
                        "{}: another credential job is under way, and max_jobs is 1",
                        self.doing(&format!("looking at job {job}"))
                    );
                    return Err(Fault::Retry { after: None, why });
                }
                Some(JobState::Running(_)) | None => {}
                Some(_) => self.deployment.job_ended(job),
            }
        }
        Ok(())
    }

    /// A job as it is shown; none where it cannot be seen, which says nothing about another one.
    async fn job(&self, job: &JobId, what: &str) -> Option<Value> {
        for root in self.job_roots() {
            let path = format!("{root}/{job}");
            if let Ok((Verdict::Good(value), _)) = self.deployment.ask(Ask::get(what, &path)).await {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_upgrade_is_told_in_several_spellings() {
        let upgrade = |said: &str| upgrade_of(&json!({ "upgradeStatus": said }));
        assert_eq!(upgrade("IN_PROGRESS"), Upgrade::Running);
        assert_eq!(upgrade("In Progress"), Upgrade::Running);
        assert_eq!(upgrade("UPGRADE_REQUIRED"), Upgrade::Unfinished("UPGRADE_REQUIRED".to_owned()));
        assert_eq!(upgrade("LAST_ATTEMPT_FAILED"), Upgrade::Unfinished("LAST_ATTEMPT_FAILED".to_owned()));
        for fine in ["Success", "Success with warnings", "", "something new"] {
            assert_eq!(upgrade(fine), Upgrade::None, "{fine}");
        }
        assert_eq!(upgrade_of(&json!({"upgradeStatus": 7})), Upgrade::None);
        assert_eq!(upgrade_of(&json!([])), Upgrade::None);
    }

    #[test]
    fn a_credential_job_is_known_by_its_operation() {
        let job = |uri: &str| is_credential_job(&json!({ "operationURI": uri }));
        assert!(job("/arcgis/admin/cloud/services/eg7hrelq6b/credential/update"));
        assert!(job("/arcgis/admin/clouds/providers/s7my5d949q/credential/add"));
        assert!(!job("/context/admin/services/FireWatchWeather.MapServer/edit"));
        assert!(!is_credential_job(&json!({"jobid": "j1"})));
    }
}
