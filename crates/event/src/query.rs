//! Reading events back: merged over producers in order of time, filtered, followed.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::place::open_believed;

/// Longest line that is read; a longer one is not ours.
pub(crate) const MAX_LINE: u64 = 64 * 1024;

/// One event as read, with the producer that its file names.
#[derive(Clone, Debug)]
pub struct Record {
    /// Who wrote it: the file, not a field.
    pub producer: String,
    /// The OCSF event.
    pub json: Value,
}

/// Which records are wanted; an empty filter wants all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Caller, callee or name of a service.
    pub service: Option<String>,
    /// `call`, `connection`, `dial`, `scan`, `tamper`, `lifecycle`, `entity`.
    pub kind: Option<String>,
    /// Only what was denied.
    pub denied: bool,
    /// Only this trace id.
    pub trace: Option<String>,
    /// Only this event id.
    pub id: Option<String>,
    /// Not before this Unix time in milliseconds.
    pub since_ms: u64,
}

impl Record {
    /// Unix time in milliseconds.
    pub fn time_ms(&self) -> u64 {
        self.json["time"].as_u64().unwrap_or(0)
    }

    /// The kind, as [`Filter::kind`] names it.
    pub fn kind(&self) -> &'static str {
        kind_name(self.json["class_uid"].as_u64(), self.json["unmapped"]["event"].as_str())
    }

    /// Whether it tells of something refused.
    pub fn denied(&self) -> bool {
        self.json["action_id"] == 2
    }

    /// Its text, where it has one.
    pub fn message(&self) -> &str {
        self.json["message"].as_str().or_else(|| self.json["status_detail"].as_str()).unwrap_or("")
    }

    /// Who acted: a service's name, or `outside`.
    pub fn caller(&self) -> &str {
        let json = &self.json;
        [
            &json["src_endpoint"]["svc_name"],
            &json["app"]["name"],
            &json["unmapped"]["service"],
            &json["entity"]["name"],
        ]
        .into_iter()
        .find_map(Value::as_str)
        .unwrap_or("")
    }

    /// Who was acted on.
    pub fn callee(&self) -> &str {
        self.json["dst_endpoint"]["svc_name"].as_str().unwrap_or("")
    }

    /// The trace id.
    pub fn trace(&self) -> Option<&str> {
        self.json["trace"]["uid"].as_str()
    }

    /// One line for a person, without colour: time, verdict, what happened, why.
    pub fn line(&self) -> String {
        let json = &self.json;
        let time =
            humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + Duration::from_millis(self.time_ms()));
        let verdict = match (self.denied(), json["status_id"] == 2) {
            (true, _) => "deny ",
            (_, true) => "fail ",
            _ => "     ",
        };
        let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
        let what = match self.kind() {
            "call" => format!(
                "{} → {} {} {} {}",
                self.caller(),
                self.callee(),
                text(&json["http_request"]["http_method"]),
                text(&json["http_request"]["url"]["path"]),
                json["http_response"]["code"],
            ),
            "connection" => format!("{} → {}:{}", self.caller(), self.callee(), json["dst_endpoint"]["port"]),
            "dial" => {
                let endpoint = &json["dst_endpoint"];
                let target = match endpoint["hostname"].as_str() {
                    Some(name) => format!("name {name}"),
                    None => format!("{}:{}", text(&endpoint["ip"]), endpoint["port"]),
                };
                format!(
                    "{} dialled {} ({}, {}×): no edge leads there",
                    self.caller(),
                    target,
                    text(&json["connection_info"]["protocol_name"]),
                    json["count"]
                )
            }
            "scan" => format!(
                "{} searches its network: {} ports, {} addresses, {} packets",
                self.caller(),
                json["unmapped"]["ports"],
                json["unmapped"]["addresses"],
                json["count"]
            ),
            "tamper" => format!("{} reached for what is not its own ({}×)", self.caller(), json["count"]),
            "entity" => format!("{} {}", text(&json["entity"]["type"]), text(&json["entity"]["name"])),
            _ => self.caller().to_owned(),
        };
        let mut line = format!("{time} {verdict} {what}");
        if !self.message().is_empty() {
            line.push_str(": ");
            line.push_str(self.message());
        }
        for (label, value) in [
            ("at", &json["unmapped"]["position"]),
            ("would need", &json["unmapped"]["missing"]),
            ("trace", &json["trace"]["uid"]),
        ] {
            if let (Some(value), true) = (value.as_str(), self.denied()) {
                line.push_str(&format!("; {label} {value}"));
            }
        }
        line
    }
}

impl Filter {
    /// Whether this record is wanted.
    pub fn wants(&self, record: &Record) -> bool {
        let is =
            |wanted: &Option<String>, value: Option<&str>| wanted.as_deref().is_none_or(|w| Some(w) == value);
        record.time_ms() >= self.since_ms
            && (!self.denied || record.denied())
            && is(&self.kind, Some(record.kind()))
            && is(&self.trace, record.trace())
            && is(&self.id, record.json["metadata"]["uid"].as_str())
            && self.service.as_deref().is_none_or(|s| record.caller() == s || record.callee() == s)
    }
}

/// The kind of a class and of what `unmapped.event` says.
pub(crate) fn kind_name(class: Option<u64>, event: Option<&str>) -> &'static str {
    match (class, event) {
        (Some(4002), _) => "call",
        (Some(4001), Some("dial")) => "dial",
        (Some(4001), _) => "connection",
        (Some(2004), Some("tamper")) => "tamper",
        (Some(2004), _) => "scan",
        (Some(6002), _) => "lifecycle",
        (Some(3004), _) => "entity",
        _ => "other",
    }
}

/// All wanted records of a folder of `PRODUCER[.N|.kept].jsonl`, in order of time. Lines that are not events are passed over.
///
/// # Errors
/// A file that exists cannot be read.
pub fn read_dir(dir: &Path, filter: &Filter) -> io::Result<Vec<Record>> {
    let mut records = Vec::new();
    for (path, producer) in files(dir)? {
        read_from(&path, &producer, 0, filter, &mut records)?;
    }
    records.sort_by_key(Record::time_ms);
    Ok(records)
}

/// Inode numbers are used again, at once where a file is made just after one was removed: when it was made tells them apart.
type Identity = (u64, Option<SystemTime>);

fn identity(metadata: &std::fs::Metadata) -> Identity {
    (metadata.ino(), metadata.created().ok())
}

/// Follows a folder: each call of [`Self::poll`] returns what has come since.
#[derive(Debug)]
pub struct Follow {
    dir: PathBuf,
    filter: Filter,
    /// By file and not by name, so that a rotation neither repeats nor loses.
    offsets: HashMap<Identity, u64>,
}

impl Follow {
    /// Starts at the present end of each file.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn from_now(dir: &Path, filter: Filter) -> io::Result<Self> {
        let mut offsets = HashMap::new();
        for (path, _) in files(dir)? {
            let metadata = path.symlink_metadata()?;
            offsets.insert(identity(&metadata), metadata.len());
        }
        Ok(Self { dir: dir.to_owned(), filter, offsets })
    }

    /// What has come since the last call, in order of time.
    ///
    /// # Errors
    /// A file that exists cannot be read.
    pub fn poll(&mut self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        // What is kept of older files was seen in them.
        for (path, producer) in files(&self.dir)?.into_iter().filter(|(path, _)| !is_kept(path)) {
            let Ok(metadata) = path.symlink_metadata() else { continue };
            let offset = self.offsets.entry(identity(&metadata)).or_insert(0);
            if metadata.len() > *offset {
                *offset = read_from(&path, &producer, *offset, &self.filter, &mut records)?;
            }
        }
        records.sort_by_key(Record::time_ms);
        Ok(records)
    }
}

/// The folder's files, and those of the folders in it that belong to one producer each: what may write there may write
/// nowhere else, and nothing else in its name.
fn files(dir: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    for path in entries(dir)? {
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
        if !metadata.is_dir() {
            files.extend(producer(&path).map(|name| (path.clone(), name)));
            continue;
        }
        let owner = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if metadata.uid() == std::fs::metadata(dir)?.uid() {
            let own = entries(&path)?.into_iter().filter(|file| producer(file).as_deref() == Some(owner));
            files.extend(own.map(|file| (file, owner.to_owned())));
        }
    }
    files.sort();
    Ok(files)
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| entry.map(|e| e.path())).collect(),
    }
}

fn is_kept(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.ends_with(".kept.jsonl"))
}

/// Who wrote `PRODUCER.jsonl`, `PRODUCER.N.jsonl` or `PRODUCER.kept.jsonl`.
fn producer(path: &Path) -> Option<String> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".jsonl")?;
    match stem.rsplit_once('.') {
        Some((producer, n)) if n == "kept" || n.parse::<u32>().is_ok() => Some(producer.to_owned()),
        _ => Some(stem.to_owned()),
    }
}

/// Reads whole lines from `offset` on; returns the offset behind the last whole line.
fn read_from(
    path: &Path,
    producer: &str,
    offset: u64,
    filter: &Filter,
    records: &mut Vec<Record>,
) -> io::Result<u64> {
    let Some(mut file) = open_believed(path, producer)? else { return Ok(offset) };
    file.seek(SeekFrom::Start(offset))?;
    let mut reader = BufReader::new(file);
    let (mut line, mut end) = (Vec::new(), offset);
    loop {
        line.clear();
        let n = io::Read::take(&mut reader, MAX_LINE).read_until(b'\n', &mut line)?;
        if n == 0 || (line.last() != Some(&b'\n') && (n as u64) < MAX_LINE) {
            return Ok(end);
        }
        end += n as u64;
        if let Ok(json @ Value::Object(_)) = serde_json::from_slice(&line) {
            let record = Record { producer: producer.to_owned(), json };
            if filter.wants(&record) {
                records.push(record);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_with_a_folder_of_its_own_speaks_in_no_other_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("node")).unwrap();
        for file in [
            "shim-portal.jsonl",
            "node/node.jsonl",
            "node/node.1.jsonl",
            "node/control.jsonl",
            "node/up.2.jsonl",
        ] {
            std::fs::write(dir.path().join(file), "{\"time\":1}\n").unwrap();
        }
        let records = read_dir(dir.path(), &Filter::default()).unwrap();
        let mut producers: Vec<&str> = records.iter().map(|r| r.producer.as_str()).collect();
        producers.sort_unstable();
        assert_eq!(producers, ["node", "node", "shim-portal"]);
    }
}
