//! Many packets, few events: the first of a kind at once, then counts each second, and a search as a search.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Dials told one by one in a second; a service that makes more is searching.
const SINGLE: usize = 16;
/// Kinds that are remembered.
const MAX_KINDS: usize = 4096;
/// How long a kind without new packets is remembered.
const FORGET: Duration = Duration::from_secs(60);
/// A search without new packets for so long is over.
const SEARCH_OVER: Duration = Duration::from_secs(10);
const WINDOW: Duration = Duration::from_secs(1);

/// What makes two packets alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    pub(crate) protocol: u8,
    pub(crate) destination: IpAddr,
    pub(crate) port: u16,
    pub(crate) query: Option<String>,
}

/// What there is to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tell {
    Dial { kind: Kind, count: u64 },
    Scan { ports: u64, addresses: u64, packets: u64 },
}

#[derive(Debug)]
struct Seen {
    untold: u64,
    last: Instant,
}

#[derive(Debug)]
struct Search {
    ports: HashSet<u16>,
    addresses: HashSet<IpAddr>,
    packets: u64,
    untold: bool,
    last: Instant,
}

/// Remembers what was seen, within bounds.
#[derive(Debug)]
pub(crate) struct Table {
    kinds: HashMap<Kind, Seen>,
    /// Kinds first seen in this second.
    fresh: HashSet<Kind>,
    search: Option<Search>,
    window: Instant,
}

impl Table {
    pub(crate) fn new(now: Instant) -> Self {
        Self { kinds: HashMap::new(), fresh: HashSet::new(), search: None, window: now }
    }

    /// A packet; what is to be told at once.
    pub(crate) fn seen(&mut self, kind: Kind, now: Instant) -> Option<Tell> {
        if let Some(search) = &mut self.search {
            search.note(&kind, now);
        }
        if let Some(seen) = self.kinds.get_mut(&kind) {
            seen.last = now;
            seen.untold += 1;
            return None;
        }
        if self.search.is_some() {
            // Told as part of the search.
            return None;
        }
        if self.fresh.len() >= SINGLE {
            let mut search = Search::new(now);
            self.fresh.iter().chain([&kind]).for_each(|k| search.note(k, now));
            let told = search.tell();
            self.search = Some(search);
            return told;
        }
        if self.kinds.len() >= MAX_KINDS {
            self.forget_oldest();
        }
        self.fresh.insert(kind.clone());
        self.kinds.insert(kind.clone(), Seen { untold: 0, last: now });
        Some(Tell::Dial { kind, count: 1 })
    }

    /// What is to be told because a second passed.
    pub(crate) fn tick(&mut self, now: Instant) -> Vec<Tell> {
        if now.duration_since(self.window) < WINDOW {
            return Vec::new();
        }
        self.window = now;
        self.fresh.clear();
        let mut tell = Vec::new();
        if let Some(search) = &mut self.search {
            tell.extend(search.tell());
            if now.duration_since(search.last) > SEARCH_OVER {
                self.search = None;
            }
        }
        for (kind, seen) in &mut self.kinds {
            if seen.untold > 0 && tell.len() < SINGLE {
                tell.push(Tell::Dial { kind: kind.clone(), count: std::mem::take(&mut seen.untold) });
            }
        }
        self.kinds.retain(|_, seen| seen.untold > 0 || now.duration_since(seen.last) < FORGET);
        tell
    }

    /// When [`Self::tick`] has something to do; `None` while all is told.
    pub(crate) fn due(&self) -> Option<Instant> {
        let busy = self.search.is_some() || !self.kinds.is_empty() || !self.fresh.is_empty();
        busy.then(|| self.window + WINDOW)
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) =
            self.kinds.iter().min_by_key(|(_, seen)| seen.last).map(|(kind, _)| kind.clone())
        {
            self.kinds.remove(&oldest);
        }
    }
}

impl Search {
    fn new(now: Instant) -> Self {
        Self { ports: HashSet::new(), addresses: HashSet::new(), packets: 0, untold: true, last: now }
    }

    fn note(&mut self, kind: &Kind, now: Instant) {
        self.packets += 1;
        self.ports.insert(kind.port);
        if self.addresses.len() < MAX_KINDS {
            self.addresses.insert(kind.destination);
        }
        self.untold = true;
        self.last = now;
    }

    fn tell(&mut self) -> Option<Tell> {
        std::mem::take(&mut self.untold).then_some(Tell::Scan {
            ports: self.ports.len() as u64,
            addresses: self.addresses.len() as u64,
            packets: self.packets,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(port: u16) -> Kind {
        Kind { protocol: 6, destination: IpAddr::from([203, 0, 113, 9]), port, query: None }
    }

    #[test]
    fn the_first_dial_is_told_at_once_and_its_repetitions_each_second() {
        let start = Instant::now();
        let mut table = Table::new(start);
        assert_eq!(table.seen(kind(443), start), Some(Tell::Dial { kind: kind(443), count: 1 }));
        (0..99).for_each(|_| assert_eq!(table.seen(kind(443), start), None));
        assert!(table.tick(start + WINDOW / 2).is_empty());
        assert_eq!(table.tick(start + WINDOW), [Tell::Dial { kind: kind(443), count: 99 }]);
        assert!(table.tick(start + 2 * WINDOW).is_empty());
    }

    #[test]
    fn a_search_over_all_ports_is_one_event_a_second() {
        let start = Instant::now();
        let mut table = Table::new(start);
        let told: Vec<_> = (1..=u16::MAX).filter_map(|port| table.seen(kind(port), start)).collect();
        assert_eq!(told.len(), SINGLE + 1);
        assert!(matches!(told.last(), Some(Tell::Scan { .. })));
        let later = table.tick(start + WINDOW);
        assert_eq!(later, [Tell::Scan { ports: 65_535, addresses: 1, packets: 65_535 }]);
    }

    #[test]
    fn memory_stays_bounded_when_a_service_dials_slowly_and_widely() {
        let start = Instant::now();
        let mut table = Table::new(start);
        for second in 0..500u32 {
            for n in 0..10u32 {
                let destination = IpAddr::from((second * 10 + n).to_be_bytes());
                let now = start + Duration::from_millis(u64::from(second) * 100);
                table.seen(Kind { destination, ..kind(1) }, now);
                table.tick(now);
            }
        }
        assert!(table.kinds.len() <= MAX_KINDS && table.fresh.len() <= SINGLE);
        table.tick(start + Duration::from_secs(500));
        assert!(table.kinds.is_empty() && table.search.is_none());
        assert!(table.due().is_none());
    }
}
