//! What the rotator may do, asked before it is tried: Resource Manager says which of the permissions asked about it has on a project.
//!
//! Reads only. The answer is a good sign and no promise: policies of the organization and perimeters of VPC Service Controls do not
//! show there, and a role takes minutes to be known everywhere.

use serde::Deserialize;
use serde_json::json;

use super::client::Google;
use super::faults::Call;
use crate::model::{Reason, Standing};
use crate::ports::Fault;

/// All that a rotation asks for ("IAM permissions for JSON methods" of Cloud Storage), the deletion too.
pub(super) const NEEDED: [&str; 5] = [
    "storage.hmacKeys.create",
    "storage.hmacKeys.list",
    "storage.hmacKeys.get",
    "storage.hmacKeys.update",
    "storage.hmacKeys.delete",
];

/// Of what was asked about, what the caller has; absent where it has nothing.
#[derive(Deserialize)]
struct Given {
    #[serde(default)]
    permissions: Vec<String>,
}

/// Whether Google says that the rotator has them ("projects.testIamPermissions", which needs no permission itself).
///
/// # Errors
/// `missing-right` with those that it has not.
pub(super) async fn ask(google: &Google, project: &str) -> Result<Standing, Fault> {
    let call = Call::new(format!("ask what the rotator may do with the HMAC keys of project {project}"));
    let path = format!("/projects/{project}:testIamPermissions");
    let answer = match google.resource_manager(&call, &path, &json!({ "permissions": NEEDED })).await {
        Ok(answer) => answer,
        // Somebody has to enable that API, or to let its scope through; no rotation needs it.
        Err(Fault::Refused { reason: Reason::MissingRight | Reason::Refused, why }) => {
            return Ok(Standing::Untold(format!("{why}; so its rights show when they are needed")));
        }
        Err(fault) => return Err(fault),
    };
    // Everything is optional in it, so a page that says nothing would read as "has nothing"; only JSON of an object does.
    let given: Given = serde_json::from_slice(&answer.body)
        .map_err(|_| Fault::Unknown(call.text("an answer that is none of this service")))?;
    let missing: Vec<&str> =
        NEEDED.into_iter().filter(|needed| !given.permissions.iter().any(|given| given == needed)).collect();
    match missing.is_empty() {
        true => Ok(Standing::Enough(format!("the rotator has {}", NEEDED.join(", ")))),
        false => Err(Fault::Refused {
            reason: Reason::MissingRight,
            why: call.text(format_args!(
                "it has not {}; config/google has a role with just what is needed",
                missing.join(", ")
            )),
        }),
    }
}
