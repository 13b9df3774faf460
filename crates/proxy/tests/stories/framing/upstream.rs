//! A service that keeps each request exactly as it came, and a gateway before it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::gateway::fence;
use crate::rig::{Rig, local};

/// What a service saw, and who stands before it.
pub struct Before {
    pub rig: Rig,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// How long anything may take that should come at once.
pub const SOON: Duration = Duration::from_secs(60);

impl Before {
    /// A gateway with these limits, which looks for no attacks: bodies stream, and what a case sends is judged by its form alone.
    pub fn start(limits: &str) -> Self {
        let (listener, port) = local();
        let seen = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let log = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let log = log.clone();
                std::thread::spawn(move || drop(serve(stream, &log)));
            }
        });
        Self { rig: Rig::start(&(fence(port) + "waf: off\n" + limits)), seen }
    }

    /// The complete requests that the service saw since this was asked last, without what the gateway adds to each.
    pub fn seen(&self) -> Vec<Vec<u8>> {
        self.seen_from(Ipv4Addr::LOCALHOST)
    }

    /// Those of a client at this address: what another one sent may reach the service long after it is gone.
    pub fn seen_from(&self, client: Ipv4Addr) -> Vec<Vec<u8>> {
        let line = format!("\r\nx-forwarded-for: {client}\r\n");
        let mut seen = self.seen.lock().unwrap();
        let (mine, others) = seen.drain(..).partition(|request| find(request, line.as_bytes()).is_some());
        *seen = others;
        let mine: Vec<Vec<u8>> = mine;
        mine.iter().map(|request| without_ours(request, client)).collect()
    }

    pub fn connect(&self) -> TcpStream {
        connect(self.rig.gateway)
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    connect_from(Ipv4Addr::LOCALHOST, address)
}

/// From an address of this machine.
pub fn connect_from(own: Ipv4Addr, address: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    if own != Ipv4Addr::LOCALHOST {
        socket.bind(&SocketAddr::from((own, 0)).into()).unwrap();
    }
    socket.connect(&address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    stream
}

/// Serves one connection of the gateway. What the gateway writes is canonical, so that the simplest reader is exact.
fn serve(mut stream: TcpStream, log: &Mutex<Vec<Vec<u8>>>) -> std::io::Result<()> {
    let mut read = Vec::new();
    let more = |stream: &mut TcpStream, read: &mut Vec<u8>| -> std::io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        match stream.read(&mut buffer)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => {
                read.extend_from_slice(&buffer[..n]);
                Ok(())
            }
        }
    };
    loop {
        let head = loop {
            match find(&read, b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => more(&mut stream, &mut read)?,
            }
        };
        let text = String::from_utf8_lossy(&read[..head]).into_owned();
        let field = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        if field("expect").is_some() {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut end = head;
        if let Some(length) = field("content-length") {
            end += length.parse::<usize>().unwrap();
            while read.len() < end {
                more(&mut stream, &mut read)?;
            }
        } else if field("transfer-encoding").is_some() {
            loop {
                let Some(line) = find(&read[end..], b"\r\n") else {
                    more(&mut stream, &mut read)?;
                    continue;
                };
                let size =
                    usize::from_str_radix(std::str::from_utf8(&read[end..end + line]).unwrap(), 16).unwrap();
                let next = end + line + 2 + size + 2;
                if size > 0 {
                    while read.len() < next {
                        more(&mut stream, &mut read)?;
                    }
                    end = next;
                    continue;
                }
                // Trailers end with an empty line, which directly follows the last chunk where there are none.
                match find(&read[end + line..], b"\r\n\r\n") {
                    Some(at) => {
                        end += line + at + 4;
                        break;
                    }
                    None => more(&mut stream, &mut read)?,
                }
            }
        }
        let rest = read.split_off(end);
        log.lock().unwrap().push(std::mem::replace(&mut read, rest));
        if field("upgrade").is_some() {
            stream.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            )?;
            stream.write_all(b"switched")?;
            return stream.shutdown(Shutdown::Write);
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
        let body = if text.starts_with("HEAD ") { "" } else { "ok" };
        stream.write_all(format!("{head}{body}").as_bytes())?;
    }
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Takes out the lines that the gateway itself adds, each of which must be there once.
fn without_ours(request: &[u8], client: Ipv4Addr) -> Vec<u8> {
    let ours = [
        format!("x-forwarded-for: {client}\r"),
        "x-forwarded-proto: http".to_owned(),
        "x-forwarded-host: ".to_owned(),
        format!("forwarded: for={client};proto=http;host="),
        "traceparent: 00-".to_owned(),
    ];
    let head = find(request, b"\r\n\r\n").unwrap() + 2;
    let mut rest = Vec::new();
    let mut found = [0; 5];
    let mut at = 0;
    while at < head {
        let end = at + find(&request[at..], b"\r\n").unwrap() + 2;
        let line = &request[at..end];
        match ours.iter().position(|own| line.starts_with(own.as_bytes())) {
            Some(which) => found[which] += 1,
            None => rest.extend_from_slice(line),
        }
        at = end;
    }
    assert_eq!(found, [1; 5], "{}", String::from_utf8_lossy(request));
    rest.extend_from_slice(&request[head..]);
    rest
}
