//! What the policy says about ArcGIS: a deployment (`[arcgis.NAME]`) and a target (`[[service.target]]`).
//!
//! Reads and checks; connects to nothing, and reads no secret.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{MaterialKind, SecretRef, SystemRef, SystemSpec, TargetName, TargetSpec};
use crate::table::{Table, Zero};

/// Which of the two products a deployment is. They differ in where tokens and jobs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Product {
    /// ArcGIS Enterprise on Kubernetes: tokens from the portal.
    Kubernetes,
    /// ArcGIS Server 12.0 and later: tokens from the admin directory, jobs at one of two places.
    Server,
}

/// How the fields of an S3 secret are spelled in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CredentialKeys {
    /// As the documents of the request print it (snake); if that is refused, once as the answers show it (camel).
    Auto,
    /// `access_key`, `secret_key`.
    Snake,
    /// `accessKey`, `secretKey`.
    Camel,
}

/// One `[arcgis.NAME]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeploymentConfig {
    /// Which product answers.
    pub product: Product,
    /// The admin directory, without a slash at its end.
    pub admin_url: String,
    /// Where Kubernetes' tokens come from; `None` for Server.
    pub portal_url: Option<String>,
    /// Who logs in. Case matters.
    pub username: String,
    /// Where the password is.
    pub password: SecretRef,
    /// The only authorities trusted here, as PEM; `None` trusts the system's.
    pub ca_file: Option<String>,
    /// The spelling of S3 secrets.
    pub credential_keys: CredentialKeys,
    /// Rotation jobs at once.
    pub max_jobs: u32,
    /// First pause between two looks at a job.
    pub poll: Duration,
    /// When a job is given up as unknown.
    pub job_timeout: Duration,
    /// How long a read-back may still show the old key.
    pub readback: Duration,
    /// One request, from call to last byte.
    pub request_timeout: Duration,
    /// Before `[daemon].proxy`.
    pub proxy: Option<String>,
    /// Before `[daemon].no_proxy`.
    pub no_proxy: Option<Vec<String>>,
}

impl DeploymentConfig {
    /// Where tokens come from.
    pub fn token_url(&self) -> String {
        format!("{}/generateToken", self.portal_url.as_ref().unwrap_or(&self.admin_url))
    }
}

/// Where in a deployment the key is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// A cloud service with a credential of its own.
    Service(String),
    /// A cloud provider, whose credential all its services use that have none of their own.
    Provider(String),
}

impl Place {
    /// The resource below `cloud/`.
    pub fn resource(&self) -> &'static str {
        match self {
            Self::Service(_) => "services",
            Self::Provider(_) => "providers",
        }
    }

    /// The id.
    pub fn id(&self) -> &str {
        match self {
            Self::Service(id) | Self::Provider(id) => id,
        }
    }
}

/// Which operation hands the key over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// By version and by what is there. Never moves from a service to its provider by itself.
    Auto,
    /// `credential/add`, whatever is there.
    Add,
    /// `credential/update`, whatever is there.
    Update,
}

/// A consumer's address that answers with this status while it works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthConfig {
    /// Asked without a login.
    pub url: String,
    /// The status of a working consumer.
    pub expect: u16,
}

/// One `[[service.target]]` of kind `arcgis`. It is stored in the journal with an open rotation: add fields, rename none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetConfig {
    /// Where the key is kept.
    pub place: Place,
    /// How it gets there.
    pub operation: Operation,
    /// How to see that it works.
    pub health: Option<HealthConfig>,
    /// What the issuer's keys are made of, so that what does not fit is refused before one is made. `None` where the issuer cannot
    /// tell, and in what an older rekeyd wrote; the push itself looks again, at the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub material: Option<MaterialKind>,
}

/// Reads one `[arcgis.NAME]`.
pub fn read_system(table: &mut Table<'_>) -> Option<serde_json::Value> {
    let product = table.require("product", "product = \"kubernetes\"");
    let product = if product { table.choice("product", &["kubernetes", "server"]) } else { None };
    let product = product.map(|name| if name == "server" { Product::Server } else { Product::Kubernetes });
    let admin_url = table.require("admin_url", "admin_url = \"https://gis.example.com/arcgis/admin\"");
    let admin_url = if admin_url { table.url("admin_url") } else { None };
    let portal_url = portal_url(table, product, admin_url.as_deref());
    let username = table.text("username");
    let password = table.require("password", "password = { credential = \"arcgis-prod\" }");
    let password = if password { table.secret("password") } else { None };
    let ca_file = table.text_or("ca_file");
    let credential_keys = match table.choice("credential_keys", &["auto", "snake", "camel"]) {
        Some("snake") => CredentialKeys::Snake,
        Some("camel") => CredentialKeys::Camel,
        _ => CredentialKeys::Auto,
    };
    let max_jobs = u32::try_from(table.integer("max_jobs", 1..=100, 1)).unwrap_or(1);
    let mut seconds = |key, default| table.duration(key, Zero::Refused).unwrap_or(Duration::from_secs(default));
    let poll = seconds("poll", 2);
    let job_timeout = seconds("job_timeout", 2 * 3600);
    let readback = seconds("readback", 120);
    let request_timeout = seconds("request_timeout", 30);
    let proxy = table.proxy("proxy");
    let no_proxy = table.texts("no_proxy");
    let config = DeploymentConfig {
        product: product?,
        admin_url: admin_url?,
        portal_url,
        username: username?,
        password: password?,
        ca_file,
        credential_keys,
        max_jobs,
        poll,
        job_timeout,
        readback,
        request_timeout,
        proxy,
        no_proxy,
    };
    Some(serde_json::to_value(config).expect("a deployment has no key that JSON could not hold"))
}

fn portal_url(table: &mut Table<'_>, product: Option<Product>, admin_url: Option<&str>) -> Option<String> {
    let given = table.url("portal_url");
    match (product, admin_url) {
        (Some(Product::Server), _) => {
            if table.has("portal_url") {
                table.mistake("portal_url", "ArcGIS Server gives its tokens itself", "remove `portal_url`");
            }
            None
        }
        (Some(Product::Kubernetes), Some(admin_url)) if !table.has("portal_url") => {
            let derived = admin_url.strip_suffix("/admin").map(|context| format!("{context}/sharing/rest"));
            if derived.is_none() {
                let help = "add `portal_url = \"https://gis.example.com/arcgis/sharing/rest\"`";
                table.mistake("admin_url", "does not end with /admin, so that `portal_url` cannot be derived", help);
            }
            derived
        }
        _ => given,
    }
}

/// Reads one `[[service.target]]`: all but `kind` and `deployment`, which are read already.
pub fn read(table: &mut Table<'_>, system: Option<&SystemSpec>) -> Option<TargetSpec> {
    let service = table.text_or("service_id");
    let provider = table.text_or("provider_id");
    if table.text_or("data_item").is_some() {
        let help = "rotate a cloud service or provider: `service_id = \"…\"` or `provider_id = \"…\"`";
        table.mistake("data_item", "data items are not in this build yet", help);
    }
    let place = place(table, service, provider);
    let operation = match table.choice("operation", &["auto", "add", "update"]) {
        Some("add") => Operation::Add,
        Some("update") => Operation::Update,
        _ => Operation::Auto,
    };
    let (health, health_is_sound) = match table.table("health") {
        Some(mut health) => {
            let read = read_health(&mut health);
            (read.clone(), read.is_some())
        }
        None => (None, !table.has("health")),
    };
    let system = system?;
    let deployment = deployment(system)?;
    let config = TargetConfig { place: place?, operation, health, material: None };
    health_is_sound.then(|| TargetSpec {
        kind: "arcgis".to_owned(),
        system: Some(system.at.clone()),
        name: name(&system.at, &config.place),
        readback: deployment.readback,
        job_timeout: deployment.job_timeout,
        poll: deployment.poll,
        config: serde_json::to_value(config).expect("a target has no key that JSON could not hold"),
    })
}

/// Notes which material will come.
pub fn expect(spec: &mut TargetSpec, material: MaterialKind) {
    // What cannot be read is refused by `connect`, with a sentence.
    let Ok(config) = serde_json::from_value::<TargetConfig>(spec.config.clone()) else { return };
    let config = TargetConfig { material: Some(material), ..config };
    spec.config = serde_json::to_value(config).expect("a target has no key that JSON could not hold");
}

fn name(system: &SystemRef, place: &Place) -> TargetName {
    TargetName::new(format!("arcgis:{}:{}", system.name, place.id()))
}

fn place(table: &mut Table<'_>, service: Option<String>, provider: Option<String>) -> Option<Place> {
    let given = ["service_id", "provider_id", "data_item"].into_iter().filter(|key| table.has(key)).collect::<Vec<_>>();
    match given[..] {
        [] => {
            let what = "says neither `service_id` nor `provider_id`";
            table.mistake("service_id", what, "add `service_id = \"…\"`, as <admin_url>/cloud/services shows it");
            return None;
        }
        [_] => {}
        [_, second, ..] => {
            table.mistake(second, "a target is one place only", "make this a [[service.target]] of its own");
            return None;
        }
    }
    let place = service.map(Place::Service).or(provider.map(Place::Provider))?;
    if !is_id(place.id()) {
        let help = "ids are letters and digits, such as `eg7hrelq6b`";
        table.mistake(given[0], format!("`{}` is not an id", place.id()), help);
        return None;
    }
    Some(place)
}

/// Ids are ten lower-case letters and digits in every document; what goes into a path is held to a little more than that.
fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn read_health(table: &mut Table<'_>) -> Option<HealthConfig> {
    let url = table.require("url", "url = \"https://gis.example.com/…\"");
    let url = if url { table.url_with_query("url") } else { None };
    let expect = table.integer("expect", 100..=599, 200);
    Some(HealthConfig { url: url?, expect: u16::try_from(expect).ok()? })
}

/// A deployment's table again, from its plain data.
pub fn deployment(system: &SystemSpec) -> Option<DeploymentConfig> {
    serde_json::from_value(system.config.clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;

    const PROD: &str = r#"
product = "kubernetes"
admin_url = "https://gis.example.com/arcgis/admin/"
username = "rotator"
password = { credential = "arcgis-prod" }
"#;

    fn system(text: &str) -> Result<SystemSpec, String> {
        let config = table::read(text, "policy.toml", read_system).map_err(|report| report.to_string())?;
        let at = SystemRef { table: "arcgis".to_owned(), name: "prod".to_owned() };
        Ok(SystemSpec { at, config: config.expect("no mistake, so there is a value") })
    }

    fn target(text: &str) -> Result<TargetSpec, String> {
        let system = system(PROD).expect("the deployment is sound");
        table::read(text, "policy.toml", |table| read(table, Some(&system)))
            .map_err(|report| report.to_string())
            .map(|spec| spec.expect("no mistake, so there is a target"))
    }

    #[test]
    fn a_deployment_has_the_defaults_of_the_manual() {
        let config = deployment(&system(PROD).expect("it is sound")).expect("it reads back");
        assert_eq!(config.portal_url.as_deref(), Some("https://gis.example.com/arcgis/sharing/rest"));
        assert_eq!(config.token_url(), "https://gis.example.com/arcgis/sharing/rest/generateToken");
        assert_eq!((config.credential_keys, config.max_jobs), (CredentialKeys::Auto, 1));
        let seconds = [config.poll, config.job_timeout, config.readback, config.request_timeout].map(|d| d.as_secs());
        assert_eq!(seconds, [2, 7200, 120, 30]);
    }

    #[test]
    fn a_server_gives_its_tokens_itself() {
        let text = PROD.replace("kubernetes", "server");
        let config = deployment(&system(&text).expect("it is sound")).expect("it reads back");
        assert_eq!(config.token_url(), "https://gis.example.com/arcgis/admin/generateToken");
        let report =
            system(&format!("{text}portal_url = \"https://gis.example.com/portal\"\n")).expect_err("one too many");
        assert!(report.contains("policy.toml:6:14: ArcGIS Server gives its tokens itself"), "{report}");
    }

    #[test]
    fn every_mistake_of_a_deployment_is_told_at_once() {
        let report = system(
            "product = \"desktop\"\nadmin_url = \"http://gis.example.com/x\"\npassword = \"hunter2\"\npoll = \"0s\"\n",
        )
        .expect_err("there are mistakes");
        for what in
            ["policy.toml:1:11", "policy.toml:2:13", "`username` is missing", "policy.toml:3:12", "policy.toml:4:8"]
        {
            assert!(report.contains(what), "{what} is not in:\n{report}");
        }
        assert!(!report.contains("hunter2"), "{report}");
    }

    #[test]
    fn a_portal_that_cannot_be_derived_is_asked_for() {
        let report = system(&PROD.replace("/arcgis/admin/", "/gis")).expect_err("there is no /admin");
        assert!(report.contains("`portal_url` cannot be derived"), "{report}");
    }

    #[test]
    fn a_target_is_named_by_deployment_and_id() {
        let spec =
            target("service_id = \"eg7hrelq6b\"\nhealth = { url = \"https://x/y?f=json\" }").expect("it is sound");
        assert_eq!(spec.name.as_str(), "arcgis:prod:eg7hrelq6b");
        assert_eq!(spec.poll, Duration::from_secs(2));
        let config: TargetConfig = serde_json::from_value(spec.config).expect("it reads back");
        assert_eq!((config.place, config.operation), (Place::Service("eg7hrelq6b".to_owned()), Operation::Auto));
        assert_eq!(config.health, Some(HealthConfig { url: "https://x/y?f=json".to_owned(), expect: 200 }));
    }

    #[test]
    fn what_will_come_is_noted_and_what_was_stored_without_it_still_reads() {
        let mut spec = target("provider_id = \"betc4g098c\"").expect("it is sound");
        let read =
            |spec: &TargetSpec| serde_json::from_value::<TargetConfig>(spec.config.clone()).expect("it reads back");
        let before = spec.config.clone();
        assert_eq!(read(&spec).material, None);
        expect(&mut spec, MaterialKind::SasToken);
        assert_eq!(read(&spec).material, Some(MaterialKind::SasToken));
        assert_eq!((read(&spec).place, before.get("material")), (Place::Provider("betc4g098c".to_owned()), None));
    }

    #[test]
    fn a_target_is_exactly_one_place_and_an_id_is_no_path() {
        for (text, what) in [
            ("", "says neither `service_id` nor `provider_id`"),
            ("service_id = \"a\"\nprovider_id = \"b\"", "policy.toml:2:15: a target is one place only"),
            ("data_item = \"/cloudStores/x\"", "policy.toml:1:13: data items are not in this build yet"),
            ("service_id = \"a/../b\"", "`a/../b` is not an id"),
            ("service_id = \"a\"\nhealth = { expect = 99 }", "`url` is missing"),
            ("service_id = \"a\"\nservce = 1", "servce"),
        ] {
            let report = target(text).expect_err("this is a mistake");
            assert!(report.contains(what), "{what} is not in:\n{report}");
        }
    }
}
