//! Provider accounts and deployments: `[aws.NAME]`, `[arcgis.NAME]`. Each kind reads its own tables; this file finds them.

use std::collections::BTreeMap;

use super::Kinds;
use crate::model::{SystemRef, SystemSpec};
use crate::table::{Table, did_you_mean, is_name};

/// Every system of the policy by its name; `None` where its table has a mistake, so that nobody calls it missing.
pub(super) struct Systems(BTreeMap<SystemRef, Option<SystemSpec>>);

/// What a service's reference leads to.
pub(super) enum Found<'s> {
    /// This system.
    Spec(&'s SystemSpec),
    /// A system whose own table is wrong; that is reported there.
    Broken,
    /// Nothing; the names there are.
    Missing(Vec<&'s str>),
}

impl Systems {
    pub(super) fn find(&self, table: &str, name: &str) -> Found<'_> {
        let at = SystemRef { table: table.to_owned(), name: name.to_owned() };
        match self.0.get(&at) {
            Some(Some(spec)) => Found::Spec(spec),
            Some(None) => Found::Broken,
            None => Found::Missing(self.0.keys().filter(|at| at.table == table).map(|at| at.name.as_str()).collect()),
        }
    }

    pub(super) fn into_specs(self) -> BTreeMap<SystemRef, SystemSpec> {
        self.0.into_iter().filter_map(|(at, spec)| Some((at, spec?))).collect()
    }
}

/// Reads every system of the policy.
pub(super) fn read(root: &mut Table<'_>, kinds: Kinds<'_>) -> Systems {
    type Reader = fn(&mut Table<'_>) -> Option<serde_json::Value>;
    let mut readers: BTreeMap<&'static str, Reader> = BTreeMap::new();
    for kind in kinds.issuers {
        readers.extend(kind.system.map(|table| (table, kind.read_system)));
    }
    for kind in kinds.targets {
        readers.extend(kind.system.map(|table| (table, kind.read_system)));
    }
    let mut systems = BTreeMap::new();
    for (table, read_system) in &readers {
        let Some(mut group) = root.table(table) else { continue };
        for (name, spot, mut system) in group.named_tables() {
            let at = SystemRef { table: (*table).to_owned(), name };
            if !is_name(&at.name) {
                let help = "a name has 1 to 63 of the letters a-z, digits and `-`, and does not begin with `-`";
                root.document().mistake_at(&spot, format!("`{}` is not a name", at.name), help);
            }
            let config = read_system(&mut system);
            let spec = config.map(|config| SystemSpec { at: at.clone(), config });
            systems.insert(at, spec);
        }
    }
    Systems(systems)
}

/// The system a service's table refers to, for a kind that needs one. `Err`: a mistake is in the report.
pub(super) fn refer<'s>(
    table: &mut Table<'_>,
    key: &'static str,
    group: &str,
    systems: &'s Systems,
) -> Result<Option<&'s SystemSpec>, ()> {
    let name = table.text(key).ok_or(())?;
    match systems.find(group, &name) {
        Found::Spec(spec) => Ok(Some(spec)),
        Found::Broken => Err(()),
        Found::Missing(names) => {
            let help = match (did_you_mean(&name, names.iter().copied()), names.as_slice()) {
                (Some(near), _) => format!("did you mean `{near}`?"),
                (None, []) => format!("add a table [{group}.{name}]"),
                (None, names) => format!("add a table [{group}.{name}]; there is {}", list(names)),
            };
            // Its table may stand in a part of the file that does not parse.
            if !table.document().is_partial() {
                table.mistake(key, format!("there is no [{group}.{name}] in this policy"), help);
            }
            Err(())
        }
    }
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
