//! The back end that the tests expect: what is posted to `/reflect` says how to answer, everything else is answered with nothing.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::ftw;

const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of a head or body.
const MOST: u64 = 16 << 20;

/// Serves until the program ends; where.
pub(super) fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(&stream));
        }
    });
    Ok(address)
}

fn serve(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.take(MOST));
    let mut out = stream;
    while let Some((path, head, body)) = request(&mut reader)? {
        out.write_all(&answer(&path, head, &body))?;
        reader.get_mut().set_limit(MOST);
    }
    Ok(())
}

/// The target of a request, whether it is HEAD, and its body. Our own gateway writes it: it is well-formed.
fn request(reader: &mut impl BufRead) -> io::Result<Option<(String, bool, Vec<u8>)>> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    let line = String::from_utf8_lossy(&line).into_owned();
    let mut words = line.split(' ');
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
    let (mut length, mut chunked) = (0, false);
    loop {
        let mut field = Vec::new();
        reader.read_until(b'\n', &mut field)?;
        let field = String::from_utf8_lossy(&field).to_ascii_lowercase();
        let Some((name, value)) = field.trim_end().split_once(':') else { break };
        match name {
            "content-length" => length = value.trim().parse().unwrap_or(0),
            "transfer-encoding" => chunked = true,
            _ => {}
        }
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let digits = size.trim().split(';').next().unwrap_or_default();
            let size = u64::from_str_radix(digits, 16).map_err(io::Error::other)?;
            reader.by_ref().take(size).read_to_end(&mut body)?;
            let mut end = Vec::new();
            reader.read_until(b'\n', &mut end)?;
            if size == 0 {
                break;
            }
        }
    } else {
        reader.by_ref().take(length).read_to_end(&mut body)?;
    }
    Ok(Some((path.to_owned(), method == "HEAD", body)))
}

fn answer(path: &str, head: bool, body: &[u8]) -> Vec<u8> {
    let asked = path.starts_with("/reflect").then(|| serde_json::from_slice::<Value>(body).ok()).flatten();
    let asked = asked.unwrap_or_default();
    let status = asked["status"].as_u64().filter(|status| (200..600).contains(status)).unwrap_or(200);
    let content = match (asked["body"].as_str(), asked["encodedBody"].as_str()) {
        (Some(body), _) => body.as_bytes().to_vec(),
        (None, Some(encoded)) => ftw::base64(encoded).unwrap_or_default(),
        (None, None) => Vec::new(),
    };
    let mut out = format!("HTTP/1.1 {status} Reflected\r\nContent-Length: {}\r\n", content.len());
    for (name, value) in asked["headers"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        if !name.eq_ignore_ascii_case("content-length") && !value.contains(['\r', '\n']) {
            out += &format!("{name}: {value}\r\n");
        }
    }
    out += "\r\n";
    let mut out = out.into_bytes();
    if !head {
        out.extend_from_slice(&content);
    }
    out
}
