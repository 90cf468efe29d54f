//! What the log says of effects and events. Ids are named on purpose, secrets never.

use tracing::{error, info, warn};

use crate::model::ServiceName;
use crate::ports::Fault;
use crate::rotation::event::Event;
use crate::rotation::{Effect, ServiceState};

/// The effect's name for logs and back-off; effects of one name share one back-off.
pub(crate) fn effect_name(effect: &Effect) -> &'static str {
    match effect {
        Effect::Survey => "survey",
        Effect::FirstContact => "first contact",
        Effect::Observe => "observe",
        Effect::PlanMint => "plan mint",
        Effect::Mint(_) => "mint",
        Effect::SettleMint => "settle mint",
        Effect::Probe(_) => "probe",
        Effect::BeforePush(_) => "look before push",
        Effect::Push(_) => "push",
        Effect::SettlePush(_) => "settle push",
        Effect::Poll(..) => "poll",
        Effect::ReadBack(_) => "read back",
        Effect::Evidence(..) => "gather evidence",
        Effect::Disable(_) => "disable",
        Effect::Enable(_) => "enable",
        Effect::Delete(_) => "delete",
        Effect::Absence(_) => "look for absence",
        Effect::Health => "health",
    }
}

pub(super) fn log_fault(name: &ServiceName, effect: &Effect, fault: &Fault) {
    warn!(service = %name, effect = effect_name(effect), outcome = fault.outcome(), "{}", fault.why());
}

pub(super) fn log_event(name: &ServiceName, event: &Event, state: &ServiceState) {
    let rotation = state.rotation.as_ref().map_or("-", |rotation| rotation.id.as_str());
    match event {
        Event::Halted { reason, message } => {
            let next = state.next_command(name).unwrap_or_default();
            error!(service = %name, rotation, reason = %reason, next, "halted: {message}");
        }
        Event::Closed { outcome: crate::rotation::event::Outcome::Failed { reason, why } } => {
            let next = state.next_command(name).unwrap_or_default();
            error!(service = %name, rotation, reason = %reason, next, "the new key was taken back: {why}");
        }
        Event::DriftFound { what } => warn!(service = %name, "drift: {what}"),
        other => {
            let phase = state.phase().map_or("-", crate::rotation::Phase::as_str);
            info!(service = %name, rotation, phase, "{}", crate::rotation::in_words(other));
        }
    }
}
