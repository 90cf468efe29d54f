//! Which parts of a policy file may not be shown: values of keys that look secret, passwords in URLs, signed queries.
//!
//! It works on the raw text, not on the parsed table, so that it holds for a line that does not parse. It masks too much
//! rather than too little: a password shown once in a CI log is worse than a caret under `***`.

use std::ops::Range;

/// Keys of the policy that sound secret and are not.
const HARMLESS: &[&str] = &["keep_secret", "credential_keys"];

/// Whether a literal under this key is taken for a secret.
pub(super) fn looks_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    if HARMLESS.contains(&key.as_str()) || ["_id", "_url", "_file", "_path"].iter().any(|end| key.ends_with(end)) {
        return false;
    }
    ["pass", "pasw", "pwd", "secret", "token"].iter().any(|part| key.contains(part)) || key.ends_with("key")
}

/// The byte ranges of `text` that are never shown, in order, without overlap.
pub(super) fn secret_ranges(text: &str) -> Vec<Range<usize>> {
    let mut scan = Scan { text, at: 0, found: Vec::new() };
    scan.document();
    let mut found = scan.found;
    // Each line once more by itself: a bracket or quote left open above must not hide what a line is.
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let mut scan = Scan { text: line, at: 0, found: Vec::new() };
        scan.document();
        found.extend(scan.found.into_iter().map(|range| range.start + start..range.end + start));
        start += line.len();
    }
    found.extend(url_ranges(text));
    merge(found)
}

/// Sorts and joins ranges.
pub(super) fn merge(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.retain(|range| range.start < range.end);
    ranges.sort_by_key(|range| (range.start, range.end));
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// `https://USER:PASSWORD@host` and `?sig=...`.
fn url_ranges(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for (scheme, _) in text.match_indices("://") {
        let start = scheme + 3;
        let length =
            text[start..].find(|c: char| c.is_whitespace() || c == '"' || c == '\'').unwrap_or(text.len() - start);
        let rest = &text[start..start + length];
        let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        // A password may hold a slash; then the last '@' of the whole address is the end of it.
        if let Some(at) = rest[..authority].rfind('@').or_else(|| rest.contains(':').then(|| rest.rfind('@')).flatten())
        {
            found.push(start..start + at);
        }
        if let Some(query) = rest.find('?') {
            let secret = rest[query + 1..]
                .split(['&', ';'])
                .any(|pair| pair.split('=').next().is_some_and(|name| looks_secret(name) || name == "sig"));
            if secret {
                found.push(start + query + 1..start + length);
            }
        }
    }
    found
}

/// A reader of TOML's surface: keys, strings, comments, headers. It knows nothing of types and forgives every mistake.
struct Scan<'t> {
    text: &'t str,
    at: usize,
    found: Vec<Range<usize>>,
}

impl Scan<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn line_end(&self) -> usize {
        self.text[self.at..].find('\n').map_or(self.text.len(), |n| self.at + n)
    }

    fn skip_blanks(&mut self, also: &[char]) {
        while self.peek().is_some_and(|c| c == ' ' || c == '\t' || also.contains(&c)) {
            self.bump();
        }
    }

    fn document(&mut self) {
        // Whether the table we stand in is itself named like a secret, as in `[arcgis.prod.password]`.
        let mut inside_secret = false;
        let mut line_start = true;
        while let Some(c) = self.peek() {
            match c {
                '\n' => {
                    line_start = true;
                    self.bump();
                }
                ' ' | '\t' | '\r' => {
                    self.bump();
                }
                '[' if line_start => {
                    let end = self.line_end();
                    let header = self.text[self.at..end].split(']').next().unwrap_or_default();
                    let last = header.rsplit('.').next().unwrap_or_default();
                    inside_secret = looks_secret(last.trim_matches(|c: char| "[]\"' \t".contains(c)));
                    self.at += header.len();
                    line_start = false;
                }
                '#' => {
                    self.comment();
                }
                _ => {
                    line_start = false;
                    self.entry(inside_secret, 0);
                }
            }
        }
    }

    /// A comment may hold the password somebody has just commented out.
    fn comment(&mut self) {
        let end = self.line_end();
        let body = &self.text[self.at..end];
        if let Some(sign) = body.find(['=', ':']) {
            let word = body[..sign].trim_end().rsplit(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').next();
            let named = body[..sign].trim_end().trim_end_matches(['"', '\'']);
            let value = body[sign + 1..].trim();
            if (word.is_some_and(looks_secret) || looks_secret(named)) && !value.starts_with('{') && !value.is_empty() {
                let start = self.at + sign + 1 + body[sign + 1..].len() - body[sign + 1..].trim_start().len();
                self.found.push(start..end);
            }
        }
        self.at = end;
    }

    /// `key = value`, or whatever stands where that should.
    fn entry(&mut self, inside_secret: bool, depth: u32) {
        let mut key = String::new();
        loop {
            match self.peek() {
                Some('"' | '\'') => {
                    let inside = self.string();
                    key = self.text[inside].to_owned();
                }
                Some(c) if c.is_alphanumeric() || c == '_' || c == '-' => {
                    let start = self.at;
                    while self.peek().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-') {
                        self.bump();
                    }
                    key = self.text[start..self.at].to_owned();
                }
                _ => break,
            }
            self.skip_blanks(&[]);
            if self.peek() == Some('.') {
                self.bump();
                self.skip_blanks(&[]);
            } else {
                break;
            }
        }
        let reference = matches!(key.as_str(), "credential" | "file" | "env");
        let secret = looks_secret(&key) || (inside_secret && !reference && !key.is_empty());
        self.skip_blanks(&['=', ':']);
        self.value(secret, depth);
    }

    fn value(&mut self, secret: bool, depth: u32) {
        match self.peek() {
            None | Some('\n') | Some('#') => {}
            Some('"' | '\'') => {
                let inside = self.string();
                if secret {
                    self.found.push(inside);
                    self.tail();
                }
            }
            Some('{') => {
                self.bump();
                // Deeper than this no policy goes, and recursion has to end somewhere.
                if depth < 16 {
                    self.inline(secret, depth + 1);
                }
            }
            Some('[') => self.array(secret),
            Some(_) => {
                let start = self.at;
                while self.peek().is_some_and(|c| !",}]#\n".contains(c)) {
                    self.bump();
                }
                let end = start + self.text[start..self.at].trim_end().len();
                if self.at == start {
                    self.bump();
                }
                // In doubt the whole rest of the line goes: an unquoted password may hold any of the characters above.
                if secret {
                    self.found.push(start..if depth == 0 { self.line_end() } else { end });
                }
            }
        }
    }

    /// What stands behind a secret's closing quote, where nothing should, is likely more of it.
    fn tail(&mut self) {
        self.skip_blanks(&['\r']);
        if self.peek().is_some_and(|c| !",}]#\n".contains(c)) {
            let end = self.line_end();
            self.found.push(self.at..end);
            self.at = end;
        }
    }

    fn inline(&mut self, secret: bool, depth: u32) {
        loop {
            self.skip_blanks(&[',', '\n', '\r']);
            match self.peek() {
                None => return,
                Some('}') => {
                    self.bump();
                    return;
                }
                Some('#') => self.comment(),
                Some(_) => {
                    let before = self.at;
                    // `{ "hunter2" }`: a value without a key, which is no reference either.
                    if secret && matches!(self.peek(), Some('"' | '\'')) {
                        let inside = self.string();
                        self.found.push(inside);
                    } else {
                        self.entry(secret, depth);
                    }
                    if self.at == before {
                        self.bump();
                    }
                }
            }
        }
    }

    fn array(&mut self, secret: bool) {
        let start = self.at;
        let mut open = 0_u32;
        while let Some(c) = self.peek() {
            match c {
                '"' | '\'' => {
                    self.string();
                    continue;
                }
                '#' => {
                    self.comment();
                    continue;
                }
                '{' if !secret => {
                    self.bump();
                    self.inline(false, 1);
                    continue;
                }
                '[' => open += 1,
                ']' => open = open.saturating_sub(1),
                _ => {}
            }
            self.bump();
            if open == 0 {
                break;
            }
        }
        if secret {
            self.found.push(start..self.at);
        }
    }

    /// Steps over a string of any of the four forms and returns the range inside its quotes.
    fn string(&mut self) -> Range<usize> {
        let Some(quote) = self.bump() else { return self.at..self.at };
        let triple: String = std::iter::repeat_n(quote, 3).collect();
        let long = self.text[self.at - 1..].starts_with(&triple);
        if long {
            self.at += 2;
        }
        let start = self.at;
        while let Some(c) = self.peek() {
            if long && self.text[self.at..].starts_with(&triple) {
                // Up to two more quotes may belong to the value.
                let mut end = self.at;
                self.at += 3;
                while self.peek() == Some(quote) && end < self.at {
                    end += 1;
                    self.bump();
                }
                return start..end;
            }
            if !long && c == quote {
                let end = self.at;
                self.bump();
                return start..end;
            }
            if !long && c == '\n' {
                break;
            }
            self.bump();
            if c == '\\' && quote == '"' && self.peek().is_some_and(|c| c != '\n') {
                self.bump();
            }
        }
        start..self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let mut shown = String::new();
        let mut at = 0;
        for range in secret_ranges(text) {
            shown.push_str(&text[at..range.start]);
            shown.push_str("***");
            at = range.end;
        }
        shown.push_str(&text[at..]);
        shown
    }

    #[test]
    fn a_literal_secret_is_masked_however_it_is_written() {
        for text in [
            r#"password = "hunter2""#,
            r#"password="hunter2" # hm"#,
            r#"  client_secret = 'hunter2'"#,
            r#"Password = "hunter2""#,
            r#"secretAccessKey = "hunter2""#,
            r#"pasword = "hunter2""#,
            r#""password" = "hunter2""#,
            r#"a.b.password = "hunter2""#,
            r#"password = hunter2"#,
            r#"password = hun,ter}2#hunter2"#,
            r#"password: hunter2"#,
            r#"password hunter2"#,
            r#"password "hunter2""#,
            r#"password = "hunter2"#,
            "password = \"\"\"\nhunter2\n\"\"\"",
            "password = '''\nhunter2",
            r#"password = ["hunter2"]"#,
            "password = [\n  \"hunter2\",\n]",
            r#"password = { value = "hunter2" }"#,
            r#"password = { "hunter2" }"#,
            r#"x = { user = "me", password = "hunter2" }"#,
            r#"x = [{ password = "hunter2" }]"#,
            "[arcgis.prod.password]\nvalue = \"hunter2\"",
            r#"# password = "hunter2""#,
            r#"user = "me" # password: hunter2"#,
            r#"api_token = 'it is \ hunter2'"#,
            r#"password = "a \" hunter2""#,
            r#"password = "a" "hunter2""#,
            r#"password = "a"hunter2"#,
            "x = [\npassword = \"hunter2\"",
            "x = \"\"\"\npassword = \"hunter2\"",
            r#"proxy = "http://me:hunter2@proxy:3128""#,
            r#"proxy = "http://me:hun/hunter2@proxy:3128""#,
            r#"url = "https://x/y?sv=1&sig=hunter2""#,
        ] {
            assert!(!shown(text).contains("hunter2"), "{text} -> {}", shown(text));
            assert!(shown(text).contains("***"), "{text} -> {}", shown(text));
        }
    }

    #[test]
    fn what_is_not_secret_stays_readable() {
        for text in [
            r#"password = { credential = "arcgis-prod" }"#,
            "[arcgis.prod.password]\nfile = \"/run/x\"\n[arcgis.prod]\nusername = \"u\"",
            r#"access_key_id = "AKIAEXAMPLE""#,
            r#"keep_secret = "rotation""#,
            r#"credential_keys = "snake""#,
            r#"seal_key = { file = "/etc/k" }"#,
            r#"url = "https://x/y?f=json""#,
            r#"window = ["Sat 22:00-Sun 04:00"]"#,
            r#"user = "me" # the password stands elsewhere"#,
            "[[service]]\nname = \"a\"\n",
        ] {
            assert_eq!(shown(text), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_upsets_it(text in "[a-z =\"'#\\[\\]{},.\\\\\n:/@é-]{0,80}") {
            for range in secret_ranges(&text) {
                proptest::prop_assert!(text.get(range).is_some());
            }
        }
    }
}
