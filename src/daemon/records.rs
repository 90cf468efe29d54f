//! The journal as operators read it: one service's history, and whether the chains verify. Reads only, needs no lock, and works
//! beside a running daemon.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::journal::sqlite;
use crate::model::ServiceName;
use crate::ports::{History, JournalError, Record};
use crate::rotation::event::{Event, Outcome};
use crate::rotation::in_words;

use super::status::in_seconds;

/// One event of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryLine {
    /// When it was written.
    pub at: String,
    /// Its place in the chain, from 1; 0 where this line is about the chain itself.
    pub sequence: u64,
    /// The rotation it belongs to.
    pub rotation: Option<String>,
    /// Its name in the journal.
    pub event: String,
    /// The same in words.
    pub text: String,
}

/// One service's chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainLine {
    /// Whose.
    pub service: ServiceName,
    /// Whether all of it verifies.
    pub ok: bool,
    /// How many events do, from the first.
    pub events: u64,
    /// The hash of the last of them, in hex.
    pub head: String,
    /// Where and why the rest does not.
    pub damage: Option<String>,
}

/// One service's past; `None` where the journal does not know the service.
///
/// # Errors
/// The journal cannot be read.
pub fn history(journal: &Path, service: &ServiceName) -> Result<Option<Vec<HistoryLine>>, JournalError> {
    let histories = sqlite::open_read_only(journal)?.load()?;
    Ok(histories.into_iter().find(|history| history.service == *service).map(lines))
}

/// Every chain, followed to its end.
///
/// # Errors
/// The journal cannot be read at all.
pub fn verify(journal: &Path) -> Result<Vec<ChainLine>, JournalError> {
    let checked = sqlite::open_read_only(journal)?.verify()?;
    Ok(checked
        .into_iter()
        .map(|chain| ChainLine {
            service: chain.service,
            ok: chain.damage.is_none(),
            events: chain.events,
            head: chain.head,
            damage: chain.damage,
        })
        .collect())
}

fn lines(history: History) -> Vec<HistoryLine> {
    let mut rotation: Option<String> = None;
    let mut lines: Vec<HistoryLine> = history.records.iter().map(|record| line(record, &mut rotation)).collect();
    if let Some(damage) = history.damage {
        let at = lines.last().map_or(String::new(), |line| line.at.clone());
        let text = format!("what follows does not verify: {damage}");
        lines.push(HistoryLine { at, sequence: 0, rotation: None, event: "damaged".into(), text });
    }
    lines
}

/// `rotation` is the one open before this event, and then the one open after it.
fn line(record: &Record, rotation: &mut Option<String>) -> HistoryLine {
    if let Event::Opened { rotation: id, .. } = &record.event {
        *rotation = Some(id.to_string());
    }
    let line = HistoryLine {
        at: in_seconds(record.at.wall),
        sequence: record.sequence,
        rotation: rotation.clone(),
        event: record.event.kind().to_owned(),
        text: with_keys(&record.event),
    };
    if matches!(record.event, Event::Closed { .. }) {
        *rotation = None;
    }
    line
}

/// The event in words, with every key it is about: an auditor searches the history for a key id.
fn with_keys(event: &Event) -> String {
    let text = in_words(event);
    let keys: Vec<String> = match event {
        Event::MintBegun { before, .. } => before.iter().map(ToString::to_string).collect(),
        Event::MintSettled { found, .. } => found.iter().map(ToString::to_string).collect(),
        Event::PushBegun { key, .. } | Event::ProbePassed { key } | Event::ProbeFailed { key, .. } => {
            vec![key.to_string()]
        }
        Event::Closed { outcome: Outcome::Abandoned { holds: Some(key), .. } } => vec![key.to_string()],
        _ => Vec::new(),
    };
    let missing: Vec<_> = keys.into_iter().filter(|key| !text.contains(key.as_str())).collect();
    if missing.is_empty() { text } else { format!("{text} (keys: {})", missing.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Instant, IntentId, KeyId, Timestamp};

    fn record(sequence: u64, event: Event) -> Record {
        let wall = Timestamp::from_timestamp(1_795_000_000, 0).expect("a time of this century");
        let at = Instant { wall, boot: std::time::Duration::ZERO, boot_id: "b".into() };
        Record { service: ServiceName::new("a"), sequence, at, event }
    }

    #[test]
    fn a_history_names_every_key_and_ends_where_it_stops_verifying() {
        let before = vec![KeyId::new("AKIAOLD")];
        let mint = Event::MintBegun { intent: IntentId::new("i1"), before, replaces: None };
        let adopted = Event::Paused { by: "uid 0 (root)".into() };
        let history = History {
            service: ServiceName::new("a"),
            records: vec![record(1, adopted), record(2, mint)],
            damage: Some("row 3 was changed".into()),
        };
        let lines = lines(history);
        assert_eq!(lines[0].text, "paused by uid 0 (root)");
        assert!(lines[1].text.contains("AKIAOLD"), "{}", lines[1].text);
        assert_eq!((lines[1].sequence, lines[1].event.as_str()), (2, "mint_begun"));
        assert_eq!(lines[2].text, "what follows does not verify: row 3 was changed");
    }
}
