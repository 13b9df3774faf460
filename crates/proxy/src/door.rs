//! How many connections a listener holds, of how many addresses, how many of them are still at their handshake, and who makes room for
//! others when there is none.
//!
//! A listener that only counted would be closed to everybody by whoever opens connections and says nothing. So when it is full those make
//! room that have brought no whole request for the longest; then those whose client takes or sends next to nothing; then those that wait
//! for another request. Each thread has its share of the limits, as it has its share of the connections.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;

use ringfence_model::Limits;

/// How long a connection is left alone before it may have to make room, in milliseconds.
const GRACE_MS: u64 = 1_000;
/// How long a request is left alone, and what it must bring or take from then on, in bytes per second.
const SLOW_MS: u64 = 1_000;
const SLOW_RATE: u64 = 512;

/// A listener's count.
#[derive(Debug, Default)]
pub(crate) struct Door {
    open: Cell<usize>,
    shaking: Cell<usize>,
    /// As many entries as connections at most.
    addresses: RefCell<HashMap<IpAddr, Counts>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    open: usize,
    shaking: usize,
}

/// What a thread may have of the connections of one listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    open: usize,
    shaking: usize,
    open_per_address: usize,
    shaking_per_address: usize,
}

/// Of what there are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Full {
    /// Of this address alone.
    pub(crate) address: Option<IpAddr>,
    /// At their handshake alone.
    pub(crate) shaking: bool,
}

/// A connection as a door counts it, while it is there.
#[derive(Debug)]
pub(crate) struct Ticket {
    door: Rc<Door>,
    address: IpAddr,
    shaking: Cell<bool>,
    counted: Cell<bool>,
    served: Cell<bool>,
    since: u64,
}

impl Bounds {
    /// The share of one of `threads`. Only the gateway tells addresses apart: at other listeners an address is many callers.
    pub(crate) fn new(limits: &Limits, threads: usize, by_address: bool) -> Self {
        let share = |limit: u32| (limit as usize).div_ceil(threads).max(1);
        let of_address = |limit: usize| if by_address { limit } else { usize::MAX };
        Self {
            open: share(limits.connections),
            shaking: share(limits.handshakes),
            open_per_address: of_address(limits.connections_per_address.map_or(usize::MAX, share)),
            shaking_per_address: of_address(share(limits.handshakes_per_address)),
        }
    }
}

impl Door {
    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.open.get()
    }

    /// What there would be too many of with one more from this address.
    pub(crate) fn is_full(&self, address: IpAddr, shakes: bool, bounds: &Bounds) -> Option<Full> {
        let address = whose(address);
        let counts = self.addresses.borrow().get(&address).copied().unwrap_or_default();
        let full = |address, shaking| Some(Full { address, shaking });
        match () {
            () if counts.open >= bounds.open_per_address => full(Some(address), false),
            () if shakes && counts.shaking >= bounds.shaking_per_address => full(Some(address), true),
            () if self.open.get() >= bounds.open => full(None, false),
            () if shakes && self.shaking.get() >= bounds.shaking => full(None, true),
            () => None,
        }
    }

    /// Lets one in, which begins with a handshake or not.
    pub(crate) fn enter(self: &Rc<Self>, address: IpAddr, shakes: bool, now_ms: u64) -> Rc<Ticket> {
        let ticket = Ticket {
            door: self.clone(),
            address: whose(address),
            shaking: Cell::new(shakes),
            counted: Cell::new(true),
            served: Cell::new(false),
            since: now_ms,
        };
        self.count(ticket.address, 1, isize::from(shakes));
        Rc::new(ticket)
    }

    fn count(&self, address: IpAddr, open: isize, shaking: isize) {
        let add = |count: usize, by: isize| count.saturating_add_signed(by);
        self.open.set(add(self.open.get(), open));
        self.shaking.set(add(self.shaking.get(), shaking));
        let mut addresses = self.addresses.borrow_mut();
        let counts = addresses.entry(address).or_default();
        (counts.open, counts.shaking) = (add(counts.open, open), add(counts.shaking, shaking));
        if counts.open == 0 {
            addresses.remove(&address);
        }
    }
}

impl Ticket {
    /// The handshake is over.
    pub(crate) fn shaken(&self) {
        if self.shaking.replace(false) && self.counted.get() {
            self.door.count(self.address, 0, -1);
        }
    }

    /// A request was served.
    pub(crate) fn serves(&self) {
        self.served.set(true);
    }

    /// It is not counted any more.
    pub(crate) fn leave(&self) {
        if self.counted.replace(false) {
            self.door.count(self.address, -1, -isize::from(self.shaking.get()));
        }
    }

    /// How soon it has to make room, the least first; none if it need not. `busy`: a request is under way.
    pub(crate) fn rank(
        &self,
        door: &Rc<Door>,
        full: Full,
        busy: bool,
        pace: &Pace,
        now_ms: u64,
    ) -> Option<(u8, u64)> {
        let here = self.counted.get() && Rc::ptr_eq(&self.door, door);
        let meant = full.address.is_none_or(|address| self.address == address)
            && (!full.shaking || self.shaking.get());
        if !here || !meant || now_ms < self.since + GRACE_MS {
            return None;
        }
        match (busy, self.served.get()) {
            (true, _) => pace.slow_since(now_ms).map(|since| (1, since)),
            (false, false) => Some((0, self.since)),
            (false, true) => Some((2, self.since)),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.leave();
    }
}

/// How fast the bodies of a connection's requests and responses move.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    running: Cell<usize>,
    since: Cell<u64>,
    bytes: Cell<u64>,
    /// Exchanges that wait for the client.
    waiting: Cell<usize>,
}

/// An exchange as it counts for the pace of its connection.
#[derive(Debug)]
pub(crate) struct Run {
    pace: Rc<Pace>,
    bytes: u64,
    waits: bool,
}

impl Pace {
    /// An exchange begins.
    pub(crate) fn run(self: &Rc<Self>, now_ms: u64) -> Run {
        if self.running.get() == 0 {
            self.since.set(now_ms);
            self.bytes.set(0);
        }
        self.running.set(self.running.get() + 1);
        Run { pace: self.clone(), bytes: 0, waits: false }
    }

    /// Since when it is too slow, if the client is who makes it so.
    fn slow_since(&self, now_ms: u64) -> Option<u64> {
        let time = now_ms.saturating_sub(self.since.get());
        let slow = self.waiting.get() > 0 && time >= SLOW_MS && self.bytes.get() < time * SLOW_RATE / 1000;
        slow.then(|| self.since.get())
    }
}

impl Run {
    /// How many bytes have moved so far, and whether the client has to do something before more can.
    pub(crate) fn note(&mut self, bytes: u64, waits: bool) {
        let pace = &self.pace;
        pace.bytes.set(pace.bytes.get() + bytes.saturating_sub(self.bytes));
        self.bytes = bytes;
        self.wait(waits);
    }

    fn wait(&mut self, waits: bool) {
        if self.waits != waits {
            let waiting = self.pace.waiting.get();
            self.pace.waiting.set(if waits { waiting + 1 } else { waiting - 1 });
            self.waits = waits;
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.wait(false);
        self.pace.running.set(self.pace.running.get() - 1);
    }
}

/// Whose an address is: who has one of IPv6 has a /64.
pub(crate) fn whose(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const BOUNDS: Bounds = Bounds { open: 4, shaking: 3, open_per_address: 3, shaking_per_address: 2 };

    #[test]
    fn each_of_the_four_counts_fills_up_and_empties() {
        let door = Rc::new(Door::default());
        let (a, b) = (address("192.0.2.1"), address("::ffff:192.0.2.2"));
        let full = |ip, shakes| door.is_full(ip, shakes, &BOUNDS);
        let first = door.enter(a, true, 0);
        let second = door.enter(a, true, 0);
        assert_eq!(full(a, true), Some(Full { address: Some(a), shaking: true }));
        assert_eq!((full(a, false), full(b, true)), (None, None));
        first.shaken();
        first.shaken();
        assert_eq!(full(a, true), None);
        let third = door.enter(a, true, 0);
        assert_eq!(full(a, false), Some(Full { address: Some(a), shaking: false }));
        let other = door.enter(b, true, 0);
        assert_eq!(full(b, true), Some(Full { address: None, shaking: false }));
        drop(third);
        assert_eq!((full(b, true), door.open()), (None, 3));
        second.leave();
        second.leave();
        drop((first, second, other));
        assert_eq!((door.open(), door.shaking.get(), door.addresses.borrow().len()), (0, 0, 0));
    }

    #[test]
    fn who_has_one_address_of_ipv6_has_sixty_four_bits_of_them() {
        assert_eq!(whose(address("2001:db8:1:2:3::4")), address("2001:db8:1:2::"));
        assert_eq!(whose(address("::ffff:192.0.2.1")), address("192.0.2.1"));
    }

    #[test]
    fn who_brought_nothing_makes_room_first_and_who_is_quick_never() {
        let door = Rc::new(Door::default());
        let a = address("192.0.2.1");
        let full = Full { address: None, shaking: false };
        let pace = Rc::<Pace>::default();
        let (silent, idle, new) =
            (door.enter(a, false, 10), door.enter(a, false, 5), door.enter(a, true, 99_500));
        idle.serves();
        let rank = |ticket: &Ticket, busy| ticket.rank(&door, full, busy, &pace, 100_000);
        assert_eq!((rank(&silent, false), rank(&idle, false)), (Some((0, 10)), Some((2, 5))));
        assert_eq!((rank(&new, false), rank(&silent, true)), (None, None));
        let mut run = pace.run(90_000);
        run.note(100, true);
        assert_eq!(rank(&silent, true), Some((1, 90_000)));
        run.note(100, false);
        assert_eq!(rank(&silent, true), None, "it waits for the service");
        run.note(100_000, true);
        assert_eq!(rank(&silent, true), None, "it moves");
        drop(run);
        assert_eq!((pace.running.get(), pace.waiting.get()), (0, 0));
        let of_handshakes = Full { address: Some(a), shaking: true };
        assert_eq!(silent.rank(&door, of_handshakes, false, &pace, 100_000), None, "it is past that");
        assert!(new.rank(&door, of_handshakes, false, &pace, 200_000).is_some());
        silent.leave();
        assert_eq!(rank(&silent, false), None);
    }
}
