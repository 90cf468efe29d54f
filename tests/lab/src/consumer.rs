//! What uses the credential: one task for each cloud service, reading its bucket or container every 25 ms with the key held at that
//! instant.
//!
//! A refusal is a 403, of Azure also a 401 or a token that is not given, counted for the key the request was *sent* with: a key swapped
//! while a request is under way changes nothing for that request. Everything else that fails (the cloud down, throttled, gone) is
//! counted apart: it is not rekeyd's doing.

mod blob;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::Utc;

pub use blob::key_name;
pub(crate) use blob::{Errand as Container, Pass, Principal, letter};

use crate::sigv4::Unsigned;

/// How the clouds tell the consumers from everybody else, for the faults and the log only.
pub(crate) const USER_AGENT: &str = "arcgis-consumer";
const PAUSE: Duration = Duration::from_millis(25);

/// What one service has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ConsumerCount {
    /// Requests answered or failed.
    pub requests: u64,
    /// Requests that were refused. Must stay 0.
    pub refusals: u64,
    /// The last refusal: the key it was sent with, and the provider's code.
    pub last_refusal: Option<String>,
    /// Refusals by the key they were sent with: its id, or as [`crate::key_name`] calls it.
    pub refusals_by_key: BTreeMap<String, u64>,
    /// Requests that failed otherwise.
    pub failures: u64,
    /// The key of the last request that was answered 200.
    pub last_good_key: Option<String>,
    /// Whether the last request was answered 200.
    pub healthy: bool,
}

/// What to read, and with what.
pub(crate) enum Errand {
    S3(Bucket),
    Blob(Container),
}

impl Errand {
    /// Under which the count has it.
    fn key_id(&self) -> String {
        match self {
            Self::S3(bucket) => bucket.key.0.clone(),
            Self::Blob(container) => container.pass.name(&container.account),
        }
    }
}

/// A bucket, and the key pair for it.
pub(crate) struct Bucket {
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
    // Buckets are at plain HTTP here; reading the machine's certificates would only take time.
    let client = client(None);
    tokio::spawn(async move {
        let mut reader: Option<blob::Reader> = None;
        loop {
            if let Some(errand) = errand() {
                let ended = match &errand {
                    Errand::S3(bucket) => fetch(&client, bucket).await,
                    Errand::Blob(container) => {
                        let suiting = reader.take().filter(|reader| reader.suits(container));
                        let reader = reader.insert(suiting.unwrap_or_else(|| blob::Reader::new(container.ca.as_ref())));
                        reader.fetch(container).await
                    }
                };
                count(&errand.key_id(), ended);
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
}

/// A client that trusts this authority alone.
fn client(ca: Option<&String>) -> reqwest::Client {
    let ca = ca.map(|pem| reqwest::Certificate::from_pem(pem.as_bytes()).expect("our own certificates are PEM"));
    reqwest::Client::builder()
        .no_proxy()
        .user_agent(USER_AGENT)
        .timeout(Duration::from_secs(10))
        .tls_certs_only(ca)
        .build()
        .expect("a client with our own certificate can be built")
}

async fn fetch(client: &reqwest::Client, errand: &Bucket) -> Ended {
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
