//! All API keys of a gateway, in memory: a million of them in less than a hundred bytes each, found in a microsecond.

mod names;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use hashbrown::HashTable;
use serde::{Deserialize, Serialize};

use self::names::Names;
use super::{ApiKey, KeyPrefix, SecretDigest};

/// How exactly the last use is known, in seconds.
const COARSE: u64 = 60;
/// Most scopes of a key, and bytes of a scope or client.
const MAX_SCOPES: usize = 64;
const MAX_NAME: usize = 256;

/// An API key as it is stored: nothing of it can be used as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// Its public part.
    pub prefix: KeyPrefix,
    /// Digest of its secret.
    pub secret: SecretDigest,
    /// Digest of the secret before, and until when that one is still good (Unix seconds).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<(SecretDigest, u64)>,
    /// Whose it is.
    pub client: String,
    /// What it is good for.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// From when it is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<u64>,
    /// Until when it is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// Switched off.
    #[serde(default)]
    pub disabled: bool,
    /// When it was last used, to the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<u64>,
}

/// Why a key is not accepted. The caller is told the same for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApiKeyError {
    /// No record has this prefix.
    #[error("no API key has this prefix")]
    Unknown,
    /// The prefix is known, the secret is another.
    #[error("the secret of this API key is wrong: it was rotated, or somebody guesses")]
    WrongSecret,
    /// Switched off.
    #[error("this API key is disabled")]
    Disabled,
    /// Past its end.
    #[error("this API key has expired: make a new one")]
    Expired,
    /// Before its start.
    #[error("this API key is not valid yet")]
    NotYet,
}

/// Why a record is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// Another record has this prefix.
    #[error("there is an API key with this prefix already")]
    Twice,
    /// A client or scope that is empty, too long, or has spaces.
    #[error("a client has 1 to 256 characters; a key has at most 64 scopes, each without spaces")]
    Malformed,
    /// More keys than fit.
    #[error("there are too many API keys")]
    Full,
}

/// Whose key it was and what it is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    prefix: KeyPrefix,
    client: Arc<str>,
    scopes: Arc<str>,
    previous: bool,
}

impl Known {
    /// The key's public part.
    #[must_use]
    pub const fn prefix(&self) -> KeyPrefix {
        self.prefix
    }

    /// Whose it is.
    #[must_use]
    pub fn client(&self) -> &str {
        &self.client
    }

    /// What it is good for.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scopes.split(' ').filter(|scope| !scope.is_empty())
    }

    /// Whether it was shown with the secret before the last rotation, so that its client has yet to change over.
    #[must_use]
    pub const fn is_previous(&self) -> bool {
        self.previous
    }
}

/// One key in 64 bytes. Times are Unix seconds until the year 2106; 0 and the largest stand for none.
struct Row {
    prefix: u64,
    secret: SecretDigest,
    client: u32,
    scopes: u32,
    not_before: u32,
    expires_at: u32,
    last_used: AtomicU32,
    disabled: bool,
}

/// API keys by prefix. Looking up needs no `&mut`, so that threads share one table.
#[derive(Default)]
pub struct KeyTable {
    rows: Vec<Row>,
    index: HashTable<u32>,
    hasher: RandomState,
    /// The few that are being rotated.
    previous: HashMap<u64, (SecretDigest, u64)>,
    names: Names,
}

impl KeyTable {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whose `key` is, if it is good at `now`.
    ///
    /// # Errors
    /// [`ApiKeyError`].
    pub fn authenticate(&self, key: &ApiKey, now: u64) -> Result<Known, ApiKeyError> {
        let known = self.look_up(key.prefix(), &key.digest(), now)?;
        if let Some(row) = self.row(key.prefix().number()) {
            let coarse = small(now - now % COARSE);
            if row.last_used.load(Ordering::Relaxed) != coarse {
                row.last_used.store(coarse, Ordering::Relaxed);
            }
        }
        Ok(known)
    }

    /// The same by what names a key and the digest of its secret, for one that was shown before; it is no use of it.
    ///
    /// # Errors
    /// [`ApiKeyError`].
    pub fn look_up(&self, prefix: KeyPrefix, digest: &SecretDigest, now: u64) -> Result<Known, ApiKeyError> {
        let is = |stored: &SecretDigest| ringfence_keys::constant_time_eq(&stored.0, &digest.0);
        let row = self.row(prefix.number()).ok_or(ApiKeyError::Unknown)?;
        let previous = if is(&row.secret) {
            false
        } else {
            match self.previous.get(&row.prefix) {
                Some((secret, until)) if is(secret) && now < *until => true,
                _ => return Err(ApiKeyError::WrongSecret),
            }
        };
        if row.disabled {
            return Err(ApiKeyError::Disabled);
        }
        if now < row.not_before.into() {
            return Err(ApiKeyError::NotYet);
        }
        if row.expires_at != u32::MAX && now >= row.expires_at.into() {
            return Err(ApiKeyError::Expired);
        }
        Ok(Known {
            prefix,
            client: self.names.text(row.client),
            scopes: self.names.text(row.scopes),
            previous,
        })
    }

    /// Adds a key.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn insert(&mut self, record: &KeyRecord) -> Result<(), TableError> {
        let name =
            |text: &String| (1..=MAX_NAME).contains(&text.len()) && !text.chars().any(char::is_control);
        let plain = |scope: &String| name(scope) && !scope.contains(' ');
        if !name(&record.client) || record.scopes.len() > MAX_SCOPES || !record.scopes.iter().all(plain) {
            return Err(TableError::Malformed);
        }
        let prefix = record.prefix.number();
        if self.row(prefix).is_some() {
            return Err(TableError::Twice);
        }
        let at = u32::try_from(self.rows.len()).map_err(|_| TableError::Full)?;
        self.rows.push(Row {
            prefix,
            secret: record.secret,
            client: self.names.add(&record.client),
            scopes: self.names.add(&record.scopes.join(" ")),
            not_before: record.not_before.map_or(0, small),
            expires_at: record.expires_at.map_or(u32::MAX, small),
            last_used: AtomicU32::new(record.last_used.map_or(0, small)),
            disabled: record.disabled,
        });
        if let Some(previous) = record.previous {
            self.previous.insert(prefix, previous);
        }
        let Self { rows, index, hasher, .. } = self;
        index.insert_unique(hasher.hash_one(prefix), at, |at| hasher.hash_one(rows[*at as usize].prefix));
        Ok(())
    }

    /// Takes a key out.
    pub fn remove(&mut self, prefix: KeyPrefix) -> Option<KeyRecord> {
        let record = self.record(prefix)?;
        let Self { rows, index, hasher, previous, names } = self;
        let number = prefix.number();
        let entry =
            index.find_entry(hasher.hash_one(number), |at| rows[*at as usize].prefix == number).ok()?;
        let at = entry.remove().0 as usize;
        let row = rows.swap_remove(at);
        if let Some(moved) = rows.get(at) {
            let last = rows.len();
            let place = index.find_mut(hasher.hash_one(moved.prefix), |other| *other as usize == last);
            *place.expect("invariant: each row is in the index") = at as u32;
        }
        previous.remove(&number);
        names.release(row.client);
        names.release(row.scopes);
        Some(record)
    }

    /// Puts `record` in the place of the one with its prefix, or adds it.
    ///
    /// # Errors
    /// [`TableError`]; then the earlier one is still there.
    pub fn replace(&mut self, record: &KeyRecord) -> Result<(), TableError> {
        let earlier = self.remove(record.prefix);
        let outcome = self.insert(record);
        if let (Err(_), Some(earlier)) = (&outcome, earlier) {
            self.insert(&earlier)?;
        }
        outcome
    }

    /// The record of a key.
    #[must_use]
    pub fn record(&self, prefix: KeyPrefix) -> Option<KeyRecord> {
        self.row(prefix.number()).map(|row| self.describe(row))
    }

    /// All records, in no order.
    pub fn records(&self) -> impl Iterator<Item = KeyRecord> {
        self.rows.iter().map(|row| self.describe(row))
    }

    /// The keys that were used at `since` or later, and when, to the minute.
    pub fn used_since(&self, since: u64) -> impl Iterator<Item = (KeyPrefix, u64)> {
        let since = since - since % COARSE;
        self.rows.iter().filter_map(move |row| {
            let at = row.last_used.load(Ordering::Relaxed);
            (at != 0 && u64::from(at) >= since).then(|| (KeyPrefix::from_number(row.prefix), at.into()))
        })
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn row(&self, prefix: u64) -> Option<&Row> {
        let at =
            self.index.find(self.hasher.hash_one(prefix), |at| self.rows[*at as usize].prefix == prefix)?;
        self.rows.get(*at as usize)
    }

    fn describe(&self, row: &Row) -> KeyRecord {
        let last_used = row.last_used.load(Ordering::Relaxed);
        KeyRecord {
            prefix: KeyPrefix::from_number(row.prefix),
            secret: row.secret,
            previous: self.previous.get(&row.prefix).copied(),
            client: self.names.text(row.client).to_string(),
            scopes: self
                .names
                .text(row.scopes)
                .split(' ')
                .filter(|s| !s.is_empty())
                .map(str::to_owned)
                .collect(),
            not_before: (row.not_before != 0).then(|| row.not_before.into()),
            expires_at: (row.expires_at != u32::MAX).then(|| row.expires_at.into()),
            disabled: row.disabled,
            last_used: (last_used != 0).then(|| last_used.into()),
        }
    }
}

impl std::fmt::Debug for KeyTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyTable({} keys)", self.len())
    }
}

impl KeyRecord {
    /// Takes the secret of `new` for this record; the one before is good until `previous_until`.
    ///
    /// # Panics
    /// When `new` is a key for another record.
    pub fn rotate(&mut self, new: &ApiKey, previous_until: u64) {
        assert_eq!(new.prefix(), self.prefix, "the new secret is made for this record");
        self.previous = Some((self.secret, previous_until));
        self.secret = new.digest();
    }
}

fn small(seconds: u64) -> u32 {
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn record(key: &ApiKey, client: &str) -> KeyRecord {
        KeyRecord {
            prefix: key.prefix(),
            secret: key.digest(),
            previous: None,
            client: client.to_owned(),
            scopes: vec!["read".to_owned(), "write".to_owned()],
            not_before: None,
            expires_at: None,
            disabled: false,
            last_used: None,
        }
    }

    #[test]
    fn a_key_is_known_by_its_secret_alone_and_only_while_it_is_good() {
        let (key, other) = (ApiKey::generate(), ApiKey::generate());
        let mut table = KeyTable::new();
        let good = record(&key, "lab");
        table.insert(&good).unwrap();
        let known = table.authenticate(&key, NOW).unwrap();
        assert_eq!((known.client(), known.scopes().collect::<Vec<_>>()), ("lab", vec!["read", "write"]));
        assert_eq!(table.authenticate(&other, NOW), Err(ApiKeyError::Unknown));
        let forged = ApiKey::generate_for(key.prefix());
        assert_eq!(table.authenticate(&forged, NOW), Err(ApiKeyError::WrongSecret));
        for (changed, error) in [
            (KeyRecord { disabled: true, ..good.clone() }, ApiKeyError::Disabled),
            (KeyRecord { expires_at: Some(NOW), ..good.clone() }, ApiKeyError::Expired),
            (KeyRecord { not_before: Some(NOW + 1), ..good.clone() }, ApiKeyError::NotYet),
        ] {
            table.replace(&changed).unwrap();
            assert_eq!(table.authenticate(&key, NOW), Err(error));
            assert_eq!(table.authenticate(&forged, NOW), Err(ApiKeyError::WrongSecret));
        }
        table
            .replace(&KeyRecord { expires_at: Some(NOW + 1), not_before: Some(NOW), ..good.clone() })
            .unwrap();
        assert!(table.authenticate(&key, NOW).is_ok());
        assert_eq!(table.insert(&good), Err(TableError::Twice));
        table.remove(key.prefix()).unwrap();
        assert_eq!(table.authenticate(&key, NOW), Err(ApiKeyError::Unknown));
    }

    #[test]
    fn while_a_key_rotates_both_secrets_are_good_and_then_only_the_new_one() {
        let old = ApiKey::generate();
        let new = ApiKey::generate_for(old.prefix());
        let mut table = KeyTable::new();
        let mut record = record(&old, "lab");
        record.rotate(&new, NOW + 60);
        table.insert(&record).unwrap();
        assert!(table.authenticate(&old, NOW).unwrap().is_previous());
        assert!(!table.authenticate(&new, NOW).unwrap().is_previous());
        assert_eq!(table.authenticate(&old, NOW + 60), Err(ApiKeyError::WrongSecret));
        assert!(table.authenticate(&new, NOW + 60).is_ok());
    }

    #[test]
    fn the_last_use_is_known_to_the_minute() {
        let key = ApiKey::generate();
        let mut table = KeyTable::new();
        table.insert(&record(&key, "lab")).unwrap();
        assert_eq!(table.used_since(0).count(), 0);
        table.authenticate(&key, NOW + 59).unwrap();
        assert_eq!(table.used_since(NOW).collect::<Vec<_>>(), [(key.prefix(), NOW)]);
        assert_eq!(table.record(key.prefix()).unwrap().last_used, Some(NOW));
        let text = serde_json::to_string(&table.record(key.prefix())).unwrap();
        let again: Option<KeyRecord> = serde_json::from_str(&text).unwrap();
        assert_eq!(again, table.record(key.prefix()));
        assert!(!text.contains(&key.to_text().expose()[16..]));
    }

    #[test]
    fn a_record_that_could_be_read_in_two_ways_is_not_taken() {
        let key = ApiKey::generate();
        let good = record(&key, "lab");
        let mut table = KeyTable::new();
        for bad in [
            KeyRecord { client: String::new(), ..good.clone() },
            KeyRecord { client: "a\nb".into(), ..good.clone() },
            KeyRecord { scopes: vec!["read write".into()], ..good.clone() },
            KeyRecord { scopes: vec![String::new()], ..good.clone() },
            KeyRecord { scopes: vec!["x".into(); 65], ..good.clone() },
        ] {
            assert_eq!(table.insert(&bad), Err(TableError::Malformed));
            table.insert(&good).unwrap();
            assert_eq!(table.replace(&bad), Err(TableError::Malformed));
            assert_eq!(table.remove(key.prefix()), Some(good.clone()));
        }
        assert!(table.names.numbers.is_empty());
    }

    proptest! {
        #[test]
        fn the_table_knows_what_a_map_would_know(steps in prop::collection::vec((any::<bool>(), 0_u64..24, 0_u8..4), 0..120)) {
            let mut table = KeyTable::new();
            let mut model = HashMap::new();
            for (insert, prefix, client) in steps {
                let prefix = KeyPrefix::from_number(prefix);
                if insert {
                    let record = record(&ApiKey::generate_for(prefix), &format!("c{client}"));
                    table.replace(&record).unwrap();
                    model.insert(prefix, record);
                } else {
                    prop_assert_eq!(table.remove(prefix), model.remove(&prefix));
                }
                prop_assert_eq!(table.len(), model.len());
                for (prefix, record) in &model {
                    let known = table.record(*prefix);
                    prop_assert_eq!(known.as_ref(), Some(record));
                }
            }
        }
    }
}
