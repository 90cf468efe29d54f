//! What stands in the file: a key as JSON, as shell assignments, or as the bare secret; and back again.
//!
//! The names are those that the vendors' own tools look for, where there are such; `docs/places.md` lists them, and a test holds
//! the list against this. It knows no file, and does not judge whose key it reads.

use std::collections::BTreeMap;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::Format;
use crate::model::{Material, MaterialKind, Secret, deserialize_secret};

/// One value of a key.
pub(super) struct Field {
    /// Its name in JSON.
    pub(super) json: &'static str,
    /// Its name as a variable.
    pub(super) env: &'static str,
    /// The value.
    pub(super) value: Zeroizing<String>,
}

/// What was read.
#[derive(Debug)]
pub(super) enum Content {
    /// Nothing at all.
    Empty,
    /// The bare secret.
    Raw(Secret),
    /// Values by their names in the file.
    Named(BTreeMap<String, Secret>),
}

/// The names of the key's own name, which a file that a person wrote may lack.
const KEY_ID: (&str, &str) = ("key_id", "REKEYD_KEY_ID");

/// The names of what is secret, in JSON and as variables.
const SECRETS: [(&str, &str); 8] = [
    ("secret_access_key", "AWS_SECRET_ACCESS_KEY"),
    ("hmac_secret", "GS_SECRET_ACCESS_KEY"),
    ("account_key", "AZURE_STORAGE_KEY"),
    ("sas_token", "AZURE_STORAGE_SAS_TOKEN"),
    ("client_secret", "AZURE_CLIENT_SECRET"),
    ("shared_access_key", "SERVICEBUS_SHARED_ACCESS_KEY"),
    ("api_token", "F5XC_API_TOKEN"),
    ("pkcs12", "F5XC_PKCS12"),
];

/// The names of everything else.
const OTHERS: [(&str, &str); 9] = [
    KEY_ID,
    ("access_key_id", "AWS_ACCESS_KEY_ID"),
    ("hmac_access_id", "GS_ACCESS_KEY_ID"),
    ("account_name", "AZURE_STORAGE_ACCOUNT"),
    ("tenant_id", "AZURE_TENANT_ID"),
    ("client_id", "AZURE_CLIENT_ID"),
    ("authority_host", "AZURE_AUTHORITY_HOST"),
    ("shared_access_key_name", "SERVICEBUS_SHARED_ACCESS_KEY_NAME"),
    // No less secret, but what tells one certificate from another is the certificate. vesctl looks for it here.
    ("pkcs12_password", "VES_P12_PASSWORD"),
];

/// Cosmos DB has names of its own for what storage calls the same in JSON.
const COSMOS: [(&str, &str); 2] = [("account_name", "COSMOS_ACCOUNT"), ("account_key", "COSMOS_KEY")];

/// Every value of a key, its name first.
pub(super) fn fields(material: &Material) -> Vec<Field> {
    let field = |(json, env): (&'static str, &'static str), value: &str| Field {
        json,
        env,
        value: Zeroizing::new(value.to_owned()),
    };
    let named = |json: &str| {
        let mut all = SECRETS.into_iter().chain(OTHERS);
        all.find(|(name, _)| *name == json).expect("every name of a field stands in one of the lists")
    };
    let mut all = vec![field(KEY_ID, material.key().as_str())];
    match material {
        Material::AccessKey { id, secret } => {
            all.push(field(named("access_key_id"), id.as_str()));
            all.push(field(named("secret_access_key"), secret.expose()));
        }
        Material::StorageAccountKey { account, key, .. } => {
            all.push(field(named("account_name"), account));
            all.push(field(named("account_key"), key.expose()));
        }
        Material::SasToken { account, token, .. } => {
            all.push(field(named("account_name"), account));
            all.push(field(named("sas_token"), token.expose()));
        }
        Material::ServicePrincipal { tenant, client, secret, authority_host, storage_account, .. } => {
            all.push(field(named("tenant_id"), tenant));
            all.push(field(named("client_id"), client));
            all.push(field(named("client_secret"), secret.expose()));
            all.extend(authority_host.as_ref().map(|host| field(named("authority_host"), host)));
            all.extend(storage_account.as_ref().map(|account| field(named("account_name"), account)));
        }
        Material::HmacKey { id, secret } => {
            all.push(field(named("hmac_access_id"), id.as_str()));
            all.push(field(named("hmac_secret"), secret.expose()));
        }
        Material::CosmosAccountKey { account, key, .. } => {
            all.push(field(COSMOS[0], account));
            all.push(field(COSMOS[1], key.expose()));
        }
        Material::ServiceBusKey { key_name, key, .. } => {
            all.push(field(named("shared_access_key_name"), key_name));
            all.push(field(named("shared_access_key"), key.expose()));
        }
        Material::ApiToken { token, .. } => all.push(field(named("api_token"), token.expose())),
        Material::ApiCertificate { pkcs12, password, .. } => {
            all.push(field(named("pkcs12"), pkcs12.expose()));
            all.push(field(named("pkcs12_password"), password.expose()));
        }
    }
    all
}

/// Whether a consumer needs more than the secret of such a key, because its other half changes with it.
pub(super) fn needs_more_than_the_secret(kind: MaterialKind) -> bool {
    match kind {
        MaterialKind::AccessKey | MaterialKind::HmacKey | MaterialKind::ApiCertificate => true,
        MaterialKind::StorageAccountKey
        | MaterialKind::SasToken
        | MaterialKind::ServicePrincipal { .. }
        | MaterialKind::CosmosAccountKey
        | MaterialKind::ServiceBusKey
        | MaterialKind::ApiToken => false,
    }
}

/// The whole content of the file for this key.
///
/// # Errors
/// The format cannot hold it.
pub(super) fn written(format: Format, material: &Material) -> Result<Zeroizing<Vec<u8>>, String> {
    match format {
        Format::Raw if needs_more_than_the_secret(material.kind()) => Err(RAW_TOO_LITTLE.to_owned()),
        Format::Raw => Ok(Zeroizing::new(material.secret().expose().as_bytes().to_vec())),
        Format::Json => Ok(json(&fields(material))),
        Format::Env => env(&fields(material)),
    }
}

/// Why `raw` does not do for some keys.
pub(super) const RAW_TOO_LITTLE: &str = "a key of this issuer is an id and a secret, and `format = \"raw\"` holds the secret alone; make it \"json\" or \"env\"";

fn json(fields: &[Field]) -> Zeroizing<Vec<u8>> {
    // A byte becomes six at most; room for all of it, so that growing leaves no copy behind.
    let room: usize = fields.iter().map(|field| field.json.len() + 6 * field.value.len() + 16).sum();
    let mut text = Zeroizing::new(Vec::with_capacity(room + 8));
    text.extend_from_slice(b"{");
    for (n, field) in fields.iter().enumerate() {
        text.extend_from_slice(if n == 0 { b"\n  \"" } else { b",\n  \"" });
        text.extend_from_slice(field.json.as_bytes());
        text.extend_from_slice(b"\": ");
        serde_json::to_writer(&mut *text, field.value.as_str()).expect("a text is always JSON");
    }
    text.extend_from_slice(b"\n}\n");
    text
}

/// In double quotes, with a backslash before the four characters that are special there to a shell: systemd's EnvironmentFile= reads
/// just these back as a shell does (systemd.exec(5); `SHELL_NEED_ESCAPE` in its env-file.c). Inside single quotes it could not say `'`.
fn env(fields: &[Field]) -> Result<Zeroizing<Vec<u8>>, String> {
    let room: usize = fields.iter().map(|field| field.env.len() + 2 * field.value.len() + 8).sum();
    let mut text = Zeroizing::new(Vec::with_capacity(room));
    for field in fields {
        if field.value.chars().any(char::is_control) {
            return Err(format!("{} has a control character, which no line of variables can hold", field.json));
        }
        text.extend_from_slice(field.env.as_bytes());
        text.extend_from_slice(b"=\"");
        for byte in field.value.bytes() {
            if b"\"\\`$".contains(&byte) {
                text.push(b'\\');
            }
            text.push(byte);
        }
        text.extend_from_slice(b"\"\n");
    }
    Ok(text)
}

/// Reads a file's content back.
///
/// # Errors
/// It is none that rekeyd would replace: not of this format, or with something in it that would be lost.
pub(super) fn read(format: Format, bytes: &[u8]) -> Result<Content, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is no text".to_owned())?;
    if text.trim().is_empty() {
        return Ok(Content::Empty);
    }
    let named = match format {
        Format::Raw => {
            let secret = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
            return match secret.contains('\n') {
                true => Err("it has several lines, and `format = \"raw\"` means one secret alone".to_owned()),
                false => Ok(Content::Raw(Secret::new(secret.to_owned()))),
            };
        }
        Format::Json => from_json(text)?,
        Format::Env => from_env(text).ok_or("it is no file of variables, a NAME=\"value\" on each line")?,
    };
    let is_ours = |name: &str| {
        let mut known = SECRETS.iter().chain(&OTHERS).chain(&COSMOS);
        known.any(|(json, env)| name == if format == Format::Json { *json } else { *env })
    };
    if let Some(foreign) = named.keys().find(|name| !is_ours(name)) {
        let shown: String = foreign.chars().filter(|c| c.is_ascii_graphic()).take(40).collect();
        return Err(format!("it also holds `{shown}`, which would be lost; give the key a file of its own"));
    }
    Ok(Content::Named(named))
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Text(#[serde(deserialize_with = "deserialize_secret")] Secret);

fn from_json(text: &str) -> Result<BTreeMap<String, Secret>, String> {
    // What the parser says may repeat what it read.
    let all: BTreeMap<String, Text> =
        serde_json::from_str(text).map_err(|_| "it is no JSON object of texts".to_owned())?;
    Ok(all.into_iter().map(|(name, Text(value))| (name, value)).collect())
}

/// As systemd reads EnvironmentFile=, without continued lines.
fn from_env(text: &str) -> Option<BTreeMap<String, Secret>> {
    let mut all = BTreeMap::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Some(all);
        }
        if rest.starts_with(['#', ';']) {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
            continue;
        }
        let (name, after) = rest.split_once('=')?;
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        if !is_name(name) {
            return None;
        }
        let (value, after) = env_value(after)?;
        all.insert(name.to_owned(), Secret::new(value));
        rest = after;
    }
}

/// One value, quoted or bare, and what stands behind its line.
fn env_value(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|first| "\"'".contains(*first));
    let Some(quote) = quote else {
        let (value, rest) = text.split_once('\n').unwrap_or((text, ""));
        let value = value.trim();
        // What is more than a word is not for us to unravel.
        let is_plain = !value.contains(|c: char| c.is_whitespace() || "\"'\\`$;#".contains(c));
        return is_plain.then(|| (value.to_owned(), rest));
    };
    let mut value = String::with_capacity(text.len());
    let mut characters = text[1..].char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            _ if character == quote => {
                let (behind, rest) = text[at + 2..].split_once('\n').unwrap_or((&text[at + 2..], ""));
                return behind.trim().is_empty().then_some((value, rest));
            }
            '\\' if quote == '"' => match characters.next()? {
                (_, escaped) if "\"\\`$".contains(escaped) => value.push(escaped),
                (_, other) => value.extend(['\\', other]),
            },
            other => value.push(other),
        }
    }
    None
}

impl Content {
    /// The secret in it, if there is one.
    pub(super) fn secret(&self) -> Option<&Secret> {
        match self {
            Self::Empty => None,
            Self::Raw(secret) => Some(secret),
            Self::Named(all) => {
                let names = SECRETS.iter().chain(&COSMOS[1..]).flat_map(|(json, env)| [json, env]);
                names.into_iter().find_map(|name| all.get(*name))
            }
        }
    }

    /// Whether it is this key, all of it. Its own name may be absent where the rest stands, for a person need not have written it.
    pub(super) fn holds(&self, material: &Material) -> bool {
        match self {
            Self::Empty => false,
            Self::Raw(secret) => secret == material.secret(),
            Self::Named(all) => fields(material).iter().all(|field| {
                let found = all.get(field.json).or_else(|| all.get(field.env));
                match found {
                    Some(found) => found.expose() == field.value.as_str(),
                    None => (field.json, field.env) == KEY_ID,
                }
            }),
        }
    }
}

#[cfg(test)]
mod tests;
