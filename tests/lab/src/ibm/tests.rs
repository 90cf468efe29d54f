//! What the stand-in lets pass and what not, each as IBM's pages have it.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::{ArcGis, ArcGisOptions, Aws, AwsOptions, Fault, StoredCredential};

const PROJECT: &str = "731fc6f265cd486d900f16e84c5cb594";
const USER: &str = "bb5476fd12884539b41d5a88f838d773";

struct Curl {
    ibm: Ibm,
    http: reqwest::Client,
}

impl Curl {
    async fn new(options: IbmOptions) -> Curl {
        let ibm = Ibm::start(options).await;
        ibm.add_user(PROJECT, USER);
        ibm.add_bucket("gis-store");
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a plain client");
        Curl { ibm, http }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let (user, password) = self.ibm.login();
        self.http.request(method, format!("{}{path}", self.ibm.accesser_url())).basic_auth(user, Some(password))
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("it answers");
        assert!(answer.headers()["x-trans-id"].to_str().is_ok_and(|id| id.starts_with("tx")));
        assert!(answer.headers().contains_key("x-timestamp") && answer.headers().contains_key("date"));
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.text().await.expect("a body")).unwrap_or_default())
    }

    async fn create(&self, blob: Value) -> (u16, Value) {
        self.send(Method::POST, "/credentials", Some(credential(json!({ "blob": blob })))).await
    }

    async fn list(&self) -> Vec<Value> {
        let (status, body) =
            self.send(Method::GET, &format!("/credentials/?project_id={PROJECT}&user_id={USER}"), None).await;
        assert_eq!(status, 200);
        body["credentials"].as_array().expect("a list").clone()
    }
}

/// A credential of the user, with these members besides.
fn credential(more: Value) -> Value {
    let mut credential = json!({ "project_id": PROJECT, "type": "ec2", "user_id": USER });
    for (name, value) in more.as_object().expect("an object") {
        credential[name] = value.clone();
    }
    json!({ "credential": credential })
}

#[tokio::test]
async fn a_credential_is_made_shown_changed_and_deleted() {
    let curl = Curl::new(IbmOptions::default()).await;
    let (status, made) = curl.create(json!({ "access": "181920" })).await;
    assert_eq!(status, 201);
    let made = &made["credential"];
    assert_eq!(
        (&made["id"], &made["blob"]["access"], &made["blob"]["status"]),
        (&json!("181920"), &json!("181920"), &json!("Active"))
    );
    let secret = made["blob"]["secret"].as_str().expect("the system made one").to_owned();
    let (status, shown) = curl.send(Method::GET, "/credentials/181920", None).await;
    assert_eq!((status, &shown["credential"]), (200, made));
    assert_eq!(curl.list().await, std::slice::from_ref(made));
    assert!(curl.ibm.opens("181920", &secret) && curl.ibm.knows("181920"));

    let off = credential(json!({ "blob": { "access": "181920", "secret": secret, "status": "Inactive" } }));
    let (status, changed) = curl.send(Method::PATCH, "/credentials/181920", Some(off)).await;
    assert_eq!((status, &changed["credential"]["blob"]["status"]), (200, &json!("Inactive")));
    assert!(!curl.ibm.opens("181920", &secret) && !curl.ibm.keys(PROJECT, USER)[0].active);
    let (status, body) = curl.send(Method::DELETE, "/credentials/181920", None).await;
    assert_eq!((status, body), (204, Value::Null));
    assert_eq!(curl.send(Method::DELETE, "/credentials/181920", None).await.0, 404);
    assert_eq!(curl.send(Method::GET, "/credentials/181920", None).await.0, 404);
    assert!(curl.list().await.is_empty() && curl.ibm.knows("181920"));
    assert_eq!(curl.ibm.mints(), 1);
}

#[tokio::test]
async fn the_system_makes_what_is_not_given_and_keeps_what_is() {
    let curl = Curl::new(IbmOptions::default()).await;
    let (status, made) = curl.send(Method::POST, "/credentials", Some(credential(json!({})))).await;
    assert_eq!((status, made["credential"]["id"].as_str().map(str::len)), (201, Some(32)));
    let own = json!({ "access": "chosen", "secret": "chosen-as-well" });
    let body = credential(json!({ "blob": own, "subject_ibm_id": "IBMid-61KR43CAFF" }));
    let (_, made) = curl.send(Method::POST, "/credentials", Some(body)).await;
    assert_eq!(made["credential"]["blob"]["secret"], "chosen-as-well");
    assert_eq!(made["credential"]["subject_ibm_id"], "IBMid-61KR43CAFF");
}

#[tokio::test]
async fn what_does_not_comply_is_400() {
    let curl = Curl::new(IbmOptions::default()).await;
    let (_, made) = curl.create(json!({ "access": "181920" })).await;
    let secret = made["credential"]["blob"]["secret"].clone();
    for wrong in [
        json!({}),
        json!([]),
        credential(json!({ "type": "totp" })),
        credential(json!({ "subject_ibm_id": "" })),
        credential(json!({ "blob": {} })),
        credential(json!({ "blob": { "secret": "alone" } })),
        credential(json!({ "blob": "no JSON" })),
        credential(json!({ "blob": { "access": "a/b" } })),
        credential(json!({ "colour": "red" })),
    ] {
        assert_eq!(curl.send(Method::POST, "/credentials", Some(wrong.clone())).await.0, 400, "{wrong}");
    }
    for blob in [
        json!({ "access": "181920", "secret": secret }),
        json!({ "access": "181920", "status": "Inactive" }),
        json!({ "access": "181920", "secret": "another", "status": "Inactive" }),
        json!({ "access": "other", "secret": secret, "status": "Inactive" }),
        json!({ "access": "181920", "secret": secret, "status": "Off" }),
        json!(json!({ "access": "181920", "secret": secret, "status": "Inactive" }).to_string()),
    ] {
        let body = Some(credential(json!({ "blob": blob })));
        assert_eq!(curl.send(Method::PATCH, "/credentials/181920", body).await.0, 400, "{blob}");
    }
    for (method, path) in [
        (Method::GET, "/credentials/?colour=red"),
        (Method::GET, "/credentials/181920?project_id=x"),
        (Method::PUT, "/credentials/181920"),
        (Method::GET, "/elsewhere"),
    ] {
        assert_eq!(curl.send(method, path, None).await.0, 400, "{path}");
    }
    assert_eq!(curl.send(Method::DELETE, "/credentials/181920", Some(json!({}))).await.0, 400);
    let form = curl.request(Method::POST, "/credentials").form(&[("a", "b")]).send().await.expect("it answers");
    assert_eq!(form.status(), StatusCode::BAD_REQUEST);
    assert!(curl.ibm.keys(PROJECT, USER)[0].active, "nothing was changed");
}

#[tokio::test]
async fn who_may_not_is_told_so() {
    let curl = Curl::new(IbmOptions::default()).await;
    curl.create(json!({ "access": "181920" })).await;
    let list = format!("/credentials/?project_id={PROJECT}");
    for (right, lists, deletes) in [
        (IbmRight::KeyListing, 403, 204),
        (IbmRight::KeyManagement, 200, 403),
        (IbmRight::Impersonate, 403, 403),
        (IbmRight::StorageAccount, 405, 405),
    ] {
        curl.ibm.deny(right);
        assert_eq!(curl.send(Method::GET, &list, None).await.0, lists, "{right:?}");
        assert_eq!(curl.send(Method::DELETE, "/credentials/181920", None).await.0, deletes, "{right:?}");
        curl.ibm.allow(right);
        curl.create(json!({ "access": "181920" })).await;
    }
    let unknown = "/credentials/?project_id=nobody";
    assert_eq!(curl.send(Method::GET, unknown, None).await.0, 404);
    curl.ibm.set_password("changed");
    assert_eq!(curl.list().await.len(), 1, "with the password that is right now");
    let bare = curl.http.get(format!("{}/credentials", curl.ibm.accesser_url())).send().await.expect("it answers");
    assert_eq!((bare.status().as_u16(), bare.headers().contains_key("www-authenticate")), (401, true));
    assert_eq!(curl.ibm.refused_logins(), 1);
}

#[tokio::test]
async fn a_user_has_so_many_keys_and_a_name_is_taken_in_one_of_three_ways() {
    let curl = Curl::new(IbmOptions { keys_max: 2, ..IbmOptions::default() }).await;
    assert_eq!(curl.create(json!({ "access": "a" })).await.0, 201);
    let (_, made) = curl.create(json!({ "access": "b" })).await;
    assert_eq!(curl.create(json!({ "access": "c" })).await.0, 409, "too many");
    assert_eq!(curl.create(json!({ "access": "b" })).await.0, 409, "taken");
    curl.ibm.set_options(|options| options.taken = TakenName::SameKey);
    assert_eq!(curl.create(json!({ "access": "b" })).await, (201, made.clone()));
    curl.ibm.set_options(|options| options.taken = TakenName::NewSecret);
    let (status, other) = curl.create(json!({ "access": "b" })).await;
    assert!(status == 201 && other["credential"]["blob"]["secret"] != made["credential"]["blob"]["secret"]);
    assert_eq!((curl.ibm.mints(), curl.list().await.len()), (2, 2));
    assert_eq!(curl.ibm.all_secrets().len(), 4, "two keys, a secret that was replaced, the password");
}

#[tokio::test]
async fn what_the_pages_leave_open_is_an_option() {
    let curl = Curl::new(IbmOptions { blob_as_text: true, misspelt: true, ..IbmOptions::default() }).await;
    let (_, made) = curl.create(json!({ "access": "181920" })).await;
    let blob = made["credential"]["blob"].as_str().expect("a text");
    let blob: Value = serde_json::from_str(blob).expect("JSON inside");
    assert!(blob["secrete"].is_string() && blob.get("secret").is_none());
    let text = json!({ "access": "181920", "secret": blob["secrete"], "status": "Inactive" }).to_string();
    curl.ibm.set_options(|options| {
        options.answers_as = [("UpdateCredential", "a42a27755ce6442596b049bd7dd8a563".to_owned())].into()
    });
    let body = credential(json!({ "blob": text }));
    let (status, answer) = curl.send(Method::PATCH, "/credentials/181920", Some(body)).await;
    assert_eq!((status, &answer["credential"]["id"]), (200, &json!("a42a27755ce6442596b049bd7dd8a563")));
    assert!(!curl.ibm.keys(PROJECT, USER)[0].active);

    curl.ibm
        .set_options(|options| (options.shows_secrets, options.blob_as_text, options.silent) = (false, false, true));
    assert_eq!(curl.list().await[0]["blob"], json!({ "access": "181920", "status": "Inactive" }));
    assert_eq!(curl.send(Method::GET, "/credentials/x", None).await, (404, Value::Null));
    curl.ibm.set_options(|options| options.listing_lag = Duration::from_secs(60));
    assert!(curl.list().await.is_empty());
    curl.ibm.create_key(PROJECT, USER);
    assert_eq!(curl.list().await.len(), 1, "a person's is shown at once");
    curl.ibm.add_user("another", "one");
    curl.ibm.create_key("another", "one");
    curl.ibm.set_options(|options| options.names_no_user = true);
    assert!(curl.list().await.iter().all(|listed| listed.get("user_id").is_none()));
    curl.ibm.set_options(|options| options.made_for = Some("caller".to_owned()));
    assert_eq!(curl.create(json!({ "access": "astray" })).await.0, 201);
    let astray: Vec<String> = curl.ibm.keys(PROJECT, "caller").into_iter().map(|key| key.access).collect();
    assert_eq!(astray, ["astray"]);
    curl.ibm.delete_key("astray");
    curl.ibm.set_options(|options| (options.names_no_user, options.made_for) = (false, None));
    curl.ibm.set_options(|options| options.ignores_filters = true);
    assert_eq!(curl.list().await.len(), 2);
}

#[tokio::test]
async fn the_store_takes_a_key_when_it_knows_it_and_while_it_is_active() {
    let curl = Curl::new(IbmOptions { propagation: Duration::from_secs(60), ..IbmOptions::default() }).await;
    let (_, made) = curl.create(json!({ "access": "181920" })).await;
    let secret = made["credential"]["blob"]["secret"].as_str().expect("one").to_owned();
    assert!(!curl.ibm.opens("181920", &secret), "too young");
    curl.ibm.set_options(|options| options.propagation = Duration::ZERO);
    assert!(curl.ibm.opens("181920", &secret) && !curl.ibm.opens("181920", "another"));
    curl.ibm.set_status("181920", false);
    assert!(!curl.ibm.opens("181920", &secret));
    curl.ibm.delete_key("181920");
    assert!(!curl.ibm.opens("181920", &secret) && curl.ibm.knows("181920"));
}

#[tokio::test]
async fn what_goes_wrong_goes_wrong_once_and_is_written_down() {
    let curl = Curl::new(IbmOptions::default()).await;
    curl.ibm.fault("CreateCredential", Fault::ErrorAfterCommit(503));
    curl.ibm.fault("CreateCredential", Fault::Throttle);
    assert_eq!(curl.ibm.faults_left("CreateCredential"), 2);
    assert_eq!(curl.create(json!({ "access": "a" })).await.0, 503);
    assert_eq!(curl.create(json!({ "access": "b" })).await.0, 429);
    assert_eq!(curl.ibm.mints(), 1);
    let lines: Vec<_> =
        curl.ibm.requests().iter().map(|line| (line.operation.clone(), line.status, line.executed)).collect();
    assert_eq!(lines, [("CreateCredential".to_owned(), 503, true), ("CreateCredential".to_owned(), 429, false)]);
    assert_eq!(curl.ibm.requests()[0].access_key_id, "a");
}

#[tokio::test]
async fn an_accesser_with_tls_is_trusted_by_its_authority() {
    let ibm = Ibm::start(IbmOptions { tls: true, ..IbmOptions::default() }).await;
    ibm.add_user(PROJECT, USER);
    let url = format!("{}/credentials", ibm.accesser_url());
    let stranger = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a client");
    assert!(stranger.get(&url).send().await.is_err());
    let ca = reqwest::Certificate::from_pem(ibm.ca_pem().expect("with TLS").as_bytes()).expect("PEM");
    let friend = reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build().expect("a client");
    let (user, password) = ibm.login();
    let answer = friend.get(&url).basic_auth(user, Some(password)).send().await.expect("it answers");
    assert_eq!(answer.status(), StatusCode::OK);
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("waited in vain: {what}");
}

#[tokio::test]
async fn a_service_that_holds_its_key_reads_there_and_others_go_on() {
    let curl = Curl::new(IbmOptions::default()).await;
    let aws = Aws::start(AwsOptions::default()).await;
    aws.add_user("store");
    aws.add_bucket("gis-store", &["store"]);
    let held = |(access_key, secret_key)| Some(StoredCredential { access_key, secret_key });
    let arcgis = ArcGis::start(ArcGisOptions::default(), &aws).await;
    arcgis.use_ibm(&curl.ibm);
    arcgis.add_provider("provider01", "AWS", None);
    let (access, secret) = curl.ibm.create_key(PROJECT, USER);
    arcgis.add_service("ibmservice", "provider01", "gis-store", held((access.clone(), secret)));
    arcgis.add_service("awsservice", "provider01", "gis-store", held(aws.create_key("store")));
    for service in ["ibmservice", "awsservice"] {
        until("both read", || arcgis.consumer(service).healthy).await;
    }
    assert!(curl.ibm.store().consumer_requests() > 0 && aws.consumer_requests() > 0);
    curl.ibm.set_status(&access, false);
    until("a refusal", || arcgis.consumer("ibmservice").refusals > 0).await;
    assert_eq!(arcgis.consumer("ibmservice").last_refusal, Some(format!("{access}: InvalidAccessKeyId")));
    assert_eq!((arcgis.consumer("awsservice").refusals, arcgis.consumer("awsservice").failures), (0, 0));
}
