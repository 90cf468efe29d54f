//! What the issuers of Azure have in common: the policy's account, its login, requests to ARM and Graph, and what an answer means.
//!
//! Not a kind: it has no line in `KINDS` and mints nothing. It knows nothing of keys, secrets of applications or slots; those are
//! `azure_key`'s, `azure_sas`'s and `entra_secret`'s, which see this room and not each other.

pub(super) mod account;
pub(super) mod blob;
mod certificate;
pub(super) mod client;
pub(super) mod faults;
mod login;
pub(super) mod rights;
