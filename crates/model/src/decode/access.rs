//! Who may come in: what routes and services accept and demand.

use super::{Decoder, Fields, spec};
use crate::access::{Accepted, Access, Credential, Require};
use crate::suggest::quote;
use crate::yaml::{Mark, Node, Value};

/// Longest audience, scope, context or group.
pub(super) const MAX_WORD: usize = 256;
/// The credential that needs no name.
const API_KEY: &str = "api_key";

impl Decoder<'_> {
    /// `accept` and `require` of a route or a service.
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
        let mut named = spec::ACCEPT.keys.iter().filter_map(|key| Some((*key, of.get(key)?)));
        let Some((key, node)) = named.next() else {
            // A misspelt key has been said already.
            if of.entries.is_empty() {
                let help = "name whose tokens or sessions are accepted: `{ token: PROVIDER }`, `{ login: PROVIDER }`";
                self.missing(item.mark, "token", "this", help);
            }
            return None;
        };
        if let Some((_, second)) = named.next() {
            let help = Some("write each as an item of its own: any one of them suffices".to_owned());
            self.error("conflict", second.mark, "one item names one credential", help);
            return None;
        }
        if key == "certificate" {
            let file = self.text(node, "the file of an authority")?;
            let credential = self.parsed(node, "the file of an authority", authority)?;
            return Some((Credential::Certificate(credential), file, node.mark));
        }
        let name = self.text(node, "the name of a provider")?;
        let make = if key == "login" { Credential::Login } else { Credential::Token };
        Some((make(name.to_owned()), name, node.mark))
    }

    pub(super) fn words(&mut self, node: &Node, of: &str, example: &str) -> Vec<String> {
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

    pub(super) fn word(&mut self, node: &Node) -> Option<String> {
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

/// The file of an authority; two spellings of one place would be two authorities.
fn authority(text: &str) -> Result<String, String> {
    if text.len() > 512 || text.chars().any(char::is_control) {
        return Err("it has at most 512 characters on one line".to_owned());
    }
    let clean = text.strip_prefix('/').unwrap_or(text);
    if clean.is_empty() || clean.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("a path has no `.`, `..` or empty part: `ca/partners.pem`".to_owned());
    }
    Ok(text.to_owned())
}
