//! Telling: the whole list to whoever is introduced, in parts that fit into a message, and each change from then on.

use std::time::Duration;

use ringfence_keeper::{Client, ClientError};
use ringfence_snapshot::node::{MAX_REVOCATIONS, Revocations as Told, ToProxy};
use ringfence_token::Revocation;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::nodes::Teller;

use super::{Change, Revocations, lock};

/// Bytes of names in one message, about.
const MAX_PART: usize = 1024 * 1024;
/// How long to wait after trouble.
const PAUSE: Duration = Duration::from_secs(1);

/// Who is told.
trait Listener: Send + Sync {
    /// Says it.
    fn say(&self, told: Told) -> impl Future<Output = Result<(), Trouble>> + Send;
}

/// Why it could not be said.
enum Trouble {
    /// Nobody listens any more.
    Gone,
    /// It was not understood, or not taken: the whole list again, in a moment.
    Refused,
}

impl Listener for Teller {
    async fn say(&self, told: Told) -> Result<(), Trouble> {
        self.send(&ToProxy::Revocations(told)).await.map_err(|_| Trouble::Gone)
    }
}

impl Listener for Client {
    async fn say(&self, told: Told) -> Result<(), Trouble> {
        self.revocations(told).await.map_err(|e| match e {
            ClientError::Gone => Trouble::Gone,
            _ => Trouble::Refused,
        })
    }
}

impl Revocations {
    /// Tells one proxy, until its channel ends.
    pub(crate) fn tell(&self, sender: Teller) -> impl Future<Output = ()> + Send + use<> {
        self.clone().tell_all(sender)
    }

    /// Tells the keeper, until it is another.
    pub(crate) fn tell_keeper(&self, keeper: Client) -> impl Future<Output = ()> + Send + use<> {
        self.clone().tell_all(keeper)
    }

    async fn tell_all(self, listener: impl Listener) {
        // Whatever is stored from here on comes as a change too.
        let mut changes = self.0.changes.subscribe();
        loop {
            match self.tell_until_trouble(&listener, &mut changes).await {
                Trouble::Gone => return,
                Trouble::Refused => tokio::time::sleep(PAUSE).await,
            }
            changes = changes.resubscribe();
        }
    }

    async fn tell_until_trouble(
        &self,
        listener: &impl Listener,
        changes: &mut broadcast::Receiver<Change>,
    ) -> Trouble {
        loop {
            if let Err(trouble) = self.tell_list(listener).await {
                return trouble;
            }
            loop {
                match changes.recv().await {
                    Ok(Change::Added(one)) => {
                        if let Err(trouble) = listener.say(Told::Added(vec![one])).await {
                            return trouble;
                        }
                    }
                    Ok(Change::Removed) | Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return Trouble::Gone,
                }
            }
            // What changed meanwhile is in the list that comes now.
            *changes = changes.resubscribe();
        }
    }

    async fn tell_list(&self, listener: &impl Listener) -> Result<(), Trouble> {
        let Ok(all) = self.all().await else {
            // The database is in trouble: a list that is not whole would let in who was revoked.
            return Err(Trouble::Refused);
        };
        let all: Vec<Revocation> = lock(all).values().map(|stored| stored.revocation.clone()).collect();
        let parts = parts(all);
        let count = parts.len();
        for (at, entries) in parts.into_iter().enumerate() {
            let part = Told::Part { first: at == 0, last: at + 1 == count, entries };
            listener.say(part).await?;
        }
        Ok(())
    }
}

/// At least one part, also of nothing.
fn parts(all: Vec<Revocation>) -> Vec<Vec<Revocation>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for one in all {
        // A name has 1024 bytes at most, and so has an issuer.
        bytes += 256 + one.issuer.len() + 1024;
        let last = parts.last_mut().filter(|part| part.len() < MAX_REVOCATIONS && bytes <= MAX_PART);
        match last {
            Some(part) => part.push(one),
            None => {
                bytes = 0;
                parts.push(vec![one]);
            }
        }
    }
    parts
}
