//! A credential as the keeper is shown it: it believes nobody else's word, so it gets the thing itself.

use ringfence_keys::Secret;
use ringfence_keys::digest::sha256;
use ringfence_snapshot::node::Shown as ToKeeper;

use super::RouteAccess;
use super::credential::{Shown, shown};
use super::principal::{Evidence, Principal};
use crate::deny::Deny;
use crate::table::Table;
use crate::view::HeadView;

/// What the request showed, which was believed here.
pub(crate) fn to_show(
    view: HeadView<'_>,
    table: &Table,
    access: &RouteAccess,
    principal: &Principal,
) -> Result<ToKeeper, Deny> {
    match &principal.evidence {
        Evidence::Session(shown) => return Ok(ToKeeper::Session(shown.text().clone())),
        Evidence::Certificate(known) => {
            let chain = known.chain().iter().map(|der| der.to_vec().into()).collect();
            return Ok(ToKeeper::Certificate { authority: known.authority().to_owned(), chain });
        }
        Evidence::Token(_) | Evidence::Opaque(_) | Evidence::Key(_) => {}
    }
    Ok(match shown(view, table, access, None)? {
        Shown::Token(token, _) if matches!(principal.evidence, Evidence::Opaque(_)) => ToKeeper::Opaque {
            provider: principal.identity().provider.clone(),
            token: Secret::new(token.to_owned()),
        },
        Shown::Token(token, _) => ToKeeper::Token {
            provider: principal.identity().provider.clone(),
            token: Secret::new(token.to_owned()),
        },
        Shown::Key(key) => ToKeeper::ApiKey(Secret::new(key.to_owned())),
        Shown::Certificate(_) => {
            let reason = "a certificate was not what let it in";
            return Err(access.refuse(&table.snapshot.fence, "credential.other", reason, ""));
        }
    })
}

impl Principal {
    /// What stands for its credential, and for no other.
    pub(crate) fn digest(&self) -> [u8; 32] {
        match &self.evidence {
            Evidence::Token(token) => *token.digest(),
            Evidence::Session(shown) => *shown.token.digest(),
            Evidence::Opaque(known) => *known.digest(),
            // Not a text that could be a token.
            Evidence::Key(known) => sha256(format!("api key {}", known.prefix()).as_bytes()),
            Evidence::Certificate(known) => {
                sha256(format!("certificate {} {}", known.name(), known.authority()).as_bytes())
            }
        }
    }
}
