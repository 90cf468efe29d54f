//! Whether a credential opens the blob service as its consumer does: a look into the consumer's own container.
//!
//! Reads tables, builds the request and judges the answer; the request changes nothing. It cannot tell a key that is not yet known
//! everywhere from one that was never good: Azure answers both with `AuthenticationFailed`. Who knows more says so before it asks.

use serde::{Deserialize, Serialize};

use super::account::Account;
use super::faults::Call;
use crate::model::{Reason, Secret, Timestamp};
use crate::net::client::{Answer, Client, Request};
use crate::net::redact::Redactor;
use crate::net::shared_key;
use crate::net::xml::{element, plain};
use crate::ports::{Fault, Probe};
use crate::table::Table;

/// A probe as it may be written.
pub(in crate::issuer) const FORM: &str = "probe = { container = \"gis\", expect = \"read\" }";

/// `probe = { … }` of a service whose credential opens a storage account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::issuer) struct Container {
    container: String,
    expect: Expect,
    /// The account's blob endpoint, where it is neither the cloud's nor the policy's.
    endpoint_url: Option<String>,
}

/// What must succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::issuer) enum Expect {
    /// The request itself.
    Read,
    /// Only that the credential is known: it may be meant for less than the probe asks.
    Authenticates,
}

/// What opens the container.
pub(in crate::issuer) enum Credential<'a> {
    /// A key of the account.
    Key(&'a Secret),
    /// A token of Entra.
    Token(&'a Secret),
    /// A shared access signature, which stands in the query; a `?` at its head belongs to nobody.
    Sas(&'a Secret),
}

/// Reads `[service.issuer].probe`; mistakes go into the report.
pub(in crate::issuer) fn read(table: &mut Table<'_>) -> Option<Container> {
    if !table.require("probe", FORM) {
        return None;
    }
    let mut probe = table.table("probe")?;
    let container = probe.text("container");
    if let Some(name) = &container
        && !is_container(name)
    {
        probe.mistake("container", format!("`{name}` is no container's name"), format!("write `{FORM}`"));
    }
    let expect = read_expect(&mut probe);
    let endpoint_url = probe.url("endpoint_url");
    Some(Container { container: container?, expect, endpoint_url })
}

/// Reads `expect` of a probe.
pub(in crate::issuer) fn read_expect(probe: &mut Table<'_>) -> Expect {
    match probe.choice("expect", &["read", "authenticates"]) {
        Some("authenticates") => Expect::Authenticates,
        _ => Expect::Read,
    }
}

/// Azure's rule for names of containers, and the three of its own that begin with `$`. It becomes part of a path.
pub(in crate::issuer) fn is_container(text: &str) -> bool {
    let plain = |text: &str| {
        (3..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
    };
    plain(text) || ["$root", "$web", "$logs"].contains(&text)
}

impl Container {
    /// Lists one blob of the container at `endpoint`, with this credential.
    pub(in crate::issuer) async fn look(
        &self,
        http: &Client,
        endpoint: &str,
        account: &str,
        credential: Credential<'_>,
        now: Timestamp,
    ) -> Result<Probe, Fault> {
        let call = Call::new(format!("list one blob of container {} in storage account {account}", self.container));
        let mut url = format!("{endpoint}/{}?restype=container&comp=list&maxresults=1", self.container);
        let headers = match credential {
            Credential::Key(key) => {
                let headers = shared_key::sign_get(&url, account, key, now);
                match headers {
                    Ok(headers) => headers,
                    Err(why) => return Ok(Probe::Wrong(call.text(why))),
                }
            }
            Credential::Token(token) => vec![
                ("x-ms-version", shared_key::VERSION.to_owned()),
                ("authorization", format!("Bearer {}", token.expose())),
            ],
            // It is made to be part of the address, which no message of ours shows.
            Credential::Sas(token) => {
                url = format!("{url}&{}", token.expose().trim_start_matches('?'));
                vec![("x-ms-version", shared_key::VERSION.to_owned())]
            }
        };
        let request = headers.into_iter().fold(Request::get(url), |request, (name, value)| request.header(name, value));
        let answer = http.send(call.what(), request).await?;
        judge(&call, &answer, self.expect)
    }

    /// Its name.
    pub(in crate::issuer) fn name(&self) -> &str {
        &self.container
    }

    /// What must succeed.
    pub(in crate::issuer) fn expect(&self) -> Expect {
        self.expect
    }

    /// Whether the policy says that the blob service is reached without TLS, which it may be on this machine alone.
    pub(in crate::issuer) fn is_plain(&self, policy: &Account) -> bool {
        let url = self.endpoint(policy, "account");
        url.is_some_and(|url| url.starts_with("http://"))
    }

    /// Where the blob service of `account` is, as far as the policy says.
    pub(in crate::issuer) fn endpoint(&self, policy: &Account, account: &str) -> Option<String> {
        self.endpoint_url.clone().or_else(|| policy.blob_endpoint_if_named(account))
    }
}

/// What the blob service's answer says of the credential.
fn judge(call: &Call, answer: &Answer, expect: Expect) -> Result<Probe, Fault> {
    let body = String::from_utf8_lossy(&answer.body);
    if answer.status == 200 {
        // A login page answers 200 as well; only a listing proves that the credential can read.
        return match body.contains("<EnumerationResults") {
            true => Ok(Probe::Works),
            false => Err(Fault::Unknown(call.text("status 200 and a body that is no listing of a container"))),
        };
    }
    let redactor = Redactor::default();
    let code = element(&body, "Code").map(|code| redactor.clean(code));
    let message =
        element(&body, "Message").and_then(|message| message.lines().next()).map(|line| redactor.clean(&plain(line)));
    let said = match (&code, &message) {
        (Some(code), Some(message)) => format!("{code} ({}): {message}", answer.status),
        (Some(code), None) => format!("{code} ({})", answer.status),
        (None, _) => format!("status {} and a body that is no answer of this service", answer.status),
    };
    let (text, code) = (call.text(said), code.as_deref().unwrap_or_default());
    let is_clock = element(&body, "AuthenticationErrorDetail").is_some_and(|detail| detail.contains("date header"));
    match (answer.status, code) {
        (429, _) | (503, "ServerBusy") => Err(Fault::Retry { after: answer.retry_after, why: text }),
        (500.., _) | (_, "") => Err(Fault::Unknown(text)),
        (_, "AuthenticationFailed") if is_clock => Err(Fault::Retry {
            after: None,
            why: format!("{text}; the time of the request was refused: check that time is synchronised here"),
        }),
        // Azurite says the second of a wrong key; Azure says it of a network rule, and then of every key alike.
        (403, "AuthorizationFailure") => Ok(Probe::NotYet(format!(
            "{text}; on Azure this is a network rule of the account, which lets this machine's address not through"
        ))),
        (401 | 403, "AuthenticationFailed" | "InvalidAuthenticationInfo") => Ok(Probe::NotYet(text)),
        (403, "AuthorizationPermissionMismatch" | "InsufficientAccountPermissions")
            if expect == Expect::Authenticates =>
        {
            Ok(Probe::Works)
        }
        (403, "KeyBasedAuthenticationNotPermitted") => Ok(Probe::NotAllowed(format!(
            "{text}; the account's allowSharedKeyAccess is false, so its keys open nothing"
        ))),
        (401 | 403 | 409, _) => Ok(Probe::NotAllowed(text)),
        (404, _) => Err(Fault::Refused { reason: Reason::NotFound, why: text }),
        _ => Err(Fault::Refused { reason: Reason::Refused, why: text }),
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    fn judged(expect: Expect, status: u16, code: &str) -> Result<Probe, Fault> {
        let body = format!(
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>It said so.\nRequestId:1</Message></Error>"
        );
        judged_of(expect, status, &body)
    }

    fn judged_of(expect: Expect, status: u16, body: &str) -> Result<Probe, Fault> {
        let answer = Answer {
            status,
            host: String::new(),
            location: None,
            retry_after: None,
            date: None,
            body: Zeroizing::new(body.as_bytes().to_vec()),
        };
        judge(&Call::new("look"), &answer, expect)
    }

    #[test]
    fn only_a_listing_is_proof() {
        assert_eq!(judged_of(Expect::Read, 200, "<?xml?><EnumerationResults/>"), Ok(Probe::Works));
        assert!(matches!(judged_of(Expect::Read, 200, "<html>"), Err(Fault::Unknown(_))));
    }

    #[test]
    fn what_is_said_of_the_key_is_told_from_what_is_not() {
        let read = |status, code| judged(Expect::Read, status, code);
        assert_eq!(
            read(403, "AuthenticationFailed"),
            Ok(Probe::NotYet("look: AuthenticationFailed (403): It said so.".into()))
        );
        assert!(matches!(read(403, "AuthorizationFailure"), Ok(Probe::NotYet(_))));
        assert!(matches!(read(401, "InvalidAuthenticationInfo"), Ok(Probe::NotYet(_))));
        assert!(matches!(read(403, "AuthorizationPermissionMismatch"), Ok(Probe::NotAllowed(_))));
        assert_eq!(judged(Expect::Authenticates, 403, "AuthorizationPermissionMismatch"), Ok(Probe::Works));
        // What refuses every credential proves nothing of this one.
        assert!(matches!(judged(Expect::Authenticates, 403, "AuthorizationFailure"), Ok(Probe::NotYet(_))));
        let shared = read(403, "KeyBasedAuthenticationNotPermitted");
        assert!(matches!(&shared, Ok(Probe::NotAllowed(why)) if why.contains("allowSharedKeyAccess is false")));
        assert!(matches!(read(404, "ContainerNotFound"), Err(Fault::Refused { reason: Reason::NotFound, .. })));
        assert!(matches!(read(503, "ServerBusy"), Err(Fault::Retry { .. })));
        assert!(matches!(read(500, "InternalError"), Err(Fault::Unknown(_))));
        assert!(matches!(judged_of(Expect::Read, 403, "<html>"), Err(Fault::Unknown(_))));
    }

    #[test]
    fn a_refused_date_is_a_matter_of_clocks() {
        let body = "<Error><Code>AuthenticationFailed</Code><Message>Server failed to authenticate the request.</Message>\
                    <AuthenticationErrorDetail>The date header in the request is incorrect.</AuthenticationErrorDetail></Error>";
        let said = judged_of(Expect::Read, 403, body);
        assert!(matches!(&said, Err(Fault::Retry { why, .. }) if why.contains("time is synchronised")), "{said:?}");
    }

    #[test]
    fn a_containers_name_cannot_end_a_path() {
        assert!(is_container("gis") && is_container("gis-store-1") && is_container("$root"));
        for wrong in ["", "ab", "a/b", "a?b=c", "-abc", "Gis", "$other", "a b c"] {
            assert!(!is_container(wrong), "{wrong}");
        }
    }
}
