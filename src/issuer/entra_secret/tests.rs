//! How the tables read: what a person may write wrongly, and what is kept of what is right.

use super::*;
use crate::model::SystemRef;
use crate::table;

const IDS: &str = "application_object_id = \"0FD5C0E6-9A0F-4D92-A4B9-77A3D6F90A01\"\n\
                   client_id = \"5b3ce9a1-0f6e-4b8c-8a52-6b4f0e1a2c3d\"\nstorage_account = \"gisstore\"\n\
                   probe = { container = \"gis\" }\n";

fn parsed_in(account: &str, text: &str) -> Result<IssuerSpec, String> {
    let account = table::read(account, "policy.toml", account::read).expect("an account").expect("read");
    let system = SystemSpec { at: SystemRef { table: "azure".into(), name: "main".into() }, config: account };
    let read = |table: &mut Table<'_>| read(table, Some(&system));
    table::read(text, "policy.toml", read).map(|spec| spec.expect("read")).map_err(|report| report.to_string())
}

#[test]
fn an_application_is_read() {
    let spec = parsed_in("tenant_id = \"contoso\"", IDS).expect("read");
    assert_eq!(spec.object, "entra-secret:0fd5c0e6-9a0f-4d92-a4b9-77a3d6f90a01");
    assert_eq!((spec.shape, spec.exclusive), (Shape::Labelled, false));
    let kind = MaterialKind::ServicePrincipal { authority_host: false, storage_account: true };
    assert_eq!(material(&spec), Some(kind));
    let config: Config = serde_json::from_value(spec.config).expect("ours");
    assert_eq!(Duration::from_secs(config.valid_for_s), VALID_FOR);
}

#[test]
fn a_national_clouds_authority_comes_with_the_secret() {
    let account = "tenant_id = \"contoso\"\nauthority_url = \"https://login.microsoftonline.us\"";
    let kind = material(&parsed_in(account, IDS).expect("read"));
    assert_eq!(kind, Some(MaterialKind::ServicePrincipal { authority_host: true, storage_account: true }));
}

#[test]
fn what_is_missing_or_mistaken_says_where_to_find_it() {
    let no_tenant = parsed_in("", &format!("account = \"main\"\n{IDS}")).expect_err("no tenant");
    assert!(no_tenant.contains("[azure.main] names no tenant"), "{no_tenant}");
    let swapped = parsed_in("tenant_id = \"t\"", &IDS.replace("5b3ce9a1-0f6e-4b8c-8a52-6b4f0e1a2c3d", "arcgis"));
    let swapped = swapped.expect_err("no id");
    assert!(swapped.contains("`arcgis` is no id of Entra") && swapped.contains("Application (client) ID"), "{swapped}");
    let address = IDS.replace("gisstore", "gisstore.blob.core.windows.net");
    let address = parsed_in("tenant_id = \"t\"", &address).expect_err("an address");
    assert!(address.contains("is no name of a storage account"), "{address}");
}
