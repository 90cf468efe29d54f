//! Where the demo's keys come from, one type for each kind of issuer, as the clouds know them and not as rekeyd does: the first key
//! that a person made, and later what there is in truth.

mod aws;
mod azure;
mod f5;
mod google;
mod ibm;
mod program;

use rekeyd::model::{KeyId, Secret};
use serde_json::Value;

use crate::places::Place;

pub use aws::{give_nodes_a_role, iam_user};
pub use azure::{application, storage_account};
pub use f5::tenant;
pub use google::service_account;
pub use ibm::user;
pub use program::keys;

/// What the demo asks of an issuer.
pub trait Issuer {
    /// As a person calls it.
    fn title(&self) -> String;

    /// The value of `issuer` in the policy.
    fn policy(&self) -> String;

    /// Puts what somebody made by hand into a place: the first key.
    fn furnish(&self, place: &Place);

    /// What an operator says of the first key.
    fn adoption(&self) -> Adoption;

    /// Every key there is now, with the word for its state. `held` is what the place holds, as an object in clear.
    fn keys(&self, held: &Value) -> Vec<String>;

    /// How many keys there are while nothing is rotated.
    fn keys_at_rest(&self) -> usize {
        1
    }

    /// Whether what the place holds opens anything now.
    fn takes(&self, held: &Value) -> bool;

    /// A second service, without keys of its own: what it holds is signed with these.
    fn follower(&self) -> Option<Follower> {
        None
    }
}

/// A service that moves with another one.
pub struct Follower {
    pub name: &'static str,
    /// The cloud service that holds what is signed.
    pub cloud_service: &'static str,
    /// The value of `issuer` in the policy.
    pub policy: String,
}

/// The arguments of `rekeyd adopt`.
pub struct Adoption {
    pub key: KeyId,
    /// Of a secret that cannot be read again, so that rekeyd can go back to it.
    pub secret: Option<Secret>,
    /// The first rotation puts its key into the other slot, and only a person can know that nobody uses what is there.
    pub idle_slot_free: bool,
}

/// The word for a key's state.
fn state(active: bool) -> &'static str {
    if active { "active" } else { "inactive" }
}
