//! What uses the credential: one task for each cloud service, reading its bucket every 25 ms with the key held at that instant.
//!
//! A refusal is a 403, counted for the key the request was *sent* with: a key swapped while a request is under way changes
//! nothing for that request. Everything else that fails (AWS down, throttled, gone) is counted apart: it is not rekeyd's doing.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::Utc;

use crate::sigv4::Unsigned;

/// How AWS tells the consumers from everybody else, for the faults and the log only.
pub(crate) const USER_AGENT: &str = "arcgis-consumer";
const PAUSE: Duration = Duration::from_millis(25);

/// What one service has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ConsumerCount {
    /// Requests answered or failed.
    pub requests: u64,
    /// Requests answered 403. Must stay 0.
    pub refusals: u64,
    /// The last refusal: the key it was sent with, and the provider's code.
    pub last_refusal: Option<String>,
    /// Refusals by the key they were sent with.
    pub refusals_by_key: BTreeMap<String, u64>,
    /// Requests that failed otherwise.
    pub failures: u64,
    /// The key of the last request that was answered 200.
    pub last_good_key: Option<String>,
    /// Whether the last request was answered 200.
    pub healthy: bool,
}

/// What to read, and with what.
pub(crate) struct Errand {
    pub(crate) endpoint: String,
    pub(crate) bucket: String,
    pub(crate) region: String,
    pub(crate) key: (String, String),
}

/// How one request ended.
pub(crate) enum Ended {
    Good,
    Refused(String),
    Failed,
}

impl ConsumerCount {
    pub(crate) fn add(&mut self, key_id: &str, ended: Ended) {
        self.requests += 1;
        self.healthy = matches!(ended, Ended::Good);
        match ended {
            Ended::Good => self.last_good_key = Some(key_id.to_owned()),
            Ended::Failed => self.failures += 1,
            Ended::Refused(why) => {
                self.refusals += 1;
                *self.refusals_by_key.entry(key_id.to_owned()).or_default() += 1;
                self.last_refusal = Some(format!("{key_id}: {why}"));
            }
        }
    }
}

/// Runs until the runtime ends. Without an errand there is nothing to do now; it asks again.
pub(crate) fn spawn<E, C>(errand: E, count: C)
where
    E: Fn() -> Option<Errand> + Send + 'static,
    C: Fn(&str, Ended) + Send + 'static,
{
    let client = reqwest::Client::builder()
        .no_proxy()
        .user_agent(USER_AGENT)
        .timeout(Duration::from_secs(10))
        // AWS is plain HTTP here; reading the machine's certificates would only take time.
        .tls_certs_only([])
        .build()
        .expect("a client without options can be built");
    tokio::spawn(async move {
        loop {
            if let Some(errand) = errand() {
                let ended = fetch(&client, &errand).await;
                count(&errand.key.0, ended);
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
}

async fn fetch(client: &reqwest::Client, errand: &Errand) -> Ended {
    let host = errand.endpoint.trim_start_matches("http://");
    let (path, query) = (format!("/{}", errand.bucket), "list-type=2&max-keys=1");
    let key = (errand.key.0.as_str(), errand.key.1.as_str());
    let mut request = client.get(format!("{}{path}?{query}", errand.endpoint));
    let unsigned =
        Unsigned { method: "GET", host, path: &path, query, body: "", region: &errand.region, service: "s3" };
    for (name, value) in unsigned.sign(key, Utc::now()) {
        // A mangled key id may not even be a legal header: then no request can be made, and the provider would have refused it.
        if reqwest::header::HeaderValue::from_str(&value).is_err() {
            return Ended::Refused("the credential cannot be sent".to_owned());
        }
        request = request.header(name, value);
    }
    match request.send().await {
        Err(_) => Ended::Failed,
        Ok(response) if response.status().is_success() => Ended::Good,
        Ok(response) if response.status().as_u16() == 403 => {
            let body = response.text().await.unwrap_or_default();
            let code = body.split("<Code>").nth(1).and_then(|rest| rest.split("</Code>").next());
            Ended::Refused(code.unwrap_or("403").to_owned())
        }
        Ok(_) => Ended::Failed,
    }
}
