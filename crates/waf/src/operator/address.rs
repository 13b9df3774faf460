//! `@ipMatch`: addresses and networks.

use std::net::IpAddr;

use super::OperatorError;

/// Ranges of addresses in order, none of which touches the next; IPv4 and IPv6 apart.
#[derive(Debug, Clone, Default)]
pub(super) struct Networks {
    v4: Vec<(u128, u128)>,
    v6: Vec<(u128, u128)>,
}

impl Networks {
    /// Addresses with or without a prefix length, between commas or white space.
    pub(super) fn parse(text: &[u8]) -> Result<Self, OperatorError> {
        const ERROR: OperatorError = OperatorError::Argument {
            name: "ipMatch",
            what: "addresses and networks between commas, such as `192.0.2.1,2001:db8::/32`",
        };
        let text = std::str::from_utf8(text).map_err(|_| ERROR)?;
        let mut networks = Self::default();
        for part in text.split([',', ' ', '\t', '\r', '\n']).filter(|part| !part.is_empty()) {
            let (address, prefix) = match part.split_once('/') {
                Some((address, prefix)) => (address, Some(prefix.parse::<u32>().map_err(|_| ERROR)?)),
                None => (part, None),
            };
            let (list, number, bits) = match address.parse::<IpAddr>().map_err(|_| ERROR)? {
                IpAddr::V4(address) => (&mut networks.v4, u128::from(address.to_bits()), 32),
                IpAddr::V6(address) => (&mut networks.v6, address.to_bits(), 128),
            };
            let prefix = prefix.unwrap_or(bits);
            if prefix > bits {
                return Err(ERROR);
            }
            let hosts = match bits - prefix {
                128 => u128::MAX,
                free => (1 << free) - 1,
            };
            list.push((number & !hosts, number | hosts));
        }
        networks.v4 = merged(networks.v4);
        networks.v6 = merged(networks.v6);
        Ok(networks)
    }

    /// A file's lines, of which `#` begins a comment.
    pub(super) fn parse_file(text: &[u8]) -> Result<Self, OperatorError> {
        let mut kept = Vec::with_capacity(text.len());
        for line in text.split(|byte| *byte == b'\n') {
            kept.extend_from_slice(line.split(|byte| *byte == b'#').next().unwrap_or_default());
            kept.push(b'\n');
        }
        Self::parse(&kept)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    pub(super) fn contain(&self, value: &[u8]) -> bool {
        let address = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse::<IpAddr>().ok());
        let (list, number) = match address {
            Some(IpAddr::V4(address)) => (&self.v4, u128::from(address.to_bits())),
            Some(IpAddr::V6(address)) => (&self.v6, address.to_bits()),
            None => return false,
        };
        let after = list.partition_point(|(from, _)| *from <= number);
        after.checked_sub(1).is_some_and(|at| number <= list[at].1)
    }
}

fn merged(mut ranges: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (from, to) in ranges {
        match merged.last_mut() {
            Some((_, end)) if from <= *end => *end = to.max(*end),
            _ => merged.push((from, to)),
        }
    }
    merged
}
