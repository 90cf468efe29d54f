//! What the log says of effects and events, each with the service, the rotation, the phase and the key it is about, so that one
//! service's story can be read by itself. Ids are named on purpose, secrets never.

use tracing::{Span, error, error_span, info, warn};

use crate::model::{KeyId, Reason, ServiceName};
use crate::ports::{Fault, JournalError};
use crate::rotation::event::{Event, Outcome};
use crate::rotation::{Effect, Phase, ServiceState};

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

/// What is said of the work on one service, wherever it is said, carries these words. At a level that every filter lets through:
/// what a library or a port has to say of it belongs to that service's story.
pub(super) fn work(name: &ServiceName, effect: &Effect, state: &ServiceState) -> Span {
    error_span!(
        "work",
        service = %name,
        rotation = rotation_of(state),
        phase = phase_of(state),
        key_id = key_of_effect(effect, state).map(KeyId::as_str),
        effect = effect_name(effect),
    )
}

pub(super) fn log_fault(name: &ServiceName, effect: &Effect, fault: &Fault, state: &ServiceState) {
    warn!(
        service = %name,
        rotation = rotation_of(state),
        phase = phase_of(state),
        key_id = key_of_effect(effect, state).map(KeyId::as_str),
        effect = effect_name(effect),
        outcome = fault.outcome(),
        reason = reason_of(fault),
        "{}",
        fault.why()
    );
}

/// What an event says, in the rotation it belongs to: the one before it where it ends one, else the one after it.
pub(super) fn log_event(name: &ServiceName, event: &Event, before: &ServiceState, after: &ServiceState, next: &str) {
    let rotation = rotation_of(before).or(rotation_of(after));
    let phase = phase_of(after).or(phase_of(before));
    let key_id = key_of_event(event).or_else(|| installing(after)).map(KeyId::as_str);
    match event {
        Event::Halted { reason, message } => {
            error!(service = %name, rotation, phase, key_id, reason = %reason, next, "halted: {message}");
        }
        Event::Closed { outcome: Outcome::Failed { reason, why } } => {
            error!(service = %name, rotation, phase, key_id, reason = %reason, next, "the new key was taken back: {why}");
        }
        Event::DriftFound { what } => warn!(service = %name, rotation, phase, "drift: {what}"),
        other => info!(service = %name, rotation, phase, key_id, "{}", crate::rotation::in_words(other)),
    }
}

/// What the last process left open.
pub(super) fn log_recovery(name: &ServiceName, event: &Event, state: &ServiceState) {
    let (rotation, phase) = (rotation_of(state), phase_of(state));
    let key_id = key_of_event(event).map(KeyId::as_str);
    let event = event.kind();
    warn!(service = %name, rotation, phase, key_id, event, "an effect was under way when the last process ended");
}

/// Why a mint is not begun.
pub(super) fn log_held_up(name: &ServiceName, state: &ServiceState, why: &str) {
    warn!(service = %name, rotation = rotation_of(state), phase = phase_of(state), "{why}");
}

/// A freshly minted key that is in memory only.
pub(super) fn log_unwritten(name: &ServiceName, event: &Event, state: &ServiceState, error: &JournalError) {
    let (rotation, phase) = (rotation_of(state), phase_of(state));
    let key_id = key_of_event(event).map(KeyId::as_str);
    error!(
        service = %name,
        rotation,
        phase,
        key_id,
        "a freshly minted key could not be written down, trying again: {error}"
    );
}

/// The secret of a key that is needed no more.
pub(super) fn log_shred(name: &ServiceName, rotation: Option<&str>, key: &KeyId, done: Result<(), JournalError>) {
    match done {
        Ok(()) => info!(service = %name, rotation, key_id = %key, "shredded the sealed secret"),
        Err(error) => {
            warn!(service = %name, rotation, key_id = %key, "the sealed secret is not shredded yet: {error}");
        }
    }
}

fn reason_of(fault: &Fault) -> Option<&'static str> {
    match fault {
        Fault::Refused { reason, .. } => Some(Reason::as_str(*reason)),
        Fault::NotSent(_) | Fault::Retry { .. } | Fault::Unknown(_) => None,
    }
}

/// The open rotation, as the log names it.
pub(super) fn rotation_of(state: &ServiceState) -> Option<&str> {
    state.rotation.as_ref().map(|rotation| rotation.id.as_str())
}

fn phase_of(state: &ServiceState) -> Option<&'static str> {
    state.phase().map(Phase::as_str)
}

fn installing(state: &ServiceState) -> Option<&KeyId> {
    state.rotation.as_ref().and_then(|rotation| rotation.installing.as_ref())
}

/// The key an effect is about: its own, or the one that is being put in place.
fn key_of_effect<'s>(effect: &'s Effect, state: &'s ServiceState) -> Option<&'s KeyId> {
    match effect {
        Effect::Probe(key)
        | Effect::Evidence(key, _)
        | Effect::Disable(key)
        | Effect::Enable(key)
        | Effect::Delete(key)
        | Effect::Absence(key) => Some(key),
        Effect::BeforePush(_)
        | Effect::Push(_)
        | Effect::SettlePush(_)
        | Effect::Poll(..)
        | Effect::ReadBack(_)
        | Effect::Health => installing(state),
        Effect::Observe => state.current.as_ref().map(|current| &current.key),
        Effect::Survey | Effect::FirstContact | Effect::PlanMint | Effect::Mint(_) | Effect::SettleMint => None,
    }
}

/// The one key an event is about by its own word.
fn key_of_event(event: &Event) -> Option<&KeyId> {
    match event {
        Event::Adopted { key, .. }
        | Event::Disowned { key, .. }
        | Event::ReclaimOrdered { key, .. }
        | Event::Minted { key, .. }
        | Event::ProbePassed { key }
        | Event::ProbeFailed { key, .. }
        | Event::PushBegun { key, .. }
        | Event::DisableBegun { key, .. }
        | Event::Disabled { key }
        | Event::EnableBegun { key, .. }
        | Event::Enabled { key }
        | Event::DeleteBegun { key, .. }
        | Event::Deleted { key }
        | Event::RetireRefused { key, .. }
        | Event::AbsentOnce { key }
        | Event::Reappeared { key }
        | Event::Gone { key } => Some(key),
        _ => None,
    }
}
