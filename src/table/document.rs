//! The file as a whole: its text, what has come to light while its tables were read, and its report.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;

use toml::de::DeTable;
use zeroize::Zeroizing;

use super::report::{self, Report};
use super::syntax;
use super::values::SECRET_HELP;
use crate::model::SecretRef;

/// The text of a file with its name, made ready for reading. It is wiped when dropped: a refused text may hold a secret.
pub struct Source {
    pub(super) file: String,
    pub(super) text: Zeroizing<String>,
    /// The text without the lines that would stop the parser, place for place.
    readable: Zeroizing<String>,
    stops: Vec<report::Note>,
}

impl Source {
    /// Takes a text; `file` is its name in messages.
    pub fn new(text: impl Into<String>, file: impl Into<String>) -> Self {
        let text = Zeroizing::new(text.into());
        let (readable, stops) = syntax::readable(&text);
        Self { file: file.into(), text, readable: Zeroizing::new(readable), stops }
    }
}

/// A file being read. Tables borrow from it; when they are gone it gives its report.
pub struct Document<'t> {
    pub(super) source: &'t Source,
    pub(super) root: DeTable<'t>,
    syntax: Vec<report::Note>,
    pub(super) ledger: RefCell<Ledger>,
}

/// What reading has brought to light so far.
#[derive(Default)]
pub(super) struct Ledger {
    notes: Vec<report::Note>,
    pub(super) hidden: Vec<Range<usize>>,
    pub(super) asked: BTreeSet<String>,
    pub(super) secrets: Vec<SecretUse>,
    warnings: Vec<(Range<usize>, String)>,
}

/// A secret of the policy and where it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretUse {
    /// The key, such as `password in [arcgis.prod]`.
    pub key: String,
    /// `FILE:LINE:COL` of it.
    pub at: String,
    /// Where the secret is to be found.
    pub secret: SecretRef,
}

/// What a document gives when all of it has been read without a mistake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Every secret reference, in the order of the file.
    pub secrets: Vec<SecretUse>,
    /// What is legal and perhaps not meant, each with its place.
    pub warnings: Vec<String>,
    /// Every key that was asked for, with the path of its table: `service.issuer.kind`, `aws.*.region`.
    pub known: BTreeSet<String>,
}

/// A place in a document, kept so that a later check can point at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot(pub(super) Range<usize>);

impl<'t> Document<'t> {
    /// Parses a text. Syntax errors go into the report, and what could be understood can still be read.
    pub fn parse(source: &'t Source) -> Self {
        let (root, errors) = DeTable::parse_recoverable(&source.readable);
        let mut syntax = source.stops.clone();
        syntax.extend(syntax::notes(&source.text, &errors));
        Self { source, root: root.into_inner(), syntax, ledger: RefCell::default() }
    }

    /// Whether the text has syntax errors: what seems missing may then just not have been understood.
    pub fn is_partial(&self) -> bool {
        !self.syntax.is_empty()
    }

    /// Notes a mistake at a place found earlier.
    pub fn mistake_at(&self, spot: &Spot, what: impl Into<String>, help: impl Into<String>) {
        let note = report::Note { span: spot.0.clone(), what: what.into(), help: help.into() };
        self.ledger.borrow_mut().notes.push(note);
    }

    /// Notes something legal that is perhaps not meant.
    pub fn warn_at(&self, spot: &Spot, what: impl Into<String>) {
        self.ledger.borrow_mut().warnings.push((spot.0.clone(), what.into()));
    }

    /// The line of a place, from 1.
    pub fn line(&self, spot: &Spot) -> usize {
        report::place_of(&self.source.text, spot.0.start).line
    }

    /// `FILE:LINE:COL` of a place.
    pub fn at(&self, spot: &Spot) -> String {
        let place = report::place_of(&self.source.text, spot.0.start);
        format!("{}:{}:{}", self.source.file, place.line, place.column)
    }

    /// Ends the reading.
    ///
    /// # Errors
    ///
    /// Every mistake of the file.
    pub fn finish(self) -> Result<Findings, Report> {
        let (file, text) = (&self.source.file, self.source.text.as_str());
        let Ledger { notes, hidden, asked, secrets, mut warnings } = self.ledger.into_inner();
        let mut all = syntax::without_echoes(text, &self.syntax, notes);
        if !all.is_empty() || !self.syntax.is_empty() {
            let hidden = report::hidden(text, &hidden);
            all.extend(self.syntax.into_iter().map(|note| {
                // Nobody should be told to put quotes around a secret, and be refused for it the next time.
                if hidden.iter().any(|range| range.contains(&note.span.start)) {
                    let what = "a literal secret stands here, which a policy may not hold".to_owned();
                    return report::Note { span: note.span, what, help: SECRET_HELP.to_owned() };
                }
                note
            }));
            return Err(Report::new(file, text, &all, &hidden));
        }
        warnings.sort_by_key(|(span, _)| span.start);
        let warnings = warnings
            .into_iter()
            .map(|(span, what)| {
                let place = report::place_of(text, span.start);
                format!("{file}:{}:{}: {what}", place.line, place.column)
            })
            .collect();
        Ok(Findings { secrets, warnings, known: asked })
    }
}
