//! The stand-in against what Google's documents and clients say of it.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::{Engine, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::Method;
use serde_json::{Value, json};

use super::*;
use crate::s3::S3Store;
use crate::{ArcGis, ArcGisOptions, Aws, AwsOptions, ServiceSpec};

const FULL: &str = "https://www.googleapis.com/auth/devstorage.full_control";
const LOOK: &str = "https://www.googleapis.com/auth/cloud-platform.read-only";

struct Lab {
    google: Google,
    email: String,
    http: reqwest::Client,
}

impl Lab {
    async fn new(options: GoogleOptions) -> Lab {
        let google = Google::start(options).await;
        let email = google.add_service_account("arcgis");
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a plain client");
        Lab { google, email, http }
    }

    /// An assertion of the rotator's, with these claims changed.
    fn assertion(&self, changed: &Value) -> String {
        let file: Value = serde_json::from_str(&self.google.service_account_file("x")).expect("JSON");
        let now = Utc::now().timestamp();
        let mut claims = json!({ "iss": self.google.rotator(), "sub": self.google.rotator(), "scope": FULL, "iat": now, "exp": now + 300 });
        for (name, value) in changed.as_object().expect("claims") {
            claims[name] = value.clone();
        }
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": file["private_key_id"] });
        let message = format!("{}.{}", part(&header), part(&claims));
        let pem: String =
            file["private_key"].as_str().expect("a key").lines().filter(|line| !line.starts_with("--")).collect();
        let key = RsaKeyPair::from_pkcs8(&STANDARD.decode(pem).expect("Base64")).expect("a key");
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).expect("signs");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    async fn post(&self, url: &str, form: &[(&str, &str)]) -> (u16, Value) {
        let answer = self.http.post(url).form(form).send().await.expect("answers");
        (answer.status().as_u16(), answer.json().await.unwrap_or_default())
    }

    async fn token_for(&self, changed: &Value) -> (u16, Value) {
        let url = self.google.token_url();
        let mut claims = json!({ "aud": url });
        claims.as_object_mut().expect("claims").extend(changed.as_object().expect("claims").clone());
        let assertion = self.assertion(&claims);
        self.post(&url, &[("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", &assertion)])
            .await
    }

    async fn token(&self, scope: &str) -> String {
        let (status, given) = self.token_for(&json!({ "scope": scope })).await;
        assert_eq!(status, 200, "{given}");
        given["access_token"].as_str().expect("a token").to_owned()
    }

    async fn send(&self, token: &str, method: Method, rest: &str, body: Option<Value>) -> (u16, Value) {
        let url = format!("{}/storage/v1/projects/gis-prod-123/hmacKeys{rest}", self.google.url());
        let mut request = self.http.request(method.clone(), url).bearer_auth(token);
        request = match body {
            Some(body) => request.json(&body),
            None if method == Method::POST => request.header("content-length", "0"),
            None => request,
        };
        let answer = request.send().await.expect("answers");
        (answer.status().as_u16(), answer.json().await.unwrap_or_default())
    }

    async fn create(&self, token: &str) -> (u16, Value) {
        self.send(token, Method::POST, &format!("?serviceAccountEmail={}", self.email), None).await
    }
}

fn said(answer: &(u16, Value)) -> (u16, &str, &str) {
    let error = &answer.1["error"];
    (answer.0, error["errors"][0]["reason"].as_str().unwrap_or_default(), error["message"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_key_lives_and_dies_as_the_documents_have_it() {
    let lab = Lab::new(GoogleOptions::default()).await;
    let token = &lab.token(FULL).await;
    let (status, made) = lab.create(token).await;
    assert_eq!((status, &made["kind"], &made["metadata"]["state"]), (200, &json!("storage#hmacKey"), &json!("ACTIVE")));
    let (id, secret) =
        (made["metadata"]["accessId"].as_str().expect("an id"), made["secret"].as_str().expect("a secret"));
    assert_eq!((id.len(), &id[..4], secret.len()), (61, "GOOG", 40));
    assert!(lab.google.opens(id, secret) && !lab.google.opens(id, "another"));
    let path = &format!("/{id}");
    assert_eq!(
        said(&lab.send(token, Method::DELETE, path, None).await),
        (400, "invalid", "Cannot delete keys in ACTIVE state.")
    );
    let off = json!({ "state": "INACTIVE", "etag": "badEtag" });
    let stale = lab.send(token, Method::PUT, path, Some(off)).await;
    assert_eq!(said(&stale), (412, "conditionNotMet", "Etag does not match expected value."));
    let off = json!({ "state": "INACTIVE", "etag": made["metadata"]["etag"] });
    let (status, shown) = lab.send(token, Method::PUT, path, Some(off)).await;
    assert_eq!((status, &shown["state"], shown.get("secret")), (200, &json!("INACTIVE"), None));
    assert_ne!(shown["etag"], made["metadata"]["etag"]);
    let again = lab.send(token, Method::PUT, path, Some(json!({ "state": "INACTIVE" }))).await;
    assert_eq!(said(&again), (400, "invalid", "Update must modify the credential"));
    assert!(!lab.google.opens(id, secret));
    assert_eq!(lab.send(token, Method::DELETE, path, None).await.0, 204);
    let gone = lab.send(token, Method::GET, path, None).await;
    assert_eq!(said(&gone), (404, "notFound", "Access ID not found in project gis-prod-123."));
    let of = format!("?serviceAccountEmail={}", lab.email);
    let (_, none) = lab.send(token, Method::GET, &of, None).await;
    assert_eq!(none, json!({ "kind": "storage#hmacKeysMetadata" }));
    let (_, all) = lab.send(token, Method::GET, &format!("{of}&showDeletedKeys=true"), None).await;
    assert_eq!(all["items"][0]["state"], "DELETED");
    lab.google.set_options(|options| options.shows_deleted = true);
    assert_eq!(lab.send(token, Method::GET, path, None).await.1["state"], "DELETED");
    assert_eq!(lab.send(token, Method::DELETE, path, None).await.0, 400);
    assert!(lab.google.requests().iter().all(|line| !format!("{line:?}").contains(secret)));
}

#[tokio::test]
async fn ten_fit_and_deleted_ones_do_not_count() {
    let lab = Lab::new(GoogleOptions { page_size: 4, ..GoogleOptions::default() }).await;
    let token = &lab.token(FULL).await;
    for _ in 0..10 {
        assert_eq!(lab.create(token).await.0, 200);
    }
    assert_eq!(said(&lab.create(token).await), (403, "quotaExceeded", "Service account HMAC key limit reached"));
    let of = format!("?serviceAccountEmail={}", lab.email);
    let (mut seen, mut next) = (BTreeSet::new(), String::new());
    for size in [4, 4, 2] {
        let (_, page) = lab.send(token, Method::GET, &format!("{of}{next}"), None).await;
        let items = page["items"].as_array().expect("items");
        assert_eq!(items.len(), size);
        seen.extend(items.iter().map(|item| item["accessId"].to_string()));
        next = page["nextPageToken"]
            .as_str()
            .map(|token| format!("&pageToken={}", crate::form::encode(token)))
            .unwrap_or_default();
    }
    assert_eq!((seen.len(), next.as_str()), (10, ""));
    let first = lab.google.keys(&lab.email)[0].id.clone();
    lab.google.delete_key(&first);
    assert_eq!(lab.create(token).await.0, 200);
    assert_eq!(lab.google.mints(), 11);
}

#[tokio::test]
async fn the_store_learns_late() {
    let hour = Duration::from_secs(3600);
    let lab = Lab::new(GoogleOptions { propagation: hour, state_lag: hour, ..GoogleOptions::default() }).await;
    let token = &lab.token(FULL).await;
    let (_, made) = lab.create(token).await;
    let lookup = lab.google.lookup();
    assert_eq!(lookup(made["metadata"]["accessId"].as_str().expect("an id")), KeyState::Unknown);
    let (id, secret) = lab.google.create_key(&lab.email);
    assert_eq!(lookup(&id), KeyState::Usable(secret.clone()));
    let path = &format!("/{id}");
    lab.send(token, Method::PUT, path, Some(json!({ "state": "INACTIVE" }))).await;
    assert_eq!(lookup(&id), KeyState::Usable(secret), "the word has not spread");
    lab.google.set_options(|options| options.state_lag = Duration::ZERO);
    assert_eq!(lookup(&id), KeyState::Inactive);
    lab.google.set_options(|options| options.state_lag = hour);
    assert_eq!((lab.send(token, Method::DELETE, path, None).await.0, lab.google.hasty_deletions()), (204, 1));
    assert_eq!(lookup(&id), KeyState::Unknown);
}

#[tokio::test]
async fn a_token_opens_what_its_scope_says_and_no_more() {
    let lab = Lab::new(GoogleOptions::default()).await;
    let list = format!("?serviceAccountEmail={}", lab.email);
    let (full, look) = (lab.token(FULL).await, lab.token(LOOK).await);
    assert_eq!(lab.send(&look, Method::GET, &list, None).await.0, 200);
    assert_eq!(said(&lab.create(&look).await).1, "insufficientPermissions");
    let rights = format!("{}/v3/projects/gis-prod-123:testIamPermissions", lab.google.url());
    let ask = async |token: &str| {
        let asked = json!({ "permissions": ["storage.hmacKeys.list", "storage.buckets.list"] });
        let answer = lab.http.post(&rights).bearer_auth(token).json(&asked).send().await.expect("answers");
        answer.json::<Value>().await.expect("JSON")
    };
    assert_eq!(ask(&look).await, json!({ "permissions": ["storage.hmacKeys.list"] }));
    assert_eq!(ask(&full).await["error"]["details"][0]["reason"], "ACCESS_TOKEN_SCOPE_INSUFFICIENT");
    lab.google.deny("storage.hmacKeys.list");
    assert_eq!(ask(&look).await, json!({}));
    assert_eq!(said(&lab.send(&full, Method::GET, &list, None).await).1, "forbidden");
    lab.google.revoke_tokens();
    assert_eq!(said(&lab.send(&full, Method::GET, &list, None).await), (401, "authError", "Invalid Credentials"));
    // Signed by the rotator itself: no endpoint is asked.
    lab.google.allow("storage.hmacKeys.list");
    assert_eq!(lab.send(&lab.assertion(&json!({})), Method::GET, &list, None).await.0, 200);
    let over = json!({ "iat": 1, "exp": 300 });
    assert_eq!(lab.send(&lab.assertion(&over), Method::GET, &list, None).await.0, 401);
    lab.google.delete_rotator_key();
    let mut forged = lab.assertion(&json!({}));
    forged.replace_range(forged.len() - 8.., "AAAAAAAA");
    assert_eq!(lab.send(&forged, Method::GET, &list, None).await.0, 401);
}

#[tokio::test]
async fn each_endpoint_gives_tokens_for_its_own_kind_of_proof() {
    let lab = Lab::new(GoogleOptions::default()).await;
    let hour_ago = Utc::now().timestamp() - 7200;
    for (changed, error, what) in [
        (json!({ "aud": "https://oauth2.googleapis.com/token" }), "invalid_grant", "audience"),
        (json!({ "iat": hour_ago, "exp": hour_ago + 300 }), "invalid_grant", "reasonable timeframe"),
        (json!({ "exp": Utc::now().timestamp() + 86_400 }), "invalid_grant", "short-lived"),
        (json!({ "iss": "x@y" }), "invalid_grant", "account not found"),
        (json!({ "scope": "" }), "invalid_scope", "scope"),
    ] {
        let (status, refused) = lab.token_for(&changed).await;
        assert_eq!((status, &refused["error"]), (400, &json!(error)));
        assert!(refused["error_description"].as_str().is_some_and(|text| text.contains(what)), "{refused}");
    }
    let (url, subject) = (lab.google.sts_url(), lab.google.subject_token());
    let exchange = async |subject: &str, audience: &str| {
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("subject_token_type", oauth::SUBJECT_TYPE),
            ("subject_token", subject),
            ("audience", audience),
            ("scope", FULL),
        ];
        lab.post(&url, &form).await
    };
    assert_eq!(exchange(&subject, oauth::AUDIENCE).await.0, 200);
    assert_eq!(exchange(&subject, "//iam.googleapis.com/x").await.1["error"], "invalid_target");
    assert_eq!(exchange("another", oauth::AUDIENCE).await.1["error"], "invalid_grant");
    let machine = format!("{}/computeMetadata/v1/instance/service-accounts/default/token", lab.google.url());
    let without = lab.http.get(&machine).send().await.expect("answers");
    assert_eq!(without.status(), 403);
    let with = lab.http.get(&machine).header("metadata-flavor", "Google").send().await.expect("answers");
    assert_eq!((with.status().as_u16(), with.headers()["metadata-flavor"].to_str().ok()), (200, Some("Google")));
}

#[tokio::test]
async fn a_person_is_the_rotator_by_impersonation_where_that_is_allowed() {
    let lab = Lab::new(GoogleOptions::default()).await;
    let file: Value = serde_json::from_str(&lab.google.person_file()).expect("JSON");
    let refresh = async |changed: &str| {
        let mut asked = json!({ "grant_type": "refresh_token", "scopes": FULL });
        for name in ["client_id", "client_secret", "refresh_token"] {
            asked[name] = if name == changed { json!("another") } else { file[name].clone() };
        }
        let answer = lab.http.post(lab.google.token_url()).json(&asked).send().await.expect("answers");
        (answer.status().as_u16(), answer.json::<Value>().await.expect("JSON"))
    };
    assert_eq!(refresh("client_secret").await.1["error"], "invalid_client");
    assert_eq!(refresh("refresh_token").await.1["error"], "invalid_grant");
    let (_, given) = refresh("").await;
    let person = given["access_token"].as_str().expect("a token").to_owned();
    let url = lab.google.impersonation_url();
    let generate = async |token: &str, url: &str, body: Value| {
        let answer = lab.http.post(url).bearer_auth(token).json(&body).send().await.expect("answers");
        (answer.status().as_u16(), answer.json::<Value>().await.expect("JSON"))
    };
    let asked = json!({ "scope": [FULL], "lifetime": "3600s" });
    let (status, made) = generate(&person, &url, asked.clone()).await;
    assert_eq!(status, 200, "{made}");
    let ends = made["expireTime"].as_str().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    assert!(ends.is_some_and(|ends| ends > Utc::now()), "{made}");
    let token = made["accessToken"].as_str().expect("a token");
    assert_eq!(lab.create(token).await.0, 200);
    // With another scope, for too long, for nobody's account, and without a word of who asks.
    let narrow = lab.token(FULL).await;
    for (token, url, body, word) in [
        (&narrow, &url, &asked, "PERMISSION_DENIED"),
        (&person, &url, &json!({ "scope": [FULL], "lifetime": "7200s" }), "INVALID_ARGUMENT"),
        (&person, &url, &json!({ "lifetime": "60s" }), "INVALID_ARGUMENT"),
        (&person, &url.replace("rotator@", "nobody@"), &asked, "NOT_FOUND"),
        (&"x".to_owned(), &url, &asked, "UNAUTHENTICATED"),
    ] {
        assert_eq!(generate(token, url, body.clone()).await.1["error"]["status"], word);
    }
    lab.google.deny_impersonation();
    assert_eq!(generate(&person, &url, asked).await.1["error"]["details"][0]["reason"], "IAM_PERMISSION_DENIED");
}

#[tokio::test]
async fn what_is_not_as_the_api_has_it_is_refused() {
    let lab = Lab::new(GoogleOptions::default()).await;
    let token = &lab.token(FULL).await;
    let nobody = lab.send(token, Method::GET, "?serviceAccountEmail=DNE@mail.com", None).await;
    assert_eq!(said(&nobody), (404, "notFound", "Service Account 'DNE@mail.com' not found."));
    assert_eq!(lab.send(token, Method::POST, "?serviceAccountEmail=x", Some(json!({}))).await.0, 400);
    assert_eq!(lab.send(token, Method::GET, "?serviceAccount=x", None).await.0, 400);
    assert_eq!(lab.send(token, Method::PATCH, "/x", Some(json!({}))).await.0, 404);
    let bare = lab.http.get(format!("{}/storage/v1/projects/gis-prod-123/hmacKeys", lab.google.url()));
    assert_eq!(bare.send().await.expect("answers").status(), 401);
    lab.google.forbid_keys(Some("constraints/iam.disableServiceAccountKeyCreation"));
    let forbidden = lab.create(token).await;
    assert!(said(&forbidden).0 == 412 && said(&forbidden).2.contains("violates constraint"), "{forbidden:?}");
    assert_eq!(lab.google.mints(), 0);
}

#[tokio::test]
async fn a_consumer_reads_with_what_it_holds_and_counts_when_it_may_not() {
    let lab = Lab::new(GoogleOptions::default()).await;
    let store = S3Store::start(lab.google.lookup()).await;
    store.add_bucket("tiles");
    let (id, secret) = lab.google.create_key(&lab.email);
    let aws = Aws::start(AwsOptions::default()).await;
    let arcgis = ArcGis::start(ArcGisOptions::default(), &aws).await;
    arcgis.add_provider("googlegcp0", "GCP", None);
    arcgis.add_service_with(ServiceSpec::google_cloud_storage("gcsgcs0001", "googlegcp0", "tiles"));
    let held = json!({ "accessKey": id, "secretKey": secret });
    arcgis.set_credential_object("gcsgcs0001", &json!({ "type": "HMAC-KEYS", "secret": held }));
    assert_eq!(arcgis.consumer("gcsgcs0001").requests, 0, "nobody knows of a store");
    arcgis.use_google(&store.url());
    let until = async |seen: &dyn Fn() -> bool| {
        while !seen() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    until(&|| arcgis.consumer("gcsgcs0001").last_good_key.as_deref() == Some(id.as_str())).await;
    assert_eq!(arcgis.consumer_refusals(), 0);
    lab.google.set_active(&id, false);
    until(&|| arcgis.consumer_refusals() > 0).await;
    assert_eq!(arcgis.consumer("gcsgcs0001").last_refusal, Some(format!("{id}: InvalidAccessKeyId")));
}
