//! The form of name constraints. webpki applies those on DNS names and addresses, and refuses a chain whose
//! constraints are of a kind that it does not know; malformed ones it may overlook.

use crate::der::{self, DerError, Reader, tag};
use crate::general_name::GeneralName;
use crate::profile::is_host_name;

/// Most subtrees that one certificate may list.
const MAX_SUBTREES: usize = 512;

/// Checks the contents of a NameConstraints sequence.
pub(crate) fn check_form(value: &[u8]) -> Result<(), DerError> {
    let mut reader = Reader::new(value);
    let permitted = reader.optional(tag::context_constructed(0))?;
    let excluded = reader.optional(tag::context_constructed(1))?;
    reader.end()?;
    if permitted.is_none() && excluded.is_none() {
        return Err(DerError::Value("no name constraint"));
    }
    let mut count = 0;
    for subtrees in [permitted, excluded].into_iter().flatten() {
        let mut reader = Reader::new(subtrees);
        if reader.is_empty() {
            return Err(DerError::Value("no name constraint"));
        }
        while !reader.is_empty() {
            count += 1;
            if count > MAX_SUBTREES {
                return Err(DerError::TooMany("name constraints"));
            }
            // minimum is 0 and so left out, maximum is not used: one element only.
            let mut subtree = Reader::new(reader.expect(tag::SEQUENCE)?);
            check_base(GeneralName::try_from(subtree.any()?)?)?;
            subtree.end()?;
        }
    }
    Ok(())
}

fn check_base(base: GeneralName<'_>) -> Result<(), DerError> {
    let well_formed = match base {
        GeneralName::Dns(name) => name.is_empty() || is_host_name(name),
        GeneralName::Ip(octets) => is_network(octets),
        GeneralName::Email(mailbox) => match mailbox.split_once('@') {
            Some((local, host)) => !local.is_empty() && is_host_name(host),
            None => is_host_name(mailbox.strip_prefix('.').unwrap_or(mailbox)),
        },
        GeneralName::Uri(host) => is_host_name(host.strip_prefix('.').unwrap_or(host)),
        GeneralName::Directory(name) => der::single(name, tag::SEQUENCE).is_ok(),
        GeneralName::Other(_) => true,
    };
    if well_formed { Ok(()) } else { Err(DerError::Value("name constraint")) }
}

/// An address and a mask of leading ones.
fn is_network(octets: &[u8]) -> bool {
    if !matches!(octets.len(), 8 | 32) {
        return false;
    }
    let mask = &octets[octets.len() / 2..];
    let ones = mask.iter().take_while(|&&b| b == 0xff).count();
    let boundary = mask.get(ones).copied().unwrap_or(0);
    boundary.leading_ones() + boundary.trailing_zeros() == 8 && mask.iter().skip(ones + 1).all(|&b| b == 0)
}
