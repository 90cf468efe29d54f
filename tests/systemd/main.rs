//! rekeyd as a service of a real systemd: installed from its package, started, reloaded, watched, stopped, killed, and its power cut.
//!
//! `tests/run` makes the tree of a small Debian (`provision`) and names it in `REKEYD_SYSTEMD`; without it, or without root, every
//! story says that it is skipped. Its parts: `machine` is a systemd that can be booted and asked, `stage` the lab and the verdict of every
//! story, the rest are stories by subject.

mod machine;
mod orders;
mod service;
mod stage;
