//! The stand-in refuses what a site refuses, its jobs live as documented, and its consumers tell an outage.

mod azure;
mod data;

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::*;
use crate::AwsOptions;

const PROVIDER: &str = "betc4g098c";
const SERVICE: &str = "eg7hrelq6b";

/// An AWS, a site, and one service with a key of its own.
struct Lab {
    aws: Aws,
    arcgis: ArcGis,
    http: reqwest::Client,
    /// The key in use.
    old: (String, String),
}

impl Lab {
    async fn new(options: ArcGisOptions) -> Self {
        let aws = Aws::start(AwsOptions::default()).await;
        aws.add_user("store");
        aws.add_bucket("gis-store", &["store"]);
        let old = aws.create_key("store");
        let arcgis = ArcGis::start(options, &aws).await;
        arcgis.add_provider(PROVIDER, "AWS", None);
        arcgis.add_service(SERVICE, PROVIDER, "gis-store", Some(stored(&old)));
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a plain client");
        Self { aws, arcgis, http, old }
    }

    async fn log_in(&self, password: &str) -> Value {
        let server = self.arcgis.site().is_server();
        let base = if server { self.arcgis.admin_url() } else { self.arcgis.portal_url() };
        let form = [
            ("username", "rotator"),
            ("password", password),
            ("client", "referer"),
            ("referer", "https://rekeyd"),
            ("f", "json"),
        ];
        json(self.http.post(format!("{base}/generateToken")).form(&form)).await
    }

    async fn token(&self) -> String {
        let password = self.arcgis.site().options.password.clone();
        let answer = self.log_in(&password).await;
        answer["token"].as_str().unwrap_or_else(|| panic!("no token: {answer}")).to_owned()
    }

    fn get(&self, path: &str, token: &str) -> RequestBuilder {
        let url = format!("{}/{path}", self.arcgis.admin_url());
        self.http.get(url).header("referer", "https://rekeyd").bearer_auth(token)
    }

    fn push(&self, path: &str, key: &(String, String), token: &str) -> RequestBuilder {
        let credential =
            json!({"type": "ACCESS-KEY", "secret": {"access_key": key.0, "secret_key": key.1}}).to_string();
        let form = [("credential", credential.as_str()), ("f", "json"), ("token", token)];
        let url = format!("{}/{path}", self.arcgis.admin_url());
        self.http.post(url).header("referer", "https://rekeyd").form(&form)
    }

    async fn update(&self, key: &(String, String)) -> Value {
        let token = self.token().await;
        json(self.push(&format!("cloud/services/{SERVICE}/credential/update"), key, &token)).await
    }

    async fn job(&self, path: &str, accepted: &Value) -> Value {
        let id = accepted["cloudCredentialRotationJobId"].as_str().unwrap_or_else(|| panic!("no job: {accepted}"));
        let token = self.token().await;
        json(self.get(&format!("{path}/{id}?f=json"), &token)).await
    }
}

fn stored(key: &(String, String)) -> StoredCredential {
    StoredCredential { access_key: key.0.clone(), secret_key: key.1.clone() }
}

async fn json(request: RequestBuilder) -> Value {
    let text = text(request).await;
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON: {text}"))
}

async fn text(request: RequestBuilder) -> String {
    request.send().await.expect("the site answers").text().await.expect("the answer has an end")
}

fn quick() -> ArcGisOptions {
    ArcGisOptions { job_duration: Duration::from_millis(80), ..ArcGisOptions::default() }
}

fn server() -> ArcGisOptions {
    ArcGisOptions { product: Product::Server, ..quick() }
}

async fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..2000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn a_job_lives_as_documented_and_stores_half_way() {
    let lab = Lab::new(ArcGisOptions { job_duration: Duration::from_millis(400), ..quick() }).await;
    let new = lab.aws.create_key("store");
    let accepted = lab.update(&new).await;
    assert_eq!(accepted["message"], "A cloud credentials rotation job is in-progress");
    let early = lab.job("jobs", &accepted).await;
    assert_eq!((&early["status"], &early["endtime"]), (&json!("SUBMITTED"), &json!(0)));
    assert_eq!(lab.arcgis.held_key(SERVICE), Some(lab.old.clone()));
    until("stored", || lab.arcgis.held_key(SERVICE) == Some(new.clone())).await;
    assert_eq!(lab.job("jobs", &accepted).await["status"], "EXECUTING");
    lab.arcgis.settled().await;
    let late = lab.job("jobs", &accepted).await;
    assert_eq!((&late["status"], &late["result"]["status"]), (&json!("COMPLETED"), &json!("success")));
    assert!(late["endtime"].as_i64() > Some(0));
    assert_eq!(lab.arcgis.consumer_refusals(), 0);
}

#[tokio::test]
async fn server_wraps_the_result_and_shows_jobs_where_it_is_told_to() {
    for (option, short, classic) in
        [(JobPath::Both, true, true), (JobPath::Short, true, false), (JobPath::Classic, false, true)]
    {
        let lab = Lab::new(ArcGisOptions { server_job_path: option, ..server() }).await;
        lab.arcgis.job_script(JobScript::CompleteWithInnerError("service failed to start".to_owned()));
        let accepted = lab.update(&lab.old).await;
        lab.arcgis.settled().await;
        for (path, there) in [("jobs", short), ("system/jobs", classic)] {
            let job = lab.job(path, &accepted).await;
            if there {
                let shown = (&job["status"], &job["operationResponse"]["status"]);
                assert_eq!(shown, (&json!("COMPLETED"), &json!("error")));
            } else {
                assert_eq!((&job["status"], &job["code"]), (&json!("error"), &json!(404)));
            }
        }
    }
}

#[tokio::test]
async fn every_script_ends_as_its_name_says() {
    let lab = Lab::new(ArcGisOptions { job_duration: Duration::from_millis(20), ..quick() }).await;
    let mangled = |key: &(String, String)| (key.0.clone(), key.1.replace('+', " "));
    let new = lab.aws.create_key("store");
    for (script, status, held) in [
        (JobScript::Complete, "COMPLETED", new.clone()),
        (JobScript::Fail("no".to_owned()), "FAILED", lab.old.clone()),
        (JobScript::FailAfterStore("no".to_owned()), "FAILED", new.clone()),
        (JobScript::CompleteWithInnerError("no".to_owned()), "COMPLETED", lab.old.clone()),
        (JobScript::CompleteWithFailedStage("no".to_owned()), "COMPLETED", lab.old.clone()),
        (JobScript::CancelAndRollBack, "CANCELLED", lab.old.clone()),
        (JobScript::TimedOut, "TIMED OUT", lab.old.clone()),
        (JobScript::TimedOutAfterStore, "TIMED OUT", new.clone()),
        (JobScript::UnavailableBlips(1), "UNAVAILABLE", new.clone()),
        (JobScript::Liar, "COMPLETED", lab.old.clone()),
        (JobScript::Slow(Duration::from_millis(40)), "COMPLETED", new.clone()),
        (JobScript::StoreMangled, "COMPLETED", mangled(&new)),
    ] {
        lab.arcgis.set_credential(SERVICE, &lab.old.0, &lab.old.1);
        lab.arcgis.job_script(script.clone());
        let accepted = lab.update(&new).await;
        lab.arcgis.settled().await;
        assert_eq!(lab.job("jobs", &accepted).await["status"], status, "{script:?}");
        until(&format!("{script:?}"), || lab.arcgis.held_key(SERVICE) == Some(held.clone())).await;
    }
    lab.arcgis.job_script(JobScript::Vanish);
    let accepted = lab.update(&lab.old).await;
    lab.arcgis.settled().await;
    assert_eq!(lab.job("jobs", &accepted).await["error"]["code"], 404);
    assert_eq!(lab.arcgis.held_key(SERVICE), Some(lab.old.clone()));
    let listed = json(lab.get("jobs?f=json", &lab.token().await)).await;
    assert_eq!(listed["jobs"].as_array().map(Vec::len), Some(12));
}

#[tokio::test]
async fn a_key_that_is_disabled_is_an_outage_and_counted() {
    let lab = Lab::new(quick()).await;
    until("use", || lab.arcgis.consumer(SERVICE).requests > 1).await;
    assert_eq!(lab.arcgis.consumer_refusals(), 0);
    lab.aws.set_status("store", &lab.old.0, false);
    until("refusal", || lab.arcgis.consumer(SERVICE).refusals > 0).await;
    let count = lab.arcgis.consumer(SERVICE);
    assert_eq!(count.last_refusal, Some(format!("{}: InvalidAccessKeyId", lab.old.0)));
    assert_eq!(count.refusals_by_key[&lab.old.0], count.refusals);
}

#[tokio::test]
async fn aws_being_down_is_no_refusal() {
    let lab = Lab::new(quick()).await;
    lab.aws.down(true);
    until("failure", || lab.arcgis.consumer(SERVICE).failures > 0).await;
    assert_eq!(lab.arcgis.consumer_refusals(), 0);
}

#[tokio::test]
async fn five_wrong_passwords_lock_the_right_one_out() {
    for options in [quick(), server()] {
        let lab = Lab::new(options).await;
        for _ in 0..5 {
            assert!(lab.log_in("guess").await["token"].is_null());
        }
        let password = ArcGisOptions::default().password;
        assert!(lab.log_in(&password).await["token"].is_null());
        assert_eq!(lab.arcgis.logins(), [false; 6]);
        lab.arcgis.unlock_account();
        assert!(lab.log_in(&password).await["token"].is_string());
    }
}

#[tokio::test]
async fn a_token_ends_with_its_time_and_belongs_to_its_referer() {
    let lab = Lab::new(ArcGisOptions { token_ttl: Some(Duration::from_millis(150)), ..quick() }).await;
    let token = lab.token().await;
    assert_eq!(json(lab.get("mode?f=json", &token)).await, json!({"isReadOnly": false}));
    let url = format!("{}/mode?f=json", lab.arcgis.admin_url());
    assert_eq!(json(lab.http.get(&url).bearer_auth(&token)).await["error"]["code"], 498);
    assert_eq!(json(lab.http.get(&url)).await["error"]["code"], 499);
    tokio::time::sleep(Duration::from_millis(160)).await;
    let expired = json(lab.get("mode?f=json", &token)).await;
    assert_eq!(expired, json!({"error": {"code": 498, "message": "Token Expired.", "details": []}}));
}

#[tokio::test]
async fn a_post_needs_its_token_in_the_body() {
    let lab = Lab::new(quick()).await;
    let token = lab.token().await;
    let path = format!("cloud/services/{SERVICE}/credential/update");
    let in_header = lab.push(&path, &lab.old, "").bearer_auth(&token);
    assert_eq!(json(in_header).await["error"]["code"], 499);
    let in_query = lab.push(&format!("{path}?token={token}"), &lab.old, "");
    assert_eq!(json(in_query).await["error"]["code"], 499);
    assert!(lab.arcgis.jobs().is_empty());
}

#[tokio::test]
async fn real_status_codes_are_a_choice() {
    for (real, status) in [(false, 200), (true, 499)] {
        let lab = Lab::new(ArcGisOptions { real_status_codes: real, ..server() }).await;
        let url = format!("{}/mode?f=json", lab.arcgis.admin_url());
        let response = lab.http.get(url).send().await.expect("the site answers");
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.json::<Value>().await.expect("JSON")["status"], "error");
    }
}

#[tokio::test]
async fn a_page_is_the_default_and_still_starts_the_job() {
    let lab = Lab::new(quick()).await;
    let token = lab.token().await;
    let credential = json!({"type": "ACCESS-KEY", "secret": {"access_key": "A", "secret_key": "S"}}).to_string();
    let form = [("credential", credential.as_str()), ("token", &token)];
    let url = format!("{}/cloud/services/{SERVICE}/credential/update", lab.arcgis.admin_url());
    let page = text(lab.http.post(url).header("referer", "https://rekeyd").form(&form)).await;
    assert!(page.starts_with("<!DOCTYPE html>"));
    assert_eq!(lab.arcgis.jobs().len(), 1);
    assert!(text(lab.get("cloud?f=json", &token)).await.starts_with("<!DOCTYPE html>"));
    assert_eq!(json(lab.get("cloud/services?f=html", &token)).await["error"]["code"], 400);
}

#[tokio::test]
async fn masks_show_the_tail_of_the_secret_and_ciphers_differ_at_each_read() {
    let lab = Lab::new(server()).await;
    let token = lab.token().await;
    let secret = |shown: Value| shown["connection"]["credential"]["secret"].clone();
    let path = format!("cloud/services/{SERVICE}?f=json");
    let masked = secret(json(lab.get(&format!("{path}&maskedSecret=true"), &token)).await);
    assert_eq!(masked["secretKey"], format!("v2Crypt_xxxxxxxxxxxxxxxx{}", &lab.old.1[36..]));
    let (one, two) = (secret(json(lab.get(&path, &token)).await), secret(json(lab.get(&path, &token)).await));
    assert!(one["secretKey"] != two["secretKey"] && one["accessKey"] != two["accessKey"]);
    let mut all = lab.arcgis.all_secrets();
    all.retain(|secret| one.to_string().contains(secret.as_str()));
    assert_eq!(all, Vec::<String>::new());
}

#[tokio::test]
async fn add_and_update_follow_version_and_product() {
    let service = |verb: &str| format!("cloud/services/{SERVICE}/credential/{verb}");
    let provider = |verb: &str| format!("cloud/providers/{PROVIDER}/credential/{verb}");
    let inherits = |lab: &Lab| *lab.arcgis.site().slot(SERVICE).expect("it is there") = None;
    let at = |version: &str, options: ArcGisOptions| ArcGisOptions { version: version.to_owned(), ..options };

    for (options, path, own, code) in [
        (at("12.0", quick()), service("update"), true, None),
        (at("12.0", quick()), service("update"), false, Some(400)),
        (at("12.0", quick()), service("add"), true, Some(400)),
        (at("12.0", quick()), service("add"), false, None),
        (at("11.2", quick()), service("add"), true, None),
        (at("11.2", quick()), service("update"), true, Some(404)),
        (at("12.0", quick()), provider("add"), true, Some(404)),
        (at("12.0", quick()), provider("update"), true, Some(400)),
        (at("12.0", server()), provider("add"), true, None),
        (at("11.5", server()), service("add"), true, Some(404)),
        (at("12.0", quick()), service("update").replace("cloud/", "clouds/"), true, Some(404)),
    ] {
        let lab = Lab::new(options).await;
        if !own {
            inherits(&lab);
        }
        let answer = json(lab.push(&path, &lab.old, &lab.token().await)).await;
        let refused = answer["error"]["code"].as_u64().or(answer["code"].as_u64());
        assert_eq!(refused, code, "{path} {answer}");
        assert_eq!(answer["cloudCredentialRotationJobId"].is_string(), code.is_none());
    }
}

#[tokio::test]
async fn a_service_without_a_credential_uses_its_providers() {
    let lab = Lab::new(quick()).await;
    lab.arcgis.add_service("uqsip6c2vm", PROVIDER, "gis-store", None);
    assert_eq!(lab.arcgis.held_key("uqsip6c2vm"), None);
    lab.arcgis.set_credential(PROVIDER, &lab.old.0, &lab.old.1);
    assert_eq!(lab.arcgis.held_key("uqsip6c2vm"), Some(lab.old.clone()));
    until("use", || lab.arcgis.consumer("uqsip6c2vm").last_good_key.as_ref() == Some(&lab.old.0)).await;
}

#[tokio::test]
async fn moods_refuse_posts_and_let_logins_pass() {
    let lab = Lab::new(ArcGisOptions { concurrent_jobs: false, ..quick() }).await;
    lab.arcgis.set_read_only(true);
    let refused = lab.update(&lab.old).await;
    assert!(refused["error"]["message"].as_str().is_some_and(|m| m.contains("read-only")), "{refused}");
    lab.arcgis.set_read_only(false);
    lab.arcgis.set_site_locked(true);
    let busy = "Another administrative operation is currently accessing the store. Please try again later.";
    assert_eq!(lab.update(&lab.old).await["error"]["message"], busy);
    lab.arcgis.set_site_locked(false);
    lab.arcgis.set_username_privilege(false);
    assert_eq!(lab.update(&lab.old).await["error"]["message"], "Token is valid but access is denied.");
    lab.arcgis.set_username_privilege(true);
    assert!(lab.arcgis.jobs().is_empty());
    lab.update(&lab.old).await;
    assert_eq!(lab.update(&lab.old).await["error"]["message"], busy);
    assert_eq!(lab.arcgis.jobs().len(), 1);
}

#[tokio::test]
async fn a_lost_reply_leaves_a_job_behind_and_a_late_one_comes_later() {
    let lab = Lab::new(quick()).await;
    let token = lab.token().await;
    let path = format!("cloud/services/{SERVICE}/credential/update");
    let send = || lab.push(&path, &lab.old, &token).send();
    lab.arcgis.fault("credential/update", Fault::DropBefore);
    assert!(send().await.is_err() && lab.arcgis.jobs().is_empty());
    lab.arcgis.fault("credential/update", Fault::Throttle);
    assert!(send().await.is_ok_and(|r| r.status() == 429 && r.headers().contains_key("retry-after")));
    lab.arcgis.fault("credential/update", Fault::LostReply);
    assert!(send().await.is_err() && lab.arcgis.jobs().len() == 1);
    lab.arcgis.fault("credential/update", Fault::Late(Duration::from_millis(20)));
    assert!(send().await.is_err() && lab.arcgis.jobs().len() == 1);
    until("late job", || lab.arcgis.jobs().len() == 2).await;
    assert_eq!(lab.arcgis.jobs()[1].access_key_id, lab.old.0);
    lab.arcgis.fault("credential/update", Fault::Delayed(Duration::from_millis(20)));
    assert!(send().await.is_ok_and(|r| r.status() == 200) && lab.arcgis.jobs().len() == 3);
    assert_eq!(lab.arcgis.faults_left("credential/update"), 0);
}

#[tokio::test]
async fn the_printed_reply_lacks_its_quote() {
    let lab = Lab::new(ArcGisOptions { malformed_job_reply: true, ..quick() }).await;
    let token = lab.token().await;
    let answer = text(lab.push(&format!("cloud/services/{SERVICE}/credential/update"), &lab.old, &token)).await;
    assert!(
        answer.starts_with("{ \"cloudCredentialRotationJobId\": j") && serde_json::from_str::<Value>(&answer).is_err()
    );
}

#[tokio::test]
async fn a_restart_hides_the_site_and_not_the_store() {
    let lab = Lab::new(quick()).await;
    lab.arcgis.restart_in_next_job(Restart::Unavailable, Duration::from_millis(200));
    lab.update(&lab.old).await;
    until("restart", || lab.arcgis.site().restarting(Utc::now()).is_some()).await;
    let response = lab.get("mode?f=json", "any").send().await.expect("the proxy answers");
    assert_eq!(response.status(), 503);
    until("back", || lab.arcgis.site().restarting(Utc::now()).is_none()).await;
    lab.token().await;
    assert_eq!(lab.arcgis.consumer_refusals(), 0);
}

#[tokio::test]
async fn a_backup_brings_the_old_credential_back() {
    let lab = Lab::new(quick()).await;
    let backup = lab.arcgis.snapshot();
    lab.arcgis.set_credential(SERVICE, "AKIANEW", "new");
    lab.arcgis.restore(backup);
    assert_eq!(lab.arcgis.held_key(SERVICE), Some(lab.old.clone()));
    assert!(lab.arcgis.all_secrets().contains(&"new".to_owned()));
}

#[tokio::test]
async fn the_certificate_is_good_for_those_who_trust_its_authority_only() {
    let lab = Lab::new(ArcGisOptions { tls: true, ..quick() }).await;
    let url = format!("{}/mode?f=json", lab.arcgis.admin_url());
    assert!(url.starts_with("https://") && lab.http.get(&url).send().await.is_err());
    let pem = lab.arcgis.ca_pem().expect("there is an authority");
    let ca = reqwest::Certificate::from_pem(pem.as_bytes()).expect("PEM");
    let trusting = reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build().expect("a client");
    assert_eq!(json(trusting.get(&url)).await["error"]["code"], 499);
}

#[tokio::test]
async fn a_backup_store_is_ready_while_its_key_works() {
    let lab = Lab::new(quick()).await;
    lab.arcgis.add_backup_store("nightly", SERVICE);
    let token = lab.token().await;
    let validate = || async {
        let url = format!("{}/system/disasterrecovery/stores/nightly/validate", lab.arcgis.admin_url());
        json(lab.http.post(url).header("referer", "https://rekeyd").form(&[("f", "json"), ("token", &token)])).await
    };
    assert_eq!(validate().await, json!({"isReady": true, "status": "success"}));
    lab.arcgis.set_credential(SERVICE, &lab.old.0, "wrong");
    assert_eq!(validate().await["isReady"], false);
}

#[tokio::test]
async fn a_refusal_belongs_to_the_key_the_request_was_sent_with() {
    let lab = Lab::new(quick()).await;
    let new = lab.aws.create_key("store");
    lab.aws.set_status("store", &lab.old.0, false);
    lab.aws.fault("ConsumerGet", Fault::Slow(Duration::from_millis(100)));
    let before = lab.aws.consumer_requests();
    until("the slow one is under way", || lab.aws.consumer_requests() > before).await;
    lab.arcgis.set_credential(SERVICE, &new.0, &new.1);
    until("use", || lab.arcgis.consumer(SERVICE).last_good_key.as_ref() == Some(&new.0)).await;
    let refused = lab.arcgis.consumer(SERVICE).refusals_by_key;
    assert_eq!(refused.keys().collect::<Vec<_>>(), [&lab.old.0]);
}

#[tokio::test]
async fn a_key_pushed_before_it_has_propagated_is_an_outage() {
    let lab = Lab::new(quick()).await;
    lab.aws.set_propagation(Duration::from_secs(60));
    let answer = lab.aws.mint_for_test("store");
    lab.update(&answer).await;
    until("refusal", || lab.arcgis.consumer(SERVICE).refusals > 0).await;
    assert!(lab.arcgis.consumer(SERVICE).refusals_by_key.contains_key(&answer.0));
}

#[tokio::test]
async fn a_conversation_is_written_down_from_the_moment_it_is_asked_for() {
    let lab = Lab::new(ArcGisOptions::default()).await;
    lab.token().await;
    assert_eq!(lab.arcgis.conversation(), vec![]);
    lab.arcgis.record();
    let token = lab.token().await;
    lab.arcgis.fault("root", crate::Fault::DropBefore);
    lab.get("", &token).query(&[("f", "json")]).send().await.expect_err("it is closed without an answer");
    let told = lab.arcgis.conversation();
    let [login, root] = &told[..] else { panic!("{told:?}") };
    assert_eq!((login.method.as_str(), login.path.as_str()), ("POST", "/arcgis/sharing/rest/generateToken"));
    assert!(login.form.contains(&("password".to_owned(), ArcGisOptions::default().password)), "{login:?}");
    assert!(login.form_as_sent.contains("password=p%2Bss"), "{login:?}");
    let answer = login.answer.as_ref().expect("it was answered");
    assert!(answer.status == 200 && answer.body.contains(&token), "{answer:?}");
    assert_eq!((root.query.as_str(), &root.answer), ("f=json", &None));
    assert!(root.headers.contains(&("referer".to_owned(), "https://rekeyd".to_owned())), "{root:?}");
}

#[tokio::test]
async fn a_type_is_switched_from_12_0_on_only_and_within_its_cloud() {
    for (version, operation) in [("11.2", "add"), ("12.0", "update")] {
        let lab = Lab::new(ArcGisOptions { version: version.to_owned(), ..quick() }).await;
        lab.arcgis.add_provider("azureazure", "AZURE", None);
        lab.arcgis.add_service_with(ServiceSpec::azure_blob_store("blobblob00", "azureazure", "gis"));
        let held =
            json!({"type": "STORAGE-ACCOUNT-KEY", "secret": {"storageAccountName": "n", "storageAccountKey": "k+/="}});
        lab.arcgis.set_credential_object("blobblob00", &held);
        let token = lab.token().await;
        let send = |credential: &Value| {
            let form = [("credential", credential.to_string()), ("f", "json".to_owned()), ("token", token.clone())];
            let url = format!("{}/cloud/services/blobblob00/credential/{operation}", lab.arcgis.admin_url());
            lab.http.post(url).header("referer", "https://rekeyd").form(&form)
        };
        let hmac = json!({"type": "HMAC-KEYS", "secret": {"accessKey": "a", "secretKey": "s"}});
        let refused = json(send(&hmac)).await;
        assert!(refused.to_string().contains("not supported by cloud provider AZURE"), "{refused}");
        let sas =
            json!({"type": "SAS-TOKEN", "secret": {"storageAccountName": "n", "sasToken": "?sv=1&sig=a%2Bb+c%3D"}});
        let answer = json(send(&sas)).await;
        lab.arcgis.settled().await;
        let switched = version == "12.0";
        assert_eq!(answer["error"]["details"][0] == "The credential type cannot be changed.", !switched, "{answer}");
        assert_eq!(lab.arcgis.credential_object("blobblob00"), Some(if switched { sas } else { held }));
    }
}

#[tokio::test]
async fn the_services_of_the_other_clouds_look_as_documented() {
    let lab = Lab::new(server()).await;
    lab.arcgis.add_provider("azureazure", "AZURE", None);
    for spec in [
        ServiceSpec::azure_blob_store("blobblob00", "azureazure", "gis"),
        ServiceSpec::azure_cosmos_db("cosmos0000", "azureazure"),
        ServiceSpec::azure_service_bus("servicebus", "azureazure"),
        ServiceSpec::google_cloud_storage("googlegcs0", "azureazure", "gis-gcs"),
    ] {
        lab.arcgis.add_service_with(spec);
    }
    let shown = json(lab.get("cloud/services?f=json", &lab.token().await)).await;
    let services = shown["cloudServices"].as_array().expect("a list");
    let seen: Vec<_> =
        services[1..].iter().map(|s| (s["name"].as_str(), s["type"].as_str(), s["category"].as_str())).collect();
    assert_eq!(
        seen,
        [
            (Some("Azure Blob Store"), Some("objectStore"), Some("storage")),
            (Some("Azure Cosmos DB"), Some("tableStore"), Some("storage")),
            (Some("Azure Service Bus"), Some("queueService"), Some("queue")),
            (Some("Google Cloud Storage"), Some("objectStore"), Some("storage")),
        ]
    );
    assert_eq!(services[1]["connection"]["containerName"], "gis");
    assert_eq!(services[2]["connection"]["cosmosDBConnectionMode"], "Gateway");
    assert!(services[3]["connection"]["serviceBusEndpointUrl"].is_string());
    assert_eq!(services[4]["connection"]["bucketName"], "gis-gcs");
}

#[tokio::test]
async fn a_service_without_a_key_reads_with_the_role_of_its_nodes() {
    let lab = Lab::new(quick()).await;
    lab.arcgis.set_credential_object(SERVICE, &serde_json::json!({"type": "IAM-ROLE"}));
    until("refusal", || lab.arcgis.consumer(SERVICE).refusals_by_key.contains_key("no-role")).await;
    lab.arcgis.set_node_role(&lab.old.0, &lab.old.1);
    until("use", || lab.arcgis.consumer(SERVICE).healthy).await;
    lab.arcgis.take_node_role(true);
    until("refusal", || !lab.arcgis.consumer(SERVICE).healthy).await;
    lab.arcgis.take_node_role(false);
    until("use", || lab.arcgis.consumer(SERVICE).healthy).await;
}
