//! The control endpoint of the program: what there is, and mischief on demand. It shows no secret.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use rekeyd_lab::{Fault, JobScript};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::Lab;

/// One order. Which of the last four is read depends on the fault.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// `aws`, `kubernetes`, `server`.
    system: String,
    /// The operation, or `job-script`.
    operation: String,
    fault: String,
    #[serde(default)]
    status: Option<u16>,
    #[serde(default)]
    ms: Option<u64>,
    #[serde(default)]
    times: Option<usize>,
    #[serde(default)]
    text: Option<String>,
}

/// Binds a loopback port: its URL, and the task that serves it.
pub(crate) async fn start(lab: Lab) -> std::io::Result<(String, JoinHandle<()>)> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let router = Router::new().route("/lab/state", get(state)).route("/lab/fault", post(fault)).with_state(lab);
    let serving = tokio::spawn(async move {
        if let Err(why) = axum::serve(listener, router).await {
            eprintln!("rekeyd-lab: the control endpoint ended: {why}");
        }
    });
    Ok((url, serving))
}

async fn state(State(lab): State<Lab>) -> Json<Value> {
    let sites: Vec<Value> = lab
        .sites
        .iter()
        .map(|site| {
            let arcgis = &site.arcgis;
            json!({
                "name": site.name, "admin_url": arcgis.admin_url(), "portal_url": arcgis.portal_url(),
                "service": site.service, "provider": site.provider, "user": site.user, "bucket": site.bucket,
                "held_key": arcgis.held_key(site.service).map(|(id, _)| id), "keys": lab.aws.keys(&site.user),
                "consumer": arcgis.consumer(site.service), "jobs": arcgis.jobs(), "requests": arcgis.requests().len(),
            })
        })
        .collect();
    let aws = json!({ "endpoint": lab.aws.endpoint(), "mints": lab.aws.mints(), "requests": lab.aws.requests() });
    Json(json!({ "aws": aws, "arcgis": sites }))
}

async fn fault(State(lab): State<Lab>, Json(order): Json<Order>) -> (StatusCode, Json<Value>) {
    match obey(&lab, &order) {
        Ok(()) => (StatusCode::OK, Json(json!({ "status": "queued" }))),
        Err(why) => (StatusCode::BAD_REQUEST, Json(json!({ "error": why }))),
    }
}

fn obey(lab: &Lab, order: &Order) -> Result<(), String> {
    if order.system == "aws" {
        lab.aws.fault(&order.operation, order.to_fault()?);
        return Ok(());
    }
    let site = lab.sites.iter().find(|site| site.name == order.system);
    let site = site.ok_or_else(|| format!("no system {}", order.system))?;
    if order.operation == "job-script" {
        site.arcgis.job_script(order.to_script()?);
    } else {
        site.arcgis.fault(&order.operation, order.to_fault()?);
    }
    Ok(())
}

impl Order {
    fn to_fault(&self) -> Result<Fault, String> {
        Ok(match self.fault.as_str() {
            "lost-reply" => Fault::LostReply,
            "error-after-commit" => Fault::ErrorAfterCommit(self.status()?),
            "late" => Fault::Late(self.duration()?),
            "delayed" => Fault::Delayed(self.duration()?),
            "throttle" => Fault::Throttle,
            "error" => Fault::Error(self.status()?),
            "slow" => Fault::Slow(self.duration()?),
            "drop-before" => Fault::DropBefore,
            "refuse" => Fault::Refuse(self.text()?),
            "html" => Fault::Html,
            "redirect" => Fault::Redirect(self.text()?),
            other => return Err(format!("no fault {other}")),
        })
    }

    fn to_script(&self) -> Result<JobScript, String> {
        Ok(match self.fault.as_str() {
            "complete" => JobScript::Complete,
            "fail" => JobScript::Fail(self.text()?),
            "fail-after-store" => JobScript::FailAfterStore(self.text()?),
            "inner-error" => JobScript::CompleteWithInnerError(self.text()?),
            "failed-stage" => JobScript::CompleteWithFailedStage(self.text()?),
            "roll-back" => JobScript::CancelAndRollBack,
            "timed-out" => JobScript::TimedOut,
            "timed-out-after-store" => JobScript::TimedOutAfterStore,
            "unavailable" => JobScript::UnavailableBlips(self.times.ok_or("this script needs times")?),
            "vanish" => JobScript::Vanish,
            "liar" => JobScript::Liar,
            "slow" => JobScript::Slow(self.duration()?),
            "mangled" => JobScript::StoreMangled,
            other => return Err(format!("no job script {other}")),
        })
    }

    /// A status hyper can send and that is one.
    fn status(&self) -> Result<u16, String> {
        self.status
            .filter(|status| (400..600).contains(status))
            .ok_or("this fault needs a status from 400 to 599".into())
    }

    fn duration(&self) -> Result<Duration, String> {
        self.ms.map(Duration::from_millis).ok_or("this fault needs ms".into())
    }

    fn text(&self) -> Result<String, String> {
        self.text.clone().ok_or("this fault needs a text".into())
    }
}
