//! The connections of one account: the SDK's clients, the plain client of the bucket probe, and a witness of each call.
//!
//! Invariant: a request is written to a wire at most once. Three layers could replay one, and none of them can here:
//! * the SDK's retries are switched off for every operation (`RetryConfig::disabled()`; its default is three attempts, timeouts and
//!   5xx included);
//! * `hyper-util` sends a request again when a *reused* pooled connection dies before the request was written (its
//!   `Client::send_request`, version 0.1.21: "a fresh connection means we definitely can't retry"). Each request gets a connector of
//!   its own ([`Fresh`]), so there is no pool to take a used connection from;
//! * `reqwest` repeats what HTTP/2 nacks and follows redirects; both are off.
//!
//! TLS sends nothing before the handshake is over: early data is off in `rustls` unless asked for.
//!
//! Does not decide what a failure means: that is `faults`.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_iam::config::{BehaviorVersion, Region, StalledStreamProtectionConfig};
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
use aws_smithy_runtime_api::client::http::{HttpClient, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector};
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    AfterDeserializationInterceptorContextRef, BeforeDeserializationInterceptorContextRef,
    BeforeTransmitInterceptorContextRef,
};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use chrono::{DateTime, Utc};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::OnceCell;

use super::account::Account;
use crate::model::{KeyId, Reason, Secret, Timestamp};
use crate::net::Context;
use crate::ports::Fault;

/// Addresses that are never reached through a proxy: this host, and where clouds serve an instance's own credentials.
const NEVER_PROXIED: [&str; 7] =
    ["localhost", "127.0.0.0/8", "::1", "169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254"];

/// The connections of one account.
pub(super) struct Clients {
    /// IAM, with the rotator's credentials.
    pub(super) iam: aws_sdk_iam::Client,
    /// STS, with the rotator's credentials.
    pub(super) sts: aws_sdk_sts::Client,
    sts_config: aws_sdk_sts::Config,
    /// For the one request that is signed here.
    pub(super) plain: reqwest::Client,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clients")
    }
}

impl Clients {
    /// Makes them; sends nothing. `login` is the rotator's own key, `None` the SDK's chain. `tls` says whether anything is spoken
    /// to over TLS: where all endpoints are plain loopback ones, no certificate store is loaded.
    pub(super) fn new(
        account: &Account,
        login: Option<(&str, Secret)>,
        tls: bool,
        context: &Context,
    ) -> Result<Self, Fault> {
        let authorities = match &account.ca_file {
            Some(path) => Some(Authorities::read(path)?),
            None => None,
        };
        let proxy = Route::new(account, context);
        let timeout = account.request_timeout();
        let http =
            SharedHttpClient::new(Fresh { trust: trust_store(tls, authorities.as_ref()), proxy: proxy.for_sdk()? });
        let region = Region::new(account.region_or_default().to_owned());
        let credentials = match login {
            Some((id, secret)) => SharedCredentialsProvider::new(own(&KeyId::new(id), &secret)),
            None => SharedCredentialsProvider::new(Chain {
                http: http.clone(),
                region: region.clone(),
                found: OnceCell::new(),
            }),
        };
        let timeouts =
            TimeoutConfig::builder().connect_timeout(connect_timeout(timeout)).operation_timeout(timeout).build();
        let mut iam = aws_sdk_iam::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(region.clone())
            .credentials_provider(credentials.clone())
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts.clone())
            // The operation's timeout holds for a stalled body too.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            // Else the SDK signs with a clock shifted by the last answer's `Date`: one wrong `Date` from a proxy, and every
            // later request is refused.
            .disable_clock_skew_correction(true)
            .http_client(http.clone());
        iam.set_endpoint_url(account.iam_endpoint().map(str::to_owned));
        let mut sts = aws_sdk_sts::Config::builder()
            .behavior_version(aws_sdk_sts::config::BehaviorVersion::latest())
            .region(region)
            .credentials_provider(credentials)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .stalled_stream_protection(aws_sdk_sts::config::StalledStreamProtectionConfig::disabled())
            .disable_clock_skew_correction(true)
            .http_client(http);
        sts.set_endpoint_url(account.sts_endpoint().map(str::to_owned));
        let sts_config = sts.build();
        Ok(Self {
            iam: aws_sdk_iam::Client::from_conf(iam.build()),
            sts: aws_sdk_sts::Client::from_conf(sts_config.clone()),
            sts_config,
            plain: plain(timeout, authorities.as_ref(), &proxy)?,
        })
    }

    /// STS of `region`, with another key's credentials. The SDK resolves the regional endpoint (`sts.REGION.amazonaws.com`) unless
    /// the account names one.
    pub(super) fn sts_as(&self, key: &KeyId, secret: &Secret, region: &str) -> aws_sdk_sts::Client {
        let config = self
            .sts_config
            .to_builder()
            .region(Region::new(region.to_owned()))
            .credentials_provider(own(key, secret))
            // The key's secret lives no longer than the call.
            .identity_cache(aws_sdk_sts::config::IdentityCache::no_cache())
            .build();
        aws_sdk_sts::Client::from_conf(config)
    }
}

/// The wall clock at the edge, for a signature's date only. The SDK reads the same clock for its own signatures, and no decision
/// hangs on it: the engine compares our clock with [`crate::ports::Listing::date`].
#[allow(clippy::disallowed_methods)]
pub(super) fn signing_time() -> SystemTime {
    SystemTime::now()
}

/// Credentials of a fixed key. They hold their texts in zeroizing strings (`aws-credential-types` 1.3.1, `Inner`).
fn own(key: &KeyId, secret: &Secret) -> Credentials {
    Credentials::new(key.as_str(), secret.expose(), None, None, "rekeyd")
}

/// A connect that takes longer than this is given up while there is still time to know that nothing was sent.
fn connect_timeout(request_timeout: Duration) -> Duration {
    (request_timeout / 2).min(Duration::from_secs(10))
}

/// Makes a connector for each request, so that none is ever written to a connection that was used before.
#[derive(Debug)]
struct Fresh {
    trust: TrustStore,
    proxy: ProxyConfig,
}

impl HttpClient for Fresh {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let tls = TlsContext::builder().with_trust_store(self.trust.clone()).build().unwrap_or_default();
        SharedHttpConnector::new(
            Connector::builder()
                .connector_settings(settings.clone())
                .proxy_config(self.proxy.clone())
                .pool_max_idle_per_host(0)
                .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
                .tls_context(tls)
                .build(),
        )
    }
}

/// The SDK's own chain, found at first use because finding it is asynchronous and connecting is not. It may repeat reads at the
/// instance's metadata service; nothing is minted there.
#[derive(Debug)]
struct Chain {
    http: SharedHttpClient,
    region: Region,
    found: OnceCell<DefaultCredentialsChain>,
}

impl ProvideCredentials for Chain {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async move {
            let chain = self
                .found
                .get_or_init(|| {
                    let config = ProviderConfig::without_region()
                        .with_region(Some(self.region.clone()))
                        .with_http_client(self.http.clone());
                    DefaultCredentialsChain::builder().region(self.region.clone()).configure(config).build()
                })
                .await;
            chain.provide_credentials().await
        })
    }
}

/// A file of authorities, checked here because the SDK panics on what it cannot parse.
struct Authorities {
    pem: Vec<u8>,
    path: String,
}

impl Authorities {
    fn read(path: &str) -> Result<Self, Fault> {
        let refused = |what: String| Fault::Refused {
            reason: Reason::PolicyMismatch,
            why: format!("read the authorities of ca_file {path}: {what}"),
        };
        let pem = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| refused(format!("no PEM: {error}")))?;
            roots.add(certificate).map_err(|error| refused(format!("no authority's certificate: {error}")))?;
        }
        if roots.is_empty() {
            return Err(refused("it holds no certificate".to_owned()));
        }
        Ok(Self { pem, path: path.to_owned() })
    }
}

fn trust_store(tls: bool, authorities: Option<&Authorities>) -> TrustStore {
    let mut store = TrustStore::empty().with_native_roots(tls);
    if let Some(authorities) = authorities {
        store.add_pem_certificate(authorities.pem.clone());
    }
    store
}

/// The way out: the account's proxy, else the daemon's, else none. The environment's proxy variables are not consulted, so that
/// the policy says it all.
struct Route {
    proxy: Option<String>,
    /// Comma separated.
    direct: String,
}

impl Route {
    fn new(account: &Account, context: &Context) -> Self {
        let direct = account.no_proxy.as_ref().unwrap_or(&context.no_proxy);
        let direct: Vec<&str> = direct.iter().map(String::as_str).chain(NEVER_PROXIED).collect();
        Self { proxy: account.proxy.clone().or_else(|| context.proxy.clone()), direct: direct.join(",") }
    }

    fn for_sdk(&self) -> Result<ProxyConfig, Fault> {
        let Some(proxy) = &self.proxy else { return Ok(ProxyConfig::disabled()) };
        // The error would repeat the address, and with it a password somebody wrote into it.
        let config = ProxyConfig::all(proxy.as_str()).map_err(|_| unusable_proxy())?;
        Ok(config.no_proxy(&self.direct))
    }

    fn for_plain(&self, client: reqwest::ClientBuilder) -> Result<reqwest::ClientBuilder, Fault> {
        let Some(proxy) = &self.proxy else { return Ok(client.no_proxy()) };
        let proxy = reqwest::Proxy::all(proxy).map_err(|_| unusable_proxy())?;
        Ok(client.proxy(proxy.no_proxy(reqwest::NoProxy::from_string(&self.direct))))
    }
}

fn unusable_proxy() -> Fault {
    Fault::Refused {
        reason: Reason::PolicyMismatch,
        why: "use the proxy of the policy: it is no http(s) address".to_owned(),
    }
}

fn plain(timeout: Duration, authorities: Option<&Authorities>, route: &Route) -> Result<reqwest::Client, Fault> {
    let mut client = reqwest::Client::builder()
        .user_agent(concat!("rekeyd/", env!("CARGO_PKG_VERSION")))
        .timeout(timeout)
        .connect_timeout(connect_timeout(timeout))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .pool_max_idle_per_host(0);
    if let Some(authorities) = authorities {
        let certificates = reqwest::Certificate::from_pem_bundle(&authorities.pem).map_err(|error| Fault::Refused {
            reason: Reason::PolicyMismatch,
            why: format!("read the authorities of ca_file {}: {error}", authorities.path),
        })?;
        client = client.tls_certs_merge(certificates);
    }
    route
        .for_plain(client)?
        .build()
        .map_err(|error| Fault::NotSent(format!("make a client for the bucket's probe: {error}")))
}

/// Watches one SDK call: whether a connection stood before it failed, what `Date` the answer carried, and whether the answer was
/// one at all.
///
/// Made for one call and given to it as an interceptor; clones watch the same call.
#[derive(Clone, Debug, Default)]
pub(super) struct Witness(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    transmitting: bool,
    connection: Option<CaptureSmithyConnection>,
    date: Option<Timestamp>,
    whole: bool,
}

impl Witness {
    /// Whether surely no byte of the request was written: the call ended before its turn to transmit, or while its connection was
    /// still being made. hyper-util notes the connection on the request before it hands the request over, so a missing note proves
    /// that nothing was handed over. Where the SDK keeps no note, this is false: unknown.
    pub(super) fn nothing_sent(&self) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !seen.transmitting || seen.connection.as_ref().is_some_and(|connection| connection.get().is_none())
    }

    /// Whether the answer came to its end. The SDK does not ask: of operations without a result it never reads the body, so a login
    /// page with status 200 would be a key deleted; and its XML decoder takes the end of the text for the end of the document
    /// (`aws-smithy-xml` 0.64.1), so half a listing would be a short one.
    pub(super) fn whole(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).whole
    }

    /// The `Date` of the answer.
    pub(super) fn date(&self) -> Option<Timestamp> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).date
    }
}

impl Intercept for Witness {
    fn name(&self) -> &'static str {
        "rekeyd::Witness"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.transmitting = true;
        seen.connection = context.request().extension::<CaptureSmithyConnection>().cloned();
        Ok(())
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date").and_then(http_date);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).date = date;
        Ok(())
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let whole = context.response().body().bytes().is_some_and(is_whole);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).whole = whole;
        Ok(())
    }
}

/// Whether a body ends as every answer of IAM and STS does: `</CreateAccessKeyResponse>`, or with a prefix before the name as stores
/// written in Java have it, `</ns2:CreateAccessKeyResponse>`.
fn is_whole(body: &[u8]) -> bool {
    let Some(body) = body.trim_ascii_end().strip_suffix(b"Response>") else { return false };
    let name = body.iter().rev().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b':').count();
    name > 0 && body[..body.len() - name].ends_with(b"</")
}

/// An HTTP date (RFC 9110 5.6.7, the preferred form).
fn http_date(text: &str) -> Option<Timestamp> {
    DateTime::parse_from_rfc2822(text).ok().map(|date| date.with_timezone(&Utc))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_with_its_own_tag() {
        assert!(is_whole(b"<DeleteAccessKeyResponse><ResponseMetadata/></DeleteAccessKeyResponse>\n"));
        assert!(is_whole(b"<ns2:DeleteAccessKeyResponse xmlns:ns2=\"x\"></ns2:DeleteAccessKeyResponse>"));
        for broken in
            ["", "Response>", "</Response>", "<html></html>", "<ListAccessKeysResponse>", "</ListAccessKeysResponse"]
        {
            assert!(!is_whole(broken.as_bytes()), "{broken}");
        }
    }

    #[test]
    fn a_date_is_read_as_http_writes_it() {
        let date = http_date("Sat, 21 Nov 2026 12:00:00 GMT").map(|date| date.to_rfc3339());
        assert_eq!(date.as_deref(), Some("2026-11-21T12:00:00+00:00"));
        assert_eq!(http_date("yesterday"), None);
    }

    #[test]
    fn a_connect_is_given_up_before_the_request_is() {
        assert_eq!(connect_timeout(Duration::from_secs(30)), Duration::from_secs(10));
        assert_eq!(connect_timeout(Duration::from_secs(2)), Duration::from_secs(1));
    }
}
