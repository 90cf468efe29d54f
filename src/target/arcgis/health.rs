//! Whether what lives on the key works: a consumer's own address, and ArcGIS's own checks of a backup store and of a cloud service.
//!
//! A check that could not be made says nothing about the consumer where ArcGIS itself was asked: a site may restart while a
//! credential job runs, and taking the key back for that would be the outage it is meant to prevent.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::ArcGis;
use super::config::{HealthConfig, Place};
use super::envelope::{Complaint, Meaning, Verdict, error_of, is_said, messages};
use super::session::Ask;
use crate::net::health;
use crate::net::redact::Redactor;
use crate::ports::Health;

/// A store that was found ready is not asked again for so long: each check makes the site read and write its bucket.
const READY_FOR: Duration = Duration::from_secs(60);

impl ArcGis {
    /// The worst of all checks that the policy names. Where one fails, those after it are not made.
    pub(super) async fn check_health(&self, watched: &HealthConfig) -> Health {
        let mut told = Vec::new();
        if let Some(url) = &watched.url {
            told.push(self.check_url(url, watched.expect).await);
        }
        if let (Some(store), false) = (&watched.backup_store, told.iter().any(is_bad)) {
            told.push(self.check_store(store).await);
        }
        if let (true, Place::Service(id), false) = (watched.service_status, &self.config.place, told.iter().any(is_bad))
        {
            told.extend(self.check_service(id).await);
        }
        worst(told)
    }

    async fn check_url(&self, url: &str, expect: u16) -> Health {
        // ArcGIS says 200 to much that failed.
        let objection = |body: &[u8]| {
            let error = error_of(&serde_json::from_slice::<Value>(body).ok()?)?;
            let code = error.code.map_or_else(String::new, |code| format!("code {code}, "));
            Some(format!("an error inside: {code}\"{}\"", Redactor::default().clean(&error.text)))
        };
        let objection = |body: &[u8]| if expect == 200 { objection(body) } else { None };
        health::check(self.deployment.client(), url, expect, objection).await
    }

    /// `validate` of a backup store: "ensures that the backup store is able to access the object store". Only its good answer,
    /// `{"isReady":true,"status":"success"}`, is documented.
    async fn check_store(&self, store: &str) -> Health {
        if self.deployment.was_ready(store, Instant::now(), READY_FOR) {
            return Health::Good;
        }
        let what = format!("validating backup store {store}");
        let path = format!("system/disasterrecovery/stores/{store}/validate");
        let ask = Ask { form: Some(&[]), ..Ask::get(&what, &path) };
        let bad = |said: &str| Health::Bad(format!("{}: {said}", self.doing(&what)));
        match self.deployment.ask(ask).await {
            Ok((Verdict::Good(value), _)) if value.get("isReady") == Some(&Value::Bool(true)) => {
                self.deployment.is_ready(store, Instant::now());
                Health::Good
            }
            Ok((Verdict::Good(value), redactor)) => {
                let said = redactor.clean(&messages(&value));
                bad(if said.is_empty() { "it is not ready" } else { &said })
            }
            Ok((Verdict::Complaint(complaint), _))
                if matches!(complaint.meaning, Meaning::Refused | Meaning::Absent | Meaning::Denied) =>
            {
                bad(&complaint.said)
            }
            // Restarting, throttled, locked, unreachable: nobody can say.
            Ok(_) | Err(_) => Health::NotWatched,
        }
    }

    /// `status` of a cloud service. Esri's page of the service names the operation, since Kubernetes 12.0; its own page was not found,
    /// so what it answers is our guess: whatever says nowhere that something is wrong is good. None where there is no such operation.
    async fn check_service(&self, id: &str) -> Option<Health> {
        let what = format!("reading the status of cloud service {id}");
        let path = format!("cloud/services/{id}/status");
        let bad = |said: &str| Some(Health::Bad(format!("{}: {said}", self.doing(&what))));
        match self.deployment.ask(Ask { may_be_absent: true, ..Ask::get(&what, &path) }).await {
            Ok((Verdict::Good(value), redactor)) => match told_by(&value) {
                Told::Trouble(said) => bad(&redactor.clean(&said)),
                Told::Fine => Some(Health::Good),
                Told::Nothing => Some(Health::NotWatched),
            },
            Ok((Verdict::Complaint(Complaint { meaning: Meaning::Absent | Meaning::PageAbsent, .. }), _)) => None,
            // ArcGIS itself says that it did not get through; what a front end says is nothing about the service, and a missing right
            // is nothing about its store.
            Ok((Verdict::Complaint(complaint), _))
                if complaint.in_envelope && matches!(complaint.meaning, Meaning::Refused | Meaning::Broken) =>
            {
                bad(&complaint.said)
            }
            Ok(_) | Err(_) => Some(Health::NotWatched),
        }
    }
}

fn is_bad(health: &Health) -> bool {
    matches!(health, Health::Bad(_))
}

/// A check that could not be made outweighs one that is good: what was not seen to work is not watched.
fn worst(told: Vec<Health>) -> Health {
    let rank = |health: &Health| match health {
        Health::Good => 0,
        Health::NotWatched => 1,
        Health::Bad(_) => 2,
    };
    told.into_iter().max_by_key(rank).unwrap_or(Health::NotWatched)
}

/// What a status without an error around it comes to.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Fine,
    /// Its own words, not yet fit for a message.
    Trouble(String),
    /// An empty answer.
    Nothing,
}

/// An answer is looked through so deep; what goes deeper is no status.
const DEPTH_MAX: usize = 32;

/// Where a status puts its word: no document tells, and these are how the rest of the API and its like do it.
const WORD_KEYS: [&str; 6] = ["status", "state", "health", "healthstatus", "servicestatus", "connectionstatus"];

/// Words of a service that does not get through, without case and punctuation. Any other word is no trouble.
const BAD_WORDS: [&str; 20] = [
    "error",
    "failed",
    "failure",
    "unreachable",
    "notreachable",
    "unhealthy",
    "unavailable",
    "notavailable",
    "inaccessible",
    "notaccessible",
    "disconnected",
    "notconnected",
    "offline",
    "down",
    "notready",
    "timedout",
    "timeout",
    "denied",
    "accessdenied",
    "unauthorized",
];

/// What is no trouble only while it is true.
const FLAGS: [&str; 9] = [
    "success",
    "isready",
    "ready",
    "isreachable",
    "reachable",
    "isaccessible",
    "accessible",
    "isavailable",
    "ishealthy",
];

fn told_by(value: &Value) -> Told {
    match trouble_in(value, DEPTH_MAX) {
        Some(said) => Told::Trouble(said),
        None if value.as_object().is_none_or(serde_json::Map::is_empty) => Told::Nothing,
        None => Told::Fine,
    }
}

fn trouble_in(value: &Value, depth: usize) -> Option<String> {
    let Some(depth) = depth.checked_sub(1) else { return Some("it is nested too deep".to_owned()) };
    match value {
        Value::Array(list) => list.iter().find_map(|entry| trouble_in(entry, depth)),
        // Some operations put their answer as a text into another.
        Value::String(text) if text.trim_start().starts_with('{') => {
            trouble_in(&serde_json::from_str(text).ok()?, depth)
        }
        Value::Object(map) => {
            let words = |shown: &str| {
                let more = messages(value);
                if more.is_empty() { shown.to_owned() } else { format!("{shown}: {more}") }
            };
            let own = map.iter().find_map(|(key, inner)| match inner {
                Value::String(word)
                    if WORD_KEYS.contains(&plain(key).as_str()) && BAD_WORDS.contains(&plain(word).as_str()) =>
                {
                    Some(words(word.trim()))
                }
                Value::Bool(false) if FLAGS.contains(&plain(key).as_str()) => Some(words(&format!("{key} is false"))),
                _ if key == "error" && is_said(inner) => {
                    let said = messages(inner);
                    Some(if said.is_empty() { words("an error without words") } else { said })
                }
                _ => None,
            });
            own.or_else(|| map.values().find_map(|inner| trouble_in(inner, depth)))
        }
        _ => None,
    }
}

/// `NOT_REACHABLE`, `Not reachable`, `notReachable`.
fn plain(word: &str) -> String {
    word.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn trouble(value: Value) -> String {
        match told_by(&value) {
            Told::Trouble(said) => said,
            other => panic!("{value} is {other:?}"),
        }
    }

    #[test]
    fn a_status_that_says_no_trouble_is_good() {
        for fine in [
            json!({"status": "AVAILABLE"}),
            json!({"status": "success"}),
            json!({"id": "eg7hrelq6b", "state": "whatever tomorrow calls it", "isReachable": true}),
            json!({"status": {"code": 200}, "error": null, "errors": []}),
            // What a bucket or a place is called is nobody's word.
            json!({"name": "failed", "region": "down"}),
        ] {
            assert_eq!(told_by(&fine), Told::Fine, "{fine}");
        }
        assert_eq!(told_by(&json!({})), Told::Nothing);
    }

    #[test]
    fn trouble_is_seen_at_any_depth_and_in_any_spelling() {
        assert_eq!(trouble(json!({"status": "UNREACHABLE", "message": "no route"})), "UNREACHABLE: no route");
        assert_eq!(trouble(json!({"status": "not reachable"})), "not reachable");
        assert_eq!(trouble(json!({"healthStatus": "Unhealthy", "details": ["a", "b"]})), "Unhealthy: a; b");
        assert_eq!(trouble(json!({"services": [{"status": "OK"}, {"State": "NOT_READY"}]})), "NOT_READY");
        assert_eq!(trouble(json!({"result": {"isReachable": false, "message": "403"}})), "isReachable is false: 403");
        assert_eq!(trouble(json!({"result": {"error": {"code": 500, "message": "no"}}})), "no");
        assert_eq!(trouble(json!({"error": "no"})), "no");
        assert_eq!(trouble(json!({"result": "{\"status\":\"offline\"}"})), "offline");
        assert_eq!(trouble(json!({"error": {"code": 500}})), "an error without words");
        let endless = (0..100).fold(json!("deep"), |deep, _| json!({ "inner": deep }));
        assert_eq!(trouble(endless), "it is nested too deep");
    }

    #[test]
    fn the_worst_of_several_checks_counts() {
        let bad = || Health::Bad("no".to_owned());
        assert_eq!(worst(vec![]), Health::NotWatched);
        assert_eq!(worst(vec![Health::Good]), Health::Good);
        assert_eq!(worst(vec![Health::Good, Health::NotWatched]), Health::NotWatched, "it was not seen to work");
        assert_eq!(worst(vec![Health::NotWatched, bad(), Health::Good]), bad());
    }
}
