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
        no_way_back: bool,
        by: String,
    ) -> Result<Reply, JournalError> {
        let runner = &self.services[name];
        if runner.policy.is_none() {
            return Ok(Reply::one(name, false, "it is no longer in the policy"));
        }
        if let Some(why) = objection(&runner.state, to.as_ref()) {
            return Ok(Reply::one(name, false, why));
        }
        let has_way_back = match &runner.state.current {
            Some(current) if runner.state.uses_no_key().is_none() => {
                self.journal.material(name, &current.key).await.ok().flatten().is_some()
            }
            _ => true,
        };
        let message = match (&to, &self.services[name].state.current) {
            // Nobody probes a role: what is left where it fails is the old key, and who cannot put it back must say so.
            (Some(_), Some(current)) if !has_way_back && !no_way_back => {
                let key = &current.key;
                let why = format!(
                    "the secret of key {key} is not held, so it could not be put back if the role fails; rekeyd adopt {name} {key} \
                     --secret-file FILE brings it, or say --no-way-back"
                );
                return Ok(Reply::one(name, false, why));
            }
            (Some(to), _) if !has_way_back => format!(
                "its targets are switched to {to}, and the old key cannot be put back: look at their consumers, and if they fail, type \
                 rekeyd abandon {name} --holds {to}, then rekeyd switch {name} --to key"
            ),
            (Some(to), _) => format!(
                "its targets are switched to {to}; whether that may use the store is seen at their consumers alone: look at them, \
                 and if they fail, type rekeyd rollback {name} before the old key is gone"
            ),
            (None, _) => "a key is minted, and its targets are switched back to it".to_owned(),
        };
        let runner = &self.services[name];
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
    if state.switch.is_some() {
        return Some("a switch is ordered already".into());
    }
    // An order that a halt kept from being followed is what the switch takes the place of.
    if state.order.is_some() && (state.halt.is_none() || state.is_compromised_ordered()) {
        return Some("a rotation is ordered already; it comes to its end first".into());
    }
    match (to, state.uses_no_key()) {
        _ if state.current.is_none() => Some("no current key is known".into()),
        (Some(to), Some(used)) if to.id() == used.id() => Some(format!("it uses {to} already")),
        (None, None) => Some("it uses a key already".into()),
        _ => None,
    }
}
