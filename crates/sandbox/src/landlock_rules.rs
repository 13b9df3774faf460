//! Landlock for services and for our own processes: what is not listed cannot be opened.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};

use crate::SandboxError;

/// The newest ABI whose rights were considered; an older kernel enforces what it knows.
const KNOWN: ABI = ABI::V10;

/// Rules under construction.
pub(crate) struct Rules(RulesetCreated);

impl Rules {
    /// Nothing may be opened, no process outside be signalled, no abstract socket outside be reached.
    /// With `ports`, TCP goes to these and comes from nowhere.
    pub(crate) fn new(ports: Option<&[u16]>) -> Result<Self, SandboxError> {
        let ruleset = Ruleset::default()
            .handle_access(AccessFs::from_all(KNOWN))
            .and_then(|r| r.scope(Scope::from_all(KNOWN)));
        let Some(ports) = ports else {
            return ruleset.and_then(Ruleset::create).map(Self).map_err(refused);
        };
        let tcp = AccessNet::ConnectTcp | AccessNet::BindTcp;
        let mut ruleset =
            ruleset.and_then(|r| r.handle_access(tcp)).and_then(Ruleset::create).map_err(refused)?;
        for port in ports {
            ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::ConnectTcp)).map_err(refused)?;
        }
        Ok(Self(ruleset))
    }

    /// Allows reading and executing at and below `path`; a path that is not there is skipped.
    pub(crate) fn read(self, path: &Path) -> Result<Self, SandboxError> {
        self.allow(path, AccessFs::from_read(KNOWN))
    }

    /// Allows listing folders at and below `path`.
    pub(crate) fn list(self, path: &Path) -> Result<Self, SandboxError> {
        self.allow(path, AccessFs::ReadDir.into())
    }

    /// Allows everything at and below `path`.
    pub(crate) fn write(self, path: &Path) -> Result<Self, SandboxError> {
        self.allow(path, AccessFs::from_all(KNOWN))
    }

    /// Enforces the rules on this thread and what it starts. `true` if the kernel knows Landlock.
    pub(crate) fn enforce(self) -> Result<bool, SandboxError> {
        let status = self.0.restrict_self().map_err(refused)?;
        Ok(status.ruleset != RulesetStatus::NotEnforced)
    }

    fn allow(self, path: &Path, access: BitFlags<AccessFs>) -> Result<Self, SandboxError> {
        let Ok(fd) = PathFd::new(path) else { return Ok(self) };
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(KNOWN) };
        self.0.add_rule(PathBeneath::new(fd, access)).map(Self).map_err(refused)
    }
}

fn refused(e: impl std::fmt::Display) -> SandboxError {
    SandboxError::Refused(format!("landlock: {e}"))
}
