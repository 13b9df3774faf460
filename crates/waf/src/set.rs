//! The rules that a gateway is protected by: the engine's own settings, a rule set's setup, the levels that were chosen, the rules.

use crate::rules::{Files, LoadError, Options, Rules, Source};

/// What rules are wanted, and where their files come from.
pub struct Set<'a> {
    /// What sets a rule set up, before its levels are chosen.
    pub setup: Vec<Source>,
    /// Its rules, in order; none: the embedded baseline.
    pub rules: Vec<Source>,
    /// Paranoia level.
    pub paranoia: u8,
    /// Score at which a request is an attack.
    pub inbound: u32,
    /// Score at which a response is one's result.
    pub outbound: u32,
    /// How many bytes of a body are inspected.
    pub inspect: usize,
    /// A file that a rule names, by its whole name.
    pub file: &'a dyn Fn(&str) -> Option<Vec<u8>>,
}

impl Set<'_> {
    /// Compiles it.
    ///
    /// # Errors
    /// Everything that is wrong with it, with its place.
    pub fn load(self) -> Result<Rules, Vec<LoadError>> {
        let options = Options {
            request_body_limit: self.inspect,
            response_body_limit: self.inspect,
            sniff: self.rules.is_empty(),
            ..Options::default()
        };
        let rules = if self.rules.is_empty() { vec![Source::baseline()] } else { self.rules };
        let levels = Source::levels(self.paranoia, self.inbound, self.outbound);
        let sources: Vec<Source> =
            [Source::base()].into_iter().chain(self.setup).chain([levels]).chain(rules).collect();
        Rules::load(&sources, &Beside(self.file), &options)
    }
}

/// Files lie beside the rules that name them.
struct Beside<'a>(&'a dyn Fn(&str) -> Option<Vec<u8>>);

impl Files for Beside<'_> {
    fn read(&self, from: &str, path: &str) -> Option<Vec<u8>> {
        let folder = from.rsplit_once('/').map_or("", |(folder, _)| folder);
        if folder.is_empty() { (self.0)(path) } else { (self.0)(&format!("{folder}/{path}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_chosen_after_the_setup_and_data_lies_beside_the_rules() {
        fn set(file: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<Rules, Vec<LoadError>> {
            Set {
                setup: vec![Source::new(
                    "crs/setup.conf",
                    "SecAction \"id:1,phase:1,pass,nolog,setvar:tx.blocking_paranoia_level=1\"\n",
                )],
                rules: vec![Source::new(
                    "crs/rules/a.conf",
                    "SecRule ARGS \"@pmFromFile words.data\" \"id:2,phase:2,deny\"\n",
                )],
                paranoia: 3,
                inbound: 5,
                outbound: 4,
                inspect: 1024,
                file,
            }
            .load()
        }
        let data = |name: &str| (name == "crs/rules/words.data").then(|| b"word\n".to_vec());
        let ids: Vec<u64> = set(&data).unwrap().rules().map(|rule| rule.id).collect();
        assert!(ids.ends_with(&[1, 4_600_001, 2]), "{ids:?}");
        let missing = set(&|_: &str| None).unwrap_err();
        assert!(missing[0].to_string().starts_with("crs/rules/a.conf:1:"), "{missing:?}");
    }
}
