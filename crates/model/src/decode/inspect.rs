//! `waf` and `openapi`: what requests are looked through for.

use super::policies::beside;
use super::{Decoder, Fields, spec};
use crate::fence::{Beyond, Date, Excluded, Exclusion, Mode, OpenApi, Protocol, Waf};
use crate::pattern::PathPattern;
use crate::suggest::{did_you_mean, quote};
use crate::yaml::{Entry, Mark, Node, Value};

/// Most exclusions, and most rules of one.
const MAX_EXCLUSIONS: usize = 1024;
const MAX_RULES: usize = 256;
/// Highest number of a rule.
const MAX_RULE: u64 = 2_147_483_647;
/// Least and most bytes of a body that are inspected: it is held in memory meanwhile.
const MIN_INSPECT: u64 = 1 << 10;
const MAX_INSPECT: u64 = 64 << 20;
/// Highest score.
const MAX_SCORE: u64 = 10_000;
/// Longest tag, target and reason.
const MAX_TAG: usize = 128;
const MAX_TARGET: usize = 256;
const MAX_REASON: usize = 512;

/// Variables that rules look into and that can be excluded, as rules name them.
const VARIABLES: [&str; 33] = [
    "ARGS",
    "ARGS_COMBINED_SIZE",
    "ARGS_GET",
    "ARGS_GET_NAMES",
    "ARGS_NAMES",
    "ARGS_POST",
    "ARGS_POST_NAMES",
    "FILES",
    "FILES_COMBINED_SIZE",
    "FILES_NAMES",
    "FILES_TMP_CONTENT",
    "FULL_REQUEST",
    "JSON",
    "MULTIPART_FILENAME",
    "MULTIPART_NAME",
    "MULTIPART_PART_HEADERS",
    "PATH_INFO",
    "QUERY_STRING",
    "REMOTE_ADDR",
    "REQUEST_BASENAME",
    "REQUEST_BODY",
    "REQUEST_COOKIES",
    "REQUEST_COOKIES_NAMES",
    "REQUEST_FILENAME",
    "REQUEST_HEADERS",
    "REQUEST_HEADERS_NAMES",
    "REQUEST_LINE",
    "REQUEST_URI",
    "REQUEST_URI_RAW",
    "RESPONSE_BODY",
    "RESPONSE_HEADERS",
    "RESPONSE_HEADERS_NAMES",
    "XML",
];

impl Decoder<'_> {
    /// A mapping, or the mode alone.
    pub(super) fn waf(&mut self, entry: &Entry) -> Waf {
        let mut waf = Waf::new(Mode::Enforce, self.at(entry.mark));
        match &entry.value.value {
            Value::Null => return waf,
            Value::Scalar { .. } => {
                waf.mode = self.mode(&entry.value).unwrap_or_default();
                return waf;
            }
            _ => {}
        }
        let Some(fields) = self.fields(&entry.value, &spec::WAF) else { return waf };
        waf.mode = fields.get("mode").and_then(|n| self.mode(n)).unwrap_or_default();
        waf.crs = fields.get("crs").and_then(|n| self.parsed(n, "a folder", folder));
        if let Some(level) = fields.get("paranoia").and_then(|n| self.number(n, 1, 4)) {
            waf.paranoia = u8::try_from(level).unwrap_or(Waf::PARANOIA);
        }
        if let Some(of) = fields.get("threshold").and_then(|n| self.fields(n, &spec::WAF_THRESHOLD)) {
            let mut score = |key, otherwise| {
                let score = of.get(key).and_then(|n| self.number(n, 1, MAX_SCORE));
                score.and_then(|score| u32::try_from(score).ok()).unwrap_or(otherwise)
            };
            (waf.inbound, waf.outbound) = (score("inbound", Waf::INBOUND), score("outbound", Waf::OUTBOUND));
        }
        if let Some(of) = fields.get("body").and_then(|n| self.fields(n, &spec::WAF_BODY)) {
            let inspect = of.get("inspect").and_then(|n| self.size_in(n, MIN_INSPECT, MAX_INSPECT));
            waf.inspect = inspect.unwrap_or(Waf::INSPECT);
            let beyond = of.get("beyond");
            let choices = [("reject", Beyond::Reject), ("head", Beyond::Head)];
            waf.beyond = beyond.and_then(|n| self.choice(n, &choices)).unwrap_or_default();
        }
        waf.responses = fields.get("responses").and_then(|n| self.truth(n)).unwrap_or(false);
        if let Some(node) = fields.get("exclude") {
            waf.exclude = self.exclusions(node);
        }
        waf
    }

    pub(super) fn route_waf(&mut self, entry: &Entry, protocol: Protocol) -> Option<Mode> {
        if protocol == Protocol::Tcp {
            let help = Some("leave `waf` out".to_owned());
            self.error("conflict", entry.mark, "tcp is not looked into", help);
        }
        self.mode(&entry.value)
    }

    fn exclusions(&mut self, node: &Node) -> Vec<Exclusion> {
        const EXAMPLE: &str =
            "[{ rules: [942100], target: \"ARGS:q\", path: /search, reason: …, until: 2027-03-01 }]";
        let items = self.list(node, "exclusions", EXAMPLE);
        if items.len() > MAX_EXCLUSIONS {
            self.error("too-many", node.mark, format!("there are more than {MAX_EXCLUSIONS} of them"), None);
        }
        items.iter().take(MAX_EXCLUSIONS).filter_map(|item| self.exclusion(item)).collect()
    }

    fn exclusion(&mut self, item: &Node) -> Option<Exclusion> {
        let fields = self.fields(item, &spec::WAF_EXCLUSION)?;
        let of = self.excluded(fields, item.mark);
        let target = fields.get("target").map(|n| self.target(n));
        let pattern = |text: &str| PathPattern::parse(text).map_err(|e| e.to_string());
        let path = fields.get("path").map(|n| self.parsed(n, "a path pattern", pattern));
        let mut wanted = |key: &'static str, help: &str| {
            let node = fields.get(key);
            if node.is_none() {
                self.missing(item.mark, key, "this exclusion", help);
            }
            node
        };
        let why = wanted("reason", "say why it is no attack: `reason: \"free text search\"`");
        let until = wanted("until", "say when somebody has to look again: `until: 2027-03-01`");
        let reason = why.and_then(|n| self.parsed(n, "a reason", reason));
        let until = until.and_then(|n| self.parsed(n, "a day", str::parse::<Date>));
        // What was refused must not become an exclusion from more than was meant.
        let (target, path) = (absent_or(target)?, absent_or(path)?);
        Some(Exclusion {
            of: of?,
            target,
            path,
            reason: reason?,
            until: until?,
            position: self.at(item.mark),
        })
    }

    /// Which rules: by number or by tag.
    fn excluded(&mut self, fields: Fields<'_>, mark: Mark) -> Option<Excluded> {
        match (fields.get("rules"), fields.entry("tag")) {
            (Some(_), Some(tag)) => {
                let help = Some("write one exclusion for each".to_owned());
                self.error("conflict", tag.mark, "rules are named by `rules` or by `tag`, not by both", help);
                None
            }
            (None, None) => {
                let help = "name what does not count: `rules: [942100]` or `tag: attack-sqli`";
                self.missing(mark, "rules", "this exclusion", help);
                None
            }
            (None, Some(tag)) => self.parsed(&tag.value, "a tag", word).map(Excluded::Tag),
            (Some(node), None) => {
                let mut rules = Vec::new();
                let items = self.list(node, "numbers of rules", "[942100]");
                if items.is_empty() && matches!(node.value, Value::List(_)) {
                    self.error("empty", node.mark, "this names no rule", Some("add its number".to_owned()));
                }
                if items.len() > MAX_RULES {
                    let help = Some("name them by `tag`".to_owned());
                    self.error(
                        "too-many",
                        node.mark,
                        format!("there are more than {MAX_RULES} of them"),
                        help,
                    );
                }
                for item in items.iter().take(MAX_RULES) {
                    let Some(rule) = self.number(item, 1, MAX_RULE) else { continue };
                    let Ok(rule) = u32::try_from(rule) else { continue };
                    if rules.contains(&rule) {
                        self.error("duplicate", item.mark, format!("`{rule}` stands here twice"), None);
                    } else {
                        rules.push(rule);
                    }
                }
                (!rules.is_empty()).then_some(Excluded::Rules(rules))
            }
        }
    }

    /// A variable, or one member of a collection: `ARGS:q`.
    fn target(&mut self, node: &Node) -> Option<String> {
        let target = self.parsed(node, "a variable", target)?;
        let name = target.split(':').next().unwrap_or_default();
        if VARIABLES.contains(&name) {
            return Some(target);
        }
        let upper = name.to_ascii_uppercase();
        let help = if VARIABLES.contains(&&*upper) {
            Some(format!("did you mean `{upper}`?"))
        } else {
            did_you_mean(&upper, VARIABLES)
        };
        self.error("bad-value", node.mark, format!("no rule looks into {}", quote(name)), help);
        None
    }

    /// The file alone, or a mapping.
    pub(super) fn openapi(&mut self, entry: &Entry, protocol: Protocol) -> Option<OpenApi> {
        if protocol != Protocol::Http {
            let message = format!("OpenAPI describes HTTP, and this service speaks {protocol}");
            self.error("conflict", entry.mark, message, Some("leave `openapi` out".to_owned()));
        }
        let mut openapi = OpenApi {
            file: String::new(),
            mode: Mode::Enforce,
            responses: Mode::Observe,
            undocumented: Mode::Enforce,
            position: self.at(entry.value.mark),
        };
        if let Value::Scalar { .. } = entry.value.value {
            openapi.file = self.parsed(&entry.value, "a file", beside)?;
            return Some(openapi);
        }
        let fields = self.fields(&entry.value, &spec::OPENAPI)?;
        let Some(node) = fields.get("file") else {
            let help = "name the description: `file: openapi.yaml`";
            self.missing(entry.value.mark, "file", "this `openapi`", help);
            return None;
        };
        let file = self.parsed(node, "a file", beside);
        openapi.position = self.at(node.mark);
        for (key, mode) in [
            ("mode", &mut openapi.mode),
            ("responses", &mut openapi.responses),
            ("undocumented", &mut openapi.undocumented),
        ] {
            if let Some(said) = fields.get(key).and_then(|n| self.mode(n)) {
                *mode = said;
            }
        }
        openapi.file = file?;
        Some(openapi)
    }
}

/// What is absent is absent; what is there and was refused is nothing at all.
fn absent_or<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        None => Some(None),
        Some(value) => value.map(Some),
    }
}

/// A folder of the fence's folder; people write its name with a slash at the end.
fn folder(text: &str) -> Result<String, String> {
    beside(text.strip_suffix('/').unwrap_or(text))
}

fn word(text: &str) -> Result<String, String> {
    if text.len() <= MAX_TAG && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err(format!("it has printable ASCII characters without spaces, at most {MAX_TAG}"))
    }
}

fn reason(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.len() > MAX_REASON || text.chars().any(char::is_control) {
        return Err(format!("it has at most {MAX_REASON} characters on one line"));
    }
    Ok(text.to_owned())
}

fn target(text: &str) -> Result<String, String> {
    let (name, member) = text.split_once(':').map_or((text, None), |(name, member)| (name, Some(member)));
    let named = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let whole = member.is_none_or(|m| !m.is_empty() && !m.chars().any(char::is_control));
    if text.len() > MAX_TARGET || !named || !whole {
        return Err(format!(
            "it is `VARIABLE` or `VARIABLE:NAME`, such as `ARGS:q`, at most {MAX_TARGET} characters"
        ));
    }
    Ok(text.to_owned())
}
