//! The public keys that transaction tokens and JWT-SVIDs are verified with (RFC 7517).

use ringfence_keys::VerifyingKey;
use ringfence_token::PublicKey;
use serde_json::json;

use super::Reply;
use crate::table::TableRef;

pub(super) const PATH: &str = "/jwks.json";
/// As long as a key set may be kept: a new key is published longer than this before it signs.
const KEPT: (&str, &str) = ("cache-control", "max-age=60");

pub(super) fn reply(table: &TableRef) -> Reply {
    let bundle = &table.snapshot.bundle;
    let keys: Vec<_> = bundle
        .txn
        .iter()
        .chain(&bundle.jwt)
        .filter_map(|key| {
            let public = PublicKey::from(&VerifyingKey::from_spki(&key.spki.0).ok()?);
            Some(public.to_jwk(Some(&key.kid), Some("sig")))
        })
        .collect();
    Reply {
        media_type: "application/jwk-set+json",
        field: Some(KEPT),
        ..Reply::json(json!({ "keys": keys }).to_string())
    }
}
