//! A network namespace as a shim makes one: callee addresses are local, and its sockets can be handed out.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use ringfence_channel::BlockingChannel;

const FACTORY: &str = r#"
import json, socket, subprocess, sys
for command in ("ip link set lo up", "ip route add local 198.18.0.0/15 dev lo"):
    subprocess.run(command.split(), check=True)
channel = socket.socket(fileno=0)
def answer(value, fds):
    body = json.dumps(value).encode()
    socket.send_fds(channel, [len(body).to_bytes(4, "little") + body], [s.fileno() for s in fds])
answer("ready", [])
def read(n):
    data = b""
    while len(data) < n:
        more = channel.recv(n - len(data))
        if not more: sys.exit(0)
        data += more
    return data
while True:
    ask = json.loads(read(int.from_bytes(read(4), "little")))
    if "listen" in ask:
        made = []
        for _ in range(ask["listen"]["count"]):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            s.bind(("0.0.0.0", ask["listen"]["port"]))
            s.listen(512)
            made.append(s)
    elif "sockets" in ask:
        made = [socket.socket() for _ in range(ask["sockets"]["count"])]
        answer({"sockets": {"count": len(made)}}, made)
        continue
    else:
        s = socket.socket()
        s.connect((ask["connect"]["host"], ask["connect"]["port"]))
        made = [s]
    answer("made", made)
"#;

/// A namespace of its own, as long as this lives.
pub struct Net {
    factory: Child,
    /// One question at a time: the shim and the test both ask.
    channel: Mutex<BlockingChannel<serde_json::Value, serde_json::Value>>,
}

impl Net {
    pub fn new() -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let factory = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "python3", "-c", FACTORY])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .expect("unshare and python3 are needed for these tests");
        let channel = BlockingChannel::new(ours);
        assert_eq!(channel.recv().expect("a user namespace is needed for these tests").0, "ready");
        Self { factory, channel: Mutex::new(channel) }
    }

    fn ask(&self, what: serde_json::Value) -> Vec<OwnedFd> {
        let channel = self.channel.lock().unwrap();
        channel.send(&what, &[]).unwrap();
        channel.recv().unwrap().1
    }

    /// Listening sockets on a port of every address in there.
    pub fn listen(&self, port: u16, count: usize) -> Vec<OwnedFd> {
        self.ask(serde_json::json!({"listen": {"port": port, "count": count}}))
    }

    /// A listener for a service in there.
    pub fn service(&self, port: u16) -> TcpListener {
        self.listen(port, 1).pop().unwrap().into()
    }

    /// A connection from in there.
    pub fn connect(&self, host: &str, port: u16) -> TcpStream {
        self.ask(serde_json::json!({"connect": {"host": host, "port": port}})).pop().unwrap().into()
    }

    /// Unconnected sockets.
    pub fn sockets(&self, count: u32) -> Vec<OwnedFd> {
        self.ask(serde_json::json!({"sockets": {"count": count}}))
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = self.factory.kill();
        let _ = self.factory.wait();
    }
}

/// A small HTTP/1.1 server for one listener: answers with the request as it came, head and body.
pub fn echo(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            std::thread::spawn(move || drop(echo_connection(stream)));
        }
    });
}

fn echo_connection(stream: TcpStream) -> std::io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut lines = BufReader::new(stream);
    loop {
        let (mut head, mut length, mut chunked) = (String::new(), 0, false);
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            chunked |= lower.starts_with("transfer-encoding:");
            if line == "\r\n" {
                break;
            }
            head += &line;
        }
        let mut body = vec![0; length];
        std::io::Read::read_exact(&mut lines, &mut body)?;
        while chunked {
            let mut line = String::new();
            lines.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            if size == 0 {
                // Trailers are a part of this request; left unread they would begin the next one.
                while line.trim() != "" {
                    line.clear();
                    lines.read_line(&mut line)?;
                }
                chunked = false;
                continue;
            }
            let mut chunk = vec![0; size + 2];
            std::io::Read::read_exact(&mut lines, &mut chunk)?;
            body.extend(&chunk[..size]);
        }
        let text = [head.as_bytes(), b"\r\n", &body].concat();
        if head.starts_with("GET /slow") {
            std::thread::sleep(std::time::Duration::from_millis(1500));
        }
        write!(
            out,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-Port: {}\r\n\r\n",
            text.len(),
            out.local_addr()?.port()
        )?;
        out.write_all(&text)?;
    }
}
