//! One HTTP exchange with a provider: a fresh connection, one request, one bounded answer.
//!
//! Redirects are not followed: no endpoint of a provider needs one, and each is a chance to be led to a place inside. Connections are not
//! kept: requests are rare, and what one answer leaves behind cannot become part of the next.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HOST, IF_NONE_MATCH, LOCATION,
    USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use ringfence_tls::pki_types::ServerName;
use ringfence_tls::{
    Alpn, ClientConfig, EgressRoots, Reach, Refusal, TlsConnector, egress_client_config, reach,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::endpoint::Endpoint;

/// Longest answer.
pub(crate) const MAX_BODY: usize = 256 * 1024;
/// Longest head of an answer, and most fields of it.
const MAX_HEAD: usize = 32 * 1024;
const MAX_FIELDS: usize = 64;
/// How long resolving and connecting may take, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// How long all of it may take.
const EXCHANGE: Duration = Duration::from_secs(10);
/// Most addresses of one name that are looked at.
const MAX_ADDRESSES: usize = 4;

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("{0} has no address")]
    NoAddress(String),
    #[error("{host} lies at {address} ({what}): if it should, say `allow_private: true`")]
    Private { host: String, address: SocketAddr, what: &'static str },
    #[error("{host} lies at {address} ({what}), which is never called")]
    Nowhere { host: String, address: SocketAddr, what: &'static str },
    #[error("{host} lies at {address}: without TLS only a loopback address is called")]
    Clear { host: String, address: SocketAddr },
    #[error("{0} cannot be reached: {1}")]
    Unreachable(String, String),
    #[error("no TLS with {0}: {1}")]
    Tls(String, String),
    #[error("there are no root certificates to trust {0} by: {1}")]
    NoRoots(String, String),
    #[error("{0} did not answer within {1:?}")]
    Timeout(String, Duration),
    #[error("{0} answered with more than {1} bytes")]
    TooLarge(String, usize),
    #[error("{0} redirects to {1}, which is not followed: declare the address that answers")]
    Redirect(String, String),
    #[error("{0} does not speak HTTP as it should: {1}")]
    Http(String, String),
}

/// Calls one provider.
#[derive(Clone)]
pub(crate) struct Fetcher {
    tls: Result<Arc<ClientConfig>, String>,
    allow_private: bool,
}

/// What to send.
#[derive(Default)]
pub(crate) struct Call {
    /// A form to post; a GET if there is none.
    pub(crate) form: Option<String>,
    pub(crate) authorization: Option<HeaderValue>,
    /// `application/json` is always accepted.
    pub(crate) accept: Option<&'static str>,
    /// The version that is known: it need not be sent again.
    pub(crate) if_none_match: Option<HeaderValue>,
    /// Most bytes of the answer, if not [`MAX_BODY`].
    pub(crate) most: Option<usize>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    /// `Content-Type` without parameters.
    pub(crate) media_type: String,
    /// The name of this version.
    pub(crate) etag: Option<HeaderValue>,
    pub(crate) body: Bytes,
}

impl Fetcher {
    pub(crate) fn new(roots: Result<EgressRoots, String>, allow_private: bool) -> Self {
        Self { tls: roots.map(|roots| egress_client_config(&roots, &[Alpn::Http1])), allow_private }
    }

    /// Sends one request and reads the answer.
    pub(crate) async fn call(&self, endpoint: &Endpoint, call: Call) -> Result<Reply, FetchError> {
        let authority = || endpoint.authority().to_owned();
        timeout(EXCHANGE, self.exchange(endpoint, call))
            .await
            .unwrap_or_else(|_| Err(FetchError::Timeout(authority(), EXCHANGE)))
    }

    async fn exchange(&self, endpoint: &Endpoint, call: Call) -> Result<Reply, FetchError> {
        let authority = || endpoint.authority().to_owned();
        let stream = timeout(CONNECT, self.connect(endpoint))
            .await
            .map_err(|_| FetchError::Timeout(authority(), CONNECT))??;
        let failed = |e: &dyn std::error::Error| FetchError::Http(authority(), e.to_string());
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_FIELDS)
            .handshake::<_, Full<Bytes>>(HyperIo(stream))
            .await
            .map_err(|e| failed(&e))?;
        let most = call.most.unwrap_or(MAX_BODY);
        let request = request(endpoint, call).map_err(|e| failed(&e))?;
        let exchange = async move {
            let response = sender.send_request(request).await.map_err(|e| failed(&e))?;
            read(endpoint, response, most).await
        };
        // The connection does the work; its end is for the exchange to notice.
        let drive = async move {
            let _ = connection.await;
            std::future::pending::<std::convert::Infallible>().await
        };
        tokio::select! {
            reply = exchange => reply,
            never = drive => match never {},
        }
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<Box<dyn Stream>, FetchError> {
        let unreachable =
            |e: &io::Error| FetchError::Unreachable(endpoint.authority().to_owned(), e.to_string());
        let mut last = FetchError::NoAddress(endpoint.host().to_owned());
        // Names below `localhost` are loopback whatever a resolver knows of them (RFC 6761, section 6.3).
        let host = if endpoint.host().ends_with(".localhost") { "localhost" } else { endpoint.host() };
        let addresses = lookup_host((host, endpoint.port())).await.map_err(|e| unreachable(&e))?;
        for address in addresses.take(MAX_ADDRESSES) {
            if let Err(e) = self.judge(endpoint, address) {
                last = e;
                continue;
            }
            let stream = match TcpStream::connect(address).await {
                Ok(stream) => stream,
                Err(e) => {
                    last = unreachable(&e);
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            if !endpoint.is_https() {
                return Ok(Box::new(stream));
            }
            let config = self.tls.clone().map_err(|e| FetchError::NoRoots(endpoint.authority().into(), e))?;
            let refused = |e: String| FetchError::Tls(endpoint.authority().to_owned(), e);
            let name =
                ServerName::try_from(endpoint.host().to_owned()).map_err(|e| refused(e.to_string()))?;
            let stream = TlsConnector::from(config).connect(name, stream).await;
            // What is wrong with a certificate lies within what the handshake says.
            let why = |e: io::Error| Refusal::find(&e).map_or_else(|| e.to_string(), ToString::to_string);
            return Ok(Box::new(stream.map_err(|e| refused(why(e)))?));
        }
        Err(last)
    }

    /// Whether an address may be called; judged after resolution, and it is this one that is called.
    fn judge(&self, endpoint: &Endpoint, address: SocketAddr) -> Result<(), FetchError> {
        let host = || endpoint.host().to_owned();
        match reach(address.ip()) {
            Reach::Nowhere(what) => Err(FetchError::Nowhere { host: host(), address, what }),
            Reach::Inside(what) if !self.allow_private => {
                Err(FetchError::Private { host: host(), address, what })
            }
            _ if !endpoint.is_https() && !address.ip().is_loopback() => {
                Err(FetchError::Clear { host: host(), address })
            }
            _ => Ok(()),
        }
    }
}

fn request(endpoint: &Endpoint, call: Call) -> Result<http::Request<Full<Bytes>>, http::Error> {
    let accept =
        call.accept.map_or_else(|| "application/json".to_owned(), |a| format!("{a}, application/json;q=0.9"));
    let mut request = http::Request::builder()
        .method(if call.form.is_some() { Method::POST } else { Method::GET })
        .uri(endpoint.path_and_query())
        .header(HOST, endpoint.authority())
        .header(USER_AGENT, "ringfence")
        .header(ACCEPT, accept)
        .header(CONNECTION, "close");
    if let Some(mut authorization) = call.authorization {
        authorization.set_sensitive(true);
        request = request.header(AUTHORIZATION, authorization);
    }
    if let Some(known) = call.if_none_match {
        request = request.header(IF_NONE_MATCH, known);
    }
    if call.form.is_some() {
        request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    }
    request.body(Full::new(Bytes::from(call.form.unwrap_or_default())))
}

async fn read(
    endpoint: &Endpoint,
    response: http::Response<hyper::body::Incoming>,
    most: usize,
) -> Result<Reply, FetchError> {
    let authority = || endpoint.authority().to_owned();
    let (head, body) = response.into_parts();
    if head.status.is_redirection() && head.status != StatusCode::NOT_MODIFIED {
        let to = text(&head.headers, &LOCATION);
        // Only where to: the rest may carry what should not be logged.
        let to =
            to.split(['?', '#']).next().unwrap_or_default().chars().take(120).filter(|c| !c.is_control());
        return Err(FetchError::Redirect(authority(), to.collect()));
    }
    if !matches!(text(&head.headers, &CONTENT_ENCODING), "" | "identity") {
        return Err(FetchError::Http(
            authority(),
            "the answer is compressed, which was not asked for".into(),
        ));
    }
    let body = Limited::new(body, most).collect().await.map_err(|e| {
        if e.is::<LengthLimitError>() {
            FetchError::TooLarge(authority(), most)
        } else {
            FetchError::Http(authority(), e.to_string())
        }
    })?;
    let media_type = text(&head.headers, &CONTENT_TYPE).split(';').next().unwrap_or_default();
    Ok(Reply {
        status: head.status,
        media_type: media_type.trim().to_ascii_lowercase(),
        etag: head.headers.get(ETAG).cloned(),
        body: body.to_bytes(),
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Lets hyper use a stream of tokio's.
struct HyperIo(Box<dyn Stream>);

impl hyper::rt::Read for HyperIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut scratch = [0; 8192];
        let space = cursor.remaining().min(scratch.len());
        let mut buffer = ReadBuf::new(&mut scratch[..space]);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut buffer))?;
        cursor.put_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for HyperIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_provider_inside_is_called_only_where_that_is_declared() {
        let fetcher = Fetcher::new(Err("none".into()), false);
        for (url, what) in [
            ("https://127.0.0.1:1/", "allow_private"),
            ("https://169.254.169.254/", "metadata"),
            ("https://10.0.0.1/", "allow_private"),
            ("https://[::1]:1/", "allow_private"),
            ("https://0.0.0.0/", "never called"),
            ("https://[::ffff:127.0.0.1]/", "never called"),
        ] {
            let error = fetcher.call(&Endpoint::new(url, false).unwrap(), Call::default()).await.unwrap_err();
            assert!(error.to_string().contains(what), "{url}: {error}");
        }
        let inside = Fetcher::new(Err("none".into()), true);
        let clear = Endpoint::new("http://10.0.0.1/", true).unwrap();
        let error = inside.call(&clear, Call::default()).await.unwrap_err();
        assert!(error.to_string().contains("loopback"), "{error}");
    }
}
