//! Which records a name has, in one view.

use std::net::Ipv4Addr;

use ringfence_snapshot::{OWN_HOST, OWN_IP};

use super::message::{
    A, ANY, FORMAT_ERROR, INTERNET, NO_ERROR, NO_NAME, REFUSED, Read, SERVER_FAILURE, SRV, Transport, Writer,
    read,
};
use crate::DATACENTER;
use crate::check::Status;
use crate::view::{Entry, Instance, View};

/// Answers are good for now: a change of the fence or of a service's health is seen by the next question.
const TTL: u32 = 0;

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The name is in the view.
    Known,
    /// It is not.
    Unknown,
    /// The message was no question that is answered here.
    Refused,
}

/// What was answered to whom.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// How it went.
    pub outcome: Outcome,
    /// The name asked for, fit to be printed.
    pub name: Option<String>,
}

/// Answers `message` into `out`. None if nothing may be sent back: it is no question, or too short for one.
///
/// Without a view, because the node has nothing in force, the answer is that it failed.
pub fn answer(
    view: Option<&View>,
    message: &[u8],
    transport: Transport,
    out: &mut Vec<u8>,
) -> Option<Answer> {
    let mut read = read(message, transport)?;
    if read.wrong.is_none()
        && let Some(question) = &read.question
        && question.class != INTERNET
        && question.class != ANY
    {
        read.wrong = Some(REFUSED);
    }
    if view.is_none() && read.wrong.is_none() {
        read.wrong = Some(SERVER_FAILURE);
    }
    let outcome = match (&read.question, view, read.wrong) {
        (Some(question), Some(view), None) => {
            let found = find(view, &question.name);
            let outcome = if found.is_some() { Outcome::Known } else { Outcome::Unknown };
            write(view, &read, question.kind, found, out);
            outcome
        }
        (_, _, wrong) => {
            let code = wrong.unwrap_or(FORMAT_ERROR);
            Writer::new(out, &read, code).end(code);
            Outcome::Refused
        }
    };
    Some(Answer { outcome, name: read.question.map(|question| question.name) })
}

/// What a name stands for.
enum Found<'a> {
    Address(Ipv4Addr),
    /// A service by its address, or by its records of type SRV; `healthy` leaves out what is not to be called.
    Service {
        name: &'a str,
        entry: &'a Entry,
        healthy: bool,
        srv: bool,
    },
}

fn write(view: &View, read: &Read<'_>, kind: u16, found: Option<Found<'_>>, out: &mut Vec<u8>) {
    let code = if found.is_some() { NO_ERROR } else { NO_NAME };
    let mut writer = Writer::new(out, read, code);
    match found {
        Some(Found::Address(address)) if matches!(kind, A | ANY) => writer.address(TTL, address),
        Some(Found::Service { name, entry, healthy, srv }) => {
            let callable =
                || entry.instances.iter().filter(move |i| !healthy || i.status() != Status::Critical);
            if matches!(kind, A | ANY) && !srv {
                callable().for_each(|instance| writer.address(TTL, instance.address));
            }
            if matches!(kind, SRV | ANY) {
                let target = wire_name(&format!("{name}.{}", view.trust_domain));
                callable().for_each(|instance: &Instance| writer.service(TTL, instance.port, &target));
                callable().for_each(|instance| writer.additional(&target, TTL, instance.address));
            }
        }
        // No service is reached by IPv6 (AAAA), and other types have no records: the name exists, and that is all.
        Some(Found::Address(_)) | None => {}
    }
    writer.end(code);
}

/// A name in text as it goes over the wire; what is written here is short, so it fits.
fn wire_name(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty() && label.len() < 64);
    let mut wire: Vec<u8> =
        labels.flat_map(|label| std::iter::once(label.len() as u8).chain(label.bytes())).collect();
    wire.push(0);
    wire
}

/// The forms of a name: `NAME`, `NAME.TRUST_DOMAIN`, `[TAG.]NAME.service[.dc1].consul`, `_SERVICE._tcp.` before the first two,
/// `_NAME._tcp[.service][.dc1].consul`, and hosts outside that the caller declares.
fn find<'a>(view: &'a View, name: &str) -> Option<Found<'a>> {
    if name == OWN_HOST {
        return Some(Found::Address(OWN_IP));
    }
    if let Some(address) = view.egress.get(name) {
        return Some(Found::Address(*address));
    }
    if let Some(rest) = name.strip_suffix(".consul") {
        return consul(view, rest);
    }
    let domain = name.strip_suffix(&*view.trust_domain).and_then(|rest| rest.strip_suffix('.'));
    let (rest, srv) = strip_srv(domain.unwrap_or(name));
    let (name, entry) = entry(view, rest)?;
    match srv {
        None => Some(Found::Service { name, entry, healthy: false, srv: false }),
        Some(service) => {
            let port = service.parse::<u16>().ok();
            let named = service == entry.protocol || entry.instances.iter().any(|i| Some(i.port) == port);
            named.then_some(Found::Service { name, entry, healthy: true, srv: true })
        }
    }
}

fn consul<'a>(view: &'a View, name: &str) -> Option<Found<'a>> {
    let name = name.strip_suffix(DATACENTER).and_then(|rest| rest.strip_suffix('.')).unwrap_or(name);
    let (found, srv) = match name.strip_suffix(".service") {
        Some(rest) => (rest, false),
        None => (name, true),
    };
    let (service, tag) = match found.rsplit_once('.') {
        // RFC 2782: `_NAME._TAG`, where the tag `tcp` is all of them.
        Some((service, tag)) if service.starts_with('_') && tag.starts_with('_') => {
            (&service[1..], Some(&tag[1..]).filter(|tag| *tag != "tcp"))
        }
        Some((tag, service)) if !srv => (service, Some(tag)),
        None if !srv => (found, None),
        _ => return None,
    };
    let (name, entry) = entry(view, service)?;
    let tagged =
        |tag: &str| entry.instances.iter().any(|i| i.tags.iter().any(|t| t.eq_ignore_ascii_case(tag)));
    let rfc2782 = found.starts_with('_');
    tag.is_none_or(tagged).then_some(Found::Service { name, entry, healthy: true, srv: rfc2782 })
}

/// `_SERVICE._tcp.REST`.
fn strip_srv(name: &str) -> (&str, Option<&str>) {
    let parts = name.strip_prefix('_').and_then(|rest| rest.split_once('.'));
    match parts.and_then(|(service, rest)| Some((service, rest.strip_prefix("_tcp.")?))) {
        Some((service, rest)) => (rest, Some(service)),
        None => (name, None),
    }
}

fn entry<'a>(view: &'a View, name: &str) -> Option<(&'a str, &'a Entry)> {
    view.entries.get_key_value(name).map(|(name, entry)| (&**name, entry))
}
