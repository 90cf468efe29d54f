//! What the rotator may do, asked before it is tried: ARM's permissions of a resource, Graph's app roles and owners.
//!
//! Reads only. What the providers say is a good sign and no promise: Azure's deny assignments, conditions and policies do not show
//! there, and a role takes minutes to be known everywhere. So a right that is told missing is missing, and one that is told there is
//! enough to begin with.

use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::client::Azure;
use super::faults::Call;
use crate::model::{Reason, Standing};
use crate::ports::Fault;

const PERMISSIONS_VERSION: &str = "2022-04-01";
/// A rotator has a role or two; a listing that goes on for ever is not believed.
const PAGES_MAX: usize = 20;

/// Ids of the two app roles of Graph that let an application change another's secrets ("Microsoft Graph permissions reference").
const OWNED_BY: &str = "18a4783c-866b-4cc7-a460-3d5e5662c884";
const ALL: &str = "1bfefb4e-e0b5-418b-a88f-73c46d2cc8e9";

/// One page of a listing.
#[derive(Deserialize)]
struct Page<T> {
    value: Vec<T>,
    #[serde(default, rename = "nextLink")]
    arm_next: Option<String>,
    #[serde(default, rename = "@odata.nextLink")]
    graph_next: Option<String>,
}

/// What one role gives: the actions it names, less those it takes back itself.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Permission {
    actions: Vec<String>,
    not_actions: Vec<String>,
}

#[derive(Deserialize)]
struct Principal {
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Assignment {
    app_role_id: String,
}

/// Whether ARM says that the rotator has these rights on a resource, called `on`.
///
/// # Errors
/// `missing-right` with the first that it has not.
pub(in crate::issuer) async fn at_arm(azure: &Azure, id: &str, on: &str, needed: &[String]) -> Result<Standing, Fault> {
    let call = Call::new(format!("ask what the rotator may do with {on}"));
    let path = format!("{id}/providers/Microsoft.Authorization/permissions");
    let permissions: Vec<Permission> = match pages(azure, &call, Door::Arm, path).await {
        Ok(permissions) => permissions,
        Err(Fault::Refused { reason: Reason::MissingRight, .. }) => {
            let why = "the rotator may not ask for its rights (Microsoft.Authorization/permissions/read), so they show when \
                       they are needed";
            return Ok(Standing::Untold(why.to_owned()));
        }
        Err(fault) => return Err(fault),
    };
    match needed.iter().find(|right| !is_given(&permissions, right)) {
        None => Ok(Standing::Enough(format!("the rotator has {}", needed.join(", ")))),
        Some(missing) => Err(Fault::Refused {
            reason: Reason::MissingRight,
            why: call
                .text(format_args!("it has no role with {missing}; config/azure has roles with just what is needed")),
        }),
    }
}

/// Whether Graph says that the rotator may change the secrets of an application.
///
/// # Errors
/// `missing-right` where it may not.
pub(in crate::issuer) async fn at_graph(azure: &Azure, object_id: &str) -> Result<Standing, Fault> {
    let call = Call::new(format!("ask what the rotator may do with application {object_id}"));
    let untold = |why: &str| Ok(Standing::Untold(format!("{why}, so its rights show when they are needed")));
    let Some(client_id) = azure.account.client_id.as_deref() else {
        return untold("the policy does not say which application the rotator is");
    };
    let found = async {
        let path = format!("/servicePrincipals(appId='{client_id}')?$select=id");
        let answer = azure.graph(&call, Method::GET, &path, None).await?;
        let rotator: Principal = read(&call, &answer.body)?;
        let path = format!("/servicePrincipals/{}/appRoleAssignments", rotator.id);
        let roles: Vec<Assignment> = pages(azure, &call, Door::Graph, path).await?;
        let path = format!("/applications/{object_id}/owners?$select=id");
        let owners: Vec<Principal> = pages(azure, &call, Door::Graph, path).await?;
        Ok((rotator, roles, owners))
    };
    let (rotator, roles, owners) = match found.await {
        Ok(found) => found,
        Err(Fault::Refused { reason: Reason::MissingRight, .. }) => {
            return untold("the rotator may not look at service principals and owners");
        }
        Err(fault) => return Err(fault),
    };
    let has = |role: &str| roles.iter().any(|assigned| assigned.app_role_id.eq_ignore_ascii_case(role));
    let missing = |what: &str| Err(Fault::Refused { reason: Reason::MissingRight, why: call.text(what) });
    match (has(ALL), has(OWNED_BY), owners.iter().any(|owner| owner.id.eq_ignore_ascii_case(&rotator.id))) {
        (true, ..) => Ok(Standing::Enough("the rotator has Application.ReadWrite.All".to_owned())),
        (false, true, true) => {
            Ok(Standing::Enough("the rotator has Application.ReadWrite.OwnedBy and is an owner".to_owned()))
        }
        (false, true, false) => missing(&format!(
            "it has Application.ReadWrite.OwnedBy and is no owner: az ad app owner add --id {object_id} --owner-object-id {}",
            rotator.id
        )),
        // A role of the directory, such as Application Administrator, would do as well and does not show here.
        (false, false, _) => {
            Ok(Standing::Doubtful(call.text("it has not the application permission Application.ReadWrite.OwnedBy")))
        }
    }
}

#[derive(Clone, Copy)]
enum Door {
    Arm,
    Graph,
}

/// All pages of a listing. A link that leads elsewhere than to the same door is not followed: a token would go with it.
async fn pages<T: DeserializeOwned>(azure: &Azure, call: &Call, door: Door, first: String) -> Result<Vec<T>, Fault> {
    let (mut all, mut path) = (Vec::new(), first);
    for _ in 0..PAGES_MAX {
        let answer = match door {
            Door::Arm => azure.arm(call, Method::GET, &path, PERMISSIONS_VERSION, None).await?,
            Door::Graph => azure.graph(call, Method::GET, &path, None).await?,
        };
        let page: Page<T> = read(call, &answer.body)?;
        all.extend(page.value);
        let Some(next) = page.arm_next.or(page.graph_next).filter(|next| !next.is_empty()) else { return Ok(all) };
        let door = match door {
            Door::Arm => azure.account.arm().to_owned(),
            Door::Graph => format!("{}/v1.0", azure.account.graph()),
        };
        let rest = next.strip_prefix(&door).filter(|rest| rest.starts_with('/'));
        // The version is added to each request, and a link brings it too.
        let rest = rest.map(without_version);
        path = rest.ok_or_else(|| Fault::Unknown(call.text("a listing that goes on at another address")))?;
    }
    Err(Fault::Unknown(call.text(format_args!("the listing does not end after {PAGES_MAX} pages"))))
}

fn without_version(link: &str) -> String {
    let Some((path, query)) = link.split_once('?') else { return link.to_owned() };
    let rest: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("api-version=")).collect();
    match rest.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", rest.join("&")),
    }
}

fn read<T: DeserializeOwned>(call: &Call, body: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(body).map_err(|_| Fault::Unknown(call.text("an answer that is none of this service")))
}

/// A right is given if some role names it and that same role does not take it back ("Understand Azure role definitions").
fn is_given(permissions: &[Permission], right: &str) -> bool {
    let any = |patterns: &[String]| patterns.iter().any(|pattern| fits(&pattern.to_lowercase(), &right.to_lowercase()));
    permissions.iter().any(|role| any(&role.actions) && !any(&role.not_actions))
}

/// `*` stands for anything, slashes too. Each piece between two of them is taken where it first fits, which is enough.
fn fits(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = pieces.next().and_then(|head| text.strip_prefix(head)) else { return false };
    let mut pieces = pieces.peekable();
    if pieces.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(actions: &[&str], not_actions: &[&str]) -> Permission {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Permission { actions: own(actions), not_actions: own(not_actions) }
    }

    #[test]
    fn a_right_is_given_by_a_role_that_does_not_take_it_back() {
        let right = "Microsoft.Storage/storageAccounts/regenerateKey/action";
        let given = |roles: &[Permission]| is_given(roles, right);
        assert!(given(&[role(&["*"], &[])]));
        assert!(given(&[role(&["Microsoft.Storage/*/action"], &[])]));
        assert!(given(&[role(&["microsoft.storage/storageaccounts/regeneratekey/action"], &[])]));
        assert!(!given(&[role(&["Microsoft.Storage/storageAccounts/listKeys/action"], &[])]));
        assert!(!given(&[role(&["*"], &["Microsoft.Storage/storageAccounts/*/action"])]));
        assert!(!given(&[role(&["*/read"], &[])]) && !given(&[]));
        // Another role gives what the first takes back: it takes from itself only.
        assert!(given(&[role(&["*"], &["Microsoft.Storage/*"]), role(&["Microsoft.Storage/storageAccounts/*"], &[])]));
    }

    #[test]
    fn a_link_keeps_all_but_the_version() {
        assert_eq!(without_version("/x?api-version=2022-04-01&$skiptoken=a%2Fb"), "/x?$skiptoken=a%2Fb");
        assert_eq!(without_version("/x?api-version=2022-04-01"), "/x");
        assert_eq!(without_version("/x"), "/x");
    }
}
