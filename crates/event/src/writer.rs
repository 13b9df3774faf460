//! Off the request path: each producing thread fills a bounded buffer, one thread moves buffers to disk.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::class::{Event, Kind, Lifecycle, LifecycleActivity, Severity};
use crate::place::open_own;

/// Bounds of a [`Writer`].
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// Bytes that one emitter may hold before it drops.
    pub buffer: usize,
    /// Size in bytes at which the file is rotated.
    pub file: u64,
    /// Rotated files that are kept.
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
    buffer: Arc<Mutex<Vec<u8>>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    buffers: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    options: WriterOptions,
    stats: WriterStats,
    stop: AtomicBool,
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
        let buffer = Arc::<Mutex<Vec<u8>>>::default();
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
        let buffer = Arc::<Mutex<Vec<u8>>>::default();
        locked(&self.shared.buffers).push(buffer.clone());
        Self { buffer, shared: self.shared.clone() }
    }
}

impl Emitter {
    /// Appends the event to this thread's buffer; counts it as dropped when the buffer is full. Never blocks on the disk.
    pub fn emit(&self, event: &Event<'_>) {
        let mut buffer = locked(&self.buffer);
        if buffer.len() >= self.shared.options.buffer {
            self.shared.stats.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        event.write(&mut buffer);
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
            buffers.retain(|b| Arc::strong_count(b) > 1 || !locked(b).is_empty());
            let buffers = buffers.clone();
            for buffer in buffers {
                std::mem::swap(&mut *locked(&buffer), &mut spare);
                self.store(&mut log, &spare);
                spare.clear();
                spare.shrink_to(1 << 20);
            }
            let dropped = self.stats.dropped();
            if dropped > told {
                let message = format!("{} events dropped: the disk is full or too slow", dropped - told);
                let event = Event::new(Kind::Lifecycle(Lifecycle {
                    name: producer,
                    activity: LifecycleActivity::Update,
                    message: &message,
                    severity: Severity::High,
                }));
                event.write(&mut spare);
                if log.append(&spare).is_ok() {
                    told = dropped;
                }
                spare.clear();
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

/// The file, rotated by size: NAME.jsonl, NAME.1.jsonl, … NAME.KEEP.jsonl.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
    keep: u32,
}

impl Log {
    fn open(path: PathBuf, options: &WriterOptions) -> io::Result<Self> {
        let mut file = open_own(&path)?;
        let mut size = file.metadata()?.len();
        // A crash may have cut a line in half; the next one must not be glued to it.
        if size > 0 && !ends_with_newline(&mut file)? {
            file.write_all(b"\n")?;
            size += 1;
        }
        Ok(Self { path, file, size, limit: options.file, keep: options.keep })
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + lines.len() as u64 > self.limit {
            self.rotate()?;
        }
        if let Err(e) = self.file.write_all(lines) {
            // Take back a half-written line, so that the file stays lines of JSON.
            let _ = self.file.set_len(self.size);
            return Err(e);
        }
        self.size += lines.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let name = |n: u32| self.path.with_extension(format!("{n}.jsonl"));
        for n in (1..self.keep).rev() {
            match std::fs::rename(name(n), name(n + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        std::fs::rename(&self.path, name(1))?;
        self.file = open_own(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

fn ends_with_newline(file: &mut File) -> io::Result<bool> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// Buffers hold whole lines at every moment, so a panic elsewhere leaves nothing to distrust.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::{Filter, read_dir};

    fn event(message: &str) -> Event<'_> {
        Event::new(Kind::Lifecycle(Lifecycle {
            name: "portal",
            activity: LifecycleActivity::Start,
            message,
            severity: Severity::Informational,
        }))
    }

    #[test]
    fn events_of_several_threads_reach_the_file_whole_and_in_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let options = WriterOptions { file: 20_000, ..WriterOptions::default() };
        let writer = Writer::open(dir.path(), "test", options).unwrap();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let emitter = writer.emitter();
                std::thread::spawn(move || {
                    for _ in 0..50 {
                        emitter.emit(&event("started"));
                        std::thread::sleep(Duration::from_millis(2));
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
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
