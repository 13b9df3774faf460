//! Channels that ended while the processes at their ends did not.
//!
//! Whoever speaks nonsense over a channel has a fault or was taken over: it is ended, and a fresh process takes its place. Two
//! that only lost their channel are introduced to each other anew. Giving such a process another channel was rejected, since it
//! would go on with the state that made it speak so.

use std::time::Duration;

use ringfence_event::{LifecycleActivity, Severity};

use super::child::Life;
use super::news::News;
use super::{Supervisor, UpError};

/// How long after its end a channel is replaced: an end of the process behind it is known by then, and two that part at once
/// every time do not keep everybody busy.
const PAUSE: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Control lost the node.
    pub(super) fn lost(&mut self, introduction: u64, nonsense: Option<String>) {
        if !self.peers.is_last(introduction) {
            return;
        }
        if let Some(reason) = nonsense {
            return self.distrust(self.peers.node(), &format!("to control: {reason}"));
        }
        let news = self.news.clone();
        tokio::spawn(async move {
            tokio::time::sleep(PAUSE).await;
            let _ = news.send(News::Parted { introduction }).await;
        });
    }

    /// They had no channel for a moment; if both still run and nobody gave them one, they get one.
    pub(super) async fn parted(&mut self, introduction: u64) -> Result<(), UpError> {
        if !self.peers.is_last(introduction) {
            return Ok(());
        }
        let message = "control and node lost their channel; they are introduced to each other again";
        self.say(message);
        self.event("node", LifecycleActivity::Update, message, Severity::Medium);
        self.peers.introduce_again().await
    }

    /// Ends a process that speaks nonsense, or that does not end with its channel; it is started again then.
    pub(super) fn distrust(&mut self, life: Life, reason: &str) {
        if self.peers.end(life) {
            let name = life.role.name();
            let message = format!("{name} is ended, because its channel failed: {reason}");
            self.say(&message);
            self.event(name, LifecycleActivity::Stop, &message, Severity::High);
        }
    }
}
