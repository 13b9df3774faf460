//! A program that follows orders: a line of JSON each, answered by one.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use crate::running::eventually;

/// How long it may take for an answer.
const ANSWER: Duration = Duration::from_secs(120);
/// How long it may take to end once nobody talks to it any more.
const END: Duration = Duration::from_secs(30);

pub(crate) struct Talk {
    child: Child,
    pipes: RefCell<Option<(ChildStdin, BufReader<ChildStdout>)>>,
    log: PathBuf,
}

impl Talk {
    /// Starts it, and waits for its first line. What it says besides goes to `log`.
    pub(crate) fn start(command: &mut Command, log: PathBuf) -> (Self, String) {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let first = line(&mut output, &log);
        let pipes = RefCell::new(Some((child.stdin.take().unwrap(), output)));
        let talk = Self { child, pipes, log };
        assert!(!first.is_empty(), "{command:?} failed: {}", talk.log());
        (talk, first.trim().to_owned())
    }

    /// Has it do something: what it says then.
    pub(crate) fn order(&self, order: &Value) -> Value {
        let mut pipes = self.pipes.borrow_mut();
        let (input, output) = pipes.as_mut().unwrap();
        writeln!(input, "{order}").unwrap();
        let line = line(output, &self.log);
        let said: Value =
            serde_json::from_str(&line).unwrap_or_else(|e| panic!("{order}: {e}: {line}\n{}", self.log()));
        assert!(said["failed"].is_null(), "{order}: {}\n{}", said["failed"], self.log());
        said["done"].clone()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// The next line of a program that answers in time.
fn line(output: &mut BufReader<ChildStdout>, log: &Path) -> String {
    let patience = Timespec { tv_sec: ANSWER.as_secs() as i64, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(output.get_ref(), PollFlags::IN)], Some(&patience)).unwrap();
    assert!(ready > 0, "no answer: {}", std::fs::read_to_string(log).unwrap_or_default());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.pipes.take();
        if eventually(END, || self.child.try_wait().unwrap()).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{} says:\n{}", self.log.display(), self.log());
        }
    }
}
