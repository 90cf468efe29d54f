//! rekeyd as a service of a real systemd: installed from its package, started, reloaded, watched, stopped, killed, and its power cut.
//!
//! `tests/run` makes the tree of a small Debian (`provision`) and names it in `REKEYD_SYSTEMD`; without it, or without root, every
//! story says that it is skipped. Its parts: `machine` is a systemd that can be booted and asked, `stage` the lab and the verdict of every
//! story, the rest are stories by subject.

mod credentials;
mod log;
mod machine;
mod orders;
mod package;
mod sandbox;
mod service;
mod stage;
mod weather;

/// The chance of tests/chaos, which its disk is made of.
#[allow(dead_code)]
#[path = "../chaos/dice.rs"]
mod dice;
/// The disk of tests/chaos.
#[allow(dead_code)]
#[path = "../chaos/shim.rs"]
mod shim;
