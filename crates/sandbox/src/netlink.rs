//! The few requests of route netlink that two joined networks need.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::{SandboxError, error::Context as _};

/// Largest frame of a veth pair: nothing between the two needs small ones.
const MTU: u32 = 65_000;

/// Route netlink of the network that the calling thread is in.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    pub(crate) fn open() -> Result<Self, SandboxError> {
        let mut socket = Socket::new(NETLINK_ROUTE).step(|| "open route netlink".into())?;
        socket.bind_auto().step(|| "bind route netlink".into())?;
        socket.connect(&SocketAddr::new(0, 0)).step(|| "connect route netlink".into())?;
        Ok(Self { socket, sequence: 0 })
    }

    /// A veth pair: `name` here, `peer` in the network `there`.
    pub(crate) fn add_veth(
        &mut self,
        name: &str,
        peer: &str,
        there: BorrowedFd<'_>,
    ) -> Result<(), SandboxError> {
        let mut other = LinkMessage::default();
        other.attributes = vec![
            LinkAttribute::IfName(peer.into()),
            LinkAttribute::Mtu(MTU),
            LinkAttribute::NetNsFd(there.as_raw_fd()),
        ];
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Mtu(MTU),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
            ]),
        ];
        self.create(RouteNetlinkMessage::NewLink(link)).map(drop).step(|| "make a veth pair".into())
    }

    /// Brings a link up.
    pub(crate) fn up(&mut self, index: u32) -> Result<(), SandboxError> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.request(RouteNetlinkMessage::SetLink(link), NLM_F_ACK)
            .map(drop)
            .step(|| format!("bring link {index} up"))
    }

    /// Index of a link.
    pub(crate) fn index(&mut self, name: &str) -> Result<u32, SandboxError> {
        let mut link = LinkMessage::default();
        link.attributes = vec![LinkAttribute::IfName(name.into())];
        match self.request(RouteNetlinkMessage::GetLink(link), 0).step(|| format!("find link {name}"))? {
            Some(RouteNetlinkMessage::NewLink(link)) => Ok(link.header.index),
            _ => Err(SandboxError::Refused(format!("the kernel does not describe link {name}"))),
        }
    }

    /// Gives a link an address.
    pub(crate) fn add_address(
        &mut self,
        index: u32,
        address: IpAddr,
        prefix: u8,
    ) -> Result<(), SandboxError> {
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        message.header.prefix_len = prefix;
        message.header.scope = AddressScope::Universe;
        message.header.index = index;
        message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        if address.is_ipv6() {
            // Two ends of one wire: there is no duplicate to look for.
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        self.create(RouteNetlinkMessage::NewAddress(message)).step(|| format!("add address {address}"))
    }

    /// Routes everything to `gateway`.
    pub(crate) fn add_default(&mut self, gateway: IpAddr) -> Result<(), SandboxError> {
        let any = if gateway.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let mut message = route(any, 0, RouteHeader::RT_TABLE_MAIN, RouteType::Unicast, RouteScope::Universe);
        message.attributes = vec![RouteAttribute::Gateway(address(gateway))];
        self.create(RouteNetlinkMessage::NewRoute(message)).step(|| format!("route everything to {gateway}"))
    }

    /// Makes all of a prefix local (AnyIP).
    pub(crate) fn add_local(&mut self, prefix: IpAddr, length: u8, index: u32) -> Result<(), SandboxError> {
        const TABLE_LOCAL: u8 = 255;
        let mut message = route(prefix, length, TABLE_LOCAL, RouteType::Local, RouteScope::Host);
        message.attributes = vec![RouteAttribute::Destination(address(prefix)), RouteAttribute::Oif(index)];
        self.create(RouteNetlinkMessage::NewRoute(message)).step(|| format!("make {prefix}/{length} local"))
    }

    fn create(&mut self, message: RouteNetlinkMessage) -> std::io::Result<()> {
        self.request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> std::io::Result<Option<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut buffer = vec![0; message.buffer_len()];
        message.serialize(&mut buffer);
        self.socket.send(&buffer, 0)?;
        let (answer, _) = self.socket.recv_from_full()?;
        let answer =
            NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(std::io::Error::other)?;
        match answer.payload {
            NetlinkPayload::Error(e) if e.code.is_some() => Err(e.to_io()),
            NetlinkPayload::InnerMessage(inner) => Ok(Some(inner)),
            _ => Ok(None),
        }
    }
}

fn route(to: IpAddr, length: u8, table: u8, kind: RouteType, scope: RouteScope) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(to);
    message.header.destination_prefix_length = length;
    message.header.table = table;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = scope;
    message.header.kind = kind;
    message
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn address(ip: IpAddr) -> RouteAddress {
    match ip {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    }
}
