//! Giving up capabilities, for good.

use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits,
};

use crate::{SandboxError, error::Context as _};

/// What PID 1 needs to arrange a service's mounts.
pub(crate) const ARRANGE: CapabilitySet =
    CapabilitySet::SYS_ADMIN.union(CapabilitySet::DAC_OVERRIDE).union(START);
/// What PID 1 needs to start and stop a service: give up privileges, signal another uid.
pub(crate) const START: CapabilitySet = CapabilitySet::SETUID
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::KILL);
/// What a shim needs once its networks stand: enter them, bind low ports, start PID 1 again.
pub(crate) const SHIM: CapabilitySet = ARRANGE.union(CapabilitySet::NET_BIND_SERVICE);

/// Keeps `keep` of the calling thread's capabilities and nothing else, also not for what it executes.
pub(crate) fn keep_only(keep: CapabilitySet) -> Result<(), SandboxError> {
    clear_ambient_capability_set().step(|| "clear the ambient capabilities".into())?;
    for bit in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if keep.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // The first number that the kernel does not know ends the list.
            Err(rustix::io::Errno::INVAL) => break,
            Err(e) => return Err(e).step(|| format!("drop capability {bit} from the bounding set")),
        }
    }
    let sets = CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).step(|| "drop capabilities".into())
}

/// Gives up every capability of the calling thread; where it may, the bounding set too.
pub(crate) fn give_up() -> Result<(), SandboxError> {
    let own = rustix::thread::capabilities(None).step(|| "read the capabilities".into())?;
    if own.effective.contains(CapabilitySet::SETPCAP) {
        keep_only(CapabilitySet::empty())
    } else {
        drop_all()
    }
}

/// Drops every capability of the calling thread, needing none for it; the bounding set stays.
pub(crate) fn drop_all() -> Result<(), SandboxError> {
    let none = CapabilitySet::empty();
    clear_ambient_capability_set().step(|| "clear the ambient capabilities".into())?;
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .step(|| "drop capabilities".into())
}

/// Makes `pass` survive the execution of a child by this thread, whatever its uid.
pub(crate) fn pass_on(pass: CapabilitySet) -> Result<(), SandboxError> {
    let mut sets = rustix::thread::capabilities(None).step(|| "read the capabilities".into())?;
    sets.inheritable = pass;
    set_capabilities(None, sets).step(|| "make capabilities inheritable".into())?;
    for one in pass.iter() {
        configure_capability_in_ambient_set(one, true).step(|| "pass capabilities on".into())?;
    }
    Ok(())
}

/// Uid 0 stops meaning anything to this process and its children, irrevocably.
pub(crate) fn lock_root_out() -> Result<(), SandboxError> {
    set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED,
    )
    .step(|| "lock the secure bits".into())
}

/// Keeps nothing at all, now and for what is executed later.
pub(crate) fn keep_only_nothing() -> Result<(), SandboxError> {
    keep_only(CapabilitySet::empty())
}
