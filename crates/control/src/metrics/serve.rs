//! The endpoint that is scraped: one page, at loopback, to whoever asks.
//!
//! A request is read here and not by the admin API's server: what it may be is so little that bounds on its size, its time and its
//! number are the whole of it. A page of a browser cannot read it: the host that is asked for must be this one by its address.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use super::Format;
use crate::api::{Ask, Question};

/// Connections at once; more wait.
const MAX_CONNECTIONS: usize = 16;
/// Longest head of a request.
const MAX_HEAD: usize = 8 * 1024;
/// Longest that one connection takes from its beginning to its end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Serves until it is given up.
pub(super) async fn serve(listener: TcpListener, questions: mpsc::Sender<Question>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let questions = questions.clone();
                connections.spawn(async move {
                    let _ = tokio::time::timeout(PATIENCE, one(stream, &questions)).await;
                    drop(place);
                });
            }
            // Out of descriptors or the like: not worth a spin.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// One request, one answer.
async fn one(mut stream: TcpStream, questions: &mpsc::Sender<Question>) -> std::io::Result<()> {
    let Some(head) = head(&mut stream).await? else { return Ok(()) };
    let asked = asked(&head);
    let (status, kind, body) = match &asked {
        Ok(asked) => match page(asked.format, questions).await {
            Some(page) => ("200 OK", asked.format.content_type(), page),
            None => ("503 Service Unavailable", TEXT, "control is busy or stopping\n".to_owned()),
        },
        Err(refused) => (refused.status(), TEXT, format!("{}\n", refused.why())),
    };
    let mut answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n",
        body.len()
    );
    if !asked.is_ok_and(|asked| asked.bodiless) {
        answer.push_str(&body);
    }
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

const TEXT: &str = "text/plain; charset=utf-8";

/// The head of a request; none of a client that goes without one.
async fn head(stream: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut head = Vec::with_capacity(1024);
    let mut more = [0; 1024];
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD {
        let read = stream.read(&mut more).await?;
        if read == 0 {
            return Ok(None);
        }
        head.extend_from_slice(&more[..read]);
    }
    Ok(Some(head))
}

async fn page(format: Format, questions: &mpsc::Sender<Question>) -> Option<String> {
    let (answer, wait) = oneshot::channel();
    questions.send((Ask::Metrics(format), answer)).await.ok()?;
    match wait.await {
        Ok(Ok(Value::String(page))) => Some(page),
        _ => None,
    }
}

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    format: Format,
    /// `HEAD`.
    bodiless: bool,
}

/// Why a request gets no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    Malformed,
    Method,
    Elsewhere,
    Host,
}

impl Refused {
    const fn status(self) -> &'static str {
        match self {
            Self::Malformed => "400 Bad Request",
            Self::Method => "405 Method Not Allowed",
            Self::Elsewhere => "404 Not Found",
            Self::Host => "421 Misdirected Request",
        }
    }

    const fn why(self) -> &'static str {
        match self {
            Self::Malformed => "this is no HTTP/1.1 request of at most 8 KiB without a body",
            Self::Method => "metrics are read with GET",
            Self::Elsewhere => "metrics are at /metrics",
            Self::Host => "ask for this host by its loopback address or as localhost",
        }
    }
}

/// Reads the head of a request.
fn asked(head: &[u8]) -> Result<Asked, Refused> {
    let text = std::str::from_utf8(head).map_err(|_| Refused::Malformed)?;
    let mut lines = text.strip_suffix("\r\n\r\n").ok_or(Refused::Malformed)?.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1" | "HTTP/1.0"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refused::Malformed);
    };
    let (mut host, mut format) = (None, Format::Prometheus);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(Refused::Malformed)?;
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("host") && host.replace(value.trim()).is_some() {
            return Err(Refused::Malformed);
        }
        if is("accept") && wants_open_metrics(value) {
            format = Format::OpenMetrics;
        }
    }
    if !host.is_none_or(is_here) {
        return Err(Refused::Host);
    }
    let bodiless = match method {
        "GET" => false,
        "HEAD" => true,
        _ => return Err(Refused::Method),
    };
    match target.split_once('?').map_or(target, |(path, _)| path) {
        "/metrics" => Ok(Asked { format, bodiless }),
        _ => Err(Refused::Elsewhere),
    }
}

/// Whether the format is among those that are accepted; one with the weight 0 is not (RFC 9110, section 12.4.2).
fn wants_open_metrics(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let refused = |part: &str| {
            part.strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|weight| weight <= 0.0))
        };
        parts.next() == Some("application/openmetrics-text") && !parts.any(refused)
    })
}

/// Whether a `Host` is this host by its address: a name that somebody else gives to it may be one that a browser was lured to.
fn is_here(host: &str) -> bool {
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMETHEUS: &str =
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

    fn of(request: &str) -> Result<Asked, Refused> {
        asked(request.replace('\n', "\r\n").as_bytes())
    }

    #[test]
    fn a_scraper_gets_the_format_that_it_asks_for() {
        let get = |accept: &str| of(&format!("GET /metrics?a HTTP/1.1\nHost: 127.0.0.1:9464\n{accept}\n"));
        assert_eq!(get("").unwrap(), Asked { format: Format::Prometheus, bodiless: false });
        assert_eq!(get(&format!("Accept: {PROMETHEUS}\n")).unwrap().format, Format::OpenMetrics);
        assert_eq!(get("Accept: */*\n").unwrap().format, Format::Prometheus);
        assert_eq!(get("Accept: application/openmetrics-text;q=0\n").unwrap().format, Format::Prometheus);
        assert!(of("HEAD /metrics HTTP/1.0\n\n").unwrap().bodiless);
    }

    #[test]
    fn what_is_no_scraper_of_this_host_gets_nothing() {
        for (request, refused) in [
            ("POST /metrics HTTP/1.1\nHost: localhost\n\n", Refused::Method),
            ("GET / HTTP/1.1\nHost: [::1]:9464\n\n", Refused::Elsewhere),
            ("GET /metrics HTTP/1.1\nHost: rebound.example\n\n", Refused::Host),
            ("GET /metrics HTTP/1.1\nHost: 127.0.0.1.rebound.example\n\n", Refused::Host),
            ("GET /metrics HTTP/1.1\nHost: localhost\nHost: a\n\n", Refused::Malformed),
            ("GET /metrics\n\n", Refused::Malformed),
            ("GET /metrics HTTP/1.1\nnonsense\n\n", Refused::Malformed),
            ("GET /metrics HTTP/1.1\nHost: localhost\n", Refused::Malformed),
            ("\u{16}\u{3}\n\n", Refused::Malformed),
        ] {
            assert_eq!(of(request), Err(refused), "{request:?}");
        }
        assert_eq!(asked(b"GET /metrics\xff HTTP/1.1\r\n\r\n"), Err(Refused::Malformed));
    }

    #[tokio::test]
    async fn many_that_say_nothing_are_waited_out_and_one_that_asks_is_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (questions, mut asked) = mpsc::channel::<Question>(4);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, questions));
        tasks.spawn(async move {
            while let Some((ask, answer)) = asked.recv().await {
                assert!(matches!(ask, Ask::Metrics(Format::Prometheus)));
                let _ = answer.send(Ok(Value::String("a 1\n".into())));
            }
        });
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS - 1 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.ends_with("\r\n\r\na 1\n"), "{said}");
        assert!(said.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{said}");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_can_be_asked(head in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = asked(&head);
            let _ = asked(&[b"GET /metrics HTTP/1.1\r\n", &*head, b"\r\n\r\n"].concat());
        }
    }
}
