//! Issuers: where keys are minted. One file and one line in [`KINDS`] for each kind.
//!
//! Invariant: issuers never see each other, a target, the engine or the journal, and never retry.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::model::{IssuerSpec, MaterialKind, Reason, SystemRef, SystemSpec};
use crate::net::Context;
use crate::ports::{Fault, Issuer};
use crate::table::Table;

pub mod aws_iam;
mod azure;
pub mod azure_key;
pub mod azure_sas;
pub mod command;
pub mod entra_secret;
pub mod f5xc;
pub mod gcs_hmac;
pub mod ibm_cos;
mod reach;
mod s3;

/// A kind of issuer: how its tables are read and how it is reached.
pub struct Kind {
    /// What the policy calls it: `aws-iam`.
    pub name: &'static str,
    /// The policy table of its provider accounts (`aws`), if it needs one.
    pub system: Option<&'static str>,
    /// Reads one account of that table. Kinds of one provider share this function.
    pub read_system: fn(&mut Table<'_>) -> Option<serde_json::Value>,
    /// Reads `[service.issuer]`, all of it but `kind`. Mistakes go into the table's report.
    pub read: fn(&mut Table<'_>, Option<&SystemSpec>) -> Option<IssuerSpec>,
    /// What its keys are made of, as far as the spec tells; targets are told before the first key is made. `None`: nobody knows
    /// before it is there (a program's).
    pub material: fn(&IssuerSpec) -> Option<MaterialKind>,
    /// How long its keys live, where they end by themselves: the next one is due before that.
    pub lifetime: fn(&IssuerSpec) -> Option<Lifetime>,
    /// How long a disabled key must wait before it is deleted, whatever the policy says, where there is such a wait.
    pub watch_min: fn(&IssuerSpec) -> Option<WatchMin>,
    /// How it makes what targets hold out of another service's keys (`from`), where it can.
    pub derivation: Option<Derivation>,
    /// Makes the port. Reads secrets; sends nothing yet.
    pub connect: fn(&IssuerSpec, Option<&SystemSpec>, &Context) -> Connected,
}

/// How a kind makes what targets hold out of the keys of another service, which rotates them.
pub struct Derivation {
    /// Reads `[service.issuer]`, all of it but `kind`, `account` and `from`. Mistakes go into the table's report.
    pub read: fn(&mut Table<'_>) -> Option<serde_json::Value>,
    /// The issuer that derives, now that it is known whose keys these are: of the service that has `root` for an issuer, in the account
    /// given. `Err`: why nothing can be made of those.
    pub over: fn(serde_json::Value, &IssuerSpec, Option<&SystemSpec>) -> Result<IssuerSpec, String>,
}

/// How long keys live that end by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// What the policy calls it, as the provider does.
    pub option: &'static str,
    /// From the mint on.
    pub length: Duration,
}

/// The shortest `watch` of a provider that asks for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchMin {
    /// From disabling to deleting.
    pub wait: Duration,
    /// Why, as the end of a sentence about a key that is disabled.
    pub why: &'static str,
}

/// For kinds whose keys live until somebody takes them away.
fn for_ever(_spec: &IssuerSpec) -> Option<Lifetime> {
    None
}

/// For kinds whose keys may be deleted as soon as they are disabled.
fn at_once(_spec: &IssuerSpec) -> Option<WatchMin> {
    None
}

/// The kind's own table, as the journal keeps it.
///
/// # Errors
/// `policy-mismatch` where it is none of this build's.
fn config<T: DeserializeOwned>(spec: &IssuerSpec) -> Result<T, Fault> {
    serde_json::from_value(spec.config.clone())
        .map_err(|error| mismatch(spec, format!("its configuration was written by another rekeyd: {error}")))
}

/// The account that a spec refers to, and its name. `object` opens the messages.
///
/// # Errors
/// `policy-mismatch` where there is none, or none of this build's.
fn account<'s, T: DeserializeOwned>(system: Option<&'s SystemSpec>, object: &str) -> Result<(&'s SystemRef, T), Fault> {
    let refused = |what: String| Fault::Refused {
        reason: Reason::PolicyMismatch,
        why: format!("connect to issuer {object}: {what}"),
    };
    let system = system.ok_or_else(|| refused("it names no account".to_owned()))?;
    let account = serde_json::from_value(system.config.clone());
    let account = account.map_err(|_| refused(format!("the policy has no usable [{}]", system.at)))?;
    Ok((&system.at, account))
}

/// Why a port cannot be made out of a spec.
fn mismatch(spec: &IssuerSpec, what: impl std::fmt::Display) -> Fault {
    Fault::Refused { reason: Reason::PolicyMismatch, why: format!("connect to issuer {}: {what}", spec.object) }
}

/// A port, or why it could not be made.
pub type Connected = Result<Arc<dyn Issuer>, Fault>;

/// Every kind there is. Adding one: a file beside this one, a line here, a test module, a section in `config/policy.toml`.
pub const KINDS: &[Kind] = &[
    aws_iam::KIND,
    azure_key::KIND,
    azure_sas::KIND,
    command::KIND,
    entra_secret::KIND,
    f5xc::KIND,
    gcs_hmac::KIND,
    ibm_cos::KIND,
];
