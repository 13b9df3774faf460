//! Where control keeps its state: a file of its own, or a database that the operator names.
//!
//! Which of the two it is, is written down beside the file: a start that forgot to name the database would otherwise begin with an empty
//! state, in which nothing was ever revoked. For the same reason a database must not be older than what this machine has seen of it.
//! While the database is away at a start, control answers that it waits and for what, and misses nothing that it is told meanwhile.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::StatusCode;
use ringfence_channel::{Receiver, Sender};
use ringfence_store::{Durability, Place, Store, StoreError};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::ControlError;
use crate::api::Question;
use crate::state::State;
use crate::supervisor::{FromControl, ToControl};

/// The file of the state, and the note of where it is instead, in control's folder.
const FILE: &str = "state.db";
const NOTE: &str = "store.json";
/// Pause between attempts, at first and at most.
const SOON: Duration = Duration::from_millis(200);
const LATER: Duration = Duration::from_secs(2);
/// How often it is told what is waited for.
const TELL: Duration = Duration::from_secs(10);
/// Most messages that are kept meanwhile; a supervisor that says more is told to begin again.
const KEPT: usize = 65_536;

/// Which store the operator chose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chosen {
    /// The database.
    pub place: Place,
    /// How long to wait for it, in seconds; without, for ever: the fence is in force already.
    pub patience: Option<u64>,
}

/// The note: the state is in a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// Where it was last, for people.
    pub store: String,
    /// A revision that it had there.
    pub revision: u64,
}

impl Note {
    /// The note in control's folder, if there is one.
    ///
    /// # Errors
    /// It cannot be read: then it is not known where the state is.
    pub fn read(folder: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(folder.join(NOTE)) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(io::Error::other),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Writes it, durably.
    ///
    /// # Errors
    /// The disk.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let (path, new) = (folder.join(NOTE), folder.join("store.json.new"));
        std::fs::write(&new, serde_json::to_vec(self).map_err(io::Error::other)?)?;
        std::fs::File::open(&new)?.sync_all()?;
        std::fs::rename(new, path)?;
        std::fs::File::open(folder)?.sync_all()
    }
}

/// The file that holds the state of a fence without a database.
#[must_use]
pub fn file(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// What was said while control waited.
type Meanwhile = Vec<(ToControl, Vec<OwnedFd>)>;

/// Opens the state; answers what the supervisor said meanwhile too. What a person has to mend is told as the end of `up`.
pub(crate) async fn open(
    folder: &Path,
    chosen: Option<&Chosen>,
    inbox: &mut Receiver<ToControl>,
    questions: &mut mpsc::Receiver<Question>,
    supervisor: &Sender<FromControl>,
) -> Result<Option<(State, Meanwhile)>, ControlError> {
    let Some(chosen) = chosen else {
        let state = match Note::read(folder)? {
            None => return Ok(Some((State::open(&file(folder)).await?, Vec::new()))),
            Some(note) => format!(
                "the state of this fence is in a database, last at {}: start with --store and its address",
                note.store
            ),
        };
        supervisor.send(&FromControl::Fatal(state.clone()), &[]).await?;
        return Err(ControlError::Home(state));
    };
    let mut meanwhile = Vec::new();
    let (tell, mut told) = mpsc::channel(4);
    let connecting = connect(folder, chosen, tell);
    tokio::pin!(connecting);
    loop {
        tokio::select! {
            opened = &mut connecting => match opened {
                Ok(state) => return Ok(Some((state, meanwhile))),
                Err(reason) => {
                    supervisor.send(&FromControl::Fatal(reason.clone()), &[]).await?;
                    return Err(ControlError::Home(reason));
                }
            },
            Some(line) = told.recv() => {
                supervisor.send(&FromControl::Waiting(line), &[]).await?;
            }
            message = inbox.recv() => match message {
                Ok(_) if meanwhile.len() >= KEPT => {
                    return Err(ControlError::Protocol("more was said than is kept while the database is away"));
                }
                Ok(message) => {
                    // Only the last report counts.
                    if matches!(message.0, ToControl::Report(_)) {
                        meanwhile.retain(|(kept, _)| !matches!(kept, ToControl::Report(_)));
                    }
                    meanwhile.push(message);
                }
                Err(ringfence_channel::ChannelError::Closed) => return Ok(None),
                Err(e) => return Err(e.into()),
            },
            Some((_, answer)) = questions.recv() => {
                let why = format!("control waits for the database {}", chosen.place);
                let _ = answer.send(Err((StatusCode::SERVICE_UNAVAILABLE, why)));
            }
        }
    }
}

/// Connects until it works, or patience or hope is at its end.
async fn connect(folder: &Path, chosen: &Chosen, tell: mpsc::Sender<String>) -> Result<State, String> {
    let Chosen { place, patience } = chosen;
    let (start, mut pause, mut last) = (Instant::now(), SOON, None::<(String, Instant)>);
    loop {
        let failure = match attempt(folder, place).await {
            Ok(state) => return Ok(state),
            Err(failure) => failure,
        };
        let reason = failure.to_string();
        let passes = matches!(failure, StoreError::Unavailable(_));
        match patience {
            Some(_) if !passes => return Err(format!("{place}: {reason}")),
            Some(patience) if start.elapsed() >= Duration::from_secs(*patience) => {
                return Err(format!("{place}: {reason} (waited {patience} s, see --store-wait)"));
            }
            _ => {}
        }
        if last.as_ref().is_none_or(|(said, at)| *said != reason || at.elapsed() >= TELL) {
            let _ = tell.try_send(format!("control waits for the database {place}: {reason}"));
            last = Some((reason, Instant::now()));
        }
        sleep(pause).await;
        pause = (pause * 2).min(LATER);
    }
}

async fn attempt(folder: &Path, place: &Place) -> Result<State, StoreError> {
    let setup = |why: String| StoreError::Setup(why);
    let note = Note::read(folder).map_err(|e| StoreError::Io(folder.join(NOTE), e))?;
    if note.is_none() && file(folder).exists() {
        return Err(setup(format!(
            "there is state in {}: move it with `ringfence store migrate --to …` first, or start without --store",
            file(folder).display()
        )));
    }
    let store = Store::connect(place.postgres()?, Durability::Full).await?;
    let seen = note.as_ref().map_or(0, |note| note.revision);
    if store.revision() < seen {
        return Err(setup(format!(
            "the database stands at revision {}, this fence has seen {seen} there: it is another database, or an old copy",
            store.revision()
        )));
    }
    Ok(State::of_database(store, place.clone(), folder.to_owned(), note.is_some()))
}
