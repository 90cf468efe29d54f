//! The Blob service, as far as proves that a credential reads a container: listing containers and blobs, and reading a blob.
//! Path-style, as azurite has it; nothing is ever written over the wire.
//!
//! It lets in by Shared Key, by SAS and by a bearer token of our own Entra. A SAS of the account may be of any version since
//! 2015-04-05, one of a container (`sr=c`) or a blob (`sr=b`) of any since 2018-11-09: before that, other fields are signed. Anonymous
//! access, stored access policies, user delegation, Shared Key Lite, ranges and conditions are not offered. The details in the refusals
//! are as issues and forums quote them from Azure; where none was found they are our own, and said to be.

use std::net::IpAddr;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Response};
use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use super::state::{Account, Container, State, Stored};
use super::wire::{Content, Outcome, bearer, instant};
use crate::http::{Request, answer};
use crate::shared_key::{self, Sas, Signed};
use crate::xml::escape;
use crate::{chance, form, http};

/// How far the date of a request may lie from ours. The document says it of the past; of the future it is our choice.
const SKEW_MINUTES: i64 = 15;
/// RFC 1123, the one form a date has here.
/// No list is longer.
const RESULTS_MAX: usize = 5000;
/// The permissions of a container or blob, in the order in which they have to stand.
const PERMISSIONS: &str = "racwdxyltfmeopi";

/// The versions there are, in order: the list of azure-storage-blob 12.31.1, and before it the pages of "Previous Azure Storage versions"
/// back to the one that brought today's string to sign.
const VERSIONS: [&str; 43] = [
    "2015-02-21",
    "2015-04-05",
    "2015-07-08",
    "2015-12-11",
    "2016-05-31",
    "2017-04-17",
    "2017-07-29",
    "2017-11-09",
    "2018-03-28",
    "2018-11-09",
    "2019-02-02",
    "2019-07-07",
    "2019-10-10",
    "2019-12-12",
    "2020-02-10",
    "2020-04-08",
    "2020-06-12",
    "2020-08-04",
    "2020-10-02",
    "2020-12-06",
    "2021-02-12",
    "2021-04-10",
    "2021-06-08",
    "2021-08-06",
    "2021-10-04",
    "2021-12-02",
    "2022-11-02",
    "2023-01-03",
    "2023-05-03",
    "2023-08-03",
    "2023-11-03",
    "2024-02-04",
    "2024-05-04",
    "2024-08-04",
    "2024-11-04",
    "2025-01-05",
    "2025-05-05",
    "2025-07-05",
    "2025-11-05",
    "2026-02-06",
    "2026-04-06",
    "2026-06-06",
    "2026-10-06",
];

/// Bearer tokens came with this version.
const BEARER_SINCE: &str = "2017-11-09";
/// Who asks without a right token is told where to get one, since this version; before, it is a refusal like any other.
const CHALLENGE_SINCE: &str = "2019-12-12";
const ACCOUNT_SAS_SINCE: &str = "2015-04-05";
const SERVICE_SAS_SINCE: &str = "2018-11-09";

/// What a path asks for.
#[derive(Clone)]
pub(crate) struct Asked {
    account: String,
    /// Empty where the account itself is asked.
    container: String,
    /// Unescaped; empty where the container itself is asked.
    blob: String,
    verb: Verb,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    ListContainers,
    ListBlobs,
    Get,
    Head,
}

impl Asked {
    pub(crate) fn read(request: &Request) -> Option<Self> {
        let (account, rest) = cut(request.path.strip_prefix('/')?);
        let (container, blob) = cut(rest);
        let query = form::pairs(&request.query);
        let parameter = |name| form::value(&query, name);
        let verb = match (&request.method, parameter("restype"), parameter("comp")) {
            (&Method::GET, None, Some("list")) if container.is_empty() => Verb::ListContainers,
            (&Method::GET, Some("container"), Some("list")) if !container.is_empty() && blob.is_empty() => {
                Verb::ListBlobs
            }
            (&Method::GET, None, None) if !blob.is_empty() => Verb::Get,
            (&Method::HEAD, None, None) if !blob.is_empty() => Verb::Head,
            _ => return None,
        };
        let [account, container, blob] = [account, container, blob].map(|piece| form::decode(piece, false));
        Some(Self { account, container, blob, verb })
    }

    pub(crate) fn operation(&self) -> &'static str {
        match self.verb {
            Verb::ListContainers => "ListContainers",
            Verb::ListBlobs => "ListBlobs",
            Verb::Get => "GetBlob",
            Verb::Head => "GetBlobProperties",
        }
    }

    pub(crate) fn account(&self) -> &str {
        &self.account
    }

    /// The kind of resource and the permission that a SAS must be for, by the tables of the two pages.
    fn needs(&self) -> (char, char) {
        match self.verb {
            Verb::ListContainers => ('s', 'l'),
            Verb::ListBlobs => ('c', 'l'),
            Verb::Get | Verb::Head => ('o', 'r'),
        }
    }

    /// Who asks first, and only then what is there: a stranger does not learn which containers exist.
    pub(crate) fn execute(&self, request: &Request, state: &State, now: DateTime<Utc>) -> Outcome {
        let Some(account) = state.storage_account(&self.account) else {
            // With a host for each account there is nobody to ask; this is what azurite says.
            return Outcome::error(404, "ResourceNotFound", "The specified resource does not exist.");
        };
        let visit = Visit { asked: self, request, state, account, now };
        match visit.admit() {
            Err(refusal) => refusal,
            Ok(caller) => visit.serve().unwrap_or_else(|refusal| refusal).of_key(&caller),
        }
        .about(&self.account)
    }
}

/// The first piece of a path, and the rest.
fn cut(path: &str) -> (&str, &str) {
    path.split_once('/').unwrap_or((path, ""))
}

/// One call on an account that is there.
struct Visit<'a> {
    asked: &'a Asked,
    request: &'a Request,
    state: &'a State,
    account: &'a Account,
    now: DateTime<Utc>,
}

impl Visit<'_> {
    /// The slot whose key signed, or the application whose token it is. A refusal names it too, where it is known.
    fn admit(&self) -> Result<String, Outcome> {
        // A request with both is judged by its header, as azurite does it; no document says.
        match (self.request.header("authorization"), Sas::read(&self.request.query)) {
            (Some(header), _) => match header.split_once(' ') {
                Some(("SharedKey", credential)) => self.by_key(credential),
                Some((scheme, _)) if scheme.eq_ignore_ascii_case("bearer") => self.by_token(),
                _ => Err(malformed()),
            },
            (None, Some(sas)) => self.by_sas(&sas),
            (None, None) => Err(self.anonymous()),
        }
    }

    /// `x-ms-version`, where there is one.
    fn version(&self) -> Result<Option<&str>, Outcome> {
        let Some(version) = self.request.header("x-ms-version") else { return Ok(None) };
        if VERSIONS.contains(&version) {
            return Ok(Some(version));
        }
        let details = json!({"HeaderName": "x-ms-version", "HeaderValue": version});
        let message = "The value for one of the HTTP headers is not in the correct format.".to_owned();
        Err(Outcome::detailed(400, "InvalidHeaderValue", message, details))
    }

    fn by_key(&self, credential: &str) -> Result<String, Outcome> {
        if self.version()?.is_none() {
            // Azure may fall back to a version of 2009 here, whose string to sign is another one. A client of ours has no business there.
            let message = "An HTTP header that's mandatory for this request is not specified.".to_owned();
            return Err(Outcome::detailed(
                400,
                "MissingRequiredHeader",
                message,
                json!({"HeaderName": "x-ms-version"}),
            ));
        }
        let (name, signature) = credential.split_once(':').ok_or_else(malformed)?;
        self.check_date()?;
        self.check_keys_allowed()?;
        let text = Signed::of(self.request).string_to_sign(&self.account.name);
        // A right signature for another account is none for this one.
        self.slot_of(&text, signature).filter(|_| name == self.account.name).ok_or_else(|| {
            failed(&format!(
                "The MAC signature found in the HTTP request '{signature}' is not the same as any computed signature. Server used \
                 following string to sign: '{text}'."
            ))
        })
    }

    fn check_date(&self) -> Result<(), Outcome> {
        let date = self.request.header("x-ms-date").or_else(|| self.request.header("date"));
        let date = date.ok_or_else(|| failed("Request date header not specified"))?;
        let at = NaiveDateTime::parse_from_str(date, http::DATE).map_err(|_| {
            // Our own words.
            failed(&format!("Request date header is not in the correct format: '{date}'"))
        })?;
        let at = at.and_utc();
        let limit = TimeDelta::minutes(SKEW_MINUTES);
        if at < self.now - limit {
            return Err(failed(&format!("Request date header too old: '{date}'")));
        }
        if at > self.now + limit {
            // Our own words.
            return Err(failed(&format!("Request date header too far in the future: '{date}'")));
        }
        Ok(())
    }

    /// That this comes before the signature is our choice: the answer then does not depend on which key was used.
    fn check_keys_allowed(&self) -> Result<(), Outcome> {
        if self.account.keys_refused {
            let message = "Key based authentication is not permitted on this storage account.";
            return Err(Outcome::error(403, "KeyBasedAuthenticationNotPermitted", message));
        }
        Ok(())
    }

    /// The slot whose key, as the data plane takes it now, signs this text so.
    fn slot_of(&self, text: &str, signature: &str) -> Option<String> {
        let mut taken = self.account.taken(self.now, self.state.options.key_lag);
        taken
            .find(|(_, key)| shared_key::sign(key, text).as_deref() == Some(signature))
            .map(|(slot, _)| slot.to_owned())
    }

    /// Fields, times and signature, then what the token is for. The documents give no order.
    fn by_sas(&self, sas: &Sas) -> Result<String, Outcome> {
        check_fields(sas)?;
        self.check_times(sas)?;
        self.check_keys_allowed()?;
        let Asked { account, container, blob, .. } = self.asked;
        let text = sas.string_to_sign(account, container, blob);
        let slot = self.slot_of(&text, sas.get("sig"));
        let slot = slot.ok_or_else(|| failed(&format!("Signature did not match. String to sign used was {text}")))?;
        self.check_scope(sas).map_err(|refusal| refusal.of_key(&slot))?;
        Ok(slot)
    }

    fn check_times(&self, sas: &Sas) -> Result<(), Outcome> {
        let time = |name: &str| match sas.get(name) {
            "" => Ok(None),
            // Our own words.
            text => {
                sas_time(text).map(Some).ok_or_else(|| failed(&format!("{name} is not in the correct format: {text}")))
            }
        };
        let (start, end, now) = (time("st")?, time("se")?, self.now);
        let end = end.ok_or_else(|| failed(&mandatory("se")))?;
        if let Some(start) = start.filter(|start| end <= *start) {
            let (start, end) = (http::date(start), http::date(end));
            return Err(failed(&format!("Signed expiry time [{end}] has to be after signed start time [{start}]")));
        }
        if end <= now || start.is_some_and(|start| start > now) {
            // Without a start the moment of the asking is shown: our choice.
            let (start, end, now) = (http::date(start.unwrap_or(now)), http::date(end), http::date(now));
            return Err(failed(&format!(
                "Signature not valid in the specified time frame: Start [{start}] - Expiry [{end}] - Current [{now}]"
            )));
        }
        Ok(())
    }

    fn check_scope(&self, sas: &Sas) -> Result<(), Outcome> {
        if !includes(sas.get("sip"), self.request.peer) {
            let peer = self.request.peer;
            let message =
                format!("This request is not authorized to perform this operation using this source IP {peer}.");
            return Err(Outcome::error(403, "AuthorizationSourceIPMismatch", message));
        }
        if sas.get("spr") == "https" && !self.state.options.tls {
            return Err(mismatch("Protocol", "protocol"));
        }
        let (kind, permission) = self.asked.needs();
        if sas.is_of_account() && !sas.get("ss").contains('b') {
            return Err(mismatch("Service", "service"));
        }
        if sas.is_of_account() && !sas.get("srt").contains(kind) {
            return Err(mismatch("ResourceType", "resource type"));
        }
        if sas.get("sr") == "b" && kind != 'o' {
            return Err(mismatch("ResourceType", "resource type"));
        }
        if !sas.get("sp").contains(permission) {
            return Err(mismatch("Permission", "permission"));
        }
        Ok(())
    }

    /// Azure takes a token over HTTPS only. We take it over HTTP too, as this is loopback; so does every other face of ours.
    fn by_token(&self) -> Result<String, Outcome> {
        if self.version()?.is_none_or(|version| version < BEARER_SINCE) {
            return Err(failed("Authentication scheme Bearer is not supported in this version."));
        }
        // Our own words: ours are no JSON web tokens, and one that was never given out cannot be told apart any further.
        let unknown = || self.challenge("Signature validation failed.");
        let token = bearer(self.request).and_then(|text| self.state.tokens.get(text)).ok_or_else(unknown)?;
        let refusal = if token.expires <= self.now {
            self.challenge("Lifetime validation failed. The token is expired.")
        } else if token.audience.trim_end_matches('/') != "https://storage.azure.com" {
            self.challenge("Audience validation failed. Audience did not match.")
        } else if self.state.data_denied.contains(&token.client_id.to_ascii_lowercase()) {
            mismatch("Permission", "permission")
        } else {
            return Ok(token.client_id.clone());
        };
        Err(refusal.of_key(&token.client_id))
    }

    fn is_challenged(&self) -> bool {
        self.request.header("x-ms-version").is_some_and(|version| version >= CHALLENGE_SINCE)
    }

    /// A token that is none here.
    fn challenge(&self, detail: &str) -> Outcome {
        if !self.is_challenged() {
            return failed(detail);
        }
        let details = json!({"AuthenticationErrorDetail": detail});
        self.with_directions(Outcome::detailed(401, "InvalidAuthenticationInfo", CHALLENGED.to_owned(), details))
    }

    fn anonymous(&self) -> Outcome {
        if !self.is_challenged() {
            // What is not public is not there for strangers.
            return Outcome::error(404, "ResourceNotFound", "The specified resource does not exist.");
        }
        self.with_directions(Outcome::error(401, "NoAuthenticationInformation", CHALLENGED))
    }

    fn with_directions(&self, outcome: Outcome) -> Outcome {
        let tenant = &self.state.options.tenant_id;
        let directions = format!(
            "Bearer authorization_uri=https://login.microsoftonline.com/{tenant}/oauth2/authorize \
             resource_id=https://storage.azure.com"
        );
        outcome.header("www-authenticate", directions)
    }

    fn serve(&self) -> Result<Outcome, Outcome> {
        let query = form::pairs(&self.request.query);
        if self.asked.verb == Verb::ListContainers {
            return self.list_containers(&query);
        }
        let container = self.account.containers.get(&self.asked.container);
        let container = container
            .ok_or_else(|| Outcome::error(404, "ContainerNotFound", "The specified container does not exist."))?;
        if self.asked.verb == Verb::ListBlobs {
            return self.list_blobs(container, &query);
        }
        let blob = container.content.get(&self.asked.blob);
        let blob = blob.ok_or_else(|| Outcome::error(404, "BlobNotFound", "The specified blob does not exist."))?;
        let outcome = Outcome::new(200, Content::Bytes(blob.content.clone()), true)
            .header("last-modified", http::date(blob.modified))
            .header("etag", format!("\"{}\"", blob.etag))
            .header("x-ms-blob-type", "BlockBlob");
        Ok(outcome)
    }

    fn list_containers(&self, query: &[(String, String)]) -> Result<Outcome, Outcome> {
        let show = |(name, container): (&String, &Container)| {
            let (modified, etag) = (http::date(container.modified), &container.etag);
            format!(
                "<Container><Name>{}</Name><Properties><Last-Modified>{modified}</Last-Modified><Etag>\"{etag}\"</Etag>\
                 <LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState>\
                 <DefaultEncryptionScope>$account-encryption-key</DefaultEncryptionScope>\
                 <DenyEncryptionScopeOverride>false</DenyEncryptionScopeOverride>\
                 <HasImmutabilityPolicy>false</HasImmutabilityPolicy><HasLegalHold>false</HasLegalHold>\
                 <ImmutableStorageWithVersioningEnabled>false</ImmutableStorageWithVersioningEnabled></Properties></Container>",
                escape(name)
            )
        };
        let page = Page::read(query)?;
        Ok(self.list(&page, "Containers", "", page.of(&self.account.containers), show))
    }

    fn list_blobs(&self, container: &Container, query: &[(String, String)]) -> Result<Outcome, Outcome> {
        let show = |(name, blob): (&String, &Stored<_>)| {
            let (modified, etag, length) =
                (http::date(blob.modified), &blob.etag, axum::body::Bytes::len(&blob.content));
            format!(
                "<Blob><Name>{}</Name><Properties><Creation-Time>{modified}</Creation-Time>\
                 <Last-Modified>{modified}</Last-Modified><Etag>{etag}</Etag><Content-Length>{length}</Content-Length>\
                 <Content-Type>application/octet-stream</Content-Type><Content-Encoding /><Content-Language /><Content-CRC64 />\
                 <Content-MD5 /><Cache-Control /><Content-Disposition /><BlobType>BlockBlob</BlobType>\
                 <AccessTier>Hot</AccessTier><AccessTierInferred>true</AccessTierInferred><LeaseStatus>unlocked</LeaseStatus>\
                 <LeaseState>available</LeaseState><ServerEncrypted>true</ServerEncrypted></Properties><OrMetadata /></Blob>",
                escape(name)
            )
        };
        let page = Page::read(query)?;
        let name = format!(" ContainerName=\"{}\"", escape(&self.asked.container));
        Ok(self.list(&page, "Blobs", &name, page.of(&container.content), show))
    }

    fn list<'m, T: 'm>(
        &self,
        page: &Page<'_>,
        what: &str,
        attribute: &str,
        (shown, next): (Vec<(&'m String, &'m T)>, Option<&String>),
        show: impl Fn((&'m String, &'m T)) -> String,
    ) -> Outcome {
        let scheme = if self.state.options.tls { "https" } else { "http" };
        let host = self.request.header("host").unwrap_or("127.0.0.1");
        let endpoint = format!("{scheme}://{host}/{}/", self.asked.account);
        let element = |name: &str, text: Option<&str>| match text {
            Some(text) => format!("<{name}>{}</{name}>", escape(text)),
            None => String::new(),
        };
        let head =
            element("Prefix", page.prefix) + &element("Marker", page.marker) + &element("MaxResults", page.asked_max);
        let shown: String = shown.into_iter().map(show).collect();
        let shown = if shown.is_empty() { format!("<{what} />") } else { format!("<{what}>{shown}</{what}>") };
        let next = next.map_or("<NextMarker />".to_owned(), |next| element("NextMarker", Some(next)));
        let xml = format!(
            "<EnumerationResults ServiceEndpoint=\"{}\"{attribute}>{head}{shown}{next}</EnumerationResults>",
            escape(&endpoint)
        );
        Outcome::new(200, Content::Xml(xml), true)
    }
}

/// Which part of a list is asked for.
struct Page<'a> {
    prefix: Option<&'a str>,
    /// The name to go on with. Azure's is opaque; a client that looks inside ours learns nothing that helps elsewhere.
    marker: Option<&'a str>,
    asked_max: Option<&'a str>,
    max: usize,
}

impl<'a> Page<'a> {
    fn read(query: &'a [(String, String)]) -> Result<Self, Outcome> {
        let parameter = |name| form::value(query, name);
        let refuse = |code: &str, message: &str, name: &'static str| {
            let details = json!({"QueryParameterName": name, "QueryParameterValue": parameter(name)});
            Err(Outcome::detailed(400, code, message.to_owned(), details))
        };
        // These would change what the answer looks like; others, known to Azure or not, would not.
        if let Some(name) =
            ["delimiter", "include"].into_iter().find(|name| parameter(name).is_some_and(|v| !v.is_empty()))
        {
            let message = "One of the query parameters specified in the request URI is not supported.";
            return refuse("UnsupportedQueryParameter", message, name);
        }
        let asked_max = parameter("maxresults");
        let max = match asked_max.map(str::parse::<i64>) {
            None => RESULTS_MAX,
            Some(Ok(max @ 1..)) => usize::try_from(max).unwrap_or(RESULTS_MAX).min(RESULTS_MAX),
            Some(Ok(_)) => {
                let message = "A query parameter specified in the request URI is outside the permissible range.";
                return refuse("OutOfRangeQueryParameterValue", message, "maxresults");
            }
            Some(Err(_)) => {
                let message = "Value for one of the query parameters specified in the request URI is invalid.";
                return refuse("InvalidQueryParameterValue", message, "maxresults");
            }
        };
        let given = |name| parameter(name).filter(|value| !value.is_empty());
        Ok(Self { prefix: given("prefix"), marker: given("marker"), asked_max, max })
    }

    /// What of it is shown, and the name to go on with.
    fn of<'m, T>(
        &self,
        all: &'m std::collections::BTreeMap<String, T>,
    ) -> (Vec<(&'m String, &'m T)>, Option<&'m String>) {
        let (prefix, marker) = (self.prefix.unwrap_or_default(), self.marker.unwrap_or_default());
        let mut left = all.iter().filter(|(name, _)| name.starts_with(prefix) && name.as_str() >= marker);
        let shown = left.by_ref().take(self.max).collect();
        (shown, left.next().map(|(name, _)| name))
    }
}

/// What must be in a SAS, whatever it is for; the words of the refusals are our own. Where there is a field for a user delegation or a
/// stored policy, nothing here could tell whether it is right.
fn check_fields(sas: &Sas) -> Result<(), Outcome> {
    let version = sas.get("sv");
    let since = if sas.is_of_account() { ACCOUNT_SAS_SINCE } else { SERVICE_SAS_SINCE };
    if !VERSIONS.contains(&version) || version < since {
        return Err(failed(&format!("sv is not valid: '{version}'")));
    }
    for name in ["skoid", "si"] {
        if !sas.get(name).is_empty() {
            return Err(failed(&format!("{name} is not offered by this stand-in")));
        }
    }
    let must: &[&str] = if sas.is_of_account() { &["sp", "ss", "srt"] } else { &["sp", "sr"] };
    if let Some(name) = must.iter().find(|name| sas.get(name).is_empty()) {
        return Err(failed(&mandatory(name)));
    }
    // The page of the service SAS gives the order of the permissions, and calls any other an error; that of the account SAS does not.
    let permissions = sas.get("sp");
    let mut rest = PERMISSIONS.chars();
    if !sas.is_of_account() && !permissions.chars().all(|permission| rest.any(|one| one == permission)) {
        return Err(failed(&format!("sp is not valid: '{permissions}'")));
    }
    let resource = sas.get("sr");
    if !sas.is_of_account() && !["b", "c"].contains(&resource) {
        return Err(failed(&format!("sr is not valid: '{resource}'")));
    }
    Ok(())
}

fn mandatory(name: &str) -> String {
    format!("{name} is mandatory. Cannot be empty")
}

/// The forms of "Formatting date/time values in SAS": a day, a minute, a second, the last with a fraction or another zone.
fn sas_time(text: &str) -> Option<DateTime<Utc>> {
    let day = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0);
    let minute = || NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%MZ").ok();
    let second = || DateTime::parse_from_rfc3339(text).ok().map(|at| at.naive_utc());
    second().or_else(minute).or_else(day).map(|at| at.and_utc())
}

/// Whether an address is this one, or within this range; everybody is in no range at all.
fn includes(range: &str, peer: IpAddr) -> bool {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let bounds = (first.parse::<IpAddr>(), last.parse::<IpAddr>());
    range.is_empty() || matches!(bounds, (Ok(first), Ok(last)) if (first..=last).contains(&peer))
}

const CHALLENGED: &str =
    "Server failed to authenticate the request. Please refer to the information in the www-authenticate header.";

fn failed(detail: &str) -> Outcome {
    let message = "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly \
                   including the signature.";
    let details = json!({"AuthenticationErrorDetail": detail});
    Outcome::detailed(403, "AuthenticationFailed", message.to_owned(), details)
}

fn malformed() -> Outcome {
    let message =
        "Authentication information is not given in the correct format. Check the value of Authorization header.";
    Outcome::error(400, "InvalidAuthenticationInfo", message)
}

fn mismatch(code: &str, what: &str) -> Outcome {
    let message = format!("This request is not authorized to perform this operation using this {what}.");
    Outcome::error(403, format!("Authorization{code}Mismatch"), message)
}

/// What is no call of ours. Azure would ask first who is asking; here there is nothing to be let in to.
pub(crate) fn not_offered(request: &Request) -> Outcome {
    if matches!(request.method, Method::GET | Method::HEAD) {
        let message = "One of the query parameters specified in the request URI is not supported.";
        return Outcome::error(400, "UnsupportedQueryParameter", message);
    }
    Outcome::error(405, "UnsupportedHttpVerb", "The resource doesn't support specified Http Verb.")
}

/// How it words a status that has no reason in the request.
pub(crate) fn failure(status: u16) -> Outcome {
    match status {
        403 => Outcome::error(403, "AuthorizationFailure", "This request is not authorized to perform this operation."),
        429 | 503 => Outcome::error(status, "ServerBusy", "The server is busy."),
        _ => Outcome::error(
            status,
            "InternalError",
            "The server encountered an internal error. Please retry the request.",
        ),
    }
}

/// Three to 63 small letters, digits and hyphens, no hyphen at an end or beside another.
pub(crate) fn is_container_name(name: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (3..=63).contains(&name.len()) && name.split('-').all(is_part)
}

/// XML with a byte order mark before it, which Azure sends and azurite does not (Azurite issue 2603). The code of an error stands in a
/// header too, and there alone where HEAD was asked.
pub(crate) fn respond(outcome: Outcome, asked: &Request) -> Response<Body> {
    let request_id = chance::request_id();
    let mut headers: Vec<(&'static str, String)> = vec![
        ("server", "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0".to_owned()),
        ("x-ms-request-id", request_id.clone()),
    ];
    // The version that was used: of a SAS its own, which goes before the header.
    let query = form::pairs(&asked.query);
    let version = form::value(&query, "sv").or_else(|| asked.header("x-ms-version"));
    headers.extend(version.filter(|version| VERSIONS.contains(version)).map(|v| ("x-ms-version", v.to_owned())));
    headers.extend(asked.header("x-ms-client-request-id").map(|id| ("x-ms-client-request-id", id.to_owned())));
    let (kind, body) = match *outcome.content {
        Content::Bytes(bytes) => ("application/octet-stream", Body::from(bytes)),
        Content::Xml(xml) => ("application/xml", document(&xml)),
        Content::Error(code, message, details) => {
            let message = format!("{message}\nRequestId:{request_id}\nTime:{}", instant(Utc::now()));
            let xml = error(&code, &message, details);
            headers.push(("x-ms-error-code", code));
            ("application/xml", if asked.method == Method::HEAD { Body::empty() } else { document(&xml) })
        }
        Content::Nothing | Content::Json(_) | Content::Sts(..) => ("application/xml", Body::empty()),
    };
    let mut response = answer(outcome.status, kind, body);
    for (name, text) in headers.into_iter().chain(outcome.headers) {
        // Some came from the client as header values, and so are legal.
        let value = HeaderValue::from_str(&text).expect("our own headers are legal");
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
    response
}

fn document(xml: &str) -> Body {
    Body::from(format!("\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>{xml}"))
}

fn error(code: &str, message: &str, details: Option<Value>) -> String {
    let details: Map<String, Value> = details.and_then(|details| details.as_object().cloned()).unwrap_or_default();
    let elements = [("Code", code), ("Message", message)].into_iter();
    let elements =
        elements.chain(details.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default())));
    let inner: String = elements.map(|(name, text)| format!("<{name}>{}</{name}>", escape(text))).collect();
    format!("<Error>{inner}</Error>")
}
