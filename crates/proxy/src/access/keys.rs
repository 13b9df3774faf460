//! API keys at the gateway: one table for all threads, as control tells it, in memory only.
//!
//! A table per thread was rejected: a million keys are a hundred megabytes, and a lookup takes its read lock for less than a
//! microsecond. Control tells the whole set in parts, which fill another table beside the one in force; a change counts at once in both.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ringfence_snapshot::Identity;
use ringfence_snapshot::node::{ApiKeys as Told, MAX_API_KEYS};
use ringfence_token::{ApiKey, ApiKeyError, KeyPrefix, KeyRecord, KeyTable, Known, SecretDigest, TableError};

use super::RouteAccess;
use crate::deny::Deny;
use crate::worker::unix_now;

/// Shared by all threads.
#[derive(Debug, Default)]
pub(crate) struct ApiKeys {
    /// None until control has told them.
    table: RwLock<Option<KeyTable>>,
    /// What is being told.
    coming: RwLock<Option<KeyTable>>,
}

/// A key that was believed, and its client.
#[derive(Clone, Debug)]
pub(crate) struct KnownKey {
    known: Known,
    prefix: String,
    /// Of the secret that was shown.
    digest: SecretDigest,
}

/// Provider of whoever shows an API key.
pub(crate) const API_KEYS: &str = "api_key";

impl KnownKey {
    pub(super) fn identity(&self) -> Identity {
        let scopes = self.known.scopes().map(ToOwned::to_owned).collect();
        Identity::client(API_KEYS, self.known.client(), scopes)
    }

    /// Whose it is.
    pub(super) fn client(&self) -> &str {
        self.known.client()
    }

    /// Its public part.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl ApiKeys {
    /// Takes what control tells. How many there are, when a set is whole.
    pub(crate) fn take(&self, told: Told) -> Result<Option<usize>, String> {
        let wrong = |e: TableError| format!("control told API keys that make no sense: {e}");
        match told {
            Told::Part { first, last, records } => {
                let mut coming = write(&self.coming);
                if first {
                    *coming = Some(KeyTable::new());
                }
                // Nothing is begun when a part did not fit: the set in force stays.
                let Some(table) = coming.as_mut() else { return Ok(None) };
                let fits = if records.len() > MAX_API_KEYS { Err(TableError::Full) } else { Ok(()) };
                // What is there already came as a change, which is newer than the page that a part is of: a key that was revoked
                // meanwhile stays so.
                let mut add = |record: &KeyRecord| match table.record(record.prefix) {
                    Some(_) => Ok(()),
                    None => table.insert(record),
                };
                let taken = fits.and_then(|()| records.iter().try_for_each(&mut add));
                if let Err(e) = taken {
                    *coming = None;
                    return Err(wrong(e));
                }
                if !last {
                    return Ok(None);
                }
                let whole = coming.take();
                let count = whole.as_ref().map(KeyTable::len);
                let before = std::mem::replace(&mut *write(&self.table), whole);
                // A million rows are freed while nobody waits.
                drop(before);
                Ok(count)
            }
            Told::Changed(record) => {
                for table in [&self.table, &self.coming] {
                    if let Some(table) = write(table).as_mut() {
                        change(table, &record).map_err(wrong)?;
                    }
                }
                Ok(None)
            }
        }
    }

    /// Whose key `text` is, or why its holder is not let in.
    pub(crate) fn judge(&self, text: &str, realm: &str, access: &RouteAccess) -> Result<KnownKey, Deny> {
        let refuse = |rule, reason: String| {
            Deny::new(401, "authenticate", rule, reason)
                .position(access.position())
                .challenge(access.challenge(realm, ", error=\"invalid_token\""))
        };
        let Some(key) = ApiKey::parse(text) else {
            return Err(refuse("api_key.malformed", "what was shown is no API key, or was mistyped".into()));
        };
        let prefix = key.prefix().to_string();
        match read(&self.table).as_ref().map(|table| table.authenticate(&key, unix_now())) {
            Some(Ok(known)) => Ok(KnownKey { known, prefix, digest: key.digest() }),
            Some(Err(error)) => Err(refuse(rule_of(error), format!("key {prefix}: {error}"))),
            None => {
                let reason = "control has not told the API keys yet";
                let deny = Deny::new(503, "authenticate", "api_key.unready", reason);
                Err(deny.position(access.position()))
            }
        }
    }

    /// A key that was believed, as it is now. That it has ended meanwhile is no reason: it had not when it was shown.
    pub(super) fn again(&self, known: &KnownKey) -> Result<KnownKey, Deny> {
        let table = read(&self.table);
        let Some(table) = table.as_ref() else { return Ok(known.clone()) };
        match table.look_up(known.known.prefix(), &known.digest, unix_now()) {
            Ok(now) => Ok(KnownKey { known: now, ..known.clone() }),
            Err(ApiKeyError::Expired) => Ok(known.clone()),
            Err(error) => {
                let reason = format!("key {}: {error}", known.prefix);
                Err(Deny::new(401, "authenticate", rule_of(error), reason))
            }
        }
    }

    fn used_since(&self, since: u64) -> Vec<(KeyPrefix, u64)> {
        read(&self.table).iter().flat_map(|table| table.used_since(since)).collect()
    }
}

/// Puts a record in its place; what this node knows of its last use stays.
fn change(table: &mut KeyTable, record: &KeyRecord) -> Result<(), TableError> {
    let used = table.record(record.prefix).and_then(|before| before.last_used);
    table.replace(&KeyRecord { last_used: used.max(record.last_used), ..record.clone() })
}

fn rule_of(error: ApiKeyError) -> &'static str {
    match error {
        ApiKeyError::Unknown => "api_key.unknown",
        ApiKeyError::WrongSecret => "api_key.secret",
        ApiKeyError::Disabled => "api_key.revoked",
        ApiKeyError::Expired => "api_key.expired",
        ApiKeyError::NotYet => "api_key.early",
        _ => "api_key.invalid",
    }
}

/// Which uses were passed on already, so that each key is named once a minute at most.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    since: u64,
    told: HashMap<KeyPrefix, u64>,
}

impl Uses {
    /// The uses that nobody was told of.
    pub(crate) fn fresh(&mut self, keys: &ApiKeys, now: u64) -> Vec<(KeyPrefix, u64)> {
        let mut used = keys.used_since(self.since);
        used.retain(|(prefix, at)| self.told.insert(*prefix, *at) != Some(*at));
        self.since = now;
        self.told.retain(|_, at| *at + 120 > now);
        used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn record(key: &ApiKey) -> KeyRecord {
        KeyRecord {
            prefix: key.prefix(),
            secret: key.digest(),
            previous: None,
            client: "lab".into(),
            scopes: vec!["read".into()],
            not_before: None,
            expires_at: None,
            disabled: false,
            last_used: None,
        }
    }

    fn part(first: bool, last: bool, records: Vec<KeyRecord>) -> Told {
        Told::Part { first, last, records }
    }

    fn good(keys: &ApiKeys, key: &ApiKey) -> bool {
        read(&keys.table).as_ref().is_some_and(|table| table.authenticate(key, NOW).is_ok())
    }

    #[test]
    fn a_set_counts_when_it_is_whole_and_a_change_at_once() {
        let keys = ApiKeys::default();
        let (a, b, c) = (ApiKey::generate(), ApiKey::generate(), ApiKey::generate());
        assert_eq!(keys.take(part(true, false, vec![record(&a)])), Ok(None));
        assert!(!good(&keys, &a));
        assert_eq!(keys.take(part(false, true, vec![record(&b)])), Ok(Some(2)));
        assert!(good(&keys, &a) && good(&keys, &b));
        // Another set begins; a key that is revoked meanwhile is refused now and when the set is whole.
        keys.take(part(true, false, vec![record(&a)])).unwrap();
        keys.take(Told::Changed(KeyRecord { disabled: true, ..record(&a) })).unwrap();
        assert!(!good(&keys, &a) && good(&keys, &b));
        assert_eq!(keys.take(part(false, true, vec![record(&c)])), Ok(Some(2)));
        assert!(!good(&keys, &a) && !good(&keys, &b) && good(&keys, &c));
        // Nor does a part that was read before the revocation, and comes after it, bring a key back to life.
        keys.take(part(true, false, vec![record(&b)])).unwrap();
        keys.take(Told::Changed(KeyRecord { disabled: true, ..record(&c) })).unwrap();
        keys.take(part(false, true, vec![record(&c)])).unwrap();
        assert!(good(&keys, &b) && !good(&keys, &c));
    }

    #[test]
    fn a_set_that_makes_no_sense_leaves_the_one_before() {
        let keys = ApiKeys::default();
        let (a, b) = (ApiKey::generate(), ApiKey::generate());
        keys.take(part(true, true, vec![record(&a)])).unwrap();
        let nameless = KeyRecord { client: String::new(), ..record(&b) };
        assert!(keys.take(part(true, false, vec![nameless])).is_err());
        assert_eq!(keys.take(part(false, true, vec![record(&b)])), Ok(None));
        assert!(good(&keys, &a) && !good(&keys, &b));
        assert!(keys.take(part(true, true, vec![record(&b); MAX_API_KEYS + 1])).is_err());
        assert!(good(&keys, &a));
    }

    #[test]
    fn a_use_is_told_once_a_minute() {
        let keys = ApiKeys::default();
        let key = ApiKey::generate();
        keys.take(part(true, true, vec![record(&key)])).unwrap();
        let mut uses = Uses::default();
        assert_eq!(uses.fresh(&keys, NOW), []);
        let minute = NOW - NOW % 60;
        let mut use_at = |at: u64| {
            read(&keys.table).as_ref().unwrap().authenticate(&key, at).unwrap();
            uses.fresh(&keys, at)
        };
        assert_eq!(use_at(minute + 1), [(key.prefix(), minute)]);
        assert_eq!(use_at(minute + 20), []);
        // What is changed is still known to be used.
        keys.take(Told::Changed(KeyRecord { expires_at: Some(NOW + 9999), ..record(&key) })).unwrap();
        assert_eq!(use_at(minute + 59), []);
        assert_eq!(use_at(minute + 60), [(key.prefix(), minute + 60)]);
        assert_eq!(use_at(minute + 300), [(key.prefix(), minute + 300)]);
    }
}
