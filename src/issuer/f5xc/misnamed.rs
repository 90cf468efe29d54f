//! A credential that was made under a name no listing of its service would find.
//!
//! No journal row will ever have it, so whoever made it takes it back there and then. What merely has that name, and is not the one
//! that was made just now, is left alone.

use std::time::Duration;

use super::F5xc;
use super::client::edge_time;
use super::faults::Call;
use super::login::IsLogin;
use crate::model::{KeyId, Reason, Timestamp};
use crate::ports::Fault;

/// How far the console's clock may be from the one that dates its answers.
const SLACK: Duration = Duration::from_secs(60);

impl F5xc {
    /// Revokes `made`, which was answered for `asked` at `at`, and says what came of it.
    pub(super) async fn undo_misnamed(&self, call: &Call, asked: &str, made: KeyId, at: Option<Timestamp>) -> Fault {
        let undone = match self.revoke_if_new(&made, at.unwrap_or_else(edge_time)).await {
            Ok(()) => "it was revoked at once, and a retry would come to the same".to_owned(),
            Err(why) => format!(
                "revoke it in the console; whether that was done here is not sure ({why}), and a retry makes one more"
            ),
        };
        let why = call.text(format_args!(
            "{asked} was asked for, and {made} was made, which no listing here would find; {undone}"
        ));
        Fault::Refused { reason: Reason::Refused, why }
    }

    async fn revoke_if_new(&self, made: &KeyId, at: Timestamp) -> Result<(), String> {
        let said = |fault: Fault| fault.why().to_owned();
        let item = self.item(made).await.map_err(said)?;
        let since = at - self.console.account.reach.request_timeout() - SLACK;
        let is_new = item.create_timestamp.is_some_and(|made| made >= since);
        if !is_new || item.access() != self.config.access {
            return Err("what the console shows under that name is older or has other rights".to_owned());
        }
        if let IsLogin::Yes(how) = self.is_login(made).await.map_err(said)? {
            return Err(format!("rekeyd itself logs in with it, as {how}"));
        }
        self.revoke(&self.call(&format!("revoke service credential {made}")), made).await.map_err(said)
    }
}
