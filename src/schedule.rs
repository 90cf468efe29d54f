//! When things are due: durations as the policy writes them, timetables, windows, jitter.
//!
//! Invariant: arithmetic only. No clock, no journal, no randomness; the same question has the same answer for ever.

mod duration;

pub use duration::{DURATION_MAX, format_duration, parse_duration};
