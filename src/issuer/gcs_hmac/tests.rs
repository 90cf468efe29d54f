//! What a policy may say of this kind.

use super::*;
use crate::model::SystemRef;
use crate::table;

const WHOLE: &str = "project = \"gis-prod-123\"\nservice_account = \"ArcGIS-store@gis-prod-123.iam.gserviceaccount.com\"\n\
                     probe = { bucket = \"gis-store\", expect = \"read\" }";

fn spec_with(account: &str, issuer: &str) -> Result<IssuerSpec, String> {
    let config =
        table::read(account, "account", KIND.read_system).map_err(|report| report.to_string())?.expect("an account");
    let system = SystemSpec { at: SystemRef { table: "gcp".into(), name: "main".into() }, config };
    let spec = table::read(issuer, "policy.toml", |table| (KIND.read)(table, Some(&system)));
    Ok(spec.map_err(|report| report.to_string())?.expect("a spec"))
}

fn spec(issuer: &str) -> Result<IssuerSpec, String> {
    spec_with("", issuer)
}

#[test]
fn a_spec_is_known_by_the_service_account_alone() {
    let spec = spec(WHOLE).expect("read");
    assert_eq!(spec.object, "gcs-hmac:arcgis-store@gis-prod-123.iam.gserviceaccount.com");
    assert_eq!((spec.shape, spec.exclusive, spec.last_used_lag), (Shape::ShownOnce, false, None));
    assert_eq!((spec.propagation, spec.settle), (Duration::from_secs(60), Duration::from_secs(600)));
    assert_eq!((KIND.material)(&spec), Some(MaterialKind::HmacKey));
    assert_eq!((KIND.lifetime)(&spec), None);
}

#[test]
fn google_wants_three_minutes_and_a_stand_in_none() {
    let at = |account: &str| watch_min(&spec_with(account, WHOLE).expect("read")).map(|min| min.wait);
    assert_eq!(at(""), Some(Duration::from_secs(180)));
    assert_eq!(at("storage_url = \"https://storage.s3nsapis.fr\""), Some(Duration::from_secs(180)));
    assert_eq!(at("storage_url = \"http://127.0.0.1:9\""), Some(Duration::ZERO));
}

#[test]
fn a_project_is_its_id() {
    for right in ["gis-prod-123", "abcdef", "example.com:gis-prod"] {
        assert!(is_project(right), "{right}");
    }
    for wrong in
        ["", "123456789012", "GIS-prod", "short", "gis prod 1", "gis-prod-", "a/../b-c-d", "x?y=zzzz", &"a".repeat(31)]
    {
        assert!(!is_project(wrong), "{wrong}");
    }
    let number = spec(&WHOLE.replace("\"gis-prod-123\"", "\"123456789012\"")).expect_err("a number");
    assert!(number.contains("`123456789012` is no id of a project") && number.contains("PROJECT_ID"), "{number}");
}

#[test]
fn a_service_account_is_its_address() {
    assert!(is_service_account("a-b_c@p.iam.gserviceaccount.com"));
    for wrong in ["", "arcgis-store", "@p.x", "a@", "a@b", "a@b@c.d", "a b@c.d", "a@c.d?x=y"] {
        assert!(!is_service_account(wrong), "{wrong}");
    }
    let name =
        spec(&WHOLE.replace("ArcGIS-store@gis-prod-123.iam.gserviceaccount.com", "arcgis-store")).expect_err("a name");
    assert!(name.contains("`arcgis-store` is no service account"), "{name}");
}

#[test]
fn a_probe_is_asked_for() {
    let without = spec(&WHOLE.replace("probe", "#probe")).expect_err("no probe");
    assert!(without.contains("`probe` is missing") && without.contains(FORM), "{without}");
}
