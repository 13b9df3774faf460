//! Two networks and the wire between them.
//!
//! The service's side has loopback and one end of a veth pair; its every route leads to the shim's side, which has no other
//! link and does not forward: what is not listened for there ends there.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ringfence_channel::sys;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::netlink::Netlink;
use crate::{SandboxError, error::Context as _};

const SHIM_LINK: &str = "service";
const SERVICE_LINK: &str = "eth0";
const SHIM_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const SERVICE_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const SHIM_V6: Ipv6Addr = Ipv6Addr::new(0xfd52, 0x4600, 0, 0, 0, 0, 0, 1);
const SERVICE_V6: Ipv6Addr = Ipv6Addr::new(0xfd52, 0x4600, 0, 0, 0, 0, 0, 2);
/// Callees and egress hosts.
const CALLEES: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const CALLEES_LENGTH: u8 = 15;

/// The service's network; the calling process is in the shim's.
#[derive(Debug)]
pub(crate) struct Networks {
    service: OwnedFd,
    inode: u64,
    link: u32,
}

/// The places where the sinks listen.
pub(crate) struct Wires<'a> {
    pub(crate) networks: &'a Networks,
    /// Index of the shim's end of the wire.
    pub(crate) outside: u32,
    /// Index of loopback in the service's network, the first link of every network.
    pub(crate) loopback: u32,
}

impl Networks {
    /// Moves the calling process, which must have one thread, into the shim's network, and makes the service's.
    pub(crate) fn make() -> Result<Self, SandboxError> {
        sys::unshare_namespaces(UnshareFlags::NEWNET).step(|| "make the shim's network".into())?;
        // Namespaces belong to threads: a passing thread makes the second one and leaves a descriptor of it.
        let service = in_thread(|| {
            sys::unshare_namespaces(UnshareFlags::NEWNET).step(|| "make the service's network".into())?;
            File::open("/proc/thread-self/ns/net").step(|| "open the service's network".into())
        })?;
        let inode = service.metadata().step(|| "look at the service's network".into())?.ino();
        let service = OwnedFd::from(service);
        let v6 = Path::new("/proc/sys/net/ipv6").exists();
        shim_sysctls(v6)?;
        let mut netlink = Netlink::open()?;
        netlink.add_veth(SHIM_LINK, SERVICE_LINK, service.as_fd())?;
        let link = netlink.index(SHIM_LINK)?;
        let loopback = netlink.index("lo")?;
        netlink.up(loopback)?;
        let inside = service.as_fd();
        std::thread::scope(|scope| {
            scope
                .spawn(|| -> Result<(), SandboxError> {
                    enter(inside)?;
                    furnish_service(v6)
                })
                .join()
        })
        .map_err(|_| SandboxError::Refused("a thread that made the service's network panicked".into()))??;
        netlink.up(link)?;
        netlink.add_address(link, SHIM_V4.into(), 30)?;
        netlink.add_local(CALLEES.into(), CALLEES_LENGTH, loopback)?;
        if v6 {
            netlink.add_address(link, SHIM_V6.into(), 64)?;
        }
        Ok(Self { service, inode, link })
    }

    /// Inode of the service's network namespace.
    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }

    /// Moves the calling thread into the service's network.
    pub(crate) fn enter_service(&self) -> Result<(), SandboxError> {
        enter(self.service.as_fd())
    }

    /// Where the sinks listen.
    pub(crate) fn wires(&self) -> Wires<'_> {
        Wires { networks: self, outside: self.link, loopback: 1 }
    }
}

/// An unconnected TCP socket of the calling thread's network.
pub(crate) fn unconnected() -> Result<OwnedFd, SandboxError> {
    socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
        .step(|| "make a socket".into())
}

fn enter(network: std::os::fd::BorrowedFd<'_>) -> Result<(), SandboxError> {
    move_into_link_name_space(network, Some(LinkNameSpaceType::Network))
        .step(|| "enter the service's network".into())
}

fn furnish_service(v6: bool) -> Result<(), SandboxError> {
    set("ipv4/ip_unprivileged_port_start", "0");
    if v6 {
        quiet_v6();
    }
    let mut netlink = Netlink::open()?;
    let loopback = netlink.index("lo")?;
    netlink.up(loopback)?;
    let link = netlink.index(SERVICE_LINK)?;
    netlink.up(link)?;
    netlink.add_address(link, IpAddr::V4(SERVICE_V4), 30)?;
    netlink.add_default(IpAddr::V4(SHIM_V4))?;
    if v6 {
        netlink.add_address(link, IpAddr::V6(SERVICE_V6), 64)?;
        netlink.add_default(IpAddr::V6(SHIM_V6))?;
    }
    Ok(())
}

/// A new network inherits the host's settings for IPv4, so what matters is said, and must hold.
fn shim_sysctls(v6: bool) -> Result<(), SandboxError> {
    for file in ["ipv4/ip_forward", "ipv4/conf/all/forwarding", "ipv4/conf/default/forwarding"] {
        let path = Path::new("/proc/sys/net").join(file);
        let forwards = || fs::read_to_string(&path).map(|text| text.trim() != "0");
        if forwards().step(|| format!("read {}", path.display()))? {
            fs::write(&path, "0").step(|| format!("stop forwarding in {}", path.display()))?;
        }
    }
    set("ipv4/ip_unprivileged_port_start", "0");
    // Refusals are answered at once, however many: the sink bounds itself.
    set("ipv4/icmp_ratelimit", "0");
    set("core/somaxconn", "4096");
    if v6 {
        quiet_v6();
    }
    Ok(())
}

/// No router, no neighbour but one: nothing to solicit, nothing to detect. Without these settings there is only noise.
fn quiet_v6() {
    for name in ["all", "default"] {
        set(&format!("ipv6/conf/{name}/accept_ra"), "0");
        set(&format!("ipv6/conf/{name}/accept_dad"), "0");
        set(&format!("ipv6/conf/{name}/forwarding"), "0");
    }
}

/// Comfort, not protection: a system that forbids it works without.
fn set(file: &str, value: &str) {
    let _ = fs::write(Path::new("/proc/sys/net").join(file), value);
}

fn in_thread<T: Send>(work: impl FnOnce() -> Result<T, SandboxError> + Send) -> Result<T, SandboxError> {
    std::thread::scope(|scope| scope.spawn(work).join())
        .map_err(|_| SandboxError::Refused("a thread that makes networks panicked".into()))?
}
