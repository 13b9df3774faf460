//! Why the two say different things of a request, and who is right. A difference of no class fails the run.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::super::crs::ftw::base64;

/// Matches that stand for a verdict: the score is reached, the body cannot be read.
pub(super) const SCORE: u64 = 4_600_020;
pub(super) const UNREADABLE: u64 = 4_600_021;

/// A reason why the two differ.
pub(super) struct Class {
    pub(super) name: &'static str,
    right: &'static str,
    why: &'static str,
    holds: fn(&Difference<'_>) -> bool,
}

/// In their order: the first that holds counts.
const CLASSES: &[Class] = &[
    Class {
        name: "body that neither reads",
        right: "both",
        why: "both refuse it; how far the rules still look differs",
        holds: |d| d.ours.contains(&UNREADABLE) && d.theirs.contains(&UNREADABLE),
    },
    Class {
        name: "empty XML",
        right: "ours",
        why: "no body is no malformed document",
        holds: |d| d.theirs.contains(&UNREADABLE) && d.body.is_empty(),
    },
    Class {
        name: "boundary among headers",
        right: "ours",
        why: "a part that ends within its headers is an error here, and only a flag there",
        holds: |d| d.ours.contains(&UNREADABLE) && d.is("multipart/form-data"),
    },
    Class {
        name: "text after JSON",
        right: "ours",
        why: "libmodsecurity takes a document for whole when what follows it is an unfinished string",
        holds: |d| d.ours.contains(&UNREADABLE) && d.is("application/json"),
    },
    Class {
        name: "JSON by its suffix",
        right: "ours",
        why: "a type that ends in +json is JSON whatever stands before it; the rule for libmodsecurity knows clean ones only",
        holds: |d| {
            d.content_type().is_some_and(|value| value.to_ascii_lowercase().contains("+json"))
                && d.only_ours(|id| id == UNREADABLE)
        },
    },
    Class {
        name: "names of headers of parts",
        right: "both",
        why: "bytes that such a name may not have are an error there, and MULTIPART_INVALID_PART here",
        holds: |d| d.theirs.contains(&UNREADABLE) && d.is("multipart/form-data"),
    },
    Class {
        name: "line breaks of fields",
        right: "ours",
        why: "libmodsecurity drops the line breaks of multi-line fields of multipart bodies, no back end does",
        holds: |d| d.is("multipart/form-data") && d.has_lines(),
    },
    Class {
        name: "first link of a chain",
        right: "ours",
        why: "libmodsecurity tells the first link of a chain that did not match",
        holds: |d| d.only_theirs(|id| d.rules.chains.contains(&id)) && !d.differ_in_verdict(),
    },
    Class {
        name: "raw body",
        right: "ours",
        why: "libmodsecurity sets REQUEST_BODY for every body; the tests of the rule set want it for forms",
        holds: |d| {
            !d.is("application/x-www-form-urlencoded") && d.only_theirs(|id| d.rules.raw_body.contains(&id))
        },
    },
    Class {
        name: "Base64",
        right: "ours",
        why: "text that is not Base64 to its end: the tests of the rule set (934131) want what could be decoded",
        holds: |d| d.all(|id| d.rules.base64.contains(&id)),
    },
    Class {
        name: "wide characters",
        right: "ours",
        why: "libmodsecurity has no mapping to ASCII unless SecUnicodeMapFile names one",
        holds: |d| {
            let holds = |id| d.rules.unicode.contains(&id);
            d.only_ours(holds) || (d.has_wide() && d.all(holds))
        },
    },
    Class {
        name: "phrases",
        right: "ours",
        why: "libmodsecurity's search for phrases misses one that begins within another",
        holds: |d| d.only_ours(|id| d.rules.phrases.contains(&id)),
    },
];

#[derive(Debug, Deserialize)]
pub(super) struct Request {
    pub(super) kind: String,
    pub(super) method: String,
    pub(super) uri: String,
    headers: Vec<(String, String)>,
    body: String,
}

/// What is known of rules from their text.
#[derive(Default)]
pub(super) struct RuleKinds {
    chains: BTreeSet<u64>,
    raw_body: BTreeSet<u64>,
    base64: BTreeSet<u64>,
    unicode: BTreeSet<u64>,
    phrases: BTreeSet<u64>,
}

/// A request of which the two say different things.
pub(super) struct Difference<'a> {
    rules: &'a RuleKinds,
    request: &'a Request,
    body: Vec<u8>,
    pub(super) ours: &'a BTreeSet<u64>,
    pub(super) theirs: &'a BTreeSet<u64>,
}

impl<'a> Difference<'a> {
    pub(super) fn new(
        rules: &'a RuleKinds,
        request: &'a Request,
        ours: &'a BTreeSet<u64>,
        theirs: &'a BTreeSet<u64>,
    ) -> Self {
        let body = base64(&request.body).unwrap_or_default();
        Self { rules, request, body, ours, theirs }
    }

    /// The first class that it is of.
    pub(super) fn class(&self) -> Option<&'static Class> {
        CLASSES.iter().find(|class| (class.holds)(self))
    }

    fn content_type(&self) -> Option<&str> {
        let mut fields = self.request.headers.iter();
        fields.find(|(name, _)| name.eq_ignore_ascii_case("content-type")).map(|(_, value)| value.as_str())
    }

    fn is(&self, content_type: &str) -> bool {
        self.content_type().is_some_and(|value| value.to_ascii_lowercase().starts_with(content_type))
    }

    /// Whether a part has more lines than its headers, an empty one and one of content, or the boundary is not found.
    fn has_lines(&self) -> bool {
        let text = String::from_utf8_lossy(&self.body);
        let boundary =
            self.content_type().and_then(|value| value.split_once("boundary=")).map(|(_, name)| {
                name.split([';', ',']).next().unwrap_or_default().trim_matches([' ', '\t', '"'])
            });
        let Some(boundary) = boundary.filter(|name| !name.is_empty()) else { return true };
        let mark = format!("--{boundary}");
        let mut parts = text.split(&mark).skip(1).peekable();
        parts.peek().is_none()
            || parts.any(|part| {
                let content = part.split_once("\r\n\r\n").map_or(part, |(_, content)| content);
                content.strip_suffix("\r\n").unwrap_or(content).contains('\n')
            })
    }

    /// Whether it has characters beyond ASCII that are read as some of it.
    fn has_wide(&self) -> bool {
        let mut fields = self.request.headers.iter().map(|(_, value)| value.as_bytes());
        let body = self.body.as_slice();
        fields.by_ref().chain([self.request.uri.as_bytes(), body]).any(|text| {
            let text = String::from_utf8_lossy(text).to_ascii_lowercase();
            !text.is_ascii() || ["%e2", "%ef%bc", "%u"].iter().any(|mark| text.contains(mark))
        })
    }

    fn only_theirs(&self, kind: impl Fn(u64) -> bool) -> bool {
        self.ours.difference(self.theirs).next().is_none() && self.all(kind)
    }

    fn only_ours(&self, kind: impl Fn(u64) -> bool) -> bool {
        self.theirs.difference(self.ours).next().is_none() && self.all(kind)
    }

    /// Whether all that one of them has alone, but for the score that follows, is of a kind.
    fn all(&self, kind: impl Fn(u64) -> bool) -> bool {
        self.ours.symmetric_difference(self.theirs).all(|id| *id == SCORE || kind(*id))
    }

    pub(super) fn differ_in_verdict(&self) -> bool {
        refuses(self.ours) != refuses(self.theirs)
    }
}

/// Who is right in a class, and why they differ.
pub(super) fn said_of(name: &str) -> (&'static str, &'static str) {
    CLASSES.iter().find(|class| class.name == name).map_or(("", ""), |class| (class.right, class.why))
}

pub(super) fn refuses(ids: &BTreeSet<u64>) -> bool {
    ids.contains(&SCORE) || ids.contains(&UNREADABLE)
}

/// Sorts rules by what their text says.
pub(super) fn kinds(folder: &Path) -> Result<RuleKinds, String> {
    let mut kinds = RuleKinds::default();
    for entry in fs::read_dir(folder).map_err(|e| e.to_string())?.flatten() {
        if entry.path().extension().is_none_or(|extension| extension != "conf") {
            continue;
        }
        let text = fs::read_to_string(entry.path()).map_err(|e| e.to_string())?;
        let mut id = None;
        for rule in text.split("\nSecRule ").flat_map(|part| part.split("\n    SecRule ")).skip(1) {
            let rule: String =
                rule.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
            let own = rule
                .split("id:")
                .nth(1)
                .map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
            // A link of a chain has the number of its first.
            id = own.and_then(|digits| digits.parse().ok()).or(id);
            let Some(id) = id else { continue };
            let targets = rule.split('"').next().unwrap_or_default();
            let mut put = |set: fn(&mut RuleKinds) -> &mut BTreeSet<u64>, holds: bool| {
                if holds {
                    set(&mut kinds).insert(id);
                }
            };
            put(|k| &mut k.chains, rule.contains("chain\""));
            put(|k| &mut k.raw_body, targets.contains("REQUEST_BODY"));
            put(|k| &mut k.base64, rule.contains("t:base64Decode"));
            put(|k| &mut k.unicode, rule.contains("t:utf8toUnicode") || rule.contains("t:urlDecodeUni"));
            put(|k| &mut k.phrases, rule.contains("@pmFromFile"));
        }
    }
    Ok(kinds)
}
