//! The stand-in refuses what the console refuses, and its faults do what they say.

use reqwest::Method;
use serde_json::{Value, json};

use super::*;

const CREDENTIALS: &str = "/api/web/namespaces/system/service_credentials";
const WHOAMI: &str = "/api/web/custom/namespaces/system/whoami";

async fn send(
    f5: &F5,
    token: &str,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> Result<(u16, Value), reqwest::Error> {
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a plain client");
    let request =
        http.request(method, format!("{}{path}", f5.url())).header("authorization", format!("APIToken {token}"));
    let response = body.iter().fold(request, |request, body| request.json(body)).send().await?;
    let status = response.status().as_u16();
    let text = response.text().await?;
    Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
}

async fn ask(f5: &F5, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    send(f5, &f5.admin_token(), method, path, body).await.expect("the console answers")
}

fn token(name: &str) -> Value {
    json!({ "namespace": "system", "name": name, "expiration_days": 90, "api_token": {}, "type": "SERVICE_API_TOKEN",
            "namespace_roles": [{ "namespace": "system", "role": "ves-io-monitor-role" }], "user_group_names": ["ops"] })
}

async fn create(f5: &F5, body: Value) -> (u16, Value) {
    ask(f5, Method::POST, CREDENTIALS, Some(body)).await
}

fn with(mut body: Value, key: &str, value: Value) -> Value {
    body[key] = value;
    body
}

async fn tenant() -> F5 {
    F5::start(F5Options::default()).await
}

#[tokio::test]
async fn what_a_credential_may_do_is_what_it_was_given() {
    let f5 = tenant().await;
    let (_, made) = create(&f5, token("gis-monitor")).await;
    let (name, secret) =
        (made["name"].as_str().expect("a name").to_owned(), made["data"].as_str().expect("data").to_owned());
    assert!(name.starts_with("gis-monitor-") && name.len() == "gis-monitor".len() + 9, "{name}");
    let (status, who) = send(&f5, &secret, Method::GET, WHOAMI, None).await.expect("it answers");
    assert_eq!((status, who["tenant"].as_str()), (200, Some("acme-hcggqodh")));
    assert_eq!(who["email"], format!("{name}@volterracredentials.io"));
    assert_eq!(who["type"], "SERVICE");
    let list = send(&f5, &secret, Method::GET, CREDENTIALS, None).await.expect("it answers");
    assert_eq!(list, (403, json!("access denied by role")));
    let (_, shown) = ask(&f5, Method::GET, &format!("{CREDENTIALS}/{name}"), None).await;
    assert_eq!(
        shown["namespace_access"],
        json!({ "namespace_role_map": { "system": { "names": ["ves-io-monitor-role"] } } })
    );
    assert_eq!((&shown["user_group_names"], &shown["active"]), (&json!(["ops"]), &json!(true)));
    let manager = f5.create_token("rekeyd", &[("system", state::MANAGER)]);
    assert_eq!(send(&f5, &manager, Method::GET, CREDENTIALS, None).await.expect("it answers").0, 200);
}

/// A listing has the address of who asked for a credential; one that is shown alone has its own user's, unless the options say otherwise.
#[tokio::test]
async fn whose_address_is_shown_depends_on_who_is_asked() {
    let f5 = tenant().await;
    let (_, made) = create(&f5, token("gis-monitor")).await;
    let (name, secret) = (made["name"].as_str().expect("a name"), made["data"].as_str().expect("data"));
    let alone = format!("{CREDENTIALS}/{name}");
    let shown = async || ask(&f5, Method::GET, &alone, None).await.1["user_email"].clone();
    let own = async || send(&f5, secret, Method::GET, WHOAMI, None).await.expect("it answers").1["email"].clone();
    assert_eq!(ask(&f5, Method::GET, CREDENTIALS, None).await.1["items"][0]["user_email"], json!(state::PERSON));
    let (_, person) = ask(&f5, Method::GET, WHOAMI, None).await;
    assert_eq!((&person["email"], &person["type"]), (&json!(state::PERSON), &json!("USER")));
    assert_eq!(shown().await, format!("{name}@volterracredentials.io"));
    f5.set_options(|options| options.nameless_users = true);
    assert_eq!(shown().await, own().await);
    assert!(!own().await.to_string().contains(name), "it is called otherwise now");
    f5.set_options(|options| options.maker_email = true);
    assert_eq!(shown().await, json!(state::PERSON));
}

#[tokio::test]
async fn what_is_made_of_a_name_is_an_option() {
    let f5 = tenant().await;
    f5.set_options(|options| options.name_length_max = Some(5));
    let named = async || create(&f5, token("gis-monitor")).await.1["name"].as_str().expect("a name").to_owned();
    assert!(named().await.starts_with("gis-m-"));
    f5.set_options(|options| options.own_names = true);
    let own = named().await;
    assert!(own.starts_with("svc-cred-") && f5.credentials().iter().any(|one| one.name == own), "{own}");
    f5.set_options(|options| options.answered_name = Some("terraform".to_owned()));
    assert_eq!(named().await, "terraform");
    assert!(f5.credentials().iter().all(|one| one.name != "terraform"), "it is only said so");
}

#[tokio::test]
async fn nobody_is_let_in_by_another_header_or_at_another_path() {
    let f5 = tenant().await;
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a plain client");
    for value in ["", &f5.admin_token(), &format!("Bearer {}", f5.admin_token()), "APIToken nobody"] {
        let request = http.get(format!("{}{CREDENTIALS}", f5.url())).header("authorization", value);
        assert_eq!(request.send().await.expect("it answers").status().as_u16(), 401, "{value}");
    }
    for (method, path) in [
        (Method::GET, "/api/web/namespaces/other/service_credentials"),
        (Method::DELETE, CREDENTIALS),
        (Method::POST, WHOAMI),
        (Method::GET, "/api/web/namespaces/system/service_credentials?name=x"),
        (Method::GET, "/api/web/namespaces/system/service_credentials/nobody"),
    ] {
        assert_eq!(ask(&f5, method.clone(), path, None).await.0, 404, "{method} {path}");
    }
}

#[tokio::test]
async fn a_body_is_held_to_the_letter() {
    let f5 = tenant().await;
    let certificate = |password: &str| {
        let body = with(token("gis-certificate"), "api_certificate", json!({ "password": password }));
        let mut body = with(body, "type", json!("SERVICE_API_CERTIFICATE"));
        body.as_object_mut().expect("an object").remove("api_token");
        body
    };
    for body in [
        with(token("gis-monitor"), "name", json!("gis")),
        with(token("gis-monitor"), "name", json!("Gis-Monitor")),
        with(token("gis-monitor"), "namespace", json!("default")),
        with(token("gis-monitor"), "expiration_days", json!(0)),
        with(token("gis-monitor"), "expiration_days", json!("90")),
        with(token("gis-monitor"), "api_certificate", json!({ "password": "long enough" })),
        with(token("gis-monitor"), "api_token", json!({ "x": 1 })),
        with(token("gis-monitor"), "type", json!("SERVICE_API_CERTIFICATE")),
        with(token("gis-monitor"), "namespace_roles", json!([{ "namespace": "system" }])),
        with(token("gis-monitor"), "user_group_names", json!(["a", "a"])),
        with(token("gis-monitor"), "tenant", json!("x")),
        certificate("short"),
        certificate(&"x".repeat(51)),
    ] {
        assert_eq!(create(&f5, body.clone()).await.0, 400, "{body}");
    }
    let (status, made) = create(&f5, certificate("six-or-more")).await;
    assert_eq!(status, 200);
    assert!(made["data"].as_str().is_some_and(|data| data.starts_with("MII")), "{made}");
    assert_eq!(f5.credentials().len(), 1);
}

#[tokio::test]
async fn a_replace_changes_rights_and_nothing_else() {
    let f5 = tenant().await;
    f5.create_token("gis-by-hand", &[("system", "ves-io-monitor-role")]);
    let before = f5.credentials()[0].clone();
    let path = format!("{CREDENTIALS}/gis-by-hand");
    let body = json!({ "namespace": "system", "name": "gis-by-hand", "user_group_names": ["ops"],
                       "namespace_access": { "namespace_role_map": { "*": { "names": ["ves-io-power-developer-role"] } } } });
    let (status, said) = ask(&f5, Method::PUT, &path, Some(body.clone())).await;
    assert_eq!((status, &said["name"], &said["active"]), (200, &json!("gis-by-hand"), &json!(true)));
    let after = f5.credentials()[0].clone();
    let expected = ["ves-io-power-developer-role in *", "group ops"].map(str::to_owned);
    assert_eq!(after.access, BTreeSet::from(expected));
    assert_eq!((after.expires, after.created), (before.expires, before.created));
    for wrong in [
        with(body.clone(), "name", json!("gis-other")),
        with(body.clone(), "namespace_access", json!({})),
        with(body.clone(), "expiration_days", json!(3)),
    ] {
        assert_eq!(ask(&f5, Method::PUT, &path, Some(wrong.clone())).await.0, 400, "{wrong}");
    }
    f5.set_options(|options| options.replace_is_ignored = true);
    let none = with(body, "user_group_names", json!([]));
    assert_eq!(ask(&f5, Method::PUT, &path, Some(none)).await.0, 200);
    assert_eq!(f5.credentials()[0].access, after.access);
}

#[tokio::test]
async fn the_rest_of_the_family_does_what_the_options_say() {
    let f5 = tenant().await;
    for name in ["gis-one", "gis-two"] {
        f5.create_token(name, &[]);
    }
    let one = json!({ "namespace": "system", "name": "gis-one" });
    let post = |path: &'static str, body: Value| {
        let f5 = f5.clone();
        async move {
            ask(&f5, Method::POST, &format!("/api/web/namespaces/system/{path}/service_credentials"), Some(body)).await
        }
    };
    let before = f5.credentials()[0].expires;
    assert_eq!(post("renew", with(one.clone(), "expiration_days", json!(900))).await, (200, json!({ "status": true })));
    assert!(f5.credentials()[0].expires > before);
    for active in [false, true] {
        assert_eq!(post("activate", one.clone()).await.0, 200);
        assert_eq!(f5.credentials()[0].active, active, "it toggles");
    }
    f5.set_options(|options| options.activate_toggles = false);
    post("activate", one.clone()).await;
    assert!(f5.credentials()[0].active, "it only activates");
    assert_eq!(post("revoke", one.clone()).await, (200, json!({ "status": true })));
    assert_eq!(post("revoke", one).await.0, 404);
    let bulk = json!({ "name_selector": { "names": ["gis-one", "gis-two"] } });
    let (status, said) = post("bulk_revoke", bulk).await;
    assert_eq!((status, &said["credentials_failed"]), (200, &json!(["gis-one"])));
    assert_eq!(f5.credentials().len(), 0);
}

#[tokio::test]
async fn what_takes_time_takes_it() {
    let hour = Duration::from_secs(3600);
    let f5 =
        F5::start(F5Options { propagation: hour, listing_lag: hour, removal_lag: hour, ..F5Options::default() }).await;
    let (_, made) = create(&f5, token("gis-monitor")).await;
    let secret = made["data"].as_str().expect("data").to_owned();
    assert_eq!(send(&f5, &secret, Method::GET, WHOAMI, None).await.expect("it answers").0, 401);
    assert_eq!(ask(&f5, Method::GET, CREDENTIALS, None).await, (200, json!({ "items": [] })));
    f5.set_options(|options| (options.propagation, options.listing_lag) = (Duration::ZERO, Duration::ZERO));
    assert_eq!(send(&f5, &secret, Method::GET, WHOAMI, None).await.expect("it answers").0, 200);
    f5.revoke(made["name"].as_str().expect("a name"));
    let (_, list) = ask(&f5, Method::GET, CREDENTIALS, None).await;
    assert_eq!(list["items"][0]["active"], json!(false), "marked for deletion, and still there");
    assert_eq!(send(&f5, &secret, Method::GET, WHOAMI, None).await.expect("it answers").0, 401);
    f5.set_options(|options| options.removal_lag = Duration::ZERO);
    assert_eq!(ask(&f5, Method::GET, CREDENTIALS, None).await.1, json!({ "items": [] }));
}

#[tokio::test]
async fn refusals_come_in_three_forms_and_too_many_requests_in_one() {
    let f5 = tenant().await;
    f5.fault("ListServiceCredentials", Fault::Error(503));
    assert_eq!(ask(&f5, Method::GET, CREDENTIALS, None).await, (503, json!("service unavailable")));
    f5.set_options(|options| options.words = Words::Gateway);
    f5.fault("ListServiceCredentials", Fault::Error(404));
    let (_, said) = ask(&f5, Method::GET, CREDENTIALS, None).await;
    assert_eq!(said["message"], json!("service credential not found"));
    f5.set_options(|options| options.requests_per_second = Some(0));
    assert_eq!(ask(&f5, Method::GET, CREDENTIALS, None).await.0, 429);
    f5.set_options(|options| options.requests_per_second = None);
    f5.fault("CreateServiceCredentials", Fault::LostReply);
    assert!(send(&f5, &f5.admin_token(), Method::POST, CREDENTIALS, Some(token("gis-lost"))).await.is_err());
    assert_eq!((f5.credentials().len(), f5.faults_left("CreateServiceCredentials")), (1, 0));
    let log = format!("{:?}", f5.requests());
    assert!(f5.all_secrets().iter().all(|secret| !log.contains(secret.as_str())), "the log has no secrets");
}
