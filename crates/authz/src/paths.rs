//! The paths of a service that the fence names: which one a request takes, and what stands in its `{braces}`.

use smol_str::SmolStr;

/// A path as the fence writes it: `/patients/{id}/notes`, `/files/**`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) text: String,
    segments: Vec<Segment>,
}

// The order is that of specificity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal(SmolStr),
    Named(SmolStr),
    Any,
    Rest,
}

/// The templates of one service, the more specific before the less.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paths(Vec<Template>);

impl Paths {
    /// From patterns that the fence has checked.
    pub(crate) fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Self {
        let mut templates: Vec<Template> = patterns.into_iter().map(Template::new).collect();
        templates.sort_by(|a, b| a.segments.cmp(&b.segments).then_with(|| a.text.cmp(&b.text)));
        templates.dedup();
        Self(templates)
    }

    pub(crate) fn templates(&self) -> &[Template] {
        &self.0
    }

    /// The most specific template of a normalized path, and the values of all names in templates that match it.
    pub(crate) fn find<'t, 'p>(&'t self, path: &'p str) -> Option<(usize, Vec<(&'t SmolStr, &'p str)>)> {
        let mut first = None;
        let mut values = Vec::new();
        for (at, template) in self.0.iter().enumerate() {
            if template.read(path, &mut values) && first.is_none() {
                first = Some(at);
            }
        }
        Some((first?, values))
    }

    /// The templates that hold whatever this one holds: it lies in them.
    pub(crate) fn around(&self, at: usize) -> impl Iterator<Item = &Template> {
        let inner = self.0.get(at);
        self.0.iter().enumerate().filter_map(move |(other, outer)| {
            let inner = inner?;
            // Of two that hold the same, the first lies in the second.
            let around = other != at && outer.covers(inner) && (other > at || !inner.covers(outer));
            around.then_some(outer)
        })
    }
}

impl Template {
    fn new(text: &str) -> Self {
        let segments = text.trim_start_matches('/').split('/').map(|segment| match segment {
            "*" => Segment::Any,
            "**" => Segment::Rest,
            _ => match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                Some(name) => Segment::Named(name.into()),
                None => Segment::Literal(segment.into()),
            },
        });
        Self { text: text.to_owned(), segments: segments.collect() }
    }

    /// The names in braces.
    pub(crate) fn names(&self) -> impl Iterator<Item = &SmolStr> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Named(name) => Some(name),
            _ => None,
        })
    }

    /// Whether a path matches; then the values of names that have none yet are added.
    fn read<'t, 'p>(&'t self, path: &'p str, values: &mut Vec<(&'t SmolStr, &'p str)>) -> bool {
        let Some(rest) = path.strip_prefix('/') else { return false };
        let before = values.len();
        let mut found = rest.split('/');
        for segment in &self.segments {
            let holds = match (segment, found.next()) {
                (Segment::Rest, Some(_)) => return true,
                (Segment::Literal(want), Some(have)) => want == have,
                (Segment::Any, Some(have)) => !have.is_empty(),
                (Segment::Named(name), Some(have)) if !have.is_empty() => {
                    if values.iter().all(|(known, _)| *known != name) {
                        values.push((name, have));
                    }
                    true
                }
                _ => false,
            };
            if !holds {
                values.truncate(before);
                return false;
            }
        }
        let ends = found.next().is_none();
        if !ends {
            values.truncate(before);
        }
        ends
    }

    /// Whether every path that matches `inner` matches this one too.
    fn covers(&self, inner: &Self) -> bool {
        let mut theirs = inner.segments.iter();
        for segment in &self.segments {
            let holds = match (segment, theirs.next()) {
                (Segment::Rest, Some(_)) => return true,
                (_, None | Some(Segment::Rest)) => false,
                (Segment::Literal(want), Some(Segment::Literal(have))) => want == have,
                (Segment::Literal(_), Some(_)) => false,
                (Segment::Named(_) | Segment::Any, Some(Segment::Literal(have))) => !have.is_empty(),
                (Segment::Named(_) | Segment::Any, Some(_)) => true,
            };
            if !holds {
                return false;
            }
        }
        theirs.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringfence_model::PathPattern;

    use super::*;

    fn found(patterns: &[&str], path: &str) -> Option<(String, Vec<(String, String)>)> {
        let paths = Paths::new(patterns.iter().copied());
        let (at, values) = paths.find(path)?;
        let values = values.into_iter().map(|(name, value)| (name.to_string(), value.to_owned())).collect();
        Some((paths.templates()[at].text.clone(), values))
    }

    #[test]
    fn the_most_specific_template_is_taken_and_all_names_get_their_values() {
        let patterns =
            ["/**", "/patients/{id}", "/patients/me", "/patients/*", "/patients/{patient}/notes/{note}"];
        let one = |template: &str, values: &[(&str, &str)]| {
            let values = values.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            Some((template.to_owned(), values))
        };
        assert_eq!(found(&patterns, "/patients/7"), one("/patients/{id}", &[("id", "7")]));
        assert_eq!(found(&patterns, "/patients/me"), one("/patients/me", &[("id", "me")]));
        let deep = one("/patients/{patient}/notes/{note}", &[("patient", "7"), ("note", "n")]);
        assert_eq!(found(&patterns, "/patients/7/notes/n"), deep);
        assert_eq!(found(&patterns, "/elsewhere"), one("/**", &[]));
        assert_eq!(found(&patterns[1..], "/patients/"), None);
        assert_eq!(found(&["/a/{x}/b", "/a/{x}"], "/a/1/c"), None, "a failed try leaves no value");
    }

    #[test]
    fn a_template_lies_in_those_that_hold_it_and_never_in_a_circle() {
        let paths = Paths::new(["/a/{x}", "/a/*", "/a/{y}", "/**", "/a/b"]);
        let around = |text: &str| -> Vec<&str> {
            let at = paths.templates().iter().position(|t| t.text == text).unwrap();
            paths.around(at).map(|t| t.text.as_str()).collect()
        };
        assert_eq!(around("/a/b"), ["/a/{x}", "/a/{y}", "/a/*", "/**"]);
        assert_eq!(around("/a/{x}"), ["/a/{y}", "/a/*", "/**"]);
        assert_eq!(around("/a/*"), ["/**"]);
        assert_eq!(around("/**"), [""; 0]);
    }

    fn pattern() -> impl Strategy<Value = String> {
        let segment = prop_oneof![Just("a"), Just("b"), Just("*"), Just("{x}")];
        (proptest::collection::vec(segment, 1..4), any::<bool>()).prop_filter_map(
            "one name",
            |(mut s, rest)| {
                if rest {
                    s.push("**");
                }
                let text = format!("/{}", s.join("/"));
                PathPattern::parse(&text).ok().map(|_| text)
            },
        )
    }

    proptest! {
        #[test]
        fn a_template_matches_what_the_pattern_of_the_fence_matches(
            text in pattern(),
            path in "(/[ab]?){1,5}",
        ) {
            let by_fence = PathPattern::parse(&text).unwrap().matches(&path);
            prop_assert_eq!(found(&[&text], &path).is_some(), by_fence);
        }

        #[test]
        fn what_lies_in_a_template_matches_it(a in pattern(), b in pattern(), path in "(/[ab]){1,5}") {
            let (inner, outer) = (Template::new(&a), Template::new(&b));
            if outer.covers(&inner) && inner.read(&path, &mut Vec::new()) {
                prop_assert!(outer.read(&path, &mut Vec::new()));
            }
        }
    }
}
