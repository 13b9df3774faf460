//! Files that a fence names for enforcement points, such as rules: judged before the fence is taken, so that what no node could use is
//! never signed.

use ringfence_model::{Excluded, Fence, Waf};
use ringfence_snapshot::{Content, ContentError, ContentPart, Held};

use crate::inspect::{is_used, judge};
use crate::nodes::Parcel;

/// The files of the fence in force, and those that came for the next.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    held: Held,
    in_force: Good,
    /// Why the last part was not taken.
    trouble: Option<ContentError>,
    /// What was found good last: megabytes of rules are not judged again because a fence got another line.
    judged: Option<(Wanted, Option<String>)>,
}

/// Files that were judged and may be put in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Good {
    /// By name, as snapshots carry them.
    files: Vec<Content>,
    /// Which rules requests are inspected by, for people.
    rules: Option<String>,
}

/// All that the judgement of files rests on.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    files: Vec<Content>,
    described: Vec<String>,
    rules: Option<WantedRules>,
}

#[derive(Debug, PartialEq, Eq)]
struct WantedRules {
    crs: Option<String>,
    paranoia: u8,
    /// Both scores, and bytes of a body.
    numbers: [u64; 3],
    excluded: Vec<(Excluded, Option<String>)>,
    /// Whether any route is inspected by them.
    used: bool,
}

impl Wanted {
    fn of(fence: &Fence, files: &[Content]) -> Self {
        let described = fence.services.iter().filter_map(|service| service.openapi.as_ref());
        let rules = |waf: &Waf| WantedRules {
            crs: waf.crs.clone(),
            paranoia: waf.paranoia,
            numbers: [waf.inbound.into(), waf.outbound.into(), waf.inspect],
            excluded: waf.exclude.iter().map(|e| (e.of.clone(), e.target.clone())).collect(),
            used: is_used(fence, waf),
        };
        Self {
            files: files.to_vec(),
            described: described.map(|openapi| openapi.file.clone()).collect(),
            rules: fence.waf.as_ref().map(rules),
        }
    }
}

impl Contents {
    /// A part of a file that a fence to come names.
    pub(crate) fn take(&mut self, part: ContentPart) {
        self.trouble = self.held.take(part).err().or(self.trouble);
    }

    /// The files of a fence, if they are there as it says and can be used.
    ///
    /// # Errors
    /// Everything that is wrong with them, by line and column.
    pub(crate) fn judged(
        &mut self,
        fence: &Fence,
        named: Result<Vec<Content>, String>,
    ) -> Result<Good, String> {
        let (named, trouble) = (named?, self.trouble.take());
        if let Some(lost) = named.iter().find(|content| self.held.get(&content.sha256).is_none()) {
            let why = trouble.map_or_else(|| "save the fence anew".to_owned(), |e| e.to_string());
            return Err(format!("{} was not read: {why}", lost.name));
        }
        let wanted = Wanted::of(fence, &named);
        let rules = match self.judged.take().filter(|(judged, _)| *judged == wanted) {
            Some((_, rules)) => rules,
            None => {
                let bytes =
                    |content: &Content| Some((content.name.clone(), self.held.get(&content.sha256)?.clone()));
                let judged = judge(fence, &named.iter().filter_map(bytes).collect());
                judged.map_err(|problems| problems.to_string())?.rules
            }
        };
        self.judged = Some((wanted, rules.clone()));
        Ok(Good { files: named, rules })
    }

    /// Puts these in the place of those in force, and hands those back.
    pub(crate) fn put_in_force(&mut self, good: Good) -> Good {
        std::mem::replace(&mut self.in_force, good)
    }

    /// What a snapshot of the fence in force carries.
    pub(crate) fn in_force(&self) -> &[Content] {
        &self.in_force.files
    }

    /// Which rules requests are inspected by, for people; none if nobody looks.
    pub(crate) fn rules(&self) -> Option<&str> {
        self.in_force.rules.as_deref()
    }

    /// The bytes of those, for nodes that lack them.
    pub(crate) fn parcel(&self) -> Parcel {
        let bytes = |content: &Content| Some((content.sha256, self.held.get(&content.sha256)?.clone()));
        self.in_force.files.iter().filter_map(bytes).collect()
    }

    /// A fence was taken or refused: what is not in force is of no use any more.
    pub(crate) fn settle(&mut self) {
        self.held.retain(|digest| self.in_force.files.iter().any(|content| content.sha256 == *digest));
    }
}

#[cfg(test)]
mod tests {
    use ringfence_snapshot::Digest;

    use super::*;

    const RULE: &str = "SecRule ARGS \"@contains x\" \"id:1,phase:2,deny\"\n";

    fn fence(lines: &str) -> Fence {
        let text = format!("fence: t\ntrust_domain: t.example\n{lines}\nservices: {{ a: {{}} }}\n");
        Fence::parse(vec![("ringfence.yaml", text)]).unwrap()
    }

    fn offered(contents: &mut Contents, files: &[(&str, &str)]) -> Vec<Content> {
        for (_, text) in files {
            ContentPart::all(Digest::of(text.as_bytes()), text.as_bytes())
                .for_each(|part| contents.take(part));
        }
        files.iter().map(|(name, text)| Content::of(*name, text.as_bytes())).collect()
    }

    #[test]
    fn rules_that_cannot_be_read_are_refused_with_their_place_and_those_in_force_stay() {
        let mut contents = Contents::default();
        let with_rules = fence("waf: { crs: crs }");
        let good = offered(&mut contents, &[("crs/rules/a.conf", RULE)]);
        let good = contents.judged(&with_rules, Ok(good)).unwrap();
        contents.put_in_force(good.clone());
        contents.settle();
        let bad =
            offered(&mut contents, &[("crs/rules/a.conf", "\nSecRule ARGS \"@nonsense x\" \"id:1\"\n")]);
        let refused = contents.judged(&with_rules, Ok(bad)).unwrap_err();
        assert!(refused.contains("crs/rules/a.conf:2:"), "{refused}");
        contents.settle();
        assert_eq!((contents.in_force(), contents.parcel().len()), (good.files.as_slice(), 1));
        let unread = contents.judged(&with_rules, Ok(vec![Content::of("crs/rules/a.conf", b"other")]));
        assert!(unread.unwrap_err().contains("was not read"));
        assert_eq!(contents.judged(&with_rules, Err("no".into())), Err("no".to_owned()));
        contents.put_in_force(Good::default());
        contents.settle();
        assert!(contents.parcel().is_empty() && contents.held.digests().next().is_none());
    }

    #[test]
    fn which_rules_look_is_known() {
        let told = |lines: &str| {
            let text = "fence: t\ntrust_domain: t.example\ngateway: { listen: 127.0.0.1:1 }\nservices: { a: { listen: 1, routes: [{ path: /, waf: MODE }] } }\n";
            let fence = Fence::parse(vec![("ringfence.yaml", text.replace(", waf: MODE", lines))]).unwrap();
            let mut contents = Contents::default();
            let good = contents.judged(&fence, Ok(Vec::new())).unwrap();
            contents.put_in_force(good);
            contents.rules().map(str::to_owned)
        };
        let rules = told("").unwrap();
        assert!(rules.starts_with("the embedded baseline, ") && rules.ends_with(" rules"), "{rules}");
        assert_eq!(told(", waf: off"), None);
    }

    #[test]
    fn a_description_that_is_none_is_refused_with_its_place() {
        let mut contents = Contents::default();
        let text = "fence: t\ntrust_domain: t.example\nservices: { a: { openapi: a.yaml } }\n";
        let fence = Fence::parse(vec![("ringfence.yaml", text)]).unwrap();
        let bad = offered(&mut contents, &[("a.yaml", "openapi: 3.1.0\npaths: {}\npaths: {}\n")]);
        let refused = contents.judged(&fence, Ok(bad)).unwrap_err();
        assert!(refused.contains("a.yaml:3:"), "{refused}");
    }

    #[test]
    fn what_was_found_good_is_not_judged_again_until_something_in_it_changes() {
        let mut contents = Contents::default();
        let files = offered(&mut contents, &[("crs/rules/a.conf", RULE)]);
        let wanted = |lines: &str| Wanted::of(&fence(lines), &files);
        let before = wanted("waf: { crs: crs }");
        assert_eq!(before, wanted("# a comment\nwaf:\n  crs: crs\n  mode: observe"));
        for other in [
            "paranoia: 2",
            "threshold: { inbound: 9 }",
            "exclude: [{ rules: [1], reason: r, until: 9999-12-31 }]",
        ] {
            assert_ne!(before, wanted(&format!("waf: {{ crs: crs, {other} }}")), "{other}");
        }
        assert_ne!(before, Wanted::of(&fence("waf: { crs: crs }"), &[]));
    }
}
