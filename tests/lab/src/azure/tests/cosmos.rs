//! The data plane of Cosmos DB takes the keys of its account, signed as the document says, and tells what is wrong with others.

use aws_lc_rs::hmac;
use base64::engine::general_purpose::STANDARD;

use super::*;

/// A request for the list of databases, to be spoilt in one place.
#[derive(Clone)]
struct Ask {
    url: String,
    key: String,
    date: DateTime<Utc>,
    payload: Option<String>,
    headers: Vec<(&'static str, Option<String>)>,
}

impl Ask {
    async fn new(azure: &Azure, account: &str, slot: &str) -> Self {
        let client = Client::new(azure).await;
        let shown = client.get(&format!("{account}?{COSMOS_VERSION}")).await.json();
        let endpoint = shown["properties"]["documentEndpoint"].as_str().expect("an endpoint").to_owned();
        let (url, key) = (format!("{endpoint}dbs"), value(azure, account, slot));
        Self { url, key, date: Utc::now(), payload: None, headers: Vec::new() }
    }

    fn with(&self, name: &'static str, text: Option<&str>) -> Self {
        let mut ask = self.clone();
        ask.headers.push((name, text.map(str::to_owned)));
        ask
    }

    fn signature(&self, stamp: &str) -> String {
        let payload = self.payload.clone().unwrap_or(format!("get\ndbs\n\n{}\n\n", stamp.to_lowercase()));
        let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(&self.key).expect("Base64"));
        STANDARD.encode(hmac::sign(&key, payload.as_bytes()))
    }

    async fn send(&self) -> Result<Answer, reqwest::Error> {
        let stamp = self.date.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let token = crate::form::encode(&format!("type=master&ver=1.0&sig={}", self.signature(&stamp)));
        let mut headers = vec![
            ("x-ms-version", Some("2018-12-31".to_owned())),
            ("x-ms-date", Some(stamp)),
            ("authorization", Some(token)),
        ];
        for (name, text) in &self.headers {
            headers.retain(|(known, _)| known != name);
            headers.push((name, text.clone()));
        }
        let headers = headers.into_iter().filter_map(|(name, text)| Some((name, text?)));
        answer(headers.fold(http().get(&self.url), |request, (name, text)| request.header(name, text))).await
    }

    /// Status, code, and what the message begins with.
    async fn refused(&self) -> (u16, String, String) {
        let answer = self.send().await.expect("Cosmos DB answers");
        let json = answer.json();
        let message = json["message"].as_str().expect("a message").to_owned();
        let (message, activity) = message.split_once("\r\nActivityId: ").expect("an activity");
        assert_eq!(activity.split(',').next(), Some(answer.header("x-ms-activity-id")));
        (answer.status, json["code"].as_str().expect("a code").to_owned(), message.to_owned())
    }
}

fn is(refused: (u16, String, String), status: u16, code: &str, words: &str) {
    assert!(refused.0 == status && refused.1 == code && refused.2.starts_with(words), "{refused:?}");
}

#[tokio::test]
async fn each_key_of_the_account_lists_its_databases() {
    let azure = plain().await;
    let account = azure.add_cosmos_account("gis-cosmos");
    for slot in ["primary", "secondary", "primaryReadonly", "secondaryReadonly"] {
        let ask = Ask::new(&azure, &account, slot).await;
        assert_eq!(ask.url, format!("{}/gis-cosmos/dbs", azure.cosmos_url()));
        let listed = ask.send().await.expect("Cosmos DB answers");
        assert_eq!((listed.status, &listed.json()["Databases"]), (200, &json!([])), "{}", listed.text);
        let line = azure.requests().pop().expect("a line");
        assert_eq!((line.operation.as_str(), line.user_or_target.as_str()), ("ListDatabases", "gis-cosmos"));
        assert!(line.access_key_id == slot && line.executed);
        // Dates are signed in lower case, so that they may be sent so.
        let lower = ask.date.format("%a, %d %b %Y %H:%M:%S GMT").to_string().to_lowercase();
        assert_eq!(ask.with("x-ms-date", Some(&lower)).send().await.expect("an answer").status, 200);
    }
    let id = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";
    let named = Ask::new(&azure, &account, "primary").await.with("x-ms-activity-id", Some(id)).send().await;
    assert_eq!(named.expect("an answer").header("x-ms-activity-id"), id);
}

#[tokio::test]
async fn a_wrong_key_is_told_what_should_have_been_signed() {
    let azure = plain().await;
    let account = azure.add_cosmos_account("gis-cosmos");
    let ask = Ask::new(&azure, &account, "primary").await;
    azure.regenerate(&account, "primary");
    let (status, code, message) = ask.refused().await;
    assert_eq!((status, code.as_str()), (401, "Unauthorized"));
    assert!(message.starts_with("The input authorization token can't serve the request. The wrong key is being used"));
    let stamp = ask.date.format("%a, %d %b %Y %H:%M:%S gmt").to_string().to_lowercase();
    assert!(message.ends_with(&format!("payload to sign: 'get\\ndbs\\n\\n{stamp}\\n\\n'")), "{message}");
    // A key of another account opens nothing here.
    let other = azure.add_cosmos_account("other");
    let stranger = Ask { key: value(&azure, &other, "primary"), ..Ask::new(&azure, &account, "primary").await };
    assert_eq!(stranger.refused().await.0, 401);
    // And the right key, with the link of the path in the payload.
    let right = Ask::new(&azure, &account, "primary").await;
    let linked = format!("get\ndbs\ndbs\n{stamp}\n\n");
    assert_eq!(Ask { payload: Some(linked), date: ask.date, ..right.clone() }.refused().await.0, 401);
    assert_eq!(right.send().await.expect("an answer").status, 200);
    let gone = Ask { url: right.url.replace("gis-cosmos", "nobody"), ..right };
    assert_eq!(gone.refused().await.0, 404);
    assert!(
        azure.requests().iter().all(|line| line.operation != "ListDatabases" || line.executed == (line.status == 200))
    );
}

#[tokio::test]
async fn front_ends_of_cosmos_lag_as_the_keys_do() {
    let azure = start(AzureOptions { key_lag: HOUR, ..AzureOptions::default() }).await;
    let account = azure.add_cosmos_account("gis-cosmos");
    let old = Ask::new(&azure, &account, "secondary").await;
    azure.regenerate(&account, "secondary");
    let new = Ask { key: value(&azure, &account, "secondary"), ..old.clone() };
    let statuses =
        || async { (old.send().await.expect("an answer").status, new.send().await.expect("an answer").status) };
    assert_eq!(statuses().await, (200, 401));
    azure.set_options(|options| options.key_lag = Duration::ZERO);
    assert_eq!(statuses().await, (401, 200));
}

#[tokio::test]
async fn where_keys_are_disabled_none_is_looked_at() {
    let azure = plain().await;
    let account = azure.add_cosmos_account("gis-cosmos");
    let ask = Ask::new(&azure, &account, "primary").await;
    azure.allow_keys(&account, false);
    let answer = ask.send().await.expect("Cosmos DB answers");
    assert_eq!((answer.status, answer.header("x-ms-substatus")), (401, "5202"));
    is(ask.refused().await, 401, "Unauthorized", "Local Authorization is disabled. Use an AAD token to authorize all");
    azure.allow_keys(&account, true);
    assert_eq!(ask.send().await.expect("an answer").status, 200);
}

#[tokio::test]
async fn a_signature_is_good_for_a_quarter_of_an_hour() {
    let azure = plain().await;
    let account = azure.add_cosmos_account("gis-cosmos");
    let ask = Ask::new(&azure, &account, "primary").await;
    let at = |minutes| Ask { date: Utc::now() + TimeDelta::minutes(minutes), ..ask.clone() };
    for minutes in [-14, 4] {
        assert_eq!(at(minutes).send().await.expect("an answer").status, 200, "{minutes}");
    }
    for minutes in [-16, 6] {
        let words =
            "The authorization token is not valid at the current time. Please create another token and retry (token";
        is(at(minutes).refused().await, 403, "Forbidden", words);
    }
    let words = "Authorization token mandates Date headers.";
    is(ask.with("x-ms-date", None).refused().await, 401, "Unauthorized", words);
    is(ask.with("x-ms-date", Some(&ask.date.to_rfc3339())).refused().await, 401, "Unauthorized", words);
}

#[tokio::test]
async fn what_is_no_signature_is_told_so() {
    let azure = plain().await;
    let account = azure.add_cosmos_account("gis-cosmos");
    let ask = Ask::new(&azure, &account, "primary").await;
    let stamp = ask.date.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let raw = format!("type=master&ver=1.0&sig={}", ask.signature(&stamp));
    let words = "Required Header authorization is missing.";
    is(ask.with("authorization", None).refused().await, 401, "Unauthorized", words);
    let aad = crate::form::encode("type=aad&ver=1.0&sig=token");
    for odd in [raw.as_str(), "Bearer token", aad.as_str()] {
        let words = "Authorization header doesn't confirm to the required format.";
        is(ask.with("authorization", Some(odd)).refused().await, 401, "Unauthorized", words);
    }
    for version in [None, Some("2018-12-30")] {
        is(ask.with("x-ms-version", version).refused().await, 400, "BadRequest", "Invalid API version.");
    }
    let posted = answer(http().post(&ask.url)).await.expect("Cosmos DB answers");
    assert_eq!(posted.status, 404);
    let storage = azure.add_storage_account("gisstore");
    let storage = Ask { url: ask.url.replace("gis-cosmos", "gisstore"), key: value(&azure, &storage, "key1"), ..ask };
    assert_eq!(storage.refused().await.0, 404);
}

#[tokio::test]
async fn cosmos_stumbles_in_its_own_words() {
    let azure = plain().await;
    let account = azure.add_cosmos_account("gis-cosmos");
    let ask = Ask::new(&azure, &account, "primary").await;
    let fault = |fault| azure.fault("ListDatabases", fault);
    fault(Fault::Throttle);
    let busy = ask.send().await.expect("Cosmos DB answers");
    assert_eq!((busy.status, busy.header("x-ms-retry-after-ms"), busy.header("retry-after")), (429, "1000", ""));
    fault(Fault::Later { status: 429, seconds: 30, as_date: true });
    assert_eq!(ask.send().await.expect("Cosmos DB answers").header("x-ms-retry-after-ms"), "30000");
    fault(Fault::Error(403));
    is(ask.refused().await, 403, "Forbidden", "Request originated from IP 127.0.0.1 through public internet.");
    fault(Fault::Error(503));
    is(ask.refused().await, 503, "ServiceUnavailable", "Service is currently unavailable");
    fault(Fault::Refuse("not today".to_owned()));
    is(ask.refused().await, 403, "Forbidden", "not today");
    fault(Fault::DropBefore);
    assert!(ask.send().await.is_err());
    azure.set_date_skew(TimeDelta::minutes(10));
    let dated = ask.send().await.expect("Cosmos DB answers");
    let date = DateTime::parse_from_rfc2822(dated.header("date")).expect("an HTTP date");
    // The clock it shows is not the clock it checks by.
    assert!(dated.status == 200 && date.to_utc() - Utc::now() > TimeDelta::minutes(9));
    azure.down(true);
    assert!(ask.send().await.is_err());
}
