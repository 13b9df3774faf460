//! Stable addresses inside the services' networks: a number once given to a name is never given to another.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ringfence_model::Fence;
use serde::{Deserialize, Serialize};

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
        // Service addresses end where 198.18.0.0/16 does.
        const LAST: u16 = 0xfe00;
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
