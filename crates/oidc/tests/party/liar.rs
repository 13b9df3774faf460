//! A provider that does what the test tells it to, however wrong.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringfence_keys::{Algorithm, SigningKey};
use ringfence_token::KeySet;
use serde_json::{Map, Value, json};

/// What it answers at a path.
#[derive(Clone)]
pub(crate) enum Answer {
    Json(Value),
    /// Head and body, as they are.
    Raw(Vec<u8>),
    /// The same after a while.
    Slow(Duration, Value),
    /// So many bytes, without an end in sight.
    Endless,
}

pub(crate) struct Liar {
    pub(crate) issuer: String,
    answers: Arc<Mutex<HashMap<String, Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
    pub(crate) key: SigningKey,
}

impl Liar {
    /// Starts honest.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let (answers, asked) =
            (Arc::<Mutex<HashMap<String, Answer>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (given, noted) = (answers.clone(), asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (given, noted) = (given.clone(), noted.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &given, &noted));
            }
        });
        let liar = Self { issuer, answers, asked, key: SigningKey::generate(Algorithm::P256).unwrap() };
        liar.put("/.well-known/openid-configuration", Answer::Json(liar.metadata()));
        liar.put("/jwks", Answer::Json(jwks(&[("k1", &liar.key)])));
        liar
    }

    pub(crate) fn metadata(&self) -> Value {
        let at = |path: &str| format!("{}{path}", self.issuer);
        json!({
            "issuer": self.issuer, "jwks_uri": at("/jwks"), "authorization_endpoint": at("/auth"),
            "token_endpoint": at("/token"), "introspection_endpoint": at("/introspect"),
        })
    }

    pub(crate) fn put(&self, path: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    /// How often a path was asked for.
    pub(crate) fn asked(&self, path: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == path).count()
    }

    /// Claims of a good ID token.
    pub(crate) fn claims(&self, nonce: &str) -> Map<String, Value> {
        let now = unix_now();
        let claims = json!({
            "iss": self.issuer, "aud": "clinic-gateway", "sub": "nora", "nonce": nonce, "iat": now, "exp": now + 300,
        });
        claims.as_object().unwrap().clone()
    }

    /// Has its token endpoint give this ID token.
    pub(crate) fn give(&self, id_token: &str) {
        let tokens =
            json!({ "access_token": "a", "token_type": "Bearer", "expires_in": 60, "id_token": id_token });
        self.put("/token", Answer::Json(tokens));
    }
}

pub(crate) fn jwks(keys: &[(&str, &SigningKey)]) -> Value {
    let keys = keys.iter().map(|(kid, key)| ((*kid).to_owned(), key.verifying_key().clone()));
    serde_json::from_str(&KeySet::from_keys(keys).to_json("sig")).unwrap()
}

pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn serve(stream: TcpStream, answers: &Mutex<HashMap<String, Answer>>, asked: &Mutex<Vec<String>>) {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).unwrap_or_default();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or_default() == 0 || line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    let _ = reader.read_exact(&mut body);
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    asked.lock().unwrap().push(path.clone());
    let answer = answers.lock().unwrap().get(&path).cloned();
    // Whoever had enough hangs up; that is what is tested.
    let mut stream = reader.into_inner();
    let _ = match answer {
        None => stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"),
        Some(Answer::Json(value)) => stream.write_all(&json_answer(&value)),
        Some(Answer::Raw(bytes)) => stream.write_all(&bytes),
        Some(Answer::Slow(time, value)) => {
            std::thread::sleep(time);
            stream.write_all(&json_answer(&value))
        }
        Some(Answer::Endless) => endless(&mut stream),
    };
}

fn json_answer(value: &Value) -> Vec<u8> {
    let body = value.to_string();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn endless(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"keys\":[")?;
    let chunk = [b' '; 16 * 1024];
    // 64 MiB; whoever reads all of it is wrong.
    for _ in 0..4096 {
        stream.write_all(&chunk)?;
    }
    Ok(())
}
