//! How a look is judged, code for code, and where it goes.

use super::*;
use crate::table;

const RIGHT: &str = "the key's user needs s3:ListBucket there";

fn bucket(name: &str, region: &str, expect: Expect) -> Bucket {
    Bucket { bucket: name.to_owned(), region: region.to_owned(), expect, endpoint_url: None }
}

fn judged(expect: Expect, status: u16, body: &str) -> Result<Probe, Fault> {
    let answer = Answer { status, code: element(body, "Code"), message: element(body, "Message"), retry_after: None };
    bucket("gis-store", "us-east-1", expect).judge("look", RIGHT, answer, element(body, "Region"))
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
        ("gis-store", "cn-north-1", None, "https://gis-store.s3.cn-north-1.amazonaws.com.cn/?list-type=2&max-keys=1"),
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
        assert_eq!(bucket(name, region, Expect::Read).url(endpoint).as_deref(), Ok(expected));
    }
}

#[test]
fn the_services_own_endpoint_comes_before_the_stores() {
    let own = Bucket { endpoint_url: Some("https://other.example.com".into()), ..bucket("b-1", "x", Expect::Read) };
    assert_eq!(own.endpoint(Some("https://s3.example.com")), Some("https://other.example.com"));
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
        Ok(Probe::NotAllowed("look: AccessDenied (403): It said so.; the key's user needs s3:ListBucket there".into()))
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
    let elsewhere = judged(Expect::Read, 400, &error("AuthorizationHeaderMalformed", "<Region>eu-central-1</Region>"));
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
fn a_buckets_name_cannot_end_a_path() {
    assert!(is_bucket("gis-store") && is_bucket("Gis.Store_1"));
    for wrong in ["", "ab", "a/b", "a?b=c", "-abc", ".abc", "a b c"] {
        assert!(!is_bucket(wrong), "{wrong}");
    }
}

/// A portal or a page about maintenance, which says nothing of the bucket: it passes, and no region is wrong.
#[test]
fn somebody_elses_redirect_is_no_answer_of_a_store() {
    for (status, body) in [(301, ""), (307, "<html>Sign in</html>"), (301, "<Region>no region!</Region>"), (302, "")] {
        let told = judged(Expect::Read, status, body);
        assert!(matches!(told, Err(Fault::Unknown(_))), "{status} {body}: {told:?}");
    }
    for (status, body) in [
        (301, error("PermanentRedirect", "")),
        (307, error("TemporaryRedirect", "")),
        (301, "<Region>eu</Region>".into()),
    ] {
        let told = judged(Expect::Read, status, &body);
        assert!(matches!(&told, Err(Fault::Refused { why, .. }) if why.contains("the bucket is")), "{body}: {told:?}");
    }
}

/// Each as its own store words it.
#[test]
fn other_stores_say_the_same_in_other_words() {
    let read = |status, code: &str, message: &str| {
        let body = format!(
            "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        );
        judged(Expect::Read, status, &body).expect("an answer about the key")
    };
    assert!(matches!(
        read(403, "InvalidSecurity", "The provided security credentials are not valid."),
        Probe::NotYet(_)
    ));
    assert!(matches!(read(403, "NotSignedUp", "Your account is not signed up"), Probe::NotYet(_)));
    assert!(matches!(
        read(403, "AccessDenied", "Forbidden: No such key: GK31c2f218a2e44f485b94239e"),
        Probe::NotYet(_)
    ));
    assert!(matches!(read(403, "AccessDenied", "Forbidden: Invalid signature"), Probe::Wrong(_)));
    assert!(matches!(read(403, "AccessDenied", "Access denied."), Probe::NotAllowed(_)));
    assert!(matches!(read(403, "UserSuspended", ""), Probe::NotAllowed(_)));
}

/// At Garage every refusal is an `AccessDenied`, so the words decide before the expectation does.
#[test]
fn a_key_nobody_knows_does_not_authenticate_whatever_the_code() {
    let said = |message: &str| {
        judged(
            Expect::Authenticates,
            403,
            &format!("<Error><Code>AccessDenied</Code><Message>{message}</Message></Error>"),
        )
    };
    assert!(matches!(said("Forbidden: No such key: GK31"), Ok(Probe::NotYet(_))));
    assert!(matches!(said("Forbidden: Invalid signature"), Ok(Probe::Wrong(_))));
    assert_eq!(said("Forbidden: Operation is not allowed for this key."), Ok(Probe::Works));
}

#[test]
fn a_region_of_aws_cannot_end_a_host_name_and_another_only_a_scope() {
    assert!(is_region("us-east-1") && is_region("garage"));
    assert!(is_scope("RegionOne") && is_scope("us_east") && is_scope("default"));
    for wrong in ["", "us east", "x.evil.example", "a/b", "US-EAST-1"] {
        assert!(!is_region(wrong), "{wrong}");
    }
    for wrong in ["", "us east", "a/b", "a,b", "a\"b", "régión"] {
        assert!(!is_scope(wrong), "{wrong}");
    }
}

#[test]
fn a_region_out_of_a_journal_leads_nowhere_else() {
    let odd = bucket("gis-store", "x.evil.example/", Expect::Read);
    assert_eq!(
        odd.url(None),
        Err("`x.evil.example/` is no region of AWS, and no endpoint_url says where else the bucket is".to_owned())
    );
}

#[test]
fn a_probe_takes_the_region_its_kind_knows_and_any_name_where_the_store_has_an_address() {
    const TEXT: &str = "probe = { bucket = \"gis-store\" }";
    let parsed = |text: &str, region: Option<&str>, at: fn(&mut Table<'_>, Form<'_>) -> Option<Bucket>| {
        table::read(text, "policy.toml", |table| at(table, Form { text: TEXT, region }))
            .map(|bucket| bucket.expect("read").region().to_owned())
            .map_err(|report| report.to_string())
    };
    assert_eq!(parsed("probe = { bucket = \"gis\" }", Some("auto"), read).as_deref(), Ok("auto"));
    let odd = "probe = { bucket = \"gis\", region = \"RegionOne\" }";
    assert_eq!(parsed(odd, None, read).as_deref(), Ok("RegionOne"));
    let told = parsed(odd, None, read_at_aws).expect_err("no region of AWS");
    assert!(told.contains("`RegionOne` is no region") && told.contains(TEXT), "{told}");
    let with_address =
        "probe = { bucket = \"gis\", region = \"RegionOne\", endpoint_url = \"https://s3.example.com\" }";
    assert_eq!(parsed(with_address, None, read_at_aws).as_deref(), Ok("RegionOne"));
    let told = parsed("probe = { bucket = \"gis\" }", None, read).expect_err("no region");
    assert!(told.contains("no region, and the account names none either"), "{told}");
}
