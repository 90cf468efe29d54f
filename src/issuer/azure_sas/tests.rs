//! How the tables read: what a person may write wrongly, and what is kept of what is right.

use super::*;
use crate::model::SystemRef;
use crate::table;

const STORE: &str = "/subscriptions/5f75/resourceGroups/gis/providers/Microsoft.Storage/storageAccounts/gisstore";
const BUS: &str = "/subscriptions/5f75/resourceGroups/gis/providers/Microsoft.ServiceBus/namespaces/gisbus";

fn parsed_at(account: &str, text: &str) -> Result<IssuerSpec, String> {
    let config = table::read(account, "policy.toml", account::read).expect("an account").expect("read");
    let system = SystemSpec { at: SystemRef { table: "azure".into(), name: "main".into() }, config };
    let read = |table: &mut Table<'_>| read(table, Some(&system));
    table::read(text, "policy.toml", read).map(|spec| spec.expect("read")).map_err(|report| report.to_string())
}

fn parsed(id: &str, more: &str) -> Result<IssuerSpec, String> {
    parsed_at("", &format!("resource_id = \"{id}\"\nexclusive = true\n{more}"))
}

fn grant(spec: &IssuerSpec) -> Grant {
    serde_json::from_value::<Config>(spec.config.clone()).expect("ours").sas.grant
}

const PROBE: &str = "probe = { container = \"gis\" }\n";

#[test]
fn a_sas_of_the_account_is_read() {
    let spec = parsed(STORE, &format!("permissions = \"ldwr\"\nvalid_for = \"90d\"\n{PROBE}")).expect("read");
    assert_eq!((spec.object.as_str(), spec.shape), ("azure-key:gisstore", Shape::Derived));
    assert_eq!(
        (material(&spec), lifetime(&spec).map(|lifetime| lifetime.length)),
        (Some(MaterialKind::SasToken), Some(Duration::from_secs(7_776_000)))
    );
    let scope = Scope::Account { services: "b".into(), resource_types: "sco".into() };
    let expected = Grant { permissions: "rwdl".into(), scope, https_only: true, valid_for_s: 7_776_000 };
    assert_eq!(grant(&spec), expected);
}

#[test]
fn a_sas_of_a_container_is_read() {
    let spec = parsed(STORE, &format!("permissions = \"lwr\"\ncontainer = \"gis\"\n{PROBE}")).expect("read");
    assert_eq!(grant(&spec).scope, Scope::Container("gis".into()));
    assert_eq!(grant(&spec).permissions, "rwl", "another order is an error to Azure");
    let said = parsed(STORE, &format!("permissions = \"l\"\ncontainer = \"gis\"\nservices = \"b\"\n{PROBE}"));
    assert!(said.expect_err("both").contains("`services` is for a SAS of the account"));
}

#[test]
fn a_plain_data_plane_takes_a_token_that_allows_it() {
    let text = format!("resource_id = \"{STORE}\"\nexclusive = true\npermissions = \"l\"\n{PROBE}");
    let spec = parsed_at("blob_url = \"http://127.0.0.1:10000\"\n", &text).expect("read");
    assert!(!grant(&spec).https_only);
}

#[test]
fn what_would_open_nothing_is_said_where_it_stands() {
    let refused = |more: &str| parsed(STORE, &format!("{more}\n{PROBE}")).expect_err("a mistake");
    assert!(refused("").contains("permissions = \"rwdl\""));
    assert!(refused("permissions = \"rq\"").contains("one or more of the letters rwdxylacuptfi, each once"));
    assert!(refused("permissions = \"rr\"").contains("each once"));
    assert!(refused("permissions = \"rl\"\nservices = \"q\"").contains("would not open the blob service"));
    assert!(refused("permissions = \"r\"").contains("the probe lists a container"));
    assert!(refused("permissions = \"rl\"\nresource_types = \"o\"").contains("the probe lists a container"));
    assert!(refused("permissions = \"rl\"\ncontainer = \"a/b\"").contains("`a/b` is no container's name"));
    assert!(refused("permissions = \"rl\"\ncontainer = \"tiles\"").contains("the probe lists container `gis`"));
    let said = parsed(BUS, &format!("permissions = \"l\"\n{PROBE}")).expect_err("no storage account");
    assert!(said.contains("a Service Bus namespace signs no SAS that ArcGIS takes"), "{said}");
    let lenient = parsed(STORE, "permissions = \"r\"\nprobe = { container = \"gis\", expect = \"authenticates\" }");
    assert!(lenient.is_ok());
}
