//! A real azurite, where `REKEYD_AZURITE` names one that `tests/azurite.js` runs (`tests/run` does that), with its control port in
//! `REKEYD_AZURITE_CONTROL`: the blob service of an Azure whose Entra and ARM are the lab's. azurite checks what is signed with an
//! account's keys; the lab says which keys those are, and [`Azurite::follow`] is the wire between the two.
//!
//! All tests of a process share it, so that each needs accounts of its own there: a name is taken by one test only. What it answers
//! otherwise than Azure does is pinned below, lest anybody take it for Azure's word.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Mutex, OnceLock};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use rekeyd_lab::{Azure, AzureOptions};
use reqwest::{Method, Url};
use serde_json::{Value, json};

use super::support::PATIENCE;

/// The blob service, as every test finds it.
pub struct Azurite {
    /// Its URL; an account's is this, a slash and the account's name.
    pub endpoint: String,
    /// Host and port of what sets its keys.
    control: String,
    /// What azurite was told. It knows no account but those it is told at once, so that it is told all of them each time.
    accounts: Mutex<BTreeMap<String, [String; 2]>>,
}

/// The blob service; `None`, and a word about it, where there is none.
pub async fn azurite() -> Option<&'static Azurite> {
    static AZURITE: OnceLock<Azurite> = OnceLock::new();
    let Ok(endpoint) = std::env::var("REKEYD_AZURITE") else {
        println!("skipped: needs azurite, run tests/run");
        return None;
    };
    Some(AZURITE.get_or_init(|| {
        let control = std::env::var("REKEYD_AZURITE_CONTROL").expect("REKEYD_AZURITE_CONTROL goes with REKEYD_AZURITE");
        let control = control.strip_prefix("http://").expect("plain http").to_owned();
        Azurite { endpoint, control, accounts: Mutex::default() }
    }))
}

impl Azurite {
    /// From now on azurite has a key regenerated at this Azure, through its ARM or by hand, before ARM answers.
    pub fn follow(&'static self, azure: &Azure) {
        let own = azure.clone();
        azure.on_regenerated(move |key| {
            // Cosmos DB and Service Bus have keys too.
            if key.account.contains(STORAGE) {
                self.tell(&own, &key.account);
            }
        });
    }

    /// A storage account that both know, with the same keys: its ARM id.
    pub fn add_account(&self, azure: &Azure, name: &str) -> String {
        let id = azure.add_storage_account(name);
        self.tell(azure, &id);
        id
    }

    /// Of two regenerations at once the last one stays: what is told is read from the account where nobody overtakes.
    fn tell(&self, azure: &Azure, id: &str) {
        let (_, name) = id.split_once(STORAGE).expect("the ARM id of a storage account");
        self.change(name, || ["key1", "key2"].map(|slot| azure.slot(id, slot).value));
    }

    /// Gives an account these keys, whatever it had.
    pub fn set_keys(&self, account: &str, keys: [&str; 2]) {
        self.change(account, || keys.map(str::to_owned));
    }

    fn change(&self, account: &str, keys: impl FnOnce() -> [String; 2]) {
        let mut accounts = self.accounts.lock().expect("azurite took what it was told before");
        accounts.insert(account.to_owned(), keys());
        self.send(&json!({ "accounts": *accounts }).to_string());
    }

    /// On a plain socket, because the lab's hook cannot await. azurite is another process, and answers within milliseconds.
    fn send(&self, body: &str) {
        let mut stream = TcpStream::connect(&self.control).expect("azurite's control port listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let (host, length) = (&self.control, body.len());
        let request = format!(
            "POST /accounts HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).expect("azurite's control port reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("azurite's control port answers");
        assert!(answer.starts_with("HTTP/1.1 204 "), "azurite does not take what it is told: {answer}");
    }

    /// Makes a container, or finds the one an earlier run of the tests made.
    pub async fn put_container(&self, account: &str, key: &str, container: &str) {
        let request =
            Request { query: [("restype", "container")].into(), ..Request::new(Method::PUT, account, container) };
        let answer = self.ask(request, key).await;
        assert!(["201", "409 ContainerAlreadyExists"].contains(&&*answer.short()), "{answer:?}");
    }

    /// Puts a blob of text, or another text into the one that is there.
    pub async fn put_blob(&self, account: &str, key: &str, container: &str, name: &str, text: &str) {
        let mut request = Request::new(Method::PUT, account, &format!("{container}/{name}"));
        request.headers.insert("x-ms-blob-type", "BlockBlob".to_owned());
        request.body = text.to_owned();
        let answer = self.ask(request, key).await;
        assert_eq!(answer.short(), "201", "{answer:?}");
    }

    /// Lists a container's blobs with a key of the account.
    pub async fn list(&self, account: &str, key: &str, container: &str) -> Answer {
        self.ask(Request::list(account, container), key).await
    }

    /// Lists a container's blobs with a SAS.
    pub async fn list_with_sas(&self, account: &str, sas: &str, container: &str) -> Answer {
        let request = Request::list(account, container);
        let mut url = request.url(&self.endpoint);
        url.set_query(Some(&format!("{}&{sas}", url.query().unwrap_or_default())));
        Answer::read(http().get(url)).await
    }

    /// One request, signed with a key.
    async fn ask(&self, request: Request, key: &str) -> Answer {
        let authorization = format!("SharedKey {}:{}", request.account, sign(key, &request.to_sign()));
        let mut sent = http().request(request.method.clone(), request.url(&self.endpoint));
        for (name, value) in &request.headers {
            sent = sent.header(*name, value);
        }
        Answer::read(sent.header("authorization", authorization).body(request.body)).await
    }
}

/// What it said.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// `x-ms-error-code`, or nothing.
    pub code: String,
    /// The body.
    pub text: String,
}

impl Answer {
    async fn read(request: reqwest::RequestBuilder) -> Self {
        let answer = request.send().await.expect("azurite answers");
        let status = answer.status().as_u16();
        let code = answer.headers().get("x-ms-error-code").map_or("", |code| code.to_str().expect("a word")).to_owned();
        Self { status, code, text: answer.text().await.expect("a text") }
    }

    /// Status and code, as in `403 AuthorizationFailure`.
    pub fn short(&self) -> String {
        format!("{} {}", self.status, self.code).trim_end().to_owned()
    }
}

/// An account SAS of the blob service, for all kinds of resources, as the text behind the question mark. It names no protocol: to
/// demand HTTPS is to be refused here.
pub fn account_sas(account: &str, key: &str, permissions: &str, expires: DateTime<Utc>) -> String {
    let (services, kinds, version) = ("b", "sco", "2022-11-02");
    let expiry = expires.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let [start, addresses, protocol, scope] = [""; 4];
    let fields = [account, permissions, services, kinds, start, &expiry, addresses, protocol, version, scope];
    let signature = sign(key, &format!("{}\n", fields.join("\n")));
    let query =
        [("sv", version), ("ss", services), ("srt", kinds), ("sp", permissions), ("se", &expiry), ("sig", &signature)];
    let url = Url::parse_with_params("http://localhost", query).expect("a URL");
    url.query().expect("it has a query").to_owned()
}

/// In every ARM id of a storage account, right before its name.
const STORAGE: &str = "/Microsoft.Storage/storageAccounts/";

/// A request before it is signed.
struct Request {
    method: Method,
    account: String,
    /// Below the account, without a slash in front.
    path: String,
    query: BTreeMap<&'static str, &'static str>,
    headers: BTreeMap<&'static str, String>,
    body: String,
}

impl Request {
    fn new(method: Method, account: &str, path: &str) -> Self {
        let headers = [("x-ms-date", http_date(Utc::now())), ("x-ms-version", "2021-12-02".to_owned())].into();
        let (account, path) = (account.to_owned(), path.to_owned());
        Self { method, account, path, query: BTreeMap::new(), headers, body: String::new() }
    }

    fn list(account: &str, container: &str) -> Self {
        let query = [("restype", "container"), ("comp", "list")].into();
        Self { query, ..Self::new(Method::GET, account, container) }
    }

    fn url(&self, endpoint: &str) -> Url {
        Url::parse_with_params(&format!("{endpoint}/{}/{}", self.account, self.path), &self.query).expect("a URL")
    }

    /// "Authorize with Shared Key", of versions since 2015-02-21. The resource is the account, and then the path; azurite's paths
    /// begin with the account, which therefore stands there twice.
    fn to_sign(&self) -> String {
        let (method, account, path) = (&self.method, &self.account, &self.path);
        let length = if self.body.is_empty() { String::new() } else { self.body.len().to_string() };
        let mut text = format!("{method}\n\n\n{length}\n\n\n\n\n\n\n\n\n");
        for (name, value) in &self.headers {
            text += &format!("{name}:{value}\n");
        }
        text += &format!("/{account}/{account}/{path}");
        for (name, value) in &self.query {
            text += &format!("\n{name}:{value}");
        }
        text
    }
}

fn sign(key: &str, text: &str) -> String {
    let key = STANDARD.decode(key).expect("an account's key is base64");
    STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), text.as_bytes()))
}

fn http_date(at: DateTime<Utc>) -> String {
    at.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a plain client")
}

// ---- what it does ----

#[tokio::test]
async fn a_key_regenerated_through_arm_is_refused_at_once_and_the_other_one_is_not() {
    let Some(azurite) = azurite().await else { return };
    let azure = Azure::start(AzureOptions::default()).await;
    azurite.follow(&azure);
    let account = "regenerated";
    let arm = Arm { id: azurite.add_account(&azure, account), token: token(&azure).await, url: azure.arm_url() };
    let old = arm.keys("listKeys", Value::Null).await;
    azurite.put_container(account, &old[0], "tiles").await;
    azurite.put_blob(account, &old[1], "tiles", "0.png", "a tile").await;
    let sas = old.clone().map(|key| account_sas(account, &key, "rl", Utc::now() + TimeDelta::hours(1)));
    for (key, sas) in old.iter().zip(&sas) {
        for answer in [azurite.list(account, key, "tiles").await, azurite.list_with_sas(account, sas, "tiles").await] {
            assert!(answer.short() == "200" && answer.text.contains("<Name>0.png</Name>"), "{answer:?}");
        }
    }

    let new = arm.keys("regenerateKey", json!({"keyName": "key1"})).await;
    assert!(new[0] != old[0] && new[1] == old[1]);
    assert_eq!(azurite.list(account, &old[0], "tiles").await.short(), "403 AuthorizationFailure");
    assert_eq!(azurite.list_with_sas(account, &sas[0], "tiles").await.short(), "403 AuthorizationFailure");
    assert_eq!(azurite.list(account, &new[0], "tiles").await.short(), "200");
    assert_eq!(azurite.list(account, &old[1], "tiles").await.short(), "200");
    assert_eq!(azurite.list_with_sas(account, &sas[1], "tiles").await.short(), "200");

    // A human in the portal does no less.
    let newer = azure.regenerate(&arm.id, "key2");
    assert_eq!(azurite.list(account, &old[1], "tiles").await.short(), "403 AuthorizationFailure");
    assert_eq!(azurite.list(account, &newer, "tiles").await.short(), "200");
}

/// Two Azures at once, as of two tests, and a key that is no storage account's.
#[tokio::test]
async fn nobody_who_shares_it_takes_anothers_keys_away() {
    let Some(azurite) = azurite().await else { return };
    let one = async |account: &'static str| {
        let azure = Azure::start(AzureOptions::default()).await;
        azurite.follow(&azure);
        azure.regenerate(&azure.add_cosmos_account(account), "primary");
        let id = azurite.add_account(&azure, account);
        let mut key = azure.slot(&id, "key1").value;
        azurite.put_container(account, &key, "tiles").await;
        for _ in 0..10 {
            key = azure.regenerate(&id, "key1");
            tokio::task::yield_now().await;
            assert_eq!(azurite.list(account, &key, "tiles").await.short(), "200", "{account}");
        }
    };
    tokio::join!(one("sharedone"), one("sharedtwo"), one("sharedthree"));
}

/// Where Azure is known to answer otherwise, that stands behind it. Whoever reads the answers must take both.
#[tokio::test]
async fn azurite_refuses_in_its_own_words() {
    let Some(azurite) = azurite().await else { return };
    let (account, key, other) = ("refusals", &STANDARD.encode([1; 64]), &STANDARD.encode([2; 64]));
    azurite.set_keys(account, [key, other]);
    azurite.put_container(account, key, "tiles").await;
    let (past, future) = (Utc::now() - TimeDelta::minutes(1), Utc::now() + TimeDelta::hours(1));
    let sas = async |key: &str, permissions: &str, expires, container: &str| {
        azurite.list_with_sas(account, &account_sas(account, key, permissions, expires), container).await.short()
    };
    let wrong = &STANDARD.encode([3; 64]);

    // Azure: 403 AuthenticationFailed.
    assert_eq!(azurite.list(account, wrong, "tiles").await.short(), "403 AuthorizationFailure");
    assert_eq!(azurite.list(account, wrong, "nowhere").await.short(), "403 AuthorizationFailure");
    assert_eq!(sas(wrong, "rl", future, "tiles").await, "403 AuthorizationFailure");
    assert_eq!(sas(key, "rl", past, "tiles").await, "403 AuthorizationFailure");
    // As Azure.
    assert_eq!(sas(key, "rl", future, "tiles").await, "200");
    assert_eq!(sas(key, "r", future, "tiles").await, "403 AuthorizationPermissionMismatch");
    assert_eq!(sas(key, "rl", future, "nowhere").await, "404 ContainerNotFound");
    assert_eq!(azurite.list(account, key, "nowhere").await.short(), "404 ContainerNotFound");
    // Azure: the account's host has no address.
    assert_eq!(azurite.list("nobody", key, "tiles").await.short(), "404 ResourceNotFound");

    // Azure: 403 AuthenticationFailed, for a date more than fifteen minutes old or none.
    let mut request = Request::list(account, "tiles");
    request.headers.insert("x-ms-date", http_date(Utc::now() - TimeDelta::days(1)));
    assert_eq!(azurite.ask(request, key).await.short(), "200");
    // Azure demands a version where a request is signed.
    let mut request = Request::list(account, "tiles");
    request.headers.remove("x-ms-version");
    assert_eq!(azurite.ask(request, key).await.short(), "200");
    // Azure too refuses what it does not know; its list is another.
    let mut request = Request::list(account, "tiles");
    request.headers.insert("x-ms-version", "2099-01-01".to_owned());
    assert_eq!(azurite.ask(request, key).await.short(), "400 InvalidHeaderValue");
}

/// A storage account at the lab's ARM, as its clients see it.
struct Arm {
    id: String,
    token: String,
    url: String,
}

impl Arm {
    /// `key1` and `key2`, from the answer to `listKeys` or `regenerateKey`.
    async fn keys(&self, action: &str, body: Value) -> [String; 2] {
        let url = format!("{}{}/{action}?api-version=2024-01-01", self.url, self.id);
        let request = http().post(url).bearer_auth(&self.token);
        // A POST that announces no length is refused, and reqwest announces none where there is no body.
        let request = if body.is_null() { request.header("content-length", 0) } else { request.json(&body) };
        let answer: Value = request.send().await.expect("ARM answers").json().await.expect("JSON");
        [0, 1].map(|slot| answer["keys"][slot]["value"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned())
    }
}

/// The rotator's token for ARM.
async fn token(azure: &Azure) -> String {
    let (client_id, secret) = azure.admin();
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", &client_id),
        ("client_secret", &secret),
        ("scope", "https://management.azure.com/.default"),
    ];
    let url = format!("{}/{}/oauth2/v2.0/token", azure.authority_url(), azure.tenant_id());
    let answer: Value = http().post(url).form(&form).send().await.expect("Entra answers").json().await.expect("JSON");
    answer["access_token"].as_str().expect("a token").to_owned()
}
