//! rekeyd rotates the cloud credentials ArcGIS Enterprise lives on.
pub mod model;
pub mod ports;
pub mod rotation;
