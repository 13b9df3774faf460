//! A program that follows orders: a line of JSON each, answered by one.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::running::eventually;

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
        let mut first = String::new();
        output.read_line(&mut first).unwrap();
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
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let said: Value =
            serde_json::from_str(&line).unwrap_or_else(|e| panic!("{order}: {e}: {line}\n{}", self.log()));
        assert!(said["failed"].is_null(), "{order}: {}\n{}", said["failed"], self.log());
        said["done"].clone()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
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
