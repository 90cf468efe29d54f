//! The stand-in refuses what Azure refuses, and its faults do what they say.

mod account;
mod authority;
mod blob;
mod cosmos;
mod service_bus;

use std::sync::mpsc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value, json};

use super::*;

const ARM: &str = "https://management.azure.com/.default";
const GRAPH: &str = "https://graph.microsoft.com/.default";
const STORAGE_VERSION: &str = "api-version=2024-01-01";
const COSMOS_VERSION: &str = "api-version=2023-11-15";
const BUS_VERSION: &str = "api-version=2024-01-01";

const HOUR: Duration = Duration::from_secs(3600);

struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    /// Status and `error.code`, as ARM and Graph have it.
    fn code(&self) -> (u16, String) {
        (self.status, self.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
    }

    /// Status, `error` and the number, as Entra has it.
    fn sts(&self) -> (u16, String, u64) {
        let json = self.json();
        (
            self.status,
            json["error"].as_str().unwrap_or_default().to_owned(),
            json["error_codes"][0].as_u64().unwrap_or(0),
        )
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("headers are text"))
    }
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a plain client")
}

async fn answer(request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Answer { status, headers, text: response.text().await? })
}

async fn form_post(azure: &Azure, tenant: &str, form: &[(&str, &str)]) -> Result<Answer, reqwest::Error> {
    answer(http().post(format!("{}/{tenant}/oauth2/v2.0/token", azure.authority_url())).form(form)).await
}

async fn log_in(azure: &Azure, client_id: &str, secret: &str, scope: &str) -> Answer {
    let form =
        [("grant_type", "client_credentials"), ("client_id", client_id), ("client_secret", secret), ("scope", scope)];
    form_post(azure, &azure.tenant_id(), &form).await.expect("Entra answers")
}

async fn token(azure: &Azure, scope: &str) -> String {
    let (client_id, secret) = azure.admin();
    log_in(azure, &client_id, &secret, scope).await.json()["access_token"].as_str().expect("a token").to_owned()
}

/// A client with the rotator's tokens.
struct Client<'a> {
    azure: &'a Azure,
    arm: String,
    graph: String,
}

impl<'a> Client<'a> {
    async fn new(azure: &'a Azure) -> Self {
        Self { azure, arm: token(azure, ARM).await, graph: token(azure, GRAPH).await }
    }

    async fn try_arm(&self, method: Method, path: &str, body: Option<Value>) -> Result<Answer, reqwest::Error> {
        let request = http().request(method.clone(), format!("{}{path}", self.azure.arm_url())).bearer_auth(&self.arm);
        // A POST that announces no length is refused, and reqwest announces none where there is no body.
        let request = match (&body, method) {
            (None, Method::POST) => request.header("content-length", 0),
            _ => request,
        };
        answer(body.iter().fold(request, |request, body| request.json(body))).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.try_arm(Method::GET, path, None).await.expect("ARM answers")
    }

    async fn post(&self, path: &str, body: Option<Value>) -> Answer {
        self.try_arm(Method::POST, path, body).await.expect("ARM answers")
    }

    async fn list(&self, account: &str) -> Answer {
        self.list_with(account, "").await
    }

    async fn list_with(&self, account: &str, query: &str) -> Answer {
        self.post(&format!("{account}/listKeys?{STORAGE_VERSION}{query}"), None).await
    }

    async fn regenerate(&self, account: &str, slot: &str) -> Answer {
        self.post(&format!("{account}/regenerateKey?{STORAGE_VERSION}"), Some(json!({"keyName": slot}))).await
    }

    async fn regenerate_cosmos(&self, account: &str, slot: &str) -> Answer {
        self.post(&format!("{account}/regenerateKey?{COSMOS_VERSION}"), Some(json!({"keyKind": slot}))).await
    }

    async fn try_graph(&self, method: Method, path: &str, body: Option<Value>) -> Result<Answer, reqwest::Error> {
        let request = http().request(method, format!("{}{path}", self.azure.graph_url())).bearer_auth(&self.graph);
        answer(body.iter().fold(request, |request, body| request.json(body))).await
    }

    async fn application(&self, object_id: &str) -> Answer {
        self.try_graph(Method::GET, &format!("/v1.0/applications/{object_id}"), None).await.expect("Graph answers")
    }

    async fn listed(&self, object_id: &str) -> Vec<String> {
        let json = self.application(object_id).await.json();
        let passwords = json["passwordCredentials"].as_array().cloned().expect("a list of passwords");
        passwords.iter().map(|p| p["keyId"].as_str().expect("an id").to_owned()).collect()
    }

    async fn add(&self, object_id: &str, wish: Value) -> Answer {
        let path = format!("/v1.0/applications/{object_id}/addPassword");
        self.try_graph(Method::POST, &path, Some(json!({"passwordCredential": wish}))).await.expect("Graph answers")
    }

    async fn remove(&self, object_id: &str, key_id: &str) -> Answer {
        let path = format!("/v1.0/applications/{object_id}/removePassword");
        self.try_graph(Method::POST, &path, Some(json!({"keyId": key_id}))).await.expect("Graph answers")
    }

    /// Key id and secret of a new password.
    async fn mint(&self, object_id: &str) -> (String, String) {
        let answer = self.add(object_id, json!({"displayName": "gis"})).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let json = answer.json();
        let text = |name: &str| json[name].as_str().expect("a text").to_owned();
        (text("keyId"), text("secretText"))
    }
}

async fn start(options: AzureOptions) -> Azure {
    Azure::start(options).await
}

async fn plain() -> Azure {
    start(AzureOptions::default()).await
}

fn value(azure: &Azure, account: &str, slot: &str) -> String {
    azure.slot(account, slot).value
}

// --- Entra ---

#[tokio::test]
async fn a_right_secret_is_given_a_token() {
    let azure = plain().await;
    let (client_id, secret) = azure.admin();
    let answer = log_in(&azure, &client_id, &secret, ARM).await;
    let json = answer.json();
    assert_eq!((answer.status, &json["token_type"], &json["expires_in"]), (200, &json!("Bearer"), &json!(3599)));
    assert!(azure.all_secrets().iter().any(|secret| json["access_token"] == **secret));
    let line = &azure.requests()[0];
    assert_eq!((line.operation.as_str(), &line.user_or_target, line.executed), ("Token", &client_id, true));
    assert_eq!(azure.secret_of(&line.access_key_id), Some(secret));
}

#[tokio::test]
async fn what_is_wrong_with_a_request_for_a_token_is_said_in_numbers() {
    let azure = plain().await;
    let (client_id, secret) = azure.admin();
    let right = [
        ("grant_type", "client_credentials"),
        ("client_id", client_id.as_str()),
        ("client_secret", secret.as_str()),
        ("scope", ARM),
    ];
    let with = |name: &'static str, value: &'static str| {
        right.iter().map(|(n, v)| if *n == name { (*n, value) } else { (*n, *v) }).collect::<Vec<_>>()
    };
    let without = |name: &str| right.iter().copied().filter(|(n, _)| *n != name).collect::<Vec<_>>();
    let cases = [
        (with("grant_type", "password"), 400, "unsupported_grant_type", 70_003),
        (with("client_id", "00000000-0000-0000-0000-000000000000"), 400, "unauthorized_client", 700_016),
        (with("client_secret", "wrong"), 401, "invalid_client", 7_000_215),
        (with("scope", "https://management.azure.com/user_impersonation"), 400, "invalid_scope", 1_002_012),
        (with("scope", "https://vault.example/.default"), 400, "invalid_resource", 500_011),
        (
            with("scope", "https://management.azure.com/.default https://graph.microsoft.com/.default"),
            400,
            "invalid_scope",
            1_002_012,
        ),
        (without("grant_type"), 400, "invalid_request", 900_144),
        (without("client_id"), 400, "invalid_request", 900_144),
        (without("scope"), 400, "invalid_request", 900_144),
        (without("client_secret"), 401, "invalid_client", 7_000_218),
    ];
    for (form, status, error, code) in cases {
        let answer = form_post(&azure, &azure.tenant_id(), &form).await.expect("Entra answers");
        assert_eq!(answer.sts(), (status, error.to_owned(), code), "{form:?}");
    }
    let elsewhere = form_post(&azure, "contoso", &right).await.expect("Entra answers");
    assert_eq!(elsewhere.sts(), (400, "invalid_request".to_owned(), 90_002));
    let get = http().get(format!("{}/{}/oauth2/v2.0/token", azure.authority_url(), azure.tenant_id()));
    assert_eq!(answer(get).await.expect("Entra answers").sts(), (400, "invalid_request".to_owned(), 900_561));
    let url = format!("{}/{}/oauth2/v2.0/token", azure.authority_url(), azure.tenant_id());
    let no_form =
        json!({"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret, "scope": ARM});
    let no_form = answer(http().post(url).json(&no_form)).await.expect("Entra answers");
    assert_eq!(no_form.sts(), (400, "invalid_request".to_owned(), 900_144));
    assert!(azure.requests().iter().all(|line| !line.executed));
}

#[tokio::test]
async fn a_wrong_secret_is_refused_in_the_documented_words() {
    let azure = plain().await;
    let (client_id, _) = azure.admin();
    let json = log_in(&azure, &client_id, "wrong", GRAPH).await.json();
    assert_eq!((&json["error"], &json["error_codes"]), (&json!("invalid_client"), &json!([7_000_215])));
    let description = json["error_description"].as_str().expect("a description");
    let start = format!(
        "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not \
         the client secret ID, for a secret added to app '{client_id}'.\r\nTrace ID: "
    );
    assert!(description.starts_with(&start) && description.contains("\r\nCorrelation ID: "), "{description}");
    assert_eq!(json["error_uri"], "https://login.microsoftonline.com/error?code=7000215");
    assert_eq!(json["timestamp"].as_str().map(str::len), Some("2023-02-20 07:21:29Z".len()));
    assert!(json["trace_id"].is_string() && json["correlation_id"].is_string());
    // The id of a secret is not the secret.
    let (object_id, client_id) = azure.add_application("gis");
    let (key_id, secret) = azure.create_password(&object_id, "by hand");
    assert_eq!(log_in(&azure, &client_id, &key_id, GRAPH).await.status, 401);
    assert_eq!(log_in(&azure, &client_id, &secret, GRAPH).await.status, 200);
}

#[tokio::test]
async fn a_fresh_secret_is_unknown_until_it_has_propagated() {
    let azure = start(AzureOptions { propagation: HOUR, ..AzureOptions::default() }).await;
    let (object_id, client_id) = azure.add_application("gis");
    let (_, secret) = Client::new(&azure).await.mint(&object_id).await;
    assert_eq!(log_in(&azure, &client_id, &secret, ARM).await.sts().2, 7_000_215);
    assert!(!azure.signs_in(&client_id, &secret));
    azure.set_options(|options| options.propagation = Duration::ZERO);
    assert_eq!(log_in(&azure, &client_id, &secret, ARM).await.status, 200);
    assert!(azure.signs_in(&client_id, &secret));
}

#[tokio::test]
async fn while_replicas_settle_every_second_login_is_refused() {
    let azure = start(AzureOptions { settling: HOUR, ..AzureOptions::default() }).await;
    let (object_id, client_id) = azure.add_application("gis");
    let (_, secret) = Client::new(&azure).await.mint(&object_id).await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        // A look of the test's own is no login.
        assert!(azure.signs_in(&client_id, &secret));
        seen.push(log_in(&azure, &client_id, &secret, ARM).await.status);
    }
    assert_eq!(seen, [200, 401, 200, 401]);
    azure.set_options(|options| options.settling = Duration::ZERO);
    assert_eq!(log_in(&azure, &client_id, &secret, ARM).await.status, 200);
    assert_eq!(log_in(&azure, &client_id, &secret, ARM).await.status, 200);
}

#[tokio::test]
async fn a_removed_secret_is_refused_when_its_lag_is_over_and_tokens_outlive_it() {
    let azure = start(AzureOptions { removal_lag: HOUR, ..AzureOptions::default() }).await;
    let (client_id, secret) = azure.admin();
    let client = Client::new(&azure).await;
    let rotator = azure.requests()[0].access_key_id.clone();
    let object_id = azure.state().by_client_id(&client_id).expect("the rotator").object_id.clone();
    azure.remove_password(&object_id, &rotator);
    assert_eq!(log_in(&azure, &client_id, &secret, ARM).await.status, 200);
    azure.set_options(|options| options.removal_lag = Duration::ZERO);
    assert_eq!(log_in(&azure, &client_id, &secret, ARM).await.sts().2, 7_000_215);
    assert_eq!(client.application(&object_id).await.status, 200);
}

#[tokio::test]
async fn a_secret_is_good_from_its_start_to_its_end() {
    let azure = plain().await;
    let (object_id, client_id) = azure.add_application("gis");
    let (key_id, secret) = azure.create_password(&object_id, "by hand");
    azure.set_password_end(&object_id, &key_id, Utc::now() - TimeDelta::seconds(1));
    assert_eq!(log_in(&azure, &client_id, &secret, ARM).await.sts(), (401, "invalid_client".to_owned(), 7_000_222));
    let wish = json!({"startDateTime": (Utc::now() + TimeDelta::hours(1)).to_rfc3339()});
    let later = Client::new(&azure).await.add(&object_id, wish).await.json();
    let secret = later["secretText"].as_str().expect("a secret");
    assert_eq!(log_in(&azure, &client_id, secret, ARM).await.sts().2, 7_000_215);
}

#[tokio::test]
async fn an_assertion_is_taken_by_its_shape_where_it_is_trusted() {
    let azure = plain().await;
    let (object_id, client_id) = azure.add_application("gis");
    let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let assertion =
        |exp: i64| format!("{}.{}.c2ln", part(json!({"alg": "RS256"})), part(json!({"sub": "x", "exp": exp})));
    let ask = |assertion: String, kind: &'static str| {
        let (azure, client_id) = (azure.clone(), client_id.clone());
        async move {
            let form = [
                ("grant_type", "client_credentials"),
                ("client_id", client_id.as_str()),
                ("client_assertion_type", kind),
                ("client_assertion", assertion.as_str()),
                ("scope", GRAPH),
            ];
            let answer = form_post(&azure, &azure.tenant_id(), &form).await.expect("Entra answers");
            if answer.status == 200 { 0 } else { answer.sts().2 }
        }
    };
    let right = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    let (good, stale) = (Utc::now().timestamp() + 60, Utc::now().timestamp() - 1);
    assert_eq!(ask(assertion(good), right).await, 70_021);
    azure.trust_assertions(&object_id);
    assert_eq!(ask(assertion(good), right).await, 0);
    assert_eq!(ask(assertion(stale), right).await, 50_027);
    assert_eq!(ask("a.b.c".to_owned(), right).await, 50_027);
    assert_eq!(ask(assertion(good), "jwt-bearer").await, 50_027);
}

// --- Resource Manager ---

#[tokio::test]
async fn arm_takes_living_tokens_for_itself_only() {
    let azure = plain().await;
    let account = azure.add_storage_account("gisstore");
    let url = format!("{}{account}?{STORAGE_VERSION}", azure.arm_url());
    let ask = |token: Option<String>| {
        let request = http().get(&url);
        answer(token.into_iter().fold(request, |request, token| request.bearer_auth(token)))
    };
    let none = ask(None).await.expect("ARM answers");
    assert_eq!(none.code(), refused(401, "AuthenticationFailed"));
    assert!(none.header("www-authenticate").starts_with("Bearer authorization_uri="));
    let made_up = ask(Some("made-up".to_owned())).await.expect("ARM answers");
    assert_eq!(made_up.code(), refused(401, "InvalidAuthenticationToken"));
    let graph = ask(Some(token(&azure, GRAPH).await)).await.expect("ARM answers");
    assert_eq!(graph.code(), refused(401, "InvalidAuthenticationTokenAudience"));
    assert!(graph.text.contains("wrong audience or resource 'https://graph.microsoft.com'"), "{}", graph.text);
    for scope in [ARM, "https://management.core.windows.net//.default"] {
        let good = ask(Some(token(&azure, scope).await)).await.expect("ARM answers");
        assert_eq!(good.status, 200, "{}", good.text);
    }
    azure.set_options(|options| options.token_lifetime = Duration::ZERO);
    let dead = ask(Some(token(&azure, ARM).await)).await.expect("ARM answers");
    assert_eq!(dead.code(), refused(401, "ExpiredAuthenticationToken"));
}

#[tokio::test]
async fn a_version_of_the_api_is_demanded_and_must_be_known() {
    let azure = plain().await;
    let (storage, cosmos) = (azure.add_storage_account("gisstore"), azure.add_cosmos_account("gis-cosmos"));
    let client = Client::new(&azure).await;
    let none = client.get(&storage).await;
    assert_eq!(none.code(), refused(400, "MissingApiVersionParameter"));
    let unknown = client.post(&format!("{storage}/listKeys?api-version=2024-01-02"), None).await;
    assert_eq!(unknown.code(), refused(400, "NoRegisteredProviderFound"));
    assert!(unknown.text.contains("2024-01-01, "), "{}", unknown.text);
    // Each provider has its own.
    let foreign = client.get(&format!("{cosmos}?{STORAGE_VERSION}")).await;
    assert_eq!(foreign.code(), refused(400, "NoRegisteredProviderFound"));
}

#[tokio::test]
async fn a_regenerated_slot_has_a_new_key_and_the_other_slot_is_as_it_was() {
    let azure = plain().await;
    let account = azure.add_storage_account("gisstore");
    azure.set_created(&account, "key1", None);
    let client = Client::new(&azure).await;
    let before = client.list(&account).await.json();
    let (one, two) = (value(&azure, &account, "key1"), value(&azure, &account, "key2"));
    let shown = json!({"keyName": "key1", "value": one, "permissions": "FULL", "creationTime": null});
    assert_eq!(before["keys"][0], shown);
    assert_eq!(before["keys"].as_array().map(Vec::len), Some(2));
    assert!(azure.works(&account, &one) && azure.works(&account, &two));

    let answer = client.regenerate(&account, "key1").await;
    assert_eq!((answer.status, answer.json()), (200, client.list(&account).await.json()));
    let new = answer.json()["keys"][0]["value"].as_str().expect("a key").to_owned();
    assert!(new != one && new == value(&azure, &account, "key1") && two == value(&azure, &account, "key2"));
    assert!(azure.works(&account, &new) && azure.works(&account, &two) && !azure.works(&account, &one));
    let created = answer.json()["keys"][0]["creationTime"].as_str().expect("a time").to_owned();
    let created = DateTime::parse_from_rfc3339(&created).expect("RFC 3339").with_timezone(&Utc);
    let true_time = azure.slot(&account, "key1").created.expect("a time");
    assert!((true_time - created).abs() < TimeDelta::microseconds(1));
    let line = azure.requests().into_iter().rfind(|line| line.operation == "RegenerateKey").expect("a line");
    assert_eq!((line.user_or_target.as_str(), line.access_key_id.as_str()), ("gisstore", "key1"));
    assert_eq!(azure.regenerations(), 1);

    let account_json = client.get(&format!("{account}?{STORAGE_VERSION}")).await.json();
    assert_eq!(account_json["properties"]["keyCreationTime"]["key1"], answer.json()["keys"][0]["creationTime"]);
    assert!(!account_json.to_string().contains(&new));
}

#[tokio::test]
async fn kerberos_keys_are_shown_to_those_who_ask_for_them_and_open_nothing() {
    let azure = plain().await;
    let account = azure.add_storage_account("gisstore");
    let client = Client::new(&azure).await;
    let list = |query: &'static str| client.list_with(&account, query);
    assert_eq!(list("&$expand=kerb").await.json()["keys"].as_array().map(Vec::len), Some(2));
    assert_eq!(client.regenerate(&account, "kerb1").await.status, 400);
    azure.enable_kerberos(&account);
    let names = |answer: Answer| {
        let keys = answer.json()["keys"].as_array().cloned().expect("keys");
        keys.iter().map(|key| key["keyName"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(list("").await), ["key1", "key2"]);
    assert_eq!(names(list("&$expand=kerb").await), ["key1", "key2", "kerb1", "kerb2"]);
    assert_eq!(list("&$expand=all").await.code(), refused(400, "InvalidValuesForRequestParameters"));
    assert_eq!(client.regenerate(&account, "kerb1").await.status, 200);
    assert!(!azure.works(&account, &value(&azure, &account, "kerb1")));
}

#[tokio::test]
async fn with_shared_keys_refused_keys_are_listed_and_open_nothing() {
    let azure = plain().await;
    let account = azure.add_storage_account("gisstore");
    let client = Client::new(&azure).await;
    let allowed = || async {
        client.get(&format!("{account}?{STORAGE_VERSION}")).await.json()["properties"]["allowSharedKeyAccess"].clone()
    };
    // Until somebody has decided, nothing is said, and that means yes.
    assert_eq!(allowed().await, Value::Null);
    azure.allow_keys(&account, false);
    assert_eq!((allowed().await, client.list(&account).await.status), (json!(false), 200));
    assert!(!azure.works(&account, &value(&azure, &account, "key1")));
    azure.allow_keys(&account, true);
    assert!(azure.works(&account, &value(&azure, &account, "key1")) && allowed().await == true);
}

#[tokio::test]
async fn what_is_not_there_is_missed_by_its_own_name() {
    let azure = plain().await;
    let account = azure.add_storage_account("gisstore");
    let client = Client::new(&azure).await;
    let missing = client.list(&account.replace("gisstore", "other")).await;
    assert_eq!(missing.code(), refused(404, "ResourceNotFound"));
    let message = "The Resource 'Microsoft.Storage/storageAccounts/other' under resource group 'gis' was not found.";
    assert!(missing.text.contains(message), "{}", missing.text);
    let group = client.list(&account.replace("/gis/", "/sig/")).await;
    assert_eq!(group.code(), refused(404, "ResourceGroupNotFound"));
    let subscription = client.list(&account.replace("5f750a97", "00000000")).await;
    assert_eq!(subscription.code(), refused(404, "SubscriptionNotFound"));
    assert_eq!(client.post(&format!("{account}/explode?{STORAGE_VERSION}"), None).await.status, 404);
    assert_eq!(client.get(&format!("{account}/listKeys?{STORAGE_VERSION}")).await.status, 404);
    // Names of groups, types and actions are compared without regard to case.
    let loud =
        account.replace("resourceGroups/gis", "RESOURCEGROUPS/GIS").replace("storageAccounts", "StorageAccounts");
    assert_eq!(client.list(&loud).await.status, 200);
}

#[tokio::test]
async fn under_a_lock_nothing_is_posted_not_even_for_a_list() {
    let azure = plain().await;
    let account = azure.add_storage_account("gisstore");
    let group = account.split("/providers/").next().expect("a group").to_owned();
    let client = Client::new(&azure).await;
    for scope in [&account, &group] {
        azure.lock(scope);
        for answer in [client.list(&account).await, client.regenerate(&account, "key1").await] {
            assert_eq!(answer.code(), refused(409, "ScopeLocked"));
            let message = format!(
                "The scope '{account}' cannot perform write operation because following scope(s) are locked: '{scope}'. Please remove \
                 the lock and try again."
            );
            assert_eq!(answer.json()["error"]["message"], message);
        }
        assert_eq!(client.get(&format!("{account}?{STORAGE_VERSION}")).await.status, 200);
        azure.unlock(scope);
    }
    azure.lock(&account.replace("gisstore", "gis"));
    assert_eq!(client.list(&account).await.status, 200);
    assert_eq!(azure.regenerations(), 0);
}

#[tokio::test]
async fn each_right_is_missed_one_by_one() {
    let azure = plain().await;
    let storage = azure.add_storage_account("gisstore");
    let cosmos = azure.add_cosmos_account("gis-cosmos");
    let bus = azure.add_service_bus_rule("gis-bus", "arcgis");
    let client = Client::new(&azure).await;
    let cases = [
        (format!("GET {storage}?{STORAGE_VERSION}"), "Microsoft.Storage/storageAccounts/read"),
        (format!("POST {storage}/listKeys?{STORAGE_VERSION}"), "Microsoft.Storage/storageAccounts/listKeys/action"),
        (
            format!("POST {storage}/regenerateKey?{STORAGE_VERSION}"),
            "Microsoft.Storage/storageAccounts/regenerateKey/action",
        ),
        (format!("GET {cosmos}?{COSMOS_VERSION}"), "Microsoft.DocumentDB/databaseAccounts/read"),
        (format!("POST {cosmos}/listKeys?{COSMOS_VERSION}"), "Microsoft.DocumentDB/databaseAccounts/listKeys/action"),
        (
            format!("POST {cosmos}/regenerateKey?{COSMOS_VERSION}"),
            "Microsoft.DocumentDB/databaseAccounts/regenerateKey/action",
        ),
        (format!("GET {bus}?{BUS_VERSION}"), "Microsoft.ServiceBus/namespaces/authorizationRules/read"),
        (
            format!("POST {bus}/listKeys?{BUS_VERSION}"),
            "Microsoft.ServiceBus/namespaces/authorizationRules/listKeys/action",
        ),
        (
            format!("POST {bus}/regenerateKeys?{BUS_VERSION}"),
            "Microsoft.ServiceBus/namespaces/authorizationRules/regenerateKeys/action",
        ),
    ];
    for (denied, right) in &cases {
        azure.deny(right);
        for (asked, needed) in &cases {
            let (method, path) = asked.split_once(' ').expect("a method and a path");
            let body = json!({"keyName": "key1", "keyKind": "primary", "keyType": "PrimaryKey"});
            let answer = match method {
                "GET" => client.get(path).await,
                _ => client.post(path, Some(body)).await,
            };
            if needed == right {
                assert_eq!(answer.code(), refused(403, "AuthorizationFailed"), "{denied}");
                assert!(answer.text.contains(&format!("perform action '{right}' over scope '")), "{}", answer.text);
            } else {
                assert!(answer.status < 300, "without {right}: {asked}: {}", answer.text);
            }
        }
        azure.allow(right);
    }
}

#[tokio::test]
async fn an_application_that_is_not_the_rotator_may_nothing() {
    let azure = plain().await;
    let account = azure.add_storage_account("gisstore");
    let (object_id, client_id) = azure.add_application("gis");
    let (_, secret) = azure.create_password(&object_id, "by hand");
    let token = |scope| {
        let (azure, client_id, secret) = (&azure, &client_id, &secret);
        async move {
            log_in(azure, client_id, secret, scope).await.json()["access_token"].as_str().unwrap_or_default().to_owned()
        }
    };
    let stranger = Client { azure: &azure, arm: token(ARM).await, graph: token(GRAPH).await };
    assert_eq!(stranger.list(&account).await.code(), refused(403, "AuthorizationFailed"));
    assert_eq!(stranger.application(&object_id).await.code(), refused(403, "Authorization_RequestDenied"));
}

#[tokio::test]
async fn a_regeneration_names_its_slot_in_json() {
    let azure = plain().await;
    let account = azure.add_storage_account("gisstore");
    let client = Client::new(&azure).await;
    let url = format!("{account}/regenerateKey?{STORAGE_VERSION}");
    for slot in ["key3", "Key1", "primary"] {
        let answer = client.regenerate(&account, slot).await;
        assert_eq!(answer.code(), refused(400, "InvalidValuesForRequestParameters"), "{slot}");
    }
    assert_eq!(client.post(&url, None).await.code(), refused(400, "InvalidValuesForRequestParameters"));
    let silent = http().post(format!("{}{url}", azure.arm_url())).bearer_auth(&client.arm);
    assert_eq!(answer(silent).await.expect("ARM answers").code(), refused(411, "LengthRequired"));
    let raw = |kind: &'static str, body: &'static str| {
        let request = http().post(format!("{}{url}", azure.arm_url())).bearer_auth(&client.arm);
        answer(request.header("content-type", kind).body(body))
    };
    let form = raw("application/x-www-form-urlencoded", "keyName=key1").await.expect("ARM answers");
    assert_eq!(form.code(), refused(415, "UnsupportedMediaType"));
    let torn = raw("application/json", "{\"keyName\":").await.expect("ARM answers");
    assert_eq!(torn.code(), refused(400, "InvalidRequestContent"));
    assert_eq!(azure.regenerations(), 0);
}

#[tokio::test]
async fn cosmos_goes_on_after_its_answer_and_takes_one_change_at_a_time() {
    let work = Duration::from_millis(150);
    let azure = start(AzureOptions { cosmos_work: Some(work), ..AzureOptions::default() }).await;
    let account = azure.add_cosmos_account("gis-cosmos");
    let client = Client::new(&azure).await;
    let listed = client.post(&format!("{account}/listKeys?{COSMOS_VERSION}"), None).await.json();
    assert_eq!(listed["primaryMasterKey"], *value(&azure, &account, "primary"));
    assert_eq!(listed["secondaryReadonlyMasterKey"], *value(&azure, &account, "secondaryReadonly"));
    assert_eq!(listed.as_object().map(serde_json::Map::len), Some(4));

    let old = value(&azure, &account, "secondary");
    let taken = client.regenerate_cosmos(&account, "secondary").await;
    assert_eq!((taken.status, taken.header("retry-after")), (202, "0"));
    let path = |name: &str| taken.header(name).strip_prefix(&azure.arm_url()).expect("an address of ours").to_owned();
    let (status, result) = (path("azure-asyncoperation"), path("location"));
    let another = client.regenerate_cosmos(&account, "primary").await;
    assert_eq!(another.code(), refused(412, "PreconditionFailed"));
    let early = (client.get(&status).await, client.get(&result).await);
    assert_eq!((early.0.status, &early.0.json()["status"], early.1.status), (200, &json!("Dequeued"), 202));
    assert!(azure.works(&account, &old) && azure.regenerations() == 0);
    for (path, right) in [
        (&status, "Microsoft.DocumentDB/locations/operationsStatus/read"),
        (&result, "Microsoft.DocumentDB/databaseAccounts/operationResults/read"),
    ] {
        azure.deny(right);
        assert_eq!(client.get(path).await.code(), refused(403, "AuthorizationFailed"));
        azure.allow(right);
    }

    while client.get(&result).await.status == 202 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(client.get(&status).await.json()["status"], "Succeeded");
    assert!(!azure.works(&account, &old) && azure.regenerations() == 1);
    assert_eq!(client.regenerate_cosmos(&account, "third").await.code(), refused(400, "BadRequest"));
    let shown = client.get(&format!("{account}?{COSMOS_VERSION}")).await.json();
    let times = &shown["properties"]["keysMetadata"];
    assert_ne!(times["secondaryMasterKey"], times["primaryMasterKey"]);
    assert!(times["primaryReadonlyMasterKey"]["generationTime"].is_string());
}

#[tokio::test]
async fn what_cosmos_took_on_may_fail_and_may_be_done_at_once() {
    let azure = plain().await;
    let account = azure.add_cosmos_account("gis-cosmos");
    let client = Client::new(&azure).await;
    let old = value(&azure, &account, "primary");
    azure.fail_operations(true);
    let taken = client.regenerate_cosmos(&account, "primary").await;
    let path = |name: &str| taken.header(name).strip_prefix(&azure.arm_url()).expect("an address of ours").to_owned();
    let status = client.get(&path("azure-asyncoperation")).await.json();
    assert_eq!((&status["status"], &status["error"]["code"]), (&json!("Failed"), &json!("InternalServerError")));
    assert_eq!(client.get(&path("location")).await.code(), refused(500, "InternalServerError"));
    assert_eq!(value(&azure, &account, "primary"), old);
    azure.fail_operations(false);
    azure.set_options(|options| options.cosmos_work = None);
    let done = client.regenerate_cosmos(&account, "primary").await;
    assert_eq!((done.status, done.text.as_str(), done.header("location")), (200, "", ""));
    assert_ne!(value(&azure, &account, "primary"), old);
    let unknown = path("azure-asyncoperation").replace("operationsStatus/", "operationsStatus/x");
    assert_eq!(client.get(&unknown).await.status, 404);
}

#[tokio::test]
async fn a_rule_of_a_service_bus_has_two_keys_and_their_connection_strings() {
    let azure = plain().await;
    let rule = azure.add_service_bus_rule("gis-bus", "arcgis");
    let client = Client::new(&azure).await;
    let listed = client.post(&format!("{rule}/listKeys?{BUS_VERSION}"), None).await.json();
    let (one, two) = (value(&azure, &rule, "PrimaryKey"), value(&azure, &rule, "SecondaryKey"));
    assert_eq!((&listed["primaryKey"], &listed["secondaryKey"]), (&json!(one), &json!(two)));
    let connection =
        format!("Endpoint=sb://gis-bus.servicebus.windows.net/;SharedAccessKeyName=arcgis;SharedAccessKey={two}");
    assert_eq!((&listed["secondaryConnectionString"], &listed["keyName"]), (&json!(connection), &json!("arcgis")));

    let regenerate = |body: Value| {
        let (client, path) = (&client, format!("{rule}/regenerateKeys?{BUS_VERSION}"));
        async move { client.post(&path, Some(body)).await }
    };
    let answer = regenerate(json!({"keyType": "PrimaryKey"})).await.json();
    assert!(answer["primaryKey"] != *one && answer["secondaryKey"] == *two);
    assert!(!azure.works(&rule, &one) && azure.works(&rule, &two));
    let own = crate::chance::account_key::<32>();
    assert_eq!(regenerate(json!({"keyType": "SecondaryKey", "key": own})).await.json()["secondaryKey"], *own);
    assert_eq!(regenerate(json!({"keyType": "SecondaryKey", "key": "short"})).await.code(), refused(400, "BadRequest"));
    assert_eq!(regenerate(json!({"keyName": "key1"})).await.code(), refused(400, "BadRequest"));

    // When a key was made is nowhere told.
    assert!(!client.get(&format!("{rule}?{BUS_VERSION}")).await.text.to_lowercase().contains("time"));
    let bare = json!({"keyType": "PrimaryKey", "key": "c2hvcnQ="});
    assert_eq!(regenerate(bare).await.code(), refused(400, "BadRequest"));
    let namespace = rule.split("/AuthorizationRules").next().expect("a namespace").to_owned();
    let disabled = |json: Value| json["properties"]["disableLocalAuth"].clone();
    assert_eq!(disabled(client.get(&format!("{namespace}?{BUS_VERSION}")).await.json()), false);
    assert_eq!(client.post(&format!("{namespace}/listKeys?{BUS_VERSION}"), None).await.status, 404);
    azure.allow_keys(&rule, false);
    assert_eq!(disabled(client.get(&format!("{namespace}?{BUS_VERSION}")).await.json()), true);
    assert!(!azure.works(&rule, &two));
}

#[tokio::test]
async fn writes_are_counted_and_listing_keys_is_one() {
    let limit = WriteLimit { bucket: 2, refill_per_second: 0 };
    let azure = start(AzureOptions { write_limit: Some(limit), ..AzureOptions::default() }).await;
    let account = azure.add_storage_account("gisstore");
    let client = Client::new(&azure).await;
    assert_eq!((client.list(&account).await.status, client.regenerate(&account, "key1").await.status), (200, 200));
    let third = client.list(&account).await;
    assert_eq!(third.code(), refused(429, "SubscriptionRequestsThrottled"));
    assert_eq!(third.header("retry-after"), "1");
    assert_eq!(client.get(&format!("{account}?{STORAGE_VERSION}")).await.status, 200);
    azure.set_options(|options| options.write_limit = Some(WriteLimit { refill_per_second: 1_000_000, ..limit }));
    assert_eq!(client.list(&account).await.status, 200);
}

#[tokio::test]
async fn front_ends_may_take_the_old_key_for_a_while_and_not_the_new_one() {
    let azure = start(AzureOptions { key_lag: HOUR, ..AzureOptions::default() }).await;
    let account = azure.add_storage_account("gisstore");
    let old = value(&azure, &account, "key2");
    assert!(azure.works(&account, &old));
    let new = azure.regenerate(&account, "key2");
    assert!(azure.works(&account, &old) && !azure.works(&account, &new));
    azure.set_options(|options| options.key_lag = Duration::ZERO);
    assert!(!azure.works(&account, &old) && azure.works(&account, &new));
}

#[tokio::test]
async fn the_hook_hears_of_each_new_key_before_the_client_does() {
    let azure = plain().await;
    let account = azure.add_storage_account("gisstore");
    let cosmos = azure.add_cosmos_account("gis-cosmos");
    let client = Client::new(&azure).await;
    let (told, heard) = mpsc::channel();
    let own = azure.clone();
    // Whoever hears of it may look at everything.
    azure.on_regenerated(move |key| told.send((key.clone(), own.slot(&key.account, &key.slot).value)).expect("heard"));
    let answer = client.regenerate(&account, "key2").await.json();
    let (key, seen) = heard.try_recv().expect("told before the answer");
    assert_eq!((&key.account, key.slot.as_str(), &key.value), (&account, "key2", &seen));
    assert_eq!(answer["keys"][1]["value"], *seen);
    client.regenerate_cosmos(&cosmos, "primary").await;
    assert_eq!(heard.try_recv().expect("told").0.account, cosmos);
    let by_hand = azure.regenerate(&account, "key1");
    assert_eq!(heard.try_recv().expect("told").0.value, by_hand);
    client.regenerate(&account, "key3").await;
    assert!(heard.try_recv().is_err() && azure.regenerations() == 2);
}

// --- Graph ---

#[tokio::test]
async fn a_secret_is_shown_once_in_the_answer_to_its_making() {
    let azure = plain().await;
    let (object_id, client_id) = azure.add_application("gis");
    let client = Client::new(&azure).await;
    let made =
        client.add(&object_id, json!({"displayName": "rekeyd 1", "endDateTime": "2099-01-01T00:00:00Z"})).await.json();
    let secret = made["secretText"].as_str().expect("a secret").to_owned();
    assert_eq!((made["displayName"].as_str(), made["hint"].as_str()), (Some("rekeyd 1"), secret.get(..3)));
    assert_eq!(made["endDateTime"], "2099-01-01T00:00:00Z");
    assert_eq!((secret.len(), azure.mints()), (40, 1));

    let shown = client.application(&object_id).await;
    let password = &shown.json()["passwordCredentials"][0];
    assert_eq!((&password["keyId"], &password["hint"]), (&made["keyId"], &made["hint"]));
    assert!(password["secretText"].is_null() && !shown.text.contains(&secret));
    let truth = azure.passwords(&object_id);
    assert_eq!(made["keyId"], *truth[0].key_id);
    assert_eq!(azure.secret_of(&truth[0].key_id), Some(secret.clone()));
    assert!(azure.signs_in(&client_id, &secret));

    let selected = client.application(&format!("{object_id}?$select=id,passwordCredentials")).await.json();
    assert!(selected["appId"].is_null() && selected["passwordCredentials"][0]["keyId"] == made["keyId"]);
    assert_eq!(client.application(&format!("{object_id}?$select=passwords")).await.code(), refused(400, "BadRequest"));
    let by_app = client.try_graph(Method::GET, &format!("/v1.0/applications(appId='{client_id}')"), None).await;
    assert_eq!(by_app.expect("Graph answers").json()["id"], *object_id);
    // The one is not the other.
    assert_eq!(client.application(&client_id).await.code(), refused(404, "Request_ResourceNotFound"));
}

#[tokio::test]
async fn without_an_end_a_password_lasts_two_years_and_dates_must_make_sense() {
    let azure = plain().await;
    let (object_id, _) = azure.add_application("gis");
    let client = Client::new(&azure).await;
    client.mint(&object_id).await;
    let password = &azure.passwords(&object_id)[0];
    let days = (password.end - password.start).num_days();
    assert!((730..=731).contains(&days), "{days}");
    let past = Utc::now() - TimeDelta::hours(1);
    for wish in [
        json!({"endDateTime": past.to_rfc3339()}),
        json!({"endDateTime": "tomorrow"}),
        json!({"startDateTime": "2098-01-02T00:00:00Z", "endDateTime": "2098-01-01T00:00:00Z"}),
        json!({"secretText": "of my own"}),
        json!({"keyId": "3f2504e0-4f89-41d3-9a0c-0305e82c3301"}),
    ] {
        assert_eq!(client.add(&object_id, wish.clone()).await.code(), refused(400, "Request_BadRequest"), "{wish}");
    }
    assert_eq!(azure.mints(), 1);
}

#[tokio::test]
async fn a_removed_password_is_gone_and_cannot_be_removed_twice() {
    let azure = plain().await;
    let (object_id, client_id) = azure.add_application("gis");
    let client = Client::new(&azure).await;
    let ((key_id, secret), (kept, _)) = (client.mint(&object_id).await, client.mint(&object_id).await);
    let removed = client.remove(&object_id, &key_id).await;
    assert_eq!((removed.status, removed.text.as_str()), (204, ""));
    assert_eq!(client.listed(&object_id).await, [kept]);
    assert!(!azure.signs_in(&client_id, &secret));
    for id in [key_id.as_str(), "3f2504e0-4f89-41d3-9a0c-0305e82c3301"] {
        let again = client.remove(&object_id, id).await;
        assert_eq!(again.code(), refused(400, "Request_BadRequest"));
        assert!(again.text.contains("No password credential found with keyId"), "{}", again.text);
    }
    assert_eq!(client.remove(&object_id, "key").await.code(), refused(400, "Request_BadRequest"));
    let line = azure.requests().into_iter().find(|line| line.operation == "RemovePassword").expect("a line");
    assert_eq!((line.user_or_target, line.access_key_id, line.status), (object_id, key_id, 204));
}

#[tokio::test]
async fn some_applications_may_have_two_passwords_and_no_third() {
    let azure = plain().await;
    let (object_id, _) = azure.add_application("gis");
    azure.set_passwords_max(&object_id, Some(2));
    let client = Client::new(&azure).await;
    let (first, _) = client.mint(&object_id).await;
    client.mint(&object_id).await;
    let third = client.add(&object_id, json!({})).await;
    assert_eq!(third.code(), refused(400, "TooManyAppPasswords"));
    let error = &third.json()["error"];
    assert_eq!(error["message"], "Not allowed to add 3 passwords. You can only add a maximum of 2 passwords.");
    assert_eq!(error["details"][0]["target"], "passwordCredentials");
    client.remove(&object_id, &first).await;
    client.mint(&object_id).await;
}

#[tokio::test]
async fn a_policy_of_the_tenant_refuses_passwords_or_long_ones() {
    let azure = plain().await;
    let (object_id, _) = azure.add_application("gis");
    let client = Client::new(&azure).await;
    let lasting = |hours| json!({"endDateTime": (Utc::now() + TimeDelta::hours(hours)).to_rfc3339()});
    azure.set_options(|options| options.password_policy = PasswordPolicy::Lifetime(2 * HOUR));
    for wish in [lasting(3), json!({})] {
        let long = client.add(&object_id, wish).await;
        assert_eq!(long.code(), refused(400, "CredentialInvalidLifetimeAsPerAppPolicy"));
        assert_eq!(long.json()["error"]["details"][0]["code"], "InvalidKeyEndDate");
    }
    assert_eq!(client.add(&object_id, lasting(1)).await.status, 200);
    azure.set_options(|options| options.password_policy = PasswordPolicy::Forbidden);
    let never = client.add(&object_id, lasting(1)).await;
    assert_eq!(never.code(), refused(400, "CredentialTypeNotAllowedAsPerAppPolicy"));
    assert_eq!(azure.mints(), 1);
}

#[tokio::test]
async fn two_changes_of_the_directory_at_once_are_one_too_many() {
    for adds_first in [true, false] {
        let azure = start(AzureOptions { directory_pause: HOUR, ..AzureOptions::default() }).await;
        let (one, other) = (azure.add_application("one").0, azure.add_application("other").0);
        let (key_id, _) = azure.create_password(&one, "by hand");
        let client = Client::new(&azure).await;
        // What a human did is long over, and what is refused changes nothing.
        assert_eq!(client.add(&one, json!({"endDateTime": "tomorrow"})).await.status, 400);
        let first = if adds_first { client.add(&one, json!({})).await } else { client.remove(&one, &key_id).await };
        assert!(first.status < 300, "{}", first.text);
        for answer in [client.add(&other, json!({})).await, client.remove(&one, &key_id).await] {
            assert_eq!(answer.code(), refused(409, "Directory_ConcurrencyViolation"));
            assert!(answer.text.contains("Please wait briefly and retry."), "{}", answer.text);
        }
        assert_eq!(client.application(&one).await.status, 200);
        azure.set_options(|options| options.directory_pause = Duration::ZERO);
        // The same was seen with 503.
        azure.fault("AddPassword", Fault::Error(503));
        assert_eq!(client.add(&other, json!({})).await.code(), refused(503, "Directory_ConcurrencyViolation"));
        assert_eq!(client.add(&other, json!({})).await.status, 200);
    }
}

#[tokio::test]
async fn a_list_of_passwords_lags_behind_both_ways() {
    let azure = start(AzureOptions { listing_lag: HOUR, ..AzureOptions::default() }).await;
    let (object_id, _) = azure.add_application("gis");
    let (old, _) = azure.create_password(&object_id, "by hand");
    let client = Client::new(&azure).await;
    let (young, _) = client.mint(&object_id).await;
    assert_eq!(client.listed(&object_id).await, std::slice::from_ref(&old));
    assert_eq!(azure.passwords(&object_id).len(), 2);
    // A replica that does not know it cannot remove it.
    assert_eq!(client.remove(&object_id, &young).await.code(), refused(400, "Request_BadRequest"));
    assert_eq!(client.remove(&object_id, &old).await.status, 204);
    assert_eq!(client.listed(&object_id).await, std::slice::from_ref(&old));
    azure.set_options(|options| options.listing_lag = Duration::ZERO);
    assert_eq!(client.listed(&object_id).await, std::slice::from_ref(&young));
    assert_eq!(client.remove(&object_id, &young).await.status, 204);
}

#[tokio::test]
async fn graph_changes_only_what_the_rotator_owns_and_takes_only_its_own_tokens() {
    let azure = plain().await;
    let (object_id, _) = azure.add_application("gis");
    let client = Client::new(&azure).await;
    let (key_id, _) = client.mint(&object_id).await;
    azure.set_owned(&object_id, false);
    let denied = refused(403, "Authorization_RequestDenied");
    assert_eq!(client.add(&object_id, json!({})).await.code(), denied);
    assert_eq!(client.remove(&object_id, &key_id).await.code(), denied);
    assert_eq!(client.application(&object_id).await.status, 200);
    azure.set_owned(&object_id, true);
    azure.deny("Application.ReadWrite.OwnedBy");
    assert_eq!(client.application(&object_id).await.code(), denied);
    azure.allow("Application.ReadWrite.OwnedBy");
    assert_eq!(client.remove(&object_id, &key_id).await.status, 204);

    let with = |token: &str| Client { azure: &azure, arm: String::new(), graph: token.to_owned() };
    let wrong = with(&client.arm).application(&object_id).await;
    assert_eq!(wrong.code(), refused(401, "InvalidAuthenticationToken"));
    assert_eq!(wrong.json()["error"]["message"], "Access token validation failure. Invalid audience.");
    assert!(wrong.json()["error"]["innerError"]["request-id"].is_string());
    let own = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";
    let request = http().get(azure.graph_url()).header("client-request-id", own);
    assert_eq!(answer(request).await.expect("Graph answers").header("client-request-id"), own);
    assert_eq!(with("made-up").application(&object_id).await.status, 401);
    assert_eq!(with("").application(&object_id).await.json()["error"]["message"], "Access token is empty.");
    azure.set_options(|options| options.token_lifetime = Duration::ZERO);
    let dead = with(&token(&azure, GRAPH).await).application(&object_id).await;
    assert_eq!(dead.json()["error"]["message"], "Lifetime validation failed, the token is expired.");
}

// --- All three ---

#[tokio::test]
async fn each_address_serves_its_own_paths_only() {
    let azure = plain().await;
    let account = azure.add_storage_account("gisstore");
    let (object_id, _) = azure.add_application("gis");
    let (arm, graph) = (token(&azure, ARM).await, token(&azure, GRAPH).await);
    let account = format!("{account}?{STORAGE_VERSION}");
    let app = format!("/v1.0/applications/{object_id}");
    let cases = [
        (azure.graph_url(), &account, &arm),
        (azure.authority_url(), &account, &arm),
        (azure.arm_url(), &app, &graph),
        (azure.authority_url(), &app, &graph),
    ];
    for (url, path, token) in cases {
        let answer = answer(http().get(format!("{url}{path}")).bearer_auth(token)).await.expect("an answer");
        assert_eq!(answer.status, 404);
    }
}

#[tokio::test]
async fn faults_do_what_they_say_and_are_spent() {
    let azure = plain().await;
    let account = azure.add_storage_account("gisstore");
    let client = Client::new(&azure).await;
    let path = format!("{account}/regenerateKey?{STORAGE_VERSION}");
    let regenerate = || client.try_arm(Method::POST, &path, Some(json!({"keyName": "key1"})));
    let fault = |fault| azure.fault("RegenerateKey", fault);
    let count = || azure.regenerations();
    let from = azure.requests().len();

    fault(Fault::DropBefore);
    assert!(regenerate().await.is_err() && count() == 0);
    fault(Fault::LostReply);
    assert!(regenerate().await.is_err() && count() == 1);
    fault(Fault::ErrorAfterCommit(500));
    assert!(regenerate().await.is_ok_and(|a| a.code() == refused(500, "InternalServerError")) && count() == 2);
    fault(Fault::Error(503));
    assert!(regenerate().await.is_ok_and(|a| a.code() == refused(503, "ServiceUnavailable")) && count() == 2);
    fault(Fault::Error(409));
    assert!(regenerate().await.is_ok_and(|a| a.code() == refused(409, "StorageAccountOperationInProgress")));
    fault(Fault::Throttle);
    let throttled = regenerate().await.expect("ARM answers");
    assert_eq!((throttled.code(), throttled.header("retry-after")), (refused(429, "TooManyRequests"), "1"));
    fault(Fault::Refuse("not today".to_owned()));
    assert!(regenerate().await.is_ok_and(|a| a.code() == refused(403, "AuthorizationFailed")) && count() == 2);
    fault(Fault::Html);
    assert!(regenerate().await.is_ok_and(|a| a.status == 200 && a.text.contains("<html>")) && count() == 2);
    let seen: Vec<(u16, bool)> = azure.requests()[from..].iter().map(|line| (line.status, line.executed)).collect();
    assert!(azure.requests()[from..].iter().all(|line| line.user_or_target == "gisstore"));
    let expected =
        [(0, false), (0, true), (500, true), (503, false), (409, false), (429, false), (403, false), (200, false)];
    assert_eq!(seen, expected);

    fault(Fault::Late(Duration::from_millis(20)));
    assert!(regenerate().await.is_err() && count() == 2);
    while count() == 2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // The client gives up long before it is carried out.
    fault(Fault::Delayed(Duration::from_millis(150)));
    let gone = tokio::time::timeout(Duration::from_millis(100), regenerate()).await;
    assert!(gone.is_err() && count() == 3 && azure.faults_left("RegenerateKey") == 0);
    while count() == 3 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    fault(Fault::DropBefore);
    azure.clear_faults();
    assert!(regenerate().await.is_ok_and(|a| a.status == 200) && count() == 5);
    fault(Fault::Slow(Duration::from_millis(20)));
    let begun = std::time::Instant::now();
    assert!(regenerate().await.is_ok_and(|a| a.status == 200) && count() == 6);
    assert!(begun.elapsed() >= Duration::from_millis(20));
    let elsewhere = format!("{}/elsewhere", azure.graph_url());
    fault(Fault::Redirect(elsewhere));
    assert!(regenerate().await.is_ok_and(|a| a.status == 404) && count() == 6);

    let cosmos = azure.add_cosmos_account("gis-cosmos");
    fault(Fault::Error(409));
    assert_eq!(client.regenerate_cosmos(&cosmos, "primary").await.code(), refused(409, "Conflict"));

    let (client_id, secret) = azure.admin();
    azure.fault("Token", Fault::Error(503));
    let busy = log_in(&azure, &client_id, &secret, ARM).await;
    assert_eq!(busy.sts(), (503, "temporarily_unavailable".to_owned(), 90_033));
}

#[tokio::test]
async fn the_date_shown_is_skewed_and_a_wait_may_be_a_date() {
    let azure = plain().await;
    let account = azure.add_storage_account("gisstore");
    let client = Client::new(&azure).await;
    azure.set_date_skew(TimeDelta::minutes(10));
    azure.fault("ListKeys", Fault::Later { status: 429, seconds: 30, as_date: true });
    let later = client.list(&account).await;
    let date = |name: &str| DateTime::parse_from_rfc2822(later.header(name)).expect("an HTTP date").with_timezone(&Utc);
    assert!(date("date") - Utc::now() > TimeDelta::minutes(9));
    assert!((TimeDelta::seconds(29)..=TimeDelta::seconds(31)).contains(&(date("retry-after") - date("date"))));
    assert_eq!(client.list(&account).await.status, 200);
}

#[tokio::test]
async fn while_down_connections_are_closed_at_all_four() {
    let azure = plain().await;
    let urls = [azure.authority_url(), azure.arm_url(), azure.graph_url(), azure.blob_url()];
    azure.down(true);
    for url in &urls {
        assert!(answer(http().get(url)).await.is_err());
    }
    azure.down(false);
    for url in &urls {
        assert!(answer(http().get(url)).await.is_ok());
    }
}

#[tokio::test]
async fn no_line_of_the_log_holds_a_secret() {
    let azure = plain().await;
    let account = azure.add_storage_account("gisstore");
    let (object_id, client_id) = azure.add_application("gis");
    let client = Client::new(&azure).await;
    let (key_id, secret) = client.mint(&object_id).await;
    log_in(&azure, &client_id, &secret, ARM).await;
    // Mixed up, as by a slip in a policy.
    log_in(&azure, &secret, &client_id, ARM).await;
    client.remove(&object_id, &secret).await;
    client.regenerate(&account, "key1").await;
    client.regenerate(&account, &secret).await;
    client.list(&account).await;
    client.remove(&object_id, &key_id).await;
    let log = format!("{:?}", azure.requests());
    assert!(log.contains(&key_id) && log.contains("gisstore"));
    assert!(azure.all_secrets().len() >= 9);
    // In no spelling.
    let log = log.to_lowercase();
    assert!(azure.all_secrets().iter().all(|secret| !log.contains(&secret.to_lowercase())));
}

#[tokio::test]
async fn a_restored_tenant_has_its_old_keys_and_forgets_no_secret() {
    let azure = plain().await;
    let account = azure.add_storage_account("gisstore");
    let (object_id, _) = azure.add_application("gis");
    let (old, backup) = (value(&azure, &account, "key1"), azure.snapshot());
    let new = azure.regenerate(&account, "key1");
    let (_, secret) = azure.create_password(&object_id, "by hand");
    azure.restore(backup);
    assert!(azure.works(&account, &old) && !azure.works(&account, &new));
    assert!(azure.passwords(&object_id).is_empty());
    let all = azure.all_secrets();
    assert!([&old, &new, &secret].iter().all(|secret| all.contains(secret)));
}

#[tokio::test]
async fn with_tls_its_authority_must_be_trusted() {
    let azure = start(AzureOptions { tls: true, ..AzureOptions::default() }).await;
    let account = azure.add_cosmos_account("gis-cosmos");
    assert!(azure.authority_url().starts_with("https://") && azure.arm_url().starts_with("https://"));
    assert!(answer(http().get(azure.graph_url())).await.is_err());
    let ca = reqwest::Certificate::from_pem(azure.ca_pem().expect("a certificate").as_bytes()).expect("PEM");
    let trusting = reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build().expect("a client");
    let (client_id, secret) = azure.admin();
    let url = format!("{}/{}/oauth2/v2.0/token", azure.authority_url(), azure.tenant_id());
    let form =
        [("grant_type", "client_credentials"), ("client_id", &client_id), ("client_secret", &secret), ("scope", ARM)];
    let token = answer(trusting.post(url).form(&form)).await.expect("Entra answers").json()["access_token"].clone();
    let url = format!("{}{account}/regenerateKey?{COSMOS_VERSION}", azure.arm_url());
    let request = trusting.post(url).bearer_auth(token.as_str().expect("a token")).json(&json!({"keyKind": "primary"}));
    let taken = answer(request).await.expect("ARM answers");
    assert!(taken.status == 202 && taken.header("location").starts_with("https://"), "{}", taken.text);
}
