//! What each call makes of what comes over the wire, byte for byte, from a scripted peer on loopback; and how the tables read.

use std::io::Write as _;
use std::sync::Mutex;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;
use crate::model::{Shape, SystemRef};
use crate::ports::Forgetful;

mod peer;

use peer::{Reply, peer, proxy};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

fn context() -> Context {
    Context { proxy: None, no_proxy: Vec::new(), guard: Arc::new(Forgetful), shared: crate::net::Shared::default() }
}

fn spec() -> IssuerSpec {
    IssuerSpec {
        kind: "aws-iam".into(),
        system: Some(SystemRef { table: "aws".into(), name: "main".into() }),
        object: "aws-iam:main:store".into(),
        shape: Shape::ShownOnce,
        exclusive: false,
        propagation: PROPAGATION,
        settle: Duration::from_secs(600),
        last_used_lag: None,
        config: serde_json::json!({ "user": "store", "probe": { "bucket": "gis-store", "region": "us-east-1", "expect": "read" } }),
    }
}

fn system(endpoint: &str, more: serde_json::Value) -> SystemSpec {
    let mut config = serde_json::json!({
        "endpoint_url": endpoint, "settle_ms": 600_000, "last_used_lag_ms": 0, "request_timeout_ms": 5_000,
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    SystemSpec { at: SystemRef { table: "aws".into(), name: "main".into() }, config }
}

/// An issuer of user `store` at `endpoint`, with a key of its own.
fn issuer_with(endpoint: &str, mut more: serde_json::Value) -> Result<Arc<dyn Issuer>, Fault> {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(b"the-rotators-own-secret-key").expect("written");
    more["login"] = serde_json::json!({ "access_key_id": "AKIAROTATOR", "secret_access_key": { "file": file.path() } });
    connect(&spec(), Some(&system(endpoint, more)), &context())
}

fn issuer(endpoint: &str) -> Arc<dyn Issuer> {
    issuer_with(endpoint, serde_json::json!({})).expect("connects")
}

/// An IAM answer, as IAM writes it.
fn iam(operation: &str, result: &str) -> String {
    format!(
        "<{operation}Response xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><{operation}Result>{result}</{operation}Result>\
         <ResponseMetadata><RequestId>7a62c49f-347e-4fc4-9331-6e8eEXAMPLE</RequestId></ResponseMetadata></{operation}Response>"
    )
}

/// STS's answer to whose a key is.
fn sts(arn: &str, account: &str) -> String {
    format!(
        "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult><Arn>{arn}</Arn>\
         <UserId>AIDA</UserId><Account>{account}</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"
    )
}

fn iam_error(code: &str, message: &str) -> String {
    format!(
        "<ErrorResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><Error><Type>Sender</Type><Code>{code}</Code>\
         <Message>{message}</Message></Error><RequestId>7a62c49f-347e-4fc4-9331-6e8eEXAMPLE</RequestId></ErrorResponse>"
    )
}

fn created() -> String {
    iam(
        "CreateAccessKey",
        &format!(
            "<AccessKey><UserName>store</UserName><AccessKeyId>AKIAIOSFODNN7EXAMPLE</AccessKeyId><Status>Active</Status>\
             <SecretAccessKey>{SECRET}</SecretAccessKey><CreateDate>2026-11-21T12:00:00Z</CreateDate></AccessKey>"
        ),
    )
}

async fn mint(issuer: &Arc<dyn Issuer>) -> Result<MintedKey, Fault> {
    issuer.mint(&IntentId::new("intent"), None).await
}

#[tokio::test]
async fn a_mint_names_the_user_and_yields_the_key() {
    let (endpoint, seen) = peer(vec![Reply::Say(200, created())]).await;
    let minted = mint(&issuer(&endpoint)).await.expect("minted");
    assert_eq!(seen.requests(), ["POST / HTTP/1.1 Action=CreateAccessKey&Version=2010-05-08&UserName=store"]);
    assert_eq!(minted.material.key().as_str(), "AKIAIOSFODNN7EXAMPLE");
    assert_eq!(minted.material.secret().expose(), SECRET);
    assert_eq!(minted.created.map(|at| at.to_rfc3339()).as_deref(), Some("2026-11-21T12:00:00+00:00"));
    assert!(!format!("{minted:?}").contains(SECRET));
}

#[tokio::test]
async fn a_mint_without_a_clean_answer_is_unknown_and_sent_once() {
    let html = "<html><body>please log in</body></html>".to_owned();
    for (reply, why) in [
        (Reply::Close, "sent, and no answer came: "),
        (Reply::Break(created()), "an answer that broke off or could not be read"),
        (Reply::Say(500, iam_error("ServiceFailure", "We are sorry.")), "ServiceFailure (500): We are sorry."),
        (Reply::Say(502, html.clone()), "no error code (502)"),
        (Reply::Say(200, html.clone()), "no error code (200)"),
        (Reply::Say(200, iam("CreateAccessKey", "")), "an answer without the key's id or secret"),
        (Reply::Say(403, html), "status 403 and a body that is no answer of this service"),
    ] {
        let (endpoint, seen) = peer(vec![reply]).await;
        let fault = mint(&issuer(&endpoint)).await.expect_err("no clean answer");
        let expected = format!("create an access key for iam user store: {why}");
        assert!(matches!(&fault, Fault::Unknown(text) if text.starts_with(&expected)), "{why}: {fault:?}");
        assert_eq!(seen.requests().len(), 1, "{why}");
    }
}

/// What cannot be parsed may hold the secret, and what the parser complains about may be just that.
#[tokio::test]
async fn an_answer_that_cannot_be_read_is_not_repeated_in_the_message() {
    let (cut, _) = created()
        .split_once("</SecretAccessKey>")
        .map(|(head, tail)| (head.to_owned(), tail.to_owned()))
        .expect("there");
    for reply in [
        Reply::Cut(cut.clone()),
        Reply::Cut(cut[..cut.len() - 20].to_owned()),
        Reply::Say(200, created().replace("<SecretAccessKey>", "<SecretAccessKey><")),
        Reply::Say(200, created().replace("<CreateAccessKeyResult>", SECRET)),
        Reply::Say(500, created()),
    ] {
        let (endpoint, _) = peer(vec![reply]).await;
        let fault = mint(&issuer(&endpoint)).await.expect_err("cannot be read");
        assert!(matches!(fault, Fault::Unknown(_)), "{fault:?}");
        assert!(!fault.why().contains(&SECRET[..6]), "{fault:?}");
    }
}

/// The SDK would take each of these for a success: it reads no body where none is of interest, and no further than it must.
#[tokio::test]
async fn a_page_with_status_200_is_no_success_and_a_cut_answer_no_evidence() {
    let page = || Reply::Say(200, "<html><body>please log in</body></html>".to_owned());
    let cut =
        |answer: String, at: &str| Reply::Cut(answer.split_once(at).map(|(head, _)| head.to_owned()).expect("there"));
    let listed = iam(
        "ListAccessKeys",
        "<AccessKeyMetadata><member><AccessKeyId>AKIA1</AccessKeyId><Status>Active</Status></member>\
         <member><AccessKeyId>AKIA2</AccessKeyId><Status>Active</Status></member></AccessKeyMetadata><IsTruncated>false</IsTruncated>",
    );
    let used = iam(
        "GetAccessKeyLastUsed",
        "<AccessKeyLastUsed><ServiceName>s3</ServiceName><Region>us-east-1</Region>\
         <LastUsedDate>2026-11-21T12:00:00Z</LastUsedDate></AccessKeyLastUsed>",
    );
    let (endpoint, seen) =
        peer(vec![page(), page(), page(), cut(listed, "<member><AccessKeyId>AKIA2"), cut(used, "<LastUsedDate>")])
            .await;
    let (issuer, key) = (issuer(&endpoint), KeyId::new("AKIA1"));
    assert!(matches!(issuer.delete(&key).await, Err(Fault::Unknown(_))));
    assert!(matches!(issuer.disable(&key).await, Err(Fault::Unknown(_))));
    assert!(matches!(issuer.enable(&key).await, Err(Fault::Unknown(_))));
    assert!(matches!(issuer.list().await, Err(Fault::Unknown(_))));
    assert!(matches!(issuer.last_use(&key).await, Err(Fault::Unknown(_))));
    assert_eq!(seen.requests().len(), 5);
}

#[tokio::test]
async fn a_mint_that_hangs_is_unknown() {
    let (endpoint, seen) = peer(vec![Reply::Hang]).await;
    let issuer = issuer_with(&endpoint, serde_json::json!({ "request_timeout_ms": 100 })).expect("connects");
    let fault = mint(&issuer).await.expect_err("no answer");
    assert_eq!(fault, Fault::Unknown("create an access key for iam user store: no answer in time".into()));
    assert_eq!(seen.requests().len(), 1);
}

#[tokio::test]
async fn a_mint_that_met_nobody_was_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let fault = mint(&issuer(&format!("http://{address}"))).await.expect_err("nobody there");
    assert!(matches!(&fault, Fault::NotSent(why) if why.contains("refused")), "{fault:?}");
}

#[tokio::test]
async fn a_handshake_that_does_not_end_well_sent_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        stream.write_all(b"HTTP/1.1 400 this is no tls\r\n\r\n").await.expect("written");
    });
    let fault = mint(&issuer(&format!("https://{address}"))).await.expect_err("no tls there");
    assert!(matches!(fault, Fault::NotSent(_)), "{fault:?}");
}

#[tokio::test]
async fn a_mint_refused_for_good_says_why() {
    for (status, code, reason) in [
        (409, "LimitExceeded", Reason::Quota),
        (404, "NoSuchEntity", Reason::NotFound),
        (403, "AccessDenied", Reason::MissingRight),
        (403, "InvalidClientTokenId", Reason::LoginRefused),
        (403, "SignatureDoesNotMatch", Reason::LoginRefused),
    ] {
        let (endpoint, seen) = peer(vec![Reply::Say(status, iam_error(code, "It said so."))]).await;
        let fault = mint(&issuer(&endpoint)).await.expect_err("refused");
        assert!(matches!(&fault, Fault::Refused { reason: r, .. } if *r == reason), "{code}: {fault:?}");
        assert_eq!(seen.requests().len(), 1, "{code}");
    }
}

#[tokio::test]
async fn an_error_is_understood_where_other_stores_put_it() {
    let inner = "<Error><Code>AccessDenied</Code><Message>No.</Message></Error>";
    for body in [format!("<ErrorResponse><Errors>{inner}</Errors></ErrorResponse>"), inner.to_owned()] {
        let (endpoint, _) = peer(vec![Reply::Say(403, body)]).await;
        let fault = mint(&issuer(&endpoint)).await.expect_err("refused");
        assert_eq!(
            fault.why(),
            "create an access key for iam user store: AccessDenied (403): No.; the rotator needs iam:CreateAccessKey on iam user store"
        );
    }
}

/// The peer keeps its connections open; nobody comes back on one.
#[tokio::test]
async fn every_request_has_a_connection_of_its_own() {
    let (endpoint, seen) = peer(vec![Reply::Say(200, created()), Reply::Say(200, created())]).await;
    let issuer = issuer(&endpoint);
    mint(&issuer).await.expect("minted");
    mint(&issuer).await.expect("minted");
    assert_eq!((seen.requests().len(), seen.connections()), (2, 2));
}

#[tokio::test]
async fn a_listing_is_read_to_its_end() {
    let member = |id: &str, status: &str| {
        format!(
            "<member><UserName>store</UserName><AccessKeyId>{id}</AccessKeyId><Status>{status}</Status>\
             <CreateDate>2026-11-21T12:00:00Z</CreateDate></member>"
        )
    };
    let page = |members: &str, rest: &str| {
        Reply::Say(200, iam("ListAccessKeys", &format!("<AccessKeyMetadata>{members}</AccessKeyMetadata>{rest}")))
    };
    let (endpoint, seen) = peer(vec![
        page(&member("AKIA1", "Active"), "<IsTruncated>true</IsTruncated><Marker>next</Marker>"),
        page(&(member("AKIA2", "Inactive") + &member("AKIA3", "Expired")), "<IsTruncated>false</IsTruncated>"),
    ])
    .await;
    let listing = issuer(&endpoint).list().await.expect("listed");
    let keys: Vec<_> = listing.keys.iter().map(|key| (key.id.as_str(), key.active)).collect();
    assert_eq!(keys, [("AKIA1", true), ("AKIA2", false), ("AKIA3", false)]);
    assert_eq!(listing.quota, Some(2));
    assert_eq!(listing.date.map(|date| date.to_rfc2822()).as_deref(), Some("Sat, 21 Nov 2026 12:00:00 +0000"));
    assert!(seen.requests()[1].contains("&Marker=next"), "{:?}", seen.requests());
}

#[tokio::test]
async fn half_a_listing_is_a_fault() {
    let (endpoint, _) =
        peer(vec![Reply::Say(200, iam("ListAccessKeys", "<AccessKeyMetadata/><IsTruncated>true</IsTruncated>"))]).await;
    let fault = issuer(&endpoint).list().await.expect_err("half");
    assert!(matches!(&fault, Fault::Unknown(why) if why.contains("goes on")), "{fault:?}");
}

#[tokio::test]
async fn a_key_never_used_is_told_from_silence() {
    let never = "<UserName>store</UserName><AccessKeyLastUsed><ServiceName>N/A</ServiceName><Region>N/A</Region></AccessKeyLastUsed>";
    let used = "<UserName>store</UserName><AccessKeyLastUsed><LastUsedDate>2026-11-21T12:00:00Z</LastUsedDate>\
                <ServiceName>s3</ServiceName><Region>us-east-1</Region></AccessKeyLastUsed>";
    let answers = [never, used, ""].map(|result| Reply::Say(200, iam("GetAccessKeyLastUsed", result)));
    let (endpoint, _) = peer(answers.into()).await;
    let (issuer, key) = (issuer(&endpoint), KeyId::new("AKIAIOSFODNN7EXAMPLE"));
    assert_eq!(issuer.last_use(&key).await, Ok(LastUse::Never));
    let LastUse::At { at, by } = issuer.last_use(&key).await.expect("used") else { panic!("used") };
    assert_eq!((at.to_rfc3339().as_str(), by.as_str()), ("2026-11-21T12:00:00+00:00", "s3 in us-east-1"));
    assert!(matches!(issuer.last_use(&key).await, Err(Fault::Unknown(_))));
}

#[tokio::test]
async fn a_key_that_is_not_there_is_deleted_and_cannot_be_disabled() {
    let gone = || Reply::Say(404, iam_error("NoSuchEntity", "The Access Key with id AKIAGONE cannot be found."));
    let (endpoint, _) = peer(vec![gone(), gone()]).await;
    let (issuer, key) = (issuer(&endpoint), KeyId::new("AKIAGONE"));
    assert_eq!(issuer.delete(&key).await, Ok(()));
    assert_eq!(
        issuer.disable(&key).await,
        Err(Fault::Refused {
            reason: Reason::NotFound,
            why: "disable key AKIAGONE of iam user store: NoSuchEntity (404): The Access Key with id AKIAGONE cannot be found.".into()
        })
    );
}

#[tokio::test]
async fn the_account_is_the_providers_own_name_with_its_partition() {
    let caller = |arn: &str, account: &str| Reply::Say(200, sts(arn, account));
    let (endpoint, _) = peer(vec![
        caller("arn:aws:iam::123456789012:user/rotator", "123456789012"),
        caller("arn:aws-us-gov:sts::123456789012:assumed-role/r/s", "123456789012"),
        caller("arn:aws:iam::123456789012:user/rotator", "210987654321"),
    ])
    .await;
    let issuer = issuer(&endpoint);
    assert_eq!(issuer.identity().await, Ok(AccountIdentity::new("aws:123456789012")));
    assert_eq!(issuer.identity().await, Ok(AccountIdentity::new("aws-us-gov:123456789012")));
    assert!(matches!(issuer.identity().await, Err(Fault::Unknown(_))));
}

#[tokio::test]
async fn a_proxy_is_asked_for_the_world_and_never_for_this_host() {
    let (proxy, asked) = proxy().await;
    let away =
        serde_json::json!({ "proxy": proxy, "no_proxy": ["direct.invalid"], "s3_endpoint_url": "https://s3.invalid" });
    let fault = mint(&issuer_with("https://iam.invalid", away.clone()).expect("connects")).await.expect_err("closed");
    assert!(matches!(fault, Fault::NotSent(_)), "{fault:?}");
    assert_eq!(*asked.lock().expect("no panic while held"), ["CONNECT iam.invalid:443 HTTP/1.1 "]);

    let caller = |user: &str| {
        let arn = format!("arn:aws:iam::123456789012:user/{user}");
        Reply::Say(200, sts(&arn, "123456789012"))
    };
    let (endpoint, seen) = peer(vec![caller("rotator"), caller("store")]).await;
    let material = Material::AccessKey { id: KeyId::new("AKIANEW"), secret: Secret::new(SECRET.into()) };
    let fault = issuer_with(&endpoint, away).expect("connects").probe(&material).await.expect_err("closed");
    assert!(matches!(fault, Fault::NotSent(_)), "{fault:?}");
    assert_eq!(asked.lock().expect("no panic while held")[1..], ["CONNECT s3.invalid:443 HTTP/1.1 "]);
    assert_eq!(seen.requests().len(), 2, "sts is on this host");
}

fn user(name: &str, id: &str, arn: &str) -> Reply {
    let user = format!(
        "<User><Path>/</Path><UserName>{name}</UserName><UserId>{id}</UserId><Arn>{arn}</Arn>\
         <CreateDate>2026-11-21T12:00:00Z</CreateDate></User>"
    );
    Reply::Say(200, iam("GetUser", &user))
}

#[tokio::test]
async fn without_an_sts_the_user_itself_tells_whose_it_is() {
    let uuid = "3a2b6c1e-51f0-4d7e-9f0a-0c8a1d6f2b11";
    let (endpoint, seen) = peer(vec![
        user("store", "AIDA1", "arn:aws:iam::RGW1:user/store"),
        user("store", uuid, "urn:ecs:iam::ns1:user/store"),
        user("other", "AIDA1", "arn:aws:iam::RGW1:user/other"),
        user("store", "", "arn:aws:iam::RGW1:user/store"),
        user("store", "AIDA1", "store"),
        Reply::Say(403, iam_error("AccessDenied", "No.")),
    ])
    .await;
    let issuer = issuer_with(&endpoint, serde_json::json!({ "sts": false })).expect("connects");
    assert_eq!(issuer.identity().await, Ok(AccountIdentity::new("aws:RGW1/AIDA1")));
    assert_eq!(issuer.identity().await, Ok(AccountIdentity::new(format!("ecs:ns1/{uuid}"))));
    for odd in ["another user", "no id", "no arn"] {
        assert!(matches!(issuer.identity().await, Err(Fault::Unknown(_))), "{odd}");
    }
    let fault = issuer.identity().await.expect_err("refused");
    assert!(fault.why().ends_with("the rotator needs iam:GetUser on iam user store"), "{fault:?}");
    assert_eq!(seen.requests()[0], "POST / HTTP/1.1 Action=GetUser&Version=2010-05-08&UserName=store");
}

#[tokio::test]
async fn what_a_store_does_not_have_is_not_asked_for() {
    let (endpoint, seen) = peer(vec![Reply::Say(200, "<ListBucketResult/>".into())]).await;
    let issuer = issuer_with(&endpoint, serde_json::json!({ "sts": false, "last_used": false })).expect("connects");
    let material = Material::AccessKey { id: KeyId::new("AKIA1"), secret: Secret::new(SECRET.into()) };
    assert_eq!(issuer.last_use(material.key()).await, Ok(LastUse::Untold));
    assert_eq!(issuer.probe(&material).await, Ok(Probe::Works));
    assert_eq!(seen.requests(), ["GET /gis-store?list-type=2&max-keys=1 HTTP/1.1 "]);
}

/// Forgotten options: the refusal says which they are. AWS itself is not told so.
#[tokio::test]
async fn a_store_that_lacks_what_it_is_asked_for_is_told_how_to_say_so() {
    let lacking = || Reply::Say(400, iam_error("InvalidAction", "Could not find operation."));
    let denied = || Reply::Say(403, iam_error("AccessDenied", "No."));
    let absent = |code: &str| Reply::Say(501, iam_error(code, "No such thing."));
    let page = || Reply::Say(501, "<html>Not Implemented</html>".into());
    let replies =
        vec![lacking(), lacking(), denied(), denied(), absent("NotImplemented"), absent("NotImplemented"), page()];
    let (endpoint, _) = peer(replies).await;
    let issuer = issuer(&endpoint);
    let fault = issuer.identity().await.expect_err("refused");
    assert_eq!(
        fault.why(),
        "ask sts whose the rotator's credentials are: InvalidAction (400): Could not find operation.; if this store has no STS, \
         say sts = false in its [aws.NAME]"
    );
    let fault = issuer.last_use(&KeyId::new("AKIA1")).await.expect_err("refused");
    assert!(
        fault
            .why()
            .ends_with("; if this store does not tell the last use of a key, say last_used = false in its [aws.NAME]"),
        "{fault:?}"
    );
    // A right that is missing and a call that is are refused alike; 501 says which, and no waiting helps.
    for reason in [Reason::MissingRight, Reason::Refused] {
        let told = [
            (issuer.identity().await.map(drop), "say sts = false in its [aws.NAME]"),
            (issuer.last_use(&KeyId::new("AKIA1")).await.map(drop), "say last_used = false in its [aws.NAME]"),
        ];
        for (outcome, advice) in told {
            assert!(
                matches!(&outcome, Err(Fault::Refused { reason: told, why }) if *told == reason && why.ends_with(advice)),
                "{outcome:?}"
            );
        }
    }
    let somebodys = issuer.identity().await.expect_err("no answer of a store");
    assert!(matches!(&somebodys, Fault::Unknown(why) if !why.contains("sts = false")), "{somebodys:?}");
}

/// AWS has both, and whoever lacks a right there is not told to do without.
#[tokio::test]
async fn nobody_is_advised_to_write_off_what_aws_has() {
    let (endpoint, _) = peer(vec![Reply::Say(403, iam_error("AccessDenied", "No."))]).await;
    let aws = serde_json::json!({ "endpoint_url": null, "sts_endpoint_url": endpoint });
    let issuer = issuer_with(&endpoint, aws).expect("connects");
    let fault = issuer.identity().await.expect_err("refused");
    assert!(
        matches!(&fault, Fault::Refused { reason: Reason::MissingRight, why } if !why.contains("sts = false")),
        "{fault:?}"
    );
}

/// At the noisiest level there is, through the SDK and all below it.
#[tokio::test]
async fn a_trace_of_a_mint_and_a_probe_holds_no_secret() {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic while held").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    // With one subscriber alone, tracing lets the thread that first meets a log line decide for all whether anybody listens, and
    // the other tests' threads do not.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let guard = tracing::subscriber::set_default(subscriber);
    let (endpoint, _) = peer(vec![
        Reply::Say(200, created()),
        Reply::Say(200, sts("arn:aws:iam::123456789012:user/rotator", "123456789012")),
        Reply::Say(200, sts("arn:aws:iam::123456789012:user/store", "123456789012")),
        Reply::Say(200, "<ListBucketResult/>".into()),
    ])
    .await;
    let issuer = issuer(&endpoint);
    let minted = mint(&issuer).await.expect("minted");
    assert_eq!(issuer.probe(&minted.material).await, Ok(Probe::Works));
    drop(guard);
    let log = String::from_utf8_lossy(&log.0.lock().expect("no panic while held")).into_owned();
    assert!(log.contains("CreateAccessKey"), "nothing was logged at all");
    assert!(!log.contains(SECRET) && !log.contains("the-rotators-own-secret-key"));
}

#[tokio::test]
async fn plain_http_is_for_this_host_only() {
    let fault = issuer_with("http://iam.example.com", serde_json::json!({})).err().expect("refused");
    assert_eq!(
        fault.why(),
        "connect to issuer aws-iam:main:store: http://iam.example.com is neither https nor on this host"
    );
}

#[tokio::test]
async fn an_authority_file_that_holds_none_is_refused_at_once() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(b"not a certificate\n").expect("written");
    let more = serde_json::json!({ "ca_file": file.path() });
    let fault = issuer_with("https://127.0.0.1:1", more).err().expect("refused");
    assert!(fault.why().ends_with("it holds no certificate"), "{fault:?}");
}

mod tables {
    use super::*;
    use crate::table;

    fn account(text: &str) -> serde_json::Value {
        table::read(text, "policy.toml", account::read).expect("no mistake").expect("read")
    }

    fn service(text: &str, account: serde_json::Value) -> Result<IssuerSpec, String> {
        let system = SystemSpec { at: SystemRef { table: "aws".into(), name: "main".into() }, config: account };
        table::read(text, "policy.toml", |table| read(table, Some(&system)))
            .map(|spec| spec.expect("read"))
            .map_err(|report| report.to_string())
    }

    #[test]
    fn a_service_becomes_a_spec() {
        let account = account("settle = \"2s\"\nlast_used_lag = \"0s\"\nregion = \"eu-west-1\"");
        let spec =
            service("user = \"store\"\nexclusive = true\nprobe = { bucket = \"gis-store\" }", account).expect("read");
        assert_eq!(
            spec,
            IssuerSpec {
                kind: "aws-iam".into(),
                system: Some(SystemRef { table: "aws".into(), name: "main".into() }),
                object: "aws-iam:main:store".into(),
                shape: Shape::ShownOnce,
                exclusive: true,
                propagation: Duration::from_secs(60),
                settle: Duration::from_secs(2),
                last_used_lag: Some(Duration::ZERO),
                config: serde_json::json!({
                    "user": "store",
                    "probe": { "bucket": "gis-store", "region": "eu-west-1", "expect": "read", "endpoint_url": null },
                }),
            }
        );
    }

    #[test]
    fn every_mistake_of_a_service_is_told_at_once() {
        let account = account("");
        let text =
            "user = \"arn:aws:iam::1:user/store\"\nprobe = { bucket = \"a/b\", expect = \"write\" }\nacount = \"x\"";
        let told = service(text, account.clone()).expect_err("wrong");
        for mistake in [
            "1:8: `arn:aws:iam::1:user/store` is no name of an IAM user",
            "2:9: no region, and the account names none either",
            "2:20: `a/b` is no bucket's name",
            "2:36: `expect` cannot be `write`",
            "3:1: unknown key `acount`",
        ] {
            assert!(told.contains(mistake), "{mistake} in {told}");
        }
        let told = service("user = \"store\"", account).expect_err("no probe");
        assert!(
            told.contains("help: add `probe = { bucket = \"gis-store\", region = \"us-east-1\", expect = \"read\" }`"),
            "{told}"
        );
    }
}
