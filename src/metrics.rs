//! Everything rekeyd counts and measures, in the names of the interface.
//!
//! Two sources, no third: requests are counted here as they happen; all that is about a service is rebuilt from what the journal
//! says at each scrape, so that a restart loses nothing and a service that left the policy leaves no line behind. An unknown time is
//! absent, never zero.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::ports::Meter;

/// Opened to Verified: seconds at a quick site, hours at one whose jobs take as long as Esri's own examples.
const ROTATION_SECONDS: [f64; 10] = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 21_600.0];
/// One look or act at a provider or a site.
const REQUEST_SECONDS: [f64; 9] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];

/// One service as a scrape shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Its name.
    pub service: String,
    /// Every state there is, and whether it is in it.
    pub states: Vec<(&'static str, bool)>,
    /// When the next rotation opens, in seconds since 1970.
    pub next_rotation: Option<i64>,
    /// When a key was last Verified at every target.
    pub last_success: Option<i64>,
    /// When the current key was made.
    pub key_created: Option<i64>,
    /// The policy's `max_age`.
    pub max_age_seconds: Option<u64>,
    /// Keys that should be gone.
    pub debt_keys: usize,
    /// Keys that nobody can explain.
    pub stranger_keys: usize,
    /// Whether the world differs from the journal.
    pub drift: bool,
    /// Rotations by outcome, over the whole history.
    pub outcomes: Vec<(&'static str, u64)>,
    /// Seconds from Opened to Verified, of every rotation that got there.
    pub durations: Vec<f64>,
}

/// What is counted as it happens.
#[derive(Clone)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<OperationLabels, Histogram, fn() -> Histogram>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    system: String,
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    system: String,
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabels {
    service: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    service: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    service: String,
    outcome: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Metrics {
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(|| Histogram::new(REQUEST_SECONDS)),
        }
    }

    /// The text of `/metrics` (OpenMetrics 1.0); `is_refused`: the policy in the file is not the one in force. The library adds
    /// `_total` to counters and `_info` to infos by itself.
    pub fn render(&self, services: &[Figures], is_refused: bool) -> String {
        let mut registry = Registry::with_prefix("rekeyd");
        registry.register("build", "What runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register("api_requests", "Requests by what became of them", self.requests.clone());
        registry.register("api_request_duration_seconds", "How long requests took", self.request_seconds.clone());
        let refused = Gauge::<i64>::default();
        refused.set(i64::from(is_refused));
        registry.register("policy_refused", "Whether the last reload was refused (0 or 1)", refused);
        register_services(&mut registry, services);
        let mut text = String::new();
        text::encode(&mut text, &registry).expect("writing to memory does not fail");
        text
    }
}

fn register_services(registry: &mut Registry, services: &[Figures]) {
    type Times = Family<ServiceLabels, Gauge<i64>>;
    let (next, last, created, max_age, debt, strangers, drift) = (
        Times::default(),
        Times::default(),
        Times::default(),
        Times::default(),
        Times::default(),
        Times::default(),
        Times::default(),
    );
    let states = Family::<StateLabels, Gauge<i64>>::default();
    let rotations = Family::<OutcomeLabels, Counter<u64, AtomicU64>>::default();
    let durations = Histogram::new(ROTATION_SECONDS);
    for figures in services {
        let of = ServiceLabels { service: figures.service.clone() };
        let set = |family: &Times, value: Option<i64>| {
            if let Some(value) = value {
                family.get_or_create(&of).set(value);
            }
        };
        let count = |count: usize| Some(i64::try_from(count).unwrap_or(i64::MAX));
        set(&next, figures.next_rotation);
        set(&last, figures.last_success);
        set(&created, figures.key_created);
        set(&max_age, figures.max_age_seconds.map(|age| i64::try_from(age).unwrap_or(i64::MAX)));
        set(&debt, count(figures.debt_keys));
        set(&strangers, count(figures.stranger_keys));
        set(&drift, Some(i64::from(figures.drift)));
        for &(state, on) in &figures.states {
            states.get_or_create(&StateLabels { service: figures.service.clone(), state }).set(i64::from(on));
        }
        for &(outcome, count) in &figures.outcomes {
            rotations.get_or_create(&OutcomeLabels { service: figures.service.clone(), outcome }).inc_by(count);
        }
        figures.durations.iter().for_each(|seconds| durations.observe(*seconds));
    }
    registry.register("service_next_rotation_timestamp_seconds", "When the next rotation opens", next);
    registry.register("service_last_success_timestamp_seconds", "When a key was last verified everywhere", last);
    registry.register("service_key_created_timestamp_seconds", "When the current key was made", created);
    registry.register("service_max_age_seconds", "How old a key may be", max_age);
    registry.register("service_state", "1 for the state the service is in", states);
    registry.register("rotations", "Rotations by how they ended", rotations);
    registry.register("rotation_duration_seconds", "From opened to verified everywhere", durations);
    registry.register("debt_keys", "Keys that should be gone", debt);
    registry.register("stranger_keys", "Keys at the issuer that nobody can explain", strangers);
    registry.register("drift", "1 where the world differs from the journal", drift);
}

impl Meter for Metrics {
    fn request(&self, system: &str, operation: &'static str, outcome: &'static str, took: Duration) {
        let labels = RequestLabels { system: system.to_owned(), operation, outcome };
        self.requests.get_or_create(&labels).inc();
        let labels = OperationLabels { system: system.to_owned(), operation };
        self.request_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

impl Meter for Arc<Metrics> {
    fn request(&self, system: &str, operation: &'static str, outcome: &'static str, took: Duration) {
        self.as_ref().request(system, operation, outcome, took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        Figures {
            service: "a".into(),
            states: vec![("idle", true), ("halted", false)],
            next_rotation: Some(1_795_000_000),
            last_success: None,
            key_created: Some(1_790_000_000),
            max_age_seconds: Some(7_776_000),
            debt_keys: 1,
            stranger_keys: 0,
            drift: true,
            outcomes: vec![("done", 2), ("failed", 1), ("reclaimed", 0), ("abandoned", 0), ("rolled_back", 0)],
            durations: vec![2.0, 100.0],
        }
    }

    #[test]
    fn every_name_and_label_is_the_interfaces_own() {
        let metrics = Metrics::new();
        metrics.request("aws-iam:main:store", "mint", "ok", Duration::from_millis(30));
        let text = metrics.render(&[figures()], true);
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let version = env!("CARGO_PKG_VERSION");
        for line in [
            format!("rekeyd_build_info{{version=\"{version}\"}} 1").as_str(),
            "rekeyd_api_requests_total{system=\"aws-iam:main:store\",operation=\"mint\",outcome=\"ok\"} 1",
            "rekeyd_api_request_duration_seconds_count{system=\"aws-iam:main:store\",operation=\"mint\"} 1",
            "rekeyd_service_next_rotation_timestamp_seconds{service=\"a\"} 1795000000",
            "rekeyd_service_key_created_timestamp_seconds{service=\"a\"} 1790000000",
            "rekeyd_service_max_age_seconds{service=\"a\"} 7776000",
            "rekeyd_service_state{service=\"a\",state=\"idle\"} 1",
            "rekeyd_service_state{service=\"a\",state=\"halted\"} 0",
            "rekeyd_rotations_total{service=\"a\",outcome=\"done\"} 2",
            "rekeyd_rotations_total{service=\"a\",outcome=\"rolled_back\"} 0",
            "rekeyd_rotation_duration_seconds_count 2",
            "rekeyd_rotation_duration_seconds_sum 102.0",
            "rekeyd_rotation_duration_seconds_bucket{le=\"5.0\"} 1",
            "rekeyd_debt_keys{service=\"a\"} 1",
            "rekeyd_stranger_keys{service=\"a\"} 0",
            "rekeyd_drift{service=\"a\"} 1",
        ] {
            assert!(lines.contains(&line), "{line} is missing from:\n{text}");
        }
        assert!(!text.contains("rekeyd_service_last_success_timestamp_seconds{"), "an unknown time is absent:\n{text}");
    }

    #[test]
    fn a_second_scrape_shows_the_same_and_a_service_that_left_shows_nothing() {
        let metrics = Metrics::new();
        let scrape = || {
            let mut lines: Vec<String> = metrics.render(&[figures()], false).lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(scrape(), scrape());
        assert!(!metrics.render(&[], false).contains("service=\"a\""));
    }
}
