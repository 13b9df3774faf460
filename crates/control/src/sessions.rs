//! Sessions of people who signed in: what it takes to refresh and end them.
//!
//! A session itself is a token in the user's browser. Kept here are whose it is, so that an operator or a provider can end it, and
//! the provider's tokens, sealed: they never reach a browser or a proxy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringfence_keys::{EnvelopeKeys, Secret};
use ringfence_store::{Batch, Store, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

const KIND: &str = "session";
/// Most sessions at once.
const MAX_SESSIONS: usize = 200_000;
/// Most sessions that are forgotten in one write.
const SWEEP: usize = 1000;
/// Number of the key that seals; the keeper always gives the same.
const KEY: u32 = 1;

/// A session, as far as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Session {
    /// The provider in the fence.
    pub(crate) provider: String,
    /// Its issuer when the user signed in: another one under the same name knows nothing of this session.
    pub(crate) issuer: String,
    /// The client that we were there.
    pub(crate) client: String,
    /// The user at the provider, `sub`.
    pub(crate) subject: String,
    /// The user as services know it.
    pub(crate) user: String,
    /// The session at the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sid: Option<String>,
    /// When the user signed in, Unix time in seconds.
    pub(crate) since: u64,
    /// When the provider was asked last.
    pub(crate) refreshed: u64,
    /// Its end.
    pub(crate) expires_at: u64,
}

/// What the provider gave for a session.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tokens {
    /// Asks whether the user still is one.
    pub(crate) refresh: Option<Secret<String>>,
    /// A hint for signing out.
    pub(crate) id: Option<Secret<String>>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
}

/// Why sessions cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionsError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a session's tokens cannot be written: {0}")]
    Encode(#[from] serde_json::Error),
    #[error("there are {MAX_SESSIONS} sessions, and room for no more")]
    Full,
}

/// All sessions. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Sessions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    /// By id; read from the store at first use.
    all: OnceCell<Mutex<BTreeMap<String, Session>>>,
}

impl Sessions {
    pub(crate) fn new(store: Store) -> Self {
        Self(Arc::new(Inner { store, all: OnceCell::new() }))
    }

    /// Keeps a session, new or as it is now.
    pub(crate) async fn keep(
        &self,
        action: &str,
        id: &str,
        session: Session,
        tokens: &Tokens,
        key: &Secret<[u8; 32]>,
    ) -> Result<(), SessionsError> {
        let all = self.all().await?;
        {
            let all = locked(all);
            if all.len() >= MAX_SESSIONS && !all.contains_key(id) {
                return Err(SessionsError::Full);
            }
        }
        let clear = Zeroizing::new(serde_json::to_vec(tokens)?);
        let sealed = envelope(key).seal(&context(id), &clear);
        let detail = json!({ "session": id, "provider": session.provider, "user": session.user });
        let batch = Batch::new(format!("user {} of {}", session.user, session.provider), action)
            .detail(detail)
            .put_sealed(KIND, id, &session, Some(sealed))?;
        self.0.store.apply(batch).await?;
        locked(all).insert(id.to_owned(), session);
        Ok(())
    }

    /// The session of that id, if it has not ended.
    pub(crate) async fn find(&self, id: &str, now: u64) -> Result<Option<Session>, StoreError> {
        let all = self.all().await?;
        Ok(locked(all).get(id).filter(|session| now < session.expires_at).cloned())
    }

    /// What the provider gave for a session; nothing if it was sealed under another key, or altered.
    pub(crate) async fn tokens(&self, id: &str, key: &Secret<[u8; 32]>) -> Result<Tokens, StoreError> {
        let document = self.0.store.get(KIND, id).await?;
        let sealed = document.and_then(|document| document.sealed);
        let open = |sealed: Vec<u8>| {
            let clear = envelope(key).open(&context(id), &sealed)?;
            serde_json::from_slice(clear.expose()).ok()
        };
        Ok(sealed.and_then(open).unwrap_or_default())
    }

    /// Forgets a session that was ended by `actor`.
    pub(crate) async fn forget(
        &self,
        actor: &str,
        action: &str,
        id: &str,
    ) -> Result<Option<Session>, StoreError> {
        let all = self.all().await?;
        let Some(session) = locked(all).get(id).cloned() else { return Ok(None) };
        let detail = json!({ "session": id, "provider": session.provider, "user": session.user });
        let batch = Batch::new(actor, action).detail(detail).delete(KIND, id);
        self.0.store.apply(batch).await?;
        Ok(locked(all).remove(id))
    }

    /// Those that have not ended, in order of id, from the one after `after`; at most `most`, and whether there are more.
    pub(crate) async fn list(
        &self,
        after: &str,
        most: usize,
        now: u64,
    ) -> Result<(Vec<(String, Session)>, bool), StoreError> {
        let all = self.all().await?;
        let all = locked(all);
        let from = (std::ops::Bound::Excluded(after.to_owned()), std::ops::Bound::Unbounded);
        let mut live = all.range(from).filter(|(_, session)| now < session.expires_at);
        let page = live.by_ref().take(most).map(|(id, session)| (id.clone(), session.clone())).collect();
        Ok((page, live.next().is_some()))
    }

    /// Those that a provider means by a session of its own, or by a user.
    pub(crate) async fn of_provider(
        &self,
        issuer: &str,
        sid: Option<&str>,
        subject: Option<&str>,
    ) -> Result<Vec<String>, StoreError> {
        let all = self.all().await?;
        let meant = |session: &Session| {
            let named = match (sid, subject) {
                (Some(sid), subject) => {
                    session.sid.as_deref() == Some(sid) && subject.is_none_or(|s| s == session.subject)
                }
                (None, Some(subject)) => session.subject == subject,
                (None, None) => false,
            };
            named && session.issuer == issuer
        };
        let found =
            locked(all).iter().filter(|(_, session)| meant(session)).map(|(id, _)| id.clone()).collect();
        Ok(found)
    }

    /// The oldest of a user's sessions, beyond `most` of them.
    pub(crate) async fn beyond(
        &self,
        issuer: &str,
        subject: &str,
        most: usize,
    ) -> Result<Vec<String>, StoreError> {
        let all = self.all().await?;
        let all = locked(all);
        let theirs = |session: &Session| session.subject == subject && session.issuer == issuer;
        let mut found: Vec<(u64, &String)> =
            all.iter().filter(|(_, session)| theirs(session)).map(|(id, s)| (s.since, id)).collect();
        found.sort_unstable();
        let too_many = found.len().saturating_sub(most);
        Ok(found.into_iter().take(too_many).map(|(_, id)| id.clone()).collect())
    }

    /// Forgets what has ended.
    pub(crate) async fn sweep(&self, now: u64) -> Result<(), StoreError> {
        let all = self.all().await?;
        let over: Vec<String> = locked(all)
            .iter()
            .filter(|(_, session)| session.expires_at <= now)
            .take(SWEEP)
            .map(|(id, _)| id.clone())
            .collect();
        if over.is_empty() {
            return Ok(());
        }
        let batch = Batch::new("control", "sessions over").detail(json!({ "sessions": over.len() }));
        let batch = over.iter().fold(batch, |batch, id| batch.delete(KIND, id));
        self.0.store.apply(batch).await?;
        let mut all = locked(all);
        for id in over {
            all.remove(&id);
        }
        Ok(())
    }

    async fn all(&self) -> Result<&Mutex<BTreeMap<String, Session>>, StoreError> {
        self.0.all.get_or_try_init(async || self.0.store.all(KIND).await.map(Mutex::new)).await
    }
}

fn locked(all: &Mutex<BTreeMap<String, Session>>) -> MutexGuard<'_, BTreeMap<String, Session>> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

fn envelope(key: &Secret<[u8; 32]>) -> EnvelopeKeys {
    EnvelopeKeys::new(KEY, key.clone(), Vec::new())
}

/// What was sealed for one session opens for no other.
fn context(id: &str) -> String {
    format!("session {id}")
}

#[cfg(test)]
mod tests {
    use ringfence_store::Durability;

    use super::*;

    fn session(subject: &str, sid: Option<&str>) -> Session {
        Session {
            provider: "staff".into(),
            issuer: "https://id.example".into(),
            client: "gateway".into(),
            subject: subject.into(),
            user: subject.into(),
            sid: sid.map(Into::into),
            since: 10,
            refreshed: 10,
            expires_at: 100,
        }
    }

    fn key() -> Secret<[u8; 32]> {
        Secret::new([7; 32])
    }

    fn tokens() -> Tokens {
        let hidden = || Some(Secret::new("hunter2".to_owned()));
        Tokens { refresh: hidden(), id: hidden() }
    }

    #[tokio::test]
    async fn a_session_outlives_control_and_its_tokens_are_nowhere_in_clear() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let store = Store::open(&path, Durability::Full).await.unwrap();
        let sessions = Sessions::new(store.clone());
        sessions.keep("sign-in", "s1", session("nora", Some("p1")), &tokens(), &key()).await.unwrap();
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
        }
        let again = Sessions::new(store);
        assert_eq!(again.find("s1", 99).await.unwrap(), Some(session("nora", Some("p1"))));
        assert_eq!(again.find("s1", 100).await.unwrap(), None, "it has ended");
        assert_eq!(again.tokens("s1", &key()).await.unwrap().refresh.unwrap().expose(), "hunter2");
        assert!(again.tokens("s1", &Secret::new([8; 32])).await.unwrap().refresh.is_none());
        again.sweep(100).await.unwrap();
        assert_eq!(again.list("", 10, 50).await.unwrap(), (Vec::new(), false));
    }

    #[tokio::test]
    async fn a_provider_ends_its_own_sessions_only() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.db"), Durability::Full).await.unwrap();
        let sessions = Sessions::new(store);
        let other = Session { issuer: "https://other.example".into(), ..session("nora", Some("p1")) };
        for (id, session) in [
            ("a", session("nora", Some("p1"))),
            ("b", session("nora", Some("p2"))),
            ("c", session("omar", None)),
            ("d", other),
        ] {
            sessions.keep("sign-in", id, session, &tokens(), &key()).await.unwrap();
        }
        let meant =
            async |sid, subject| sessions.of_provider("https://id.example", sid, subject).await.unwrap();
        assert_eq!(meant(Some("p1"), None).await, ["a"]);
        assert_eq!(meant(Some("p1"), Some("omar")).await, [""; 0], "both must be true");
        assert_eq!(meant(None, Some("nora")).await, ["a", "b"]);
        assert_eq!(meant(None, None).await, [""; 0]);
        let older = Session { since: 9, ..session("nora", None) };
        sessions.keep("sign-in", "e", older, &tokens(), &key()).await.unwrap();
        let beyond = async |most| sessions.beyond("https://id.example", "nora", most).await.unwrap();
        assert_eq!((beyond(3).await, beyond(1).await), (vec![], vec!["e".to_owned(), "a".to_owned()]));
        let ended = sessions.forget("provider staff", "session end", "a").await.unwrap();
        assert_eq!(ended.unwrap().subject, "nora");
        assert!(sessions.forget("provider staff", "session end", "a").await.unwrap().is_none());
        assert!(sessions.tokens("a", &key()).await.unwrap().refresh.is_none());
        let (page, more) = sessions.list("b", 1, 50).await.unwrap();
        assert_eq!((page[0].0.as_str(), more), ("c", true));
    }
}
