//! Reading `[service.issuer]` of this kind. What it says to an accesser is told by `tests/it/ibm_cos.rs`.

use std::time::Duration;

use super::policy::material;
use super::*;
use crate::model::{MaterialKind, Shape, SystemRef};
use crate::table;

const ACCOUNT: &str = "accesser_url = \"https://cos.example.com:8338\"\nusername = \"rotator\"\npassword = { env = \"P\" }\n\
                       settle = \"5m\"";

fn parsed(issuer: &str) -> Result<IssuerSpec, String> {
    let config = table::read(ACCOUNT, "account", KIND.read_system).expect("no mistake").expect("an account");
    let system = SystemSpec { at: SystemRef { table: "ibm_cos".into(), name: "main".into() }, config };
    let spec = table::read(issuer, "policy.toml", |table| (KIND.read)(table, Some(&system)));
    Ok(spec.map_err(|report| report.to_string())?.expect("read"))
}

const IDS: &str = "project_id = \"731fc6f2\"\nuser_id = \"bb5476fd\"\n";
const PROBE: &str = "probe = { endpoint = \"https://s3.example.com\", bucket = \"gis-store\" }\n";

#[test]
fn a_user_is_read_with_the_accounts_horizon() {
    let spec = parsed(&format!("{IDS}subject_ibm_id = \"IBMid-61KR43CAFF\"\nexclusive = true\n{PROBE}")).expect("read");
    assert_eq!(spec.object, "ibm-cos:main:731fc6f2/bb5476fd");
    assert_eq!((spec.shape, spec.exclusive), (Shape::ClientNamed, true));
    assert_eq!((spec.settle, spec.propagation), (Duration::from_secs(300), Duration::from_secs(60)));
    assert_eq!((spec.last_used_lag, material(&spec)), (None, Some(MaterialKind::AccessKey)));
    let config: Config = serde_json::from_value(spec.config).expect("its own");
    assert_eq!(config.subject_ibm_id.as_deref(), Some("IBMid-61KR43CAFF"));
    assert_eq!((config.probe.region(), config.probe.endpoint(None)), ("us-east-1", Some("https://s3.example.com")));
}

#[test]
fn what_is_missing_or_no_id_is_said() {
    let nothing = parsed("").expect_err("nothing is there");
    for lacking in ["`project_id` is missing", "`user_id` is missing", "`probe` is missing"] {
        assert!(nothing.contains(lacking), "{nothing}");
    }
    let odd = parsed(&format!("project_id = \"a b\"\nuser_id = \"bb5476fd\"\n{PROBE}")).expect_err("odd");
    assert!(odd.contains("`a b` is no id") && odd.contains("write the id of the storage account"), "{odd}");
    // An accesser refuses an empty one with 400, and only when a key is to be made.
    let empty = parsed(&format!("{IDS}subject_ibm_id = \"\"\n{PROBE}")).expect_err("empty");
    assert!(empty.contains("subject_ibm_id"), "{empty}");
}

/// The keys of such a system mean nothing to AWS, which a bucket without an address would be looked for at.
#[test]
fn a_bucket_needs_the_address_of_its_system() {
    let probe = "probe = { bucket = \"gis-store\" }\n";
    let report = parsed(&format!("{IDS}{probe}")).expect_err("no address");
    assert!(report.contains("`endpoint` is missing"), "{report}");
    let plain = "probe = { endpoint = \"http://s3.example.com\", bucket = \"gis-store\" }\n";
    assert!(parsed(&format!("{IDS}{plain}")).expect_err("plain").contains("without TLS"));
    let other = "probe = { endpoint_url = \"https://s3.example.com\", bucket = \"gis-store\" }\n";
    assert!(parsed(&format!("{IDS}{other}")).expect_err("AWS's word").contains("unknown key `endpoint_url`"));
}
