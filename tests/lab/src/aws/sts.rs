//! `GetCallerIdentity`: needs no right, proves that a key authenticates and to which account it belongs.

use super::serve::{Call, Caller};
use super::state::State;
use super::wire::Outcome;
use crate::xml::escape;

pub(crate) fn execute(call: &Call, caller: &Caller, state: &State) -> Outcome {
    let (action, version) = (call.value("Action").unwrap_or_default(), call.value("Version").unwrap_or_default());
    if !state.options.sts || (action, version) != ("GetCallerIdentity", "2011-06-15") {
        return Outcome::error(
            400,
            "InvalidAction",
            format!("Could not find operation {action} for version {version}"),
        );
    }
    let user_id = state.users.get(&caller.user).map(|user| user.id.clone()).unwrap_or_default();
    Outcome::result(
        "GetCallerIdentity",
        format!(
            "<Arn>{}</Arn><UserId>{user_id}</UserId><Account>{}</Account>",
            escape(&state.user_arn(&caller.user)),
            state.options.account_id
        ),
    )
    .about(&caller.user)
}
