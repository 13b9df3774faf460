//! The sensed sink: what a service dials and has no edge to ends here, is answered unreachable, and becomes an event.

mod answer;
mod dns;
mod filter;
mod packet;
mod table;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ringfence_event::{Dial, Emitter, Event, Kind as EventKind, Scan, Writer};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, Type};

pub use dns::question as dns_question;
pub use packet::Packet;

use crate::shim::{Wires, spawn};
use crate::spec::Spec;
use crate::{SandboxError, capability, error::Context as _};
use answer::Answerer;
use table::{Kind, Table, Tell};

const ETH_P_ALL: u16 = 3;
const DNS: u16 = 53;
/// Room for bursts: a search by thousands of packets must not push out what it hides.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Frames read without a look at the clock.
const BATCH: u32 = 4096;
const FLOOD_PAUSE: Duration = Duration::from_millis(10);

/// Both sinks, opened before the service exists, so that nothing is missed, and while we still may.
pub(crate) struct Opened {
    outside: Socket,
    loopback: Socket,
    answerer: Answerer,
    link: u32,
}

/// The running sinks.
pub(crate) struct Sinks {
    /// The one on the wire, for new filters.
    outside: Socket,
    link: u32,
}

impl Opened {
    pub(crate) fn open(spec: &Spec, wires: &Wires<'_>) -> Result<Self, SandboxError> {
        let outside = open()?;
        outside
            .attach_filter(&filter::outside(wires.outside, &spec.ports))
            .step(|| "filter the sink".into())?;
        let loopback = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    wires.networks.enter_service()?;
                    let socket = open()?;
                    socket
                        .attach_filter(&filter::loopback(wires.loopback, spec.listen))
                        .step(|| "filter the sink on loopback".into())?;
                    Ok::<_, SandboxError>(socket)
                })
                .join()
        })
        .map_err(|_| SandboxError::Refused("a thread that opens the sink panicked".into()))??;
        Ok(Self { outside, loopback, answerer: Answerer::open()?, link: wires.outside })
    }

    /// Starts reading.
    pub(crate) fn start(self, service: &str, events: &Writer) -> Result<Sinks, SandboxError> {
        let Self { outside, loopback, answerer, link } = self;
        let sinks = Sinks { outside: outside.try_clone().step(|| "copy a socket".into())?, link };
        let sink = Sink::new(service, events.emitter(), "outside", Some(answerer));
        spawn("sink", move || sink.run(&outside))?;
        let sink = Sink::new(service, events.emitter(), "loopback", None);
        spawn("sink-loopback", move || sink.run(&loopback))?;
        Ok(sinks)
    }
}

impl Sinks {
    /// Changes which ports are allowed, live.
    pub(crate) fn set_ports(&self, ports: &BTreeSet<u16>) -> Result<(), SandboxError> {
        self.outside.attach_filter(&filter::outside(self.link, ports)).step(|| "filter the sink".into())
    }
}

fn open() -> Result<Socket, SandboxError> {
    let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).step(|| "open the sink".into())?;
    // Nothing was let in yet that a filter would not: the service does not run.
    socket.attach_filter(&filter::nothing()).step(|| "filter the sink".into())?;
    socket.set_nonblocking(true).step(|| "set the sink up".into())?;
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    Ok(socket)
}

struct Sink {
    service: String,
    emitter: Emitter,
    place: &'static str,
    answerer: Option<Answerer>,
    table: Table,
}

impl Sink {
    fn new(service: &str, emitter: Emitter, place: &'static str, answerer: Option<Answerer>) -> Self {
        Self { service: service.to_owned(), emitter, place, answerer, table: Table::new(Instant::now()) }
    }

    fn run(mut self, socket: &Socket) {
        // This thread reads what a hostile service wrote.
        if let Err(e) = capability::drop_all() {
            eprintln!("ringfence: the sink of {} keeps capabilities: {e}", self.service);
        }
        let mut frame = [0; filter::SNAP as usize];
        loop {
            let timeout = self.table.due().map(|due| {
                let left = due.saturating_duration_since(Instant::now());
                Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
            });
            // An interrupted or failed wait reads nothing below and comes back here.
            let _ = poll(&mut [PollFd::new(socket, PollFlags::IN)], timeout.as_ref());
            // Bounded, so that a flood does not keep the counts from being told.
            let mut left = BATCH;
            while left > 0 {
                left -= 1;
                match rustix::net::recv(socket, &mut frame, rustix::net::RecvFlags::TRUNC) {
                    Ok((read, _)) => self.see(&frame[..read.min(frame.len())]),
                    Err(_) => break,
                }
            }
            if left == 0 {
                // A flood: what it costs us is bounded, and what is lost of it are repetitions.
                std::thread::sleep(FLOOD_PAUSE);
            }
            for tell in self.table.tick(Instant::now()) {
                self.tell(&tell);
            }
        }
    }

    fn see(&mut self, frame: &[u8]) {
        let Some(packet) = Packet::from_frame(frame) else { return };
        let dial = match &mut self.answerer {
            Some(answerer) => {
                answerer.refuse(&packet);
                Some(outgoing(&packet))
            }
            None => refused(&packet),
        };
        if let Some(tell) = dial.and_then(|kind| self.table.seen(kind, Instant::now())) {
            self.tell(&tell);
        }
    }

    fn tell(&self, tell: &Tell) {
        let event = match tell {
            Tell::Dial { kind, count } => {
                let protocol = Packet::protocol_name(kind.protocol);
                self.emitter.emit(&Event::new(EventKind::Dial(Dial {
                    service: &self.service,
                    protocol: &protocol,
                    destination: kind.destination,
                    port: kind.port,
                    query: kind.query.as_deref(),
                    count: *count,
                    place: self.place,
                })));
                return;
            }
            Tell::Scan { ports, addresses, packets } => {
                Scan { service: &self.service, ports: *ports, addresses: *addresses, packets: *packets }
            }
        };
        self.emitter.emit(&Event::new(EventKind::Scan(event)));
    }
}

fn outgoing(packet: &Packet<'_>) -> Kind {
    let query = (packet.protocol == packet::UDP && packet.destination_port == DNS)
        .then(|| dns::question(packet.payload))
        .flatten();
    Kind { protocol: packet.protocol, destination: packet.destination, port: packet.destination_port, query }
}

/// What a refusal on loopback refuses: an RST comes from the port that was dialled, an ICMP error quotes the dial.
fn refused(packet: &Packet<'_>) -> Option<Kind> {
    let kind = |protocol, destination: IpAddr, port| Kind { protocol, destination, port, query: None };
    match packet.protocol {
        packet::TCP => Some(kind(packet::TCP, packet.source, packet.source_port)),
        _ => packet.refused().map(|dial| kind(dial.protocol, dial.destination, dial.destination_port)),
    }
}
