//! How the tables read: what a person may write wrongly, and what is kept of what is right.

use std::time::Duration;

use super::*;
use crate::model::SystemRef;
use crate::table;

const STORE: &str = "/subscriptions/5f75/resourceGroups/gis/providers/Microsoft.Storage/storageAccounts/gisstore";
const DATABASE: &str = "/subscriptions/5f75/resourceGroups/gis/providers/Microsoft.DocumentDB/databaseAccounts/gisdb";

fn parsed(text: &str) -> Result<IssuerSpec, String> {
    let account = table::read("", "policy.toml", account::read).expect("an empty account").expect("read");
    let system = SystemSpec { at: SystemRef { table: "azure".into(), name: "main".into() }, config: account };
    let read = |table: &mut Table<'_>| read(table, Some(&system));
    table::read(text, "policy.toml", read).map(|spec| spec.expect("read")).map_err(|report| report.to_string())
}

#[test]
fn a_storage_account_is_read() {
    let spec = parsed(&format!("resource_id = \"{STORE}\"\nexclusive = true\nprobe = {{ container = \"gis\" }}"));
    let spec = spec.expect("read");
    assert_eq!((spec.object.as_str(), spec.shape), ("azure-key:gisstore", Shape::Slots));
    assert_eq!((spec.settle, spec.last_used_lag), (Duration::from_secs(600), None));
    assert_eq!(material(&spec), Some(MaterialKind::StorageAccountKey));
}

#[test]
fn what_is_no_storage_account_needs_no_container() {
    let spec = parsed(&format!("resource_id = \"{DATABASE}\"\nexclusive = true")).expect("read");
    assert_eq!(spec.object, "azure-key:cosmos/gisdb");
    assert_eq!(material(&spec), Some(MaterialKind::CosmosAccountKey));
    let probed = parsed(&format!("resource_id = \"{DATABASE}\"\nexclusive = true\nprobe = {{ container = \"gis\" }}"));
    assert!(probed.expect_err("no container").contains("unknown key `container`"));
}

#[test]
fn the_operators_word_for_both_slots_is_asked_for() {
    let said =
        parsed(&format!("resource_id = \"{STORE}\"\nprobe = {{ container = \"gis\" }}")).expect_err("not exclusive");
    assert!(said.contains("both must be rekeyd's to manage") && said.contains("exclusive = true"), "{said}");
}

#[test]
fn an_id_that_is_none_is_shown_where_it_stands() {
    let said = parsed("resource_id = \"gisstore\"\nexclusive = true").expect_err("no id");
    assert!(said.starts_with("policy.toml:1:15: `resource_id` names no account with keys: it is no ARM id"), "{said}");
}
