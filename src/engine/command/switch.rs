//! The order to leave keys behind, or to come back to one. What follows is a rotation like any other: the machine's.

use super::super::Engine;
use super::super::order::Reply;
use crate::model::{Keyless, Reason, ServiceName};
use crate::ports::JournalError;
use crate::rotation::ServiceState;
use crate::rotation::event::Event;

impl Engine {
    /// Orders a rotation that ends with another kind of credential in the targets. Timetable and window do not count, as for
    /// everything that an operator orders by hand and watches.
    pub(super) async fn switch(
        &mut self,
        name: &ServiceName,
        to: Option<Keyless>,
        by: String,
    ) -> Result<Reply, JournalError> {
        let runner = &self.services[name];
        if runner.policy.is_none() {
            return Ok(Reply::one(name, false, "it is no longer in the policy"));
        }
        if let Some(why) = objection(&runner.state, to.as_ref()) {
            return Ok(Reply::one(name, false, why));
        }
        let message = match &to {
            Some(to) => format!(
                "its targets are switched to {to}; whether that may use the store is seen at their consumers alone: look at them, \
                 and if they fail, type rekeyd rollback {name} before the old key is gone"
            ),
            None => "a key is minted, and its targets are switched back to it".to_owned(),
        };
        if runner.state.halt.is_some() {
            self.record(name, Event::Retried { by: by.clone() }, None).await?;
        }
        self.record(name, Event::SwitchOrdered { to, by }, None).await?;
        self.runner(name).pacing.hurry();
        Ok(Reply::one(name, true, message))
    }
}

/// Why a service is not switched now.
fn objection(state: &ServiceState, to: Option<&Keyless>) -> Option<String> {
    // What somebody did to the key, or with the targets, the switch may be the answer to.
    let answered = [Reason::CurrentKeyBroken, Reason::TargetChanged, Reason::JournalBehind];
    if let Some(halt) = state.halt.as_ref().filter(|halt| !answered.contains(&halt.reason)) {
        return Some(format!("halted ({}), not ordered; rekeyd status says why and what to type", halt.reason));
    }
    if state.paused.is_some() {
        return Some("paused, not ordered".into());
    }
    if state.rotation.is_some() {
        return Some("a rotation is open; it comes to its end first".into());
    }
    if state.order.is_some() || state.switch.is_some() {
        return Some("a rotation is ordered already; it comes to its end first".into());
    }
    match (to, state.uses_no_key()) {
        _ if state.current.is_none() => Some("no current key is known".into()),
        (Some(to), Some(used)) if to == used => Some(format!("it uses {to} already")),
        (None, None) => Some("it uses a key already".into()),
        _ => None,
    }
}
