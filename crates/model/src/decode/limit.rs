//! `limit`, `priority` and `cost`: how much may come in, and what gives way.

use std::time::Duration;

use super::access::MAX_WORD;
use super::{Decoder, Fields, spec};
use crate::fence::{Amount, By, Guards, LimitRule, Mode, Priority, Protocol, WhenFull};
use crate::scalar::{digits, duration};
use crate::suggest::quote;
use crate::yaml::{Entry, Mark, Node, Value};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
/// Most per second, and longest window.
const MOST_PER_SECOND: u128 = 10_000_000;
const LONGEST: Duration = Duration::from_secs(366 * 86_400);
/// Largest quota: what a quarter of a thousand million tells apart needs no more bits.
const LARGEST_QUOTA: u64 = (1 << 28) - 1;
/// Most that a request may cost.
const MAX_COST: u64 = 1_000_000;

const BY: [(&str, By); 6] = [
    ("address", By::Address),
    ("user", By::User),
    ("client", By::Client),
    ("api_key", By::ApiKey),
    ("caller", By::Caller),
    ("route", By::Route),
];

impl Decoder<'_> {
    /// The `limit` of a gateway, service, route or call.
    pub(super) fn limit(&mut self, fields: Fields<'_>, protocol: Protocol) -> Vec<LimitRule> {
        let Some(entry) = fields.entry("limit") else { return Vec::new() };
        if protocol == Protocol::Tcp {
            self.no_requests(entry.mark, "limit");
        }
        let items = self.list(&entry.value, "limits", "[{ by: user, rate: 100/1m }]");
        if let Some(item) = items.get(LimitRule::MOST) {
            let message = format!("one place has at most {} limits", LimitRule::MOST);
            self.error("too-many", item.mark, message, None);
        }
        items.iter().take(LimitRule::MOST).filter_map(|item| self.limit_rule(item)).collect()
    }

    fn no_requests(&mut self, mark: Mark, key: &str) {
        let message = "tcp has no requests that could be counted";
        self.error("conflict", mark, message, Some(format!("leave `{key}` out")));
    }

    fn limit_rule(&mut self, item: &Node) -> Option<LimitRule> {
        let fields = self.fields(item, &spec::LIMIT)?;
        let by = match fields.get("by") {
            Some(node) => self.by(node),
            None => {
                let help = "add of what each is counted: `by: user`";
                self.missing(item.mark, "by", "this limit", help);
                None
            }
        };
        let rate = fields.get("rate").and_then(|n| self.rate(n));
        let quota = fields.get("quota").and_then(|n| self.quota(n));
        let concurrent = fields.get("concurrent").and_then(|n| self.number(n, 1, 1_000_000));
        let burst = fields.get("burst").and_then(|n| self.number(n, 1, 1_000_000_000));
        if let (Some(entry), None) = (fields.entry("burst"), fields.get("rate")) {
            let help = Some("add the rate that it is a burst of: `rate: 100/1m`".to_owned());
            self.error("missing-key", entry.mark, "`burst` says how many of a rate may come at once", help);
        }
        if ["rate", "quota", "concurrent"].iter().all(|key| fields.get(key).is_none()) {
            let help = Some("add `rate: 100/1m`, `quota: 100000/1d`, `concurrent: 10` or several".to_owned());
            self.error("empty", item.mark, "this limit limits nothing", help);
        }
        let cost = fields.get("cost").and_then(|n| self.cost(n)).unwrap_or(1);
        let mode = fields.get("mode").and_then(|n| self.mode(n)).unwrap_or(Mode::Enforce);
        let full = [("deny", WhenFull::Deny), ("allow", WhenFull::Allow)];
        let full = fields.get("full").and_then(|n| self.choice(n, &full)).unwrap_or_default();
        let concurrent = concurrent.and_then(|n| u32::try_from(n).ok());
        let rule = LimitRule {
            by: by?,
            rate,
            burst,
            quota,
            concurrent,
            cost,
            mode,
            full,
            position: self.at(item.mark),
        };
        if let Some(capacity) = rule
            .rate
            .zip(rule.at_once())
            .map(|(rate, burst)| rate.window.as_nanos() / u128::from(rate.units) * u128::from(burst))
            && capacity > LONGEST.as_nanos()
        {
            let message = "a burst that takes more than a year to come back";
            self.error("out-of-range", item.mark, message, Some("lower `burst`".to_owned()));
            return None;
        }
        Some(rule)
    }

    fn by(&mut self, node: &Node) -> Option<By> {
        if let Value::Map(_) = node.value {
            let fields = self.fields(node, &spec::LIMIT_CLAIM)?;
            let Some(claim) = fields.get("claim") else {
                self.missing(node.mark, "claim", "this `by`", "name the claim: `by: { claim: tenant }`");
                return None;
            };
            return self.word(claim).map(By::Claim);
        }
        let words: Vec<(&'static str, usize)> =
            BY.iter().enumerate().map(|(at, (word, _))| (*word, at)).collect();
        self.choice(node, &words).map(|at| BY[at].1.clone())
    }

    fn rate(&mut self, node: &Node) -> Option<Amount> {
        let amount = self.parsed(node, "a rate", |text| amount(text, "100/1m"))?;
        let too_fast = u128::from(amount.units) * 1000 > MOST_PER_SECOND * amount.window.as_millis();
        if too_fast || amount.window > 31 * DAY {
            let message = "a rate has at most 10000000 per second, in a window of at most 31 days";
            self.error("out-of-range", node.mark, message, None);
            return None;
        }
        Some(amount)
    }

    fn quota(&mut self, node: &Node) -> Option<Amount> {
        let amount = self.parsed(node, "a quota", |text| amount(text, "100000/1d"))?;
        if amount.units > LARGEST_QUOTA || amount.window < 60 * SECOND || amount.window > LONGEST {
            let message =
                format!("a quota has at most {LARGEST_QUOTA}, in a window of one minute to 366 days");
            self.error("out-of-range", node.mark, message, None);
            return None;
        }
        Some(amount)
    }

    /// What a request along a route counts.
    pub(super) fn cost(&mut self, node: &Node) -> Option<u32> {
        self.number(node, 1, MAX_COST).and_then(|cost| u32::try_from(cost).ok())
    }

    /// What gives way.
    pub(super) fn priority(&mut self, entry: &Entry, protocol: Protocol) -> Option<Priority> {
        if protocol == Protocol::Tcp {
            self.no_requests(entry.mark, "priority");
        }
        let words = [Priority::Critical, Priority::Normal, Priority::Sheddable].map(|p| (p.as_str(), p));
        self.choice(&entry.value, &words)
    }

    /// `sign_in` and `failures` of the gateway.
    pub(super) fn guards(&mut self, fields: Fields<'_>) -> Guards {
        let mut guards = Guards::default();
        if let Some(node) = fields.get("sign_in") {
            if is_off(node) {
                (guards.sign_in, guards.sign_in_all) = (None, None);
            } else if let Some(fields) = self.fields(node, &spec::SIGN_IN) {
                guards.sign_in = self.guard(fields, "address", guards.sign_in);
                guards.sign_in_all = self.guard(fields, "all", guards.sign_in_all);
            }
        }
        guards.failures = self.guard(fields, "failures", guards.failures);
        guards
    }

    fn guard(&mut self, fields: Fields<'_>, key: &'static str, without: Option<Amount>) -> Option<Amount> {
        match fields.get(key) {
            None => without,
            Some(node) if is_off(node) => None,
            Some(node) => self.rate(node),
        }
    }
}

fn is_off(node: &Node) -> bool {
    node.text() == Some("off")
}

/// `UNITS/DURATION`.
fn amount(text: &str, example: &str) -> Result<Amount, String> {
    let shape = || format!("it is a number, `/` and a time, such as `{example}`");
    let (units, window) = text.split_once('/').ok_or_else(shape)?;
    let units = digits(units).filter(|units| (1..=1_000_000_000_000).contains(units)).ok_or_else(shape)?;
    if window.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err(format!("{}: write one minute as `1m`, {} stands alone", shape(), quote(window)));
    }
    let window = duration(window)?;
    if window.is_zero() { Err(shape()) } else { Ok(Amount { units, window }) }
}

/// The name of a claim that is kept is no longer than other words.
const _: () = assert!(MAX_WORD <= 256);
