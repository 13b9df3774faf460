//! Work that takes so long that a thread's other connections would wait for it, done on a thread beside it.
//!
//! What is short is done at once: it costs less than to hand it over. One thing at a time is done beside each thread, in the order in
//! which they came, so that what takes long waits for what takes long and for nothing else, and the I/O threads keep their share of
//! the processors. A pool of its own was rejected: the runtime has one, which starts a thread when there is work and ends it later.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Whoever waits longer for a turn gives way: there is more to do than can be done. What is long may wait longer, as it takes longer.
const PATIENCE: Duration = Duration::from_secs(2);
/// For each MiB of it.
const MORE_PATIENCE: Duration = Duration::from_secs(2);

/// Beside one thread.
#[derive(Debug)]
pub(crate) struct Apart(Arc<Semaphore>);

impl Default for Apart {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

/// Why nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Undone {
    /// Its turn did not come in time.
    Busy,
    /// It panicked.
    Broken,
}

impl Apart {
    /// Has `work` on so many bytes done beside this thread. Whoever stops waiting takes no other's turn: what has begun is done to its end.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Undone> {
        let patience =
            PATIENCE + MORE_PATIENCE.saturating_mul(u32::try_from(bytes >> 20).unwrap_or(u32::MAX));
        let turn = timeout(patience, self.0.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| Undone::Busy)?.map_err(|_| Undone::Broken)?;
        let done = spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await.map_err(|_| Undone::Broken)
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn one_thing_at_a_time_and_the_thread_goes_on_meanwhile() {
        let apart = Rc::new(Apart::default());
        let (go, wait) = mpsc::channel::<()>();
        let (told, hears) = tokio::sync::oneshot::channel();
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let first = {
                    let apart = apart.clone();
                    tokio::task::spawn_local(async move {
                        let work = move || {
                            told.send(()).unwrap();
                            wait.recv().unwrap();
                        };
                        apart.run(0, work).await
                    })
                };
                hears.await.unwrap();
                // Whoever waits for it is gone; it is done to its end all the same, and nothing else before.
                first.abort();
                assert!(first.await.unwrap_err().is_cancelled());
                assert_eq!(apart.0.available_permits(), 0);
                // Nobody waits for ever.
                assert_eq!(apart.run(0, || 6).await, Err(Undone::Busy));
                go.send(()).unwrap();
                assert_eq!(apart.run(0, || 7).await, Ok(7));
                assert_eq!(apart.run(0, || panic!("in vain")).await, Err::<(), _>(Undone::Broken));
                assert_eq!(apart.run(0, || 8).await, Ok(8));
            })
            .await;
    }
}
