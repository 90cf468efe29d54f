//! How the tables read: what a person may write wrongly, and what is kept of what is right.

use std::time::Duration;

use super::policy::{lifetime, material};
use super::*;
use crate::model::{MaterialKind, Shape, SystemRef};
use crate::table::{self, Table};

const ACCOUNT: &str = "console_url = \"https://acme.console.ves.volterra.io\"\napi_token = { env = \"T\" }";
const ROLES: &str = "namespace_roles = [{ namespace = \"system\", role = \"ves-io-monitor-role\" }]\n";

fn parsed(text: &str) -> Result<IssuerSpec, String> {
    let account = table::read(ACCOUNT, "policy.toml", account::read).expect("an account").expect("read");
    let system = SystemSpec { at: SystemRef { table: "f5xc".into(), name: "main".into() }, config: account };
    let read = |table: &mut Table<'_>| (KIND.read)(table, Some(&system));
    table::read(text, "policy.toml", read).map(|spec| spec.expect("read")).map_err(|report| report.to_string())
}

fn config(spec: &IssuerSpec) -> Config {
    serde_json::from_value(spec.config.clone()).expect("ours")
}

#[test]
fn a_token_is_what_is_made_where_nothing_else_is_said() {
    let spec = parsed(&format!("name_prefix = \"gis-\"\n{ROLES}")).expect("read");
    assert_eq!(spec.object, "f5xc:acme.console.ves.volterra.io:gis");
    assert_eq!((spec.shape, spec.exclusive, spec.settle), (Shape::Labelled, false, Duration::from_secs(600)));
    assert_eq!(material(&spec), Some(MaterialKind::ApiToken));
    assert_eq!(lifetime(&spec).map(|lifetime| lifetime.length), Some(Duration::from_secs(180 * 86_400)));
    assert_eq!(config(&spec).access.to_string(), "ves-io-monitor-role in system");
}

#[test]
fn a_certificate_with_groups_is_read() {
    let more =
        "credential = \"certificate\"\nuser_groups = [\"b\", \"a\", \"a\"]\nexpires_in_days = 90\nexclusive = true";
    let spec = parsed(&format!("name_prefix = \"gis\"\n{more}")).expect("read");
    assert_eq!((material(&spec), spec.exclusive), (Some(MaterialKind::ApiCertificate), true));
    assert_eq!(lifetime(&spec).map(|lifetime| lifetime.length), Some(Duration::from_secs(90 * 86_400)));
    assert_eq!(config(&spec).access.to_string(), "group a, group b");
    let probe = "probe = { path = \"/api/web/namespaces\", expect = \"authenticates\" }";
    let config = config(&parsed(&format!("name_prefix = \"gis\"\n{ROLES}{probe}")).expect("read"));
    assert_eq!((config.probe.path.as_str(), config.probe.must_read), ("/api/web/namespaces", false));
}

#[test]
fn what_is_missing_or_mistaken_says_what_to_write() {
    for (text, what) in [
        (ROLES, "`name_prefix` is missing"),
        ("name_prefix = \"gis\"", "neither `namespace_roles` nor `user_groups`"),
        ("name_prefix = \"GIS\"\nuser_groups = \"a\"", "`GIS` cannot begin the name of a service credential"),
        (
            "name_prefix = \"gis\"\nnamespace_roles = [{ namespace = \"system\" }]",
            "`role` is missing in a role in `namespace_roles`",
        ),
        ("name_prefix = \"gis\"\nuser_groups = \"a\"\ncredential = \"token\"", "`credential` cannot be `token`"),
        ("name_prefix = \"gis\"\nuser_groups = \"a\"\nexpires_in_days = \"90d\"", "must be"),
        ("name_prefix = \"gis\"\nuser_groups = \"a\"\nprobe = { path = \"/api/../x\" }", "is no path of the API"),
        ("name_prefix = \"gis\"\nuser_groups = \"a\"\nprobe = { path = \"/x?token=1\" }", "is no path of the API"),
    ] {
        let said = parsed(text).expect_err("a mistake");
        assert!(said.contains(what) && said.contains("help: "), "{what} is not in:\n{said}");
    }
}

#[test]
fn a_password_is_long_and_another_each_time() {
    let (one, other) = (new_password().expect("random"), new_password().expect("random"));
    assert!((6..=50).contains(&one.expose().len()) && one != other);
}

#[test]
fn what_is_no_pkcs12_is_told_from_what_may_be_one() {
    let text = |bytes: &[u8]| Secret::new(STANDARD.encode(bytes));
    assert!(is_pkcs12(&text(&[&[0x30, 0x82][..], &[0; 200]].concat())));
    for wrong in [text(b"-----BEGIN CERTIFICATE-----"), text(&[0x30; 8]), Secret::new("no base64!".to_owned())] {
        assert!(!is_pkcs12(&wrong));
    }
}
