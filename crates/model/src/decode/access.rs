//! Who may come in: providers, and what routes accept and demand.

use std::path::PathBuf;

use super::{Decoder, Fields, spec};
use crate::access::{Accepted, Access, Credential, Provider, Require, TokenAlgorithm};
use crate::scalar::{dns_name, service_name};
use crate::suggest::quote;
use crate::yaml::{Entry, Mark, Node, Value};

/// Longest issuer, and longest audience, scope, context or group.
const MAX_URL: usize = 512;
const MAX_WORD: usize = 256;
/// The credential that needs no name.
const API_KEY: &str = "api_key";

impl Decoder<'_> {
    pub(super) fn provider(&mut self, entry: &Entry) -> Option<Provider> {
        if let Err(reason) = service_name(&entry.key) {
            let message = format!("{} cannot name a provider: {reason}", quote(&entry.key));
            self.error("bad-name", entry.mark, message.replace("a service's name", "its name"), None);
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
        let ca = fields.get("ca").and_then(|n| self.text(n, "a path")).map(PathBuf::from);
        Some(Provider {
            name: entry.key.clone(),
            issuer: issuer?,
            audiences,
            algorithms,
            user_claim: user.unwrap_or_else(|| "sub".to_owned()),
            groups_claim: groups,
            ca,
            allow_private,
            position: self.at(entry.mark),
        })
    }

    /// `accept` and `require` of a route.
    pub(super) fn access(&mut self, fields: Fields<'_>) -> Access {
        let mut access = Access::default();
        for item in
            fields.get("accept").map_or(&[][..], |n| self.nonempty(n, "credentials", "[{ token: NAME }]"))
        {
            let Some((credential, name, mark)) = self.credential(item) else { continue };
            if access.accept.iter().any(|accepted| accepted.credential == credential) {
                self.error("duplicate", item.mark, format!("{} stands here twice", quote(name)), None);
                continue;
            }
            access.accept.push(Accepted { credential, position: self.at(mark) });
        }
        let Some(entry) = fields.entry("require") else { return access };
        if fields.get("accept").is_none() {
            let help = "add whose credentials show it: `accept: [{ token: PROVIDER }]`".to_owned();
            self.error(
                "missing-key",
                entry.mark,
                "`require` without `accept`: nobody shows anything",
                Some(help),
            );
        }
        if let Some(of) = self.fields(&entry.value, &spec::REQUIRE) {
            let mut list =
                |key, what, example| of.get(key).map_or_else(Vec::new, |n| self.words(n, what, example));
            let scopes = list("scopes", "scopes", "[read]");
            let acr = list("acr", "authentication contexts", "[phr]");
            let groups = list("groups", "groups", "[nurse]");
            access.require = Require { scopes, acr, groups, position: Some(self.at(entry.mark)) };
        }
        access
    }

    /// A word, or a mapping that names whose.
    fn credential<'n>(&mut self, item: &'n Node) -> Option<(Credential, &'n str, Mark)> {
        if let Value::Scalar { .. } = &item.value {
            let credential = self.choice(item, &[(API_KEY, ())]).map(|()| Credential::ApiKey);
            return Some((credential?, API_KEY, item.mark));
        }
        let of = self.fields(item, &spec::ACCEPT)?;
        let Some(provider) = of.get("token") else {
            let help = "name whose tokens are accepted: `{ token: PROVIDER }`";
            self.missing(item.mark, "token", "this", help);
            return None;
        };
        let name = self.text(provider, "the name of a provider")?;
        Some((Credential::Token(name.to_owned()), name, provider.mark))
    }

    fn words(&mut self, node: &Node, of: &str, example: &str) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        for item in self.nonempty(node, of, example) {
            let Some(word) = self.word(item) else { continue };
            if words.contains(&word) {
                self.error("duplicate", item.mark, format!("{} stands here twice", quote(&word)), None);
            } else {
                words.push(word);
            }
        }
        words
    }

    fn word(&mut self, node: &Node) -> Option<String> {
        match &node.value {
            Value::Scalar { .. } => self.parsed(node, "a word", |text| {
                let printable = text.bytes().all(|b| b.is_ascii_graphic()) && text.len() <= MAX_WORD;
                let said = || format!("it has printable ASCII characters without spaces, at most {MAX_WORD}");
                if printable { Ok(text.to_owned()) } else { Err(said()) }
            }),
            _ => {
                self.mismatch(node, "a word");
                None
            }
        }
    }
}

/// An issuer (OpenID Connect Discovery 1.0, section 3): an https URL without query and fragment. Plain http never leaves
/// the machine: a name can be pointed anywhere.
fn issuer(text: &str, allow_private: bool) -> Result<String, String> {
    const SHAPE: &str = "an issuer is `https://HOST[:PORT][/PATH]`, exactly as in its tokens";
    let (scheme, rest) = text.split_once("://").ok_or(SHAPE)?;
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=:@".contains(&b);
    if text.len() > MAX_URL || !path.bytes().all(plain) || path.split('/').any(|s| s == "." || s == "..") {
        return Err(SHAPE.to_owned());
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if port.is_some_and(|port| crate::scalar::port_number(port).is_err()) {
        return Err(SHAPE.to_owned());
    }
    let address = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let address: Option<std::net::IpAddr> = address.parse().ok();
    if address.is_none() && host != "localhost" {
        dns_name(host)?;
    }
    match scheme {
        "https" => Ok(text.to_owned()),
        "http" if allow_private && address.is_some_and(|a| a.is_loopback()) => Ok(text.to_owned()),
        "http" => {
            Err("over plain http anybody on the way could sign in as anyone: use https (http is taken with \
                       `allow_private: true` for a loopback address, for tests)"
                .to_owned())
        }
        _ => Err(SHAPE.to_owned()),
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
