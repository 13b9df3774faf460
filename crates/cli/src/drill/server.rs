//! A small server on loopback, for the fences that drills bring.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Most bytes of a request.
const MAX_REQUEST: usize = 64 * 1024;
/// How long a stream goes on, and how often it says something.
const STREAM: Duration = Duration::from_secs(60);
const BEAT: Duration = Duration::from_millis(50);

/// What a request is answered with.
pub(super) enum Answer {
    /// This, as it is, and the end.
    Whole(String),
    /// A stream that goes on while somebody reads it.
    Stream,
}

impl Answer {
    /// A body of a type.
    pub(super) fn body(kind: &str, body: &str) -> Self {
        let length = body.len();
        Self::Whole(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ))
    }
}

/// Answers every request in one way, until it is dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(
        address: SocketAddr,
        answer: impl Fn(SocketAddr, &str) -> Answer + Send + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let over = Arc::<AtomicBool>::default();
        let ends = over.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                serve(stream, &ends, |request| answer(address, request));
            }
        });
        Ok(Self { address, over, thread: Some(thread) })
    }

    /// Until the process ends.
    pub(super) fn go_on(mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One request per connection; whoever is slow is not waited for.
fn serve(mut stream: TcpStream, over: &Arc<AtomicBool>, answer: impl Fn(&str) -> Answer) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
    while request.len() < MAX_REQUEST && !is_whole(&request) {
        match stream.read(&mut chunk) {
            Ok(n) if n > 0 => request.extend_from_slice(&chunk[..n]),
            _ => return,
        }
    }
    match answer(&String::from_utf8_lossy(&request)) {
        Answer::Whole(text) => drop(stream.write_all(text.as_bytes())),
        Answer::Stream => {
            let over = over.clone();
            // Its own thread: others are served meanwhile.
            std::thread::spawn(move || beats(stream, &over));
        }
    }
}

/// Whether the head is there, and as much as it says that comes after it.
fn is_whole(request: &[u8]) -> bool {
    let Some(end) = request.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    request.len() - end - 4 >= length.unwrap_or(0)
}

fn beats(mut stream: TcpStream, over: &AtomicBool) {
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (begun, mut sent) = (Instant::now(), stream.write_all(head));
    while sent.is_ok() && begun.elapsed() < STREAM && !over.load(Ordering::Relaxed) {
        sent = stream.write_all(b"9\r\ndata: 1\n\n\r\n");
        std::thread::sleep(BEAT);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // It waits for a connection.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
