//! What the issuers of Azure have in common: the policy's account, its login, requests to ARM and Graph, and what an answer means.
//!
//! Not a kind: it has no line in `KINDS`. The two keys of an account are here too, since two kinds rotate them: `azure_key` hands them
//! over, `azure_sas` signs with them. The kinds see this room and not each other.

pub(super) mod account;
pub(super) mod blob;
mod certificate;
pub(super) mod client;
pub(super) mod faults;
pub(super) mod keys;
pub(super) mod login;
pub(super) mod resource;
pub(super) mod rights;
pub(super) mod slots;
