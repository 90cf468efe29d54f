//! rekeyd rotates the cloud credentials ArcGIS Enterprise lives on.
pub mod engine;
pub mod issuer;
pub mod journal;
pub mod model;
pub mod net;
pub mod policy;
pub mod ports;
pub mod rotation;
pub mod schedule;
pub mod seal;
pub mod table;
pub mod target;
