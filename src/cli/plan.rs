//! `plan`: what would be done when, and why, from policy and journal alone; and below it, briefly asked of the deployments, which
//! places hold keys. Needs no daemon and changes nothing. A deployment that cannot be asked costs a line, and no exit code.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use chrono::TimeDelta;
use serde::Serialize;

use crate::daemon::attempts::Attempts;
use crate::daemon::checkup::{Checked, Question};
use crate::daemon::clock::SystemClock;
use crate::daemon::status::in_seconds;
use crate::daemon::{Failure, startup};
use crate::engine::examine::told::{Deployment, Level};
use crate::engine::{look, next_command, opening};
use crate::journal::sqlite;
use crate::model::{Instant, ServiceName, Shape, SystemRef, Timestamp};
use crate::policy::{Policy, Service};
use crate::ports::{Clock, History};
use crate::rotation::ServiceState;
use crate::rotation::event::Cause;
use crate::schedule::{Timetable, format_duration};

use super::Exit;
use super::ask::under;
use super::doctor::{check, head, held, line};
use super::show::{plain, print, print_json};

/// One service's plan.
#[derive(Debug, Serialize)]
struct Plan {
    service: String,
    /// When the next rotation opens; null where none does by itself.
    due: Option<String>,
    /// Why then, or why not at all.
    why: String,
    issuer: String,
    targets: Vec<String>,
    /// What would be done, in order.
    steps: Vec<String>,
    /// The deployments of its targets, with what they hold; null where nobody was asked.
    deployments: Option<Vec<Deployment>>,
}

/// All deployments together may take so long.
const ASKING_MAX: Duration = Duration::from_secs(30);

pub(super) async fn plan(
    policy_path: &Path,
    only: Option<ServiceName>,
    offline: bool,
    json: bool,
    attempts: &Attempts,
) -> Result<Exit, Failure> {
    let policy = startup::policy(policy_path)?;
    for warning in &policy.warnings {
        eprintln!("warning: {warning}");
    }
    if let Some(name) = &only
        && policy.service(name).is_none()
    {
        let known: Vec<_> = policy.services.iter().map(|service| service.name.as_str()).collect();
        let unknown = || format!("there is no service {name}; there are: {}", known.join(", "));
        eprintln!("rekeyd: {}", policy.no_keys_of_its_own(name).unwrap_or_else(unknown));
        return Ok(Exit::Usage);
    }
    let now = SystemClock::new().now();
    let picture = look(histories(&policy)?, &policy, &now);
    let wanted = |service: &&Service| only.as_ref().is_none_or(|name| service.name == *name);
    let rest = ServiceState::default();
    let mut plans: Vec<Plan> = policy
        .services
        .iter()
        .filter(wanted)
        .map(|service| one(service, picture.states.get(&service.name).unwrap_or(&rest), &policy, &now))
        .collect();
    if !json {
        // What is known is shown before anybody is waited for.
        print(&plans.iter().map(text).collect::<Vec<_>>().join("\n"));
    }
    let systems: BTreeSet<String> =
        policy.services.iter().filter(wanted).flat_map(deployments_of).map(ToString::to_string).collect();
    let asked = if offline || systems.is_empty() { None } else { Some(ask(&policy, attempts).await) };
    match (asked, json) {
        (Some(Ok(told)), true) => {
            for (plan, service) in plans.iter_mut().zip(policy.services.iter().filter(wanted)) {
                let own: BTreeSet<String> = deployments_of(service).map(ToString::to_string).collect();
                let told = told.iter().filter(|told| own.contains(&told.name)).cloned();
                plan.deployments = Some(told.collect());
            }
        }
        (Some(Ok(told)), false) => {
            for told in told.iter().filter(|told| systems.contains(&told.name)) {
                print(&format!("\n{}", deployment(told)));
            }
        }
        (Some(Err(why)), false) => print(&format!("\nwhich places hold keys could not be asked: {}\n", plain(&why))),
        (Some(Err(why)), true) => eprintln!("rekeyd: which places hold keys could not be asked: {}", plain(&why)),
        (None, _) => {}
    }
    if json {
        print_json(&plans);
    }
    Ok(Exit::Done)
}

fn deployments_of(service: &Service) -> impl Iterator<Item = &SystemRef> {
    service.targets.iter().filter_map(|target| target.system.as_ref())
}

async fn ask(policy: &Policy, attempts: &Attempts) -> Result<Vec<Deployment>, String> {
    let asked = async { check(under(policy.clone()).await?, Question::Holders, attempts).await };
    match tokio::time::timeout(ASKING_MAX, asked).await {
        Ok(Ok(Checked::Examination(examination))) => Ok(examination.deployments),
        Ok(Ok(Checked::Advice(_))) => Err("the daemon answered another question".to_owned()),
        Ok(Err(failure)) => Err(failure.to_string()),
        Err(_) => Err(format!("no answer within {} s", ASKING_MAX.as_secs())),
    }
}

/// What is worth a look, and what is held; one line where it could not be asked.
fn deployment(told: &Deployment) -> String {
    let worth = told.findings.iter().filter(|finding| finding.level != Level::Ok);
    if told.holders.is_none() {
        let whys: Vec<_> = worth.map(|finding| plain(&finding.said)).collect();
        return format!("{}: which places hold keys could not be asked: {}\n", told.name, whys.join("; "));
    }
    // What the user may do is for doctor to say.
    let worth = worth.filter(|finding| finding.about != "rights").map(|finding| line("  ", finding));
    format!("{}{}{}", head(told), worth.collect::<String>(), held(told))
}

/// A journal that is not there yet is an empty one; one that this user may not read is said to be so.
fn histories(policy: &Policy) -> Result<Vec<History>, Failure> {
    let path = startup::journal_path(policy);
    match path.try_exists() {
        Ok(false) => Ok(Vec::new()),
        Ok(true) => Ok(sqlite::open_read_only(&path)?.load()?),
        Err(error) => {
            eprintln!("warning: journal {} cannot be looked at ({error}); planned as if it were empty", path.display());
            Ok(Vec::new())
        }
    }
}

fn one(service: &Service, state: &ServiceState, policy: &Policy, now: &Instant) -> Plan {
    let (due, why) = when(service, state, policy, now);
    Plan {
        service: service.name.to_string(),
        due: due.map(in_seconds),
        why,
        issuer: service.issuer.object.clone(),
        targets: service.targets.iter().map(|target| target.name.to_string()).collect(),
        steps: steps(service, state),
        deployments: None,
    }
}

fn when(service: &Service, state: &ServiceState, policy: &Policy, now: &Instant) -> (Option<Timestamp>, String) {
    let zone = policy.daemon.timezone;
    let ends = ends(service, state);
    let next = opening(state, service, zone, now, ends);
    let at = next.as_ref().map(|(at, _)| *at);
    if let Some(halt) = &state.halt {
        let command = next_command(&service.name, state, policy).unwrap_or_default();
        return (
            at,
            format!("halted ({}), so nothing is opened before an operator settles it: {command}", halt.reason),
        );
    }
    if let Some(rotation) = &state.rotation {
        let phase = state.phase().map_or("opened", crate::rotation::Phase::as_str);
        return (at, format!("rotation {} is open in phase {phase} and comes to its end first", rotation.id));
    }
    if let Some(by) = &state.paused {
        return (at, format!("paused by {by}; rekeyd resume {} opens rotations again", service.name));
    }
    let Some((opens, cause)) = next else {
        return (None, idle(service, state));
    };
    let ends = ends.map_or_else(String::new, |ends| format!(", which ends by itself {}", in_seconds(ends)));
    let window = if service.windows.is_empty() {
        String::new()
    } else {
        let windows: Vec<_> = service.windows.iter().map(ToString::to_string).collect();
        format!(", inside the window {} ({zone})", windows.join(", "))
    };
    let late = if opens <= now.wall { "; that is now" } else { "" };
    (Some(opens), format!("{}{ends}{window}{late}", reason(service, state, &cause)))
}

/// When the current key, or what is derived from it, ends by itself. Of one that rekeyd made, its making tells; of another, only its
/// issuer does, which is not asked here.
fn ends(service: &Service, state: &ServiceState) -> Option<Timestamp> {
    let current = state.current.as_ref()?;
    let made = Some(current.created).filter(|_| state.last_success.is_some());
    let own = made.and_then(|made| made.checked_add_signed(TimeDelta::from_std(service.valid_for?).ok()?));
    own.into_iter().chain(state.derived_until(&current.key)).min()
}

fn idle(service: &Service, state: &ServiceState) -> String {
    if let Some(keyless) = state.uses_no_key() {
        return format!(
            "it uses {keyless} and no key, so there is none to rotate; rekeyd switch {} --to key mints one again",
            service.name
        );
    }
    let only_issuer = match service.valid_for {
        Some(_) => ", or before the key in use ends by itself, which only its issuer tells",
        None => "",
    };
    match (&state.current, &service.timetable) {
        (None, _) if service.issuer.shape.has_slots() => format!(
            "no current key is known, and which slot is in use is an operator's to say: rekeyd adopt {} KEY_ID --idle-slot-free",
            service.name
        ),
        (None, _) => format!(
            "no current key is known: the daemon takes on the one active key in use, or asks for rekeyd adopt {} KEY_ID",
            service.name
        ),
        (Some(_), Timetable::OnDemand) => format!("only on demand: it has neither every nor cron{only_issuer}"),
        (Some(_), _) => "its timetable names no time to come".into(),
    }
}

fn reason(service: &Service, state: &ServiceState, cause: &Cause) -> String {
    let key = state
        .current
        .as_ref()
        .map_or_else(String::new, |current| format!("key {}, made {}", current.key, in_seconds(current.created)));
    match (cause, &service.timetable) {
        (Cause::Signal, _) => "ordered by SIGUSR1".into(),
        (Cause::Operator { by, .. }, _) => format!("ordered by {by}"),
        (Cause::Drift, _) => "a target lost the key".into(),
        (Cause::MaxAge, _) => format!("max_age is over for {key}"),
        (Cause::Timetable, Timetable::Every(every)) => format!("every {} from {key}", format_duration(*every)),
        (Cause::Timetable, Timetable::Cron(cron)) => format!("cron \"{cron}\", now {key}"),
        (Cause::Timetable, Timetable::OnDemand) => key,
    }
}

fn steps(service: &Service, state: &ServiceState) -> Vec<String> {
    if state.uses_no_key().is_some() {
        return Vec::new();
    }
    let (shape, terms, object) = (service.issuer.shape, &service.terms, &service.issuer.object);
    let old = state.current.as_ref().map_or_else(|| "the old key".to_owned(), |current| format!("key {}", current.key));
    let sign = if shape == Shape::Derived { ", and sign with it" } else { "" };
    let mint = match shape.has_slots() {
        true => format!("make a new key at {object} in the idle slot, which ends whatever key is there{sign}"),
        false => format!("mint a key at {object}"),
    };
    let mut steps = vec![
        mint,
        format!(
            "wait {} and probe it until it works {} times in a row",
            format_duration(service.issuer.propagation),
            terms.probes
        ),
    ];
    steps.extend(service.targets.iter().map(|target| {
        let it = match &target.derived_by {
            Some(by) => format!("sign with it ({}), probe what is signed,", by.object),
            None => "probe it,".to_owned(),
        };
        format!("{it} push it to {}, follow the job to its end, read it back", target.name)
    }));
    // What cannot be disabled is left alone for as long as it would have been watched.
    let watch = if shape.can_disable() { Duration::ZERO } else { terms.watch };
    steps.push(format!(
        "leave {old} usable for {} ({} where a read-back cannot tell)",
        format_duration(terms.soak + watch),
        format_duration(terms.soak_unproven + watch)
    ));
    steps.extend(retire(service, state, &old));
    steps
}

/// How the old key goes, by what its issuer can do.
fn retire(service: &Service, state: &ServiceState, old: &str) -> Vec<String> {
    let (shape, settle) = (service.issuer.shape, format_duration(service.issuer.settle));
    let ours = state.current.as_ref().is_none_or(|current| current.ours);
    let mut steps = vec![match shape.can_disable() {
        true => format!("see {old} silent, disable it, watch for {}", format_duration(service.terms.watch)),
        false => {
            format!(
                "read every target and try the new key: nothing here can be disabled, and the end of {old} cannot be undone"
            )
        }
    }];
    steps.push(match (ours, shape.has_slots()) {
        (false, _) => {
            format!("not delete it: it was taken on by itself, and rekeyd adopt {} has to confirm it", service.name)
        }
        (true, true) => format!(
            "replace it in its slot by a key that nobody has, which ends every SAS signed with it too, and see it gone from two \
             listings {settle} apart"
        ),
        (true, false) => format!("delete it, and see it gone from two listings {settle} apart"),
    });
    steps
}

fn text(plan: &Plan) -> String {
    let due = plan.due.as_ref().map_or_else(|| "nothing by itself".to_owned(), |due| format!("due {due}"));
    let mut text = format!("{}: {due} ({})\n", plan.service, plain(&plan.why));
    text.push_str(&format!("  from {} to {}\n", plan.issuer, plan.targets.join(", ")));
    for (number, step) in plan.steps.iter().enumerate() {
        text.push_str(&format!("  {}. {step}\n", number + 1));
    }
    text
}
