//! The server name in a ClientHello that is passed on unread: what egress compares with the declared host.

use rustls::server::Acceptor;

/// What the first bytes of a connection say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    /// Not complete yet.
    More,
    /// A ClientHello for this server, lower case.
    Name(String),
    /// A ClientHello that names no server.
    NoName,
    /// Something else.
    NotTls,
}

/// Reads the server name from the first bytes of a connection, without taking part in the handshake.
pub fn peek_hello(bytes: &[u8]) -> Hello {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        match acceptor.read_tls(&mut rest) {
            Ok(0) => break,
            Ok(_) => {}
            Err(_) => return Hello::NotTls,
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let name = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
                return name.map_or(Hello::NoName, Hello::Name);
            }
            Err(_) => return Hello::NotTls,
        }
    }
    Hello::More
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConnection, RootCertStore};

    use super::*;

    fn hello(name: &'static str) -> Vec<u8> {
        let config = rustls::ClientConfig::builder_with_provider(crate::provider::outside())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_name_is_read_however_the_bytes_arrive() {
        let bytes = hello("Mail.Example.net");
        assert_eq!(peek_hello(&bytes), Hello::Name("mail.example.net".into()));
        for cut in 0..bytes.len() {
            assert_eq!(peek_hello(&bytes[..cut]), Hello::More, "{cut}");
        }
        assert_eq!(peek_hello(&hello("192.0.2.1")), Hello::NoName);
        assert_eq!(peek_hello(b"GET / HTTP/1.1\r\n\r\n"), Hello::NotTls);
    }
}
