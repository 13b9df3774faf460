//! Questions to control on behalf of single requests: from any thread, over the node's one channel, and the answers back.
//!
//! Bounded at each step: what cannot be asked now is refused at once, and nobody waits longer than a client would.

use std::collections::HashMap;
use std::time::Duration;

use ringfence_snapshot::node::{Ask, NoAnswer, NoAnswerCode, Told};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Questions that wait to be sent, and questions that wait for an answer.
const QUEUE: usize = 1024;
const MAX_OPEN: usize = 4096;
/// How long an answer may take. Control and the federation process give up earlier.
const PATIENCE: Duration = Duration::from_secs(15);

type Outcome = Result<Told, NoAnswer>;

/// Where threads ask.
#[derive(Debug)]
pub(crate) struct Asks {
    sender: mpsc::Sender<Asked>,
}

/// A question on its way.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) ask: Ask,
    answer: oneshot::Sender<Outcome>,
}

/// Questions that control has, by number.
#[derive(Debug, Default)]
pub(crate) struct Open {
    last: u64,
    open: HashMap<u64, oneshot::Sender<Outcome>>,
}

fn unavailable(reason: &str) -> NoAnswer {
    NoAnswer::new(NoAnswerCode::Unavailable, reason)
}

impl Asks {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Asked>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self { sender }, receiver)
    }

    /// What control says.
    pub(crate) async fn ask(&self, ask: Ask) -> Outcome {
        let (answer, told) = oneshot::channel();
        if self.sender.try_send(Asked { ask, answer }).is_err() {
            return Err(NoAnswer::new(NoAnswerCode::Busy, "too many questions to control wait already"));
        }
        match timeout(PATIENCE, told).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(unavailable("control is gone, and with it the answer")),
            Err(_) => Err(unavailable("control gave no answer in time")),
        }
    }
}

impl Open {
    /// The number under which to ask, and what; `None` when it was refused at once.
    pub(crate) fn enter(&mut self, Asked { ask, answer }: Asked) -> Option<(u64, Ask)> {
        if self.open.len() >= MAX_OPEN {
            // Whoever gave up waiting makes room.
            self.open.retain(|_, answer| !answer.is_closed());
        }
        if self.open.len() >= MAX_OPEN {
            let _ = answer.send(Err(NoAnswer::new(NoAnswerCode::Busy, "too many questions are open")));
            return None;
        }
        self.last += 1;
        self.open.insert(self.last, answer);
        Some((self.last, ask))
    }

    pub(crate) fn answered(&mut self, number: u64, outcome: Outcome) {
        if let Some(answer) = self.open.remove(&number) {
            let _ = answer.send(outcome);
        }
    }

    /// Nobody will answer what is open.
    pub(crate) fn lost(&mut self) {
        self.open.clear();
    }

    /// What to say when nobody can be asked.
    pub(crate) fn gone() -> NoAnswer {
        unavailable("control cannot be reached")
    }

    /// There is nobody to ask.
    pub(crate) fn refuse(asked: Asked) {
        let _ = asked.answer.send(Err(Self::gone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask() -> Ask {
        Ask::Introspect { provider: "staff".into(), token: ringfence_keys::Secret::new("x".to_owned()) }
    }

    #[tokio::test]
    async fn each_question_gets_its_own_answer_and_none_waits_for_a_control_that_is_gone() {
        let (asks, mut asked) = Asks::new();
        let mut open = Open::default();
        let control = async {
            let (first, _) = open.enter(asked.recv().await.unwrap()).unwrap();
            let (second, _) = open.enter(asked.recv().await.unwrap()).unwrap();
            open.answered(second, Ok(Told::LoggedOut));
            open.answered(second, Err(unavailable("twice")));
            open.answered(77, Ok(Told::LoggedOut));
            open.answered(first, Err(unavailable("no")));
            let (_, _) = open.enter(asked.recv().await.unwrap()).unwrap();
            open.lost();
            Open::refuse(asked.recv().await.unwrap());
        };
        let (first, second, third, fourth, ()) =
            tokio::join!(asks.ask(ask()), asks.ask(ask()), asks.ask(ask()), asks.ask(ask()), control);
        assert_eq!(first.unwrap_err().reason, "no");
        assert!(matches!(second, Ok(Told::LoggedOut)));
        for lost in [third, fourth] {
            assert_eq!(lost.unwrap_err().code, NoAnswerCode::Unavailable);
        }
    }

    #[tokio::test]
    async fn a_flood_of_questions_is_refused_at_once() {
        let (asks, _asked) = Asks::new();
        let asks = &asks;
        let waiting: Vec<_> = (0..QUEUE)
            .map(|_| {
                let (answer, told) = oneshot::channel();
                asks.sender.try_send(Asked { ask: ask(), answer }).unwrap();
                told
            })
            .collect();
        assert_eq!(asks.ask(ask()).await.unwrap_err().code, NoAnswerCode::Busy);
        drop(waiting);
    }
}
