//! `[service.issuer]` of this kind: read, checked, and kept as the journal has it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::account::Account;
use super::names;
use super::wire::Access;
use crate::issuer::Lifetime;
use crate::model::{IssuerSpec, MaterialKind, Shape, SystemSpec};
use crate::table::Table;

/// F5 promises no time within which a new credential is known everywhere.
const PROPAGATION: Duration = Duration::from_secs(60);
/// Where the policy says nothing: half a year, as for other secrets that end by themselves.
const DAYS: u32 = 180;
const DAYS_MAX: i64 = 3650;
/// The longest namespace a role may be given in (published OpenAPI: 256 characters).
const NAMESPACE_MAX: usize = 256;
/// More than any request needs, and little enough to be sent.
const TEXT_MAX: usize = 256;
/// Who is asking: every login may know.
pub(super) const WHOAMI: &str = "/api/web/custom/namespaces/system/whoami";

/// What is minted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Credential {
    /// A token for the header.
    ApiToken,
    /// A certificate for the TLS handshake, as a locked PKCS#12.
    Certificate,
}

/// How a new credential is tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Try {
    /// What is asked for.
    pub(super) path: String,
    /// Whether it must be allowed, or only known.
    pub(super) must_read: bool,
}

/// `[service.issuer]` of this kind, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Config {
    /// What every name begins with, without a hyphen at its end.
    pub(super) stem: String,
    pub(super) credential: Credential,
    pub(super) access: Access,
    pub(super) days: u32,
    pub(super) probe: Try,
}

/// Reads one; `kind` is the kind's own name.
pub(super) fn read(kind: &'static str, table: &mut Table<'_>, system: Option<&SystemSpec>) -> Option<IssuerSpec> {
    let account = Account::of(system);
    let stem = read_stem(table);
    let credential = match table.choice("credential", &["api-token", "certificate"]) {
        Some("certificate") => Credential::Certificate,
        _ => Credential::ApiToken,
    };
    let roles = read_roles(table);
    let groups = table.texts("user_groups").unwrap_or_default();
    if let Some(long) = groups.iter().find(|group| group.len() > TEXT_MAX) {
        let what = format!("a name of {} characters is no user group", long.chars().count());
        table.mistake("user_groups", what, "write the groups as the console lists them");
    }
    if roles.is_empty() && groups.is_empty() && !table.has("namespace_roles") {
        let what = "neither `namespace_roles` nor `user_groups`: a credential without either may do nothing";
        let help = "add namespace_roles = [{ namespace = \"system\", role = \"ves-io-monitor-role\" }]";
        table.mistake("namespace_roles", what, help);
    }
    let days = u32::try_from(table.integer("expires_in_days", 1..=DAYS_MAX, i64::from(DAYS))).unwrap_or(DAYS);
    let exclusive = table.flag("exclusive", false);
    let probe = read_probe(table);
    let (account, system, stem) = (account?, system?, stem?);
    let config = Config {
        stem,
        credential,
        access: Access { roles, groups: groups.into_iter().collect() },
        days,
        probe: probe?,
    };
    Some(IssuerSpec {
        kind: kind.to_owned(),
        system: Some(system.at.clone()),
        // By the tenant's host and not the table's name: one prefix under two tables is still one.
        object: format!("{kind}:{}:{}", account.host(), config.stem),
        shape: Shape::Labelled,
        exclusive,
        propagation: PROPAGATION,
        settle: account.settle(),
        last_used_lag: None,
        config: serde_json::to_value(config).ok()?,
    })
}

fn read_stem(table: &mut Table<'_>) -> Option<String> {
    let prefix = table.text("name_prefix")?;
    let stem = names::stem(&prefix);
    if stem.is_none() {
        let help = "a prefix has at most 15 of the letters a-z, digits and `-`, and begins with a letter: the rotation's id and the \
                    console's own suffix follow it";
        table.mistake("name_prefix", format!("`{prefix}` cannot begin the name of a service credential"), help);
    }
    stem.map(str::to_owned)
}

fn read_roles(table: &mut Table<'_>) -> BTreeMap<String, BTreeSet<String>> {
    let mut roles: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for mut pair in table.tables("namespace_roles") {
        pair.set_title("a role in `namespace_roles`");
        let (namespace, role) = (pair.text("namespace"), pair.text("role"));
        if let Some(long) = namespace.as_ref().filter(|namespace| namespace.len() > NAMESPACE_MAX) {
            let what = format!("a name of {} characters is no namespace", long.chars().count());
            pair.mistake("namespace", what, "write the namespace's name, or \"*\" for all of them");
        }
        if let Some(long) = role.as_ref().filter(|role| role.len() > TEXT_MAX) {
            let what = format!("a name of {} characters is no role", long.chars().count());
            pair.mistake("role", what, "write the role as the console lists it");
        }
        if let (Some(namespace), Some(role)) = (namespace, role) {
            roles.entry(namespace).or_default().insert(role);
        }
    }
    roles
}

fn read_probe(table: &mut Table<'_>) -> Option<Try> {
    if !table.has("probe") {
        return Some(Try { path: WHOAMI.to_owned(), must_read: true });
    }
    let mut probe = table.table("probe")?;
    let path = probe.text_or("path").unwrap_or_else(|| WHOAMI.to_owned());
    let is_plain = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_.".contains(&b));
    if !path.starts_with("/api/") || !is_plain || path.split('/').any(|piece| matches!(piece, "." | "..")) {
        let help = format!("write the path behind the console's address, such as \"{WHOAMI}\"");
        // Not repeated: whoever writes a query there may have put a secret into it.
        probe.mistake("path", "is no path of the API", help);
    }
    let must_read = probe.choice("expect", &["read", "authenticates"]) != Some("authenticates");
    Some(Try { path, must_read })
}

/// What the keys of a spec are made of.
pub(super) fn material(spec: &IssuerSpec) -> Option<MaterialKind> {
    let config: Config = serde_json::from_value(spec.config.clone()).ok()?;
    Some(match config.credential {
        Credential::ApiToken => MaterialKind::ApiToken,
        Credential::Certificate => MaterialKind::ApiCertificate,
    })
}

/// How long they live.
pub(super) fn lifetime(spec: &IssuerSpec) -> Option<Lifetime> {
    let config: Config = serde_json::from_value(spec.config.clone()).ok()?;
    let length = Duration::from_secs(u64::from(config.days) * 24 * 3600);
    Some(Lifetime { option: "expires_in_days", length })
}
