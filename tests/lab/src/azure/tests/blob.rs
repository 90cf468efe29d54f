//! The data plane lets in whom Azure lets in, and tells everybody else why not.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::*;
use crate::azure::blob::Asked;
use crate::azure::wire::Content;
use crate::http::Request;
use crate::shared_key::{Signed, sign, vectors};

const STORAGE: &str = "https://storage.azure.com/.default";
const VERSION: &str = "2025-01-05";
const TILES: &str = "/gisstore/tiles?restype=container&comp=list";
const CONTAINERS: &str = "/gisstore/?comp=list";
const README: &str = "/gisstore/tiles/read%20me.txt";

/// An account with a container and a blob; the account's ARM id.
async fn store(options: AzureOptions) -> (Azure, String) {
    let azure = start(options).await;
    let account = azure.add_storage_account("gisstore");
    azure.add_container(&account, "tiles");
    azure.put_blob(&account, "tiles", "read me.txt", b"hello");
    (azure, account)
}

/// A request with headers, and what of it a key signs.
struct Letter<'a> {
    method: Method,
    address: &'a str,
    headers: Vec<(String, String)>,
}

impl<'a> Letter<'a> {
    fn get(address: &'a str) -> Self {
        let headers = [("x-ms-version", VERSION), ("x-ms-date", &dated(TimeDelta::zero()))];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Self { method: Method::GET, address, headers }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(n, _)| n != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(n, _)| n != name);
        self
    }

    fn method(self, method: Method) -> Self {
        Self { method, ..self }
    }

    /// By the rules of Shared Key, in the name of this account.
    fn signed(self, account: &str, key: &str) -> Self {
        let (path, query) = self.address.split_once('?').unwrap_or((self.address, ""));
        let signed = Signed { method: self.method.as_str(), path, query, headers: self.headers.clone() };
        let signature = sign(key, &signed.string_to_sign(account)).expect("the key is Base64");
        self.with("authorization", &format!("SharedKey {account}:{signature}"))
    }

    fn named(mut self, account: &str) -> Self {
        let signed = self.headers.iter_mut().filter(|(name, _)| name == "authorization");
        signed.for_each(|(_, value)| *value = value.replace("gisstore:", &format!("{account}:")));
        self
    }

    async fn try_send(self, azure: &Azure) -> Result<Answer, reqwest::Error> {
        let request = http().request(self.method, format!("{}{}", azure.blob_url(), self.address));
        answer(self.headers.into_iter().fold(request, |request, (name, value)| request.header(name, value))).await
    }

    async fn send(self, azure: &Azure) -> Answer {
        self.try_send(azure).await.expect("the data plane answers")
    }
}

fn dated(ago: TimeDelta) -> String {
    (Utc::now() - ago).format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Signed with what is in this slot.
async fn by_slot(azure: &Azure, account: &str, slot: &str, address: &str) -> Answer {
    Letter::get(address).signed("gisstore", &value(azure, account, slot)).send(azure).await
}

async fn by_query(azure: &Azure, address: &str, sas: &str) -> Answer {
    let joint = if address.contains('?') { '&' } else { '?' };
    answer(http().get(format!("{}{address}{joint}{sas}", azure.blob_url()))).await.expect("the data plane answers")
}

impl Answer {
    /// Status and code; the code stands in the body and in a header.
    fn refusal(&self) -> (u16, String) {
        assert!(
            self.text.starts_with("\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>"),
            "{}",
            self.text
        );
        let code = self.element("Code");
        assert_eq!(self.header("x-ms-error-code"), code);
        assert!(self.element("Message").contains("\nRequestId:") && self.element("Message").contains("\nTime:"));
        (self.status, code.to_owned())
    }

    /// The text of the first element with this name.
    fn element(&self, name: &str) -> &str {
        let rest = self.text.split_once(&format!("<{name}>")).map(|(_, rest)| rest);
        rest.and_then(|rest| rest.split_once(&format!("</{name}>"))).map_or("", |(text, _)| text)
    }

    fn detail(&self) -> &str {
        self.element("AuthenticationErrorDetail")
    }
}

fn failed() -> (u16, String) {
    refused(403, "AuthenticationFailed")
}

// --- What Azure's SDK sends ---

/// The answer of an account with the key of the vectors, at their time, to a request that was never sent.
fn judge(azure: &Azure, method: &str, address: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let (path, query) = address.split_once('?').unwrap_or((address, ""));
    let all = headers.iter().map(|(name, value)| {
        (name.parse::<HeaderName>().expect("a name"), value.parse::<HeaderValue>().expect("a value"))
    });
    let request = Request {
        method: method.parse().expect("a method"),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: all.collect::<HeaderMap>(),
        body: Bytes::new(),
        peer: "127.0.0.1".parse().expect("an address"),
    };
    let now = DateTime::parse_from_rfc2822(vectors::DATE).expect("a date").to_utc();
    let asked = Asked::read(&request).expect("this is offered");
    let outcome = asked.execute(&request, &azure.state(), now);
    let code = match *outcome.content {
        Content::Error(code, ..) => code,
        _ => outcome.key,
    };
    (outcome.status, code)
}

async fn store_of_the_vectors() -> Azure {
    let (azure, account) = store(AzureOptions { tls: true, ..AzureOptions::default() }).await;
    azure.put_blob(&account, vectors::CONTAINER, vectors::BLOB, b"hello");
    azure.account(&account, |account| account.slots[1].value = vectors::KEY.to_owned());
    azure
}

#[tokio::test]
async fn the_requests_of_azures_sdk_are_let_in() {
    let azure = store_of_the_vectors().await;
    for (method, address, headers, signature) in vectors::REQUESTS {
        let with = |signature: &str| {
            let authorization = format!("SharedKey gisstore:{signature}");
            let ours = [("x-ms-date", vectors::DATE), ("authorization", &authorization)];
            judge(&azure, method, address, &[headers, &ours].concat())
        };
        assert_eq!(with(signature), (200, "key2".to_owned()), "{address}");
        assert_eq!(with(&signature.replace('=', "A=")), failed(), "{address}");
    }
}

#[tokio::test]
async fn the_tokens_of_azures_sdk_are_let_in() {
    let azure = store_of_the_vectors().await;
    let good = (200, "key2".to_owned());
    let blob = "/gisstore/tiles/a%20b/c%2Bd.txt?";
    for query in vectors::ACCOUNT_SAS {
        for address in [CONTAINERS, TILES, blob] {
            assert_eq!(judge(&azure, "GET", &format!("{address}&{query}"), &[]), good, "{address} {query}");
        }
    }
    for query in vectors::CONTAINER_SAS {
        assert_eq!(judge(&azure, "GET", &format!("{TILES}&{query}"), &[]), good, "{query}");
        assert_eq!(judge(&azure, "HEAD", &format!("{blob}{query}"), &[]), good, "{query}");
        // It is of the container, and of this one.
        assert_eq!(judge(&azure, "GET", &format!("{CONTAINERS}&{query}"), &[]), failed(), "{query}");
        let other = TILES.replace("tiles", "other");
        assert_eq!(judge(&azure, "GET", &format!("{other}&{query}"), &[]), failed(), "{query}");
    }
    for query in vectors::BLOB_SAS {
        assert_eq!(judge(&azure, "GET", &format!("{blob}{query}"), &[]), good, "{query}");
        assert_eq!(judge(&azure, "GET", &format!("{TILES}&{query}"), &[]), failed(), "{query}");
        assert_eq!(judge(&azure, "GET", &format!("{README}?{query}"), &[]), failed(), "{query}");
    }
    // Whatever is changed about one of them, it is not signed any more.
    let [query, ..] = vectors::ACCOUNT_SAS;
    for (from, to) in
        [("sp=rl", "sp=rwl"), ("srt=sco", "srt=c"), ("spr=https", "spr=https,http"), ("2027-02", "2028-02")]
    {
        assert_eq!(judge(&azure, "GET", &format!("{TILES}&{}", query.replace(from, to)), &[]), failed(), "{to}");
    }
    // A plus that nobody escaped is a space.
    let [_, unescaped, ..] = vectors::ACCOUNT_SAS.map(|query| query.replace("%2B", "+"));
    assert_eq!(judge(&azure, "GET", &format!("{TILES}&{unescaped}"), &[]), failed());
}

// --- Shared Key ---

#[tokio::test]
async fn either_key_reads_until_its_slot_is_regenerated() {
    let (azure, account) = store(AzureOptions::default()).await;
    for slot in ["key1", "key2"] {
        let answer = by_slot(&azure, &account, slot, TILES).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let line = azure.requests().pop().expect("a line");
        let seen = (line.operation.as_str(), line.user_or_target.as_str(), line.access_key_id.as_str());
        assert_eq!((seen, line.status, line.executed), (("ListBlobs", "gisstore", slot), 200, true));
    }
    let old = value(&azure, &account, "key1");
    let of_old = azure.account_sas(&account, "key1", HOUR);
    let in_container = azure.container_sas(&account, "tiles", "key1", HOUR);
    let other = azure.account_sas(&account, "key2", HOUR);
    for sas in [&of_old, &in_container, &other] {
        assert_eq!(by_query(&azure, TILES, sas).await.status, 200);
    }
    azure.regenerate(&account, "key1");
    let refused = Letter::get(TILES).signed("gisstore", &old).send(&azure).await;
    assert_eq!(refused.refusal(), failed());
    assert!(refused.detail().starts_with("The MAC signature found in the HTTP request '"), "{}", refused.text);
    assert_eq!(by_query(&azure, TILES, &of_old).await.refusal(), failed());
    assert_eq!(by_query(&azure, TILES, &in_container).await.refusal(), failed());
    assert_eq!(by_query(&azure, TILES, &other).await.status, 200);
    assert_eq!(by_slot(&azure, &account, "key1", TILES).await.status, 200);
}

#[tokio::test]
async fn a_front_end_that_lags_takes_the_old_key_and_not_the_new_one() {
    let (azure, account) = store(AzureOptions { key_lag: HOUR, ..AzureOptions::default() }).await;
    let old = value(&azure, &account, "key1");
    let new = azure.regenerate(&account, "key1");
    let ask = |key: String| {
        let azure = azure.clone();
        async move { Letter::get(TILES).signed("gisstore", &key).send(&azure).await.status }
    };
    assert_eq!((ask(old.clone()).await, ask(new.clone()).await), (200, 403));
    azure.set_options(|options| options.key_lag = Duration::ZERO);
    assert_eq!((ask(old).await, ask(new).await), (403, 200));
}

#[tokio::test]
async fn what_is_wrong_with_a_signed_request_is_said() {
    let (azure, account) = store(AzureOptions::default()).await;
    azure.add_storage_account("other");
    let key = value(&azure, &account, "key1");
    let minutes = TimeDelta::minutes;
    let at = |ago| Letter::get(TILES).with("x-ms-date", &dated(ago)).signed("gisstore", &key);
    for fine in [at(minutes(14)), at(minutes(-14))] {
        assert_eq!(fine.send(&azure).await.status, 200);
    }
    // The older header will do where there is no newer one.
    let dated_by_date = Letter::get(TILES).without("x-ms-date").with("date", &dated(minutes(0)));
    assert_eq!(dated_by_date.signed("gisstore", &key).send(&azure).await.status, 200);

    let cases = [
        (at(minutes(16)), failed(), "Request date header too old: '"),
        (at(minutes(-16)), failed(), "Request date header too far in the future: '"),
        (
            Letter::get(TILES).with("x-ms-date", "now").signed("gisstore", &key),
            failed(),
            "Request date header is not in",
        ),
        (
            Letter::get(TILES).without("x-ms-date").signed("gisstore", &key),
            failed(),
            "Request date header not specified",
        ),
        (Letter::get(TILES).signed("other", &key), failed(), "The MAC signature found"),
        (Letter::get(TILES).signed("gisstore", "d3Jvbmc="), failed(), "The MAC signature found"),
        // The right signature under another's name.
        (Letter::get(TILES).signed("gisstore", &key).named("other"), failed(), "The MAC signature found"),
        // Signed for another version, another date, another path than sent.
        (
            Letter::get(TILES).signed("gisstore", &key).with("x-ms-version", "2024-11-04"),
            failed(),
            "The MAC signature found",
        ),
        (
            Letter::get(TILES).signed("gisstore", &key).with("x-ms-date", &dated(minutes(1))),
            failed(),
            "The MAC signature found",
        ),
        (
            Letter { address: CONTAINERS, ..Letter::get(TILES).signed("gisstore", &key) },
            failed(),
            "The MAC signature found",
        ),
        (
            Letter::get(TILES).without("x-ms-version").signed("gisstore", &key),
            refused(400, "MissingRequiredHeader"),
            "",
        ),
        (
            Letter::get(TILES).with("x-ms-version", "2025-01-06").signed("gisstore", &key),
            refused(400, "InvalidHeaderValue"),
            "",
        ),
        (Letter::get(TILES).with("authorization", "SharedKey gisstore"), refused(400, "InvalidAuthenticationInfo"), ""),
        (Letter::get(TILES).with("authorization", "Basic Zzpo"), refused(400, "InvalidAuthenticationInfo"), ""),
    ];
    for (letter, refusal, detail) in cases {
        let (address, headers) = (letter.address, format!("{:?}", letter.headers));
        let answer = letter.send(&azure).await;
        assert_eq!(answer.refusal(), refusal, "{address} {headers}");
        assert!(answer.detail().starts_with(detail), "{}", answer.text);
    }
    assert!(azure.requests().iter().all(|line| line.executed == (line.status == 200)));
}

#[tokio::test]
async fn who_may_not_come_in_does_not_learn_what_there_is() {
    let (azure, account) = store(AzureOptions::default()).await;
    let nowhere = "/nowhere/tiles?restype=container&comp=list";
    let missing = "/gisstore/missing?restype=container&comp=list";
    let blob = "/gisstore/tiles/missing";
    let key = value(&azure, &account, "key1");
    for (address, code) in [(nowhere, "ResourceNotFound"), (missing, "ContainerNotFound"), (blob, "BlobNotFound")] {
        assert_eq!(by_slot(&azure, &account, "key1", address).await.refusal(), refused(404, code));
    }
    assert_eq!(Letter::get(missing).signed("gisstore", "d3Jvbmc=").send(&azure).await.refusal(), failed());
    // Nobody's face, told where to show one, or, as before 2019-12-12, told nothing.
    let stranger = Letter::get(missing).send(&azure).await;
    assert_eq!(stranger.refusal(), refused(401, "NoAuthenticationInformation"));
    assert!(stranger.header("www-authenticate").ends_with(" resource_id=https://storage.azure.com"));
    let earlier = Letter::get(TILES).with("x-ms-version", "2019-02-02").send(&azure).await;
    assert_eq!(earlier.refusal(), refused(404, "ResourceNotFound"));
    // Nothing is written here, and nothing else is read.
    let put = Letter::get(README).method(Method::PUT).signed("gisstore", &key).send(&azure).await;
    assert_eq!(put.refusal(), refused(405, "UnsupportedHttpVerb"));
    let properties = by_slot(&azure, &account, "key1", "/gisstore/?restype=service&comp=properties").await;
    assert_eq!(properties.refusal(), refused(400, "UnsupportedQueryParameter"));
}

#[tokio::test]
async fn an_account_without_keys_refuses_all_that_is_signed_with_one() {
    let (azure, account) = store(AzureOptions::default()).await;
    let (client_id, secret) = azure.admin();
    let sas = azure.account_sas(&account, "key1", HOUR);
    azure.allow_keys(&account, false);
    let no = refused(403, "KeyBasedAuthenticationNotPermitted");
    assert_eq!(by_slot(&azure, &account, "key1", TILES).await.refusal(), no);
    assert_eq!(by_query(&azure, TILES, &sas).await.refusal(), no);
    let token = log_in(&azure, &client_id, &secret, STORAGE).await.json()["access_token"].clone();
    let bearer = format!("Bearer {}", token.as_str().expect("a token"));
    assert_eq!(Letter::get(TILES).with("authorization", &bearer).send(&azure).await.status, 200);
    azure.allow_keys(&account, true);
    assert_eq!(by_query(&azure, TILES, &sas).await.status, 200);
}

// --- Shared access signatures ---

#[tokio::test]
async fn a_sas_opens_what_it_is_for() {
    let (azure, account) = store(AzureOptions::default()).await;
    let key = value(&azure, &account, "key2");
    let at = |ahead: TimeDelta| (Utc::now() + ahead).format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let (soon, past) = (at(TimeDelta::hours(1)), at(TimeDelta::seconds(-1)));
    let sas = |changes: &[(&'static str, &str)], of_account: bool| {
        let scope: &[(&str, &str)] = if of_account { &[("ss", "b"), ("srt", "sco")] } else { &[("sr", "c")] };
        let all = [&[("sv", VERSION), ("se", &soon), ("sp", "rl")], scope, changes].concat();
        // Later ones replace earlier ones; an empty one is left out.
        let mut fields: Vec<(&str, &str)> = Vec::new();
        for (name, value) in all {
            fields.retain(|(n, _)| *n != name);
            fields.extend((!value.is_empty()).then_some((name, value)));
        }
        Sas::make(&fields, ("gisstore", &key), "tiles")
    };
    let ask = async |address: &str, changes: &[(&'static str, &str)], of_account| {
        let answer = by_query(&azure, address, &sas(changes, of_account)).await;
        if answer.status == 200 { "good".to_owned() } else { format!("{} {}", answer.refusal().1, answer.detail()) }
    };
    let permission = "AuthorizationPermissionMismatch ";
    let kind = "AuthorizationResourceTypeMismatch ";
    let frame = "AuthenticationFailed Signature not valid in the specified time frame: Start [";
    type Case<'a> = (&'a str, &'a [(&'static str, &'a str)], bool, &'a str);
    let cases: &[Case<'_>] = &[
        (TILES, &[], true, "good"),
        (CONTAINERS, &[], true, "good"),
        (README, &[], true, "good"),
        (TILES, &[("st", &past), ("spr", "https,http"), ("sip", "127.0.0.1")], true, "good"),
        (TILES, &[("sip", "127.0.0.0-127.0.0.9")], true, "good"),
        (TILES, &[("se", "2099-01-01")], true, "good"),
        (TILES, &[("se", "2099-01-01T01:02Z")], true, "good"),
        (TILES, &[("sp", "r")], true, permission),
        (README, &[("sp", "l")], true, permission),
        (TILES, &[("srt", "so")], true, kind),
        (CONTAINERS, &[("srt", "co")], true, kind),
        (README, &[("srt", "sc")], true, kind),
        (TILES, &[("ss", "qtf")], true, "AuthorizationServiceMismatch "),
        (TILES, &[("spr", "https")], true, "AuthorizationProtocolMismatch "),
        (TILES, &[("sip", "10.0.0.1")], true, "AuthorizationSourceIPMismatch "),
        (TILES, &[("sip", "127.0.0.2-127.0.0.9")], true, "AuthorizationSourceIPMismatch "),
        (TILES, &[("se", &past)], true, frame),
        (TILES, &[("se", "2099-01-01"), ("st", &soon)], true, frame),
        (TILES, &[("se", &past), ("st", &soon)], true, "AuthenticationFailed Signed expiry time ["),
        (TILES, &[("se", "soon")], true, "AuthenticationFailed se is not in the correct format: soon"),
        (TILES, &[("se", "")], true, "AuthenticationFailed se is mandatory. Cannot be empty"),
        (TILES, &[("srt", "")], true, "AuthenticationFailed srt is mandatory. Cannot be empty"),
        (TILES, &[("sp", "")], true, "AuthenticationFailed sp is mandatory. Cannot be empty"),
        (TILES, &[("sv", "2025-01-06")], true, "AuthenticationFailed sv is not valid: '2025-01-06'"),
        (TILES, &[("sv", "2015-02-21")], true, "AuthenticationFailed sv is not valid: '2015-02-21'"),
        (TILES, &[("sv", "2015-04-05")], true, "good"),
        (TILES, &[], false, "good"),
        (README, &[], false, "good"),
        (TILES, &[("sv", "2018-11-09")], false, "good"),
        (TILES, &[("sp", "r")], false, permission),
        (TILES, &[("sp", "lr")], false, "AuthenticationFailed sp is not valid: 'lr'"),
        (TILES, &[("sv", "2018-03-28")], false, "AuthenticationFailed sv is not valid: '2018-03-28'"),
        (TILES, &[("sr", "d")], false, "AuthenticationFailed sr is not valid: 'd'"),
        (TILES, &[("si", "policy")], false, "AuthenticationFailed si is not offered"),
        (CONTAINERS, &[], false, "AuthenticationFailed Signature did not match. String to sign used was rl\n"),
        (TILES, &[("sr", "b")], false, kind),
    ];
    for (address, changes, of_account, told) in cases {
        let said = ask(address, changes, *of_account).await;
        assert!(said.starts_with(told), "{address} {changes:?}: {said}");
    }
    // Known by its key, though it may not do this.
    ask(TILES, &[("sp", "r")], true).await;
    assert_eq!(azure.requests().pop().map(|line| line.access_key_id), Some("key2".to_owned()));
}

#[tokio::test]
async fn a_sas_for_https_alone_is_taken_over_https() {
    let (azure, account) = store(AzureOptions { tls: true, ..AzureOptions::default() }).await;
    let ca = reqwest::Certificate::from_pem(azure.ca_pem().expect("a certificate").as_bytes()).expect("PEM");
    let trusting = reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build().expect("a client");
    let key = value(&azure, &account, "key1");
    let fields = [("sv", VERSION), ("se", "2099-01-01"), ("sp", "l"), ("spr", "https"), ("sr", "c")];
    let sas = Sas::make(&fields, ("gisstore", &key), "tiles");
    let answer = answer(trusting.get(format!("{}{TILES}&{sas}", azure.blob_url()))).await.expect("it answers");
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(answer.text.contains(&format!("ServiceEndpoint=\"{}/gisstore/\"", azure.blob_url())), "{}", answer.text);
}

// --- Tokens ---

#[tokio::test]
async fn a_token_for_storage_reads_unless_its_application_is_denied() {
    let (azure, _) = store(AzureOptions::default()).await;
    let (object_id, client_id) = azure.add_application("gis");
    let (_, secret) = azure.create_password(&object_id, "by hand");
    let token = async |scope: &str| {
        let granted = log_in(&azure, &client_id, &secret, scope).await.json();
        format!("Bearer {}", granted["access_token"].as_str().expect("a token"))
    };
    let good = token(STORAGE).await;
    let ask = |bearer: &str| Letter::get(TILES).with("authorization", bearer);
    assert_eq!(ask(&good).send(&azure).await.status, 200);
    assert_eq!(azure.requests().pop().map(|line| line.access_key_id), Some(client_id.clone()));
    let slashed = token("https://storage.azure.com//.default").await;
    assert_eq!(ask(&slashed).with("x-ms-version", "2017-11-09").send(&azure).await.status, 200);

    let unknown = ask("Bearer made-up").send(&azure).await;
    assert_eq!(unknown.refusal(), refused(401, "InvalidAuthenticationInfo"));
    let elsewhere = ask(&token(ARM).await).send(&azure).await;
    assert_eq!(elsewhere.refusal(), refused(401, "InvalidAuthenticationInfo"));
    assert_eq!(elsewhere.detail(), "Audience validation failed. Audience did not match.");
    let directions = format!(
        "Bearer authorization_uri=https://login.microsoftonline.com/{}/oauth2/authorize resource_id=https://storage.azure.com",
        azure.tenant_id()
    );
    assert_eq!(elsewhere.header("www-authenticate"), directions);
    assert_eq!(ask("Bearer made-up").with("x-ms-version", "2019-07-07").send(&azure).await.refusal(), failed());
    for old in [ask(&good).without("x-ms-version"), ask(&good).with("x-ms-version", "2017-07-29")] {
        let answer = old.send(&azure).await;
        assert_eq!(answer.refusal(), failed());
        assert_eq!(answer.detail(), "Authentication scheme Bearer is not supported in this version.");
    }

    azure.deny_data(&client_id);
    assert_eq!(ask(&good).send(&azure).await.refusal(), refused(403, "AuthorizationPermissionMismatch"));
    azure.allow_data(&client_id);
    assert_eq!(ask(&good).send(&azure).await.status, 200);

    azure.set_options(|options| options.token_lifetime = Duration::ZERO);
    let late = ask(&token(STORAGE).await).send(&azure).await;
    assert_eq!((late.refusal().0, late.detail()), (401, "Lifetime validation failed. The token is expired."));
    // One that was given before outlives the secret it was asked with.
    let key_id = azure.passwords(&object_id)[0].key_id.clone();
    azure.remove_password(&object_id, &key_id);
    assert_eq!(ask(&good).send(&azure).await.status, 200);
}

// --- What there is to see ---

#[tokio::test]
async fn lists_come_in_pages() {
    let (azure, account) = store(AzureOptions::default()).await;
    azure.add_container(&account, "empty");
    azure.put_blob(&account, "tiles", "0/<a>&b", b"");
    azure.put_blob(&account, "tiles", "0/c", b"12");
    let ask = async |address: &str| {
        let answer = by_slot(&azure, &account, "key1", address).await;
        let head =
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ServiceEndpoint=\"http://127.0.0.1:";
        assert!(answer.status == 200 && answer.text.starts_with(head), "{}", answer.text);
        assert_eq!((answer.header("content-type"), answer.header("x-ms-version")), ("application/xml", VERSION));
        let names = answer.text.split("<Name>").skip(1).filter_map(|rest| rest.split("</Name>").next());
        (names.map(str::to_owned).collect::<Vec<_>>(), answer.element("NextMarker").to_owned(), answer)
    };
    let (names, next, answer) = ask(TILES).await;
    assert_eq!((names, next.as_str()), (vec!["0/&lt;a&gt;&amp;b".into(), "0/c".into(), "read me.txt".into()], ""));
    assert!(answer.text.contains("/gisstore/\" ContainerName=\"tiles\"><Blobs><Blob>"), "{}", answer.text);
    assert!(answer.text.ends_with("</Blobs><NextMarker /></EnumerationResults>"), "{}", answer.text);
    let (names, next, answer) = ask(&format!("{TILES}&maxresults=1&prefix=0%2F")).await;
    assert_eq!(
        (names.len(), next.as_str(), answer.element("MaxResults"), answer.element("Prefix")),
        (1, "0/c", "1", "0/")
    );
    let (names, next, _) = ask(&format!("{TILES}&maxresults=1&prefix=0%2F&marker=0%2Fc")).await;
    assert_eq!((names, next.as_str()), (vec!["0/c".to_owned()], ""));
    let (names, _, _) = ask("/gisstore/empty?restype=container&comp=list&maxresults=9999").await;
    assert!(names.is_empty());
    let (names, _, _) = ask(CONTAINERS).await;
    assert_eq!(names, ["empty", "tiles"]);
    let (names, _, _) = ask("/gisstore?comp=list&prefix=t").await;
    assert_eq!(names, ["tiles"]);
    for (address, code) in [
        ("maxresults=0", "OutOfRangeQueryParameterValue"),
        ("maxresults=many", "InvalidQueryParameterValue"),
        ("delimiter=%2F", "UnsupportedQueryParameter"),
    ] {
        let answer = by_slot(&azure, &account, "key1", &format!("{TILES}&{address}")).await;
        assert_eq!(answer.refusal(), refused(400, code));
    }
}

#[tokio::test]
async fn a_blob_is_read_or_only_looked_at() {
    let (azure, account) = store(AzureOptions::default()).await;
    let key = value(&azure, &account, "key1");
    let read = Letter::get(README).with("x-ms-client-request-id", "mine").signed("gisstore", &key).send(&azure).await;
    assert_eq!((read.status, read.text.as_str()), (200, "hello"));
    assert_eq!((read.header("x-ms-blob-type"), read.header("x-ms-client-request-id")), ("BlockBlob", "mine"));
    let looked = Letter::get(README).method(Method::HEAD).signed("gisstore", &key).send(&azure).await;
    assert_eq!((looked.status, looked.text.as_str(), looked.header("content-length")), (200, "", "5"));
    assert_eq!(looked.header("etag"), read.header("etag"));
    let wrong = Letter::get(README).method(Method::HEAD).signed("gisstore", "d3Jvbmc=").send(&azure).await;
    assert_eq!((wrong.status, wrong.text.as_str()), (403, ""));
    assert_eq!(wrong.header("x-ms-error-code"), "AuthenticationFailed");
}

// --- Mishaps ---

#[tokio::test]
async fn it_stumbles_in_its_own_words() {
    let (azure, account) = store(AzureOptions::default()).await;
    azure.fault("ListBlobs", Fault::Throttle);
    let busy = by_slot(&azure, &account, "key1", TILES).await;
    assert_eq!((busy.refusal(), busy.header("retry-after")), (refused(503, "ServerBusy"), "1"));
    azure.fault("ListBlobs", Fault::Error(500));
    assert_eq!(by_slot(&azure, &account, "key1", TILES).await.refusal(), refused(500, "InternalError"));
    azure.fault("ListBlobs", Fault::Refuse("This request is not authorized to perform this operation.".to_owned()));
    assert_eq!(by_slot(&azure, &account, "key1", TILES).await.refusal(), refused(403, "AuthorizationFailure"));
    azure.fault("ListBlobs", Fault::DropBefore);
    let key = value(&azure, &account, "key1");
    assert!(Letter::get(TILES).signed("gisstore", &key).try_send(&azure).await.is_err());
    assert_eq!(azure.faults_left("ListBlobs"), 0);
    azure.fault("GetBlob", Fault::Html);
    assert_eq!(by_slot(&azure, &account, "key1", TILES).await.status, 200, "that waits for another operation");
    // The consumers do not spend what is meant for others.
    let consumer = Letter::get(README).with("user-agent", crate::consumer::USER_AGENT);
    assert_eq!(consumer.signed("gisstore", &key).send(&azure).await.text, "hello");
    assert_eq!(azure.requests().pop().map(|line| line.operation), Some("ConsumerGet".to_owned()));
    assert!(by_slot(&azure, &account, "key1", README).await.text.contains("Please sign in"));
    let statuses: Vec<_> = azure.requests().iter().map(|line| line.status).collect();
    assert_eq!(statuses, [503, 500, 403, 0, 200, 200, 200]);
}

#[tokio::test]
async fn no_line_of_its_log_holds_a_secret() {
    let (azure, account) = store(AzureOptions::default()).await;
    let sas = azure.container_sas(&account, "tiles", "key1", HOUR);
    by_slot(&azure, &account, "key1", TILES).await;
    by_query(&azure, TILES, &sas).await;
    let (client_id, secret) = azure.admin();
    let token = log_in(&azure, &client_id, &secret, STORAGE).await.json()["access_token"].clone();
    let bearer = format!("Bearer {}", token.as_str().expect("a token"));
    Letter::get(TILES).with("authorization", &bearer).send(&azure).await;
    let log = format!("{:?}", azure.requests());
    let signature = sas.split("sig=").nth(1).expect("it is signed").to_owned();
    let secrets = azure.all_secrets().into_iter().chain([signature]);
    assert_eq!(azure.requests().len(), 4);
    assert!(secrets.into_iter().all(|secret| !log.contains(&secret)), "{log}");
}

#[tokio::test]
#[should_panic(expected = "Tiles is no name of a container")]
async fn a_container_is_called_as_azure_allows() {
    let (azure, account) = store(AzureOptions::default()).await;
    azure.add_container(&account, "a-1");
    azure.add_container(&account, "Tiles");
}
