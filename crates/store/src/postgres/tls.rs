//! TLS to the database, through the one door to rustls.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ringfence_tls::pki_types::ServerName;
use ringfence_tls::{
    ClientConfig, EgressRoots, TlsConnector, client, egress_client_config, server_end_point,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

type Reason = Box<dyn Error + Send + Sync>;

/// Makes connections to servers that show a certificate for the name they are called by.
#[derive(Clone)]
pub(super) struct Tls(Option<Arc<ClientConfig>>);

impl Tls {
    pub(super) fn new(roots: Option<&EgressRoots>) -> Self {
        Self(roots.map(|roots| egress_client_config(roots, &[])))
    }
}

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Secured;
    type TlsConnect = Connect;
    type Error = Reason;

    fn make_tls_connect(&mut self, host: &str) -> Result<Connect, Reason> {
        // Unix sockets have no host; the library asks for a connector all the same and does not use it.
        let name = (!host.is_empty()).then(|| ServerName::try_from(host.to_owned())).transpose()?;
        Ok(Connect(self.0.clone().zip(name)))
    }
}

/// One handshake to come.
pub(super) struct Connect(Option<(Arc<ClientConfig>, ServerName<'static>)>);

impl TlsConnect<Socket> for Connect {
    type Stream = Secured;
    type Error = Reason;
    type Future = Pin<Box<dyn Future<Output = Result<Secured, Reason>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let (config, name) = self.0.ok_or("no root certificates are named to check the database's by")?;
            let stream = TlsConnector::from(config).connect(name, socket).await?;
            let end_point = stream
                .get_ref()
                .1
                .peer_certificates()
                .and_then(<[_]>::first)
                .and_then(server_end_point)
                .ok_or("a login cannot be bound to the database's certificate: let it be signed with ECDSA or RSA")?;
            Ok(Secured { stream, end_point })
        })
    }
}

/// A connection whose other end is known.
pub(super) struct Secured {
    stream: client::TlsStream<Socket>,
    end_point: Vec<u8>,
}

impl TlsStream for Secured {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::tls_server_end_point(self.end_point.clone())
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
