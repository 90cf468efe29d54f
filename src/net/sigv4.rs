//! One AWS Signature Version 4 over one GET without a body: the headers to add.
//!
//! A thin wrapper over the `aws-sigv4` crate for the single request that no SDK of ours makes (a consumer's look into its
//! bucket). It sends nothing, reads no clock and signs no body.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode,
    sign,
};
use aws_sigv4::sign::v4;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::model::{KeyId, Secret};

/// What a signature is made for and with.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// The access key id.
    pub key: &'a KeyId,
    /// Its secret.
    pub secret: &'a Secret,
    /// The region the other side believes to be in.
    pub region: &'a str,
    /// The service in the signature: `s3`.
    pub service: &'a str,
}

/// The headers that make a GET of `url` a signed one at `now`. `url` must stand exactly as it will be sent, query included, and
/// its host is signed as written there. S3's rules: the path is encoded once and not normalised, the payload's hash is a header.
///
/// # Errors
/// A text without any secret, where `url` is not one or a header cannot be written.
pub fn sign_get(url: &str, scope: Scope<'_>, now: SystemTime) -> Result<HeaderMap, String> {
    // `Credentials` keeps its copies in zeroizing strings, so both are wiped when `identity` goes.
    let identity = Credentials::new(scope.key.as_str(), scope.secret.expose(), None, None, "rekeyd").into();
    let mut settings = SigningSettings::default();
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(scope.region)
        .name(scope.service)
        .time(now)
        .settings(settings)
        .build()
        .map_err(|error| format!("sign a request: {error}"))?
        .into();
    let request = SignableRequest::new("GET", url, std::iter::empty(), SignableBody::Bytes(&[]))
        .map_err(|error| format!("sign a request: {error}"))?;
    let (instructions, _) = sign(request, &params).map_err(|error| format!("sign a request: {error}"))?.into_parts();
    let mut headers = HeaderMap::new();
    for (name, value) in instructions.headers() {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| format!("sign a request: {error}"))?;
        let mut value = HeaderValue::from_str(value).map_err(|error| format!("sign a request: {error}"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn signed(url: &str, secret: &str) -> HeaderMap {
        let (key, secret) = (KeyId::new("AKIAIOSFODNN7EXAMPLE"), Secret::new(secret.to_owned()));
        let scope = Scope { key: &key, secret: &secret, region: "us-east-1", service: "s3" };
        // 2013-05-24T00:00:00Z, the day of AWS's own example.
        sign_get(url, scope, SystemTime::UNIX_EPOCH + Duration::from_secs(1_369_353_600)).expect("signs")
    }

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

    /// "GET Bucket (List Objects)" of AWS's page "Examples: Signature Calculations in AWS Signature Version 4".
    #[test]
    fn agrees_with_the_example_aws_publishes() {
        let headers = signed("https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J", SECRET);
        assert_eq!(headers["x-amz-date"], "20130524T000000Z");
        assert_eq!(headers["x-amz-content-sha256"], "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(
            headers["authorization"],
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
             SignedHeaders=host;x-amz-content-sha256;x-amz-date, \
             Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
    }

    #[test]
    fn another_secret_is_another_signature_and_neither_is_printed() {
        let url = "http://127.0.0.1:9000/gis-store?list-type=2&max-keys=1";
        let (one, two) = (signed(url, SECRET), signed(url, "another"));
        assert_ne!(one["authorization"], two["authorization"]);
        assert!(!format!("{one:?}").contains("Signature="), "{one:?}");
    }

    #[test]
    fn what_is_no_url_is_an_error() {
        let (key, secret) = (KeyId::new("AKIA"), Secret::new(SECRET.to_owned()));
        let scope = Scope { key: &key, secret: &secret, region: "us-east-1", service: "s3" };
        let error = sign_get("http://[", scope, SystemTime::UNIX_EPOCH).expect_err("no url");
        assert!(error.starts_with("sign a request: ") && !error.contains(SECRET), "{error}");
    }
}
