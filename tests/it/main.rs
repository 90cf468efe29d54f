//! The integration tests, one module for each subject. Real parts: the lab over HTTP, SQLite on disk, the built program.

mod arcgis;
mod aws_iam;
mod azure;
mod azure_key;
mod azure_rotation;
mod azure_sas;
mod azurite;
mod contract;
mod daemon;
mod docs;
mod doctor;
mod entra_secret;
mod f5xc;
mod file;
mod floors;
mod holders;
mod journal;
mod kill;
mod kinds;
mod mistakes;
mod moto;
mod policy;
mod rotation;
mod secrets;
mod support;
mod switch;
