//! `doctor`: whether everything would work, before something has to. Asks everybody and changes nothing.
//!
//! The daemon is asked where one runs, since it has the secrets that systemd gives it; else this process asks with what it can read.

use std::path::Path;

use crate::daemon::attempts::Attempts;
use crate::daemon::checkup::{Checked, Question, check_alone};
use crate::daemon::protocol::{Ask, Told};
use crate::daemon::{Failure, log};
use crate::engine::examine::told::{Cover, Deployment, Examination, Finding, Holder, Level, Service};

use super::Exit;
use super::ask::{Reached, reach, unexpected};
use super::show::{plain, print, print_json};

/// Trouble ends it with 1; warnings end it well.
pub(super) async fn doctor(policy_path: &Path, json: bool, attempts: &Attempts) -> Result<Exit, Failure> {
    let reached = reach(policy_path).await?;
    if let Reached::Daemon(_, Some(policy)) | Reached::Nobody(policy) = &reached {
        for warning in &policy.warnings {
            eprintln!("warning: {warning}");
        }
    }
    let Checked::Examination(examination) = check(reached, Question::All, attempts).await? else {
        return Err(unexpected());
    };
    match json {
        true => print_json(&examination),
        false => print(&text(&examination)),
    }
    Ok(if examination.has_trouble() { Exit::Trouble } else { Exit::Done })
}

/// The daemon's answer, or this process's own where none runs.
pub(super) async fn check(reached: Reached, question: Question, attempts: &Attempts) -> Result<Checked, Failure> {
    let ask = match question {
        Question::All => Ask::Doctor {},
        Question::Holders => Ask::Holders {},
        Question::Advice => Ask::Advise {},
    };
    match reached {
        Reached::Daemon(mut daemon, _) => match daemon.ask(ask).await? {
            Told::Examination(examination) => Ok(Checked::Examination(*examination)),
            Told::Advice(advice) => Ok(Checked::Advice(advice)),
            _ => Err(unexpected()),
        },
        Reached::Nobody(policy) => {
            log::start(log::COMMAND, log::Style::Text);
            if question != Question::Holders {
                eprintln!(
                    "no daemon answers at {}: asked from this process, with what user {} may read",
                    policy.daemon.control.display(),
                    crate::daemon::control::user(rustix::process::geteuid().as_raw())
                );
            }
            Ok(check_alone(policy, question, attempts.clone()).await)
        }
    }
}

fn text(examination: &Examination) -> String {
    let mut text: String = examination.findings.iter().map(|finding| line("", finding)).collect();
    let parts = examination.deployments.iter().map(deployment).chain(examination.services.iter().map(service));
    for part in parts {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&part);
    }
    if !examination.services.is_empty() {
        text.push_str("\nnot tried, since it would change something: making, disabling, deleting and pushing keys\n");
    }
    let (troubles, warnings) = (examination.count(Level::Trouble), examination.count(Level::Warning));
    let counted = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    text.push_str(&format!("\n{}, {}\n", counted(troubles, "trouble"), counted(warnings, "warning")));
    text
}

fn deployment(told: &Deployment) -> String {
    format!(
        "{}{}{}",
        head(told),
        told.findings.iter().map(|finding| line("  ", finding)).collect::<String>(),
        held(told)
    )
}

/// `arcgis.prod: ArcGIS Enterprise on Kubernetes 12.0, user rotator`.
pub(super) fn head(told: &Deployment) -> String {
    let version =
        told.version.as_ref().map_or_else(|| " of no told version".to_owned(), |version| format!(" {version}"));
    match (&told.product, &told.user) {
        (Some(product), Some(user)) => plain_line(&format!("{}: {product}{version}, user {user}", told.name)),
        _ => plain_line(&format!("{}:", told.name)),
    }
}

/// What the deployment holds, and what nobody can ask it about.
pub(super) fn held(told: &Deployment) -> String {
    let Some(holders) = &told.holders else { return String::new() };
    let mut text = match holders.is_empty() {
        true => "  holds no credential that it tells of\n".to_owned(),
        false => "  holds credentials at\n".to_owned(),
    };
    text.extend(holders.iter().map(holder));
    if let (false, Some(road)) = (told.beyond.is_empty(), &told.road) {
        text.push_str(&plain_line(&format!("  cannot be asked about {}", told.beyond.join(", or "))));
        text.push_str(&plain_line(&format!("    {road}")));
    }
    text
}

fn holder(holder: &Holder) -> String {
    let kind = holder.credential.as_deref().unwrap_or("a credential of no told type");
    let end = if holder.shows_end { "end shown" } else { "end not shown" };
    let services = holder.services.join(", ");
    let stands = match holder.cover {
        Cover::Covered => format!("{kind}, {end}; target of {services}"),
        Cover::Accepted => format!("{kind}, {end}; left to somebody else by accept_holders"),
        Cover::NotCovered => format!("{kind}, {end}; NO TARGET"),
        Cover::NoKey => {
            let kind = holder.credential.as_ref().map_or_else(String::new, |kind| format!("{kind}, "));
            let covered = if services.is_empty() { String::new() } else { format!("; target of {services}") };
            format!("{kind}no key{covered}")
        }
        Cover::Inherits => {
            let from = holder.inherits.as_deref().unwrap_or("its provider");
            let covered = if services.is_empty() { "no target".to_owned() } else { format!("target of {services}") };
            format!("inherits from {from}; {covered}")
        }
    };
    plain_line(&format!("    {} ({}): {stands}", holder.name, holder.what))
}

fn service(told: &Service) -> String {
    let account = told.account.as_ref().map_or_else(String::new, |account| format!(" in {account}"));
    let mut text = plain_line(&format!("{}: {}{account} to {}", told.name, told.issuer, told.targets.join(", ")));
    text.extend(told.findings.iter().map(|finding| line("  ", finding)));
    text
}

/// A finding, with what to do next below it.
pub(super) fn line(indent: &str, finding: &Finding) -> String {
    let level = match finding.level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Trouble => "TROUBLE",
    };
    let mut text = plain_line(&format!("{indent}{level:8} {}: {}", finding.about, finding.said));
    if let Some(next) = &finding.next {
        text.push_str(&plain_line(&format!("{indent}         next: {next}")));
    }
    text
}

/// Without what would speak to the terminal, and one line.
fn plain_line(text: &str) -> String {
    format!("{}\n", plain(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_reads_as_a_page_with_its_counts_at_the_end() {
        let holder = |name: &str, cover: Cover| Holder {
            name: name.into(),
            what: "cloud service AWS S3".into(),
            credential: Some("ACCESS-KEY".into()),
            shows_end: true,
            inherits: (cover == Cover::Inherits).then(|| "arcgis:prod:p1".to_owned()),
            cover,
            services: if cover == Cover::Covered { vec!["a".into()] } else { Vec::new() },
        };
        let covers = [Cover::Covered, Cover::Inherits, Cover::Accepted, Cover::NoKey, Cover::NotCovered];
        let deployment = Deployment {
            name: "arcgis.prod".into(),
            product: Some("ArcGIS Server".into()),
            version: Some("12.0".into()),
            user: Some("rotator".into()),
            findings: vec![Finding::warning("arcgis:prod:x5", "holds it\u{1b}[2J too", Some("say so".into()))],
            holders: Some(
                covers.into_iter().enumerate().map(|(n, cover)| holder(&format!("x{}", n + 1), cover)).collect(),
            ),
            beyond: vec!["this".into(), "that".into()],
            road: Some("by hand".into()),
        };
        let service = Service {
            name: "a".into(),
            issuer: "aws-iam:main:u".into(),
            targets: vec!["arcgis:prod:x1".into()],
            account: Some("aws:1".into()),
            keys: None,
            quota: None,
            clock_ahead_seconds: None,
            findings: vec![Finding::ok("clock", "fine"), Finding::trouble("keys", "none", None)],
        };
        let examination =
            Examination { version: 1, findings: Vec::new(), deployments: vec![deployment], services: vec![service] };
        let expected = "\
arcgis.prod: ArcGIS Server 12.0, user rotator
  warning  arcgis:prod:x5: holds it [2J too
           next: say so
  holds credentials at
    x1 (cloud service AWS S3): ACCESS-KEY, end shown; target of a
    x2 (cloud service AWS S3): inherits from arcgis:prod:p1; no target
    x3 (cloud service AWS S3): ACCESS-KEY, end shown; left to somebody else by accept_holders
    x4 (cloud service AWS S3): ACCESS-KEY, no key
    x5 (cloud service AWS S3): ACCESS-KEY, end shown; NO TARGET
  cannot be asked about this, or that
    by hand

a: aws-iam:main:u in aws:1 to arcgis:prod:x1
  ok       clock: fine
  TROUBLE  keys: none

not tried, since it would change something: making, disabling, deleting and pushing keys

1 trouble, 1 warning
";
        assert_eq!(text(&examination), expected);
        assert!(examination.has_trouble());
    }
}
