//! What monitoring asks, over HTTP: `/metrics`, `/healthz`, `/readyz`, `/api/v1/status`.
//!
//! Reads only; it takes no order, asks for no login and knows no secret. That is why it is on loopback unless the policy says
//! otherwise.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::engine::{Report, ServiceReport, StateWord};
use crate::metrics::{Figures, Metrics};

use super::pulse::Pulse;
use super::refused::{Refusal, Refused};
use super::startup::Failure;
use super::status::Status;

/// The engine reports at least every half minute; without a report for this long it stands still.
const STANDSTILL: Duration = Duration::from_secs(60);

/// What the answers are made of.
#[derive(Clone)]
pub struct Sources {
    /// The newest report.
    pub reports: watch::Receiver<Arc<Report>>,
    /// When it came.
    pub pulse: Pulse,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether the policy's file was refused.
    pub refused: Refused,
}

/// Binds the address.
///
/// # Errors
/// [`Failure::Unreachable`].
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Failure::Unreachable(format!("listening on {address} ([daemon] listen) failed: {error}")))
}

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, sources: Sources) {
    if let Err(error) = axum::serve(listener, router(sources)).await {
        tracing::error!("serving metrics and status ended: {error}");
    }
}

fn router(sources: Sources) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/api/v1/status", get(status))
        .with_state(sources)
}

async fn metrics(State(sources): State<Sources>) -> impl IntoResponse {
    let report = sources.reports.borrow().clone();
    let services: Vec<Figures> = report.services.iter().map(figures).collect();
    let text = sources.metrics.render(&services, sources.refused.refusal().is_some());
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}

async fn healthz(State(sources): State<Sources>) -> impl IntoResponse {
    let silence = sources.pulse.silence();
    match silence < STANDSTILL {
        true => (StatusCode::OK, "ok\n".to_owned()),
        false => (StatusCode::SERVICE_UNAVAILABLE, format!("no report from the engine for {} s\n", silence.as_secs())),
    }
}

/// This listener is served only when policy, journal and control socket stand.
async fn readyz() -> &'static str {
    "ready\n"
}

async fn status(State(sources): State<Sources>) -> impl IntoResponse {
    let report = sources.reports.borrow().clone();
    let refusal = sources.refused.refusal();
    Json(Status::of(&report).with_refusal(refusal.as_deref(), Refusal::headlines))
}

fn figures(service: &ServiceReport) -> Figures {
    Figures {
        service: service.name.to_string(),
        states: StateWord::ALL.map(|state| (state.as_str(), state == service.state)).to_vec(),
        next_rotation: service.next_rotation.map(|at| at.timestamp()),
        last_success: service.last_rotation.map(|at| at.timestamp()),
        key_created: service.key_created.map(|at| at.timestamp()),
        max_age_seconds: service.max_age_seconds,
        debt_keys: service.debt.len(),
        stranger_keys: service.strangers.len(),
        drift: service.drift.is_some(),
        outcomes: vec![
            ("done", service.tally.done),
            ("failed", service.tally.failed),
            ("reclaimed", service.tally.reclaimed),
            ("abandoned", service.tally.abandoned),
            ("rolled_back", service.tally.rolled_back),
        ],
        durations: service.durations.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(sources: Sources, path: &str) -> (u16, String) {
        let listener = bind("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let server = tokio::spawn(serve(listener, sources));
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a plain client");
        let answer = client.get(format!("http://{address}{path}")).send().await.expect("it answers");
        let answer = (answer.status().as_u16(), answer.text().await.expect("a body"));
        server.abort();
        answer
    }

    fn sources() -> (watch::Sender<Arc<Report>>, Sources) {
        let report = Report { at: None, services: vec![super::super::status::tests::service("a")] };
        let (sender, reports) = watch::channel(Arc::new(report));
        let refused = super::super::refused::Refusals::default().heard();
        (sender, Sources { reports, pulse: Pulse::default(), metrics: Arc::new(Metrics::new()), refused })
    }

    #[tokio::test]
    async fn each_path_answers_and_health_ends_with_the_reports() {
        let (_engine, sources) = sources();
        assert_eq!(get(sources.clone(), "/healthz").await, (200, "ok\n".into()));
        assert_eq!(get(sources.clone(), "/readyz").await, (200, "ready\n".into()));
        let (code, status) = get(sources.clone(), "/api/v1/status").await;
        assert_eq!(code, 200);
        assert!(status.starts_with(r#"{"version":1,"services":[{"name":"a","#), "{status}");
        let (_, metrics) = get(sources.clone(), "/metrics").await;
        assert!(metrics.contains("rekeyd_service_state{service=\"a\",state=\"idle\"} 1\n"), "{metrics}");
        sources.pulse.set_silence(STANDSTILL);
        let (code, said) = get(sources, "/healthz").await;
        assert_eq!((code, said.as_str()), (503, "no report from the engine for 60 s\n"));
    }
}
