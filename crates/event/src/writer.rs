//! Off the request path: each producing thread fills a bounded buffer, one thread moves buffers to disk.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::class::{Event, Kind, Lifecycle, LifecycleActivity, Severity};
use crate::log::Log;

/// While a buffer is filled to more than three quarters, whoever holds more than this part of it is dropped first: who floods
/// leaves room for others. Names are told apart by a hash; two that share a slot share its part.
const PART: usize = 16;
const SLOTS: usize = 64;

/// Bounds of a [`Writer`].
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// Bytes that one emitter may hold before it drops.
    pub buffer: usize,
    /// Size in bytes at which the file is rotated.
    pub file: u64,
    /// Rotated files that are kept whole. Of older ones, the newest events of each group are, in one file more.
    pub keep: u32,
    /// How long an event may wait for the disk.
    pub interval: Duration,
}

/// Counters of a [`Writer`].
#[derive(Debug, Default)]
pub struct WriterStats {
    written: AtomicU64,
    dropped: AtomicU64,
}

/// Owns the file and the thread that writes it. Dropping it writes what is left.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// One producing thread's handle. Cheap to make; each thread should have its own.
#[derive(Debug)]
pub struct Emitter {
    buffer: Arc<Mutex<Buffer>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    buffers: Mutex<Vec<Arc<Mutex<Buffer>>>>,
    options: WriterOptions,
    stats: WriterStats,
    stop: AtomicBool,
}

#[derive(Debug)]
struct Buffer {
    lines: Vec<u8>,
    /// Bytes of it by who acted.
    held: [usize; SLOTS],
}

impl Default for Buffer {
    fn default() -> Self {
        Self { lines: Vec::new(), held: [0; SLOTS] }
    }
}

impl Buffer {
    fn take(&mut self, spare: &mut Vec<u8>) {
        std::mem::swap(&mut self.lines, spare);
        self.held.fill(0);
    }
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { buffer: 4 << 20, file: 64 << 20, keep: 8, interval: Duration::from_millis(50) }
    }
}

impl WriterStats {
    /// Events given to the disk.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Events lost, because a buffer was full or the disk refused.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Writer {
    /// Opens `DIR/PRODUCER.jsonl` for appending and starts the writing thread.
    ///
    /// # Errors
    /// The folder or file cannot be made.
    pub fn open(dir: &Path, producer: &str, options: WriterOptions) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let log = Log::open(dir.join(format!("{producer}.jsonl")), &options)?;
        let shared = Arc::new(Shared {
            buffers: Mutex::default(),
            options,
            stats: WriterStats::default(),
            stop: AtomicBool::new(false),
        });
        let producer = producer.to_owned();
        let thread = std::thread::Builder::new().name("events".into()).spawn({
            let shared = shared.clone();
            move || shared.run(log, &producer)
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// A handle for one producing thread.
    pub fn emitter(&self) -> Emitter {
        let buffer = Arc::<Mutex<Buffer>>::default();
        locked(&self.shared.buffers).push(buffer.clone());
        Emitter { buffer, shared: self.shared.clone() }
    }

    /// The counters.
    pub fn stats(&self) -> &WriterStats {
        &self.shared.stats
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Clone for Emitter {
    fn clone(&self) -> Self {
        let buffer = Arc::<Mutex<Buffer>>::default();
        locked(&self.shared.buffers).push(buffer.clone());
        Self { buffer, shared: self.shared.clone() }
    }
}

impl Emitter {
    /// The counters of its writer.
    pub fn stats(&self) -> &WriterStats {
        &self.shared.stats
    }

    /// Appends the event to this thread's buffer; counts it as dropped when the buffer is full, or nearly so and mostly of
    /// the same one. Never blocks on the disk.
    pub fn emit(&self, event: &Event<'_>) {
        let slot = slot(event.kind.subject());
        let mut buffer = locked(&self.buffer);
        let (full, most) = (buffer.lines.len(), self.shared.options.buffer);
        if full >= most || (full >= most / 4 * 3 && buffer.held[slot] > most / PART) {
            self.shared.stats.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        event.write(&mut buffer.lines);
        buffer.held[slot] += buffer.lines.len() - full;
    }
}

impl Shared {
    fn run(&self, mut log: Log, producer: &str) {
        let mut spare = Vec::new();
        let mut told = 0;
        loop {
            let last = self.stop.load(Ordering::Relaxed);
            if !last {
                std::thread::park_timeout(self.options.interval);
            }
            let mut buffers = locked(&self.buffers);
            // A buffer whose emitter is gone and that is empty has nothing more to say.
            buffers.retain(|b| Arc::strong_count(b) > 1 || !locked(b).lines.is_empty());
            let buffers = buffers.clone();
            for buffer in buffers {
                locked(&buffer).take(&mut spare);
                self.store(&mut log, &spare);
                spare.clear();
                spare.shrink_to(1 << 20);
            }
            let dropped = self.stats.dropped();
            if dropped > told {
                let message = format!("{} events dropped: the disk is full or too slow", dropped - told);
                if tell(&mut log, producer, &message, Severity::High).is_ok() {
                    told = dropped;
                }
            }
            for note in log.notes() {
                // A disk that refuses has been told of above.
                let _ = tell(&mut log, producer, &note, Severity::Low);
            }
            if last {
                return;
            }
        }
    }

    fn store(&self, log: &mut Log, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        let count = memchr::memchr_iter(b'\n', lines).count() as u64;
        let counter = if log.append(lines).is_ok() { &self.stats.written } else { &self.stats.dropped };
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

fn tell(log: &mut Log, producer: &str, message: &str, severity: Severity) -> io::Result<()> {
    let activity = LifecycleActivity::Update;
    let mut line = Vec::new();
    Event::new(Kind::Lifecycle(Lifecycle { name: producer, activity, message, severity })).write(&mut line);
    log.append(&line)
}

/// FNV-1a.
fn slot(name: &str) -> usize {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    (hash ^ (hash >> 16)) as usize % SLOTS
}

/// Buffers hold whole lines at every moment, so a panic elsewhere leaves nothing to distrust.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::{Call, Verdict};
    use crate::query::{Filter, read_dir};

    fn event(message: &str) -> Event<'_> {
        Event::new(Kind::Lifecycle(Lifecycle {
            name: "portal",
            activity: LifecycleActivity::Start,
            message,
            severity: Severity::Informational,
        }))
    }

    /// Waits until so many events are in files or given up.
    fn until_written(writer: &Writer, count: u64) {
        let begun = std::time::Instant::now();
        while writer.stats().written() + writer.stats().dropped() < count {
            assert!(begun.elapsed() < Duration::from_secs(60), "{} of {count}", writer.stats().written());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn events_of_several_threads_reach_the_file_whole_and_in_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let options = WriterOptions { file: 20_000, ..WriterOptions::default() };
        let writer = Writer::open(dir.path(), "test", options).unwrap();
        // A file takes whole what is there to be written: it must not be all at once.
        for round in 1..=5 {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let emitter = writer.emitter();
                    std::thread::spawn(move || (0..10).for_each(|_| emitter.emit(&event("started"))))
                })
                .collect();
            threads.into_iter().for_each(|t| t.join().unwrap());
            until_written(&writer, round * 40);
        }
        drop(writer);
        assert!(dir.path().join("test.1.jsonl").exists(), "rotated by size");
        assert_eq!(read_dir(dir.path(), &Filter::default()).unwrap().len(), 200);
    }

    #[test]
    fn a_full_buffer_drops_counts_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let options =
            WriterOptions { buffer: 2000, interval: Duration::from_millis(200), ..WriterOptions::default() };
        let writer = Writer::open(dir.path(), "test", options).unwrap();
        let emitter = writer.emitter();
        (0..100).for_each(|_| emitter.emit(&event("x")));
        assert!(writer.stats().dropped() > 50);
        drop(writer);
        let records = read_dir(dir.path(), &Filter::default()).unwrap();
        assert!(records.iter().any(|r| r.message().contains("events dropped")), "{records:?}");
    }

    fn call<'a>(caller: &'a str, path: &'a str, denied: bool) -> Event<'a> {
        let verdict = if denied {
            Verdict::Denied {
                stage: "authorize",
                rule: "edge.undeclared",
                position: None,
                reason: "no",
                missing: None,
            }
        } else {
            Verdict::Allowed
        };
        Event::new(Kind::Call(Call {
            caller,
            caller_id: None,
            user: None,
            source: None,
            callee: "patients",
            point: "sidecar-out",
            method: b"GET",
            path: path.as_bytes(),
            status: 200,
            duration_us: 7,
            cut: false,
            observed: None,
            findings: &[],
            shape: "",
            verdict,
        }))
    }

    #[test]
    fn a_service_that_floods_pushes_out_neither_the_events_of_others_nor_its_own_refusals() {
        let dir = tempfile::tempdir().unwrap();
        let interval = Duration::from_millis(1);
        let options = WriterOptions { file: 200_000, keep: 3, interval, ..WriterOptions::default() };
        let writer = Writer::open(dir.path(), "node", options.clone()).unwrap();
        let emitter = writer.emitter();
        // A quiet service, and the first steps of one that then covers its tracks.
        (0..20).for_each(|n| emitter.emit(&call("portal", &format!("/{n}"), false)));
        (0..20).for_each(|n| emitter.emit(&call("mailer", &format!("/secret/{n}"), true)));
        emitter.emit(&event("the quiet one"));
        // A hundred times what one file holds, each with a path of its own: as calls that pass.
        for n in 0..40_000_u64 {
            emitter.emit(&call("mailer", &format!("/flood/{n}"), false));
            // As fast as the writer, which on a busy machine is slower than this loop.
            while n - writer.stats().written().min(n) > 250 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        // More refusals at last, but no more than their group's share.
        for n in 0..100 {
            emitter.emit(&call("mailer", &format!("/refused/{n}"), true));
        }
        let dropped = writer.stats().dropped();
        drop(writer);
        assert_eq!(dropped, 0);
        let records = read_dir(dir.path(), &Filter::default()).unwrap();
        let of = |caller: &str, path: &str| {
            let begins = |r: &&crate::Record| {
                r.json["http_request"]["url"]["path"].as_str().is_some_and(|p| p.starts_with(path))
            };
            records.iter().filter(|r| r.caller() == caller).filter(begins).count()
        };
        assert_eq!(of("portal", "/"), 20, "all of a quiet service");
        assert_eq!(of("mailer", "/secret"), 20, "its refusals stay beside its own flood of calls");
        assert!(records.iter().any(|r| r.message() == "the quiet one"));
        let room = records.iter().filter(|r| r.message().contains("old events made room")).count();
        assert!(room > 10, "it is said who had to make room: {room}");
        assert!(records.iter().any(|r| r.message().contains("of them of mailer")));
        let size: u64 =
            std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
        // A file takes a batch whole, however little room it has.
        assert!(size <= 2 * options.file * u64::from(options.keep + 2), "bounded: {size}");
    }

    #[test]
    fn refusals_that_flood_leave_every_other_group_its_share() {
        let dir = tempfile::tempdir().unwrap();
        let options = WriterOptions { file: 60_000, keep: 1, ..WriterOptions::default() };
        let writer = Writer::open(dir.path(), "node", options).unwrap();
        let emitter = writer.emitter();
        for n in 0..10 {
            emitter.emit(&call("portal", "/", true));
            (0..1000).for_each(|i| emitter.emit(&call("mailer", &format!("/{n}/{i}"), true)));
            until_written(&writer, (n + 1) * 1001);
        }
        drop(writer);
        let records = read_dir(dir.path(), &Filter { denied: true, ..Filter::default() }).unwrap();
        assert_eq!(records.iter().filter(|r| r.caller() == "portal").count(), 10);
        let newest = records.iter().rfind(|r| r.caller() == "mailer").unwrap();
        assert_eq!(newest.json["http_request"]["url"]["path"], "/9/999", "and of the flood the newest stays");
    }

    #[test]
    fn a_file_that_a_crash_left_between_is_taken_up_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let mut line = Vec::new();
        call("portal", "/left", true).write(&mut line);
        let leaving = dir.path().join("node.3.jsonl");
        std::fs::write(&leaving, line).unwrap();
        drop(
            Writer::open(dir.path(), "node", WriterOptions { keep: 2, ..WriterOptions::default() }).unwrap(),
        );
        assert!(!leaving.exists() && dir.path().join("node.kept.jsonl").exists());
        assert_eq!(read_dir(dir.path(), &Filter::default()).unwrap().len(), 1);
    }

    #[test]
    fn a_full_buffer_drops_those_of_whom_it_is_full() {
        let dir = tempfile::tempdir().unwrap();
        let options =
            WriterOptions { buffer: 64_000, interval: Duration::from_secs(60), ..WriterOptions::default() };
        let writer = Writer::open(dir.path(), "node", options).unwrap();
        let emitter = writer.emitter();
        (0..1000).for_each(|_| emitter.emit(&call("mailer", "/", false)));
        let dropped = writer.stats().dropped();
        assert!(dropped > 800, "{dropped}");
        for caller in ["portal", "billing", "patients"] {
            emitter.emit(&call(caller, "/", true));
        }
        assert_eq!(writer.stats().dropped(), dropped, "there is room for others");
        drop(writer);
        assert_eq!(read_dir(dir.path(), &Filter { denied: true, ..Filter::default() }).unwrap().len(), 3);
    }

    #[test]
    fn whoever_follows_sees_no_kept_event_again() {
        let dir = tempfile::tempdir().unwrap();
        let options = WriterOptions {
            file: 20_000,
            keep: 2,
            interval: Duration::from_millis(5),
            ..WriterOptions::default()
        };
        let writer = Writer::open(dir.path(), "node", options).unwrap();
        let mut follow = crate::Follow::from_now(dir.path(), Filter::default()).unwrap();
        let emitter = writer.emitter();
        let mut seen = std::collections::HashSet::new();
        for n in 0..300 {
            emitter.emit(&call("portal", &format!("/{n}"), false));
            if n % 5 == 0 {
                until_written(&writer, n + 1);
                for record in follow.poll().unwrap() {
                    assert!(
                        seen.insert(record.json["metadata"]["uid"].to_string()),
                        "again: {}",
                        record.line()
                    );
                }
            }
        }
        assert!(seen.len() > 250, "{}", seen.len());
        assert!(dir.path().join("node.kept.jsonl").exists());
    }

    #[test]
    fn a_line_cut_by_a_crash_does_not_swallow_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("test.jsonl"), b"{\"time\":1,\"cla").unwrap();
        let writer = Writer::open(dir.path(), "test", WriterOptions::default()).unwrap();
        writer.emitter().emit(&event("after"));
        drop(writer);
        let records = read_dir(dir.path(), &Filter::default()).unwrap();
        assert_eq!(records.len(), 1);
    }
}
