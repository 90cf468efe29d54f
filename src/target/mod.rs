//! Targets: the places that must hold a key. One file or folder and one line in [`KINDS`] for each kind.
//!
//! Invariant: targets never see each other, an issuer, the engine or the journal, and never retry.

use std::sync::Arc;

use crate::model::{MaterialKind, SystemSpec, TargetSpec};
use crate::net::Context;
use crate::ports::{Fault, Target};
use crate::table::Table;

pub mod arcgis;
pub mod command;
pub mod file;

/// A kind of target: how its tables are read and how it is reached.
pub struct Kind {
    /// What the policy calls it: `arcgis`.
    pub name: &'static str,
    /// The policy table of its deployments (`arcgis`), if it needs one.
    pub system: Option<&'static str>,
    /// Reads one deployment of that table.
    pub read_system: fn(&mut Table<'_>) -> Option<serde_json::Value>,
    /// Reads one `[[service.target]]`, all of it but `kind`. Mistakes go into the table's report.
    pub read: fn(&mut Table<'_>, Option<&SystemSpec>) -> Option<TargetSpec>,
    /// Tells a target which material will come, so that its `inspect` can refuse what does not fit before a key is made.
    pub expect: fn(&mut TargetSpec, MaterialKind),
    /// Why a target of this kind can never hold such a key, where the kind alone tells that; a policy that asks for it is mistaken.
    pub refuses: fn(MaterialKind) -> Option<&'static str>,
    /// How many pushes may be under way at once on one deployment; `None` where the kind has no such bound.
    pub jobs_max: fn(&SystemSpec) -> Option<u32>,
    /// Makes the port. Reads secrets; sends nothing yet.
    pub connect: fn(&TargetSpec, Option<&SystemSpec>, &Context) -> Connected,
}

/// For kinds that hold whatever a key is made of.
fn nothing(_material: MaterialKind) -> Option<&'static str> {
    None
}

/// A port, or why it could not be made.
pub type Connected = Result<Arc<dyn Target>, Fault>;

/// Every kind there is.
pub const KINDS: &[Kind] = &[arcgis::KIND, command::KIND, file::KIND];
