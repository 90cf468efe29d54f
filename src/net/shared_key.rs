//! Azure Storage's `SharedKey` over one GET without a body: the headers to add.
//!
//! Written from "Authorize with Shared Key" of Azure's REST reference: the Blob service's string to sign, as of version 2015-02-21.
//! It sends nothing and reads no clock. No crate of ours signs so: Microsoft's own takes tokens and SAS only.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use zeroize::Zeroizing;

use crate::model::{Secret, Timestamp};

/// The version every request names. Azurite and every cloud know it.
pub const VERSION: &str = "2021-12-02";

/// The headers that make a GET of `url` one of `account`'s at `now`, the version's among them.
///
/// # Errors
/// A text without any secret, where `url` is not one or the key is no base64.
pub fn sign_get(
    url: &str,
    account: &str,
    key: &Secret,
    now: Timestamp,
) -> Result<Vec<(&'static str, String)>, &'static str> {
    let url = Url::parse(url).map_err(|_| "not a usable URL")?;
    let date = now.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let signature = hmac_base64(key, &string_to_sign(&url, account, &date))?;
    Ok(vec![
        ("x-ms-date", date),
        ("x-ms-version", VERSION.to_owned()),
        ("authorization", format!("SharedKey {account}:{signature}")),
    ])
}

/// HMAC-SHA256 of a text with a key in base64, in base64: the signature of Azure Storage and Cosmos DB.
///
/// # Errors
/// A text without any secret, where the key is no base64.
pub fn hmac_base64(key: &Secret, text: &str) -> Result<String, &'static str> {
    let raw = STANDARD.decode(key.expose()).map(Zeroizing::new).map_err(|_| "the key is no base64")?;
    Ok(hmac(&raw, text))
}

/// The same with the key's text as it stands, which is how Service Bus has it.
pub fn hmac_of_text(key: &Secret, text: &str) -> String {
    hmac(key.expose().as_bytes(), text)
}

fn hmac(key: &[u8], text: &str) -> String {
    STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()))
}

/// The verb; eleven headers that a GET has not; the `x-ms-` headers by name; then the account with the path as it is sent, and the
/// parameters by name.
fn string_to_sign(url: &Url, account: &str, date: &str) -> String {
    let mut parameters: Vec<(String, String)> =
        url.query_pairs().map(|(name, value)| (name.to_lowercase(), value.into_owned())).collect();
    parameters.sort();
    let parameters: String = parameters.iter().map(|(name, value)| format!("\n{name}:{value}")).collect();
    let none = "\n".repeat(12);
    format!("GET{none}x-ms-date:{date}\nx-ms-version:{VERSION}\n/{account}{}{parameters}", url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Azurite's well-known account, which is no secret.
    const ACCOUNT: &str = "devstoreaccount1";
    const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

    fn key() -> Secret {
        Secret::new(KEY.to_owned())
    }

    fn at() -> Timestamp {
        chrono::DateTime::from_timestamp(1_769_000_000, 0).expect("a time")
    }

    #[test]
    fn the_string_to_sign_is_the_documents() {
        let url = Url::parse(
            "http://127.0.0.1:10000/devstoreaccount1/gis?restype=container&comp=list&maxresults=1&prefix=a%2Fb",
        );
        let expected = "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:DATE\nx-ms-version:2021-12-02\n\
                        /devstoreaccount1/devstoreaccount1/gis\ncomp:list\nmaxresults:1\nprefix:a/b\nrestype:container";
        assert_eq!(string_to_sign(&url.expect("an address"), ACCOUNT, "DATE"), expected);
    }

    #[test]
    fn another_key_is_another_signature_and_no_base64_is_told_without_it() {
        let url = "https://gisstore.blob.core.windows.net/gis?restype=container&comp=list";
        let signed = |key: &Secret| sign_get(url, "gisstore", key, at());
        let headers = signed(&key()).expect("signs");
        assert_eq!(headers[0], ("x-ms-date", "Wed, 21 Jan 2026 12:53:20 GMT".to_owned()));
        assert!(headers[2].1.starts_with("SharedKey gisstore:"), "{headers:?}");
        let other = signed(&Secret::new(STANDARD.encode([7; 64]))).expect("signs");
        assert_ne!(headers[2], other[2]);
        assert_eq!(signed(&Secret::new("no base64!".to_owned())), Err("the key is no base64"));
    }
}
