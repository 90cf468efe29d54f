//! Who decides: the rotation machine. A port like the others, so that a test can put a wrong decision in its place and see it
//! caught.

use crate::model::Instant;
use crate::rotation::{Circumstances, Conclusion, Effect, Found, ServiceState, Step};

/// The two questions the loop asks. What an event does to the state is no question: replay and loop must agree on it.
pub trait Decide: Send + Sync {
    /// What may be done next, in order.
    fn steps(&self, state: &ServiceState, now: &Instant) -> Vec<Step>;

    /// What follows from what an effect came to.
    fn conclude(
        &self,
        state: &ServiceState,
        effect: &Effect,
        found: Found,
        now: &Instant,
        around: &Circumstances,
    ) -> Conclusion;
}

/// The rotation machine itself.
pub struct Machine;

impl Decide for Machine {
    fn steps(&self, state: &ServiceState, now: &Instant) -> Vec<Step> {
        state.steps(now)
    }

    fn conclude(
        &self,
        state: &ServiceState,
        effect: &Effect,
        found: Found,
        now: &Instant,
        around: &Circumstances,
    ) -> Conclusion {
        state.conclude(effect, found, now, around)
    }
}
