//! A store that speaks S3: buckets that can be listed and objects that can be read, with keys that somebody else makes.
//!
//! Requests are parsed and signatures judged by the `s3s` library, so that a signature is proven against code that is neither the
//! lab's nor the product's. Who has a key is the [`Lookup`]'s to say, at the moment of each request: the store of whatever issuer a
//! test has. Path-style; nothing is ever written over the wire. In front of the library stand the lab's faults, and the one check the
//! library leaves out: that `host` and every `x-amz-*` header are signed.

mod serve;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use s3s::service::S3ServiceBuilder;
use tokio::task::AbortHandle;

use crate::faults::FaultQueue;
use crate::{Fault, RequestLine, http};

/// What the issuer in the lab says of an access key at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// There is none, or no longer, or not yet.
    Unknown,
    /// It is there and switched off; answered as one that is unknown, as AWS does.
    Inactive,
    /// It may sign; its secret.
    Usable(String),
}

/// Asked for the key of each request.
pub type Lookup = Arc<dyn Fn(&str) -> KeyState + Send + Sync>;

/// A store on a loopback port. It stops when dropped.
pub struct S3Store {
    url: String,
    state: Arc<Mutex<State>>,
    accepting: AbortHandle,
}

impl S3Store {
    /// A store without buckets, for signatures of any region.
    pub async fn start(lookup: Lookup) -> S3Store {
        let (listener, port) = http::loopback().await;
        let state = Arc::new(Mutex::new(State::default()));
        let mut library = S3ServiceBuilder::new(store::Store::new(state.clone()));
        library.set_auth(store::Keys::new(lookup));
        library.set_access(store::Doors::new(state.clone()));
        let server = Arc::new(serve::Server::new(state.clone(), library.build()));
        let accepting = http::serve(server, listener, None).await;
        S3Store { url: format!("http://127.0.0.1:{port}"), state, accepting }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// An empty bucket that every usable key may read. Adding one twice changes nothing.
    pub fn add_bucket(&self, name: &str) {
        self.state().buckets.entry(name.to_owned()).or_default();
    }

    /// Puts an object into a bucket, which is made where it is not there.
    pub fn add_object(&self, bucket: &str, name: &str, content: impl Into<Vec<u8>>) {
        let objects = &mut self.state().buckets;
        objects.entry(bucket.to_owned()).or_default().objects.insert(name.to_owned(), Bytes::from(content.into()));
    }

    /// Every read of the bucket is `AccessDenied` from now on.
    ///
    /// # Panics
    /// Where there is no such bucket.
    pub fn deny(&self, bucket: &str) {
        self.state().buckets.get_mut(bucket).expect("deny: no such bucket").denied = true;
    }

    /// Signatures for another region are refused from now on.
    pub fn set_region(&self, region: &str) {
        self.state().region = Some(region.to_owned());
    }

    /// Queues a mishap for the next call of `operation`: `ListObjectsV2`, `GetObject`, or `ConsumerGet` for the requests of ArcGIS's
    /// consumers, which no other queue touches.
    pub fn fault(&self, operation: &str, fault: Fault) {
        self.state().faults.push(operation, fault);
    }

    /// How many of the mishaps queued for this operation are not yet spent.
    pub fn faults_left(&self, operation: &str) -> usize {
        self.state().faults.left(operation)
    }

    /// Forgets all that are queued.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// Every request but the consumers', which [`S3Store::consumer_requests`] counts.
    pub fn requests(&self) -> Vec<RequestLine> {
        self.state().requests.clone()
    }

    /// How many requests of ArcGIS's consumers arrived.
    pub fn consumer_requests(&self) -> u64 {
        self.state().consumer_requests
    }
}

impl Drop for S3Store {
    fn drop(&mut self) {
        // Connections that are open by now meet a store that is down.
        self.state().stopped = true;
        self.accepting.abort();
    }
}

/// What the store holds and has seen.
#[derive(Default)]
struct State {
    buckets: BTreeMap<String, Bucket>,
    /// The region signatures must be for; `None`: any.
    region: Option<String>,
    faults: FaultQueue,
    requests: Vec<RequestLine>,
    consumer_requests: u64,
    stopped: bool,
}

#[derive(Default)]
struct Bucket {
    denied: bool,
    objects: BTreeMap<String, Bytes>,
}

/// A panic in one request of a test must not hide the state from the next.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
