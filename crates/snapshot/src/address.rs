//! Stable addresses inside the services' networks: a number once given to a name is never given to another.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ringfence_model::Fence;
use serde::{Deserialize, Serialize};

/// The name inside every service's network under which its own sidecar answers.
pub const OWN_HOST: &str = "ringfence.internal";
/// The address of that name: beyond the /30 of the wire, where a service has itself, the shim and a broadcast address.
pub const OWN_IP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 4);

/// The port at which it tells who runs where, besides 80 for everything else.
pub const REGISTRY_PORT: u16 = 8500;

/// Services live at this address plus their number.
pub const SERVICE_BASE: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 0);
/// Egress hosts live at this address plus their number.
pub const EGRESS_BASE: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 0);

/// Address of the service with this number.
pub fn service_ip(number: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(SERVICE_BASE.to_bits() + u32::from(number))
}

/// Address of the egress host with this number.
pub fn egress_ip(number: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(EGRESS_BASE.to_bits() + u32::from(number))
}

/// Without isolation there is one loopback for all: callers are told apart by the block of 127.0.0.0/8 that they dial in,
/// which is a convention and no protection. `None` for numbers beyond what fits.
pub fn loopback_service_ip(caller: u16, callee: u16) -> Option<Ipv4Addr> {
    loopback(caller, callee, 0)
}

/// The same for an egress host.
pub fn loopback_egress_ip(caller: u16, host: u16) -> Option<Ipv4Addr> {
    loopback(caller, host, 0x80)
}

/// The same for the sidecar itself.
pub fn loopback_own_ip(caller: u16) -> Option<Ipv4Addr> {
    let caller = u8::try_from(caller).ok()?.checked_add(1).filter(|c| *c > 1)?;
    Some(Ipv4Addr::new(127, caller, 0, 0))
}

fn loopback(caller: u16, number: u16, kind: u8) -> Option<Ipv4Addr> {
    let caller = u8::try_from(caller).ok()?.checked_add(1).filter(|c| *c > 1)?;
    let [high, low] = number.to_be_bytes();
    (high < 0x80 && number > 0).then(|| Ipv4Addr::new(127, caller, high | kind, low))
}

/// What an address that a service dialled stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The service with this number.
    Service(u16),
    /// The egress host with this number.
    Egress(u16),
    /// The sidecar itself.
    Own,
    /// Nothing.
    Unknown,
}

/// The inverse of all of the above.
pub fn place(address: Ipv4Addr) -> Place {
    let offset =
        |base: Ipv4Addr| address.to_bits().checked_sub(base.to_bits()).and_then(|n| u16::try_from(n).ok());
    match (address.octets(), offset(SERVICE_BASE), offset(EGRESS_BASE)) {
        _ if address == OWN_IP => Place::Own,
        ([127, 2..=255, 0, 0], ..) => Place::Own,
        ([127, 2..=255, high, low], ..) => match (high & 0x80, u16::from_be_bytes([high & 0x7f, low])) {
            (_, 0) => Place::Unknown,
            (0, n) => Place::Service(n),
            (_, n) => Place::Egress(n),
        },
        (_, _, Some(n)) if n > 0 => Place::Egress(n),
        (_, Some(n), _) if n > 0 && n <= LAST => Place::Service(n),
        _ => Place::Unknown,
    }
}

/// Service addresses end where 198.18.0.0/16 does.
const LAST: u16 = 0xfe00;

/// The numbers given out so far; kept in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    services: BTreeMap<String, u16>,
    egress: BTreeMap<String, u16>,
}

impl Addresses {
    /// Numbers everything in `fence` that has none yet. `false` if the space is used up.
    #[must_use]
    pub fn assign(&mut self, fence: &Fence) -> bool {
        fence.services.iter().all(|service| {
            Self::number(&mut self.services, &service.name)
                && service.egress.iter().all(|e| Self::number(&mut self.egress, &e.host))
        })
    }

    /// Number of a service.
    pub fn service(&self, name: &str) -> Option<u16> {
        self.services.get(name).copied()
    }

    /// Number of an egress host.
    pub fn egress(&self, host: &str) -> Option<u16> {
        self.egress.get(host).copied()
    }

    fn number(map: &mut BTreeMap<String, u16>, name: &str) -> bool {
        if map.contains_key(name) {
            return true;
        }
        let next = map.values().max().copied().unwrap_or(0) + 1;
        if next > LAST {
            return false;
        }
        map.insert(name.to_owned(), next);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_address_stands_for_what_it_was_given_to(caller in 1..=200_u16, number in 1..0x8000_u16) {
            prop_assert_eq!(place(service_ip(number)), Place::Service(number));
            prop_assert_eq!(place(egress_ip(number)), Place::Egress(number));
            prop_assert_eq!(place(loopback_service_ip(caller, number).unwrap()), Place::Service(number));
            prop_assert_eq!(place(loopback_egress_ip(caller, number).unwrap()), Place::Egress(number));
        }
    }

    #[test]
    fn what_was_given_to_nobody_stands_for_nothing() {
        for address in
            ["127.0.0.1", "127.1.0.1", "198.18.0.1", "198.18.1.0", "198.19.0.0", "10.0.0.1", "127.1.0.0"]
        {
            assert_eq!(place(address.parse().unwrap()), Place::Unknown, "{address}");
        }
        assert_eq!(loopback_service_ip(300, 1), None);
        assert_eq!(loopback_own_ip(300), None);
        for own in [OWN_IP, loopback_own_ip(1).unwrap(), loopback_own_ip(200).unwrap()] {
            assert_eq!(place(own), Place::Own, "{own}");
        }
    }
}
