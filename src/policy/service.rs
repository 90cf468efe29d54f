//! `[[service]]` with its issuer and its targets.

use chrono_tz::Tz;

use super::systems::{self, Systems};
use super::timing::{self, Settled, Timing};
use super::{Kinds, Service};
use crate::model::{IssuerSpec, ServiceName, TargetName, TargetSpec};
use crate::table::{Spot, Table, did_you_mean};

/// A service as read, with the places that the checks between services point at. What has a mistake is absent.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) name: Option<(ServiceName, Spot)>,
    pub(super) renamed_from: Option<(ServiceName, Spot)>,
    pub(super) issuer: Option<(String, Spot)>,
    pub(super) targets: Vec<(String, Spot)>,
    pub(super) service: Option<Service>,
    /// How its timing is checked against what others make of its keys; absent where it has none.
    pub(super) settled: Option<Settled>,
    /// Whose keys it takes; it is no service of its own then.
    pub(super) follows: Option<Follows>,
}

/// What a service without keys of its own says.
pub(super) struct Follows {
    /// The service it follows.
    pub(super) root: (String, Spot),
    /// The account it names all the same.
    pub(super) account: Option<(String, Spot)>,
    pub(super) kind: &'static str,
    /// As its kind reads it; `None` where there is a mistake.
    pub(super) derivation: Option<serde_json::Value>,
    /// Where its issuer stands.
    pub(super) head: Spot,
    /// Its targets and what it leaves to others; `None` where there is a mistake.
    pub(super) targets: Option<Vec<TargetSpec>>,
    pub(super) accept_holders: Vec<TargetName>,
}

/// Reads one service.
pub(super) fn read(mut table: Table<'_>, defaults: &Timing, systems: &Systems, kinds: Kinds<'_>, zone: Tz) -> Draft {
    let name = table.name("name");
    let of = name.as_ref().map(|name| format!(" of `{name}`")).unwrap_or_default();
    if let Some(name) = &name {
        table.set_title(format!("[[service]] `{name}`"));
    }
    let renamed_from = table.name_or("renamed_from");
    let group = table.name_or("group");
    let accept_holders = accept_holders(&mut table);
    let who = name.as_ref().map_or_else(|| "this service".to_owned(), |name| format!("`{name}`"));
    let document = table.document();
    let timing = Timing::read(&mut table);

    let mut draft = Draft {
        name: name.as_ref().map(|name| (ServiceName::new(name.clone()), table.spot("name"))),
        renamed_from: renamed_from.as_ref().map(|old| (ServiceName::new(old.clone()), table.spot("renamed_from"))),
        ..Draft::default()
    };
    let origin = origin(&mut table, &of, systems, kinds);
    let targets = targets(&mut table, &of, systems, kinds);
    draft.targets =
        targets.iter().flatten().map(|(spec, spot)| (spec.name.as_str().to_owned(), spot.clone())).collect();
    let targets: Option<Vec<TargetSpec>> = targets.into_iter().map(|target| Some(target?.0)).collect();

    if let Some(Origin::Own(spec, _)) = &origin {
        let comes = kinds.issuers.iter().find(|kind| kind.name == spec.kind).and_then(|kind| (kind.material)(spec));
        let refuses = |target: &TargetSpec| {
            let kind = kinds.targets.iter().find(|kind| kind.name == target.kind)?;
            (kind.refuses)(comes?)
        };
        let refusals = targets
            .iter()
            .flatten()
            .zip(&draft.targets)
            .filter_map(|(target, (name, spot))| Some((refuses(target)?, name, spot)));
        for (why, name, spot) in refusals {
            let help = format!("`{}` is held by a target of kind `file`, or one of kind `command`", spec.kind);
            document.mistake_at(spot, format!("{name} cannot hold what `{}` makes: {why}", spec.kind), help);
        }
    }
    let issuer = match origin {
        Some(Origin::Another(follows)) => {
            let root = &follows.root.0;
            for key in timing::KEYS.iter().chain(&["renamed_from", "group"]).filter(|key| table.has(key)) {
                let what = format!("{who} moves with `{root}` and has no `{key}` of its own");
                document.mistake_at(&table.key_spot(key), what, format!("say it in `{root}`, or remove it"));
            }
            draft.follows = Some(Follows { targets, accept_holders, ..follows });
            return draft;
        }
        Some(Origin::Own(spec, spot)) => Some((spec, spot)),
        None => None,
    };
    let settled = timing.settle(defaults, &who, zone, document);
    if let Some((spec, spot)) = &issuer {
        draft.issuer = Some((spec.object.clone(), spot.clone()));
    }
    let (Some(name), Some((mut issuer, _)), Some(mut targets)) = (name, issuer, targets) else { return draft };
    issuer.propagation = settled.propagation.unwrap_or(issuer.propagation);
    tell_what_comes(&issuer, &mut targets, kinds);
    let kind = kinds.issuers.iter().find(|kind| kind.name == issuer.kind);
    let lifetime = kind.and_then(|kind| (kind.lifetime)(&issuer));
    if let (Some(lifetime), Some((_, spot))) = (lifetime, &draft.issuer) {
        settled.check_validity(lifetime, &who, zone, spot, document);
    }
    if let (Some(min), Some((_, spot))) = (kind.and_then(|kind| (kind.watch_min)(&issuer)), &draft.issuer) {
        let spot = if table.has("watch") { table.spot("watch") } else { spot.clone() };
        settled.check_watch(min, &who, &spot, document);
    }
    draft.service = Some(Service {
        name: ServiceName::new(name),
        renamed_from: renamed_from.map(ServiceName::new),
        timetable: settled.timetable.clone(),
        jitter: settled.jitter,
        windows: settled.windows.clone(),
        terms: settled.terms.clone(),
        observe: settled.observe,
        max_age: settled.max_age,
        break_window: settled.break_window,
        on_signal: settled.on_signal,
        on_drift: settled.on_drift,
        group,
        accept_holders,
        issuer,
        targets,
        followers: Vec::new(),
        valid_for: lifetime.map(|lifetime| lifetime.length),
    });
    draft.settled = Some(settled);
    draft
}

/// Names as `doctor` and the halt print them: a kind, a deployment, a place.
fn accept_holders(table: &mut Table<'_>) -> Vec<TargetName> {
    let names = table.texts("accept_holders").unwrap_or_default();
    if let Some(bad) = names.iter().find(|name| name.splitn(3, ':').filter(|part| !part.is_empty()).count() != 3) {
        let help = "write it as the message prints it, such as \"arcgis:prod:uqsip6c2vm\"";
        table.mistake("accept_holders", format!("`{bad}` is not the name of a holder"), help);
    }
    names.into_iter().map(TargetName::new).collect()
}

/// Tells every target what the issuer's keys are made of. Neither sees the other; this is where both are known.
pub(super) fn tell_what_comes(issuer: &IssuerSpec, targets: &mut [TargetSpec], kinds: Kinds<'_>) {
    let kind = kinds.issuers.iter().find(|kind| kind.name == issuer.kind);
    let Some(material) = kind.and_then(|kind| (kind.material)(issuer)) else { return };
    for target in targets {
        if let Some(kind) = kinds.targets.iter().find(|kind| kind.name == target.kind) {
            (kind.expect)(target, material);
        }
    }
}

/// Where the keys of a service come from.
enum Origin {
    /// From an issuer of its own; where it stands.
    Own(IssuerSpec, Spot),
    /// They are another service's.
    Another(Follows),
}

fn origin(service: &mut Table<'_>, of: &str, systems: &Systems, kinds: Kinds<'_>) -> Option<Origin> {
    if !service.has("issuer") {
        let what = format!("`issuer` is missing in {}", service.title());
        service.mistake("issuer", what, "add a table [service.issuer] below it, with `kind = \"aws-iam\"`");
    }
    let mut table = service.titled_table("issuer", format!("[service.issuer]{of}"))?;
    let head = table.head();
    let served: Vec<&'static str> = kinds.issuers.iter().map(|kind| kind.name).collect();
    let name = kind(&mut table, "issuer", &served)?;
    let kind = kinds.issuers.iter().find(|kind| kind.name == name)?;
    if let Some(derivation) = kind.derivation.as_ref().filter(|_| table.has("from")) {
        let root = table.name("from").map(|root| (root, table.spot("from")));
        let account = table.text_or("account").map(|account| (account, table.spot("account")));
        let derivation = (derivation.read)(&mut table);
        let (targets, accept_holders) = (None, Vec::new());
        return Some(Origin::Another(Follows {
            root: root?,
            account,
            kind: name,
            derivation,
            head,
            targets,
            accept_holders,
        }));
    }
    let system = match kind.system {
        Some(group) => systems::refer(&mut table, "account", group, systems),
        None => Ok(None),
    };
    let spec = (kind.read)(&mut table, system.unwrap_or(None))?;
    system.ok()?;
    Some(Origin::Own(spec, head))
}

/// Every target; `None` for one with a mistake.
fn targets(service: &mut Table<'_>, of: &str, systems: &Systems, kinds: Kinds<'_>) -> Vec<Option<(TargetSpec, Spot)>> {
    let tables = service.tables("target");
    if tables.is_empty() {
        let what = format!("{} has no target", service.title());
        service.mistake("target", what, "add a table [[service.target]] below it: a place that holds the key");
        return vec![None];
    }
    tables
        .into_iter()
        .map(|mut table| {
            table.set_title(format!("[[service.target]]{of}"));
            let head = table.head();
            let served: Vec<&'static str> = kinds.targets.iter().map(|kind| kind.name).collect();
            let name = kind(&mut table, "target", &served)?;
            let kind = kinds.targets.iter().find(|kind| kind.name == name)?;
            let system = match kind.system {
                Some(group) => systems::refer(&mut table, "deployment", group, systems),
                None => Ok(None),
            };
            let spec = (kind.read)(&mut table, system.unwrap_or(None))?;
            system.ok()?;
            Some((spec, head))
        })
        .collect()
}

/// The kind of an issuer or target. Without one nobody knows what else belongs into the table.
fn kind(table: &mut Table<'_>, what: &str, served: &[&'static str]) -> Option<&'static str> {
    let found = kind_or_mistake(table, what, served);
    if found.is_none() {
        table.forgive_the_rest();
    }
    found
}

fn kind_or_mistake(table: &mut Table<'_>, what: &str, served: &[&'static str]) -> Option<&'static str> {
    let example = format!("kind = \"{}\"", served.first().copied().unwrap_or("..."));
    if !table.require("kind", &example) {
        return None;
    }
    let text = table.text_or("kind")?;
    if let Some(found) = served.iter().find(|name| **name == text) {
        return Some(found);
    }
    let kinds = served.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let help = match did_you_mean(&text, served.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {kinds}"),
    };
    table.mistake("kind", format!("there is no kind of {what} called `{text}`"), help);
    None
}
