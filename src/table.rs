//! Reading a TOML table without losing its place: every mistake of a file is reported in one run, each with line, caret and
//! help.
//!
//! It knows what texts, durations, secrets and URLs look like, and nothing of services, issuers or targets. It reads no file
//! and no environment.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::model::SecretRef;
use crate::schedule::parse_duration;

mod document;
mod mask;
mod nearest;
mod report;
mod syntax;
mod values;

pub use document::{Document, Findings, SecretUse, Source, Spot};
pub use report::{Mistake, Place, Report};

/// What a duration may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zero {
    /// Zero says something: no wait, no jitter.
    Allowed,
    /// Zero makes no sense here.
    Refused,
}

/// Reads a whole text with one function: what most tests of a reader need.
///
/// # Errors
///
/// Every mistake of the text.
pub fn read<R>(text: &str, file: &str, reader: impl FnOnce(&mut Table<'_>) -> R) -> Result<R, Report> {
    let source = Source::new(text, file);
    let document = Document::parse(&source);
    let mut root = document.root();
    let result = reader(&mut root);
    drop(root);
    document.finish().map(|_| result)
}

/// A table being read. Whatever was not asked for when it is dropped is an unknown key, reported with the nearest known
/// name; so a reader asks for every key before it gives up on one.
pub struct Table<'a> {
    document: &'a Document<'a>,
    table: &'a DeTable<'a>,
    head: Range<usize>,
    title: String,
    path: String,
    asked: Vec<String>,
    forgiving: bool,
}

impl Document<'_> {
    /// The outermost table.
    pub fn root(&self) -> Table<'_> {
        Table {
            document: self,
            table: &self.root,
            head: 0..0,
            title: "the policy".into(),
            path: String::new(),
            asked: Vec::new(),
            forgiving: false,
        }
    }
}

impl<'a> Table<'a> {
    /// A required text, not empty; `None` means that the mistake is reported already.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        self.require(key, &format!("{key} = \"...\"")).then(|| self.text_or(key)).flatten()
    }

    /// An optional text, not empty.
    pub fn text_or(&mut self, key: &'static str) -> Option<String> {
        let value = self.value(key)?;
        self.text_value(key, value)
    }

    /// A required name: `[a-z0-9][a-z0-9-]{0,62}`.
    pub fn name(&mut self, key: &'static str) -> Option<String> {
        if !self.require(key, &format!("{key} = \"...\"")) {
            return None;
        }
        self.name_or(key)
    }

    /// An optional name: `[a-z0-9][a-z0-9-]{0,62}`.
    pub fn name_or(&mut self, key: &'static str) -> Option<String> {
        let text = self.text_or(key)?;
        if is_name(&text) {
            return Some(text);
        }
        self.mistake(key, format!("`{text}` is not a name"), NAME_HELP);
        None
    }

    /// `true` or `false`; `default` where it is absent or wrong.
    pub fn flag(&mut self, key: &'static str, default: bool) -> bool {
        self.flag_or(key).unwrap_or(default)
    }

    /// An optional `true` or `false`.
    pub fn flag_or(&mut self, key: &'static str) -> Option<bool> {
        match self.value(key)?.get_ref() {
            DeValue::Boolean(flag) => Some(*flag),
            other => {
                let what = format!("`{key}` is {}, and must be true or false", values::kind(other));
                self.mistake(key, what, format!("write `{key} = true` or `{key} = false`, without quotes"));
                None
            }
        }
    }

    /// A whole number; `default` where it is absent or wrong.
    pub fn integer(&mut self, key: &'static str, range: RangeInclusive<i64>, default: i64) -> i64 {
        self.integer_or(key, range).unwrap_or(default)
    }

    /// An optional whole number.
    pub fn integer_or(&mut self, key: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        let value = self.value(key)?;
        let expected = values::range(&range);
        let DeValue::Integer(integer) = value.get_ref() else {
            let what = format!("`{key}` is {}, and must be {expected}", values::kind(value.get_ref()));
            let said = match value.get_ref() {
                DeValue::String(text) => text.trim().parse::<i64>().ok().filter(|number| range.contains(number)),
                _ => None,
            };
            let number = said.unwrap_or(*range.start());
            self.mistake(key, what, format!("write `{key} = {number}`, without quotes"));
            return None;
        };
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        if number.is_some_and(|number| range.contains(&number)) {
            return number;
        }
        self.mistake(key, format!("`{key}` is out of range"), format!("write {expected}"));
        None
    }

    /// An optional duration, such as `"90d"`.
    pub fn duration(&mut self, key: &'static str, zero: Zero) -> Option<Duration> {
        let value = self.value(key)?;
        let text = match value.get_ref() {
            DeValue::String(text) => text,
            DeValue::Integer(number) => {
                let number = number.to_string();
                self.mistake(
                    key,
                    format!("`{key}` has no unit: {number}"),
                    format!("write `{key} = \"{number}d\"`; units are d, h, m, s and ms"),
                );
                return None;
            }
            other => {
                self.mistake(key, format!("`{key}` is {}, and must be a duration", values::kind(other)), DURATION_HELP);
                return None;
            }
        };
        match parse_duration(text) {
            Ok(Duration::ZERO) if zero == Zero::Refused => {
                self.mistake(key, format!("`{key}` must not be zero"), DURATION_HELP);
                None
            }
            Ok(duration) => Some(duration),
            Err(why) => {
                self.mistake(key, format!("`{key}` {why}"), DURATION_HELP);
                None
            }
        }
    }

    /// An optional word out of a list.
    pub fn choice(&mut self, key: &'static str, known: &[&'static str]) -> Option<&'static str> {
        let text = self.text_or(key)?;
        if let Some(found) = known.iter().find(|name| **name == text) {
            return Some(found);
        }
        let help = nearest::suggestion(&text, known.iter().copied(), "one of");
        self.mistake(key, format!("`{key}` cannot be `{text}`"), help);
        None
    }

    /// An optional list of texts; a single text is accepted where a list stands.
    pub fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        Some(self.spotted_texts(key)?.into_iter().map(|(text, _)| text).collect())
    }

    /// The same, each text with its place. Items that are no texts are reported and left out.
    pub fn spotted_texts(&mut self, key: &'static str) -> Option<Vec<(String, Spot)>> {
        let value = self.value(key)?;
        let items: Vec<&Spanned<DeValue<'a>>> = match value.get_ref() {
            DeValue::Array(array) => array.iter().collect(),
            _ => vec![value],
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            let spot = Spot(item.span());
            match item.get_ref() {
                DeValue::String(text) if !text.trim().is_empty() => texts.push((text.to_string(), spot)),
                DeValue::String(_) => {
                    let help = format!("write a text, or leave `{key}` out");
                    self.document.mistake_at(&spot, format!("`{key}` holds an empty text"), help);
                }
                other => {
                    let what = format!("`{key}` holds {}, and must hold texts", values::kind(other));
                    self.document.mistake_at(&spot, what, format!("write `{key} = [\"...\", \"...\"]`"));
                }
            }
        }
        Some(texts)
    }

    /// An optional secret: a reference to where it is kept. A literal is refused and never shown.
    pub fn secret(&mut self, key: &'static str) -> Option<SecretRef> {
        let value = self.value(key)?;
        let secret = self.secret_value(key, value)?;
        let at = self.document.at(&self.spot(key));
        let key = format!("{key} in {}", self.title);
        self.document.ledger.borrow_mut().secrets.push(SecretUse { key, at, secret: secret.clone() });
        Some(secret)
    }

    /// An optional file with a secret in it: its path as a text, or a reference as of [`Table::secret`].
    pub fn secret_file(&mut self, key: &'static str) -> Option<SecretRef> {
        let value = self.value(key)?;
        let DeValue::String(path) = value.get_ref() else { return self.secret(key) };
        if !path.starts_with('/') {
            // Perhaps what should be in the file.
            self.hide(value.span());
            let help = "write where it is, from the root: \"/etc/rekeyd/NAME\", or { credential = \"NAME\" } (systemd)";
            self.mistake(key, format!("`{key}` is no path of a file"), help);
            return None;
        }
        let (at, secret) = (self.document.at(&self.spot(key)), SecretRef::File(path.to_string()));
        let key = format!("{key} in {}", self.title);
        self.document.ledger.borrow_mut().secrets.push(SecretUse { key, at, secret: secret.clone() });
        Some(secret)
    }

    /// An optional address: https, or http on loopback; no user, query or fragment. A trailing `/` is stripped.
    pub fn url(&mut self, key: &'static str) -> Option<String> {
        self.address(key, values::Query::Refused, values::Plain::Loopback)
    }

    /// The same with a query, for addresses that are only looked at.
    pub fn url_with_query(&mut self, key: &'static str) -> Option<String> {
        self.address(key, values::Query::Allowed, values::Plain::Loopback)
    }

    /// An optional proxy: http or https, anywhere, without a user.
    pub fn proxy(&mut self, key: &'static str) -> Option<String> {
        self.address(key, values::Query::Refused, values::Plain::Anywhere)
    }

    /// An optional table inside this one.
    pub fn table(&mut self, key: &'static str) -> Option<Table<'a>> {
        let title = if self.path.is_empty() { format!("[{key}]") } else { format!("`{key}` of {}", self.title) };
        self.titled_table(key, title)
    }

    /// The same under a title of the reader's choice, such as `[service.issuer] of prod`.
    pub fn titled_table(&mut self, key: &'static str, title: String) -> Option<Table<'a>> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(self.below(table, value.span(), title, key)),
            other => {
                let what = format!("`{key}` is {}, and must be a table", values::kind(other));
                let help = if self.path.is_empty() {
                    format!("write `[{key}]` on a line of its own")
                } else {
                    format!("write `{key} = {{ ... }}`")
                };
                self.mistake(key, what, help);
                None
            }
        }
    }

    /// Every `[[key]]`; a single `[key]` is accepted.
    pub fn tables(&mut self, key: &'static str) -> Vec<Table<'a>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let full = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        let title = format!("[[{full}]]");
        match value.get_ref() {
            DeValue::Table(table) => vec![self.below(table, value.span(), title, key)],
            DeValue::Array(array) => {
                let mut tables = Vec::with_capacity(array.len());
                for item in array.iter() {
                    if let DeValue::Table(table) = item.get_ref() {
                        tables.push(self.below(table, item.span(), title.clone(), key));
                    } else {
                        let what = format!("`{key}` holds {}, and must hold tables", values::kind(item.get_ref()));
                        self.document.mistake_at(
                            &Spot(item.span()),
                            what,
                            format!("write `[[{full}]]` above its keys"),
                        );
                    }
                }
                tables
            }
            other => {
                let what = format!("`{key}` is {}, and must be a list of tables", values::kind(other));
                self.mistake(key, what, format!("write `[[{full}]]` above its keys"));
                Vec::new()
            }
        }
    }

    /// Every table in this one with the name it has there, as in `[aws.main]`, and with the place of its name.
    pub fn named_tables(&mut self) -> Vec<(String, Spot, Table<'a>)> {
        let mut tables = Vec::new();
        for (key, value) in self.table.iter() {
            let name = key.get_ref().to_string();
            self.asked.push(name.clone());
            let title = format!("[{}.{name}]", self.path);
            match value.get_ref() {
                DeValue::Table(table) => {
                    tables.push((name, Spot(key.span()), self.below(table, value.span(), title, "*")));
                }
                other => {
                    let what = format!("`{name}` is {}, and must be a table", values::kind(other));
                    let help = format!("`[{0}.NAME]` holds one of these; put the key under such a line", self.path);
                    self.hide(value.span());
                    self.document.mistake_at(&Spot(key.span()), what, help);
                }
            }
        }
        tables.sort_by_key(|(_, spot, _)| spot.0.start);
        tables
    }

    /// Whether the key is there, whatever its value.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Notes a mistake at the key's value, or at the table's head if the key is absent.
    pub fn mistake(&mut self, key: &str, what: impl Into<String>, help: impl Into<String>) {
        // What seems to be missing in a file that does not parse is likely there, in the part that was not understood.
        if self.has(key) || !self.document.is_partial() {
            self.document.mistake_at(&self.spot(key), what, help);
        }
    }

    /// Notes something legal that is perhaps not meant.
    pub fn warn(&mut self, key: &str, what: impl Into<String>) {
        self.document.warn_at(&self.spot(key), what);
    }

    /// Where the key's value stands, or the table's head if the key is absent.
    pub fn spot(&self, key: &str) -> Spot {
        Spot(self.table.get(key).map_or_else(|| self.head.clone(), Spanned::span))
    }

    /// Where the table begins.
    pub fn head(&self) -> Spot {
        Spot(self.head.clone())
    }

    /// Where the key itself stands, or the table's head if it is absent.
    pub fn key_spot(&self, key: &str) -> Spot {
        Spot(self.table.get_key_value(key).map_or_else(|| self.head.clone(), |(key, _)| key.span()))
    }

    /// Reports a required key that is absent; true if it is there.
    pub fn require(&mut self, key: &'static str, example: &str) -> bool {
        self.asked(key);
        if !self.has(key) {
            self.mistake(key, format!("`{key}` is missing in {}", self.title), format!("add `{example}`"));
        }
        self.has(key)
    }

    /// Knows this key without reading it.
    pub fn asked(&mut self, key: &str) {
        if !self.asked.iter().any(|asked| asked == key) {
            self.asked.push(key.to_owned());
            let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
            self.document.ledger.borrow_mut().asked.insert(path);
        }
    }

    /// Reports no unknown keys: nobody can say what belongs into a table of an unknown kind.
    pub fn forgive_the_rest(&mut self) {
        self.forgiving = true;
    }

    /// What this table is called in messages.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Names the table better, once its name has been read.
    pub fn set_title(&mut self, title: impl Into<String>) {
        self.title = title.into();
    }

    /// The document this is part of.
    pub fn document(&self) -> &'a Document<'a> {
        self.document
    }

    /// Ends the reading of this table: the same as dropping it.
    pub fn finish(self) {}

    fn value(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked(key);
        self.table.get(key)
    }

    fn text_value(&mut self, key: &'static str, value: &'a Spanned<DeValue<'a>>) -> Option<String> {
        match value.get_ref() {
            DeValue::String(text) if text.trim().is_empty() => {
                self.mistake(key, format!("`{key}` is empty"), format!("write `{key} = \"...\"`"));
                None
            }
            DeValue::String(text) => Some(text.to_string()),
            other => {
                let what = format!("`{key}` is {}, and must be a text", values::kind(other));
                self.mistake(key, what, format!("write `{key} = \"...\"`, with quotes"));
                None
            }
        }
    }

    fn below(&self, table: &'a DeTable<'a>, head: Range<usize>, title: String, key: &str) -> Table<'a> {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Table { document: self.document, table, head, title, path, asked: Vec::new(), forgiving: false }
    }

    /// Never shows what stands here; the quotes around it may stay.
    fn hide(&self, span: Range<usize>) {
        let value = self.document.source.text.get(span.clone()).unwrap_or_default();
        let quoted = value.len() > 2 && ['"', '\''].iter().any(|q| value.starts_with(*q) && value.ends_with(*q));
        let span = if quoted { span.start + 1..span.end - 1 } else { span };
        self.document.ledger.borrow_mut().hidden.push(span);
    }
}

impl Drop for Table<'_> {
    fn drop(&mut self) {
        if self.forgiving {
            return;
        }
        for (key, value) in self.table.iter() {
            let name = key.get_ref().as_ref();
            if self.asked.iter().any(|asked| asked == name) {
                continue;
            }
            let known = || self.asked.iter().map(String::as_str);
            // A misspelt `password` must not print what stands behind it.
            if nearest::nearest(name, known()).is_some_and(mask::looks_secret) {
                self.hide(value.span());
            }
            let help = nearest::suggestion(name, known(), "keys known here are");
            let what = format!("unknown key `{name}` in {}", self.title);
            self.document.mistake_at(&Spot(key.span()), what, help);
        }
    }
}

const NAME_HELP: &str = "a name has 1 to 63 of the letters a-z, digits and `-`, and does not begin with `-`";
const DURATION_HELP: &str = "write one number and one unit: \"90d\", \"12h\", \"5m\", \"30s\" or \"500ms\"";

/// The known word that a misspelt one is near to, if one is near enough.
pub fn did_you_mean<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    nearest::nearest(word, known)
}

/// Whether a text is a name: `[a-z0-9][a-z0-9-]{0,62}`.
pub fn is_name(text: &str) -> bool {
    text.len() <= 63
        && !text.starts_with('-')
        && !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests;
