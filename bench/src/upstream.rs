//! The server behind every contender: as little work as can be, so that it is never what is measured.
//!
//! HTTP/1.1 is answered by hand (a head in, with a body whose length it says or without, a fixed answer out); gRPC by h2, which
//! echoes the message.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::sync_channel;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use memchr::memmem;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::case::Case;
use crate::certs::{Certs, GATEWAY};
use crate::machine;

const HEAD_BYTES: usize = 16 << 10;
/// Length of the answer's body.
pub(crate) const BODY_BYTES: usize = 1024;

/// Where it listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upstream {
    plain: SocketAddr,
    mutual: SocketAddr,
    grpc: SocketAddr,
}

impl Upstream {
    /// Starts it on a thread of its own, for the life of the process.
    pub(crate) fn start(certs: &Certs, core: usize) -> io::Result<Self> {
        let acceptor = TlsAcceptor::from(certs.upstream()?);
        let (tell, told) = sync_channel(1);
        std::thread::Builder::new().name("upstream".to_owned()).spawn(move || {
            let result = serve(core, acceptor, |addresses| tell.send(addresses).is_ok());
            if let Err(error) = result {
                eprintln!("bench: the upstream ended: {error}");
            }
        })?;
        told.recv().map_err(|_| io::Error::other("the upstream did not start"))
    }

    /// What a proxy has to speak to in this case.
    pub(crate) const fn address(&self, case: Case) -> SocketAddr {
        match case {
            Case::Plain
            | Case::Tls
            | Case::Sidecar
            | Case::Handshake
            | Case::H2
            | Case::Token
            | Case::Waf
            | Case::WafStrict
            | Case::Chain => self.plain,
            Case::Mtls => self.mutual,
            Case::Grpc => self.grpc,
        }
    }
}

fn serve(core: usize, acceptor: TlsAcceptor, tell: impl FnOnce(Upstream) -> bool) -> io::Result<()> {
    machine::pin(core)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let bind = || TcpListener::bind("127.0.0.1:0");
        let (plain, mutual, grpc) = (bind().await?, bind().await?, bind().await?);
        let wanted = tell(Upstream {
            plain: plain.local_addr()?,
            mutual: mutual.local_addr()?,
            grpc: grpc.local_addr()?,
        });
        if !wanted {
            return Ok(());
        }
        // A proxy that breaks off ends its connection and nothing else.
        loop {
            tokio::select! {
                accepted = plain.accept() => drop(tokio::spawn(http1(ready(accepted?.0)?))),
                accepted = grpc.accept() => drop(tokio::spawn(echo(ready(accepted?.0)?))),
                accepted = mutual.accept() => {
                    let (stream, acceptor) = (ready(accepted?.0)?, acceptor.clone());
                    tokio::spawn(async move {
                        let stream = acceptor.accept(stream).await?;
                        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                        if chain.first().is_some_and(|leaf| is(leaf, GATEWAY)) {
                            return http1(stream).await;
                        }
                        Err(io::Error::other("not the gateway"))
                    });
                }
            }
        }
    })
}

fn ready(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Whether a verified certificate carries exactly this SPIFFE ID.
fn is(leaf: &[u8], id: &str) -> bool {
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else { return false };
    let Ok(Some(names)) = leaf.subject_alternative_name() else { return false };
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    uris.next() == Some(id) && uris.next().is_none()
}

async fn http1<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    let answer = [
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {BODY_BYTES}\r\n\r\n")
            .as_bytes(),
        &[b'x'; BODY_BYTES],
    ]
    .concat();
    let end = memmem::Finder::new(b"\r\n\r\n");
    let mut heads = Vec::with_capacity(4096);
    // What is left of the body of a request that is not answered yet.
    let mut under_way = None;
    loop {
        if stream.read_buf(&mut heads).await? == 0 {
            return Ok(());
        }
        loop {
            if let Some(left) = &mut under_way {
                let passed = heads.len().min(*left);
                heads.drain(..passed);
                *left -= passed;
                if *left > 0 {
                    break;
                }
                under_way = None;
                stream.write_all(&answer).await?;
            }
            let Some(at) = end.find(&heads) else { break };
            under_way = Some(content_length(&heads[..at]));
            heads.drain(..at + 4);
        }
        stream.flush().await?;
        if heads.len() > HEAD_BYTES {
            return Err(io::Error::other("a head without end"));
        }
    }
}

/// Of a request, none without the field.
fn content_length(head: &[u8]) -> usize {
    const FIELD: &[u8] = b"content-length:";
    let mut lines = head.split(|&byte| byte == b'\n');
    let value = lines.find_map(|line| {
        let (name, value) = line.split_at_checked(FIELD.len())?;
        name.eq_ignore_ascii_case(FIELD).then_some(value)
    });
    value.and_then(|value| std::str::from_utf8(value).ok()?.trim().parse().ok()).unwrap_or(0)
}

async fn echo(stream: TcpStream) -> Result<(), h2::Error> {
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(1024)
        .initial_connection_window_size(1 << 20)
        .handshake::<_, Bytes>(stream)
        .await?;
    while let Some(accepted) = connection.accept().await {
        let (request, mut respond) = accepted?;
        tokio::spawn(async move {
            let mut body = request.into_body();
            let mut message: Vec<Bytes> = Vec::new();
            while let Some(part) = body.data().await {
                let part = part?;
                body.flow_control().release_capacity(part.len())?;
                message.push(part);
            }
            let mut head = Response::new(());
            head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            let mut reply = respond.send_response(head, false)?;
            reply.send_data(message.concat().into(), false)?;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            reply.send_trailers(trailers)
        });
    }
    Ok(())
}
