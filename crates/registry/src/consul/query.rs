//! What a request asks for behind its path.

use crate::registration::duration_ms;

/// Longest that a request waits for news, in milliseconds; Consul's bound.
pub const MAX_WAIT_MS: u64 = 600_000;
/// How long it waits unless it says so.
const USUAL_WAIT_MS: u64 = 300_000;
/// Most parameters that are read.
const MAX_PARAMETERS: usize = 32;

/// The parameters of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

/// A request that waits until the view is newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocking {
    /// What the caller knows.
    pub index: u64,
    /// How long it waits at most, in milliseconds.
    pub wait_ms: u64,
}

impl Query {
    /// Reads `a=b&c`; none if it is malformed or long.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<_> = text.split('&').filter(|part| !part.is_empty()).collect();
        if parts.len() > MAX_PARAMETERS {
            return None;
        }
        let one = |part: &&str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Some((decode(name)?, decode(value)?))
        };
        parts.iter().map(one).collect::<Option<_>>().map(Self)
    }

    /// The value of a parameter; of several, the first.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Whether it waits for news. `Err` if it cannot be read.
    pub fn blocking(&self) -> Result<Option<Blocking>, &'static str> {
        let Some(index) = self.value("index").filter(|index| !index.is_empty()) else { return Ok(None) };
        let index = index.parse::<u64>().map_err(|_| "Invalid index")?;
        let wait_ms = match self.value("wait").filter(|wait| !wait.is_empty()) {
            Some(wait) => duration_ms(wait).ok_or("Invalid wait time")?,
            None => USUAL_WAIT_MS,
        };
        Ok((index > 0).then_some(Blocking { index, wait_ms: wait_ms.min(MAX_WAIT_MS) }))
    }
}

/// `%41` and `+`; none if it is malformed or no UTF-8.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                (digit(bytes.next()?)? * 16 + digit(bytes.next()?)?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}
