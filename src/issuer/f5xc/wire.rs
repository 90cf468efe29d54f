//! The console's answers, as far as they are read: `ves.io.schema.api_credential` and `ves.io.schema.user`, from the published OpenAPI
//! and from the protobuf sources of Terraform's provider. Unknown fields are left alone; what matters must be there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::model::{Secret, Timestamp, deserialize_secret};
use crate::net::redact::Redactor;

/// A service credential for the header.
pub(super) const API_TOKEN: &str = "SERVICE_API_TOKEN";
/// A service credential for the TLS handshake.
pub(super) const API_CERTIFICATE: &str = "SERVICE_API_CERTIFICATE";

/// Where the users behind service credentials have their addresses (seen as a creator's id in an object of this API).
const SERVICE_USERS: &str = "volterracredentials.io";

/// Who a login is (`GET /api/web/custom/namespaces/system/whoami`, `GetUserRoleResponse`).
#[derive(Deserialize)]
pub(super) struct Who {
    pub(super) tenant: String,
    /// A service credential's user has one too: `NAME@volterracredentials.io` was seen as a creator's id.
    #[serde(default)]
    pub(super) email: String,
    /// `USER`, `SERVICE` or `DEBUG`; a service user is one "for accessing only APIs/services".
    #[serde(default, rename = "type")]
    pub(super) kind: Value,
}

impl Who {
    /// What the address of a service credential's user names: the credential, as far as was seen.
    pub(super) fn credential(&self) -> Option<&str> {
        let (name, domain) = self.email.rsplit_once('@')?;
        domain.eq_ignore_ascii_case(SERVICE_USERS).then_some(name)
    }

    /// Whether it is a person's login, and so no service credential: it is called so, and its address is elsewhere.
    pub(super) fn is_person(&self) -> bool {
        self.email.contains('@') && self.credential().is_none() && self.kind == "USER"
    }
}

/// All service credentials of the tenant. A listing without its list is none.
#[derive(Deserialize)]
pub(super) struct Items {
    pub(super) items: Vec<Item>,
}

/// A credential as it is listed, and as it is shown alone.
#[derive(Deserialize)]
pub(super) struct Item {
    pub(super) name: String,
    /// [`API_TOKEN`], [`API_CERTIFICATE`], or what is never made here.
    #[serde(default, rename = "type")]
    pub(super) kind: Value,
    #[serde(default)]
    pub(super) active: bool,
    #[serde(default, deserialize_with = "time")]
    pub(super) create_timestamp: Option<Timestamp>,
    // Said otherwise than in the answers to create and replace.
    #[serde(default, deserialize_with = "time")]
    pub(super) expiry_timestamp: Option<Timestamp>,
    /// Shown alone: its own user's. Listed: that of whoever asked for it.
    #[serde(default)]
    pub(super) user_email: Option<String>,
    #[serde(default)]
    pub(super) namespace_access: Option<NamespaceAccess>,
    #[serde(default)]
    pub(super) user_group_names: Option<Vec<String>>,
}

impl Item {
    /// Whether it opens anything now.
    pub(super) fn is_alive(&self, now: Timestamp) -> bool {
        self.active && self.expiry_timestamp.is_none_or(|end| end > now)
    }

    /// What it may do.
    pub(super) fn access(&self) -> Access {
        let map = self.namespace_access.iter().flat_map(|access| access.namespace_role_map.iter().flatten());
        let roles = map.map(|(namespace, roles)| {
            (namespace.clone(), roles.names.iter().flatten().cloned().collect::<BTreeSet<String>>())
        });
        let groups = self.user_group_names.iter().flatten().cloned().collect();
        Access { roles: roles.filter(|(_, roles)| !roles.is_empty()).collect(), groups }
    }
}

/// Roles by namespace, as listed and replaced; a create takes a list of pairs instead.
#[derive(Deserialize, Serialize)]
pub(super) struct NamespaceAccess {
    #[serde(default)]
    pub(super) namespace_role_map: Option<BTreeMap<String, Roles>>,
}

/// `RoleListType`.
#[derive(Deserialize, Serialize)]
pub(super) struct Roles {
    #[serde(default)]
    pub(super) names: Option<Vec<String>>,
}

/// What a credential may do: its roles in each namespace, and the groups whose rights it has besides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Access {
    pub(super) roles: BTreeMap<String, BTreeSet<String>>,
    pub(super) groups: BTreeSet<String>,
}

impl Access {
    /// What of it the other has not.
    pub(super) fn without(&self, other: &Self) -> Self {
        let roles = self.roles.iter().map(|(namespace, roles)| {
            let given = other.roles.get(namespace);
            let lost = roles.iter().filter(|role| given.is_none_or(|given| !given.contains(*role)));
            (namespace.clone(), lost.cloned().collect::<BTreeSet<String>>())
        });
        Self {
            roles: roles.filter(|(_, roles)| !roles.is_empty()).collect(),
            groups: self.groups.difference(&other.groups).cloned().collect(),
        }
    }

    /// As a replace wants it.
    pub(super) fn namespace_access(&self) -> NamespaceAccess {
        let roles = |names: &BTreeSet<String>| Roles { names: Some(names.iter().cloned().collect()) };
        let map = self.roles.iter().map(|(namespace, names)| (namespace.clone(), roles(names)));
        NamespaceAccess { namespace_role_map: Some(map.collect()) }
    }
}

impl fmt::Display for Access {
    /// For a message: bounded and printable, for half of it may be the console's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roles = self
            .roles
            .iter()
            .flat_map(|(namespace, roles)| roles.iter().map(move |role| format!("{role} in {namespace}")));
        let groups = self.groups.iter().map(|group| format!("group {group}"));
        let all = roles.chain(groups).collect::<Vec<_>>().join(", ");
        f.write_str(&if all.is_empty() { "no rights".to_owned() } else { Redactor::default().clean(&all) })
    }
}

/// A credential as it is shown once.
#[derive(Deserialize)]
pub(super) struct Created {
    pub(super) name: String,
    #[serde(deserialize_with = "deserialize_secret")]
    pub(super) data: Secret,
}

/// The answer to a replace. It says nothing of what was replaced.
#[derive(Deserialize)]
pub(super) struct Replaced {
    pub(super) name: String,
}

/// The answer to a revocation.
#[derive(Deserialize)]
pub(super) struct Done {
    pub(super) status: bool,
}

/// A create. Terraform's provider sends `type` beside the choice, and the published OpenAPI calls it deprecated; both are sent.
#[derive(Serialize)]
pub(super) struct Create<'a> {
    pub(super) name: &'a str,
    pub(super) namespace: &'static str,
    pub(super) expiration_days: u32,
    pub(super) namespace_roles: Vec<NamespaceRole<'a>>,
    pub(super) user_group_names: &'a BTreeSet<String>,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) api_token: Option<Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) api_certificate: Option<Password<'a>>,
}

/// A replace of roles and groups, and of nothing else.
#[derive(Serialize)]
pub(super) struct Replace<'a> {
    pub(super) name: &'a str,
    pub(super) namespace: &'static str,
    pub(super) namespace_access: NamespaceAccess,
    pub(super) user_group_names: &'a BTreeSet<String>,
}

/// One role in one namespace; `*` is every namespace.
#[derive(Serialize)]
pub(super) struct NamespaceRole<'a> {
    pub(super) namespace: &'a str,
    pub(super) role: &'a str,
}

/// `{}`.
#[derive(Serialize)]
pub(super) struct Empty {}

/// What the PKCS#12 is to be locked with: 6 to 50 bytes.
#[derive(Serialize)]
pub(super) struct Password<'a> {
    pub(super) password: &'a str,
}

/// A time in RFC 3339; null and an empty text are none, and anything else is no answer.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty());
    let parsed = text.map(|text| DateTime::parse_from_rfc3339(&text).map(|time| time.with_timezone(&Utc)));
    parsed.transpose().map_err(serde::de::Error::custom)
}
