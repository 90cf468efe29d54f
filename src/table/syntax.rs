//! Syntax errors in our words, each with what to do about it, and reading on behind one where that is possible.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::de::{DeTable, Error};

use super::report::Note;

/// How often reading is taken up again behind a line that stopped the parser.
const RESUMES_MAX: usize = 20;

/// A copy of the text without the lines that stop the parser, as long as the text itself so that every place stays where
/// it is; and the errors of those lines.
pub(super) fn readable(text: &str) -> (String, Vec<Note>) {
    let mut readable = text.to_owned();
    let mut stops = Vec::new();
    for _ in 0..RESUMES_MAX {
        let (_, errors) = DeTable::parse_recoverable(&readable);
        let Some(stop) = errors.iter().find(|error| error.message().starts_with("key with no value")) else { break };
        let at = stop.span().map_or(0, |span| span.start);
        let Range { start, end } = line_around(&readable, at);
        let blank: String = readable[start..end].bytes().map(|_| ' ').collect();
        if blank == readable[start..end] {
            break;
        }
        stops.extend(notes(&readable, &errors).into_iter().filter(|note| (start..=end).contains(&note.span.start)));
        readable.replace_range(start..end, &blank);
    }
    (readable, stops)
}

/// The parser's errors, one for each line: what follows on the same line is most often an echo.
pub(super) fn notes(text: &str, errors: &[Error]) -> Vec<Note> {
    let mut notes: Vec<Note> = errors
        .iter()
        .map(|error| {
            let span = error.span().unwrap_or(text.len()..text.len());
            let (what, help) = words(error.message(), text, &span);
            Note { span, what, help }
        })
        .collect();
    notes.sort_by_key(|note| note.span.start);
    one_per_line(text, notes)
}

/// The first note of each line.
pub(super) fn one_per_line(text: &str, mut notes: Vec<Note>) -> Vec<Note> {
    let mut lines = BTreeSet::new();
    notes.retain(|note| lines.insert(line(text, note.span.start)));
    notes
}

/// Drops what was noted about lines that did not parse: they were read as something else than was meant.
pub(super) fn without_echoes(text: &str, syntax: &[Note], mut notes: Vec<Note>) -> Vec<Note> {
    let broken: BTreeSet<usize> = syntax.iter().map(|note| line(text, note.span.start)).collect();
    notes.retain(|note| !broken.contains(&line(text, note.span.start)));
    notes
}

fn line(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count()
}

fn line_around(text: &str, offset: usize) -> Range<usize> {
    let bytes = text.as_bytes();
    let offset = offset.min(bytes.len());
    let start = bytes[..offset].iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
    let end = bytes[offset..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| offset + n);
    start..end
}

/// What is wrong and what to do, for the errors people make; the parser's own words (toml 1.2) for the rest.
fn words(message: &str, text: &str, span: &Range<usize>) -> (String, String) {
    let here = text.get(span.clone()).unwrap_or_default();
    let begins = |start: &str| message.starts_with(start);
    let (what, help) = if here.contains(['“', '”', '„', '‘', '’']) {
        ("curly quotes are not quotes here", "write straight ones: \"...\"")
    } else if begins("string values must be quoted") && here.trim().is_empty() {
        ("nothing stands behind the `=`", "write a value, or remove the line")
    } else if begins("string values must be quoted") {
        ("a text stands here without quotes", "put it in quotes: \"...\"")
    } else if begins("duplicate key") {
        return (format!("`{}` stands here a second time", here.trim()), "keep one of the two".into());
    } else if begins("invalid unquoted key") && here.starts_with(':') {
        ("a `:` stands where `=` belongs", "write `KEY = VALUE`")
    } else if begins("key with no value") {
        ("a key stands here without a value", "write `KEY = VALUE`; a comment begins with `#`")
    } else if begins("unquoted keys cannot be empty") {
        ("a value stands here without a key", "write `KEY = VALUE`")
    } else if begins("invalid basic string") || begins("invalid literal string") {
        ("the text has no closing quote", "end it with the quote it began with, on the same line")
    } else if begins("invalid multi-line") {
        ("the long text has no closing quotes", "end it with the three quotes it began with")
    } else if begins("missing escaped value") {
        ("`\\` begins an escape that does not exist", "write `\\\\` for a backslash, or put the text in single quotes")
    } else if begins("unclosed table") || begins("unclosed array table") {
        ("the table's name has no closing bracket", "write `[NAME]`, or `[[NAME]]` for one of several")
    } else if begins("unclosed array") {
        ("a list that began above is not closed", "end it with `]`")
    } else if begins("unclosed inline table") {
        ("a table that began above is not closed", "end it with `}`")
    } else if begins("missing comma") {
        (
            "a comma is missing, or what began above is not closed",
            "put `,` between two values, and `]` or `}` behind the last",
        )
    } else if begins("unexpected key or value") {
        (
            "something stands behind the end of this line's value",
            "write one `KEY = VALUE` in a line; a comment begins with `#`",
        )
    } else if begins("invalid boolean") {
        ("true and false are written in small letters", "write `true` or `false`")
    } else {
        return (lower(message), "the file is TOML 1.1, which https://toml.io describes".into());
    };
    (what.to_owned(), help.to_owned())
}

fn lower(message: &str) -> String {
    let mut chars = message.trim_end_matches('.').chars();
    chars.next().map_or_else(|| "the text is not TOML".into(), |first| first.to_lowercase().chain(chars).collect())
}
