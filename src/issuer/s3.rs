//! The look that proves an access key as its consumer uses it: one object of the consumer's own bucket is listed with it. What the
//! kinds whose keys open S3, or a store that speaks it, have in common.
//!
//! Reads `probe = { … }`, builds the address, signs, sends once and judges the answer; the request changes nothing. Knows no account
//! and no kind. It cannot tell a key that is not yet known from one that is inactive or gone: every store answers these alike. How long
//! "not yet" may last is the engine's to say.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::model::{KeyId, Reason, Secret};
use crate::net::sigv4;
use crate::net::xml::element;
use crate::ports::{Fault, Probe};
use crate::table::Table;

pub(super) mod answer;

use answer::Answer;

/// More of an answer than this is not read; a listing of one object is far smaller.
const BODY_MAX: usize = 64 * 1024;

/// The consumer's bucket, as a policy names it: `probe = { bucket, region, expect, endpoint_url }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Bucket {
    bucket: String,
    /// The bucket's region, where the consumer's requests go and where a new key must be known.
    region: String,
    expect: Expect,
    /// Comes before the store's.
    endpoint_url: Option<String>,
}

/// What must succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expect {
    /// The listing itself.
    Read,
    /// Only that the store knows the key: a bucket policy may keep rekeyd's network out.
    Authenticates,
}

/// How a kind's `probe` is read.
pub(super) struct Form<'a> {
    /// A probe as it may be written, for help texts: `probe = { bucket = "gis-store", region = "us-east-1", expect = "read" }`.
    pub text: &'static str,
    /// The region where the policy names none; `None`: it must be named.
    pub region: Option<&'a str>,
}

/// The store a key is for.
pub(super) struct Store<'a> {
    /// Comes after the bucket's own `endpoint_url`. `None` for both: AWS's own address of the region.
    pub endpoint: Option<&'a str>,
    /// The right whose lack a denied listing shows, for the message: `the key's user needs s3:ListBucket there`.
    pub right: &'static str,
}

/// Reads `[service.issuer].probe` of a kind whose store has an address of its own; mistakes go into the report.
pub(super) fn read(table: &mut Table<'_>, form: Form<'_>) -> Option<Bucket> {
    read_probe(table, form, is_scope, Address::EndpointUrl)
}

/// The same where the policy knows no address of the store but the bucket's own, which stands there as `endpoint` and must.
pub(super) fn read_at(table: &mut Table<'_>, form: Form<'_>) -> Option<Bucket> {
    read_probe(table, form, is_scope, Address::Endpoint)
}

/// The same where the store may be AWS itself: a region of AWS becomes part of a host's name, so it is held to AWS's form unless the
/// bucket has an address of its own.
pub(super) fn read_at_aws(table: &mut Table<'_>, form: Form<'_>) -> Option<Bucket> {
    read_probe(table, form, is_region, Address::EndpointUrl)
}

/// How a probe calls the bucket's own address.
enum Address {
    /// `endpoint_url`, which may be left out.
    EndpointUrl,
    /// `endpoint`, which may not.
    Endpoint,
}

fn read_probe(table: &mut Table<'_>, form: Form<'_>, is_right: fn(&str) -> bool, address: Address) -> Option<Bucket> {
    let write = || format!("write `{}`", form.text);
    let mut probe = table.table("probe")?;
    let bucket = probe.text("bucket");
    if let Some(bucket) = &bucket
        && !is_bucket(bucket)
    {
        probe.mistake("bucket", format!("`{bucket}` is no bucket's name"), write());
    }
    let region = probe.text_or("region").or_else(|| form.region.map(str::to_owned));
    let is_right = if probe.has("endpoint_url") { is_scope } else { is_right };
    match &region {
        None => probe.mistake("region", "no region, and the account names none either", write()),
        Some(region) if !is_right(region) => {
            probe.mistake("region", format!("`{region}` is no region"), write());
        }
        Some(_) => {}
    }
    let expect = match probe.choice("expect", &["read", "authenticates"]) {
        Some("authenticates") => Expect::Authenticates,
        _ => Expect::Read,
    };
    let endpoint_url = match address {
        Address::EndpointUrl => probe.url("endpoint_url"),
        Address::Endpoint if probe.require("endpoint", "endpoint = \"https://s3.example.com\"") => {
            Some(probe.url("endpoint")?)
        }
        Address::Endpoint => return None,
    };
    Some(Bucket { bucket: bucket?, region: region?, expect, endpoint_url })
}

/// Wide enough for stores that are not AWS, and nothing that would end a path or a host name.
fn is_bucket(text: &str) -> bool {
    (3..=255).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        && text.as_bytes()[0].is_ascii_alphanumeric()
}

/// Whether a text can be a region of AWS. It becomes part of host names, so it may hold nothing that ends one.
pub(super) fn is_region(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Whether a text can be the region of another store (`RegionOne`, `US_East`, `default`): part of a signature's scope, which slashes
/// and commas would end, and of nothing else.
pub(super) fn is_scope(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':'))
}

impl Bucket {
    /// The region the policy names.
    pub(super) fn region(&self) -> &str {
        &self.region
    }

    /// Where this bucket is asked, if not where AWS has it.
    pub(super) fn endpoint<'a>(&'a self, store: Option<&'a str>) -> Option<&'a str> {
        self.endpoint_url.as_deref().or(store)
    }

    /// The request: the first key of the bucket, if any (ListObjectsV2). A GET, because the answer to a HEAD has no body, and
    /// only the body tells an unknown key from a wrong secret from a missing right.
    ///
    /// Path-style wherever an endpoint is given (an address of numbers can have no bucket before it, and stores of one's own
    /// seldom have the certificate for it) and for names that are no host label or carry dots, which AWS's wildcard certificate does
    /// not cover.
    fn url(&self, endpoint: Option<&str>) -> Result<String, String> {
        let (bucket, region) = (&self.bucket, &self.region);
        let query = "list-type=2&max-keys=1";
        if let Some(endpoint) = self.endpoint(endpoint) {
            return Ok(format!("{}/{bucket}?{query}", endpoint.trim_end_matches('/')));
        }
        // The policy was checked when it was read; what comes out of a journal is checked here.
        if !is_region(region) {
            return Err(format!("`{region}` is no region of AWS, and no endpoint_url says where else the bucket is"));
        }
        // China is the one other public partition with a suffix of its own; the isolated ones must name their endpoint.
        let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let label =
            bucket.len() <= 63 && bucket.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        Ok(if label {
            format!("https://{bucket}.s3.{region}.{suffix}/?{query}")
        } else {
            format!("https://s3.{region}.{suffix}/{bucket}?{query}")
        })
    }

    /// Sends it, once, signed with the key at `now`. `client` follows no redirect and repeats nothing.
    ///
    /// # Errors
    /// Whatever says nothing of the key: no answer, a server's trouble, a bucket that is not there, a page of somebody in between.
    pub(super) async fn look(
        &self,
        client: &reqwest::Client,
        store: Store<'_>,
        key: &KeyId,
        secret: &Secret,
        now: SystemTime,
    ) -> Result<Probe, Fault> {
        let what = &format!("list one object of bucket {} with key {key}", self.bucket);
        let url = self
            .url(store.endpoint)
            .map_err(|why| Fault::Refused { reason: Reason::PolicyMismatch, why: format!("{what}: {why}") })?;
        let scope = sigv4::Scope { key, secret, region: &self.region, service: "s3" };
        let headers = sigv4::sign_get(&url, scope, now).map_err(|why| Fault::NotSent(format!("{what}: {why}")))?;
        let mut answer = client.get(&url).headers(headers).send().await.map_err(|error| unanswered(what, error))?;
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (region, retry_after) = (header("x-amz-bucket-region"), header("retry-after"));
        let status = answer.status().as_u16();
        let mut body = Vec::new();
        while body.len() < BODY_MAX {
            match answer.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk[..chunk.len().min(BODY_MAX - body.len())]),
                Ok(None) => break,
                Err(error) => return Err(unanswered(what, error)),
            }
        }
        let body = String::from_utf8_lossy(&body);
        let answer = Answer {
            status,
            code: element(&body, "Code"),
            message: element(&body, "Message"),
            retry_after: retry_after.as_deref().and_then(answer::seconds),
        };
        if status == 200 {
            // A login page answers 200 as well; only a listing proves that the key can read.
            return match body.contains("<ListBucketResult") {
                true => Ok(Probe::Works),
                false => Err(Fault::Unknown(format!("{what}: status 200 and a body that is no listing of a bucket"))),
            };
        }
        let region = region.as_deref().or(element(&body, "Region"));
        self.judge(what, store.right, answer, region)
    }

    /// What an answer other than 200 says of the key.
    fn judge(&self, what: &str, right: &str, answer: Answer<'_>, bucket_region: Option<&str>) -> Result<Probe, Fault> {
        let text = format!("{what}: {}", answer.text());
        let refused = |reason: Reason, why: String| Err(Fault::Refused { reason, why });
        let bucket_region = bucket_region.filter(|region| is_scope(region));
        // Whatever stands before a store may send elsewhere as well, to a login or a page about its maintenance; a store says why.
        let elsewhere = matches!(answer.status, 301 | 307) && (answer.code.is_some() || bucket_region.is_some());
        match answer.beside(what) {
            Some(fault) if !elsewhere => return Err(fault),
            _ => {}
        }
        match (answer.status, answer.code) {
            (301 | 307, _) | (400, Some("AuthorizationHeaderMalformed" | "IllegalLocationConstraintException")) => {
                let elsewhere = match bucket_region {
                    Some(region) => format!("the bucket is in region {region}, the policy says {}", self.region),
                    None => format!("the bucket is not in region {}", self.region),
                };
                refused(Reason::Refused, format!("{what}: {elsewhere}; {}", answer.text()))
            }
            (404, Some("NoSuchBucket")) => refused(Reason::NotFound, text),
            (_, Some("AccessDenied")) => Ok(self.denied(text, right, answer.message)),
            (_, Some(code)) => match standing(code) {
                Some(Standing::Unknown) => Ok(Probe::NotYet(text)),
                Some(Standing::Wrong) => Ok(Probe::Wrong(text)),
                Some(Standing::Barred) => Ok(Probe::NotAllowed(format!("{text}; {right}"))),
                None => refused(Reason::Refused, text),
            },
            (_, None) => Err(Fault::Unknown(text)),
        }
    }

    /// `AccessDenied`: at most stores a key that authenticates and may not. Garage says it of every refusal, and which one only its
    /// words tell (`Forbidden: No such key: GK…`, `Forbidden: Invalid signature`; src/api of its sources).
    fn denied(&self, text: String, right: &str, message: Option<&str>) -> Probe {
        let says = |words: &str| message.is_some_and(|message| message.contains(words));
        if says("No such key: ") {
            return Probe::NotYet(text);
        }
        if says("Forbidden: Invalid signature") {
            return Probe::Wrong(text);
        }
        if self.expect == Expect::Authenticates {
            tracing::info!(
                bucket = self.bucket,
                "the probe was denied access and counts as working: the policy expects only that the key authenticates"
            );
            return Probe::Works;
        }
        Probe::NotAllowed(format!("{text}; {right}"))
    }
}

/// What a refusal says of the key, whatever the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// There is none, or not yet, or no longer.
    Unknown,
    /// It is there, and the secret is another one.
    Wrong,
    /// It is there and opens nothing.
    Barred,
}

/// The codes by which stores tell of a key. Besides AWS's ("List of error codes" of the S3 reference): `InvalidSecurity` of Google's
/// XML API ("HTTP status and error codes for XML": "the provided security credentials are not valid"), `NotSignedUp` of stores that
/// know no account to a key, `UserSuspended` of Ceph.
fn standing(code: &str) -> Option<Standing> {
    match code {
        "InvalidAccessKeyId" | "InvalidClientTokenId" | "InvalidSecurity" | "NotSignedUp" => Some(Standing::Unknown),
        "SignatureDoesNotMatch" => Some(Standing::Wrong),
        "AllAccessDisabled" | "AccountProblem" | "UserSuspended" => Some(Standing::Barred),
        _ => None,
    }
}

/// No answer to the GET. It changes nothing, so what matters is only whether waiting helps.
fn unanswered(what: &str, error: reqwest::Error) -> Fault {
    let error = error.without_url();
    if let Some(fault) = answer::untrusted(what, &error) {
        return fault;
    }
    match error.is_connect() || error.is_builder() {
        true => Fault::NotSent(format!("{what}: {}", answer::chain(&error))),
        false => Fault::Unknown(format!("{what}: {}", answer::chain(&error))),
    }
}

#[cfg(test)]
mod tests;
