//! Rotation as pure steps from one stored state to the next.

use ringfence_keys::Keyring;
use ringfence_snapshot::Bundle;
use ringfence_spiffe::TrustDomain;

use crate::authority::{AuthorityError, Record, Role, Stored, active, new_issuing, new_key, new_root};
use crate::certificate::Signer;
use crate::protocol::{Refusal, RefusalCode, Stage, Step};

/// Most authorities of one kind at the same time: each is in every bundle.
const MAX_OVERLAP: usize = 8;
/// Clocks may differ by this much before something that was signed is surely over.
const SKEW: u64 = 60;

impl From<AuthorityError> for Refusal {
    fn from(e: AuthorityError) -> Self {
        Self::internal(e)
    }
}

/// A new issuing CA under the active root, whose key is `root_key`.
pub(crate) fn rotate_issuing(
    stored: &mut Stored,
    keyring: &Keyring,
    root_key: Signer,
    now: u64,
) -> Result<(), Refusal> {
    let domain = trust_domain(stored)?;
    let issuing = new_issuing(keyring, &domain, active(&stored.roots)?, root_key, now)?;
    replace_issuing(stored, issuing, now);
    // Those that retire are kept for the record only: nothing is looked up among them.
    stored.issuing.truncate(MAX_OVERLAP);
    Ok(())
}

/// One step of changing the root of the mesh.
pub(crate) fn rotate_root(
    stored: &mut Stored,
    keyring: &Keyring,
    step: Step,
    announced: &Bundle,
    now: u64,
) -> Result<(), Refusal> {
    let domain = trust_domain(stored)?;
    let life = stored.lives.x509;
    let new = || Ok(new_root(keyring, Role::Root, &domain, Stage::Prepared, now)?.0);
    change(&mut stored.roots, step, life, now, new, |next| {
        next.certificate.as_ref().is_some_and(|root| announced.x509.contains(root))
    })?;
    match step {
        Step::Prepare => {}
        Step::Activate => {
            let root = active(&stored.roots)?;
            let key = Signer(root.unseal(keyring, Role::Root)?);
            let issuing = new_issuing(keyring, &domain, root, key, now)?;
            replace_issuing(stored, issuing, now);
        }
        // An issuing CA goes with what it signed, and so at the latest with its root.
        Step::Retire { .. } => stored.issuing.retain(|r| r.stage == Stage::Active),
    }
    stored.generation += 1;
    Ok(())
}

/// One step of changing the root of the serving CA.
pub(crate) fn rotate_serving(
    stored: &mut Stored,
    keyring: &Keyring,
    step: Step,
    announced: &Bundle,
    now: u64,
) -> Result<(), Refusal> {
    let domain = trust_domain(stored)?;
    let life = stored.lives.serving;
    let new = || Ok(new_root(keyring, Role::Serving, &domain, Stage::Prepared, now)?.0);
    change(&mut stored.serving, step, life, now, new, |next| {
        next.certificate.as_ref().is_some_and(|root| announced.serving.contains(root))
    })?;
    stored.generation += 1;
    Ok(())
}

/// One step of changing the key that signs JWT-SVIDs.
pub(crate) fn rotate_token(
    stored: &mut Stored,
    keyring: &Keyring,
    step: Step,
    announced: &Bundle,
    now: u64,
) -> Result<(), Refusal> {
    let life = stored.lives.jwt;
    let new = || Ok(new_key(keyring, Role::Token, Stage::Prepared, now)?);
    change(&mut stored.tokens, step, life, now, new, |next| {
        announced.jwt.iter().any(|key| key.kid == next.id)
    })?;
    stored.generation += 1;
    Ok(())
}

/// One step of changing the key that signs transaction and session tokens.
pub(crate) fn rotate_txn(
    stored: &mut Stored,
    keyring: &Keyring,
    step: Step,
    announced: &Bundle,
    now: u64,
) -> Result<(), Refusal> {
    let life = stored.lives.txn;
    let new = || Ok(new_key(keyring, Role::Txn, Stage::Prepared, now)?);
    change(&mut stored.txn, step, life, now, new, |next| announced.txn.iter().any(|key| key.kid == next.id))?;
    stored.generation += 1;
    Ok(())
}

fn change(
    records: &mut Vec<Record>,
    step: Step,
    life: u64,
    now: u64,
    new: impl FnOnce() -> Result<Record, Refusal>,
    is_known: impl FnOnce(&Record) -> bool,
) -> Result<(), Refusal> {
    match step {
        Step::Prepare => {
            none_prepared(records)?;
            records.push(new()?);
        }
        Step::Activate => {
            known(is_known(prepared(records)?))?;
            activate(records, now, life);
        }
        Step::Retire { force } => retire(records, force, now)?,
    }
    Ok(())
}

fn activate(records: &mut [Record], now: u64, life: u64) {
    for record in records {
        match record.stage {
            Stage::Active => record.demote(now, life),
            Stage::Prepared => record.stage = Stage::Active,
            Stage::Retiring => {}
        }
    }
}

fn retire(records: &mut Vec<Record>, force: bool, now: u64) -> Result<(), Refusal> {
    let until = records.iter().filter_map(|r| r.needed_until).max();
    match until {
        None => Err(not_now("nothing is retiring: prepare and activate first".into())),
        Some(until) if !force && now < until + SKEW => Err(not_now(format!(
            "what the old one signed may be valid for {} s more; retire then, or force it if the old one is not to be believed",
            until + SKEW - now
        ))),
        Some(_) => {
            records.retain(|r| r.stage != Stage::Retiring);
            Ok(())
        }
    }
}

fn replace_issuing(stored: &mut Stored, issuing: Record, now: u64) {
    stored.issuing.retain(|r| r.needed_until.is_none_or(|until| now < until + SKEW));
    for old in &mut stored.issuing {
        if old.stage == Stage::Active {
            old.demote(now, stored.lives.x509);
        }
    }
    stored.issuing.insert(0, issuing);
}

fn prepared(records: &[Record]) -> Result<&Record, Refusal> {
    records
        .iter()
        .find(|r| r.stage == Stage::Prepared)
        .ok_or_else(|| not_now("nothing is prepared: prepare first".into()))
}

fn none_prepared(records: &[Record]) -> Result<(), Refusal> {
    if records.len() >= MAX_OVERLAP {
        return Err(not_now(format!("{MAX_OVERLAP} are in the bundle already: retire the old ones first")));
    }
    match records.iter().find(|r| r.stage == Stage::Prepared) {
        Some(record) => Err(not_now(format!("{} is prepared already: activate it", record.id))),
        None => Ok(()),
    }
}

/// What signs next must be in the snapshot that is in force: else who verifies would not know it.
fn known(is_known: bool) -> Result<(), Refusal> {
    if is_known {
        return Ok(());
    }
    Err(not_now(
        "the prepared one is not in a signed snapshot yet: have one signed with the new bundle first".into(),
    ))
}

fn trust_domain(stored: &Stored) -> Result<TrustDomain, Refusal> {
    TrustDomain::new(&stored.trust_domain).map_err(Refusal::internal)
}

fn not_now(reason: String) -> Refusal {
    Refusal::new(RefusalCode::NotNow, reason)
}
