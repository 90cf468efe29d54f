//! The stand-in refuses what AWS refuses, and its faults do what they say.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use reqwest::Method;

use super::*;
use crate::sigv4::Unsigned;

type Pair = (String, String);

/// A plain HTTP client with a key: what it sends may be spoilt before it goes.
struct Client<'a> {
    aws: &'a Aws,
    key: Pair,
    at: DateTime<Utc>,
}

/// Status, body, `Date`.
type Answer = Result<(u16, String, String), reqwest::Error>;

impl<'a> Client<'a> {
    fn new(aws: &'a Aws, key: Pair) -> Self {
        Self { aws, key, at: Utc::now() }
    }

    fn admin(aws: &'a Aws) -> Self {
        Self::new(aws, aws.admin())
    }

    async fn send(
        &self,
        method: Method,
        service: &str,
        path: &str,
        signed: (&str, &str),
        sent: (&str, &str),
    ) -> Answer {
        let endpoint = self.aws.endpoint();
        let host = endpoint.trim_start_matches("http://");
        let unsigned = Unsigned {
            method: method.as_str(),
            host,
            path,
            query: signed.0,
            body: signed.1,
            region: "us-east-1",
            service,
        };
        let mut request = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .build()
            .expect("a plain client")
            .request(method.clone(), format!("{endpoint}{path}?{}", sent.0))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(sent.1.to_owned());
        for (name, value) in unsigned.sign((&self.key.0, &self.key.1), self.at) {
            request = request.header(name, value);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let date = response.headers()["date"].to_str().expect("dates are text").to_owned();
        Ok((status, response.text().await?, date))
    }

    async fn iam(&self, action: &str, rest: &str) -> Answer {
        let body = format!("Action={action}&Version=2010-05-08{rest}");
        self.send(Method::POST, "iam", "/", ("", &body), ("", &body)).await
    }

    async fn sts(&self) -> (u16, String) {
        let body = "Action=GetCallerIdentity&Version=2011-06-15";
        let answer = self.send(Method::POST, "sts", "/", ("", body), ("", body)).await;
        answer.map(|(status, body, _)| (status, body)).expect("STS answers")
    }

    async fn s3(&self, bucket: &str) -> (u16, String) {
        let query = ("list-type=2&max-keys=1", "");
        let answer = self.send(Method::GET, "s3", &format!("/{bucket}"), query, query).await;
        answer.map(|(status, body, _)| (status, body)).expect("S3 answers")
    }
}

fn code((status, body): (u16, String)) -> (u16, String) {
    (status, between(&body, "Code").to_owned())
}

fn between<'a>(body: &'a str, tag: &str) -> &'a str {
    let start = format!("<{tag}>");
    let rest = body.split_once(start.as_str()).map_or("", |(_, rest)| rest);
    rest.split_once(&format!("</{tag}>")).map_or("", |(value, _)| value)
}

async fn store(options: AwsOptions) -> Aws {
    let aws = Aws::start(options).await;
    aws.add_user("store");
    aws.add_bucket("gis-store", &["store"]);
    aws
}

async fn mint(aws: &Aws) -> Pair {
    let (status, body, _) = Client::admin(aws).iam("CreateAccessKey", "&UserName=store").await.expect("IAM answers");
    assert_eq!(status, 200, "{body}");
    (between(&body, "AccessKeyId").to_owned(), between(&body, "SecretAccessKey").to_owned())
}

#[tokio::test]
async fn a_right_signature_is_told_who_it_is_and_may_read_its_bucket() {
    let aws = store(AwsOptions::default()).await;
    let key = mint(&aws).await;
    let (status, body) = Client::new(&aws, key.clone()).sts().await;
    assert_eq!((status, between(&body, "Arn")), (200, "arn:aws:iam::111122223333:user/store"));
    assert_eq!(Client::new(&aws, key.clone()).s3("gis-store").await.0, 200);
    assert_eq!(code(Client::new(&aws, key).s3("elsewhere").await), (404, "NoSuchBucket".to_owned()));
    assert_eq!(code(Client::admin(&aws).s3("gis-store").await), (403, "AccessDenied".to_owned()));
}

#[tokio::test]
async fn a_wrong_secret_a_changed_query_and_an_old_date_are_refused() {
    let aws = store(AwsOptions::default()).await;
    let key = aws.create_key("store");
    let mismatch = (403, "SignatureDoesNotMatch".to_owned());

    let wrong = Client::new(&aws, (key.0.clone(), key.1.replace('+', " ")));
    assert_eq!(code(wrong.sts().await), mismatch);
    assert_eq!(code(wrong.s3("gis-store").await), mismatch);

    let right = Client::new(&aws, key.clone());
    let changed = right.send(Method::GET, "s3", "/gis-store", ("max-keys=1", ""), ("max-keys=2", "")).await;
    assert_eq!(code(changed.map(|(s, b, _)| (s, b)).expect("S3 answers")), mismatch);

    let old = Client { at: Utc::now() - TimeDelta::minutes(16), ..Client::new(&aws, key) };
    let (status, body) = old.sts().await;
    assert!(status == 403 && between(&body, "Message").starts_with("Signature expired: "), "{body}");
    assert_eq!(code(old.s3("gis-store").await), (403, "RequestTimeTooSkewed".to_owned()));
}

#[tokio::test]
async fn a_changed_body_is_refused() {
    let aws = store(AwsOptions::default()).await;
    let (signed, sent) = (
        "Action=DeleteAccessKey&Version=2010-05-08&UserName=a",
        "Action=DeleteAccessKey&Version=2010-05-08&UserName=b",
    );
    let answer = Client::admin(&aws).send(Method::POST, "iam", "/", ("", signed), ("", sent)).await;
    assert_eq!(code(answer.map(|(s, b, _)| (s, b)).expect("IAM answers")), (403, "SignatureDoesNotMatch".to_owned()));
}

#[tokio::test]
async fn disabled_deleted_and_unknown_keys_are_refused_alike() {
    let aws = store(AwsOptions::default()).await;
    let key = aws.create_key("store");
    let client = Client::new(&aws, key.clone());
    let (sts, s3) = ((403, "InvalidClientTokenId".to_owned()), (403, "InvalidAccessKeyId".to_owned()));
    aws.set_status("store", &key.0, false);
    assert_eq!((code(client.sts().await), code(client.s3("gis-store").await)), (sts.clone(), s3.clone()));
    aws.set_status("store", &key.0, true);
    assert_eq!(client.s3("gis-store").await.0, 200);
    aws.delete_key("store", &key.0);
    assert_eq!((code(client.sts().await), code(client.s3("gis-store").await)), (sts, s3));
    assert_eq!(aws.secret_of(&key.0), Some(key.1));
}

#[tokio::test]
async fn a_fresh_key_is_unknown_until_it_has_propagated() {
    let aws = store(AwsOptions { propagation: Duration::from_secs(60), ..AwsOptions::default() }).await;
    let fresh = Client::new(&aws, mint(&aws).await);
    assert_eq!(code(fresh.sts().await), (403, "InvalidClientTokenId".to_owned()));
    assert_eq!(code(fresh.s3("gis-store").await), (403, "InvalidAccessKeyId".to_owned()));
    aws.set_propagation(Duration::ZERO);
    assert_eq!((fresh.sts().await.0, fresh.s3("gis-store").await.0), (200, 200));
}

#[tokio::test]
async fn a_third_key_is_over_the_quota_even_when_one_is_disabled() {
    let aws = store(AwsOptions::default()).await;
    mint(&aws).await;
    let (second, _) = mint(&aws).await;
    aws.set_status("store", &second, false);
    let (status, body, _) = Client::admin(&aws).iam("CreateAccessKey", "&UserName=store").await.expect("IAM answers");
    assert_eq!((status, between(&body, "Code")), (409, "LimitExceeded"));
    assert_eq!(between(&body, "Message"), "Cannot exceed quota for AccessKeysPerUser: 2");
    assert_eq!(aws.mints(), 2);
}

#[tokio::test]
async fn what_is_denied_is_named() {
    let aws = store(AwsOptions::default()).await;
    aws.deny("iam:CreateAccessKey");
    let (status, body, _) = Client::admin(&aws).iam("CreateAccessKey", "&UserName=store").await.expect("IAM answers");
    assert_eq!((status, between(&body, "Code")), (403, "AccessDenied"));
    let start = "User: arn:aws:iam::111122223333:user/rotator is not authorized to perform: iam:CreateAccessKey on resource: user store";
    assert!(between(&body, "Message").starts_with(start), "{body}");
    aws.allow("iam:CreateAccessKey");
    mint(&aws).await;
}

#[tokio::test]
async fn a_listing_lags_behind_mints_and_deletions() {
    let aws = store(AwsOptions { listing_lag: Duration::from_secs(60), ..AwsOptions::default() }).await;
    let old = aws.create_key("store").0;
    let young = mint(&aws).await.0;
    aws.delete_key("store", &old);
    let list = || async { Client::admin(&aws).iam("ListAccessKeys", "&UserName=store").await.expect("IAM answers").1 };
    let lagging = list().await;
    assert!(lagging.contains(&old) && !lagging.contains(&young));
    aws.set_listing_lag(Duration::ZERO);
    let now = list().await;
    assert!(!now.contains(&old) && now.contains(&young));
}

#[tokio::test]
async fn a_listing_comes_in_pages() {
    let aws = store(AwsOptions { page_size: 1, ..AwsOptions::default() }).await;
    let (one, two) = (aws.create_key("store").0, aws.create_key("store").0);
    let admin = Client::admin(&aws);
    let first = admin.iam("ListAccessKeys", "&UserName=store").await.expect("IAM answers").1;
    assert!(first.contains(&one) && !first.contains(&two) && first.contains("<IsTruncated>true</IsTruncated>"));
    let marker = crate::form::encode(between(&first, "Marker"));
    let rest = format!("&UserName=store&Marker={marker}");
    let second = admin.iam("ListAccessKeys", &rest).await.expect("IAM answers").1;
    assert!(second.contains(&two) && !second.contains(&one) && second.contains("<IsTruncated>false</IsTruncated>"));
}

#[tokio::test]
async fn a_use_is_reported_when_its_lag_is_over() {
    let aws = store(AwsOptions { last_used_lag: Duration::from_secs(60), ..AwsOptions::default() }).await;
    let key = aws.create_key("store");
    assert_eq!(Client::new(&aws, key.clone()).s3("gis-store").await.0, 200);
    let ask = || async {
        let rest = format!("&AccessKeyId={}", key.0);
        Client::admin(&aws).iam("GetAccessKeyLastUsed", &rest).await.expect("IAM answers").1
    };
    let early = ask().await;
    assert_eq!((between(&early, "ServiceName"), between(&early, "LastUsedDate")), ("N/A", ""));
    aws.set_last_used_lag(Duration::ZERO);
    let late = ask().await;
    assert_eq!((between(&late, "ServiceName"), between(&late, "LastUsedDate").len()), ("s3", 20));
}

#[tokio::test]
async fn faults_do_what_they_say_and_are_spent() {
    let aws = store(AwsOptions { quota: 9, ..AwsOptions::default() }).await;
    let admin = Client::admin(&aws);
    let create = || admin.iam("CreateAccessKey", "&UserName=store");

    aws.fault("CreateAccessKey", Fault::DropBefore);
    assert!(create().await.is_err() && aws.mints() == 0);
    aws.fault("CreateAccessKey", Fault::LostReply);
    assert!(create().await.is_err() && aws.mints() == 1);
    aws.fault("CreateAccessKey", Fault::ErrorAfterCommit(500));
    assert!(create().await.is_ok_and(|a| a.0 == 500) && aws.mints() == 2);
    aws.fault("CreateAccessKey", Fault::Error(503));
    assert!(create().await.is_ok_and(|a| a.0 == 503) && aws.mints() == 2);
    aws.fault("CreateAccessKey", Fault::Throttle);
    assert!(create().await.is_ok_and(|a| a.0 == 400 && between(&a.1, "Code") == "Throttling") && aws.mints() == 2);
    aws.fault("CreateAccessKey", Fault::Html);
    assert!(create().await.is_ok_and(|a| a.0 == 200 && a.1.contains("<html>")) && aws.mints() == 2);
    aws.fault("CreateAccessKey", Fault::Late(Duration::from_millis(20)));
    assert!(create().await.is_err() && aws.mints() == 2);
    while aws.mints() == 2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(create().await.is_ok_and(|a| a.0 == 200) && aws.mints() == 4);
    let seen: Vec<(u16, bool)> = aws.requests().iter().map(|line| (line.status, line.executed)).collect();
    // The client gives up long before it is carried out.
    aws.fault("CreateAccessKey", Fault::Delayed(Duration::from_millis(150)));
    let gone = tokio::time::timeout(Duration::from_millis(100), create()).await;
    assert!(gone.is_err() && aws.mints() == 4 && aws.faults_left("CreateAccessKey") == 0);
    while aws.mints() == 4 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    aws.fault("CreateAccessKey", Fault::Delayed(Duration::from_millis(20)));
    assert_eq!(aws.faults_left("CreateAccessKey"), 1);
    assert!(create().await.is_ok_and(|a| a.0 == 200) && aws.mints() == 6);
    let expected = [
        (0, false),
        (0, true),
        (500, true),
        (503, false),
        (400, false),
        (200, false),
        (0, false),
        (0, true),
        (200, true),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn only_the_date_header_is_skewed() {
    let aws = store(AwsOptions::default()).await;
    aws.set_date_skew(TimeDelta::minutes(10));
    let (status, _, date) = Client::admin(&aws).iam("ListAccessKeys", "&UserName=store").await.expect("IAM answers");
    let date = DateTime::parse_from_rfc2822(&date).expect("an HTTP date").with_timezone(&Utc);
    assert!(status == 200 && date - Utc::now() > TimeDelta::minutes(9));
}

#[tokio::test]
async fn while_down_connections_are_closed_at_once() {
    let aws = store(AwsOptions::default()).await;
    aws.down(true);
    assert!(Client::admin(&aws).iam("ListAccessKeys", "&UserName=store").await.is_err());
    aws.down(false);
    assert!(Client::admin(&aws).iam("ListAccessKeys", "&UserName=store").await.is_ok());
}

#[tokio::test]
async fn a_restored_account_has_its_old_keys_and_forgets_no_secret() {
    let aws = store(AwsOptions::default()).await;
    let old = aws.create_key("store");
    let backup = aws.snapshot();
    aws.delete_key("store", &old.0);
    let new = aws.create_key("store");
    aws.restore(backup);
    assert_eq!(aws.keys("store").iter().map(|key| key.id.clone()).collect::<Vec<_>>(), std::slice::from_ref(&old.0));
    assert!(aws.all_secrets().contains(&new.1));
    aws.delete_key("store", &old.0);
    assert_eq!(aws.deleted_keys("store").iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), [old.0]);
}

#[tokio::test]
async fn a_store_of_ones_own_may_lack_an_sts_and_the_last_use() {
    let lacking = AwsOptions { sts: false, last_used: false, ..AwsOptions::default() };
    let aws = store(lacking).await;
    let key = mint(&aws).await;
    assert_eq!(code(Client::new(&aws, key.clone()).sts().await), (400, "InvalidAction".to_owned()));
    let asked = format!("&AccessKeyId={}", key.0);
    let (status, body, _) = Client::admin(&aws).iam("GetAccessKeyLastUsed", &asked).await.expect("IAM answers");
    assert_eq!(code((status, body)), (400, "InvalidAction".to_owned()));
    let (_, body, _) = Client::admin(&aws).iam("GetUser", "&UserName=store").await.expect("IAM answers");
    assert!(between(&body, "UserId").starts_with("AIDA"), "{body}");

    let elsewhere = store(AwsOptions { iam_region: "RegionOne".to_owned(), ..AwsOptions::default() }).await;
    let (status, body, _) = Client::admin(&elsewhere).iam("GetUser", "&UserName=store").await.expect("IAM answers");
    assert_eq!(code((status, body)), (403, "SignatureDoesNotMatch".to_owned()));
}

#[tokio::test]
async fn a_lookup_tells_of_a_key_what_is_so_at_that_moment() {
    let aws = store(AwsOptions { propagation: Duration::from_secs(3600), ..AwsOptions::default() }).await;
    let (lookup, (id, secret)) = (aws.lookup(), aws.create_key("store"));
    let fresh = mint(&aws).await;
    assert_eq!(lookup(&id), KeyState::Usable(secret.clone()));
    assert_eq!((lookup(&fresh.0), lookup("AKIANOBODY")), (KeyState::Unknown, KeyState::Unknown));
    aws.set_status("store", &id, false);
    assert_eq!(lookup(&id), KeyState::Inactive);
    aws.set_status("store", &id, true);
    assert_eq!(lookup(&id), KeyState::Usable(secret));
    aws.delete_key("store", &id);
    assert_eq!(lookup(&id), KeyState::Unknown);
    aws.set_propagation(Duration::ZERO);
    assert_eq!(lookup(&fresh.0), KeyState::Usable(fresh.1));
}
