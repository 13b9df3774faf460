//! From method and path to an operation: concrete segments before templated ones, and of these the one with more text in it.

use std::collections::HashMap;

use crate::text::decode_text;

/// Steps of one search; a path is short, and few segments are ambiguous.
const MAX_STEPS: usize = 2_000;

/// All paths of a description.
#[derive(Debug)]
pub(crate) struct Router {
    nodes: Vec<Node>,
    templates: Vec<Template>,
}

#[derive(Debug, Default)]
struct Node {
    fixed: HashMap<Box<str>, usize>,
    patterns: Vec<(Pattern, usize)>,
    template: Option<usize>,
}

/// A path with its methods.
#[derive(Debug)]
struct Template {
    /// Names of what is in braces, in order.
    names: Vec<Box<str>>,
    /// Method and number of the operation.
    operations: Vec<(Box<str>, usize)>,
}

/// A segment with something in braces: text, then for each brace what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    before: Box<str>,
    after: Vec<Box<str>>,
}

/// Where a request leads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Routed<'a> {
    /// To an operation, with what stands for the braces, still encoded.
    Operation(usize, Vec<(&'a str, &'a str)>),
    /// The path is there, for these methods.
    Methods(Vec<&'a str>),
    Nowhere,
}

/// Why a path cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its braces are broken, or two stand side by side with nothing between.
    Template,
    /// Another path is the same but for the names in braces.
    Same,
}

impl Router {
    pub(crate) fn new() -> Self {
        Self { nodes: vec![Node::default()], templates: Vec::new() }
    }

    /// Adds a path for a method.
    pub(crate) fn add(&mut self, path: &str, method: &str, operation: usize) -> Result<(), Refused> {
        let mut at = 0;
        let mut names = Vec::new();
        for segment in path.split('/').skip(1) {
            let next = self.nodes.len();
            at = match Pattern::parse(segment, &mut names)? {
                None => *self.nodes[at].fixed.entry(normal(segment).into()).or_insert(next),
                Some(pattern) => match self.nodes[at].patterns.iter().find(|(p, _)| *p == pattern) {
                    Some((_, child)) => *child,
                    None => {
                        let patterns = &mut self.nodes[at].patterns;
                        patterns.push((pattern, next));
                        patterns.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.text()));
                        next
                    }
                },
            };
            if at == next {
                self.nodes.push(Node::default());
            }
        }
        let index = *self.nodes[at].template.get_or_insert(self.templates.len());
        if index == self.templates.len() {
            self.templates.push(Template { names, operations: Vec::new() });
        } else if self.templates[index].names != names {
            return Err(Refused::Same);
        }
        let operations = &mut self.templates[index].operations;
        if operations.iter().any(|(known, _)| &**known == method) {
            return Err(Refused::Same);
        }
        operations.push((method.into(), operation));
        Ok(())
    }

    /// Finds the operation for a normalized path. HEAD is answered wherever GET is.
    pub(crate) fn find<'a>(&'a self, method: &str, path: &'a str) -> Routed<'a> {
        let Some(path) = path.strip_prefix('/') else { return Routed::Nowhere };
        let mut search =
            Search { router: self, method, captures: Vec::new(), steps: MAX_STEPS, methods: Vec::new() };
        match search.go(0, Some(path)) {
            Some((template, operation)) => {
                let names = self.templates[template].names.iter().map(|name| &**name);
                Routed::Operation(operation, names.zip(search.captures).collect())
            }
            None if search.methods.is_empty() => Routed::Nowhere,
            None => Routed::Methods(search.methods),
        }
    }
}

struct Search<'a, 'm> {
    router: &'a Router,
    method: &'m str,
    captures: Vec<&'a str>,
    steps: usize,
    methods: Vec<&'a str>,
}

impl<'a> Search<'a, '_> {
    fn go(&mut self, at: usize, rest: Option<&'a str>) -> Option<(usize, usize)> {
        self.steps = self.steps.checked_sub(1)?;
        let node = &self.router.nodes[at];
        let Some(rest) = rest else { return self.leaf(node) };
        let (segment, rest) = match rest.split_once('/') {
            Some((segment, rest)) => (segment, Some(rest)),
            None => (rest, None),
        };
        if let Some(child) = node.fixed.get(segment)
            && let Some(found) = self.go(*child, rest)
        {
            return Some(found);
        }
        for (pattern, child) in &node.patterns {
            let before = self.captures.len();
            if pattern.matches(segment, &mut self.captures)
                && let Some(found) = self.go(*child, rest)
            {
                return Some(found);
            }
            self.captures.truncate(before);
        }
        None
    }

    fn leaf(&mut self, node: &'a Node) -> Option<(usize, usize)> {
        let index = node.template?;
        let operations = &self.router.templates[index].operations;
        let by = |method: &str| operations.iter().find(|(known, _)| &**known == method);
        let found = by(self.method).or_else(|| if self.method == "HEAD" { by("GET") } else { None });
        if let Some((_, operation)) = found {
            return Some((index, *operation));
        }
        for (method, _) in operations {
            if !self.methods.contains(&&**method) {
                self.methods.push(method);
            }
        }
        None
    }
}

impl Pattern {
    /// Reads a segment; none where it has no braces.
    fn parse(segment: &str, names: &mut Vec<Box<str>>) -> Result<Option<Self>, Refused> {
        let Some((before, mut rest)) = segment.split_once('{') else {
            return if segment.contains('}') { Err(Refused::Template) } else { Ok(None) };
        };
        if before.contains('}') {
            return Err(Refused::Template);
        }
        let mut pattern = Self { before: normal(before).into(), after: Vec::new() };
        loop {
            let (name, tail) = rest.split_once('}').ok_or(Refused::Template)?;
            if name.is_empty() || name.contains('{') || names.iter().any(|n| **n == *name) {
                return Err(Refused::Template);
            }
            names.push(name.into());
            let (after, next) = match tail.split_once('{') {
                Some((after, next)) => (after, Some(next)),
                None => (tail, None),
            };
            if after.contains('}') || (after.is_empty() && next.is_some()) {
                return Err(Refused::Template);
            }
            pattern.after.push(normal(after).into());
            match next {
                Some(next) => rest = next,
                None => return Ok(Some(pattern)),
            }
        }
    }

    /// How much of it is text.
    fn text(&self) -> usize {
        self.before.len() + self.after.iter().map(|after| after.len()).sum::<usize>()
    }

    /// Whether a segment is one of these; what stands for the braces is added. Nothing stands for nothing.
    fn matches<'s>(&self, segment: &'s str, captures: &mut Vec<&'s str>) -> bool {
        let Some(mut rest) = segment.strip_prefix(&*self.before) else { return false };
        let Some((last, middle)) = self.after.split_last() else { return false };
        for after in middle {
            // At least one character, which may be a wide one.
            let Some(skip) = rest.chars().next().map(char::len_utf8) else { return false };
            let Some(at) = rest.get(skip..).and_then(|tail| tail.find(&**after)) else { return false };
            captures.push(&rest[..skip + at]);
            rest = &rest[skip + at + after.len()..];
        }
        match rest.strip_suffix(&**last) {
            Some(value) if !value.is_empty() => {
                captures.push(value);
                true
            }
            _ => false,
        }
    }
}

/// A text of a template in the form that paths of requests are normalized to.
fn normal(text: &str) -> String {
    use std::fmt::Write as _;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@;".contains(&b);
    if text.bytes().all(plain) {
        return text.to_owned();
    }
    let decoded = decode_text(text, false).unwrap_or_else(|| text.into());
    let mut out = String::with_capacity(decoded.len() + 8);
    for byte in decoded.bytes() {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(paths: &[(&str, &str)]) -> Router {
        let mut router = Router::new();
        for (i, (method, path)) in paths.iter().enumerate() {
            router.add(path, method, i).unwrap();
        }
        router
    }

    fn found(router: &Router, method: &str, path: &str) -> Option<usize> {
        if let Routed::Operation(operation, _) = router.find(method, path) { Some(operation) } else { None }
    }

    #[test]
    fn concrete_comes_before_templated_for_the_method_that_is_asked() {
        let router = router(&[
            ("GET", "/pets/{id}"),
            ("DELETE", "/pets/{id}"),
            ("GET", "/pets/mine"),
            ("GET", "/pets/{id}/{what}"),
            ("GET", "/pets/mine/toys"),
            ("GET", "/pets/{id}.json"),
            ("GET", "/"),
        ]);
        assert_eq!(found(&router, "GET", "/pets/mine"), Some(2));
        assert_eq!(found(&router, "GET", "/pets/7"), Some(0));
        assert_eq!(found(&router, "HEAD", "/pets/7"), Some(0));
        assert_eq!(found(&router, "DELETE", "/pets/mine"), Some(1));
        assert_eq!(found(&router, "GET", "/pets/7.json"), Some(5));
        assert_eq!(found(&router, "GET", "/pets/mine/food"), Some(3));
        assert_eq!(found(&router, "GET", "/pets/mine/toys"), Some(4));
        assert_eq!(found(&router, "GET", "/"), Some(6));
        assert_eq!(router.find("PUT", "/pets/mine"), Routed::Methods(vec!["GET", "DELETE"]));
        for nowhere in ["/pets", "/pets/", "/pets/7/", "/pets/7/a/b", "/Pets/7", "//", ""] {
            assert_eq!(router.find("GET", nowhere), Routed::Nowhere, "{nowhere}");
        }
    }

    #[test]
    fn braces_stand_for_parts_of_a_segment() {
        let router = router(&[("GET", "/{a}-{b}/x{c}y"), ("GET", "/käse/{d}"), ("GET", "/a b")]);
        let Routed::Operation(0, captures) = router.find("GET", "/1-2-3/xzy") else { panic!("no match") };
        assert_eq!(captures, [("a", "1"), ("b", "2-3"), ("c", "z")]);
        assert_eq!(router.find("GET", "/-2/xzy"), Routed::Nowhere);
        assert_eq!(router.find("GET", "/1-2/xy"), Routed::Nowhere);
        assert_eq!(found(&router, "GET", "/k%C3%A4se/1"), Some(1));
        assert_eq!(found(&router, "GET", "/a%20b"), Some(2));
    }

    #[test]
    fn what_is_the_same_or_broken_is_refused() {
        let mut router = router(&[("GET", "/a/{x}")]);
        assert_eq!(router.add("/a/{y}", "PUT", 1), Err(Refused::Same));
        assert_eq!(router.add("/a/{x}", "GET", 1), Err(Refused::Same));
        for broken in ["/{", "/}", "/{}", "/{a}{b}", "/{a}/{a}", "/{a{b}}", "/x}{a}"] {
            assert_eq!(router.add(broken, "GET", 1), Err(Refused::Template), "{broken}");
        }
    }

    #[test]
    fn a_search_is_bounded() {
        let mut router = Router::new();
        for i in 0..12 {
            // Many segments that all match at first, none to the end.
            let path: String = (0..12).map(|s| format!("/{{p{s}}}{}", "a".repeat(i % 3))).collect();
            let _ = router.add(&format!("{path}/end{i}"), "GET", i);
        }
        let path = "/aaaa".repeat(12) + "/none";
        assert_eq!(router.find("GET", &path), Routed::Nowhere);
    }
}
