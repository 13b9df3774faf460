//! Somebody who was let in: who it is, and by what.

use std::sync::Arc;

use ringfence_authz::{Principal as Subject, PrincipalKind};
use ringfence_model::Credential;
use ringfence_snapshot::{Identity, IdentityKind};
use ringfence_token::VerifiedToken;

use super::RouteAccess;
use super::certificate::KnownCertificate;
use super::credential::Scheme;
use super::keys::KnownKey;
use super::opaque::KnownOpaque;
use super::session::ShownSession;
use crate::delegate::Behalf;
use crate::deny::Deny;
use crate::h1::DropList;
use crate::headers::{not_copied, not_copied_with_key, not_copied_with_token};
use crate::table::{Table, TableRef};

/// Somebody who was let in.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    pub(super) table: TableRef,
    pub(super) identity: Arc<Identity>,
    pub(super) evidence: Evidence,
}

/// What somebody was let in by.
#[derive(Clone, Debug)]
pub(crate) enum Evidence {
    /// A JWT of a provider.
    Token(Arc<VerifiedToken>),
    /// A token that its provider was asked for.
    Opaque(Arc<KnownOpaque>),
    /// An API key.
    Key(Box<KnownKey>),
    /// The session of somebody who signed in by a browser.
    Session(Box<ShownSession>),
    /// The certificate of its connection.
    Certificate(KnownCertificate),
}

impl Principal {
    /// Who it is.
    pub(crate) fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// What it showed, in the words of `accept`.
    pub(crate) fn shown(&self) -> Credential {
        let provider = || self.identity.provider.clone();
        match &self.evidence {
            Evidence::Token(_) | Evidence::Opaque(_) => Credential::Token(provider()),
            Evidence::Key(_) => Credential::ApiKey,
            Evidence::Session(_) => Credential::Login(provider()),
            Evidence::Certificate(known) => Credential::Certificate(known.authority().to_owned()),
        }
    }

    /// What names its credential without being one.
    pub(crate) fn credential(&self) -> Option<&str> {
        match &self.evidence {
            Evidence::Token(_) | Evidence::Opaque(_) => None,
            Evidence::Key(known) => Some(known.prefix()),
            Evidence::Session(shown) => Some(shown.name()),
            Evidence::Certificate(known) => Some(known.name()),
        }
    }

    /// What the answer sets, so that its session goes on.
    pub(crate) fn renewal(&self) -> Option<&str> {
        match &self.evidence {
            Evidence::Session(shown) => shown.renewal(),
            Evidence::Token(_) | Evidence::Opaque(_) | Evidence::Key(_) | Evidence::Certificate(_) => None,
        }
    }

    /// What it is called in what the operator reads.
    fn shown_name(&self) -> &'static str {
        match &self.evidence {
            Evidence::Token(_) | Evidence::Opaque(_) => "token",
            Evidence::Key(_) => "API key",
            Evidence::Session(_) => "session",
            Evidence::Certificate(_) => "certificate",
        }
    }

    /// The fields that carry its credential, which go no further.
    pub(crate) fn not_copied(&self) -> &'static DropList {
        match self.evidence {
            Evidence::Token(_) | Evidence::Opaque(_) => not_copied_with_token(),
            Evidence::Key(_) => not_copied_with_key(),
            // Our cookies never go on, whoever shows them.
            Evidence::Session(_) | Evidence::Certificate(_) => not_copied(),
        }
    }

    /// Whether it came with a proof of possession.
    pub(crate) fn proves_a_key(&self) -> bool {
        self.scheme() == Scheme::Dpop
    }

    /// How it was shown, as far as challenges differ by it.
    fn scheme(&self) -> Scheme {
        match &self.evidence {
            Evidence::Token(token) if token.confirmation().is_some_and(|c| c.key.is_some()) => Scheme::Dpop,
            _ => Scheme::Bearer,
        }
    }

    /// Whether it has what the route demands besides.
    pub(crate) fn meets(&self, access: &RouteAccess) -> Result<(), Deny> {
        access.demands(&self.table, &self.identity, self.shown_name(), self.scheme())
    }
}

impl RouteAccess {
    /// Whether a request passes that the gateway let in for somebody: by a credential that is accepted here too.
    pub(crate) fn takes(&self, table: &Table, behalf: &Behalf) -> Result<(), Deny> {
        let accepted = match behalf.shown() {
            Credential::Token(name) => self.providers.iter().any(|at| *table.providers()[*at].name == **name),
            Credential::Login(name) => self.logins.iter().any(|login| *login.name == **name),
            Credential::ApiKey => self.api_key,
            Credential::Certificate(file) => {
                self.authorities.iter().any(|at| table.authorities()[*at].file() == file)
            }
        };
        if !accepted {
            let reason = format!(
                "the gateway let in the holder of a {}, which the service does not accept",
                behalf.shown()
            );
            return Err(self.refuse(&table.snapshot.fence, "credential.other", reason, ""));
        }
        self.demands(table, behalf.identity(), "credential", Scheme::Bearer)
    }

    /// Whether somebody has what is demanded besides.
    fn demands(&self, table: &Table, who: &Identity, what: &str, scheme: Scheme) -> Result<(), Deny> {
        let (require, realm) = (&self.require, &table.snapshot.fence);
        let refuse = |status, rule, reason: String| {
            let position = require.position.as_ref().map(ToString::to_string);
            Deny::new(status, "authenticate", rule, reason).position(position)
        };
        if let Some(scope) = require.scopes.iter().find(|scope| !who.scopes.contains(scope)) {
            let reason = format!("the {what} has no scope {scope}");
            let all = require.scopes.join(" ");
            let error = format!(", error=\"insufficient_scope\", scope=\"{all}\"");
            return Err(
                refuse(403, "require.scope", reason).challenge(self.challenge_to(realm, &error, scheme))
            );
        }
        if !require.acr.is_empty() && !who.acr.as_ref().is_some_and(|acr| require.acr.contains(acr)) {
            let acr = who.acr.as_deref().unwrap_or("not said");
            let reason = format!("the {what}'s acr is {acr}, which is not enough");
            // RFC 9470, section 3.
            let error = format!(
                ", error=\"insufficient_user_authentication\", acr_values=\"{}\"",
                require.acr.join(" ")
            );
            return Err(
                refuse(401, "require.acr", reason).challenge(self.challenge_to(realm, &error, scheme))
            );
        }
        if !require.groups.is_empty() && !who.groups.iter().any(|group| require.groups.contains(group)) {
            let reason = format!("{} is in none of the groups that are demanded", who.id);
            return Err(refuse(403, "require.group", reason));
        }
        Ok(())
    }
}

/// The value of `Ringfence-User` and the like: a name in which whatever a header cannot carry is percent-encoded (RFC 3986, section 2.1).
pub(crate) fn name_field(name: &str) -> String {
    let mut field = String::new();
    for byte in name.bytes() {
        match byte {
            b'!'..=b'$' | b'&'..=b'~' => field.push(char::from(byte)),
            _ => field.push_str(&format!("%{byte:02X}")),
        }
    }
    field
}

/// The value of `Ringfence-Scopes`.
pub(crate) fn scopes_field(identity: &Identity) -> String {
    let legible = |scope: &&str| scope.bytes().all(|byte| byte.is_ascii_graphic());
    identity.scopes.iter().map(String::as_str).filter(legible).collect::<Vec<_>>().join(" ")
}

/// Who it is, for policies.
pub(crate) fn subject(identity: &Identity) -> Subject {
    Subject {
        kind: match identity.kind {
            IdentityKind::User => PrincipalKind::User,
            IdentityKind::Client => PrincipalKind::Client,
            IdentityKind::Service => PrincipalKind::Service,
        },
        provider: identity.provider.clone(),
        id: identity.id.clone(),
        client: identity.client.clone(),
        groups: identity.groups.clone(),
        scopes: identity.scopes.clone(),
        acr: identity.acr.clone(),
        auth_time: identity.auth_time,
    }
}
