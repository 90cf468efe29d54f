//! AWS Signature Version 4, both ways, by hand: the stand-in checks with it, the consumers sign with it.
//!
//! Written from the "Create a signed AWS API request" pages; the vectors in the tests are AWS's own. Signatures in the query
//! string (presigned URLs) and in chunks are not offered.

use std::fmt::Write as _;

use aws_lc_rs::{digest, hmac};
use chrono::{DateTime, Duration, NaiveDateTime, Utc};

use crate::form;
use crate::http::Request;

/// How far a request's time may lie from ours.
pub(crate) const SKEW_MINUTES: i64 = 15;
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// A parsed `Authorization` header.
#[derive(Debug, Clone)]
pub(crate) struct Authorization {
    pub(crate) key_id: String,
    pub(crate) date: String,
    pub(crate) region: String,
    pub(crate) service: String,
    signed_headers: Vec<String>,
    signature: String,
}

/// Why a signature is not one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No `Authorization` header.
    Missing,
    /// A header that does not parse, or lacks a part.
    Incomplete(String),
    /// The date lies outside fifteen minutes, in AWS's words.
    Stale(String),
    /// A header that must be signed is not.
    NotSigned(String),
    /// `x-amz-content-sha256` is absent though S3 demands it.
    NoPayloadHash,
    /// `x-amz-content-sha256` is not the hash of the body.
    PayloadHash,
    /// The signature is of something else, or by another secret.
    Mismatch,
}

impl Authorization {
    /// Reads the header; looks at no key.
    pub(crate) fn parse(request: &Request) -> Result<Self, Refusal> {
        let header = request.header("authorization").ok_or(Refusal::Missing)?;
        let incomplete = |what: &str| Refusal::Incomplete(what.to_owned());
        let rest = header
            .strip_prefix("AWS4-HMAC-SHA256")
            .ok_or_else(|| incomplete("Authorization header requires the AWS4-HMAC-SHA256 algorithm."))?;
        let part = |name: &str| {
            rest.split(',')
                .filter_map(|piece| piece.trim().split_once('='))
                .find(|(n, _)| *n == name)
                .map(|(_, v)| v.to_owned())
                .ok_or_else(|| Refusal::Incomplete(format!("Authorization header requires '{name}' parameter.")))
        };
        let (credential, headers, signature) = (part("Credential")?, part("SignedHeaders")?, part("Signature")?);
        let scope: Vec<&str> = credential.split('/').collect();
        let [key_id, date, region, service, "aws4_request"] = scope[..] else {
            return Err(incomplete("Credential must have exactly 5 slash-delimited elements."));
        };
        Ok(Self {
            key_id: key_id.to_owned(),
            date: date.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            signed_headers: headers.split(';').map(str::to_owned).collect(),
            signature,
        })
    }

    /// Checks everything but the key's standing: date, what is signed, the payload's hash, the signature.
    pub(crate) fn check(&self, request: &Request, secret: &str, now: DateTime<Utc>) -> Result<(), Refusal> {
        let time = self.check_time(request, now)?;
        self.check_signed(request)?;
        let payload_hash = self.payload_hash(request)?;
        let canonical = canonical_request(
            request.method.as_str(),
            &request.path,
            &request.query,
            &self.headers(request)?,
            &payload_hash,
            self.service == "s3",
        );
        let expected = signature(secret, &time, &self.date, &self.region, &self.service, &canonical);
        if expected == self.signature { Ok(()) } else { Err(Refusal::Mismatch) }
    }

    fn check_time(&self, request: &Request, now: DateTime<Utc>) -> Result<String, Refusal> {
        let stamp = request.header("x-amz-date").ok_or_else(|| {
            Refusal::Incomplete("Authorization header requires existence of a 'X-Amz-Date' header.".to_owned())
        })?;
        let at = NaiveDateTime::parse_from_str(stamp, "%Y%m%dT%H%M%SZ")
            .map_err(|_| Refusal::Incomplete("Date must be in ISO-8601 'basic format'.".to_owned()))?
            .and_utc();
        if !stamp.starts_with(&self.date) {
            return Err(Refusal::Incomplete(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.".to_owned(),
            ));
        }
        let (limit, show) =
            (Duration::minutes(SKEW_MINUTES), |t: DateTime<Utc>| t.format("%Y%m%dT%H%M%SZ").to_string());
        if at < now - limit {
            return Err(Refusal::Stale(format!(
                "Signature expired: {stamp} is now earlier than {} ({} - 15 min.)",
                show(now - limit),
                show(now)
            )));
        }
        if at > now + limit {
            return Err(Refusal::Stale(format!(
                "Signature not yet current: {stamp} is still later than {} ({} + 15 min.)",
                show(now + limit),
                show(now)
            )));
        }
        Ok(stamp.to_owned())
    }

    /// `host`, and every `x-amz-*` header that is there, must be signed.
    pub(crate) fn check_signed(&self, request: &Request) -> Result<(), Refusal> {
        let must =
            request.headers.keys().map(|name| name.as_str()).filter(|name| name.starts_with("x-amz-")).chain(["host"]);
        for name in must {
            if !self.signed_headers.iter().any(|signed| signed == name) {
                return Err(Refusal::NotSigned(name.to_owned()));
            }
        }
        Ok(())
    }

    fn payload_hash(&self, request: &Request) -> Result<String, Refusal> {
        let real = sha256_hex(&request.body);
        match (request.header("x-amz-content-sha256"), self.service.as_str()) {
            (None, "s3") => Err(Refusal::NoPayloadHash),
            (None, _) => Ok(real),
            (Some(UNSIGNED), "s3") => Ok(UNSIGNED.to_owned()),
            (Some(claimed), _) if claimed == real => Ok(real),
            (Some(_), _) => Err(Refusal::PayloadHash),
        }
    }

    fn headers(&self, request: &Request) -> Result<Vec<(String, String)>, Refusal> {
        let mut names = self.signed_headers.clone();
        names.sort_unstable();
        if names != self.signed_headers {
            return Err(Refusal::Mismatch);
        }
        names
            .into_iter()
            .map(|name| {
                let values: Vec<&str> =
                    request.headers.get_all(name.as_str()).iter().filter_map(|v| v.to_str().ok()).collect();
                if values.is_empty() { Err(Refusal::Mismatch) } else { Ok((name, values.join(","))) }
            })
            .collect()
    }
}

/// A request to be signed.
pub(crate) struct Unsigned<'a> {
    pub(crate) method: &'a str,
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) body: &'a str,
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
}

impl Unsigned<'_> {
    /// The headers that sign it.
    pub(crate) fn sign(&self, (key_id, secret): (&str, &str), now: DateTime<Utc>) -> Vec<(&'static str, String)> {
        let payload_hash = sha256_hex(self.body.as_bytes());
        let stamp = now.format("%Y%m%dT%H%M%SZ").to_string();
        let date = &stamp[..8];
        let signed = [("host", self.host), ("x-amz-content-sha256", &payload_hash), ("x-amz-date", &stamp)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let s3 = self.service == "s3";
        let canonical = canonical_request(self.method, self.path, self.query, &signed, &payload_hash, s3);
        let signature = signature(secret, &stamp, date, self.region, self.service, &canonical);
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={key_id}/{date}/{}/{}/aws4_request, \
             SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature={signature}",
            self.region, self.service
        );
        vec![("x-amz-content-sha256", payload_hash), ("x-amz-date", stamp), ("authorization", authorization)]
    }
}

fn canonical_request(
    method: &str,
    path: &str,
    query: &str,
    headers: &[(String, String)],
    payload_hash: &str,
    s3: bool,
) -> String {
    // S3 escapes a path once; every other service escapes what is already escaped.
    let path = if s3 { form::decode(path, false) } else { path.to_owned() };
    let path: Vec<String> = path.split('/').map(form::encode).collect();
    let mut query: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (form::encode(&form::decode(name, false)), form::encode(&form::decode(value, false))))
        .collect();
    query.sort();
    let query: Vec<String> = query.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut lines = String::new();
    for (name, value) in headers {
        let value: Vec<&str> = value.split_whitespace().collect();
        writeln!(lines, "{name}:{}", value.join(" ")).expect("a String takes every write");
    }
    let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
    format!("{method}\n{}\n{}\n{lines}\n{}\n{payload_hash}", path.join("/"), query.join("&"), names.join(";"))
}

fn signature(secret: &str, stamp: &str, date: &str, region: &str, service: &str, canonical: &str) -> String {
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{stamp}\n{date}/{region}/{service}/aws4_request\n{}",
        sha256_hex(canonical.as_bytes())
    );
    let mut key = hmac_sha256(format!("AWS4{secret}").as_bytes(), date);
    for part in [region, service, "aws4_request"] {
        key = hmac_sha256(&key, part);
    }
    hex(&hmac_sha256(&key, &to_sign))
}

fn hmac_sha256(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").expect("a String takes every write");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    /// The worked example of the IAM guide ("Signature Version 4 signing process", ListUsers).
    #[test]
    fn the_iam_example_of_the_guide_signs_as_printed() {
        let canonical = canonical_request(
            "GET",
            "/",
            "Action=ListUsers&Version=2010-05-08",
            &pairs(&[
                ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
                ("host", "iam.amazonaws.com"),
                ("x-amz-date", "20150830T123600Z"),
            ]),
            &sha256_hex(b""),
            false,
        );
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        assert_eq!(
            signature(secret, "20150830T123600Z", "20150830", "us-east-1", "iam", &canonical),
            "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }

    /// The worked example of the S3 API reference ("GET Bucket (List Objects)").
    #[test]
    fn the_s3_example_of_the_reference_signs_as_printed() {
        let empty = sha256_hex(b"");
        let canonical = canonical_request(
            "GET",
            "/",
            "max-keys=2&prefix=J",
            &pairs(&[
                ("host", "examplebucket.s3.amazonaws.com"),
                ("x-amz-content-sha256", &empty),
                ("x-amz-date", "20130524T000000Z"),
            ]),
            &empty,
            true,
        );
        let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
        assert_eq!(
            signature(secret, "20130524T000000Z", "20130524", "us-east-1", "s3", &canonical),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
    }
}
