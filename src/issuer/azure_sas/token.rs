//! Shared access signatures of an Azure storage account: made with one of its two keys, and told whether one was.
//!
//! Written from "Create an account SAS" and "Create a service SAS" of Azure's REST reference. Pure: it sends nothing and reads no
//! clock. A token's end is its key's making plus how long it is good, and it has no beginning, so that the token of a key can be made
//! again, byte for byte, whenever the key is shown. That end stands last in it, with the millisecond ("Formatting DateTime values"): of
//! what a target shows, the last four characters, a thousand are different then. The end of a signature in a query has sixteen.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::model::{KeyId, Secret};
use crate::net::shared_key::hmac_base64;

/// The version every token names: new enough for each field below, and old enough for every cloud.
const VERSION: &str = "2022-11-02";
/// From this version on an encryption scope is signed too, also where there is none.
const SCOPE_SINCE: &str = "2020-12-06";

/// What a token opens, and what for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Grant {
    /// What may be done there, in the order of Azure's table.
    pub(super) permissions: String,
    /// What of the account.
    pub(super) scope: Scope,
    /// Whether it is good over TLS only; false where the data plane is plain, on this machine.
    pub(super) https_only: bool,
    pub(super) valid_for_s: u64,
}

/// What of an account a token opens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Scope {
    /// An account SAS: these services, and these kinds of resources in them, by Azure's letters.
    Account { services: String, resource_types: String },
    /// A service SAS: this container of the blob service.
    Container(String),
}

/// Queries are read and written as part of an address; whose it is does not matter.
const SOMEWHERE: &str = "https://localhost/";

/// A token's fields by their names, unescaped.
type Fields = Vec<(String, String)>;

impl Grant {
    /// The token that a key signs, without a `?`. The key's id tells when it was made.
    ///
    /// # Errors
    /// A text without any secret: the id tells no time, or the key is none.
    pub(super) fn sign(&self, account: &str, id: &KeyId, key: &Secret) -> Result<Secret, String> {
        let end = self
            .end(id)
            .ok_or_else(|| format!("nothing tells when key {id} was made, which says when its SAS ends"))?;
        let mut fields = vec![("sv", VERSION.to_owned())];
        let container = match &self.scope {
            Scope::Account { services, resource_types } => {
                fields.extend([("ss", services.clone()), ("srt", resource_types.clone())]);
                None
            }
            Scope::Container(container) => {
                fields.push(("sr", "c".to_owned()));
                Some(container.as_str())
            }
        };
        fields.push(("sp", self.permissions.clone()));
        if self.https_only {
            fields.push(("spr", "https".to_owned()));
        }
        fields.push(("se", end.to_rfc3339_opts(SecondsFormat::Millis, true)));
        let mut fields: Fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let text = string_to_sign(&fields, account, container);
        fields.insert(0, ("sig".to_owned(), hmac_base64(key, &text)?));
        let url = Url::parse_with_params(SOMEWHERE, fields).map_err(|_| "no query can be made of it")?;
        Ok(Secret::new(url.query().unwrap_or_default().to_owned()))
    }

    /// When the token of a key ends.
    pub(super) fn end(&self, id: &KeyId) -> Option<DateTime<Utc>> {
        let (_, made) = id.as_str().split_once('@')?;
        let made = DateTime::parse_from_rfc3339(made).ok()?.with_timezone(&Utc);
        made.checked_add_signed(TimeDelta::from_std(Duration::from_secs(self.valid_for_s)).ok()?)
    }
}

/// Whether a token, whoever made it, is signed with this key. A service SAS names no resource, so `container` is what is looked for.
///
/// # Errors
/// Why that cannot be told of any key, without a word of the token.
pub(super) fn is_signed_with(token: &Secret, key: &Secret, account: &str, container: &str) -> Result<bool, String> {
    let query = token.expose();
    let query = query.strip_prefix('?').unwrap_or(query);
    let fields = read(query).ok_or("it is no query")?;
    let signature = get(&fields, "sig");
    if signature.is_empty() {
        return Err("it has no `sig`, so it is no SAS".to_owned());
    }
    if !get(&fields, "skoid").is_empty() {
        return Err("it is a user delegation SAS, which no key of the account signed".to_owned());
    }
    if get(&fields, "sr") == "b" {
        return Err("it is the SAS of a single blob".to_owned());
    }
    let is_of_account = !get(&fields, "srt").is_empty();
    let text = string_to_sign(&fields, account, (!is_of_account).then_some(container));
    Ok(hmac_base64(key, &text)? == signature)
}

fn read(query: &str) -> Option<Fields> {
    let mut url = Url::parse(SOMEWHERE).ok()?;
    url.set_query(Some(query));
    Some(url.query_pairs().into_owned().collect())
}

/// Empty where it is not there, as it is signed.
fn get<'f>(fields: &'f Fields, name: &str) -> &'f str {
    fields.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
}

/// What is signed: of an account SAS, or with a container, of a service SAS. Every field has its line, also where it is empty.
fn string_to_sign(fields: &Fields, account: &str, container: Option<&str>) -> String {
    let text = |name: &&str| get(fields, name).to_owned();
    let scope: &[&str] = if get(fields, "sv") >= SCOPE_SINCE { &["ses"] } else { &[] };
    match container {
        None => {
            let lines = ["sp", "ss", "srt", "st", "se", "sip", "spr", "sv"].iter().chain(scope).map(text);
            // The last line is ended too.
            std::iter::once(account.to_owned()).chain(lines).map(|line| line + "\n").collect()
        }
        Some(container) => {
            let resource = format!("/blob/{account}/{container}");
            let rest = ["si", "sip", "spr", "sv", "sr", "snapshot"].iter().chain(scope);
            let rest = rest.chain(&["rscc", "rscd", "rsce", "rscl", "rsct"]).map(text);
            let lines: Vec<String> = ["sp", "st", "se"].iter().map(text).chain([resource]).chain(rest).collect();
            lines.join("\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "gisstore";
    /// Of no account.
    const KEY: &str = "+wIJEBceJSwzOkFIT1ZdZGtyeYCHjpWco6qxuL/GzdTb4unw9/4FDBMaISgvNj1ES1JZYGdudXyDipGYn6attA==";
    const ID: &str = "key2@2026-11-01T00:00:00.789Z";

    /// By Azure's SDK for Python, with its `x_ms_version` set where it is not its own: azure-storage-blob 12.31.1, and 2.1.0 for the
    /// version before the line of the encryption scope came. The first two are what [`Grant::sign`] makes; the others have fields that
    /// a person may have asked for.
    const BY_THE_SDK: &[&str] = &[
        "se=2027-02-01T00%3A00%3A00.789Z&sp=rwdl&spr=https&sv=2022-11-02&ss=b&srt=sco&sig=dY7PtQNxS85IbYrPfRgAnCDO%2BVekKNOwtea5Cr5T7c8%3D",
        "se=2027-02-01T00%3A00%3A00.789Z&sp=rwdl&spr=https&sv=2022-11-02&sr=c&sig=pJ%2B%2BLfodgGAWct0FbyHCvzTkka60KutjzPQvDPJ22RM%3D",
        "st=2026-11-01T00%3A00%3A00Z&se=2027-02-01T00%3A00%3A00Z&sp=rwdl&sip=10.0.0.1-10.0.0.9&spr=https%2Chttp&sv=2026-10-06&ss=b&srt=sco&sig=x4dNzYlL/7kb9N2EpUQsmFNqDiuJfPzJQylv%2BE8KvL0%3D",
        "st=2026-11-01T00%3A00%3A00Z&se=2027-02-01T00%3A00%3A00Z&sp=rl&spr=https&sv=2019-02-02&ss=b&srt=sco&sig=tYzZQdp3PpgzDUWNm9v2aLU3CqF8ntyIFLseZO5Qs%2Bo%3D",
        "st=2026-11-01T00%3A00%3A00Z&se=2027-02-01T00%3A00%3A00Z&sp=rl&spr=https&sv=2019-02-02&sr=c&rsct=text/plain&sig=0vfc%2BSKpFhy5y3ET2c/73Ne%2BFAd4auJa4Uy4Gq4sWuo%3D",
        "st=2026-11-01T00%3A00%3A00Z&se=2027-02-01T00%3A00%3A00Z&sp=rwdl&sip=127.0.0.1&spr=https&sv=2025-01-05&sr=c&rscc=no-cache&rscd=inline&rsce=gzip&rscl=de&rsct=text/plain%3B%20charset%3Dutf-8&sig=vPU6dpQghwI%2BSCTlnJ8R1Ke98Azrv/E81BANMK57RKU%3D",
    ];

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    fn grant(scope: Scope) -> Grant {
        Grant { permissions: "rwdl".to_owned(), scope, https_only: true, valid_for_s: 92 * 24 * 3600 }
    }

    fn of_account() -> Grant {
        grant(Scope::Account { services: "b".to_owned(), resource_types: "sco".to_owned() })
    }

    fn pairs(token: &str) -> std::collections::BTreeMap<String, String> {
        read(token).expect("a query").into_iter().collect()
    }

    #[test]
    fn what_is_signed_is_what_the_sdk_signs() {
        for (grant, by_the_sdk) in [of_account(), grant(Scope::Container("tiles".to_owned()))].iter().zip(BY_THE_SDK) {
            let token = grant.sign(ACCOUNT, &KeyId::new(ID), &secret(KEY)).expect("signed");
            // The order of the fields is free.
            assert_eq!(pairs(token.expose()), pairs(by_the_sdk));
            assert!(token.expose().ends_with(".789Z"), "what a target shows of it tells it from others");
        }
    }

    #[test]
    fn whoever_made_a_token_its_key_is_told() {
        for token in BY_THE_SDK {
            for token in [(*token).to_owned(), format!("?{token}")] {
                let told = |key: &str, container| is_signed_with(&secret(&token), &secret(key), ACCOUNT, container);
                assert_eq!(told(KEY, "tiles"), Ok(true), "{token}");
                assert_eq!(told("bm8=", "tiles"), Ok(false), "{token}");
                assert_eq!(told(KEY, "other"), Ok(token.contains("srt=")), "{token}");
            }
        }
    }

    #[test]
    fn what_no_key_of_the_account_can_have_signed_is_said() {
        let why = |token: &str| is_signed_with(&secret(token), &secret(KEY), ACCOUNT, "tiles").expect_err("no key");
        assert!(why("hush").contains("it is no SAS"));
        assert!(why("sv=2022-11-02&skoid=x&sr=c&sig=hush").contains("user delegation"));
        assert!(why("sv=2022-11-02&sr=b&sig=hush").contains("single blob"));
    }

    #[test]
    fn a_token_ends_a_fixed_time_after_its_key_was_made() {
        let end = |id: &str| of_account().end(&KeyId::new(id)).map(|end| end.to_rfc3339());
        assert_eq!(end(ID).as_deref(), Some("2027-02-01T00:00:00.789+00:00"));
        assert_eq!(end("key1@sha256-32da5526c763"), None, "a key that was never regenerated");
        let why =
            of_account().sign(ACCOUNT, &KeyId::new("key1@sha256-32da5526c763"), &secret(KEY)).expect_err("no end");
        assert!(why.contains("nothing tells when key key1@sha256-32da5526c763 was made"), "{why}");
    }
}
