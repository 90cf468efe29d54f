//! Every type of credential, in both products' shapes: what the site stores is the key to the last character, and the rest of the
//! object as it was.

use rekeyd::model::{Keyless, MaterialKind};
use serde_json::{Value, json};

use super::*;

/// What forms, JSON, URLs and pages would misread.
const HOSTILE: &str = "aB+c/d==&e%2Bf%g?h \"i\\j' <k>#é漢;l:m~n{o}p%3D";

/// A token as Azure gives it, and worse: a `?` at its head, escapes, and what must not be decoded on the way.
const TOKEN: &str = "?sv=2024-11-04&ss=b&srt=sco&sp=rwdlac&se=2027-01-01T00:00:00Z&spr=https&sig=aB%2Bc%2Fd+e/f%3D";

const PLACE: &str = "placeplace";
const CLOUD: &str = "cloudcloud";

/// A type: where it is at home, what comes, and what a site holds before and after, for each product.
struct Type {
    provider: &'static str,
    service: fn() -> ServiceSpec,
    material: Material,
    before: fn(Product) -> Value,
    after: fn(Product) -> Value,
}

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

fn blob() -> ServiceSpec {
    ServiceSpec::azure_blob_store(PLACE, CLOUD, "gis")
}

fn s3() -> ServiceSpec {
    ServiceSpec::new(PLACE, CLOUD, "")
}

fn google() -> ServiceSpec {
    ServiceSpec::google_cloud_storage(PLACE, CLOUD, "gis")
}

fn principal(product: Product, client: &str, tenant: &str, secret: &str, account: &str) -> Value {
    match product {
        Product::Kubernetes => json!({"type": "SERVICE-PRINCIPAL", "secret": {"storageAccountName": account},
            "servicePrincipal": {"clientId": client, "tenantId": tenant, "clientSecret": secret}}),
        Product::Server => json!({"type": "SERVICE-PRINCIPAL", "authorityHost": "https://login.microsoftonline.com",
            "secret": {"clientId": client, "tenantId": tenant, "clientSecret": secret}}),
    }
}

fn types() -> Vec<Type> {
    let id = || KeyId::new("key2@2026-11-22T00:00:00Z");
    let access_id = || KeyId::new("GOOG1E+EXAMPLE");
    vec![
        Type {
            provider: "AWS",
            service: s3,
            material: Material::AccessKey { id: access_id(), secret: secret(HOSTILE) },
            before: |_| json!({"type": "ACCESS-KEY", "secret": {"accessKey": "AKIAOLD", "secretKey": "the old secret of it"}}),
            after: |_| json!({"type": "ACCESS-KEY", "secret": {"accessKey": "GOOG1E+EXAMPLE", "secretKey": HOSTILE}}),
        },
        Type {
            provider: "GCP",
            service: google,
            material: Material::HmacKey { id: access_id(), secret: secret(HOSTILE) },
            before: |_| json!({"type": "HMAC-KEYS", "secret": {"accessKey": "GOOGOLD", "secretKey": "the old secret of it"}}),
            after: |_| json!({"type": "HMAC-KEYS", "secret": {"accessKey": "GOOG1E+EXAMPLE", "secretKey": HOSTILE}}),
        },
        Type {
            provider: "AZURE",
            service: blob,
            material: Material::StorageAccountKey { id: id(), account: "gis+store".to_owned(), key: secret(HOSTILE) },
            before: |_| {
                json!({"type": "STORAGE-ACCOUNT-KEY",
                       "secret": {"storageAccountName": "oldstore", "storageAccountKey": "the old secret of it"}})
            },
            after: |_| {
                json!({"type": "STORAGE-ACCOUNT-KEY",
                       "secret": {"storageAccountName": "gis+store", "storageAccountKey": HOSTILE}})
            },
        },
        Type {
            provider: "AZURE",
            service: blob,
            material: Material::SasToken { id: id(), account: "gisstore".to_owned(), token: secret(TOKEN) },
            before: |_| json!({"type": "SAS-TOKEN", "secret": {"storageAccountName": "oldstore", "sasToken": "sv=1&sig=old+sig"}}),
            after: |_| json!({"type": "SAS-TOKEN", "secret": {"storageAccountName": "gisstore", "sasToken": TOKEN}}),
        },
        Type {
            provider: "AZURE",
            service: blob,
            material: Material::ServicePrincipal {
                id: id(),
                tenant: "new-tenant".to_owned(),
                client: "new-client".to_owned(),
                secret: secret(HOSTILE),
                authority_host: None,
                storage_account: Some("gisstore".to_owned()),
            },
            before: |product| principal(product, "old-client", "old-tenant", "the old secret of it", "oldstore"),
            after: |product| principal(product, "new-client", "new-tenant", HOSTILE, "gisstore"),
        },
        Type {
            provider: "AZURE",
            service: || ServiceSpec::azure_cosmos_db(PLACE, CLOUD),
            material: Material::CosmosAccountKey { id: id(), account: "gistables".to_owned(), key: secret(HOSTILE) },
            before: |_| json!({"type": "COSMOSDB-ACCOUNT-KEY", "secret": {"accountName": "old", "accountKey": "the old secret of it"}}),
            after: |_| json!({"type": "COSMOSDB-ACCOUNT-KEY", "secret": {"accountName": "gistables", "accountKey": HOSTILE}}),
        },
        Type {
            provider: "AZURE",
            service: || ServiceSpec::azure_service_bus(PLACE, CLOUD),
            material: Material::ServiceBusKey { id: id(), key_name: "RootManage+Key".to_owned(), key: secret(HOSTILE) },
            before: |_| {
                json!({"type": "SERVICEBUS-ACCESS-KEY",
                       "secret": {"sharedAccessKeyName": "Old", "sharedAccessKey": "the old secret of it"}})
            },
            after: |_| {
                json!({"type": "SERVICEBUS-ACCESS-KEY",
                       "secret": {"sharedAccessKeyName": "RootManage+Key", "sharedAccessKey": HOSTILE}})
            },
        },
    ]
}

/// The same object with fields that nobody documented, beside and inside.
fn with_more(mut object: Value) -> Value {
    object["future"] = json!({"a": [1, null, "b+c"], "d": true});
    object["secret"]["moreOfIt"] = json!("one+two/three=");
    if object.get("servicePrincipal").is_some() {
        object["servicePrincipal"]["moreOfIt"] = json!("four&five");
    }
    object
}

impl Site {
    /// A site with one more place: a service of this type's cloud that holds `held`.
    async fn holding(options: ArcGisOptions, of: &Type, held: Option<&Value>) -> Site {
        let site = Site::start(options).await;
        site.arcgis.add_provider(CLOUD, of.provider, None);
        site.arcgis.add_service_with((of.service)());
        if let Some(held) = held {
            site.arcgis.set_credential_object(PLACE, held);
        }
        site
    }

    /// The target of that place, told which kind will come.
    fn expecting(&self, target: &str, material: Option<MaterialKind>) -> Arc<dyn Target> {
        let (system, mut spec) = self.specs(&self.arcgis.admin_url(), "", target);
        if let Some(material) = material {
            (KIND.expect)(&mut spec, material);
        }
        (KIND.connect)(&spec, Some(&system), &self.context()).expect("connecting sends nothing")
    }

    async fn push_it(&self, target: &Arc<dyn Target>, material: &Material) -> JobState {
        let Receipt { job } = target.push(material).await.expect("the push is accepted");
        self.arcgis.settled().await;
        target.poll(&job.expect("a job is named")).await.expect("the job can be read")
    }
}

fn place() -> String {
    format!("service_id = {PLACE:?}")
}

fn end_of(text: &str) -> Reading {
    let characters: Vec<char> = text.chars().collect();
    Reading::Tail(Tail::new(characters[characters.len() - 4..].iter().collect::<String>()))
}

fn refusal(found: Result<impl std::fmt::Debug, Fault>) -> String {
    let fault = found.expect_err("it is refused");
    assert_eq!(reason(&fault), Some(Reason::Refused), "{fault:?}");
    fault.why().to_owned()
}

#[tokio::test]
async fn every_type_arrives_as_it_is_and_what_else_is_there_stays() {
    for of in types() {
        for options in flavours() {
            let (product, version) = (options.product, options.version.clone());
            let (before, after) = (with_more((of.before)(product)), with_more((of.after)(product)));
            let site = Site::holding(options, &of, Some(&before)).await;
            let target = site.expecting(&place(), Some(of.material.kind()));
            let found = target.inspect().await.expect("it can be rotated").reading;
            let old =
                if of.material.kind() == MaterialKind::SasToken { "sv=1&sig=old+sig" } else { "the old secret of it" };
            assert_eq!(found, end_of(old), "{product:?} {version}");
            assert_eq!(site.push_it(&target, &of.material).await, JobState::Succeeded, "{product:?} {version}");
            assert_eq!(site.arcgis.credential_object(PLACE), Some(after), "{product:?} {version}");
            assert_eq!(site.pushes(), 1, "{product:?} {version}");
            assert_eq!(target.read().await, Ok(end_of(of.material.secret().expose())), "{product:?} {version}");
        }
    }
}

#[tokio::test]
async fn every_type_is_given_to_a_place_that_had_none() {
    for of in types() {
        for options in [kubernetes(), server()] {
            let mut after = (of.after)(options.product);
            if let Some(object) = after.as_object_mut() {
                // Nobody asked for one, and there is none to keep.
                object.remove("authorityHost");
            }
            let site = Site::holding(options, &of, None).await;
            let target = site.expecting(&format!("{}\noperation = \"add\"", place()), Some(of.material.kind()));
            assert_eq!(target.inspect().await.map(|found| found.reading), Ok(Reading::Nothing));
            assert_eq!(site.push_it(&target, &of.material).await, JobState::Succeeded);
            assert_eq!(site.arcgis.credential_object(PLACE), Some(after));
        }
    }
}

#[tokio::test]
async fn a_providers_principal_moves_too() {
    for options in [kubernetes(), server()] {
        let of = &types()[4];
        let (product, site) = (options.product, Site::holding(options, of, None).await);
        site.arcgis.set_credential_object(CLOUD, &with_more((of.before)(product)));
        let target = site.expecting(&format!("provider_id = {CLOUD:?}"), Some(of.material.kind()));
        assert_eq!(target.inspect().await.map(|found| found.reading), Ok(end_of("the old secret of it")));
        assert_eq!(site.push_it(&target, &of.material).await, JobState::Succeeded);
        assert_eq!(site.arcgis.credential_object(CLOUD), Some(with_more((of.after)(product))));
        assert_eq!(site.arcgis.credential_object(PLACE), None);
    }
}

#[tokio::test]
async fn an_authority_host_that_comes_takes_the_place_of_the_one_there() {
    let of = &types()[4];
    let Material::ServicePrincipal { id, tenant, client, secret, storage_account, .. } = of.material.clone() else {
        panic!("this is the service principal");
    };
    let authority_host = Some("https://login.microsoftonline.us".to_owned());
    let material = Material::ServicePrincipal { id, tenant, client, secret, authority_host, storage_account };
    for options in [kubernetes(), server()] {
        let product = options.product;
        let mut after = (of.after)(product);
        after["authorityHost"] = json!("https://login.microsoftonline.us");
        let site = Site::holding(options, of, Some(&(of.before)(product))).await;
        assert_eq!(site.push_it(&site.expecting(&place(), None), &material).await, JobState::Succeeded);
        assert_eq!(site.arcgis.credential_object(PLACE), Some(after));
    }
}

#[tokio::test]
async fn a_wrong_type_is_refused_with_nothing_sent() {
    for of in types() {
        for other in types().iter().filter(|other| other.material.kind() != of.material.kind()) {
            let options = if of.provider == "AWS" { server() } else { kubernetes() };
            let held = (of.before)(options.product);
            let site = Site::holding(options, &of, Some(&held)).await;
            let told = site.expecting(&place(), Some(other.material.kind()));
            let inspected = refusal(told.inspect().await);
            assert!(inspected.contains("a rotation does not change the type"), "{inspected}");
            assert!(inspected.contains(held["type"].as_str().expect("it has a type")), "{inspected}");
            // A rotation that an older rekeyd opened knows no kind: then the push itself looks.
            let untold = site.expecting(&place(), None);
            untold.inspect().await.expect("nobody knows yet what will come");
            for target in [&told, &untold] {
                assert_eq!(refusal(target.push(&other.material).await), inspected);
            }
            assert_eq!((site.pushes(), site.arcgis.credential_object(PLACE)), (0, Some(held)));
        }
    }
}

#[tokio::test]
async fn a_type_that_a_place_cannot_use_is_refused_where_nothing_is_held() {
    for of in types() {
        for other in types().iter().filter(|other| (other.service)().name != (of.service)().name) {
            let is_principal = |of: &Type| matches!(of.material.kind(), MaterialKind::ServicePrincipal { .. });
            if is_principal(other) && of.provider == "AZURE" {
                // Azure's services all take one.
                continue;
            }
            let site = Site::holding(kubernetes(), &of, None).await;
            let add = format!("{}\noperation = \"add\"", place());
            let target = site.expecting(&add, Some(other.material.kind()));
            let why = refusal(target.inspect().await);
            assert!(why.contains(&format!("it is {}", (of.service)().name)) && why.contains("which takes "), "{why}");
            assert_eq!(refusal(target.push(&other.material).await), why);
            assert_eq!(site.pushes(), 0);
        }
        let site = Site::holding(server(), &of, None).await;
        let target = site.expecting(&format!("provider_id = {CLOUD:?}"), Some(types()[0].material.kind()));
        assert_eq!(target.inspect().await.is_ok(), of.provider == "AWS");
    }
}

#[tokio::test]
async fn what_is_shown_masked_only_is_never_sent_back() {
    for options in [kubernetes(), server()] {
        let of = &types()[2];
        let mut held = (of.before)(options.product);
        // The lab masks every member of this name, in whatever type.
        held["secret"]["clientSecret"] = json!("a secret that nobody but the site knows");
        let site = Site::holding(options, of, Some(&held)).await;
        for material in [None, Some(of.material.kind())] {
            let target = site.expecting(&place(), material);
            let why = refusal(target.push(&of.material).await);
            assert!(why.contains("`secret.clientSecret` that is shown masked only"), "{why}");
            assert_eq!(target.inspect().await.is_ok(), material.is_none());
        }
        assert_eq!((site.pushes(), site.arcgis.credential_object(PLACE)), (0, Some(held)));
    }
}

#[tokio::test]
async fn a_place_without_a_key_has_nothing_to_rotate_until_its_type_can_change() {
    for (provider, version, held) in [
        ("AWS", "11.5", json!({"type": "IAM-ROLE"})),
        ("AZURE", "11.5", identity(Product::Kubernetes)),
        ("AWS", "12.0", json!({"type": "IAM-ROLE"})),
        ("AZURE", "12.0", identity(Product::Kubernetes)),
    ] {
        let (name, all) = (held["type"].as_str().expect("it has a type"), types());
        let of = all.iter().find(|of| of.provider == provider).expect("there is one");
        let options = ArcGisOptions { version: version.to_owned(), ..kubernetes() };
        let site = Site::holding(options, of, Some(&held)).await;
        site.arcgis.set_credential_object(CLOUD, &held);
        let told = Ok(Reading::Keyless(Tail::new(name.to_ascii_lowercase())));
        for target in [place(), format!("provider_id = {CLOUD:?}")] {
            for material in [None, Some(of.material.kind())] {
                let target = site.expecting(&target, material);
                assert_eq!(target.read().await, told);
                if version == "12.0" {
                    // What is to become of it, the journal knows; it says what it saw.
                    assert_eq!(target.inspect().await.map(|found| found.reading), told);
                    continue;
                }
                let why = refusal(target.inspect().await);
                assert!(
                    why.ends_with(&format!("its credential is {name}, which holds no key: nothing to rotate")),
                    "{why}"
                );
                assert_eq!(refusal(target.push(&of.material).await), why);
            }
        }
        assert_eq!(site.pushes(), 0);
    }
}

fn identity(product: Product) -> Value {
    match product {
        Product::Kubernetes => json!({"type": "USER-ASSIGNED-IDENTITY", "managedIdentityClientId": "0f-client",
                                      "secret": {"storageAccountName": "gisstore"}}),
        Product::Server => {
            json!({"type": "USER-ASSIGNED-IDENTITY", "secret": {"managedIdentityClientId": "0f-client"}})
        }
    }
}

/// From every type with a key to the one without that its cloud has, at services and providers of both products; and back, to an
/// object that keeps nothing of the one without.
#[tokio::test]
async fn every_type_is_left_behind_and_come_back_to() {
    let client = "0f-client".to_owned();
    let managed = Keyless::UserAssignedIdentity { client, storage_account: Some("gisstore".to_owned()) };
    for options in [kubernetes(), server()] {
        for of in types() {
            let (to, object) = match of.provider {
                "AWS" => (Keyless::IamRole, json!({"type": "IAM-ROLE"})),
                "AZURE" => (managed.clone(), identity(options.product)),
                _ => continue,
            };
            let before = (of.before)(options.product);
            let site = Site::holding(options.clone(), &of, Some(&before)).await;
            site.arcgis.set_credential_object(CLOUD, &before);
            for (target, at) in [(place(), PLACE), (format!("provider_id = {CLOUD:?}"), CLOUD)] {
                let target = site.expecting(&target, Some(of.material.kind()));
                let found = target.inspect_switch(&to).await.expect("it can be switched");
                assert!(matches!(found.reading, Reading::Tail(_)), "{found:?}");
                let Receipt { job } = target.switch(&to).await.expect("the switch is accepted");
                site.arcgis.settled().await;
                let job = job.expect("a job is named");
                assert_eq!(target.poll(&job).await, Ok(JobState::Succeeded));
                assert_eq!(target.read().await, Ok(Reading::Keyless(to.mark())));
                assert_eq!(site.arcgis.credential_object(at), Some(object.clone()), "{:?}", options.product);

                assert_eq!(site.push_it(&target, &of.material).await, JobState::Succeeded);
                // What stood beside the old key and did not come with it was gone with the switch.
                let mut after = (of.after)(options.product);
                after.as_object_mut().expect("it is an object").remove("authorityHost");
                assert_eq!(site.arcgis.credential_object(at), Some(after));
            }
        }
    }
}

/// A server may repeat what it was sent in any of these ways.
#[tokio::test]
async fn no_type_lets_a_message_repeat_its_secret() {
    for of in types() {
        for secret in of.material.secrets() {
            let plain = secret.expose();
            let json = serde_json::to_string(plain).expect("a text is JSON");
            let form = |text: &str| {
                reqwest::Url::parse_with_params("http://x/", [("k", text)]).expect("a URL").query().map(str::to_owned)
            };
            for said in [plain.to_owned(), json.clone(), form(plain).expect("a query"), form(&json).expect("a query")] {
                let site = Site::holding(kubernetes(), &of, Some(&(of.before)(Product::Kubernetes))).await;
                site.arcgis.fault("credential/update", Mishap::Refuse(format!("cannot use <<{said}>> there")));
                let target = site.expecting(&place(), None);
                let why = refusal(target.push(&of.material).await);
                let shown = why.split("<<").nth(1).and_then(|rest| rest.split(">>").next()).expect("it is repeated");
                assert!(["***", "\"***\"", "k=***", "k=%22***%22"].contains(&shown), "{shown} of {said}");
            }
        }
    }
}

/// The lab can tell a key with a space for a `+`, so that the tests above mean something.
#[tokio::test]
async fn a_mangled_key_would_be_seen() {
    let of = &types()[3];
    let site = Site::holding(kubernetes(), of, Some(&(of.before)(Product::Kubernetes))).await;
    site.arcgis.job_script(JobScript::StoreMangled);
    assert_eq!(site.push_it(&site.expecting(&place(), None), &of.material).await, JobState::Succeeded);
    let stored = site.arcgis.credential_object(PLACE).expect("it holds one");
    assert_eq!(stored["secret"]["sasToken"], TOKEN.replace('+', " "));
}
