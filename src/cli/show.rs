//! `status`, `strangers`, `history`, `ledger verify`: what is only read, as tables for people and as JSON for programs.

use std::io::Write;
use std::path::Path;

use crate::daemon::clock::SystemClock;
use crate::daemon::protocol::{Ask, Told};
use crate::daemon::records::{ChainLine, HistoryLine};
use crate::daemon::status::{Service, Status};
use crate::daemon::{Failure, records, startup};
use crate::engine::look;
use crate::journal::sqlite;
use crate::model::ServiceName;
use crate::ports::Clock;

use super::Exit;
use super::ask::{Reached, reach, unexpected};

/// Longer messages are cut in the table; they stand in full below it.
const MESSAGE_WIDTH: usize = 60;

pub(super) async fn status(policy_path: &Path, json: bool) -> Result<Exit, Failure> {
    let status = standing(policy_path).await?;
    match json {
        true => print_json(&status),
        false => print(&table(&status)),
    }
    Ok(if status.needs_somebody() { Exit::Trouble } else { Exit::Done })
}

pub(super) async fn strangers(policy_path: &Path, json: bool) -> Result<Exit, Failure> {
    let status = standing(policy_path).await?;
    let found = |service: &Service| service.strangers.iter().map(|key| (service.name.clone(), key.clone())).collect();
    let pairs: Vec<(String, String)> = status.services.iter().flat_map::<Vec<_>, _>(found).collect();
    if json {
        let list: Vec<_> = pairs.iter().map(|(name, key)| serde_json::json!({"service": name, "key": key})).collect();
        print_json(&list);
        return Ok(Exit::Done);
    }
    let mut text = String::new();
    for (name, key) in &pairs {
        text.push_str(&format!(
            "{name}: key {key} is at the issuer and unknown to the journal\n  rekeyd reclaim {name} {key}   (ours, unused: \
             destroy it)\n  rekeyd disown {name} {key}   (somebody else's: leave it)\n"
        ));
    }
    if pairs.is_empty() {
        text.push_str("no strangers\n");
    }
    print(&text);
    Ok(Exit::Done)
}

pub(super) async fn history(policy_path: &Path, service: ServiceName, json: bool) -> Result<Exit, Failure> {
    let lines = match reach(policy_path).await? {
        Reached::Daemon(mut daemon, policy) => match daemon.ask(Ask::History { service: service.clone() }).await? {
            Told::History(lines) => {
                let follows =
                    policy.filter(|_| lines.is_empty()).and_then(|policy| policy.no_keys_of_its_own(&service));
                match follows {
                    Some(why) => return Ok(unknown(&why)),
                    None => lines,
                }
            }
            Told::NoSuchService(why) => return Ok(unknown(&why)),
            _ => return Err(unexpected()),
        },
        Reached::Nobody(policy) => {
            let found = records::history(&startup::journal_path(&policy), &service)?;
            match found {
                Some(lines) => lines,
                None if policy.service(&service).is_some() => Vec::new(),
                None if let Some(why) = policy.no_keys_of_its_own(&service) => return Ok(unknown(&why)),
                None => return Ok(unknown(&format!("neither policy nor journal knows a service {service}"))),
            }
        }
    };
    if json {
        print_json(&lines);
    } else {
        print(&history_text(&lines));
    }
    Ok(Exit::Done)
}

pub(super) async fn verify(policy_path: &Path, json: bool) -> Result<Exit, Failure> {
    let chains = match reach(policy_path).await? {
        Reached::Daemon(mut daemon, _) => match daemon.ask(Ask::Verify {}).await? {
            Told::Ledger(chains) => chains,
            _ => return Err(unexpected()),
        },
        Reached::Nobody(policy) => records::verify(&startup::journal_path(&policy))?,
    };
    if json {
        print_json(&chains);
    } else {
        print(&ledger_text(&chains));
    }
    Ok(if chains.iter().all(|chain| chain.ok) { Exit::Done } else { Exit::Trouble })
}

fn unknown(why: &str) -> Exit {
    eprintln!("rekeyd: {why}");
    Exit::Usage
}

/// How everything stands: the daemon's word, or what the journal says where none runs.
async fn standing(policy_path: &Path) -> Result<Status, Failure> {
    let policy = match reach(policy_path).await? {
        Reached::Daemon(mut daemon, _) => {
            return match daemon.ask(Ask::Status {}).await? {
                Told::Status(status) => Ok(status),
                _ => Err(unexpected()),
            };
        }
        Reached::Nobody(policy) => policy,
    };
    let journal = startup::journal_path(&policy);
    let histories = sqlite::open_read_only(&journal)?.load()?;
    eprintln!(
        "no daemon answers at {}: this is what journal {} says, and nothing moves",
        policy.daemon.control.display(),
        journal.display()
    );
    Ok(Status::of(&look(histories, &policy, &SystemClock::new().now()).report))
}

fn table(status: &Status) -> String {
    let head = ["SERVICE", "STATE", "PHASE", "CURRENT KEY", "NEXT ROTATION", "MESSAGE"].map(str::to_owned);
    let dash = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
    let rows: Vec<[String; 6]> = std::iter::once(head)
        .chain(status.services.iter().map(|service| {
            let next = match service.overdue {
                true => format!("{} (overdue)", dash(&service.next_rotation)),
                false => dash(&service.next_rotation),
            };
            let state = service.state.clone();
            [service.name.clone(), state, dash(&service.phase), dash(&service.current_key), next, short(service)]
        }))
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        line.push_str(&row[5]);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    for service in &status.services {
        text.push_str(&below(service));
    }
    if status.services.is_empty() {
        text.push_str("no services\n");
    }
    if let Some(why) = &status.policy_refused {
        let lines: String = why.lines().map(|line| format!("  {}\n", plain(line))).collect();
        text.push_str(&format!("\nthe policy was refused at the last reload, and the old one is in force:\n{lines}"));
        if let Some(next) = &status.policy_next_command {
            text.push_str(&format!("  next: {}\n", plain(next)));
        }
    }
    text
}

fn short(service: &Service) -> String {
    let text = service.reason.clone().or_else(|| service.message.clone()).unwrap_or_default();
    let text = plain(&text);
    match text.chars().count() > MESSAGE_WIDTH {
        true => format!("{}…", text.chars().take(MESSAGE_WIDTH - 1).collect::<String>()),
        false => text,
    }
}

/// What stands below the table: the whole message of who needs somebody or waits, and the next command.
fn below(service: &Service) -> String {
    let mut text = String::new();
    let name = &service.name;
    if matches!(service.state.as_str(), "halted" | "waiting")
        && let Some(message) = &service.message
    {
        text.push_str(&format!("\n{name}: {}\n", plain(message)));
        if let Some(next) = &service.next_command {
            text.push_str(&format!("  next: {}\n", plain(next)));
        }
    }
    if !service.debt.is_empty() {
        text.push_str(&format!("\n{name}: keys that should be gone and are not: {}\n", service.debt.join(", ")));
    }
    if !service.strangers.is_empty() {
        text.push_str(&format!("\n{name}: strangers at the issuer: {}\n", service.strangers.join(", ")));
    }
    if let Some(drift) = &service.drift
        && service.state != "halted"
    {
        text.push_str(&format!("\n{name}: drift: {}\n", plain(drift)));
    }
    text
}

fn history_text(lines: &[HistoryLine]) -> String {
    if lines.is_empty() {
        return "nothing has happened yet\n".into();
    }
    lines
        .iter()
        .map(|line| format!("{}  {}  {}\n", line.at, line.rotation.as_deref().unwrap_or("-"), plain(&line.text)))
        .collect()
}

fn ledger_text(chains: &[ChainLine]) -> String {
    if chains.is_empty() {
        return "the journal is empty\n".into();
    }
    let one = |chain: &ChainLine| {
        let ChainLine { service, events, head, .. } = chain;
        match &chain.damage {
            None => format!("{service}: ok, sound events: {events}, head {head}\n"),
            Some(damage) => {
                format!("{service}: DAMAGED, sound events: {events} (head {head}): {}\n", plain(damage))
            }
        }
    };
    chains.iter().map(one).collect()
}

/// Without control characters: a message may quote what a server said, and must not speak to the terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

/// A reader that went away (`| head`) is no failure of ours.
pub(super) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

pub(super) fn print_json(value: &impl serde::Serialize) {
    let text = serde_json::to_string_pretty(value).expect("what is shown is plain data");
    print(&format!("{text}\n"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::status::tests::service;
    use crate::engine::{Report, StateWord};
    use crate::model::{KeyId, Reason};

    #[test]
    fn the_table_shows_who_needs_somebody_and_what_to_type() {
        let mut halted = service("b");
        halted.state = StateWord::Halted;
        halted.reason = Some(Reason::NoCurrentKey);
        halted.message = Some("two keys are active at aws-iam:main:store\u{1b}[2J: AKIA1, AKIA2".into());
        halted.next_command = Some("rekeyd adopt b KEY_ID".into());
        let mut idle = service("prod-store");
        idle.current_key = Some(KeyId::new("AKIAOLD"));
        let status = Status::of(&Report { at: None, services: vec![halted, idle] });
        let expected = "\
SERVICE     STATE   PHASE  CURRENT KEY  NEXT ROTATION  MESSAGE
b           halted  -      -            -              no-current-key
prod-store  idle    -      AKIAOLD      -

b: two keys are active at aws-iam:main:store [2J: AKIA1, AKIA2
  next: rekeyd adopt b KEY_ID
";
        assert_eq!(table(&status), expected);
    }

    #[test]
    fn a_damaged_chain_is_called_so() {
        let chain = |damage: Option<&str>| ChainLine {
            service: ServiceName::new("a"),
            ok: damage.is_none(),
            events: 3,
            head: "ab12".into(),
            damage: damage.map(str::to_owned),
        };
        let text = ledger_text(&[chain(None), chain(Some("row 4 was changed"))]);
        assert_eq!(
            text,
            "a: ok, sound events: 3, head ab12\na: DAMAGED, sound events: 3 (head ab12): row 4 was changed\n"
        );
    }
}
