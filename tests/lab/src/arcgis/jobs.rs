//! Credential jobs: SUBMITTED, EXECUTING, half-way the credential is stored, then the end the script says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::credential::Credential;
use super::site::{Site, lock};
use crate::chance;

/// How a job goes. Without a script it completes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobScript {
    /// Stored, COMPLETED.
    Complete,
    /// Not stored, FAILED with this message.
    Fail(String),
    /// Stored, and yet FAILED with this message.
    FailAfterStore(String),
    /// Not stored, COMPLETED with an error inside.
    CompleteWithInnerError(String),
    /// Not stored, COMPLETED with a failed stage inside (Kubernetes; on Server like the one above).
    CompleteWithFailedStage(String),
    /// Stored, then CANCELLING, the old credential back, CANCELLED.
    CancelAndRollBack,
    /// Not stored, `TIMED OUT`.
    TimedOut,
    /// Stored, and yet `TIMED OUT`.
    TimedOutAfterStore,
    /// The first polls say UNAVAILABLE; else it completes.
    UnavailableBlips(usize),
    /// Stored; at its end the job is not found any more.
    Vanish,
    /// COMPLETED, and nothing was stored.
    Liar,
    /// Completes, in this time.
    Slow(Duration),
    /// COMPLETED, and every `+` of the secret was stored as a space.
    StoreMangled,
}

/// A job as it truly is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct JobView {
    /// `j` and a UUID.
    pub id: String,
    /// The service or provider.
    pub target: String,
    /// `credential/add` or `credential/update`.
    pub operation: String,
    /// The access key id it was given.
    pub access_key_id: String,
    /// Its status now, without blips.
    pub status: String,
    /// Whether it stored its credential (and did not take it back).
    pub stored: bool,
    /// When it was accepted.
    pub started: DateTime<Utc>,
    /// How often it was asked for.
    pub polls: usize,
}

#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) target: String,
    operation: &'static str,
    uri: String,
    username: String,
    access_key_id: String,
    script: JobScript,
    started: DateTime<Utc>,
    duration: TimeDelta,
    stored: bool,
    /// Its task has touched the site for the last time. On a busy machine that may come later than the time it was to end at, and a
    /// job that says COMPLETED before it has stored anything would be a lie of ours.
    pub(crate) done: bool,
    polls: usize,
}

impl Job {
    pub(crate) fn view(&self) -> JobView {
        JobView {
            id: self.id.clone(),
            target: self.target.clone(),
            operation: self.operation.to_owned(),
            access_key_id: self.access_key_id.clone(),
            status: self.status(Utc::now()).to_owned(),
            stored: self.stored,
            started: self.started,
            polls: self.polls,
        }
    }

    pub(crate) fn ended(&self, now: DateTime<Utc>) -> bool {
        self.done && now >= self.started + self.duration
    }

    /// Lost from the site's own records.
    fn vanished(&self, now: DateTime<Utc>) -> bool {
        self.script == JobScript::Vanish && self.ended(now)
    }

    fn status(&self, now: DateTime<Utc>) -> &'static str {
        let elapsed = now - self.started;
        if elapsed < self.duration / 4 {
            return "SUBMITTED";
        }
        if !self.ended(now) {
            let rolling_back = self.script == JobScript::CancelAndRollBack && elapsed >= self.duration / 4 * 3;
            return if rolling_back { "CANCELLING" } else { "EXECUTING" };
        }
        match self.script {
            JobScript::Fail(_) | JobScript::FailAfterStore(_) => "FAILED",
            JobScript::CancelAndRollBack => "CANCELLED",
            JobScript::TimedOut | JobScript::TimedOutAfterStore => "TIMED OUT",
            _ => "COMPLETED",
        }
    }

    /// What the operation itself reports at the end. No document shows it for credential jobs.
    fn result(&self, server: bool) -> Value {
        match &self.script {
            JobScript::Fail(message)
            | JobScript::FailAfterStore(message)
            | JobScript::CompleteWithInnerError(message) => {
                json!({"status": "error", "messages": [message]})
            }
            JobScript::CompleteWithFailedStage(message) if server => json!({"status": "error", "messages": [message]}),
            JobScript::CompleteWithFailedStage(message) => json!({"stages": [
                {"name": "Validation", "state": "completed", "duration": "31 millis (~ 0 minutes)"},
                {"name": message, "state": "failed", "duration": "12 millis (~ 0 minutes)"},
            ]}),
            JobScript::TimedOut | JobScript::TimedOutAfterStore | JobScript::CancelAndRollBack => json!({}),
            _ => json!({"status": "success"}),
        }
    }

    fn show(&self, now: DateTime<Utc>, server: bool, blip: bool) -> Value {
        let (ended, millis) = (self.ended(now), |t: DateTime<Utc>| t.timestamp_millis());
        let status = if blip { "UNAVAILABLE" } else { self.status(now) };
        let end = self.started + self.duration;
        if server {
            let step = if ended { 2 } else { 1 };
            let mut shown = json!({
                "jobid": self.id, "status": status, "totalsteps": 2, "currentstep": step,
                "stepInfo": ["Updating cloud credentials", "Restarting services"],
                "operationURI": self.uri, "starttime": millis(self.started), "endtime": if ended { millis(end) } else { 0 },
            });
            if ended && !blip {
                shown["operationResponse"] = self.result(server);
            }
            return shown;
        }
        let mut shown = json!({
            "updatedtime": millis(now.min(end)), "jobid": self.id, "endtime": if ended { millis(end) } else { 0 },
            "starttime": millis(self.started), "operationURI": self.uri, "status": status, "username": self.username,
        });
        if ended && !blip {
            shown["result"] = self.result(server);
        }
        shown
    }
}

/// Accepts a job and sets it going; its id. The caller holds the lock of `site`, which `shared` is.
pub(crate) fn start(
    site: &mut Site,
    shared: &Arc<Mutex<Site>>,
    (operation, uri, target): (&'static str, &str, &str),
    credential: Credential,
    now: DateTime<Utc>,
) -> String {
    let script = site.scripts.pop_front().unwrap_or(JobScript::Complete);
    let duration = match script {
        JobScript::Slow(duration) => duration,
        _ => site.options.job_duration,
    };
    let job = Job {
        id: chance::job_id(),
        target: target.to_owned(),
        operation,
        uri: uri.to_owned(),
        username: site.options.username.clone(),
        access_key_id: credential.pair().map(|(id, _)| id).unwrap_or_default(),
        script,
        started: now,
        duration: TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX),
        stored: false,
        done: false,
        polls: 0,
    };
    let id = job.id.clone();
    site.jobs.push(job);
    tokio::spawn(run(shared.clone(), id.clone(), credential, duration, site.restart_next.take()));
    id
}

/// A job of somebody else's, which stores nothing that anybody here would notice.
pub(crate) fn start_foreign(site: &mut Site, service: &str, lasts: Duration) -> String {
    let job = Job {
        id: chance::job_id(),
        target: service.to_owned(),
        operation: "credential/update",
        uri: format!("/{}/admin/cloud/services/{service}/credential/update", site.options.context),
        username: "somebody".to_owned(),
        access_key_id: String::new(),
        script: JobScript::Liar,
        started: Utc::now(),
        duration: TimeDelta::from_std(lasts).unwrap_or(TimeDelta::MAX),
        stored: false,
        // It has no effect to wait for.
        done: true,
        polls: 0,
    };
    let id = job.id.clone();
    site.jobs.push(job);
    id
}

/// The moments at which the job touches the site; everything shown is computed from the time.
async fn run(
    site: Arc<Mutex<Site>>,
    id: String,
    credential: Credential,
    duration: Duration,
    restart: Option<(super::Restart, Duration)>,
) {
    tokio::time::sleep(duration / 2).await;
    let Some((target, before)) = store(&mut lock(&site), &id, credential) else { return };
    if let Some((how, lasts)) = restart {
        let lasts = TimeDelta::from_std(lasts).unwrap_or(TimeDelta::MAX);
        lock(&site).restarting = Some((how, Utc::now() + lasts));
    }
    tokio::time::sleep(duration / 4).await;
    let mut site = lock(&site);
    // Restored from a backup meanwhile: this job is not of this world.
    let Some(job) = site.jobs.iter_mut().find(|job| job.id == id) else { return };
    job.done = true;
    if job.script == JobScript::CancelAndRollBack {
        job.stored = false;
        if let Some(slot) = site.slot(&target) {
            *slot = before;
        }
    }
}

/// Stores the credential as the script says; what was there before.
fn store(site: &mut Site, id: &str, credential: Credential) -> Option<(String, Option<Credential>)> {
    let job = site.jobs.iter().find(|job| job.id == id)?;
    let (target, script) = (job.target.clone(), job.script.clone());
    let before = site.slot(&target)?.clone();
    let stored = match script {
        JobScript::Fail(_)
        | JobScript::CompleteWithInnerError(_)
        | JobScript::CompleteWithFailedStage(_)
        | JobScript::TimedOut
        | JobScript::Liar => None,
        JobScript::StoreMangled => Some(credential.mangled()),
        _ => Some(credential),
    };
    if let Some(credential) = stored {
        site.note_secrets(Some(&credential));
        *site.slot(&target)? = Some(credential);
        site.jobs.iter_mut().find(|job| job.id == id)?.stored = true;
    }
    Some((target, before))
}

/// One poll of one job; `None` when there is no such job (any more).
pub(crate) fn poll(site: &mut Site, id: &str, now: DateTime<Utc>) -> Option<Value> {
    let server = site.is_server();
    let job = site.jobs.iter_mut().find(|job| job.id == id && !job.vanished(now))?;
    job.polls += 1;
    let blip = matches!(job.script, JobScript::UnavailableBlips(n) if job.polls <= n);
    Some(job.show(now, server, blip))
}

/// All jobs. Server prints ids. What Kubernetes prints is undocumented; we show whole jobs there, so that a client must cope with both.
pub(crate) fn list(site: &Site, now: DateTime<Utc>) -> Value {
    let jobs = site.jobs.iter().filter(|job| !job.vanished(now));
    let shown: Vec<Value> = if site.is_server() {
        jobs.map(|job| json!(job.id)).collect()
    } else {
        jobs.map(|job| job.show(now, false, false)).collect()
    };
    json!({ "jobs": shown })
}

/// Whether one runs now.
pub(crate) fn running(site: &Site, now: DateTime<Utc>) -> bool {
    site.jobs.iter().any(|job| !job.ended(now))
}
