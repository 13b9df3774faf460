//! What a service prints: into its log file, whose size is bounded, and onto the terminal of `ringfence run`.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::path::PathBuf;

use ringfence_event::open_own;

use super::places::Places;
use super::spawn;
use crate::{SandboxError, error::Context as _};

/// The log is set aside as `NAME.log.1` when it is this long.
const LIMIT: u64 = 16 << 20;

/// Starts the thread that moves output to the log; what is written into the returned pipe arrives there.
pub(crate) fn start(places: &Places, service: &str, terminal: bool) -> Result<PipeWriter, SandboxError> {
    let log = Log::open(places.log())?;
    let (reader, writer) = io::pipe().step(|| "make a pipe".into())?;
    let name = service.to_owned();
    spawn("log", move || pump(reader, log, terminal, &name))?;
    Ok(writer)
}

/// Ends when the last writer is gone.
fn pump(mut reader: PipeReader, mut log: Log, terminal: bool, service: &str) {
    let mut buffer = [0; 16 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => {
                // A full disk must not stop the service: its output is lost, and the pipe keeps flowing.
                if let Err(e) = log.append(&buffer[..n]) {
                    eprintln!("ringfence: the log of {service} is not written: {e}");
                }
                if terminal {
                    let _ = io::stdout().write_all(&buffer[..n]).and_then(|()| io::stdout().flush());
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

struct Log {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Log {
    fn open(path: PathBuf) -> Result<Self, SandboxError> {
        let file = open_own(&path).step(|| "open the service's log".into())?;
        let size = file.metadata().step(|| "look at the service's log".into())?.len();
        Ok(Self { path, file, size })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size + bytes.len() as u64 > LIMIT {
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.file = open_own(&self.path)?;
            self.size = 0;
        }
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_never_grows_past_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("portal.log");
        let mut log = Log::open(path.clone()).unwrap();
        let chunk = vec![b'x'; 1 << 20];
        (0..20).for_each(|_| log.append(&chunk).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 4 << 20);
        assert_eq!(std::fs::metadata(path.with_extension("log.1")).unwrap().len(), 16 << 20);
    }
}
