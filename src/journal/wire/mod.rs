//! How an event is written: one JSON object, `{"v":1,"kind":"minted",...}`. A file format, apart from the domain's types.
//!
//! Deliberately strict in both directions. A version, a kind, a word or a field that is not known here was written by a newer
//! rekeyd and is refused, because acting on half of an event is worse than not starting. Everything known is always written,
//! absent values as `null`, so what is read must write back to the same object; what does not is damage.
//!
//! To change the format: never change what `v1.jsonl` pins. A new kind of event is a new row in `event.rs`. A new field of an
//! old kind is written only where it has a value (`skip_serializing_if`), so that old rows still read back the same.

use serde::Serialize;
use serde_json::Value;

use crate::rotation::event::Event;

mod event;
mod parts;
#[cfg(test)]
pub(super) mod samples;

/// The version written, and the only one read so far.
const VERSION: u64 = 1;

/// Why stored bytes are not an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// A newer rekeyd wrote them.
    #[error("{0}: written by a newer rekeyd")]
    Newer(String),
    /// They are not what any rekeyd writes.
    #[error("{0}")]
    Damaged(String),
}

/// A domain type that has a written form of its own.
///
/// One trait rather than `From` and `TryFrom`, because those cannot be given to `Option`, `Vec` and pairs.
trait Stored: Sized {
    /// The written form.
    type Form: Serialize + serde::de::DeserializeOwned;
    /// Writes it.
    fn form(&self) -> Self::Form;
    /// Reads it.
    fn read(form: Self::Form) -> Result<Self, Unread>;
}

#[derive(Serialize)]
struct Envelope {
    v: u64,
    #[serde(flatten)]
    event: <Event as Stored>::Form,
}

/// The event as stored. Refuses (`Damaged`) an event that could not be read back, such as one with a date beyond year 9999.
pub fn encode(event: &Event) -> Result<String, Unread> {
    let text = serde_json::to_string(&Envelope { v: VERSION, event: event.form() })
        .map_err(|error| Unread::Damaged(format!("the event cannot be written: {error}")))?;
    decode(&text)?;
    Ok(text)
}

/// The event that was stored.
pub fn decode(text: &str) -> Result<Event, Unread> {
    let stored: Value =
        serde_json::from_str(text).map_err(|error| Unread::Damaged(format!("the event is not JSON: {error}")))?;
    let version = stored.get("v").and_then(Value::as_u64);
    let kind = stored.get("kind").and_then(Value::as_str);
    let (Some(version), Some(kind)) = (version, kind) else {
        return Err(Unread::Damaged("the event states no version or no kind".into()));
    };
    if version > VERSION {
        return Err(Unread::Newer(format!("the event `{kind}` is in format {version}, this rekeyd knows {VERSION}")));
    }
    if version < VERSION {
        return Err(Unread::Damaged(format!("the event `{kind}` is in format {version}, which never was")));
    }
    if !event::KINDS.contains(&kind) {
        return Err(Unread::Newer(format!("the event `{kind}` is not known")));
    }
    let form = serde_json::from_value(stored.clone())
        .map_err(|error| Unread::Damaged(format!("the event `{kind}` does not read: {error}")))?;
    let event = Event::read(form).map_err(|unread| match unread {
        Unread::Newer(what) => Unread::Newer(format!("the event `{kind}` has {what}")),
        Unread::Damaged(what) => Unread::Damaged(format!("the event `{kind}` has {what}")),
    })?;
    let again = serde_json::to_value(Envelope { v: VERSION, event: event.form() })
        .map_err(|error| Unread::Damaged(format!("the event `{kind}` does not write back: {error}")))?;
    if again == stored {
        return Ok(event);
    }
    Err(match unknown_field(&stored, &again, "") {
        Some(field) => Unread::Newer(format!("the event `{kind}` has a field `{field}` that is not known")),
        None => Unread::Damaged(format!("the event `{kind}` does not write back to what is stored")),
    })
}

/// The first field that is stored and would not be written.
fn unknown_field(stored: &Value, again: &Value, at: &str) -> Option<String> {
    match (stored, again) {
        (Value::Object(stored), Value::Object(again)) => stored.iter().find_map(|(name, value)| {
            let at = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
            match again.get(name) {
                Some(known) => unknown_field(value, known, &at),
                None => Some(at),
            }
        }),
        (Value::Array(stored), Value::Array(again)) => {
            stored.iter().zip(again).find_map(|(value, known)| unknown_field(value, known, at))
        }
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every event as version 1 writes it. Rows are added; none is ever changed.
    const PINNED: &str = include_str!("v1.jsonl");

    #[test]
    fn every_event_writes_and_reads_back() {
        for event in samples::events() {
            let text = encode(&event).unwrap();
            assert_eq!(decode(&text).unwrap(), event, "{text}");
        }
    }

    #[test]
    fn there_is_a_sample_of_every_kind() {
        let texts: Vec<Value> =
            samples::events().iter().map(|event| serde_json::from_str(&encode(event).unwrap()).unwrap()).collect();
        let sampled: BTreeSet<&str> = texts.iter().filter_map(|event| event["kind"].as_str()).collect();
        assert_eq!(sampled, event::KINDS.iter().copied().collect());
    }

    #[test]
    fn an_event_is_stored_under_the_name_history_shows() {
        for event in samples::events() {
            assert!(encode(&event).unwrap().starts_with(&format!(r#"{{"v":1,"kind":"{}""#, event.kind())));
        }
    }

    #[test]
    fn the_format_is_the_one_that_was_pinned() {
        let events = samples::events();
        let pinned: Vec<&str> = PINNED.lines().collect();
        for (event, line) in events.iter().zip(&pinned) {
            assert_eq!(encode(event).unwrap(), *line, "what version 1 writes never changes");
            assert_eq!(decode(line).unwrap(), *event, "what version 1 wrote stays readable");
        }
        let fresh: Vec<String> = events.iter().skip(pinned.len()).map(|event| encode(event).unwrap()).collect();
        assert!(fresh.is_empty(), "add to v1.jsonl:\n{}", fresh.join("\n"));
        assert_eq!(pinned.len(), events.len(), "v1.jsonl has rows without a sample");
    }

    #[test]
    fn what_a_newer_rekeyd_wrote_is_refused_as_such() {
        for (text, what) in [
            (r#"{"v":2,"kind":"disabled","key":"A"}"#, "the event `disabled` is in format 2, this rekeyd knows 1"),
            (r#"{"v":2,"kind":"what","ever":1}"#, "the event `what` is in format 2, this rekeyd knows 1"),
            (r#"{"v":1,"kind":"frozen","key":"A"}"#, "the event `frozen` is not known"),
            (
                r#"{"v":1,"kind":"disabled","key":"A","for_ms":1}"#,
                "the event `disabled` has a field `for_ms` that is not known",
            ),
            (
                r#"{"v":1,"kind":"drift_cleared","by":"x"}"#,
                "the event `drift_cleared` has a field `by` that is not known",
            ),
            (
                r#"{"v":1,"kind":"ordered","cause":{"kind":"signal","number":10}}"#,
                "the event `ordered` has a field `cause.number` that is not known",
            ),
            (
                r#"{"v":1,"kind":"ordered","cause":{"kind":"whim"}}"#,
                "the event `ordered` has a cause that is not known",
            ),
            (
                r#"{"v":1,"kind":"halted","reason":"bored","message":"m"}"#,
                "the event `halted` has the reason `bored`, which is not known",
            ),
            (
                r#"{"v":1,"kind":"closed","outcome":{"kind":"failed","reason":"bored","why":"w"}}"#,
                "the event `closed` has the reason `bored`, which is not known",
            ),
        ] {
            assert_eq!(decode(text).unwrap_err().to_string(), format!("{what}: written by a newer rekeyd"));
        }
    }

    #[test]
    fn what_no_rekeyd_writes_is_damage() {
        for text in [
            "",
            "nonsense",
            "[]",
            "null",
            r#"{"kind":"disabled","key":"A"}"#,
            r#"{"v":1,"key":"A"}"#,
            r#"{"v":0,"kind":"disabled","key":"A"}"#,
            r#"{"v":"1","kind":"disabled","key":"A"}"#,
            r#"{"v":1,"kind":"disabled"}"#,
            r#"{"v":1,"kind":"disabled","key":7}"#,
            r#"{"v":1,"kind":"minted","key":"A","tail":null}"#,
            r#"{"v":1,"kind":"minted","key":"A","created":"yesterday","tail":null}"#,
            r#"{"v":1,"kind":"minted","key":"A","created":"2026-01-01T00:00:00+00:00","tail":null}"#,
        ] {
            assert!(matches!(decode(text), Err(Unread::Damaged(_))), "{text}: {:?}", decode(text));
        }
    }

    #[test]
    fn time_keeps_its_last_nanosecond_and_a_wait_is_never_shortened() {
        let nanosecond = "2026-11-22T01:02:03.000000001Z".parse().unwrap();
        let event = Event::Minted { key: crate::model::KeyId::new("A"), created: Some(nanosecond), tail: None };
        assert_eq!(decode(&encode(&event).unwrap()).unwrap(), event);
        assert_eq!(std::time::Duration::from_nanos(1_000_001).form(), 2);
        assert_eq!(std::time::Duration::MAX.form(), u64::MAX);
    }
}
