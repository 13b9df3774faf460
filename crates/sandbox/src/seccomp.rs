//! System call filters for services and for our own processes.
//!
//! A list of what is refused, plus a bound on the numbers: services are other people's programs in any language, and a list
//! of what is allowed breaks one of them with every new libc. What the kernel gains after this was written does not exist
//! for them (`ENOSYS`), and neither do the x32 numbers.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    sock_filter,
};

use crate::SandboxError;

/// The highest number considered (`removexattrat`); the same on every architecture since Linux 5.1.
const LAST_KNOWN: u32 = 466;
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];
/// In `clone` this bit is part of the exit signal; `unshare` alone can ask for it.
const CLONE_NEWTIME: libc::c_int = 0x80;

/// A filter under construction.
#[derive(Default)]
pub(crate) struct Filter {
    denied: BTreeMap<i64, Vec<SeccompRule>>,
    absent: BTreeMap<i64, Vec<SeccompRule>>,
}

impl Filter {
    /// What no process of a fence, ours or a service's, has any business with: the kernel's own switches.
    pub(crate) fn kernel() -> Result<Self, SandboxError> {
        let mut filter = Self::default();
        for call in [
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_userfaultfd,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_kexec_load,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_reboot,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_acct,
            libc::SYS_quotactl,
            libc::SYS_settimeofday,
            libc::SYS_clock_settime,
            libc::SYS_adjtimex,
            libc::SYS_clock_adjtime,
            libc::SYS_open_by_handle_at,
            libc::SYS_name_to_handle_at,
            libc::SYS_fanotify_init,
            libc::SYS_vhangup,
            libc::SYS_syslog,
            libc::SYS_kcmp,
            libc::SYS_lookup_dcookie,
            libc::SYS_pidfd_getfd,
        ] {
            filter.deny(call);
        }
        #[cfg(target_arch = "x86_64")]
        for call in [
            libc::SYS_iopl,
            libc::SYS_ioperm,
            libc::SYS_kexec_file_load,
            libc::SYS_modify_ldt,
            libc::SYS_uselib,
        ] {
            filter.deny(call);
        }
        for call in [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register] {
            filter.hide(call);
        }
        // Typing into somebody else's terminal. C libraries differ in the type of what is 32 bits to the kernel.
        for request in [libc::TIOCSTI, libc::TIOCLINUX] {
            filter.deny_if(libc::SYS_ioctl, vec![equal(1, u64::from(request as u32))?])?;
        }
        Ok(filter)
    }

    /// The shim's own: it must still enter namespaces, and what it starts must make and furnish them.
    pub(crate) fn shim() -> Result<Self, SandboxError> {
        let mut filter = Self::kernel()?;
        filter.sockets(&[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK])?;
        Ok(filter)
    }

    /// The kernel's switches, and all that changes mounts and namespaces.
    pub(crate) fn base() -> Result<Self, SandboxError> {
        let mut filter = Self::kernel()?;
        for call in [
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_open_tree,
            libc::SYS_move_mount,
            libc::SYS_fsopen,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fspick,
            libc::SYS_mount_setattr,
            libc::SYS_setns,
            libc::SYS_sethostname,
            libc::SYS_setdomainname,
        ] {
            filter.deny(call);
        }
        for flag in NAMESPACES {
            let flag = flag as u64;
            filter.deny_if(libc::SYS_clone, vec![masked(0, flag)?])?;
            filter.deny_if(libc::SYS_unshare, vec![masked(0, flag)?])?;
        }
        filter.deny_if(libc::SYS_unshare, vec![masked(0, CLONE_NEWTIME as u64)?])?;
        // Its flags lie in memory, where a filter cannot look; libcs fall back to clone.
        filter.hide(libc::SYS_clone3);
        Ok(filter)
    }

    /// What a service is refused.
    pub(crate) fn service() -> Result<Self, SandboxError> {
        let mut filter = Self::base()?;
        filter.sockets(&[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK])?;
        Ok(filter)
    }

    /// Refuses a system call with `EPERM`.
    pub(crate) fn deny(&mut self, call: i64) {
        self.denied.insert(call, Vec::new());
    }

    /// Refuses a system call as if the kernel did not have it.
    pub(crate) fn hide(&mut self, call: i64) {
        self.absent.insert(call, Vec::new());
    }

    /// Only sockets of these families; of netlink only the route family.
    pub(crate) fn sockets(&mut self, families: &[libc::c_int]) -> Result<(), SandboxError> {
        for call in [libc::SYS_socket, libc::SYS_socketpair] {
            if families.is_empty() {
                self.deny(call);
                continue;
            }
            let others = families.iter().map(|f| unequal(0, *f)).collect::<Result<_, _>>()?;
            self.deny_if(call, others)?;
            self.deny_if(call, vec![equal(0, libc::AF_NETLINK as u64)?, unequal(2, libc::NETLINK_ROUTE)?])?;
        }
        Ok(())
    }

    /// Signals only to the process `pid` itself, and none to whole groups.
    pub(crate) fn signal_only(&mut self, pid: u64) -> Result<(), SandboxError> {
        for call in [libc::SYS_kill, libc::SYS_tgkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo]
        {
            self.deny_if(call, vec![unequal(0, pid as libc::c_int)?])?;
        }
        self.deny(libc::SYS_tkill);
        Ok(())
    }

    fn deny_if(&mut self, call: i64, all: Vec<SeccompCondition>) -> Result<(), SandboxError> {
        let rule = SeccompRule::new(all).map_err(refused)?;
        match self.denied.entry(call).or_default() {
            rules if rules.is_empty() => *rules = vec![rule],
            rules => rules.push(rule),
        }
        Ok(())
    }

    /// Enforces the filter on this thread and what it starts, for good.
    pub(crate) fn enforce(self) -> Result<(), SandboxError> {
        for program in self.programs()? {
            seccompiler::apply_filter(&program).map_err(refused)?;
        }
        Ok(())
    }

    fn programs(self) -> Result<Vec<BpfProgram>, SandboxError> {
        let compile = |rules, errno: libc::c_int| -> Result<BpfProgram, SandboxError> {
            let arch = std::env::consts::ARCH.try_into().map_err(refused)?;
            SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch)
                .and_then(TryInto::try_into)
                .map_err(refused)
        };
        let mut absent = compile(self.absent, libc::ENOSYS)?;
        absent.splice(0..0, bound());
        Ok(vec![compile(self.denied, libc::EPERM)?, absent])
    }
}

/// Answers numbers above [`LAST_KNOWN`], which include all of x32, with `ENOSYS`.
fn bound() -> [sock_filter; 3] {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_GREATER: u16 = 0x25;
    const RETURN: u16 = 0x06;
    let refuse = u32::from(SeccompAction::Errno(libc::ENOSYS as u32));
    [
        sock_filter { code: LOAD_WORD, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_GREATER, jt: 0, jf: 1, k: LAST_KNOWN },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: refuse },
    ]
}

fn equal(argument: u8, value: u64) -> Result<SeccompCondition, SandboxError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value).map_err(refused)
}

fn unequal(argument: u8, value: libc::c_int) -> Result<SeccompCondition, SandboxError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value as u64).map_err(refused)
}

fn masked(argument: u8, bits: u64) -> Result<SeccompCondition, SandboxError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bits), bits)
        .map_err(refused)
}

fn refused(e: impl std::fmt::Display) -> SandboxError {
    SandboxError::Refused(format!("seccomp: {e}"))
}
