//! rekeyd rotates the cloud credentials ArcGIS Enterprise lives on: mint, push, confirm, verify, and only then retire.
//!
//! # The house
//!
//! Upper floors use lower ones, never the other way round; `tests/it/floors.rs` fails on an import that does.
//!
//! | floor | room | what is in it | what is not |
//! |---|---|---|---|
//! | 6 | `main`, [`cli`] | commands, exit codes, what people read | decisions |
//! | 5 | [`daemon`] | the composition root: signals, control socket, HTTP, systemd | rules about keys |
//! | 4 | [`engine`] | the one loop: step, effect, record, apply; pacing and budgets; [`engine::examine`], which only looks | knowledge of any vendor |
//! | 4 | [`policy`] | the TOML file as one typed value, and every mistake in it | secrets, I/O beyond the file |
//! | 3 | [`issuer`] | where keys are minted, one file for each kind | retries, targets |
//! | 3 | [`target`] | the places that must hold a key | retries, issuers |
//! | 2 | [`net`] | clients, signing, redaction, secret sources, programs | vendors' resources |
//! | 2 | [`journal`], [`seal`] | what happened, chained and sealed | what it means |
//! | 2 | [`metrics`] | counts and gauges | the HTTP server |
//! | 1 | [`ports`] | what the engine asks of the world, as traits with contracts | code |
//! | 1 | [`schedule`], [`table`] | time arithmetic; reading TOML without losing the place | clocks, files |
//! | 0 | [`rotation`], [`model`] | the machine, and the words | I/O, clocks, logs |
//!
//! # What is true everywhere
//!
//! * The machine decides and does nothing; the engine does and decides nothing; ports do not retry, and wait only
//!   where their contract says so.
//! * An intent is durable before its effect, a result before the next effect. A restart replays through the same `apply`.
//! * An unknown outcome is its own kind, and never becomes a retry of something that cannot be repeated.
//! * A secret has the type [`model::Secret`], which cannot be printed, and is sealed before it touches a disk.

pub mod cli;
pub mod daemon;
pub mod engine;
pub mod issuer;
pub mod journal;
pub mod metrics;
pub mod model;
pub mod net;
pub mod policy;
pub mod ports;
pub mod rotation;
pub mod schedule;
pub mod seal;
pub mod table;
pub mod target;
