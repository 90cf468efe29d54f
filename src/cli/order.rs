//! Orders about one service: to the daemon, or where none runs, into the journal.

use std::path::Path;

use crate::daemon::Failure;
use crate::daemon::protocol::{Ask, SaidLine, Told};
use crate::model::ServiceName;

use super::ask::{Reached, reach, unexpected};
use super::{Exit, offline};

/// Gives the order and prints what became of it.
pub(super) async fn order(policy_path: &Path, ask: Ask) -> Result<Exit, Failure> {
    let told = match reach(policy_path).await? {
        Reached::Daemon(mut daemon, _) => daemon.ask(ask).await?,
        Reached::Nobody(policy) => offline::order(policy, ask).await?,
    };
    let Told::Said(said) = told else { return Err(unexpected()) };
    Ok(print(&said))
}

/// Accepted orders to stdout, refused ones to stderr; one refused is trouble.
pub(super) fn print(said: &[SaidLine]) -> Exit {
    for line in said {
        let service = line.service.as_ref().map_or_else(String::new, |service: &ServiceName| format!("{service}: "));
        let text = format!("{service}{}", super::show::plain(&line.message));
        if line.accepted { println!("{text}") } else { eprintln!("{text}") }
    }
    if said.iter().all(|line| line.accepted) { Exit::Done } else { Exit::Trouble }
}
