//! What the store lets through and what it refuses, asked with the lab's own signatures.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::*;
use crate::sigv4::Unsigned;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

/// A store of the bucket `gis` with one object, and keys that can be changed.
struct Shop {
    store: S3Store,
    keys: Arc<Mutex<BTreeMap<String, KeyState>>>,
}

async fn shop() -> Shop {
    let keys = Arc::new(Mutex::new(BTreeMap::from([("AKIAGOOD".to_owned(), KeyState::Usable(SECRET.to_owned()))])));
    let known = keys.clone();
    let lookup: Lookup =
        Arc::new(move |id| known.lock().expect("no panic while held").get(id).cloned().unwrap_or(KeyState::Unknown));
    let store = S3Store::start(lookup).await;
    store.add_object("gis", "tiles/0.bin", "content");
    store.add_object("gis", "tiles/1.bin", "more");
    Shop { store, keys }
}

/// What a signed GET of the store is made of.
struct Get<'a> {
    path: &'a str,
    query: &'a str,
    key: (&'a str, &'a str),
    region: &'a str,
    at: DateTime<Utc>,
}

const LIST: Get<'static> = Get {
    path: "/gis",
    query: "list-type=2&max-keys=1",
    key: ("AKIAGOOD", SECRET),
    region: "us-east-1",
    at: DateTime::UNIX_EPOCH,
};

/// No certificates of the machine's, and no proxy.
fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a plain client")
}

impl Shop {
    async fn get(&self, get: Get<'_>) -> (u16, String) {
        let url = self.store.url();
        let host = url.trim_start_matches("http://");
        let at = if get.at == DateTime::UNIX_EPOCH { Utc::now() } else { get.at };
        let unsigned = Unsigned {
            method: "GET",
            host,
            path: get.path,
            query: get.query,
            body: "",
            region: get.region,
            service: "s3",
        };
        let mut request = client().get(format!("{url}{}?{}", get.path, get.query));
        for (name, value) in unsigned.sign(get.key, at) {
            request = request.header(name, value);
        }
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a body"))
    }

    async fn code(&self, get: Get<'_>) -> (u16, String) {
        let (status, body) = self.get(get).await;
        let code = body.split("<Code>").nth(1).and_then(|rest| rest.split("</Code>").next()).unwrap_or_default();
        (status, code.to_owned())
    }
}

fn is(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn a_right_key_lists_and_reads() {
    let shop = shop().await;
    let (status, listing) = shop.get(LIST).await;
    assert_eq!(status, 200, "{listing}");
    for part in ["<ListBucketResult", "<Name>gis</Name>", "<Key>tiles/0.bin</Key>", "<IsTruncated>true</IsTruncated>"] {
        assert!(listing.contains(part), "{part} in {listing}");
    }
    assert!(!listing.contains("tiles/1.bin"), "{listing}");
    let read = shop.get(Get { path: "/gis/tiles/1.bin", query: "", ..LIST }).await;
    assert_eq!(read, (200, "more".to_owned()));
    assert_eq!(shop.code(Get { path: "/gis/nothing", query: "", ..LIST }).await, is(404, "NoSuchKey"));
    let lines: Vec<_> = shop
        .store
        .requests()
        .into_iter()
        .map(|line| (line.operation, line.user_or_target, line.access_key_id, line.status, line.executed))
        .collect();
    let line = |operation: &str, status, executed| {
        (operation.to_owned(), "gis".to_owned(), "AKIAGOOD".to_owned(), status, executed)
    };
    assert_eq!(lines, [line("ListObjectsV2", 200, true), line("GetObject", 200, true), line("GetObject", 404, false)]);
}

#[tokio::test]
async fn a_key_is_what_the_issuer_says_at_that_moment() {
    let shop = shop().await;
    assert_eq!(shop.code(Get { key: ("AKIAGOOD", "another"), ..LIST }).await, is(403, "SignatureDoesNotMatch"));
    assert_eq!(shop.code(Get { key: ("AKIANEW", SECRET), ..LIST }).await, is(403, "InvalidAccessKeyId"));
    let set = |id: &str, state| shop.keys.lock().expect("no panic while held").insert(id.to_owned(), state);
    set("AKIANEW", KeyState::Usable(SECRET.to_owned()));
    assert_eq!(shop.code(Get { key: ("AKIANEW", SECRET), ..LIST }).await, is(200, ""));
    set("AKIAGOOD", KeyState::Inactive);
    assert_eq!(shop.code(LIST).await, is(403, "InvalidAccessKeyId"));
}

#[tokio::test]
async fn a_bucket_may_be_missing_or_closed() {
    let shop = shop().await;
    assert_eq!(shop.code(Get { path: "/nowhere", ..LIST }).await, is(404, "NoSuchBucket"));
    // A wrong secret learns nothing of buckets.
    let stranger = Get { path: "/nowhere", key: ("AKIAGOOD", "another"), ..LIST };
    assert_eq!(shop.code(stranger).await, is(403, "SignatureDoesNotMatch"));
    shop.store.deny("gis");
    assert_eq!(shop.code(LIST).await, is(403, "AccessDenied"));
    assert_eq!(shop.code(Get { path: "/gis/tiles/1.bin", query: "", ..LIST }).await, is(403, "AccessDenied"));
    // No listing of buckets, and no other way to list one.
    assert_eq!(shop.code(Get { path: "/", query: "", ..LIST }).await, is(403, "AccessDenied"));
}

#[tokio::test]
async fn a_signature_is_for_its_time_its_region_and_its_request() {
    let shop = shop().await;
    for minutes in [-16, 16] {
        let at = Utc::now() + TimeDelta::minutes(minutes);
        assert_eq!(shop.code(Get { at, ..LIST }).await, is(403, "RequestTimeTooSkewed"), "{minutes}");
    }
    shop.store.set_region("eu-west-1");
    assert_eq!(shop.code(LIST).await, is(400, "AuthorizationHeaderMalformed"));
    assert_eq!(shop.code(Get { region: "eu-west-1", ..LIST }).await, is(200, ""));

    // Signed for one query, sent with another.
    let url = shop.store.url();
    let host = url.trim_start_matches("http://");
    let unsigned = Unsigned {
        method: "GET",
        host,
        path: "/gis",
        query: "list-type=2&max-keys=1",
        body: "",
        region: "eu-west-1",
        service: "s3",
    };
    let signed = unsigned.sign(LIST.key, Utc::now());
    let send = |query: &'static str, extra: bool, names: &'static [&'static str]| {
        let mut request = client().get(format!("{url}/gis?{query}"));
        for (name, value) in signed.iter().filter(|(name, _)| names.is_empty() || names.contains(name)) {
            request = request.header(*name, value);
        }
        if extra {
            request = request.header("x-amz-security-token", "none");
        }
        async move { request.send().await.expect("an answer").text().await.expect("a body") }
    };
    assert!(send("list-type=2&max-keys=1", false, &[]).await.contains("<ListBucketResult"));
    assert!(send("list-type=2&max-keys=2", false, &[]).await.contains("SignatureDoesNotMatch"));
    let unsigned_header = send("list-type=2&max-keys=1", true, &[]).await;
    assert!(unsigned_header.contains("which were not signed"), "{unsigned_header}");
    assert!(send("list-type=2&max-keys=1", false, &["x-amz-date"]).await.contains("AccessDenied"));
}

#[tokio::test]
async fn faults_go_to_the_operation_they_wait_for() {
    let shop = shop().await;
    shop.store.fault("ListObjectsV2", Fault::Throttle);
    shop.store.fault("ListObjectsV2", Fault::Html);
    shop.store.fault("ListObjectsV2", Fault::Error(500));
    assert_eq!(shop.store.faults_left("ListObjectsV2"), 3);
    assert_eq!(shop.get(Get { path: "/gis/tiles/1.bin", query: "", ..LIST }).await.0, 200);
    assert_eq!(shop.code(LIST).await, is(503, "SlowDown"));
    assert!(shop.get(LIST).await.1.contains("<html>"));
    assert_eq!(shop.code(LIST).await, is(500, "InternalError"));
    assert_eq!(shop.code(LIST).await, is(200, ""));
}

#[tokio::test]
async fn a_store_that_is_dropped_takes_no_more_calls() {
    let shop = shop().await;
    let url = shop.store.url();
    assert_eq!(shop.get(LIST).await.0, 200);
    drop(shop);
    // The task that accepts ends at its next turn.
    let gone = async {
        while client().get(&url).send().await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("the store stops");
}
