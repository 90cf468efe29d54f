//! Whose a key is, as STS or an ARN tells it. Whether it opens its consumer's bucket is looked up by `s3`.
//!
//! Reads and judges answers; sends nothing.

use std::net::IpAddr;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::faults::{self, Call};
use crate::ports::Probe;

/// What a refused `GetCallerIdentity` with the probed key says of it; `None` where it says nothing of the key.
pub(super) fn refused<E: ProvideErrorMetadata>(call: &Call, error: &SdkError<E, HttpResponse>) -> Option<Probe> {
    let answer = faults::answer_of(error)?;
    if answer.is_clock() || answer.is_throttle() || answer.status >= 500 {
        return None;
    }
    let text = call.text(answer.text());
    match (answer.status, answer.code) {
        (_, Some("InvalidClientTokenId" | "UnrecognizedClientException" | "InvalidAccessKeyId")) => {
            Some(Probe::NotYet(text))
        }
        (_, Some("SignatureDoesNotMatch" | "InvalidSignatureException" | "IncompleteSignature")) => {
            Some(Probe::Wrong(text))
        }
        (_, Some("AccessDenied" | "AccessDeniedException")) => Some(Probe::NotAllowed(text)),
        _ => None,
    }
}

/// The parts of an ARN that say whose key it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// `aws`, `aws-us-gov`, `aws-cn`; `ecs`.
    pub(super) partition: String,
    /// Twelve digits at AWS, anything at other stores.
    pub(super) account: String,
    /// The IAM user's name without its path; `None` where it is no user (a role, the root).
    pub(super) user: Option<String>,
}

impl Owner {
    /// From an ARN: `arn:PARTITION:iam::ACCOUNT:user/PATH/NAME`. ECS and ObjectScale write `urn:ecs:iam::NAMESPACE:user/NAME`.
    pub(super) fn parse(arn: &str) -> Option<Self> {
        let mut parts = arn.splitn(6, ':');
        let ("arn" | "urn", partition, _service, _region) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?)
        else {
            return None;
        };
        let (account, resource) = (parts.next()?, parts.next()?);
        // A user's name has no slash; what stands before the last one is the user's path.
        let user = resource.strip_prefix("user/").and_then(|path| path.rsplit('/').next()).map(str::to_owned);
        (is_id(partition) && (account.is_empty() || is_id(account))).then(|| Self {
            partition: partition.to_owned(),
            account: account.to_owned(),
            user,
        })
    }

    /// The account with its partition: `aws:123456789012`.
    pub(super) fn name(&self) -> String {
        format!("{}:{}", self.partition, self.account)
    }

    /// Whether a key that answers as `self` is one of `user` in the account `ours`; else what is wrong.
    pub(super) fn check(&self, user: &str, ours: &Owner) -> Result<(), String> {
        if self.user.as_deref() != Some(user) {
            let whose = self.user.as_deref().unwrap_or("nobody's user");
            return Err(format!("the key belongs to {whose}, not to {user}"));
        }
        if (&self.partition, &self.account) != (&ours.partition, &ours.account) {
            return Err(format!("the key belongs to account {}, the rotator to {}", self.name(), ours.name()));
        }
        Ok(())
    }
}

/// Whether a text can be somebody's id: it goes into the journal and is held against the next answer's.
pub(super) fn is_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-$@+=".contains(&b))
}

/// Whether an endpoint's host is this machine.
pub(super) fn is_loopback(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else { return false };
    let Some(host) = uri.host() else { return false };
    host == "localhost"
        || host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_tells_whose_a_key_is() {
        let ours = Owner::parse("arn:aws:iam::123456789012:user/rotator").expect("an arn");
        let check = |arn| Owner::parse(arn).expect("an arn").check("arcgis-object-store", &ours);
        assert_eq!(check("arn:aws:iam::123456789012:user/arcgis-object-store"), Ok(()));
        assert_eq!(check("arn:aws:iam::123456789012:user/gis/prod/arcgis-object-store"), Ok(()));
        for (arn, why) in [
            (
                "arn:aws:iam::123456789012:user/not-arcgis-object-store",
                "the key belongs to not-arcgis-object-store, not to arcgis-object-store",
            ),
            (
                "arn:aws:iam::123456789012:user/arcgis-object-store/other",
                "the key belongs to other, not to arcgis-object-store",
            ),
            (
                "arn:aws:sts::123456789012:assumed-role/r/arcgis-object-store",
                "the key belongs to nobody's user, not to arcgis-object-store",
            ),
            (
                "arn:aws:iam::210987654321:user/arcgis-object-store",
                "the key belongs to account aws:210987654321, the rotator to aws:123456789012",
            ),
            (
                "arn:aws-cn:iam::123456789012:user/arcgis-object-store",
                "the key belongs to account aws-cn:123456789012, the rotator to aws:123456789012",
            ),
        ] {
            assert_eq!(check(arn), Err(why.to_owned()), "{arn}");
        }
        for none in ["", "arn:aws:iam", "uri:aws:iam::1:user/x", "arn::iam::1:user/x", "arn:aws:iam::1 2:user/x"] {
            assert_eq!(Owner::parse(none), None, "{none}");
        }
    }

    /// ECS and ObjectScale; Ceph with an account, and a user of the time before accounts.
    #[test]
    fn a_stores_own_names_are_read_too() {
        for (arn, name) in [
            ("urn:ecs:iam::ns1:user/store", "ecs:ns1"),
            ("arn:aws:iam::RGW33567154695143645:user/store", "aws:RGW33567154695143645"),
            ("arn:aws:iam:::user/store", "aws:"),
        ] {
            let owner = Owner::parse(arn).expect("an arn");
            assert_eq!((owner.name().as_str(), owner.user.as_deref()), (name, Some("store")));
        }
        let long = "x".repeat(129);
        assert!(is_id("AIDA1") && is_id("tenant$user") && is_id("3a2b6c1e-0000-4000-8000-000000000000"));
        for wrong in ["", "a b", "a/b", "<x>", long.as_str()] {
            assert!(!is_id(wrong), "{wrong}");
        }
    }

    #[test]
    fn only_this_host_is_loopback() {
        for here in ["http://127.0.0.1:5000", "http://[::1]:5000", "http://localhost", "http://127.9.9.9/x"] {
            assert!(is_loopback(here), "{here}");
        }
        for there in ["http://127.0.0.1.example.com", "http://10.0.0.1", "http://example.com", "", "http://[::2]"] {
            assert!(!is_loopback(there), "{there}");
        }
    }
}
