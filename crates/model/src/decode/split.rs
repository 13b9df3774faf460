//! `split` of a route or a call.

use super::{Decoder, spec};
use crate::fence::{Branch, Cohort, Split, Which};
use crate::suggest::quote;
use crate::yaml::{Node, Value};

/// Most ways that one is split into, besides itself.
const MOST: usize = 8;

impl Decoder<'_> {
    pub(super) fn split(&mut self, node: &Node) -> Option<Split> {
        let fields = self.fields(node, &spec::SPLIT)?;
        let by = fields.get("by").map(|node| self.cohort(node));
        let Some(to) = fields.get("to") else {
            self.missing(
                node.mark,
                "to",
                "this split",
                "say where to: `to: [{ service: NAME, weight: 10 }]`",
            );
            return None;
        };
        let items = self.list(to, "services", "[{ service: NAME, weight: 10 }]");
        if items.is_empty() && matches!(to.value, Value::List(_)) {
            self.error(
                "empty",
                to.mark,
                "this splits nothing",
                Some("name a service, or leave `split` out".to_owned()),
            );
        }
        if let Some(item) = items.get(MOST) {
            self.error("too-large", item.mark, format!("a way is split into {MOST} others at most"), None);
        }
        let branches: Vec<Branch> = items.iter().take(MOST).filter_map(|item| self.branch(item)).collect();
        let weight = |branch: &Branch| if let Which::Weight(percent) = branch.which { percent } else { 0 };
        let sum: u32 = branches.iter().map(weight).sum();
        if sum > 100 {
            let message = format!("the weights are {sum} of a hundred together");
            self.error(
                "out-of-range",
                to.mark,
                message,
                Some("what no weight takes stays where it is".to_owned()),
            );
        }
        if let (Some(Some(_)), 0, Some(node)) = (&by, sum, fields.get("by")) {
            let help = Some("add a `weight`, or leave `by` out".to_owned());
            self.error(
                "conflict",
                node.mark,
                "nothing is split by weight here, so this tells nobody apart",
                help,
            );
        }
        Some(Split { by: by.flatten(), to: branches, position: self.at(node.mark) })
    }

    fn cohort(&mut self, node: &Node) -> Option<Cohort> {
        if node.text() == Some("address") {
            return Some(Cohort::Address);
        }
        if matches!(node.value, Value::Scalar { .. }) {
            self.mismatch(node, "`address`, `{ header: NAME }` or `{ cookie: NAME }`");
            return None;
        }
        let fields = self.fields(node, &spec::COHORT)?;
        match (fields.get("header"), fields.get("cookie")) {
            (Some(name), None) => self.field_name(name).map(Cohort::Header),
            (None, Some(name)) => self.parsed(name, "the name of a cookie", token).map(Cohort::Cookie),
            _ => {
                self.mismatch(node, "`address`, `{ header: NAME }` or `{ cookie: NAME }`");
                None
            }
        }
    }

    fn branch(&mut self, item: &Node) -> Option<Branch> {
        let fields = self.fields(item, &spec::BRANCH)?;
        let Some(service) = fields.get("service") else {
            self.missing(item.mark, "service", "this part", "say where it goes: `service: NAME`");
            return None;
        };
        let position = self.at(service.mark);
        let service = self.text(service, "the name of a service")?.to_owned();
        let which = match (fields.get("weight"), fields.get("header"), fields.get("value")) {
            (Some(weight), None, None) => Which::Weight(u32::try_from(self.number(weight, 1, 100)?).ok()?),
            (None, Some(name), Some(value)) => {
                let name = self.field_name(name)?;
                let value = self.parsed(value, "the value of a field", field_value)?;
                Which::Field { name, value }
            }
            _ => {
                let help = Some("say `weight: 10`, or `header: NAME` and `value: TEXT`".to_owned());
                self.error("conflict", item.mark, "this says not in one way which requests it takes", help);
                return None;
            }
        };
        Some(Branch { service, which, position })
    }

    /// The name of a field that clients may send.
    fn field_name(&mut self, node: &Node) -> Option<String> {
        let name = self.parsed(node, "the name of a field", token)?.to_ascii_lowercase();
        let ours = name.starts_with("ringfence-") || name == "txn-token";
        if ours || matches!(&*name, "cookie" | "authorization" | "dpop" | "host" | "connection" | "te") {
            let help =
                Some("a cookie stands under `cookie`; of the rest name a field of your own".to_owned());
            self.error("conflict", node.mark, format!("{} tells nobody apart", quote(&name)), help);
            return None;
        }
        Some(name)
    }
}

/// RFC 9110, section 5.6.2.
fn token(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.len() <= 64 && !text.is_empty() && text.bytes().all(fits) {
        return Ok(text.to_owned());
    }
    Err("it has letters, digits and hyphens, at most 64".to_owned())
}

fn field_value(text: &str) -> Result<String, String> {
    if text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err("it has visible ASCII characters, at most 128".to_owned())
}
