//! Questions to the federation process on behalf of requests: numbered, bounded, and answered in any order.
//!
//! Answers do not pass through control's loop, so a provider that is slow holds up nobody but who asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringfence_oidc::protocol::{Outcome, Refusal, RefusalCode, ToFederation};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Most questions that are under way: as many as that process takes.
const MAX_ASKED: usize = 256;
/// Most of them about one provider, so that one that is slow takes no other's place.
const MAX_OF_ONE: usize = MAX_ASKED / 2;
/// How long an answer may take. That process gives up on a provider sooner.
const PATIENCE: Duration = Duration::from_secs(30);

/// A handle for whoever asks; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asker(Arc<Mutex<Asked>>);

#[derive(Debug, Default)]
struct Asked {
    /// Numbers are never used twice, so that a late answer of a process before is nobody's.
    next: u64,
    queue: Option<mpsc::Sender<ToFederation>>,
    waiting: HashMap<u64, Question>,
}

#[derive(Debug)]
struct Question {
    provider: String,
    answer: oneshot::Sender<Result<Outcome, Refusal>>,
}

impl Asker {
    /// The process was started; what it is asked from now on comes out of the queue. What another life of it was asked is not answered.
    pub(crate) fn connect(&self) -> mpsc::Receiver<ToFederation> {
        let (queue, questions) = mpsc::channel(MAX_ASKED);
        let mut asked = self.asked();
        asked.queue = Some(queue);
        asked.waiting.clear();
        questions
    }

    /// An answer came.
    pub(crate) fn answered(&self, request: u64, outcome: Result<Outcome, Refusal>) {
        if let Some(Question { answer, .. }) = self.asked().waiting.remove(&request) {
            let _ = answer.send(outcome);
        }
    }

    /// Asks something about a provider, and waits for the answer.
    pub(crate) async fn ask(
        &self,
        provider: &str,
        question: impl FnOnce(u64) -> ToFederation,
    ) -> Result<Outcome, Refusal> {
        self.ask_within(PATIENCE, provider, question).await
    }

    async fn ask_within(
        &self,
        patience: Duration,
        provider: &str,
        question: impl FnOnce(u64) -> ToFederation,
    ) -> Result<Outcome, Refusal> {
        let (request, answer) = self.put(provider, question)?;
        let waiting = Waiting { asker: self, request };
        let outcome = timeout(patience, answer).await;
        drop(waiting);
        match outcome {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(gone()),
            Err(_) => Err(refusal(RefusalCode::Unavailable, "the provider did not answer in time")),
        }
    }

    fn put(
        &self,
        provider: &str,
        question: impl FnOnce(u64) -> ToFederation,
    ) -> Result<(u64, oneshot::Receiver<Result<Outcome, Refusal>>), Refusal> {
        let mut asked = self.asked();
        let of_it = asked.waiting.values().filter(|waiting| waiting.provider == provider).count();
        if asked.waiting.len() >= MAX_ASKED || of_it >= MAX_OF_ONE {
            return Err(refusal(RefusalCode::Busy, "too many requests to OpenID providers are under way"));
        }
        asked.next += 1;
        let (request, (answer, wait)) = (asked.next, oneshot::channel());
        let queue = asked.queue.as_ref().ok_or_else(gone)?;
        queue.try_send(question(request)).map_err(|_| gone())?;
        asked.waiting.insert(request, Question { provider: provider.to_owned(), answer });
        Ok((request, wait))
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever does not wait any more leaves nothing behind.
struct Waiting<'a> {
    asker: &'a Asker,
    request: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.asker.asked().waiting.remove(&self.request);
    }
}

fn gone() -> Refusal {
    refusal(RefusalCode::Unavailable, "the process that speaks with OpenID providers is being restarted")
}

fn refusal(code: RefusalCode, reason: &str) -> Refusal {
    Refusal { code, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(request: u64) -> ToFederation {
        ToFederation::LogoutToken { request, provider: "staff".into(), token: String::new() }
    }

    fn end(url: &str) -> Result<Outcome, Refusal> {
        Ok(Outcome::EndSession { url: url.to_owned() })
    }

    #[tokio::test]
    async fn answers_find_their_questions_in_any_order_and_only_once() {
        let asker = Asker::default();
        assert_eq!(
            asker.ask("staff", question).await.unwrap_err().code,
            RefusalCode::Unavailable,
            "nobody is there"
        );
        let mut questions = asker.connect();
        let both = async { tokio::join!(asker.ask("staff", question), asker.ask("staff", question)) };
        let answers = async {
            let mut numbers = Vec::new();
            while numbers.len() < 2 {
                if let Some(ToFederation::LogoutToken { request, .. }) = questions.recv().await {
                    numbers.push(request);
                }
            }
            for number in numbers.iter().rev() {
                asker.answered(*number, end(&number.to_string()));
                asker.answered(*number, end("again"));
            }
            numbers
        };
        let ((first, second), numbers) = tokio::join!(both, answers);
        for (outcome, number) in [first, second].into_iter().zip(numbers) {
            assert!(matches!(outcome, Ok(Outcome::EndSession { url }) if url == number.to_string()));
        }
    }

    #[tokio::test]
    async fn no_more_than_its_bound_waits_and_a_restart_answers_all() {
        let asker = Asker::default();
        let _questions = asker.connect();
        let mut tasks = Vec::new();
        for provider in ["staff", "partners"] {
            let before = asker.asked().waiting.len();
            for _ in 0..MAX_OF_ONE {
                let asker = asker.clone();
                tasks.push(tokio::spawn(async move { asker.ask(provider, question).await }));
            }
            while asker.asked().waiting.len() < before + MAX_OF_ONE {
                tokio::task::yield_now().await;
            }
            assert_eq!(asker.ask(provider, question).await.unwrap_err().code, RefusalCode::Busy);
        }
        assert_eq!(asker.ask("third", question).await.unwrap_err().code, RefusalCode::Busy);
        let _others = asker.connect();
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap_err().code, RefusalCode::Unavailable);
        }
        assert!(asker.asked().waiting.is_empty());
        asker.answered(1, end("late"));
    }

    #[tokio::test]
    async fn whoever_gives_up_waiting_leaves_nothing_behind() {
        let asker = Asker::default();
        let _questions = asker.connect();
        let outcome = asker.ask_within(Duration::from_millis(20), "staff", question).await;
        assert_eq!(outcome.unwrap_err().reason, "the provider did not answer in time");
        assert!(asker.asked().waiting.is_empty());
    }
}
