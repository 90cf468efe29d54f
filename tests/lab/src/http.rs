//! A small HTTP/1.1 server on a loopback port, able to close a connection instead of answering. It knows nothing of AWS or ArcGIS.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use chrono::{DateTime, Utc};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// The largest body anybody needs to send us.
const BODY_BYTES_MAX: usize = 1 << 20;

/// The form of a date in a header (RFC 9110, 5.6.7).
pub(crate) const DATE: &str = "%a, %d %b %Y %H:%M:%S GMT";

/// A date as a header has it.
pub(crate) fn date(at: DateTime<Utc>) -> String {
    at.format(DATE).to_string()
}

/// A request, read to its end.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// As sent, still escaped.
    pub(crate) path: String,
    /// As sent, still escaped; empty when there was none.
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) peer: IpAddr,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The pairs of a form body; none when the content type says that it is not a form.
    pub(crate) fn form(&self) -> Vec<(String, String)> {
        match self.header("content-type") {
            Some(kind) if kind.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded") => {
                crate::form::pairs(&self.body_text())
            }
            _ => Vec::new(),
        }
    }
}

/// What becomes of a request.
pub(crate) enum Reply {
    Answer(Response<Body>),
    /// The connection is closed without an answer.
    Close,
}

pub(crate) type ReplyFuture = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// A stand-in behind a port.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Connections are accepted and closed at once.
    fn is_down(&self) -> bool;
    /// Must have done all it will do before its first wait: a client that gives up drops the future.
    fn handle(self: Arc<Self>, request: Request) -> ReplyFuture;
}

/// Serves until the runtime ends, or until accepting is aborted.
pub(crate) async fn serve(
    handler: Arc<dyn Handler>,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
) -> tokio::task::AbortHandle {
    let accepting = tokio::spawn(async move {
        loop {
            let Ok((stream, peer)) = listener.accept().await else { continue };
            if handler.is_down() {
                continue;
            }
            let (handler, tls) = (handler.clone(), tls.clone());
            tokio::spawn(async move {
                stream.set_nodelay(true).ok();
                match tls {
                    None => connection(stream, handler, peer).await,
                    // A client that does not trust us hangs up here; that is its right.
                    Some(tls) => match tls.accept(stream).into_fallible().await {
                        Ok(stream) => connection(stream, handler, peer).await,
                        Err((_, stream)) => linger(stream).await,
                    },
                }
            });
        }
    });
    accepting.abort_handle()
}

/// Reads what a refused client still sends, and lets it drop: closed over unread bytes, a connection is reset, and the client may
/// never read the alert that says why.
async fn linger(mut stream: TcpStream) {
    let mut ignored = [0; 1024];
    let reading = async { while matches!(stream.read(&mut ignored).await, Ok(1..)) {} };
    tokio::time::timeout(Duration::from_secs(5), reading).await.ok();
}

/// A free loopback port.
pub(crate) async fn loopback() -> (TcpListener, u16) {
    loopback_at(0).await.expect("a loopback port can be bound")
}

/// This loopback port, where nobody has it; 0 is any that is free.
pub(crate) async fn loopback_at(port: u16) -> std::io::Result<(TcpListener, u16)> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

async fn connection<S>(stream: S, handler: Arc<dyn Handler>, peer: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let handler = handler.clone();
        async move {
            let closed = || std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
            let (parts, body) = request.into_parts();
            let body = to_bytes(Body::new(body), BODY_BYTES_MAX).await.map_err(|_| closed())?;
            if handler.is_down() {
                return Err(closed());
            }
            let request = Request {
                method: parts.method,
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                headers: parts.headers,
                body,
                peer: peer.ip(),
            };
            match handler.handle(request).await {
                Reply::Answer(response) => Ok(response),
                Reply::Close => Err(closed()),
            }
        }
    });
    // An error here is a connection we closed on purpose, or a client that went away.
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
}

/// An answer with a body.
pub(crate) fn answer(status: u16, content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).expect("the lab only answers with statuses that exist");
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The page a web tier shows instead of an answer.
pub(crate) fn html_page(status: u16, title: &str, text: &str) -> Response<Body> {
    let page = format!("<!DOCTYPE html><html><head><title>{title}</title></head><body>{text}</body></html>");
    answer(status, "text/html;charset=utf-8", page)
}

/// 301 to `location`.
pub(crate) fn moved(location: &str) -> Response<Body> {
    let mut response = html_page(301, "Moved Permanently", "The document has moved.");
    if let Ok(value) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}
