//! Whether what lives on the key works: a consumer's own address, and ArcGIS's own check of a backup store.
//!
//! A check that could not be made says nothing about the consumer where ArcGIS itself was asked: a site may restart while a
//! credential job runs, and taking the key back for that would be the outage it is meant to prevent.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::ArcGis;
use super::config::HealthConfig;
use super::envelope::{Meaning, Verdict, error_of, messages};
use super::session::Ask;
use crate::net::health;
use crate::net::redact::Redactor;
use crate::ports::Health;

/// A store that was found ready is not asked again for so long: each check makes the site read and write its bucket.
const READY_FOR: Duration = Duration::from_secs(60);

impl ArcGis {
    /// The worst of all checks that the policy names.
    pub(super) async fn check_health(&self, watched: &HealthConfig) -> Health {
        let consumer = match &watched.url {
            Some(url) => self.check_url(url, watched.expect).await,
            None => Health::NotWatched,
        };
        match (&watched.backup_store, consumer) {
            (Some(store), Health::Good | Health::NotWatched) => self.check_store(store).await,
            (_, consumer) => consumer,
        }
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
}
