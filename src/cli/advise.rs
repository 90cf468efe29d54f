//! `advise`: which services could leave their key behind for a role or an identity, what that takes, and what to type then. Asks the
//! deployments and changes nothing.

use std::path::Path;

use crate::daemon::Failure;
use crate::daemon::attempts::Attempts;
use crate::daemon::checkup::{Checked, Question};
use crate::engine::examine::told::{Advice, TargetAdvice, Verdict};

use super::Exit;
use super::ask::{reach, unexpected};
use super::doctor::check;
use super::show::{plain, print, print_json};

/// A service of which nobody could be asked ends it with 1.
pub(super) async fn advise(policy_path: &Path, json: bool, attempts: &Attempts) -> Result<Exit, Failure> {
    let Checked::Advice(advice) = check(reach(policy_path).await?, Question::Advice, attempts).await? else {
        return Err(unexpected());
    };
    match json {
        true => print_json(&advice),
        false => print(&advice.iter().map(text).collect::<Vec<_>>().join("\n")),
    }
    let untold = advice.iter().any(|advice| advice.verdict == Verdict::Unknown);
    Ok(if untold { Exit::Trouble } else { Exit::Done })
}

fn text(advice: &Advice) -> String {
    let name = &advice.service;
    let verdict = match (advice.verdict, &advice.to) {
        (Verdict::Already, _) => "uses no key already".to_owned(),
        (Verdict::Possible, Some(to)) => format!("could use {to} instead of a key"),
        (Verdict::Possible | Verdict::Impossible, _) => "keeps its key".to_owned(),
        (Verdict::Unknown, _) => "could not be told".to_owned(),
    };
    let mut text = format!("{name}: {verdict}\n");
    text.extend(advice.targets.iter().map(target));
    if let Some(command) = &advice.command {
        text.push_str(&format!("  once that is done: {command}\n"));
    }
    text
}

fn target(target: &TargetAdvice) -> String {
    let now = target.now.as_deref().unwrap_or("a key");
    let stands = match target.verdict {
        Verdict::Already => format!("{now}, which holds no key"),
        Verdict::Possible => format!("holds {now} now"),
        Verdict::Impossible | Verdict::Unknown => target.why.clone().unwrap_or_default(),
    };
    let mut text = format!("  {}: {}\n", target.target, plain(&stands));
    text.extend(target.prepare.iter().map(|what| format!("    prepare: {}\n", plain(what))));
    text.extend(target.unseen.iter().map(|what| format!("    not seen from here: {}\n", plain(what))));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(verdict: Verdict) -> TargetAdvice {
        TargetAdvice {
            target: "arcgis:prod:a1".into(),
            verdict,
            now: Some("ACCESS-KEY".into()),
            why: Some("it is old\u{1b}[2J".into()),
            prepare: vec!["a role".into()],
            unseen: vec!["the role".into()],
        }
    }

    #[test]
    fn advice_ends_with_what_to_type() {
        let possible = Advice {
            service: "a".into(),
            verdict: Verdict::Possible,
            to: Some("iam-role".into()),
            command: Some("rekeyd switch a --to iam-role".into()),
            targets: vec![told(Verdict::Possible)],
        };
        let expected = "\
a: could use iam-role instead of a key
  arcgis:prod:a1: holds ACCESS-KEY now
    prepare: a role
    not seen from here: the role
  once that is done: rekeyd switch a --to iam-role
";
        assert_eq!(text(&possible), expected);
        let none = TargetAdvice { prepare: Vec::new(), unseen: Vec::new(), ..told(Verdict::Impossible) };
        let keeps = Advice { verdict: Verdict::Impossible, to: None, command: None, targets: vec![none], ..possible };
        assert_eq!(text(&keeps), "a: keeps its key\n  arcgis:prod:a1: it is old [2J\n");
    }
}
