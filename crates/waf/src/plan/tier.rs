//! What values made of certain bytes need for a rule to match: texts, and sets of bytes.

use std::collections::HashMap;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::{
    Rule, Test,
    bytes::{self, ByteSet, KEPT},
    sieve::{Bit, set},
    texts::Texts,
    within::{self, WORDS},
};
use crate::{
    engine::is_of_message,
    operator::{Prefilter, required_texts},
};

/// Texts longer than this are cut: the rest tells nothing more.
const TEXT: usize = 8;

/// Bytes of the values of each tier: a value is asked by the first one that has all of its own.
pub(super) const TIERS: [ByteSet; 2] = [WORDS, ByteSet::ALL];

/// The part of a sieve for values made of certain bytes.
#[derive(Debug)]
pub(crate) struct Tier {
    pub(crate) bytes: ByteSet,
    texts: Search,
    /// Rules that any value of the tier can match.
    pub(crate) possible: Vec<u64>,
    /// Rules that need no text, or of which nothing can be told.
    pub(crate) textless: Vec<u64>,
    pub(crate) classes: Vec<ClassTable>,
}

/// How the texts of a tier are looked for.
#[derive(Debug)]
enum Search {
    /// There are none.
    Nothing,
    Texts(Texts),
    /// There are too many for a table; each with the rules that look for it.
    Many(AhoCorasick, Vec<Vec<u64>>),
}

/// For each byte, the rules that it satisfies.
#[derive(Debug)]
pub(crate) struct ClassTable {
    pub(crate) by_byte: Vec<u64>,
    /// Rules that need no such byte.
    pub(crate) free: Vec<u64>,
    /// Bytes that satisfy any rule.
    pub(crate) any: ByteSet,
}

/// What a value must fulfil for a rule, if the rule looks at messages only.
pub(super) struct Need {
    pub(super) rule: u32,
    /// Of a value alone nothing can be told: the rule is asked, and what it says is remembered.
    pub(super) always: bool,
    pub(super) length: usize,
    /// By tier.
    within: [Within; TIERS.len()],
}

/// What a value of a tier must have.
#[derive(Default)]
struct Within {
    /// One of these, if any are told.
    texts: Option<Vec<Vec<u8>>>,
    /// A byte of each.
    classes: Vec<ByteSet>,
}

impl Within {
    fn new(texts: Option<Vec<Vec<u8>>>, mut classes: Vec<ByteSet>) -> Self {
        let mut texts = texts;
        if let Some(list) = &mut texts {
            for text in list.iter_mut() {
                text.make_ascii_lowercase();
                text.truncate(TEXT);
            }
            classes.extend(bytes::required_of_texts(list));
            // Single bytes are better asked for as a set.
            if list.iter().any(|text| text.len() < 2) {
                texts = None;
            }
        }
        classes.dedup();
        classes.truncate(KEPT);
        Self { texts, classes }
    }

    /// No value of the tier will do.
    fn impossible() -> Self {
        Self { texts: Some(Vec::new()), classes: Vec::new() }
    }

    fn of(filter: &Prefilter, tier: ByteSet) -> Self {
        let expression = filter.expression.as_deref().and_then(bytes::parse);
        if tier == ByteSet::ALL {
            let classes = expression.as_ref().map(bytes::required).unwrap_or_default();
            return Self::new(filter.literals.clone(), classes);
        }
        if let Some(expression) = expression {
            return within::within(&expression, tier).map_or_else(Self::impossible, |expression| {
                Self::new(required_texts(&expression), bytes::required(&expression))
            });
        }
        let has = |text: &Vec<u8>| ByteSet::of(text).without(tier) == ByteSet::EMPTY;
        let texts =
            filter.literals.as_ref().map(|texts| texts.iter().filter(|text| has(text)).cloned().collect());
        Self::new(texts, Vec::new())
    }
}

impl Need {
    pub(super) fn of(index: u32, rule: &Rule) -> Option<Self> {
        let Test::Operator { operator, negated, .. } = &rule.test else { return None };
        if operator.takes_macro()
            || rule.targets.is_empty()
            || rule.targets.iter().any(|target| target.count || !is_of_message(target.variable))
        {
            return None;
        }
        if *negated {
            return Some(Self { rule: index, always: true, length: 0, within: Default::default() });
        }
        let filter = operator.literals();
        let within = TIERS.map(|tier| Within::of(&filter, tier));
        let any = within.last().is_none_or(|within| within.texts.is_none() && within.classes.is_empty());
        Some(Self { rule: index, always: any && filter.min_len == 0, length: filter.min_len, within })
    }
}

impl Tier {
    /// The tier of this number.
    pub(super) fn new(number: usize, needs: &[Need], words: usize) -> Self {
        let mut tier = Self {
            bytes: TIERS[number],
            texts: Search::Nothing,
            possible: vec![0; words],
            textless: vec![0; words],
            classes: Vec::new(),
        };
        let mut texts: HashMap<&[u8], Vec<u64>> = HashMap::new();
        for (bit, need) in needs.iter().enumerate() {
            match &need.within[number].texts {
                Some(list) if !need.always => {
                    if !list.is_empty() {
                        set(&mut tier.possible, bit as Bit);
                    }
                    for text in list {
                        set(texts.entry(text).or_insert_with(|| vec![0; words]), bit as Bit);
                    }
                }
                _ => {
                    set(&mut tier.possible, bit as Bit);
                    set(&mut tier.textless, bit as Bit);
                }
            }
        }
        for rank in 0..KEPT {
            let mut table =
                ClassTable { by_byte: vec![0; 256 * words], free: vec![0; words], any: ByteSet::EMPTY };
            for (bit, need) in needs.iter().enumerate() {
                match need.within[number].classes.get(rank) {
                    Some(class) if !need.always => {
                        table.any = table.any.union(*class);
                        for byte in class.iter() {
                            let at = usize::from(byte) * words;
                            set(&mut table.by_byte[at..at + words], bit as Bit);
                        }
                    }
                    _ => set(&mut table.free, bit as Bit),
                }
            }
            if table.any != ByteSet::EMPTY {
                tier.classes.push(table);
            }
        }
        let mut texts: Vec<_> = texts.into_iter().collect();
        texts.sort_unstable();
        match Search::new(texts, words) {
            Some(search) => tier.texts = search,
            // Without the texts every rule that needs one is a maybe.
            None => tier.textless.fill(u64::MAX),
        }
        tier
    }

    /// Adds the rules that need a text which is in the value.
    pub(crate) fn find(&self, value: &[u8], rules: &mut [u64]) {
        match &self.texts {
            Search::Nothing => {}
            Search::Texts(texts) => texts.find(value, rules),
            Search::Many(texts, sets) => {
                for found in texts.find_overlapping_iter(value) {
                    for (rules, found) in rules.iter_mut().zip(&sets[found.pattern().as_usize()]) {
                        *rules |= found;
                    }
                }
            }
        }
    }
}

impl Search {
    fn new(texts: Vec<(&[u8], Vec<u64>)>, words: usize) -> Option<Self> {
        if texts.is_empty() {
            return Some(Self::Nothing);
        }
        if let Some(texts) = Texts::new(&texts, words) {
            return Some(Self::Texts(texts));
        }
        let build = |kind| {
            AhoCorasick::builder()
                .ascii_case_insensitive(true)
                .kind(Some(kind))
                .build(texts.iter().map(|(text, _)| text))
                .ok()
        };
        let search =
            build(AhoCorasickKind::ContiguousNFA).or_else(|| build(AhoCorasickKind::NoncontiguousNFA))?;
        Some(Self::Many(search, texts.into_iter().map(|(_, rules)| rules).collect()))
    }
}
