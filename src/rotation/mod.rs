//! The rotation machine: what happens next is decided here, and nothing happens here.
pub mod event;
