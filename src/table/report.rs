//! Mistakes with their place: what is wrong where, the line with a caret, and what to do about it.
//!
//! A report never shows a literal secret; `mask` says which parts of a line those are.

use std::fmt;
use std::ops::Range;

use super::mask;

/// Everything that is wrong with one file, in the order of its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    file: String,
    mistakes: Vec<Mistake>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where, if it has a place in the file at all.
    pub place: Option<Place>,
    /// What is wrong: lower case, without a full stop.
    pub what: String,
    /// What to do about it.
    pub help: String,
    /// The line, masked, and the line with the caret under it; absent without a place.
    snippet: Option<(String, String)>,
}

/// A place in a file; both counts start at 1, and columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The character in it.
    pub column: usize,
}

/// A mistake as it is noted while reading: its bytes, not yet its line.
#[derive(Clone, Debug)]
pub(super) struct Note {
    pub(super) span: Range<usize>,
    pub(super) what: String,
    pub(super) help: String,
}

impl Report {
    /// A report about the file as a whole, such as one that is not there.
    pub fn about(file: impl Into<String>, what: impl Into<String>, help: impl Into<String>) -> Self {
        let mistake = Mistake { place: None, what: plain(&what.into()), help: plain(&help.into()), snippet: None };
        Self { file: file.into(), mistakes: vec![mistake] }
    }

    /// The file it is about.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// All mistakes, by place.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }

    pub(super) fn new(file: &str, text: &str, notes: &[Note], hidden: &[Range<usize>]) -> Self {
        let mut mistakes: Vec<Mistake> = notes.iter().map(|note| placed(text, note, hidden)).collect();
        mistakes.sort_by(|a, b| (a.place, &a.what).cmp(&(b.place, &b.what)));
        mistakes.dedup_by(|a, b| a.place == b.place && a.what == b.what);
        Self { file: file.to_owned(), mistakes }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in &self.mistakes {
            match &mistake.place {
                Some(place) => writeln!(f, "{}:{}:{}: {}", self.file, place.line, place.column, mistake.what)?,
                None => writeln!(f, "{}: {}", self.file, mistake.what)?,
            }
            if let (Some(place), Some((line, caret))) = (&mistake.place, &mistake.snippet) {
                let number = place.line.to_string();
                let margin = " ".repeat(number.len());
                writeln!(f, "{}", format!(" {number} | {line}").trim_end())?;
                writeln!(f, " {margin} | {caret}")?;
            }
            writeln!(f, "help: {}", mistake.help)?;
            writeln!(f)?;
        }
        match self.mistakes.len() {
            1 => writeln!(f, "1 mistake in {}", self.file),
            n => writeln!(f, "{n} mistakes in {}", self.file),
        }
    }
}

impl std::error::Error for Report {}

/// Where in the text a byte stands.
pub(super) fn place_of(text: &str, offset: usize) -> Place {
    let offset = floor(text, offset);
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |n| n + 1);
    Place { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}

fn placed(text: &str, note: &Note, hidden: &[Range<usize>]) -> Mistake {
    let mut start = floor(text, note.span.start);
    // A mistake at the very end of a file (something was expected there) is shown at the end of its last line of text.
    if start == text.len() {
        start = text.trim_end().len();
    }
    let place = place_of(text, start);
    let line_start = text[..start].rfind('\n').map_or(0, |n| n + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |n| start + n);
    let end = floor(text, note.span.end).clamp(start, line_end);
    let snippet = snippet(text, line_start..line_end, start..end, hidden);
    let conceal = |said: &str| plain(&without_secrets(said, text, hidden));
    Mistake { place: Some(place), what: conceal(&note.what), help: conceal(&note.help), snippet: Some(snippet) }
}

/// The masked line, and the line of carets that fits under it in a terminal.
fn snippet(text: &str, line: Range<usize>, span: Range<usize>, hidden: &[Range<usize>]) -> (String, String) {
    let (mut shown, mut under) = (String::new(), String::new());
    let mut masked: Option<&Range<usize>> = None;
    for (n, c) in text[line.clone()].char_indices() {
        let at = line.start + n;
        let inside = hidden.iter().find(|range| range.contains(&at));
        let entering = inside.is_some() && inside != masked;
        masked = inside;
        let (visible, width) = match (inside.is_some(), entering, c) {
            (true, true, _) => ("***".to_owned(), 3),
            (true, false, _) | (_, _, '\r') => continue,
            (_, _, '\t') => ("\t".to_owned(), 1),
            // A control character in a file could speak to the terminal.
            (_, _, c) if c.is_control() => ("\u{fffd}".to_owned(), 1),
            (_, _, c) => (c.to_string(), width(c)),
        };
        let marked = at >= span.start && (at < span.end || at == span.start);
        let covered = inside.is_some_and(|range| range.start <= span.start && span.start < range.end);
        let pad = match (marked || (entering && covered), c, width) {
            (true, _, width) => "^".repeat(width),
            (false, '\t', _) => "\t".to_owned(),
            (false, _, width) => " ".repeat(width),
        };
        shown.push_str(&visible);
        under.push_str(&pad);
    }
    if !under.contains('^') {
        under.push('^');
    }
    (shown.trim_end().to_owned(), under.trim_end().to_owned())
}

/// A message may quote what the file says; not the parts that are hidden.
fn without_secrets(said: &str, text: &str, hidden: &[Range<usize>]) -> String {
    let mut said = said.to_owned();
    for secret in hidden.iter().filter_map(|range| text.get(range.clone())).map(str::trim) {
        // Shorter ones would blank out words of the message; no message quotes a value under a secret key anyway.
        if secret.len() >= 6 && said.contains(secret) {
            said = said.replace(secret, "***");
        }
    }
    said
}

fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

fn floor(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// Terminal columns of a character: wide scripts and emoji take two, combining marks none. The common blocks only.
fn width(c: char) -> usize {
    match c as u32 {
        0x0300..=0x036F | 0x200B..=0x200F | 0xFE00..=0xFE0F => 0,
        0x1100..=0x115F
        | 0x2E80..=0xA4CF
        | 0xAC00..=0xD7A3
        | 0xF900..=0xFAFF
        | 0xFE30..=0xFE6F
        | 0xFF00..=0xFF60
        | 0xFFE0..=0xFFE6
        | 0x1F300..=0x1FAFF
        | 0x20000..=0x3FFFD => 2,
        _ => 1,
    }
}

/// Ranges that are hidden whatever else is found, joined with what looks secret in the text.
pub(super) fn hidden(text: &str, more: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut ranges = mask::secret_ranges(text);
    ranges.extend(more.iter().cloned());
    mask::merge(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str, word: &str) -> String {
        let start = text.find(word).expect("the word stands in the text");
        let note = Note { span: start..start + word.len(), what: "wrong".into(), help: "right".into() };
        Report::new("p.toml", text, &[note], &hidden(text, &[])).to_string()
    }

    #[test]
    fn a_mistake_is_shown_with_its_line_a_caret_and_help() {
        assert_eq!(
            report("a = 1\n  evry = \"30d\"\n", "evry"),
            "p.toml:2:3: wrong\n 2 |   evry = \"30d\"\n   |   ^^^^\nhelp: right\n\n1 mistake in p.toml\n"
        );
    }

    #[test]
    fn the_caret_stands_right_behind_tabs_accents_and_wide_letters() {
        assert!(report("\tx = 1", "x").contains("p.toml:1:2: wrong\n 1 | \tx = 1\n   | \t^\n"));
        assert!(report("ü = é, x", "x").contains("p.toml:1:8: wrong\n 1 | ü = é, x\n   |        ^\n"));
        assert!(report("\"漢\" = x", "x").contains("p.toml:1:7: wrong\n 1 | \"漢\" = x\n   |        ^\n"));
    }

    #[test]
    fn a_secret_is_never_shown_and_the_caret_follows_the_mask() {
        let text = "t = { password = \"hunter2-hunter2\", user = 1 }";
        let shown = report(text, "user");
        assert!(shown.contains(":1:37: "), "{shown}");
        assert!(shown.contains("t = { password = \"***\", user = 1 }\n   |                         ^^^^\n"), "{shown}");
        let shown = report(text, "hunter2-hunter2");
        assert!(shown.contains("\n   |                   ^^^\n") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_message_that_quotes_a_secret_is_masked_too() {
        let text = "password = \"hunter2\"";
        let note = Note { span: 0..8, what: "bad value `hunter2`".into(), help: "not hunter2".into() };
        let shown = Report::new("p.toml", text, &[note], &hidden(text, &[])).to_string();
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn the_end_of_the_file_is_a_place_too() {
        let text = "a = [1,\n\n";
        let note = Note { span: text.len()..text.len(), what: "unclosed".into(), help: "close".into() };
        let shown = Report::new("p.toml", text, &[note], &[]).to_string();
        assert!(shown.contains("p.toml:1:8: unclosed\n 1 | a = [1,\n   |        ^\n"), "{shown}");
    }

    #[test]
    fn mistakes_come_by_place_and_once() {
        let text = "a = 1\nb = 2\n";
        let note = |at: usize, what: &str| Note { span: at..at + 1, what: what.into(), help: "x".into() };
        let report = Report::new("p", text, &[note(6, "b"), note(0, "a"), note(6, "b")], &[]);
        let order: Vec<_> = report.mistakes().iter().map(|m| m.what.as_str()).collect();
        assert_eq!(order, ["a", "b"]);
        assert!(report.to_string().ends_with("2 mistakes in p\n"));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert!(!report("a = \"\u{1b}[31m\" x", "x").contains('\u{1b}'));
    }
}
