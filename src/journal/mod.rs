//! The journal.
mod material;
pub mod wire;
