//! Whether a service is ready, asked from inside its network.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::spec::Ready;

const ATTEMPT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(50);

/// Asks until the service is ready or `wanted` says that nobody wants to know any more. Runs in the service's network.
pub(crate) fn wait(ready: &Ready, listen: Option<u16>, wanted: impl Fn() -> bool) -> bool {
    let Some(port) = listen else { return wanted() };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    while wanted() {
        let yes = match ready {
            Ready::Started => true,
            Ready::Tcp => TcpStream::connect_timeout(&address, ATTEMPT).is_ok(),
            Ready::Http { path } => answers(&address, path).unwrap_or(false),
        };
        if yes {
            return wanted();
        }
        std::thread::sleep(PAUSE);
    }
    false
}

fn answers(address: &SocketAddr, path: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(address, ATTEMPT)?;
    stream.set_read_timeout(Some(ATTEMPT))?;
    stream.set_write_timeout(Some(ATTEMPT))?;
    // A path from the fence: no space or control character gets this far unescaped.
    if !path.starts_with('/') || path.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return Ok(false);
    }
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(status.starts_with(b"HTTP/1.") && matches!(status[9], b'2' | b'3'))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn serve(answer: &'static [u8]) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming().take(3) {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(answer);
            }
        });
        port
    }

    #[test]
    fn an_error_page_is_not_ready() {
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        assert!(answers(&address(serve(b"HTTP/1.1 204 No Content\r\n\r\n")), "/healthz").unwrap());
        assert!(!answers(&address(serve(b"HTTP/1.1 503 Busy\r\n\r\n")), "/healthz").unwrap());
        assert!(!answers(&address(serve(b"HTTP/1.1 200 OK\r\n\r\n")), "/a b").unwrap());
    }

    #[test]
    fn nobody_waits_for_a_service_that_nobody_wants() {
        assert!(!wait(&Ready::Tcp, Some(1), || false));
    }
}
