//! One file over HTTPS. Without TLS only a loopback address is called. Redirects are followed, a few, since publishers of files have them;
//! what comes in the end counts by its digest alone.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use ringfence_tls::pki_types::ServerName;
use ringfence_tls::{Alpn, ClientConfig, EgressRoots, TlsConnector, egress_client_config};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use url::Url;

/// Where systems keep public roots.
const ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
/// Most bytes of those.
const MAX_ROOTS: u64 = 8 << 20;
/// How long all of it may take, and reaching one address of it.
const PATIENCE: Duration = Duration::from_secs(120);
const CONNECT: Duration = Duration::from_secs(10);
/// Most redirects, and most addresses of one name.
const MAX_REDIRECTS: usize = 4;
const MAX_ADDRESSES: usize = 4;
/// Largest head of an answer.
const MAX_HEAD: usize = 64 << 10;

/// Why a file does not come.
#[derive(Debug, thiserror::Error)]
pub(super) enum DownloadError {
    #[error("{0} is no address: {1}")]
    Address(String, String),
    #[error("{0} is neither https nor at a loopback address, so anybody on the way could see and hold it")]
    Clear(String),
    #[error("{0} cannot be reached: {1}")]
    Unreachable(String, String),
    #[error("there are no public root certificates in {}: bring the file yourself and name it by --from", ROOTS.join(", "))]
    NoRoots,
    #[error("{0} answered {1}")]
    Status(String, StatusCode),
    #[error("{0} redirects again and again")]
    Redirects(String),
    #[error("{0} has more than {1} bytes")]
    TooLarge(String, usize),
    #[error("{0} was not there within two minutes")]
    Slow(String),
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
}

/// The file at that address.
pub(super) fn get(address: &str, most: usize) -> Result<Vec<u8>, DownloadError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let got = runtime.block_on(async { timeout(PATIENCE, follow(address, most)).await });
    got.unwrap_or_else(|_| Err(DownloadError::Slow(address.to_owned())))
}

async fn follow(address: &str, most: usize) -> Result<Vec<u8>, DownloadError> {
    let invalid = |e: url::ParseError| DownloadError::Address(address.to_owned(), e.to_string());
    let mut url = Url::parse(address).map_err(invalid)?;
    for _ in 0..=MAX_REDIRECTS {
        match exchange(&url, most).await? {
            Got::File(bytes) => return Ok(bytes),
            // Relative to where it is said.
            Got::Elsewhere(to) => url = url.join(&to).map_err(invalid)?,
        }
    }
    Err(DownloadError::Redirects(address.to_owned()))
}

enum Got {
    File(Vec<u8>),
    Elsewhere(String),
}

async fn exchange(url: &Url, most: usize) -> Result<Got, DownloadError> {
    let shown = || url.as_str().split('?').next().unwrap_or_default().to_owned();
    let failed = |e: &dyn std::error::Error| DownloadError::Unreachable(shown(), e.to_string());
    let stream = connect(url).await?;
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(|e| failed(&e))?;
    let connection = tokio::spawn(connection);
    let target = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let host = url.port().map_or_else(|| host(url).to_owned(), |port| format!("{}:{port}", host(url)));
    let request = Request::get(target)
        .header(HOST, host)
        .header(USER_AGENT, "ringfence")
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|e| failed(&e))?;
    let (head, body) = sender.send_request(request).await.map_err(|e| failed(&e))?.into_parts();
    let got = if head.status.is_redirection() {
        let to = head.headers.get(LOCATION).and_then(|to| to.to_str().ok()).map(str::to_owned);
        Got::Elsewhere(to.ok_or_else(|| DownloadError::Status(shown(), head.status))?)
    } else if head.status == StatusCode::OK {
        let body = Limited::new(body, most).collect().await.map_err(|e| {
            if e.is::<LengthLimitError>() { DownloadError::TooLarge(shown(), most) } else { failed(&*e) }
        })?;
        Got::File(body.to_bytes().to_vec())
    } else {
        return Err(DownloadError::Status(shown(), head.status));
    };
    connection.abort();
    Ok(got)
}

fn host(url: &Url) -> &str {
    url.host_str().unwrap_or_default()
}

async fn connect(url: &Url) -> Result<Box<dyn Stream>, DownloadError> {
    let unreachable = |e: String| DownloadError::Unreachable(host(url).to_owned(), e);
    let secure = match url.scheme() {
        "https" => true,
        "http" => false,
        _ => return Err(DownloadError::Clear(url.to_string())),
    };
    let name = host(url).trim_start_matches('[').trim_end_matches(']');
    let port = url.port_or_known_default().unwrap_or(443);
    let addresses = lookup_host((name, port)).await.map_err(|e| unreachable(e.to_string()))?;
    let mut last = unreachable("it has no address".to_owned());
    for address in addresses.take(MAX_ADDRESSES) {
        if !secure && !address.ip().is_loopback() {
            last = DownloadError::Clear(url.to_string());
            continue;
        }
        let stream = match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => {
                last = unreachable(e.to_string());
                continue;
            }
            Err(_) => {
                last = unreachable(format!("{address} does not answer"));
                continue;
            }
        };
        if !secure {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(name.to_owned()).map_err(|e| unreachable(e.to_string()))?;
        let stream = TlsConnector::from(config()?).connect(name, stream).await;
        return Ok(Box::new(stream.map_err(|e| unreachable(e.to_string()))?));
    }
    Err(last)
}

/// TLS as public servers are believed.
fn config() -> Result<Arc<ClientConfig>, DownloadError> {
    let read = |path: &&str| {
        let mut pem = Vec::new();
        File::open(path).and_then(|file| file.take(MAX_ROOTS).read_to_end(&mut pem)).ok()?;
        EgressRoots::from_pem(&pem).ok()
    };
    let roots = ROOTS.iter().find_map(read).ok_or(DownloadError::NoRoots)?;
    Ok(egress_client_config(&roots, &[Alpn::Http1]))
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
