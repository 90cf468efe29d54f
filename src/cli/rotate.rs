//! `rotate` and `switch`: order rotations, and wait as far as they were asked to. Without a daemon they run them here, up to Verified.

use std::path::Path;
use std::time::Duration;

use crate::daemon::Failure;
use crate::daemon::protocol::{Ask, SaidLine, Told};
use crate::daemon::status::Status;
use crate::model::ServiceName;
use crate::policy::Policy;

use super::ask::{Daemon, Reached, reach, unexpected};
use super::follow::{Follow, News};
use super::offline::{Offline, own_name};
use super::order::print;
use super::show::plain;
use super::{Exit, Until};

/// How long a daemon that has ended is waited for. A restart takes up to twenty seconds for its end and ten until its next start; an
/// upgrade may take longer.
const BACK_WITHIN: Duration = Duration::from_secs(120);

/// Gives an order that opens rotations: [`Ask::Rotate`] or [`Ask::Switch`].
pub(super) async fn rotate(policy_path: &Path, ask: Ask, wait: Option<Until>) -> Result<Exit, Failure> {
    match reach(policy_path).await? {
        Reached::Daemon(daemon, _) => through(daemon, ask, wait).await,
        Reached::Nobody(policy) if wait == Some(Until::Done) => Err(Failure::Unreachable(format!(
            "no daemon answers at {}, and only the daemon retires old keys; without it, a rotation goes up to verified",
            policy.daemon.control.display()
        ))),
        Reached::Nobody(policy) => alone(policy, ask).await,
    }
}

/// The services such an order is about.
fn services_of(ask: &Ask, policy: &Policy) -> Vec<ServiceName> {
    match ask {
        Ask::Switch { service, .. } => vec![service.clone()],
        Ask::Rotate { services, .. } if !services.is_empty() => services.clone(),
        _ => policy.services.iter().map(|service| service.name.clone()).collect(),
    }
}

async fn through(mut daemon: Daemon, ask: Ask, wait: Option<Until>) -> Result<Exit, Failure> {
    let Told::Status(before) = daemon.ask(Ask::Status {}).await? else { return Err(unexpected()) };
    let Told::Said(said) = daemon.ask(ask).await? else { return Err(unexpected()) };
    let ordered = print(&said);
    let Some(until) = wait else { return Ok(ordered) };
    let mut follow = Follow::new(until, &accepted(&said), &before);
    let mut exit = ordered;
    loop {
        let mut told = Some(daemon.ask(Ask::Watch {}).await?);
        while let Some(Told::Status(status)) = told {
            exit = worse(exit, tell(follow.look(&status)));
            if follow.is_over() {
                return Ok(exit);
            }
            told = daemon.next().await?;
        }
        eprintln!("the daemon ended before the rotation did; it goes on when the daemon is back, which is waited for");
        daemon = daemon.successor(BACK_WITHIN).await?.ok_or_else(|| {
            let minutes = BACK_WITHIN.as_secs() / 60;
            Failure::Unreachable(format!(
                "the daemon was not back within {minutes} minutes; the rotation goes on when it is"
            ))
        })?;
    }
}

async fn alone(policy: Policy, ask: Ask) -> Result<Exit, Failure> {
    let services = services_of(&ask, &policy);
    eprintln!(
        "no daemon answers at {}: rotating in this process, up to verified; the daemon retires the old keys when it runs",
        policy.daemon.control.display()
    );
    let offline = Offline::start(policy, services.clone()).await?;
    let ask = match ask {
        // Only what is seen here is ordered.
        Ask::Rotate { compromised, .. } => Ask::Rotate { services, compromised },
        other => other,
    };
    let outcome = tokio::select! {
        exit = drive(&offline, ask) => exit,
        _ = tokio::signal::ctrl_c() => {
            eprintln!("interrupted; what was begun stands in the journal, and goes on when the daemon runs");
            Ok(Exit::Trouble)
        }
    };
    offline.end().await?;
    outcome
}

async fn drive(offline: &Offline, ask: Ask) -> Result<Exit, Failure> {
    let mut reports = offline.reports();
    let before = Status::of(&reports.borrow_and_update().clone());
    let Ok(command) = ask.into_order(own_name()) else { return Err(unexpected()) };
    let broke = || Failure::Unreachable("the engine has ended; its log says why".into());
    let reply = offline.handle.order(command).await.ok_or_else(broke)?;
    let Told::Said(said) = Told::from(reply) else { return Err(unexpected()) };
    let mut exit = print(&said);
    let mut follow = Follow::new(Until::Verified, &accepted(&said), &before);
    while !follow.is_over() {
        let report = reports.borrow_and_update().clone();
        let status = Status::of(&report);
        exit = worse(exit, tell(follow.look(&status)));
        let waits_for_window = |name: &String| {
            let now = report.at.unwrap_or_default();
            let service = report.services.iter().find(|service| service.name.as_str() == name.as_str());
            service.is_some_and(|service| service.phase.is_none() && service.next_rotation.is_some_and(|at| at > now))
        };
        let names: Vec<String> = follow.names();
        if !names.is_empty() && names.iter().all(waits_for_window) {
            println!("{}: the order stands in the journal; the daemon opens it with the window", names.join(", "));
            return Ok(exit);
        }
        if !follow.is_over() {
            reports.changed().await.map_err(|_| broke())?;
        }
    }
    Ok(exit)
}

fn accepted(said: &[SaidLine]) -> Vec<String> {
    said.iter().filter(|line| line.accepted).filter_map(|line| Some(line.service.as_ref()?.to_string())).collect()
}

fn tell(news: Vec<News>) -> Exit {
    let mut exit = Exit::Done;
    for item in news {
        match item {
            News::There(text) => println!("{}", plain(&text)),
            News::Note(text) => eprintln!("{}", plain(&text)),
            News::Failed(text) => {
                eprintln!("{}", plain(&text));
                exit = Exit::Trouble;
            }
        }
    }
    exit
}

fn worse(one: Exit, other: Exit) -> Exit {
    if one == Exit::Done { other } else { one }
}
