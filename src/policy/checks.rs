//! What services must not have in common: a name, an issuer object, a target.
//!
//! Only what the file itself shows. Whether two accounts are one account, or two targets one holder, is seen when they are
//! reached; rotations that are still open are the engine's to compare.

use std::collections::BTreeMap;

use super::service::Draft;
use crate::table::{Document, Spot};

/// Checks all services against each other.
pub(super) fn between(document: &Document<'_>, drafts: &[Draft]) {
    names(document, drafts);
    issuers(document, drafts);
    targets(document, drafts);
}

fn names(document: &Document<'_>, drafts: &[Draft]) {
    let mut seen: BTreeMap<&str, &Spot> = BTreeMap::new();
    for (name, spot) in drafts.iter().filter_map(|draft| draft.name.as_ref()) {
        match seen.get(name.as_str()) {
            Some(first) => {
                let what =
                    format!("a second service is called `{name}`; the first stands in line {}", document.line(first));
                document.mistake_at(spot, what, "give one of them another name: its history hangs on it");
            }
            None => {
                seen.insert(name.as_str(), spot);
            }
        }
    }
    let mut claimed: BTreeMap<&str, &Spot> = BTreeMap::new();
    for (old, spot) in drafts.iter().filter_map(|draft| draft.renamed_from.as_ref()) {
        if let Some(owner) = seen.get(old.as_str()) {
            let what = format!("`{old}` is still the name of a service, in line {}", document.line(owner));
            document.mistake_at(
                spot,
                what,
                "`renamed_from` takes over the history of a name that is gone; remove it here or there",
            );
        } else if let Some(first) = claimed.insert(old.as_str(), spot) {
            let what = format!(
                "two services would take over the history of `{old}`; the first stands in line {}",
                document.line(first)
            );
            document.mistake_at(spot, what, "keep one of the two");
        }
    }
}

fn issuers(document: &Document<'_>, drafts: &[Draft]) {
    let mut seen: BTreeMap<&str, (String, &Spot)> = BTreeMap::new();
    for draft in drafts {
        let Some((object, spot)) = &draft.issuer else { continue };
        match seen.get(object.as_str()) {
            Some((first, at)) => {
                let what = format!("{object} is the issuer of {first} already, in line {}", document.line(at));
                let help = "make them one service with several targets, or give each an issuer object of its own: two services would take each other's keys for strangers";
                document.mistake_at(spot, what, help);
            }
            None => {
                seen.insert(object, (called(draft), spot));
            }
        }
    }
}

fn targets(document: &Document<'_>, drafts: &[Draft]) {
    let mut seen: BTreeMap<&str, (usize, String, &Spot)> = BTreeMap::new();
    for (n, draft) in drafts.iter().enumerate() {
        for (target, spot) in &draft.targets {
            match seen.get(target.as_str()) {
                Some((first, who, at)) => {
                    let (what, help) = if *first == n {
                        (
                            format!("{target} is a target of this service already, in line {}", document.line(at)),
                            "remove one of the two",
                        )
                    } else {
                        (
                            format!("{target} is a target of {who} already, in line {}", document.line(at)),
                            "leave it to one of the two: each would push its own key over the other's",
                        )
                    };
                    document.mistake_at(spot, what, help);
                }
                None => {
                    seen.insert(target, (n, called(draft), spot));
                }
            }
        }
    }
}

fn called(draft: &Draft) -> String {
    draft.name.as_ref().map_or_else(|| "another service".to_owned(), |(name, _)| format!("`{name}`"))
}
