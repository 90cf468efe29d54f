//! The control endpoint of the program: what there is, and mischief on demand. It shows no secret.
//!
//! ```text
//! curl -s $CONTROL/lab/state
//! curl -s $CONTROL/lab/fault -H 'content-type: application/json' \
//!      -d '{"system":"aws","operation":"CreateAccessKey","fault":"lost-reply"}'
//! curl -s $CONTROL/lab/fault -H 'content-type: application/json' \
//!      -d '{"system":"kubernetes","operation":"job-script","fault":"fail","text":"the store cannot be reached"}'
//! ```
//!
//! [`super::arguments::MISCHIEF`] lists the words.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use rekeyd_lab::{Fault, JobScript};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::azure::{Change, Tenant};
use super::{Holder, Kind, Lab, Place, Site};

/// One order. Which of the last four is read depends on the fault.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// `aws`, `azure`, `kubernetes`, `server`.
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

/// How an ArcGIS is from now on, and what happens to it at once. What is not named stays.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    system: String,
    read_only: Option<bool>,
    locked: Option<bool>,
    down: Option<bool>,
    privileged: Option<bool>,
    node_role: Option<bool>,
    upgrade: Option<String>,
    version: Option<String>,
    job_ms: Option<u64>,
    #[serde(default)]
    expire_tokens: bool,
    #[serde(default)]
    unlock_account: bool,
}

/// Binds a loopback port: its URL, and the task that serves it.
pub(super) async fn start(lab: Lab) -> std::io::Result<(String, JoinHandle<()>)> {
    let port = lab.control_port;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.map_err(|why| {
        std::io::Error::new(why.kind(), format!("listening on 127.0.0.1:{port} for the control endpoint: {why}"))
    })?;
    let url = format!("http://{}", listener.local_addr()?);
    let router = Router::new()
        .route("/lab/state", get(state))
        .route("/lab/fault", post(fault))
        .route("/lab/site", post(site))
        .route("/lab/azure", post(azure))
        .with_state(lab);
    let serving = tokio::spawn(async move {
        if let Err(why) = axum::serve(listener, router).await {
            eprintln!("rekeyd-lab: the control endpoint ended: {why}");
        }
    });
    Ok((url, serving))
}

async fn state(State(lab): State<Lab>) -> Json<Value> {
    let sites: Vec<Value> = lab.sites.iter().map(|site| show_site(&lab, site)).collect();
    let aws = lab.aws.as_ref();
    let aws = aws.map(|aws| json!({ "endpoint": aws.endpoint(), "mints": aws.mints(), "requests": aws.requests() }));
    let azure = lab.azure.as_ref().map(Tenant::show);
    Json(json!({ "aws": aws, "azure": azure, "arcgis": sites }))
}

fn show_site(lab: &Lab, site: &Site) -> Value {
    let arcgis = &site.arcgis;
    let places: Vec<Value> = site.places.iter().map(|place| show_place(lab, site, place)).collect();
    json!({
        "name": site.name, "version": site.version, "admin_url": arcgis.admin_url(), "portal_url": arcgis.portal_url(),
        "token_url": arcgis.token_url(), "places": places, "jobs": arcgis.jobs(), "requests": arcgis.requests().len(),
    })
}

fn show_place(lab: &Lab, site: &Site, place: &Place) -> Value {
    let held = site.arcgis.held_key_name(&place.id);
    let mut shown = json!({ "kind": place.kind.word(), "id": place.id, "held_key": held });
    if place.kind != Kind::Provider {
        shown[place.reads()] = json!(place.bucket);
        shown["consumer"] = json!(site.arcgis.consumer(&place.id));
    }
    match &place.holder {
        Some(Holder::User(user)) => {
            shown["user"] = json!(user);
            shown["keys"] = json!(lab.aws.as_ref().map(|aws| aws.keys(user)));
        }
        Some(Holder::Account(account, _)) => shown["account"] = json!(account),
        None => {}
    }
    shown
}

async fn site(State(lab): State<Lab>, Json(turn): Json<Turn>) -> (StatusCode, Json<Value>) {
    match lab.site(&turn.system) {
        Ok(site) => {
            turn.apply(site);
            (StatusCode::OK, Json(json!({ "status": "done" })))
        }
        Err(why) => (StatusCode::BAD_REQUEST, Json(json!({ "error": why }))),
    }
}

async fn azure(State(lab): State<Lab>, Json(change): Json<Change>) -> (StatusCode, Json<Value>) {
    let done = lab.azure().and_then(|tenant| change.apply(tenant, &lab.dir));
    match done {
        Ok(None) => (StatusCode::OK, Json(json!({ "status": "done" }))),
        Ok(Some(key_id)) => (StatusCode::OK, Json(json!({ "status": "done", "key_id": key_id }))),
        Err(why) => (StatusCode::BAD_REQUEST, Json(json!({ "error": why }))),
    }
}

impl Lab {
    fn azure(&self) -> Result<&Tenant, String> {
        self.azure.as_ref().ok_or("no system azure".to_owned())
    }

    fn site(&self, name: &str) -> Result<&Site, String> {
        self.sites.iter().find(|site| site.name == name).ok_or_else(|| format!("no system {name}"))
    }
}

impl Turn {
    fn apply(&self, site: &Site) {
        let arcgis = &site.arcgis;
        let turn = |switch: Option<bool>, set: &dyn Fn(bool)| switch.into_iter().for_each(set);
        turn(self.read_only, &|on| arcgis.set_read_only(on));
        turn(self.locked, &|on| arcgis.set_site_locked(on));
        turn(self.down, &|on| arcgis.down(on));
        turn(self.privileged, &|on| arcgis.set_username_privilege(on));
        turn(self.node_role, &|on| arcgis.take_node_role(!on));
        if let Some(status) = &self.upgrade {
            arcgis.set_upgrade(Some(status));
        }
        if let Some(version) = &self.version {
            arcgis.set_version(version);
        }
        if let Some(ms) = self.job_ms {
            arcgis.set_job_duration(Duration::from_millis(ms));
        }
        if self.expire_tokens {
            arcgis.expire_tokens();
        }
        if self.unlock_account {
            arcgis.unlock_account();
        }
    }
}

async fn fault(State(lab): State<Lab>, Json(order): Json<Order>) -> (StatusCode, Json<Value>) {
    match obey(&lab, &order) {
        Ok(()) => (StatusCode::OK, Json(json!({ "status": "queued" }))),
        Err(why) => (StatusCode::BAD_REQUEST, Json(json!({ "error": why }))),
    }
}

fn obey(lab: &Lab, order: &Order) -> Result<(), String> {
    if order.system == "aws" {
        let aws = lab.aws.as_ref().ok_or("no system aws")?;
        aws.fault(&order.operation, order.to_fault()?);
        return Ok(());
    }
    if order.system == "azure" {
        lab.azure()?.azure.fault(&order.operation, order.to_fault()?);
        return Ok(());
    }
    let site = lab.site(&order.system)?;
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
