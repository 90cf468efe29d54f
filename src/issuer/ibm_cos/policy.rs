//! `[service.issuer]` of this kind: read, checked, and kept as the journal has it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::s3::{self, Bucket, Form};
use super::account::Account;
use crate::model::{IssuerSpec, MaterialKind, Shape, SystemSpec};
use crate::table::Table;

/// No page says when every accesser knows a new key; a minute is what stores of this kind are given elsewhere in this house.
const PROPAGATION: Duration = Duration::from_secs(60);
/// A probe as it may be written.
const FORM: &str = "probe = { endpoint = \"https://s3.example.com\", bucket = \"gis-store\", expect = \"read\" }";
/// What a signature names where the policy names no region: a system of one's own has none, and takes this one.
const REGION: &str = "us-east-1";

/// `[service.issuer]` of this kind, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Config {
    pub(super) project_id: String,
    pub(super) user_id: String,
    pub(super) subject_ibm_id: Option<String>,
    pub(super) probe: Bucket,
}

/// Reads one; `kind` is the kind's own name.
pub(super) fn read(kind: &'static str, table: &mut Table<'_>, system: Option<&SystemSpec>) -> Option<IssuerSpec> {
    let account = Account::of(system);
    let project_id = read_id(table, "project_id");
    let user_id = read_id(table, "user_id");
    let subject_ibm_id = match table.has("subject_ibm_id") {
        true => read_id(table, "subject_ibm_id"),
        false => None,
    };
    let exclusive = table.flag("exclusive", false);
    let probe = match table.require("probe", FORM) {
        true => s3::read_at(table, Form { text: FORM, region: Some(REGION) }),
        false => None,
    };
    let (project_id, user_id, probe) = (project_id?, user_id?, probe?);
    let (account, system) = (account?, system?);
    Some(IssuerSpec {
        kind: kind.to_owned(),
        system: Some(system.at.clone()),
        object: format!("{kind}:{}:{project_id}/{user_id}", system.at.name),
        shape: Shape::ClientNamed,
        exclusive,
        propagation: PROPAGATION,
        settle: account.settle(),
        last_used_lag: None,
        config: serde_json::to_value(Config { project_id, user_id, subject_ibm_id, probe }).ok()?,
    })
}

/// An id as the system has it: no page says how ids are made, so only what nobody can mean is refused.
fn read_id(table: &mut Table<'_>, key: &'static str) -> Option<String> {
    let id = table.text(key)?;
    if id.len() > 255 || id.chars().any(|c| c.is_control() || c.is_whitespace()) {
        let help = match key {
            "project_id" => {
                "write the id of the storage account, as its credentials show it: project_id = \"731fc6f265cd486d\""
            }
            "user_id" => {
                "write the id of the user, as the credentials of the storage account show it: user_id = \"bb5476fd1288\""
            }
            _ => {
                "write the identity in IBM's IAM, such as \"IBMid-61KR43CAFF\", or leave it out: an empty one is refused"
            }
        };
        table.mistake(key, format!("`{id}` is no id"), help);
        return None;
    }
    Some(id)
}

/// What targets get.
pub(super) fn material(_spec: &IssuerSpec) -> Option<MaterialKind> {
    Some(MaterialKind::AccessKey)
}
