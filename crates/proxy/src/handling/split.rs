//! Which requests go to another service than the one that they were sent to.
//!
//! It is decided before anything is judged, and the request is then judged as one to that service: by the caller's own edge to it, or by its
//! own route. So a split leads nobody past what the other service says, and what it is refused for is told of that service.

use std::net::IpAddr;

use ringfence_keys::digest::sha256;
use ringfence_model::{Cohort, Split, Which};

use crate::access::cookies;
use crate::peer::Asked;
use crate::view::HeadView;

/// The service that a request goes to instead, if it does. `source` is the client's address.
pub(crate) fn choose<'a>(split: &'a Split, asked: &Asked<'_>, source: IpAddr) -> Option<&'a str> {
    // What is judged again while it runs stays where it went, as long as it might go there.
    if let Some(stay) = asked.stay {
        return split.to.iter().find(|branch| branch.service == stay).map(|branch| &*branch.service);
    }
    let named = split.to.iter().find(|branch| match &branch.which {
        Which::Field { name, value } => asked.view.field(name).is_some_and(|found| found == value.as_bytes()),
        Which::Weight(_) => false,
    });
    if let Some(branch) = named {
        return Some(&branch.service);
    }
    let mut draw = match &split.by {
        None => asked.draw,
        Some(cohort) => place(asked.view, cohort, source)?,
    };
    for branch in &split.to {
        let Which::Weight(percent) = branch.which else { continue };
        match draw.checked_sub(percent) {
            None => return Some(&branch.service),
            Some(left) => draw = left,
        }
    }
    None
}

/// The place of a cohort among a hundred: the same at each node and after each start. None for who has nothing that tells it apart.
fn place(view: HeadView<'_>, cohort: &Cohort, source: IpAddr) -> Option<u32> {
    let hash = match cohort {
        Cohort::Address => sha256(source.to_canonical().to_string().as_bytes()),
        Cohort::Header(name) => sha256(view.field(name)?),
        Cohort::Cookie(name) => sha256(cookie(view, name.as_bytes())?),
    };
    let [a, b, c, d, ..] = hash;
    Some(u32::from_le_bytes([a, b, c, d]) % 100)
}

fn cookie<'a>(view: HeadView<'a>, name: &[u8]) -> Option<&'a [u8]> {
    let pairs = cookies(view).flat_map(|field| field.split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))
}
