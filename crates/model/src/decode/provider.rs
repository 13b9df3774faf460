//! Whose tokens are believed, and who we are there.

use std::path::PathBuf;
use std::time::Duration;

use super::access::MAX_WORD;
use super::{Decoder, Fields, spec};
use crate::access::{Binding, Client, ClientProof, Login, Provider, TokenAlgorithm};
use crate::scalar::{dns_name, service_name};
use crate::suggest::quote;
use crate::yaml::{Entry, Node};

/// Longest address.
const MAX_URL: usize = 512;
/// Shortest time without a word, and shortest life of a session.
const MIN_SESSION: Duration = Duration::from_secs(60);
/// What stands for the provider of whoever shows a client certificate; that of API keys is no name that could be given.
const CERTIFICATES: &str = "certificate";

impl Decoder<'_> {
    pub(super) fn provider(&mut self, entry: &Entry) -> Option<Provider> {
        if let Err(reason) = service_name(&entry.key) {
            let message = format!("{} cannot name a provider: {reason}", quote(&entry.key));
            self.error("bad-name", entry.mark, message.replace("a service's name", "its name"), None);
        }
        if entry.key == CERTIFICATES {
            let message = "`certificate` stands for whoever shows a client certificate, so no provider may have that name";
            let help = "its users and clients would be taken for those: name it otherwise".to_owned();
            self.error("bad-name", entry.mark, message.to_owned(), Some(help));
        }
        let fields = self.fields(&entry.value, &spec::PROVIDER)?;
        if fields.get("issuer").is_none() {
            let help = "add the `iss` of its tokens: `issuer: https://id.example`";
            self.missing(entry.mark, "issuer", "a provider", help);
        }
        let allow_private = fields.get("allow_private").and_then(|n| self.truth(n)).unwrap_or(false);
        let issuer = fields
            .get("issuer")
            .and_then(|n| self.parsed(n, "an issuer", |text| issuer(text, allow_private)));
        let audiences =
            fields.get("audiences").map_or_else(Vec::new, |n| self.words(n, "audiences", "[clinic]"));
        let mut algorithms = Vec::new();
        for node in fields.get("algorithms").map_or(&[][..], |n| self.nonempty(n, "algorithms", "[ES256]")) {
            algorithms.extend(self.choice(node, &TokenAlgorithm::ALL));
        }
        if algorithms.is_empty() {
            algorithms = TokenAlgorithm::DEFAULT.to_vec();
        }
        let claims = fields.get("claims").and_then(|n| self.fields(n, &spec::CLAIMS));
        let mut claim = |key| claims.and_then(|c: Fields<'_>| c.get(key)).and_then(|n| self.word(n));
        let (user, groups) = (claim("user"), claim("groups"));
        let client = fields.entry("client").and_then(|e| self.client(e));
        let login = fields.entry("login").map(|e| self.login(&e.value));
        let introspect = fields.get("opaque").and_then(|n| self.choice(n, &[("introspect", true)]));
        for key in ["login", "opaque"] {
            if let (Some(entry), None) = (fields.entry(key), fields.entry("client")) {
                let help = "add who we are at the provider: `client: { id: NAME, secret: { file: FILE } }`";
                let message = format!("`{key}` needs a `client`, and this provider has none");
                self.error("missing-key", entry.mark, message, Some(help.to_owned()));
            }
        }
        let bound = fields.get("bound").and_then(|n| self.choice(n, &Binding::ALL)).unwrap_or_default();
        let ca = fields.get("ca").and_then(|n| self.text(n, "a path")).map(PathBuf::from);
        Some(Provider {
            name: entry.key.clone(),
            issuer: issuer?,
            audiences,
            client,
            login,
            introspect: introspect.unwrap_or(false),
            bound,
            algorithms,
            user_claim: user.unwrap_or_else(|| "sub".to_owned()),
            groups_claim: groups,
            kept_claims: Vec::new(),
            ca,
            allow_private,
            position: self.at(entry.mark),
        })
    }

    fn client(&mut self, entry: &Entry) -> Option<Client> {
        let fields = self.fields(&entry.value, &spec::CLIENT)?;
        let id = match fields.get("id") {
            Some(node) => self.word(node),
            None => {
                self.missing(
                    entry.mark,
                    "id",
                    "this client",
                    "add the name that the provider knows: `id: NAME`",
                );
                None
            }
        };
        if let (Some(_), Some(key)) = (fields.entry("secret"), fields.entry("key")) {
            let help = Some("keep one of them".to_owned());
            self.error(
                "conflict",
                key.mark,
                "a client proves who it is by a secret or by a key, not by both",
                help,
            );
        }
        let secret = fields.get("secret").and_then(|n| self.secret(n));
        let key = fields.get("key").and_then(|n| {
            let Some(file) = self.fields(n, &spec::KEY)?.get("file") else {
                self.missing(n.mark, "file", "this key", "name where it is: `key: { file: FILE }`");
                return None;
            };
            self.parsed(file, "a path", path).map(ClientProof::Key)
        });
        Some(Client { id: id?, proof: secret.or(key), position: self.at(entry.mark) })
    }

    /// Where a secret is kept. What stands here itself is refused without being repeated.
    fn secret(&mut self, node: &Node) -> Option<ClientProof> {
        if node.text().is_some() {
            let help =
                Some("name where it is: `secret: { file: FILE }` or `secret: { env: NAME }`".to_owned());
            self.error("wrong-type", node.mark, "a secret is in no fence", help);
            return None;
        }
        let fields = self.fields(node, &spec::SECRET)?;
        match (fields.get("file"), fields.get("env")) {
            (Some(file), None) => self.parsed(file, "a path", path).map(ClientProof::SecretFile),
            (None, Some(name)) => {
                self.parsed(name, "the name of a variable", variable).map(ClientProof::SecretEnv)
            }
            (None, None) => {
                let help = "name where it is: `secret: { file: FILE }` or `secret: { env: NAME }`";
                self.missing(node.mark, "file", "this secret", help);
                None
            }
            (Some(_), Some(env)) => {
                let help = Some("keep one of them".to_owned());
                self.error("conflict", env.mark, "a secret is in a file or in a variable, not in both", help);
                None
            }
        }
    }

    fn login(&mut self, node: &Node) -> Login {
        let mut login = Login::default();
        let Some(fields) = self.fields(node, &spec::LOGIN) else { return login };
        for scope in
            fields.get("scopes").map_or_else(Vec::new, |n| self.words(n, "scopes", "[openid, profile]"))
        {
            if scope != Login::OPENID {
                login.scopes.push(scope);
            }
        }
        let mut time = |key| fields.get(key).and_then(|n| self.time_in(n, MIN_SESSION, Login::MAX));
        let (idle, absolute) = (time("idle"), time("absolute"));
        login.absolute = absolute.unwrap_or(login.absolute);
        login.idle = idle.unwrap_or_else(|| login.idle.min(login.absolute));
        if let (Some(entry), true) = (fields.entry("idle"), login.idle > login.absolute) {
            let message = "no session lives long enough to say nothing for so long: `absolute` is shorter";
            self.error(
                "conflict",
                entry.mark,
                message,
                Some("make `idle` shorter, or `absolute` longer".to_owned()),
            );
        }
        login
    }
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.len() > 4095 || text.chars().any(char::is_control) {
        return Err("it has at most 4095 characters on one line".to_owned());
    }
    Ok(PathBuf::from(text))
}

fn variable(text: &str) -> Result<String, String> {
    let shaped = text.len() <= MAX_WORD
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if shaped { Ok(text.to_owned()) } else { Err("it has letters, digits and `_`".to_owned()) }
}

/// An issuer (OpenID Connect Discovery 1.0, section 3): an https URL without query and fragment.
fn issuer(text: &str, allow_private: bool) -> Result<String, String> {
    const SHAPE: &str = "an issuer is `https://HOST[:PORT][/PATH]`, exactly as in its tokens";
    if text.contains('?') {
        return Err(SHAPE.to_owned());
    }
    address(text, allow_private, SHAPE, "anybody on the way could sign in as anyone")
}

/// An address that is asked. Plain http never leaves the machine: a name can be pointed anywhere.
pub(super) fn address(
    text: &str,
    allow_private: bool,
    shape: &'static str,
    danger: &str,
) -> Result<String, String> {
    let (scheme, rest) = text.split_once("://").ok_or(shape)?;
    let (authority, path) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=:@".contains(&b);
    let in_query = |b: u8| plain(b) || matches!(b, b'?' | b'%');
    let dotted = path.split('/').any(|s| s == "." || s == "..");
    if text.len() > MAX_URL || !path.bytes().all(plain) || !query.bytes().all(in_query) || dotted {
        return Err(shape.to_owned());
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if port.is_some_and(|port| crate::scalar::port_number(port).is_err()) {
        return Err(shape.to_owned());
    }
    let address = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let address: Option<std::net::IpAddr> = address.parse().ok();
    if address.is_none() && host != "localhost" {
        dns_name(host)?;
    }
    match scheme {
        "https" => Ok(text.to_owned()),
        "http" if allow_private && address.is_some_and(|a| a.is_loopback()) => Ok(text.to_owned()),
        "http" => Err(format!(
            "over plain http {danger}: use https (http is taken with `allow_private: true` for a loopback address, for tests)"
        )),
        _ => Err(shape.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::issuer;

    #[test]
    fn an_issuer_is_https_and_one_place() {
        for good in [
            "https://id.example",
            "https://id.example:8443/realms/clinic",
            "https://[::1]:1",
            "https://localhost:3",
        ] {
            assert_eq!(issuer(good, false).as_deref(), Ok(good));
        }
        assert!(issuer("http://127.0.0.1:3000", true).is_ok());
        for bad in [
            "",
            "id.example",
            "https://",
            "https://id.example?x",
            "https://id.example/#a",
            "https://a@id.example",
            "https://id.example/../x",
            "http://id.example",
            "http://localhost:1",
            "ftp://id.example",
            "https://id.example:0",
            "https://ID example",
            "https://id.example/a b",
        ] {
            assert!(issuer(bad, true).is_err(), "{bad}");
        }
        assert!(issuer("http://127.0.0.1:3000", false).is_err());
    }
}
