//! The HTTP client of every vendor that has no SDK here, and the only place that judges transport errors.
//!
//! Invariant: one call, one request, on a connection of its own. It never retries, never follows a redirect, keeps no cookie, and
//! takes no proxy from the environment. It knows no vendor: a status is the caller's to judge. What it says of a failure names the
//! host and never a query, a header or a body.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use axum::body::Bytes; // `bytes::Bytes`, by the road that is already paid for
use chrono::{DateTime, Utc};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Method, NoProxy, Proxy, Url, redirect, retry};
use rustls::{AlertDescription, CertificateError};
use zeroize::Zeroizing;

use super::form;
use super::identity::ClientIdentity;
use super::redact::Redactor;
use crate::model::{Reason, Secret, Timestamp};
use crate::ports::Fault;

/// A longer answer is a broken one: 4 MiB.
const BODY_MAX: usize = 4 * 1024 * 1024;

/// A server may not make us wait longer than this by `Retry-After`.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Never reached through a proxy: this machine, and where clouds serve an instance's own credentials.
const DIRECT: &str = "localhost,127.0.0.0/8,::1,169.254.0.0/16";

/// How a client connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A PEM bundle. If given, exactly its certificates are trusted and no others; else the system's are. A server's self-signed
    /// certificate may stand there itself.
    pub ca_file: Option<String>,
    /// What we show a server that wants a certificate of its clients.
    pub identity: Option<ClientIdentity>,
    /// `http://[user:password@]host:port`.
    pub proxy: Option<String>,
    /// Hosts, domains or networks reached without the proxy. Loopback always is.
    pub no_proxy: Vec<String>,
    /// From the first packet to the end of the TLS handshake. Shorter than `request_timeout`, or a server that cannot be reached
    /// looks like one that did not answer.
    pub connect_timeout: Duration,
    /// From the call to the last byte of the answer.
    pub request_timeout: Duration,
}

impl Options {
    /// Options with a connect timeout that fits: half the request timeout, at most ten seconds.
    pub fn new(request_timeout: Duration) -> Self {
        let connect_timeout = (request_timeout / 2).min(Duration::from_secs(10));
        Self { ca_file: None, identity: None, proxy: None, no_proxy: Vec::new(), connect_timeout, request_timeout }
    }
}

/// One request.
pub struct Request {
    method: Method,
    url: String,
    query: Vec<(&'static str, String)>,
    headers: Vec<(&'static str, Secret)>,
    body: Option<(&'static str, Zeroizing<Vec<u8>>)>,
}

impl Request {
    /// Any method.
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self { method, url: url.into(), query: Vec::new(), headers: Vec::new(), body: None }
    }

    /// A GET.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new(Method::GET, url)
    }

    /// A POST of a form, encoded by [`form::encode`].
    pub fn post_form(url: impl Into<String>, fields: &[(&str, &str)]) -> Self {
        let mut request = Self::new(Method::POST, url);
        request.body = Some((form::CONTENT_TYPE, form::encode(fields)));
        request
    }

    /// A POST of JSON.
    pub fn post_json(url: impl Into<String>, body: &serde_json::Value) -> Self {
        Self::new(Method::POST, url).body("application/json", Zeroizing::new(body.to_string().into_bytes()))
    }

    /// A body of this content type.
    pub fn body(mut self, content_type: &'static str, body: Zeroizing<Vec<u8>>) -> Self {
        self.body = Some((content_type, body));
        self
    }

    /// A query parameter. Never a secret: proxies and servers log URLs.
    pub fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// A header, handled as a secret whether it is one or not.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, Secret::new(value.into())));
        self
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("method", &self.method).field("url", &self.url).finish_non_exhaustive()
    }
}

/// What a server answered, whatever its status. The content type is not kept: ArcGIS's says little about the content.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Who was asked, as messages name it: host, and port where it is not the scheme's own.
    pub host: String,
    /// Where a redirect points, without its query, fit for a message.
    pub location: Option<String>,
    /// How long the server asks us to wait; at most an hour.
    pub retry_after: Option<Duration>,
    /// The server's own clock.
    pub date: Option<Timestamp>,
    /// The body; wiped when dropped.
    pub body: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// What a refusal comes to that is in nobody's form who was asked: a sign-in page, a proxy's own, a 5xx of something in between.
    /// Whether the request was carried out is not told, but for 429, with which nobody carries anything out (RFC 6585, section 4).
    pub fn unread(&self, why: String) -> Fault {
        match self.status {
            429 => Fault::Retry { after: self.retry_after, why },
            _ => Fault::Unknown(why),
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).field("host", &self.host).finish_non_exhaustive()
    }
}

/// The client. Cheap to keep, and safe to share.
#[derive(Clone, Debug)]
pub struct Client {
    inner: reqwest::Client,
    request_timeout: Duration,
    /// The file of the certificate we show.
    shown: Option<String>,
}

impl Client {
    /// Reads `ca_file`; sends nothing.
    ///
    /// # Errors
    /// [`Fault::Refused`]: `tls-untrusted` where `ca_file` cannot be used or the system trusts nobody, `refused` for a bad proxy URL.
    pub fn new(options: &Options) -> Result<Self, Fault> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("rekeyd/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            // A pooled connection may die between its last use and ours, and then nobody can tell whether the request was read.
            .pool_max_idle_per_host(0)
            // HTTP/2 can refuse a stream that was already sent; one version, one meaning of failure.
            .http1_only()
            .connect_timeout(options.connect_timeout)
            .timeout(options.request_timeout)
            .no_proxy();
        if let Some(url) = &options.proxy {
            let exceptions = options.no_proxy.iter().map(String::as_str).chain([DIRECT]).collect::<Vec<_>>().join(",");
            let proxy = Proxy::all(url).map_err(|_| refused(Reason::Refused, "reading proxy: not a usable URL"))?;
            builder = builder.proxy(proxy.no_proxy(NoProxy::from_string(&exceptions)));
        }
        if let Some(path) = &options.ca_file {
            builder = builder.tls_certs_only(authorities(path)?);
        }
        if let Some(identity) = &options.identity {
            builder = builder.identity(identity.to_reqwest()?);
        }
        let inner = builder.build().map_err(|error| {
            let cause = cause(&error.without_url());
            refused(
                Reason::TlsUntrusted,
                format!("making a TLS client: {cause} (install ca-certificates, or set ca_file)"),
            )
        })?;
        let shown = options.identity.as_ref().map(|identity| identity.file().to_owned());
        Ok(Self { inner, request_timeout: options.request_timeout, shown })
    }

    /// Sends once. `what` opens the messages: `reading cloud/services`.
    ///
    /// # Errors
    /// [`Fault::NotSent`] where no connection came about, [`Fault::Refused`] where the certificate is not trusted or the URL may not be
    /// used, [`Fault::Unknown`] for everything after that.
    pub async fn send(&self, what: &str, request: Request) -> Result<Answer, Fault> {
        let (host, request) = prepare(what, request)?;
        let sent = self.inner.execute(request).await.map_err(|error| self.classify(what, &host, error))?;
        let header = |name: HeaderName| sent.headers().get(name)?.to_str().ok().map(str::to_owned);
        let status = sent.status().as_u16();
        let location = header(LOCATION).map(|location| without_query(&location));
        let date = header(DATE).as_deref().and_then(http_date);
        let retry_after = header(RETRY_AFTER).and_then(|text| wait_of(&text, date));
        let body = self.body(what, &host, sent).await?;
        Ok(Answer {
            status,
            host,
            location,
            retry_after: retry_after.map(|wait| wait.min(RETRY_AFTER_MAX)),
            date,
            body,
        })
    }

    /// What is beneath, with the same rules, for whoever signs a request whole and judges its errors (a look into a bucket).
    pub fn beneath(&self) -> &reqwest::Client {
        &self.inner
    }

    async fn body(&self, what: &str, host: &str, mut sent: reqwest::Response) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let declared = sent.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        let mut body = Zeroizing::new(Vec::with_capacity(declared.min(BODY_MAX)));
        while let Some(chunk) = sent.chunk().await.map_err(|error| self.classify(what, host, error))? {
            if body.len() + chunk.len() > BODY_MAX {
                return Err(Fault::Unknown(format!("{what} at {host}: the answer is longer than 4 MiB")));
            }
            append(&mut body, &chunk);
        }
        Ok(body)
    }

    fn classify(&self, what: &str, host: &str, error: reqwest::Error) -> Fault {
        let error = error.without_url();
        match find::<rustls::Error>(&error) {
            Some(rustls::Error::InvalidCertificate(problem)) => {
                let (said, help) = (Redactor::default().clean(&problem.to_string()), help_with(problem));
                let why = format!("{what} at {host}: its certificate is not trusted: {said} ({help})");
                return refused(Reason::TlsUntrusted, why);
            }
            // With TLS 1.3 it comes after we have sent, and yet nothing was read: the handshake did not end well over there, and
            // we take part in none later on the same connection.
            Some(rustls::Error::AlertReceived(alert)) if is_about_our_certificate(*alert) => {
                return refused(Reason::LoginRefused, self.certificate_refused(what, host, *alert));
            }
            _ => {}
        }
        if error.is_connect() {
            let cause = if error.is_timeout() { "timed out".to_owned() } else { cause(&error) };
            return Fault::NotSent(format!("{what} at {host}: could not connect: {cause}"));
        }
        if error.is_builder() {
            return Fault::NotSent(format!("{what} at {host}: the request could not be made"));
        }
        if error.is_timeout() {
            return Fault::Unknown(format!("{what} at {host}: no complete answer within {:?}", self.request_timeout));
        }
        Fault::Unknown(format!("{what} at {host}: the connection broke before a complete answer: {}", cause(&error)))
    }

    fn certificate_refused(&self, what: &str, host: &str, alert: AlertDescription) -> String {
        match &self.shown {
            None => format!(
                "{what} at {host}: it wants a certificate of its clients ({alert:?}): name one in client_cert, and its key in \
                 client_key"
            ),
            Some(file) => format!(
                "{what} at {host}: it refuses our certificate, client_cert {file:?} ({alert:?}): see that it has not expired, and \
                 that the server trusts its authority; the certificates between the two belong into the file"
            ),
        }
    }
}

/// What an alert of the other side's says of the certificate we showed, or did not show.
fn is_about_our_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            // A signature that does not verify: an authority of the same name that is another one.
            | AlertDescription::DecryptError
    )
}

/// What to do about a certificate that does not verify. `ca_file` is the remedy of one problem only.
fn help_with(problem: &CertificateError) -> &'static str {
    match problem {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "use an address with a name that stands in the certificate's subjectAltName, or have one made for this name"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "have it renewed",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "compare the clocks",
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "it is an authority's own, CA:TRUE; have one made that is none, CA:FALSE"
        }
        _ => "name its authority in ca_file",
    }
}

/// A `Date`, as servers write it today.
fn http_date(text: &str) -> Option<Timestamp> {
    DateTime::parse_from_rfc2822(text.trim()).ok().map(|date| date.with_timezone(&Utc))
}

/// A `Retry-After`: seconds, or a date, which is held against the same answer's own date, so that no clock of ours has a part in it.
fn wait_of(text: &str, date: Option<Timestamp>) -> Option<Duration> {
    match text.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some((http_date(text)? - date?).to_std().unwrap_or_default()),
    }
}

fn prepare(what: &str, request: Request) -> Result<(String, reqwest::Request), Fault> {
    let mut url =
        Url::parse(&request.url).map_err(|_| refused(Reason::Refused, format!("{what}: not a usable URL")))?;
    let host = host_of(&url);
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) || is_link_local(&url) => {}
        "http" => {
            let why = format!("{what} at {host}: http:// is used on this machine only, and this is elsewhere");
            return Err(refused(Reason::Refused, why));
        }
        _ => return Err(refused(Reason::Refused, format!("{what} at {host}: neither https:// nor http://"))),
    }
    if !request.query.is_empty() {
        url.query_pairs_mut().extend_pairs(&request.query);
    }
    let mut made = reqwest::Request::new(request.method, url);
    for (name, value) in &request.headers {
        let mut value = HeaderValue::from_str(value.expose()).map_err(|_| {
            refused(Reason::Refused, format!("{what} at {host}: the value of header {name} cannot be sent"))
        })?;
        value.set_sensitive(true);
        made.headers_mut().insert(HeaderName::from_static(name), value);
    }
    // Nothing else writes it where there is no body, and Azure's front doors answer such a POST with 411 (RFC 9110, 8.6).
    if request.body.is_none() && made.method() != Method::GET && made.method() != Method::HEAD {
        made.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    if let Some((content_type, body)) = request.body {
        made.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        // The buffer goes down as it is and is wiped where it ends. What hyper and TLS copy of it is out of our hands.
        *made.body_mut() = Some(Bytes::from_owner(body).into());
    }
    Ok((host, made))
}

fn authorities(path: &str) -> Result<Vec<reqwest::Certificate>, Fault> {
    let refuse = |what: String| refused(Reason::TlsUntrusted, format!("reading ca_file {path:?}: {what}"));
    let pem = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
    let found = reqwest::Certificate::from_pem_bundle(&pem).map_err(|_| refuse("not a PEM bundle".to_owned()))?;
    if found.is_empty() {
        return Err(refuse("no certificate in it".to_owned()));
    }
    Ok(found)
}

fn refused(reason: Reason, why: impl Into<String>) -> Fault {
    Fault::Refused { reason, why: why.into() }
}

/// Grows by hand: a `Vec` that grows by itself leaves its old contents behind.
fn append(body: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) {
    if body.capacity() - body.len() < chunk.len() {
        let mut larger = Zeroizing::new(Vec::with_capacity((body.len() + chunk.len()).next_power_of_two()));
        larger.extend_from_slice(body);
        *body = larger;
    }
    body.extend_from_slice(chunk);
}

/// Whether a URL points to this machine by name or number; only there is `http://` allowed.
pub fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let number = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || number.is_ok_and(|number| number.is_loopback())
}

/// Whether a URL points to an address that no router forwards (RFC 3927): clouds serve an instance's own credentials there, without
/// TLS. A policy may name no such address; the SDKs know it.
fn is_link_local(url: &Url) -> bool {
    let number = url.host_str().unwrap_or_default().parse::<std::net::Ipv4Addr>();
    number.is_ok_and(|number| number.is_link_local())
}

/// Host and port as messages name them.
pub fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or("?");
    url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"))
}

/// A `Location` without what may be secret in it: query, fragment, user.
fn without_query(location: &str) -> String {
    let plain = location.split(['?', '#']).next().unwrap_or_default();
    let plain = match plain.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            format!("{scheme}://{}{path}", authority.rsplit('@').next().unwrap_or_default())
        }
        None => plain.to_owned(),
    };
    Redactor::default().clean(&plain)
}

/// The first error of a chain that is a `T`. An `io::Error` hides what it wraps from `source()`, so it is opened here.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = wrapped.map_or_else(|| error.source(), |inner| Some(inner));
    }
    None
}

/// The innermost error's own words.
fn cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn Error = error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    Redactor::default().clean(&innermost.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn client() -> Client {
        Client::new(&Options::new(Duration::from_secs(2))).expect("a client can be made")
    }

    /// A server that reads one request, answers these bytes and closes. Returns its URL and, at the end, what it was sent.
    async fn server(answer: Vec<u8>) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
        let url = format!("http://{}/admin", listener.local_addr().expect("it is bound"));
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client connects");
            let mut heard = vec![0; 4096];
            let length = stream.read(&mut heard).await.expect("it sends");
            // The client may hang up in the middle of an answer that is too long for it.
            let _ = stream.write_all(&answer).await;
            String::from_utf8_lossy(&heard[..length]).into_owned()
        });
        (url, task)
    }

    #[tokio::test]
    async fn a_port_nobody_listens_on_is_not_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
        let address = listener.local_addr().expect("it is bound");
        drop(listener);
        let request = Request::get(format!("http://{address}/x")).query("token", "hush");
        let fault = client().send("reading jobs", request).await.expect_err("nobody is there");
        assert!(matches!(&fault, Fault::NotSent(why) if why.starts_with("reading jobs at 127.0.0.1:")), "{fault:?}");
        assert!(!fault.why().contains("hush"), "{fault:?}");
    }

    #[tokio::test]
    async fn a_connection_that_closes_without_an_answer_is_unknown() {
        for answer in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"] {
            let (url, _task) = server(answer.to_vec()).await;
            let fault = client().send("pushing", Request::post_form(url, &[("a", "b")])).await.expect_err("it broke");
            assert!(matches!(&fault, Fault::Unknown(_)), "{fault:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_is_unknown() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
        let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
        let client = Client::new(&Options::new(Duration::from_millis(50))).expect("a client can be made");
        let fault = client.send("pushing", Request::get(url)).await.expect_err("nobody answers");
        assert!(matches!(&fault, Fault::Unknown(why) if why.ends_with("no complete answer within 50ms")), "{fault:?}");
    }

    #[tokio::test]
    async fn a_redirect_is_shown_and_not_followed() {
        let location = "https://user:pass@other.example.com/login?token=hush#x";
        let (url, _task) = server(format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\n\r\n").into_bytes()).await;
        let answer = client().send("pushing", Request::get(url)).await.expect("a redirect is an answer");
        assert_eq!((answer.status, answer.location.as_deref()), (302, Some("https://other.example.com/login")));
    }

    #[tokio::test]
    async fn a_flood_is_cut_off() {
        for head in ["HTTP/1.1 200 OK\r\nContent-Length: 6000000\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
            let (url, _task) = server([head.as_bytes(), &vec![b'x'; 6_000_000]].concat()).await;
            let fault = client().send("reading", Request::get(url)).await.expect_err("this is too long");
            assert!(matches!(&fault, Fault::Unknown(why) if why.ends_with("longer than 4 MiB")), "{fault:?}");
        }
    }

    #[tokio::test]
    async fn what_is_sent_and_what_comes_back() {
        let reply = "HTTP/1.1 429 Slow down\r\nRetry-After: 999999\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\nbody";
        let (url, task) = server(reply.as_bytes().to_vec()).await;
        let request = Request::post_form(url, &[("credential", "a+b")]).query("f", "json").header("referer", "rekeyd");
        let answer = client().send("pushing", request).await.expect("it answers");
        assert_eq!((answer.status, answer.retry_after, &answer.body[..]), (429, Some(RETRY_AFTER_MAX), &b"body"[..]));
        assert_eq!(answer.date.map(|date| date.timestamp()), Some(784_111_777));
        let heard = task.await.expect("the server ran");
        assert!(
            heard.starts_with("POST /admin?f=json HTTP/1.1\r\n") && heard.contains("referer: rekeyd\r\n"),
            "{heard}"
        );
        assert!(heard.contains("content-type: application/x-www-form-urlencoded\r\n"), "{heard}");
        assert!(heard.ends_with("\r\n\r\ncredential=a%2Bb"), "{heard}");
    }

    #[test]
    fn a_wait_is_told_in_seconds_or_by_a_date_of_the_servers_own_clock() {
        let date = http_date("Sun, 06 Nov 1994 08:49:37 GMT");
        let wait = |text| wait_of(text, date).map(|wait| wait.as_secs());
        assert_eq!((wait("120"), wait(" 0 ")), (Some(120), Some(0)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:51:37 GMT"), Some(120));
        assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0), "a date that has passed asks for no wait");
        assert_eq!((wait("soon"), wait("-5"), wait("")), (None, None, None));
        assert_eq!(wait_of("Sun, 06 Nov 1994 08:51:37 GMT", None), None, "without its clock nobody can tell");
        assert_eq!(wait_of("7", None), Some(Duration::from_secs(7)));
    }

    /// Azure answers a POST that announces no length with 411.
    #[tokio::test]
    async fn a_post_without_a_body_says_so() {
        let (url, task) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
        client().send("listing", Request::new(Method::POST, url)).await.expect("it is answered");
        assert!(task.await.expect("it was sent").contains("content-length: 0\r\n"));
        let (url, task) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
        client().send("reading", Request::get(url)).await.expect("it is answered");
        assert!(!task.await.expect("it was sent").contains("content-length"));
    }

    #[tokio::test]
    async fn clear_text_leaves_this_machine_in_no_case() {
        for url in
            ["http://gis.example.com/admin", "http://127.0.0.1.example.com/", "http://10.0.0.1/", "ftp://localhost/"]
        {
            let fault = client().send("reading", Request::get(url)).await.expect_err("this is refused");
            assert!(matches!(fault, Fault::Refused { reason: Reason::Refused, .. }), "{url}: {fault:?}");
        }
        let local = |url: &str| is_loopback(&Url::parse(url).expect("it is a URL"));
        assert!(local("http://localhost:1/") && local("http://127.9.9.9/") && local("http://[::1]:8080/"));
    }

    #[tokio::test]
    async fn a_proxy_is_used_for_others_and_not_for_this_machine() {
        let (proxy, task) = server(b"HTTP/1.1 403 Forbidden\r\n\r\n".to_vec()).await;
        let mut options = Options::new(Duration::from_secs(2));
        options.proxy = Some(proxy.trim_end_matches("/admin").to_owned());
        options.no_proxy = vec!["intern.example.com".to_owned()];
        let client = Client::new(&options).expect("a client can be made");
        let (url, _task) = server(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()).await;
        assert_eq!(client.send("reading", Request::get(url)).await.map(|answer| answer.status).ok(), Some(200));
        let fault =
            client.send("reading", Request::get("https://gis.example.com/x")).await.expect_err("the proxy refuses");
        assert!(matches!(&fault, Fault::NotSent(why) if why.starts_with("reading at gis.example.com: ")), "{fault:?}");
        assert!(task.await.expect("the proxy ran").starts_with("CONNECT gis.example.com:443 HTTP/1.1\r\n"));
    }

    #[test]
    fn a_ca_file_that_is_none_is_named() {
        let mut options = Options::new(Duration::from_secs(2));
        options.ca_file = Some("/nonexistent/ca.pem".to_owned());
        let fault = Client::new(&options).expect_err("there is no such file");
        assert!(fault.why().starts_with("reading ca_file \"/nonexistent/ca.pem\": "), "{fault:?}");
    }

    #[tokio::test]
    async fn debug_shows_no_header_and_no_body() {
        let (url, _task) = server(b"HTTP/1.1 200 OK\r\n\r\nhush".to_vec()).await;
        let request = Request::post_form(&url, &[("a", "hush")]).header("authorization", "hush");
        assert_eq!(format!("{request:?}"), format!("Request {{ method: POST, url: {url:?}, .. }}"));
        let answer = client().send("reading", request).await.expect("it answers");
        assert_eq!(format!("{answer:?}"), format!("Answer {{ status: 200, host: {:?}, .. }}", answer.host));
    }
}
