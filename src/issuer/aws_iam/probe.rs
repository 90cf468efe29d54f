//! Whether a key works as its consumer uses it: STS tells whose it is, then a look into the consumer's own bucket.
//!
//! Reads tables, builds addresses and judges answers; the requests change nothing. It cannot tell a key that is not yet known from
//! one that is inactive or gone: AWS answers all three alike. How long "not yet" may last is the engine's to say.

use std::net::IpAddr;
use std::time::SystemTime;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use serde::{Deserialize, Serialize};

use super::account::{Account, is_region};
use super::faults::{self, Answer, Call};
use crate::model::{KeyId, Reason, Secret};
use crate::net::sigv4;
use crate::net::xml::element;
use crate::ports::{Fault, Probe};
use crate::table::Table;

/// A probe as it may be written: the consumer's own kind of request on its own bucket.
pub(super) const FORM: &str = "probe = { bucket = \"gis-store\", region = \"us-east-1\", expect = \"read\" }";

/// More of an answer than this is not read; a listing of one object is far smaller.
const BODY_MAX: usize = 64 * 1024;

/// `probe = { … }` of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Bucket {
    bucket: String,
    /// The bucket's region, where the consumer's requests go and where a new key must be known.
    pub(super) region: String,
    expect: Expect,
    /// Comes before the account's.
    endpoint_url: Option<String>,
}

/// What must succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expect {
    /// The listing itself.
    Read,
    /// Only that S3 knows the key: a bucket policy may keep rekeyd's network out.
    Authenticates,
}

/// Reads `[service.issuer].probe`; mistakes go into the report.
pub(super) fn read(table: &mut Table<'_>, account: Option<&Account>) -> Option<Bucket> {
    let mut probe = table.table("probe")?;
    let bucket = probe.text("bucket");
    if let Some(bucket) = &bucket
        && !is_bucket(bucket)
    {
        probe.mistake("bucket", format!("`{bucket}` is no bucket's name"), format!("write `{FORM}`"));
    }
    let region = probe.text_or("region").or_else(|| account.and_then(|account| account.region.clone()));
    match &region {
        None => probe.mistake("region", "no region, and the account names none either", format!("write `{FORM}`")),
        Some(region) if !is_region(region) => {
            probe.mistake("region", format!("`{region}` is no region"), format!("write `{FORM}`"))
        }
        Some(_) => {}
    }
    let expect = match probe.choice("expect", &["read", "authenticates"]) {
        Some("authenticates") => Expect::Authenticates,
        _ => Expect::Read,
    };
    let endpoint_url = probe.url("endpoint_url");
    Some(Bucket { bucket: bucket?, region: region?, expect, endpoint_url })
}

/// Wide enough for stores that are not AWS, and nothing that would end a path or a host name.
fn is_bucket(text: &str) -> bool {
    (3..=255).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        && text.as_bytes()[0].is_ascii_alphanumeric()
}

impl Bucket {
    /// The custom endpoint this bucket is asked at, if any.
    pub(super) fn endpoint<'a>(&'a self, account: &'a Account) -> Option<&'a str> {
        self.endpoint_url.as_deref().or_else(|| account.s3_endpoint())
    }

    /// The request: the first key of the bucket, if any (ListObjectsV2). A GET, because the answer to a HEAD has no body, and
    /// only the body tells an unknown key from a wrong secret from a missing right.
    ///
    /// Path-style wherever an endpoint is given (an address of numbers can have no bucket before it, and stores of one's own
    /// seldom have the certificate for it) and for names that are no host label or carry dots, which AWS's wildcard certificate does
    /// not cover.
    fn url(&self, account: &Account) -> String {
        let (bucket, region) = (&self.bucket, &self.region);
        let query = "list-type=2&max-keys=1";
        if let Some(endpoint) = self.endpoint(account) {
            return format!("{}/{bucket}?{query}", endpoint.trim_end_matches('/'));
        }
        // China is the one other public partition with a suffix of its own; the isolated ones must name their endpoint.
        let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let label =
            bucket.len() <= 63 && bucket.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if label {
            format!("https://{bucket}.s3.{region}.{suffix}/?{query}")
        } else {
            format!("https://s3.{region}.{suffix}/{bucket}?{query}")
        }
    }

    /// Sends it, once, signed with the key at `now`.
    pub(super) async fn look(
        &self,
        client: &reqwest::Client,
        account: &Account,
        key: &KeyId,
        secret: &Secret,
        now: SystemTime,
    ) -> Result<Probe, Fault> {
        let call = &Call::new(format!("list one object of bucket {} with key {key}", self.bucket));
        let url = self.url(account);
        let scope = sigv4::Scope { key, secret, region: &self.region, service: "s3" };
        let headers = sigv4::sign_get(&url, scope, now).map_err(|why| Fault::NotSent(call.text(why)))?;
        let mut answer = client.get(&url).headers(headers).send().await.map_err(|error| unanswered(call, error))?;
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (region, retry_after) = (header("x-amz-bucket-region"), header("retry-after"));
        let status = answer.status().as_u16();
        let mut body = Vec::new();
        while body.len() < BODY_MAX {
            match answer.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(error) => return Err(unanswered(call, error)),
            }
        }
        let body = String::from_utf8_lossy(&body);
        let answer = Answer {
            status,
            code: element(&body, "Code"),
            message: element(&body, "Message"),
            retry_after: retry_after.as_deref().and_then(faults::seconds),
        };
        if status == 200 {
            // A login page answers 200 as well; only a listing proves that the key can read.
            return match body.contains("<ListBucketResult") {
                true => Ok(Probe::Works),
                false => Err(Fault::Unknown(call.text("status 200 and a body that is no listing of a bucket"))),
            };
        }
        let region = region.as_deref().or(element(&body, "Region"));
        self.judge(call, answer, region)
    }

    /// What an answer other than 200 says of the key.
    fn judge(&self, call: &Call, answer: Answer<'_>, bucket_region: Option<&str>) -> Result<Probe, Fault> {
        let refused = |reason: Reason, what: String| Err(Fault::Refused { reason, why: call.text(what) });
        if answer.is_clock() || answer.is_throttle() || answer.status >= 500 {
            return Err(faults::answered(call, answer));
        }
        match (answer.status, answer.code) {
            (301 | 307, _) | (400, Some("AuthorizationHeaderMalformed" | "IllegalLocationConstraintException")) => {
                let elsewhere = match bucket_region {
                    Some(region) => format!("the bucket is in region {region}, the policy says {}", self.region),
                    None => format!("the bucket is not in region {}", self.region),
                };
                refused(Reason::Refused, format!("{elsewhere}; {}", answer.text()))
            }
            (404, Some("NoSuchBucket")) => refused(Reason::NotFound, answer.text()),
            (_, Some("InvalidAccessKeyId" | "InvalidClientTokenId")) => Ok(Probe::NotYet(call.text(answer.text()))),
            (_, Some("SignatureDoesNotMatch")) => Ok(Probe::Wrong(call.text(answer.text()))),
            (_, Some("AccessDenied")) if self.expect == Expect::Authenticates => {
                tracing::info!(
                    bucket = self.bucket,
                    "the probe was denied access and counts as working: the policy expects only that the key authenticates"
                );
                Ok(Probe::Works)
            }
            (_, Some("AccessDenied" | "AllAccessDisabled" | "AccountProblem")) => Ok(Probe::NotAllowed(
                call.text(format_args!("{}; the key's user needs s3:ListBucket there", answer.text())),
            )),
            _ => Err(faults::answered(call, answer)),
        }
    }
}

/// No answer to the probe's GET. It changes nothing, so what matters is only whether waiting helps.
fn unanswered(call: &Call, error: reqwest::Error) -> Fault {
    let error = error.without_url();
    if let Some(fault) = faults::untrusted(call, &error) {
        return fault;
    }
    match error.is_connect() || error.is_builder() {
        true => Fault::NotSent(call.text(faults::chain(&error))),
        false => Fault::Unknown(call.text(faults::chain(&error))),
    }
}

/// What a refused `GetCallerIdentity` with the probed key says of it; `None` where it says nothing of the key.
pub(super) fn refused<E: ProvideErrorMetadata>(call: &Call, error: &SdkError<E, HttpResponse>) -> Option<Probe> {
    let answer = Answer::of(error)?;
    if answer.is_clock() || answer.is_throttle() || answer.status >= 500 {
        return None;
    }
    let text = call.text(answer.text());
    match (answer.status, answer.code) {
        (_, Some("InvalidClientTokenId" | "UnrecognizedClientException" | "InvalidAccessKeyId")) => {
            Some(Probe::NotYet(text))
        }
        (_, Some("SignatureDoesNotMatch" | "InvalidSignatureException" | "IncompleteSignature")) => {
            Some(Probe::Wrong(text))
        }
        (_, Some("AccessDenied" | "AccessDeniedException")) => Some(Probe::NotAllowed(text)),
        _ => None,
    }
}

/// The parts of an ARN that say whose key it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// `aws`, `aws-us-gov`, `aws-cn`.
    pub(super) partition: String,
    /// Twelve digits at AWS, anything at other stores.
    pub(super) account: String,
    /// The IAM user's name without its path; `None` where it is no user (a role, the root).
    pub(super) user: Option<String>,
}

impl Owner {
    /// From `GetCallerIdentity`'s ARN: `arn:PARTITION:iam::ACCOUNT:user/PATH/NAME`.
    pub(super) fn parse(arn: &str) -> Option<Self> {
        let mut parts = arn.splitn(6, ':');
        let ("arn", partition, _service, _region) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?) else {
            return None;
        };
        let (account, resource) = (parts.next()?, parts.next()?);
        // A user's name has no slash; what stands before the last one is the user's path.
        let user = resource.strip_prefix("user/").and_then(|path| path.rsplit('/').next()).map(str::to_owned);
        (!partition.is_empty()).then(|| Self { partition: partition.to_owned(), account: account.to_owned(), user })
    }

    /// The account with its partition: `aws:123456789012`.
    pub(super) fn name(&self) -> String {
        format!("{}:{}", self.partition, self.account)
    }

    /// Whether a key that answers as `self` is one of `user` in the account `ours`; else what is wrong.
    pub(super) fn check(&self, user: &str, ours: &Owner) -> Result<(), String> {
        if self.user.as_deref() != Some(user) {
            let whose = self.user.as_deref().unwrap_or("nobody's user");
            return Err(format!("the key belongs to {whose}, not to {user}"));
        }
        if (&self.partition, &self.account) != (&ours.partition, &ours.account) {
            return Err(format!("the key belongs to account {}, the rotator to {}", self.name(), ours.name()));
        }
        Ok(())
    }
}

/// Whether an endpoint's host is this machine.
pub(super) fn is_loopback(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else { return false };
    let Some(host) = uri.host() else { return false };
    host == "localhost"
        || host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(s3: Option<&str>) -> Account {
        let mut config =
            serde_json::json!({ "settle_ms": 600_000, "last_used_lag_ms": 0, "request_timeout_ms": 30_000 });
        config["s3_endpoint_url"] = serde_json::json!(s3);
        serde_json::from_value(config).expect("an account")
    }

    fn bucket(name: &str, region: &str, expect: Expect) -> Bucket {
        Bucket { bucket: name.to_owned(), region: region.to_owned(), expect, endpoint_url: None }
    }

    fn judged(expect: Expect, status: u16, body: &str) -> Result<Probe, Fault> {
        let answer =
            Answer { status, code: element(body, "Code"), message: element(body, "Message"), retry_after: None };
        bucket("gis-store", "us-east-1", expect).judge(&Call::new("look"), answer, element(body, "Region"))
    }

    /// S3's error document, as S3 writes it.
    fn error(code: &str, more: &str) -> String {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>It said so.</Message>{more}\
             <RequestId>656c76696e6727732072657175657374</RequestId><HostId>Uuag1LuByRx9e6j5Onimru9pO4ZVKnJ2Qz7/C1NPcfTWAtRPfTaOFg==</HostId></Error>"
        )
    }

    #[test]
    fn a_bucket_is_addressed_as_its_name_and_endpoint_allow() {
        for (name, region, endpoint, expected) in [
            ("gis-store", "eu-west-1", None, "https://gis-store.s3.eu-west-1.amazonaws.com/?list-type=2&max-keys=1"),
            (
                "gis-store",
                "cn-north-1",
                None,
                "https://gis-store.s3.cn-north-1.amazonaws.com.cn/?list-type=2&max-keys=1",
            ),
            ("gis.store", "eu-west-1", None, "https://s3.eu-west-1.amazonaws.com/gis.store?list-type=2&max-keys=1"),
            ("Gis_Store", "us-east-1", None, "https://s3.us-east-1.amazonaws.com/Gis_Store?list-type=2&max-keys=1"),
            ("gis-store", "x", Some("http://127.0.0.1:9000"), "http://127.0.0.1:9000/gis-store?list-type=2&max-keys=1"),
            (
                "gis-store",
                "x",
                Some("https://s3.example.com/base"),
                "https://s3.example.com/base/gis-store?list-type=2&max-keys=1",
            ),
        ] {
            assert_eq!(bucket(name, region, Expect::Read).url(&account(endpoint)), expected);
        }
    }

    #[test]
    fn the_services_own_endpoint_comes_before_the_accounts() {
        let account = account(Some("https://s3.example.com"));
        let own = Bucket { endpoint_url: Some("https://other.example.com".into()), ..bucket("b-1", "x", Expect::Read) };
        assert_eq!(own.endpoint(&account), Some("https://other.example.com"));
    }

    #[test]
    fn a_key_not_known_yet_is_told_from_a_wrong_one_and_from_one_without_rights() {
        let read = |status, code| judged(Expect::Read, status, &error(code, ""));
        assert_eq!(
            read(403, "InvalidAccessKeyId"),
            Ok(Probe::NotYet("look: InvalidAccessKeyId (403): It said so.".into()))
        );
        assert_eq!(
            read(403, "SignatureDoesNotMatch"),
            Ok(Probe::Wrong("look: SignatureDoesNotMatch (403): It said so.".into()))
        );
        assert_eq!(
            read(403, "AccessDenied"),
            Ok(Probe::NotAllowed(
                "look: AccessDenied (403): It said so.; the key's user needs s3:ListBucket there".into()
            ))
        );
        // Not AWS but something before it, such as a proxy: it says nothing of the key.
        assert!(matches!(judged(Expect::Read, 403, ""), Err(Fault::Unknown(_))));
    }

    #[test]
    fn a_denied_look_is_enough_where_only_authentication_is_expected() {
        assert_eq!(judged(Expect::Authenticates, 403, &error("AccessDenied", "")), Ok(Probe::Works));
        assert!(matches!(judged(Expect::Authenticates, 403, &error("InvalidAccessKeyId", "")), Ok(Probe::NotYet(_))));
        assert!(matches!(judged(Expect::Authenticates, 403, &error("SignatureDoesNotMatch", "")), Ok(Probe::Wrong(_))));
    }

    #[test]
    fn a_bucket_elsewhere_or_nowhere_is_the_policys_mistake() {
        let elsewhere =
            judged(Expect::Read, 400, &error("AuthorizationHeaderMalformed", "<Region>eu-central-1</Region>"));
        assert_eq!(
            elsewhere,
            Err(Fault::Refused {
                reason: Reason::Refused,
                why: "look: the bucket is in region eu-central-1, the policy says us-east-1; \
                      AuthorizationHeaderMalformed (400): It said so."
                    .into()
            })
        );
        let nowhere = judged(Expect::Read, 404, &error("NoSuchBucket", "<BucketName>gis-store</BucketName>"));
        assert!(matches!(nowhere, Err(Fault::Refused { reason: Reason::NotFound, .. })), "{nowhere:?}");
    }

    #[test]
    fn what_says_nothing_about_the_key_is_a_fault() {
        let read = |status, code| judged(Expect::Read, status, &error(code, ""));
        assert!(matches!(read(503, "SlowDown"), Err(Fault::Retry { .. })));
        assert!(matches!(read(403, "RequestTimeTooSkewed"), Err(Fault::Retry { .. })));
        assert!(matches!(read(500, "InternalError"), Err(Fault::Unknown(_))));
        assert!(matches!(judged(Expect::Read, 502, "<html>"), Err(Fault::Unknown(_))));
        assert!(matches!(judged(Expect::Read, 404, "<html>"), Err(Fault::Unknown(_))));
    }

    #[test]
    fn an_arn_tells_whose_a_key_is() {
        let ours = Owner::parse("arn:aws:iam::123456789012:user/rotator").expect("an arn");
        let check = |arn| Owner::parse(arn).expect("an arn").check("arcgis-object-store", &ours);
        assert_eq!(check("arn:aws:iam::123456789012:user/arcgis-object-store"), Ok(()));
        assert_eq!(check("arn:aws:iam::123456789012:user/gis/prod/arcgis-object-store"), Ok(()));
        for (arn, why) in [
            (
                "arn:aws:iam::123456789012:user/not-arcgis-object-store",
                "the key belongs to not-arcgis-object-store, not to arcgis-object-store",
            ),
            (
                "arn:aws:iam::123456789012:user/arcgis-object-store/other",
                "the key belongs to other, not to arcgis-object-store",
            ),
            (
                "arn:aws:sts::123456789012:assumed-role/r/arcgis-object-store",
                "the key belongs to nobody's user, not to arcgis-object-store",
            ),
            (
                "arn:aws:iam::210987654321:user/arcgis-object-store",
                "the key belongs to account aws:210987654321, the rotator to aws:123456789012",
            ),
            (
                "arn:aws-cn:iam::123456789012:user/arcgis-object-store",
                "the key belongs to account aws-cn:123456789012, the rotator to aws:123456789012",
            ),
        ] {
            assert_eq!(check(arn), Err(why.to_owned()), "{arn}");
        }
        for none in ["", "arn:aws:iam", "urn:aws:iam::1:user/x", "arn::iam::1:user/x"] {
            assert_eq!(Owner::parse(none), None, "{none}");
        }
    }

    #[test]
    fn only_this_host_is_loopback() {
        for here in ["http://127.0.0.1:5000", "http://[::1]:5000", "http://localhost", "http://127.9.9.9/x"] {
            assert!(is_loopback(here), "{here}");
        }
        for there in ["http://127.0.0.1.example.com", "http://10.0.0.1", "http://example.com", "", "http://[::2]"] {
            assert!(!is_loopback(there), "{there}");
        }
    }

    #[test]
    fn a_buckets_name_cannot_end_a_path() {
        assert!(is_bucket("gis-store") && is_bucket("Gis.Store_1"));
        for wrong in ["", "ab", "a/b", "a?b=c", "-abc", ".abc", "a b c"] {
            assert!(!is_bucket(wrong), "{wrong}");
        }
    }
}
