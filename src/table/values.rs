//! Values with rules of their own: secrets and addresses, and how values are called in messages.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use reqwest::Url;
use toml::Spanned;
use toml::de::DeValue;

use super::{Spot, Table, mask, nearest};
use crate::model::SecretRef;

/// Whether an address may have a query.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Query {
    Allowed,
    Refused,
}

/// Where http without TLS is accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Plain {
    Loopback,
    Anywhere,
}

pub(super) const SECRET_HELP: &str = "keep the secret elsewhere and write { credential = \"NAME\" } (systemd), { file = \"/PATH\" } or { env = \"NAME\" }";

impl<'a> Table<'a> {
    pub(super) fn secret_value(&mut self, key: &'static str, value: &'a Spanned<DeValue<'a>>) -> Option<SecretRef> {
        let DeValue::Table(table) = value.get_ref() else {
            self.hide(value.span());
            let what = match value.get_ref() {
                DeValue::String(_) => format!("`{key}` is a literal secret, which a policy may not hold"),
                other => format!("`{key}` is {}, and must be a reference to a secret", kind(other)),
            };
            let help = match value.get_ref() {
                DeValue::String(_) => format!("{SECRET_HELP}, and change the secret: this file has shown it"),
                _ => SECRET_HELP.to_owned(),
            };
            self.mistake(key, what, help);
            return None;
        };
        let mut found = Vec::new();
        let mut wrong = false;
        for (name, value) in table.iter() {
            let source = name.get_ref().as_ref();
            if !matches!(source, "credential" | "file" | "env") {
                wrong = true;
                self.hide(value.span());
                let near = match source {
                    "path" | "filename" => Some("file"),
                    "variable" | "var" => Some("env"),
                    _ => nearest::nearest(source, ["credential", "file", "env"].into_iter()),
                };
                let help = near.map_or_else(|| SECRET_HELP.to_owned(), |near| format!("did you mean `{near}`?"));
                let what = format!("unknown key `{source}` in `{key}` of {}", self.title());
                self.document().mistake_at(&Spot(name.span()), what, help);
                continue;
            }
            match value.get_ref() {
                DeValue::String(text) => match reference(source, text) {
                    Ok(secret) => found.push(secret),
                    Err((what, help)) => {
                        wrong = true;
                        // Somebody may have put the secret itself where its name belongs.
                        self.hide(value.span());
                        self.document().mistake_at(&Spot(value.span()), format!("`{source}` of `{key}` {what}"), help);
                    }
                },
                other => {
                    wrong = true;
                    self.hide(value.span());
                    let what = format!("`{source}` of `{key}` is {}, and must be a text", kind(other));
                    self.document().mistake_at(&Spot(value.span()), what, format!("write {{ {source} = \"...\" }}"));
                }
            }
        }
        match found.len() {
            _ if wrong => None,
            1 => found.pop(),
            0 => {
                self.mistake(key, format!("`{key}` does not say where the secret is kept"), SECRET_HELP);
                None
            }
            _ => {
                let what = format!("`{key}` names {} places for one secret", found.len());
                self.mistake(key, what, "keep one of `credential`, `file` and `env`");
                None
            }
        }
    }

    pub(super) fn address(&mut self, key: &'static str, query: Query, plain: Plain) -> Option<String> {
        let text = self.text_or(key)?;
        match address(&text, query, plain) {
            Ok(url) => Some(url),
            Err((what, help)) => {
                self.mistake(key, format!("`{key}` {what}"), help);
                None
            }
        }
    }
}

/// Checks the form of a reference, so that a mistyped one is found before the day it is read.
fn reference(source: &str, text: &str) -> Result<SecretRef, (&'static str, &'static str)> {
    if text.trim().is_empty() {
        return Err(("is empty", SECRET_HELP));
    }
    match source {
        "credential" if text.contains('/') || text == "." || text == ".." => Err((
            "is not the name of a systemd credential",
            "write the name that stands before the `:` in LoadCredential=; for a path write { file = \"/PATH\" }",
        )),
        "credential" => Ok(SecretRef::Credential(text.to_owned())),
        "file" => Ok(SecretRef::File(text.to_owned())),
        _ if !is_variable(text) => Err((
            "is not the name of an environment variable",
            "a name has letters, digits and `_`, and no digit in front; write it without `$`",
        )),
        _ => Ok(SecretRef::Env(text.to_owned())),
    }
}

fn is_variable(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn address(text: &str, query: Query, plain: Plain) -> Result<String, (String, String)> {
    let text = text.trim();
    let write = || match plain {
        Plain::Loopback => "begin it with https://".to_owned(),
        Plain::Anywhere => "write it as \"http://HOST:PORT\"".to_owned(),
    };
    // `proxy:3128` and `localhost:8080` parse as a scheme.
    if !text.contains("://") {
        return Err(("has no scheme".into(), write()));
    }
    let url = Url::parse(text).map_err(|error| (format!("is not an address: {error}"), write()))?;
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
        return Err(("names no host".into(), write()));
    };
    match (url.scheme(), plain) {
        ("https", _) | ("http", Plain::Anywhere) => {}
        ("http", Plain::Loopback) if is_loopback(host) => {}
        ("http", Plain::Loopback) => {
            let help = "write https://; http:// is accepted for localhost, 127.0.0.1 and [::1] only".to_owned();
            return Err((format!("would send secrets to {host} without TLS"), help));
        }
        (scheme, _) => return Err((format!("has the scheme `{scheme}`"), write())),
    }
    if !url.username().is_empty() || url.password().is_some() {
        let help = "take out what stands before the `@`".to_owned();
        return Err(("holds a user name or password, which a policy may not hold".into(), help));
    }
    if url.fragment().is_some() {
        return Err(("has a fragment".into(), "take out the `#` and what follows".into()));
    }
    match (url.query(), query) {
        (Some(_), Query::Refused) => return Err(("has a query".into(), "take out the `?` and what follows".into())),
        (Some(parameters), Query::Allowed) => {
            let names = parameters.split('&').filter_map(|pair| pair.split('=').next());
            if let Some(name) = names.into_iter().find(|name| *name == "sig" || mask::looks_secret(name)) {
                let help = "use an address that needs no secret".to_owned();
                return Err((format!("holds a secret in its query (`{name}`), which a policy may not hold"), help));
            }
            return Ok(url.to_string());
        }
        (None, _) => {}
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What a value is, for "`x` is ...".
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A range of whole numbers, in words.
pub(super) fn range(range: &RangeInclusive<i64>) -> String {
    match (*range.start(), *range.end()) {
        (start, i64::MAX) => format!("a whole number from {start}"),
        (start, end) => format!("a whole number from {start} to {end}"),
    }
}
