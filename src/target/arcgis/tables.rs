//! Reads what the policy says about ArcGIS: a deployment (`[arcgis.NAME]`) and a target (`[[service.target]]`).
//!
//! Reads and checks, and tells every mistake at once; connects to nothing, and reads no secret.

use std::time::Duration;

use super::config::{
    ConnectionConfig, CredentialKeys, DeploymentConfig, HealthConfig, Operation, Place, Product, TargetConfig,
    deployment, is_item_path,
};
use crate::model::{SecretRef, SystemRef, SystemSpec, TargetName, TargetSpec};
use crate::table::{Table, Zero};

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
    let (client_cert, client_key) = client_certificate(table);
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
        client_cert,
        client_key,
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

/// Both or neither: a certificate says nothing without its key.
fn client_certificate(table: &mut Table<'_>) -> (Option<String>, Option<SecretRef>) {
    let read = (table.text_or("client_cert"), table.secret("client_key"));
    match (table.has("client_cert"), table.has("client_key")) {
        (true, false) => {
            let help = "add `client_key = { credential = \"arcgis-prod-key\" }`";
            table.mistake("client_cert", "`client_cert` stands without the key that belongs to it", help);
        }
        (false, true) => {
            let help = "add `client_cert = \"/etc/rekeyd/web-tier.pem\"`";
            table.mistake("client_key", "`client_key` stands without the certificate it belongs to", help);
        }
        _ => {}
    }
    read
}

/// Reads one `[[service.target]]`: all but `kind` and `deployment`, which are read already.
pub fn read(table: &mut Table<'_>, system: Option<&SystemSpec>) -> Option<TargetSpec> {
    let service = table.text_or("service_id");
    let provider = table.text_or("provider_id");
    let item = table.text_or("data_item");
    let place = place(table, service, provider, item);
    let (connection, connection_is_sound) = match table.table("connection") {
        Some(mut connection) => {
            let read = read_connection(&mut connection);
            (read.clone(), read.is_some())
        }
        None => (None, !table.has("connection")),
    };
    if table.has("connection") && !table.has("data_item") {
        table.mistake("connection", "only a data item has a connection string", "remove `connection`");
    }
    if table.has("operation") && table.has("data_item") {
        table.mistake("operation", "a data item is edited, and has no other operation", "remove `operation`");
    }
    let operation = match table.choice("operation", &["auto", "add", "update"]) {
        Some("add") => Operation::Add,
        Some("update") => Operation::Update,
        _ => Operation::Auto,
    };
    let has_status = match system.and_then(deployment).map(|deployment| deployment.product) {
        Some(Product::Server) => {
            Err("only ArcGIS Enterprise on Kubernetes (from 12.0 on) tells the status of a cloud service")
        }
        _ if !table.has("service_id") => Err("only a cloud service has a status of its own"),
        _ => Ok(()),
    };
    let (health, health_is_sound) = match table.table("health") {
        Some(mut health) => {
            let read = read_health(&mut health, has_status);
            (read.clone(), read.is_some())
        }
        None => (None, !table.has("health")),
    };
    let system = system?;
    let deployment = deployment(system)?;
    let on_server = deployment.product == Product::Server;
    if on_server && health.as_ref().is_some_and(|health| health.backup_store.is_some()) {
        let help = "remove `backup_store`, or name a `url`";
        table.mistake("health", "only ArcGIS Enterprise on Kubernetes validates its backup stores", help);
        return None;
    }
    let config = TargetConfig { place: place?, operation, health, connection, material: None };
    (health_is_sound && connection_is_sound).then(|| TargetSpec {
        derived_by: None,
        kind: "arcgis".to_owned(),
        system: Some(system.at.clone()),
        name: name(&system.at, &config.place),
        readback: deployment.readback,
        job_timeout: deployment.job_timeout,
        poll: deployment.poll,
        config: serde_json::to_value(config).expect("a target has no key that JSON could not hold"),
    })
}

fn name(system: &SystemRef, place: &Place) -> TargetName {
    TargetName::new(format!("arcgis:{}:{}", system.name, place.id()))
}

fn place(
    table: &mut Table<'_>,
    service: Option<String>,
    provider: Option<String>,
    item: Option<String>,
) -> Option<Place> {
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
    if let Some(path) = item {
        let help = "write the path that ADMIN_URL/data/items/cloudStores shows: `/cloudStores/NAME`, with a NAME of letters, digits, \
                    `_`, `-` and `.`";
        if !is_item_path(&path) {
            // Not repeated: whoever puts a query there may have put a secret into it.
            table.mistake("data_item", "is not the path of a cloud store", help);
            return None;
        }
        return Some(Place::Item(path));
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

fn read_connection(table: &mut Table<'_>) -> Option<ConnectionConfig> {
    let region = table.text("region");
    // ArcGIS goes there, and not rekeyd: what scheme it takes is for ArcGIS to say.
    let region_endpoint_url = table.text_or("region_endpoint_url");
    let is_address = |url: &String| {
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(|c: char| c.is_whitespace() || "?#@\\".contains(c)))
    };
    let address_is_sound = region_endpoint_url.as_ref().is_none_or(is_address);
    if !address_is_sound {
        let help = "write it as the data item has it: `https://s3.example.com`";
        table.mistake("region_endpoint_url", "is not an address without user and query", help);
    }
    let protocol = table.choice("default_endpoints_protocol", &["https", "http"]);
    let region = region.filter(|_| address_is_sound)?;
    Some(ConnectionConfig { region, region_endpoint_url, default_endpoints_protocol: protocol.map(str::to_owned) })
}

/// `has_status` says why `service_status` has no place here, where it has none.
fn read_health(table: &mut Table<'_>, has_status: Result<(), &str>) -> Option<HealthConfig> {
    let backup_store = table.text_or("backup_store");
    let mut is_sound = backup_store.as_ref().is_none_or(|name| is_id(name));
    if !is_sound {
        table.mistake("backup_store", "is not the name of a backup store", "names are letters, digits, `-` and `_`");
    }
    let service_status = table.flag("service_status", false);
    if let (true, Err(why)) = (service_status, has_status) {
        table.mistake("service_status", why, "remove `service_status`, or name a `url`");
        is_sound = false;
    }
    // One of the three is enough; an address is what most have.
    let by_arcgis = backup_store.is_some() || service_status;
    let url = by_arcgis || table.require("url", "url = \"https://gis.example.com/…\"");
    let named = table.has("url");
    let url = if url && named { table.url_with_query("url") } else { None };
    let expect = table.integer("expect", 100..=599, 200);
    let is_complete = is_sound && (url.is_some() || (by_arcgis && !named));
    is_complete.then_some(HealthConfig { url, expect: u16::try_from(expect).ok()?, backup_store, service_status })
}

#[cfg(test)]
mod tests {
    use super::super::config::expect;
    use super::*;
    use crate::model::MaterialKind;
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
    fn a_server_gives_its_tokens_itself_unless_it_is_federated() {
        let text = PROD.replace("kubernetes", "server");
        let token_url =
            |text: &str| deployment(&system(text).expect("it is sound")).expect("it reads back").token_url();
        assert_eq!(token_url(&text), "https://gis.example.com/arcgis/admin/generateToken");
        let federated = format!("{text}portal_url = \"https://gis.example.com/portal/sharing/rest/\"\n");
        assert_eq!(token_url(&federated), "https://gis.example.com/portal/sharing/rest/generateToken");
        let report = system(&format!("{text}portal_url = \"http://gis.example.com/portal\"\n")).expect_err("no TLS");
        assert!(report.contains("policy.toml:6:14"), "{report}");
    }

    #[test]
    fn a_client_certificate_has_a_file_and_a_secret_key() {
        let pair = "client_cert = \"/etc/rekeyd/web-tier.pem\"\nclient_key = { credential = \"web-tier\" }\n";
        let config = deployment(&system(&format!("{PROD}{pair}")).expect("it is sound")).expect("it reads back");
        assert_eq!(config.client_cert.as_deref(), Some("/etc/rekeyd/web-tier.pem"));
        assert_eq!(config.client_key, Some(SecretRef::Credential("web-tier".to_owned())));
        let (cert, key) = pair.split_once('\n').expect("they are two lines");
        for (line, what) in [
            (cert, "policy.toml:6:15: `client_cert` stands without the key that belongs to it"),
            (key, "policy.toml:6:14: `client_key` stands without the certificate it belongs to"),
        ] {
            let report = system(&format!("{PROD}{line}\n")).expect_err("one is missing");
            assert!(report.contains(what), "{what} is not in:\n{report}");
        }
        let report = system(&format!("{PROD}{cert}\nclient_key = \"MIIhunter2\"\n")).expect_err("a literal key");
        assert!(report.contains("literal secret") && !report.contains("hunter2"), "{report}");
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
        let url = Some("https://x/y?f=json".to_owned());
        let health = HealthConfig { url, expect: 200, backup_store: None, service_status: false };
        assert_eq!(config.health, Some(health));
    }

    #[test]
    fn a_backup_store_may_be_the_whole_of_a_health_check() {
        let read = |text: &str| target(text).map(|spec| serde_json::from_value::<TargetConfig>(spec.config));
        let health = read("service_id = \"a\"\nhealth = { backup_store = \"default\" }");
        let health = health.expect("it is sound").expect("it reads back").health.expect("it is there");
        assert_eq!((health.url, health.backup_store.as_deref()), (None, Some("default")));
        let written = serde_json::json!({ "url": "https://x/y", "expect": 200 });
        let older: HealthConfig = serde_json::from_value(written).expect("what an older rekeyd wrote is read");
        assert_eq!(older.url.as_deref(), Some("https://x/y"));
    }

    #[test]
    fn the_status_of_a_cloud_service_is_asked_for_by_name() {
        let health = |text: &str| {
            let spec = target(text).expect("it is sound");
            let health = spec.config.get("health").cloned().expect("it is stored");
            (health.clone(), serde_json::from_value::<HealthConfig>(health).expect("it reads back"))
        };
        let (_, alone) = health("service_id = \"a\"\nhealth = { service_status = true }");
        assert_eq!((alone.url, alone.backup_store, alone.service_status), (None, None, true));
        let text = "service_id = \"a\"\nhealth = { service_status = false, url = \"https://x/y\" }";
        assert_eq!(health(text).0.get("service_status"), None, "an older rekeyd reads what does not ask for it");

        let provider =
            target("provider_id = \"a\"\nhealth = { service_status = true }").expect_err("a provider has none");
        assert!(provider.contains("policy.toml:2:29: only a cloud service has a status of its own"), "{provider}");
        let text = "data_item = \"/cloudStores/x\"\nhealth = { service_status = true, url = \"https://x/y\" }";
        let item = target(text).expect_err("a data item has none");
        assert!(item.contains("only a cloud service has a status of its own"), "{item}");
        assert!(item.contains("remove `service_status`, or name a `url`"), "{item}");
        let quoted = target("service_id = \"a\"\nhealth = { service_status = \"yes\" }").expect_err("it is no word");
        assert!(quoted.contains("must be true or false"), "{quoted}");
        let config = system(&PROD.replace("kubernetes", "server")).expect("it is sound");
        let on_server = table::read("service_id = \"a\"\nhealth = { service_status = true }", "policy.toml", |table| {
            read(table, Some(&config))
        });
        let on_server = on_server.expect_err("Server has no such operation").to_string();
        assert!(
            on_server.contains("policy.toml:2:29: only ArcGIS Enterprise on Kubernetes (from 12.0 on)"),
            "{on_server}"
        );
    }

    #[test]
    fn a_data_item_is_named_by_its_path_which_leads_nowhere_else() {
        let spec = target("data_item = \"/cloudStores/imagery_2.x-1\"\nconnection = { region = \"us-east-1\" }");
        let spec = spec.expect("it is sound");
        assert_eq!(spec.name.as_str(), "arcgis:prod:/cloudStores/imagery_2.x-1");
        let config: TargetConfig = serde_json::from_value(spec.config).expect("it reads back");
        assert_eq!(config.place, Place::Item("/cloudStores/imagery_2.x-1".to_owned()));
        let stated = config.connection.expect("it is stated");
        assert_eq!(stated.stated().collect::<Vec<_>>(), [("region", "us-east-1")]);
        for path in [
            "cloudStores/x",
            "/cloudStores/",
            "/cloudStores",
            "/cloudStores/..",
            "/cloudStores/.",
            "/cloudStores/../x",
            "/cloudStores/a/b",
            "/cloudStores/a%2fb",
            "/cloudStores/a?token=hunter2",
            "/cloudStores/a#b",
            "/cloudStores/a b",
            "/cloudStores/é",
            "/fileShares/x",
            "//cloudStores/x",
        ] {
            let report = target(&format!("data_item = {path:?}")).expect_err("this is no cloud store");
            assert!(report.contains("policy.toml:1:13: is not the path of a cloud store"), "{path}: {report}");
        }
    }

    #[test]
    fn a_target_of_an_older_journal_is_still_read() {
        let old = serde_json::json!({"place": {"service": "eg7hrelq6b"}, "operation": "auto", "health": null});
        let config: TargetConfig = serde_json::from_value(old.clone()).expect("it reads");
        assert_eq!(config.connection, None);
        assert_eq!(serde_json::to_value(config).expect("it is JSON"), old, "and an older rekeyd reads what we write");
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
            ("service_id = \"a\"\ndata_item = \"/cloudStores/b\"", "policy.toml:2:13: a target is one place only"),
            ("data_item = \"/cloudStores/x\"\noperation = \"update\"", "policy.toml:2:13: a data item is edited"),
            (
                "service_id = \"a\"\nconnection = { region = \"b\" }",
                "policy.toml:2:14: only a data item has a connection",
            ),
            ("data_item = \"/cloudStores/x\"\nconnection = { }", "`region` is missing"),
            (
                "data_item = \"/cloudStores/x\"\nconnection = { region = \"a\", region_endpoint_url = \"https://u:p@x\" }",
                "is not an address without user and query",
            ),
            ("service_id = \"a/../b\"", "`a/../b` is not an id"),
            ("service_id = \"a\"\nhealth = { expect = 99 }", "`url` is missing"),
            ("service_id = \"a\"\nhealth = { backup_store = \"a/b\" }", "is not the name of a backup store"),
            ("service_id = \"a\"\nservce = 1", "servce"),
        ] {
            let report = target(text).expect_err("this is a mistake");
            assert!(report.contains(what), "{what} is not in:\n{report}");
        }
    }
}
