//! The built program in the worst of weather: killed at random instants and at chosen requests, its power cut at a write, its disk
//! full, failing or read-only, its journal cut, changed or taken from a backup, and two of it at once. Afterwards every promise holds.
//!
//! `cargo test --test chaos` is the short form. `REKEYD_CHAOS_KILLS=500 cargo test --release --test chaos storm` is a long one, and
//! `REKEYD_CHAOS_SEED=N` makes the choices of another run again (`dice.rs` says what that can do). What was done is written to the
//! standard error of the test itself, so that it is seen without asking.
//!
//! Its parts: `storm` is the stage, `verdict` looks from outside whether all is well, `shim` is the disk, `dice` the chance.

mod backup;
mod cut;
mod dice;
mod disk;
mod hang;
mod killing;
mod moto;
mod shim;
mod storm;
mod verdict;

/// A real IAM, STS and S3, shared with the integration tests; not all of it is used here.
#[allow(dead_code)]
#[path = "../it/moto.rs"]
mod moto_server;
/// Scenes, processes and waiting, shared with the integration tests; not all of it is used here.
#[allow(dead_code)]
#[path = "../it/support.rs"]
mod support;
