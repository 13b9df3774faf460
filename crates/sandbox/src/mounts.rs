//! What a service sees of the file system: a root of its own that holds only what is listed.
//!
//! The host's root, read-only, was rejected: Landlock does not stop `connect` to a socket in the file system, so a socket
//! must not be visible at all. Two steps, because as root only the shim can still traverse folders like `/root`, and only
//! PID 1 is inside all the namespaces: [`build`] lays out the root at a staging place, [`enter`] furnishes it and moves in.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use ringfence_channel::sys::mount_setattr;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change,
    unmount,
};
use serde::{Deserialize, Serialize};

use crate::spec::FileRule;
use crate::{SandboxError, error::Context as _, folder};

/// Where the new root is laid out. Exists everywhere, can be traversed by every uid, and is private to us by then.
const STAGING: &str = "/tmp";
/// The host's folders that every service sees, read-only.
pub(crate) const SYSTEM: [&str; 11] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix/store", "/snap"];
/// Folders that are private and writable.
pub(crate) const PRIVATE: [&str; 4] = ["/tmp", "/var/tmp", "/run", "/dev/shm"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Where the Workload API is found.
pub(crate) const WORKLOAD_SOCKET: &str = "/run/ringfence/workload.sock";

/// Files in each private folder: an empty one takes kernel memory that no size limit counts.
const INODES: u32 = 131_072;

/// Options of a folder that stays empty.
const EMPTY: &str = "mode=0555,size=4k,nr_inodes=2";

const RDONLY: u64 = 1;
const NOSUID: u64 = 2;

/// What a service sees besides the system; canonical paths.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct View {
    pub(crate) folder: PathBuf,
    pub(crate) command: Option<PathBuf>,
    pub(crate) files: Vec<FileRule>,
    pub(crate) hide: Vec<PathBuf>,
    /// Names of the fence's files, which lie in `folder` and are among what is hidden.
    pub(crate) fence: Vec<String>,
}

/// The parts of the view that stay reachable for PID 1 after [`enter`].
pub(crate) struct Furnished {
    /// The hosts file, still writable here though the service sees it read-only.
    pub(crate) hosts: File,
    /// Listens at [`WORKLOAD_SOCKET`].
    pub(crate) workload: UnixListener,
}

/// Lays out the root at the staging place; `init` is the uid that will furnish it. Needs a mount namespace of its own.
pub(crate) fn build(view: &View, init: u32) -> Result<(), SandboxError> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .step(|| "make the mounts private".into())?;
    // Opened before the staging place covers what may lie in it.
    let mut sources = Vec::new();
    for path in kept(view) {
        let fd = rustix::fs::open(
            path,
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        match fd {
            Ok(fd) => sources.push((path, fd)),
            Err(rustix::io::Errno::NOENT) => return Err(SandboxError::Missing { path: path.clone() }),
            Err(e) => return Err(e).step(|| format!("open {}", path.display())),
        }
    }
    let options = format!("mode=0755,uid={init},gid={init},size=16m");
    tmpfs(Path::new(STAGING), &options, MountFlags::NOSUID | MountFlags::NODEV)?;
    for path in PRIVATE.iter().chain(&["/dev", "/proc", "/sys"]) {
        if *path != "/dev/shm" {
            make_dir(&staged(Path::new(path)))?;
        }
    }
    for path in SYSTEM.map(Path::new) {
        let Ok(metadata) = fs::symlink_metadata(path) else { continue };
        let target = staged(path);
        if metadata.is_symlink() {
            let to = fs::read_link(path).step(|| format!("read {}", path.display()))?;
            symlink(to, &target).step(|| format!("make {}", target.display()))?;
        } else {
            make_dir(&target)?;
            mount_bind_recursive(path, &target).step(|| format!("show {}", path.display()))?;
        }
    }
    use std::os::fd::AsRawFd;
    for (path, fd) in &sources {
        if **path == view.folder {
            folder::lay_out(view, Path::new(&format!("/proc/self/fd/{}", fd.as_raw_fd())), init)?;
            continue;
        }
        let target = staged(path);
        // The staging place itself may be an ancestor: these folders are made in the new root, never on the host.
        if !target.exists() {
            let is_dir =
                rustix::fs::fstat(fd).is_ok_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode).is_dir());
            if is_dir {
                make_dir(&target)?;
            } else {
                target.parent().map_or(Ok(()), make_dir)?;
                File::create(&target).step(|| format!("make {}", target.display()))?;
            }
        }
        mount_bind_recursive(format!("/proc/self/fd/{}", fd.as_raw_fd()), &target)
            .step(|| format!("show {}", path.display()))?;
    }
    for path in &view.hide {
        let target = staged(path);
        match fs::metadata(&target) {
            Ok(m) if m.is_dir() => {
                tmpfs(&target, EMPTY, MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC)?;
            }
            Ok(_) => mount_bind("/dev/null", &target).step(|| format!("hide {}", path.display()))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).step(|| format!("hide {}", path.display())),
        }
    }
    Ok(())
}

/// Furnishes the staged root and makes it the root of the calling process, which must be PID 1 of its namespaces.
pub(crate) fn enter(view: &View, owner: u32, hosts: &str) -> Result<Furnished, SandboxError> {
    // As root the staged tree came over from a more privileged namespace and is locked in place; a copy of it is not.
    mount_bind_recursive(STAGING, STAGING).step(|| "copy the staged root".into())?;
    let quiet = MountFlags::NOSUID | MountFlags::NODEV;
    make_device_folder(owner)?;
    for path in ["/tmp", "/var/tmp"] {
        private_folder(path, &format!("mode=1777,size=1g,nr_inodes={INODES}"), quiet, view)?;
    }
    private_folder(
        "/run",
        &format!("mode=0755,uid={owner},gid={owner},size=64m,nr_inodes={INODES}"),
        quiet | MountFlags::NOEXEC,
        view,
    )?;
    make_decoys(view);
    let proc = staged(Path::new("/proc"));
    make_dir(&proc)?;
    mount("proc", &proc, "proc", quiet | MountFlags::NOEXEC, None).step(|| {
        "mount /proc (inside a container, run it with an unmasked /proc: --security-opt systempaths=unconfined)".into()
    })?;
    let sys = staged(Path::new("/sys"));
    make_dir(&sys)?;
    // Not everywhere possible, and nothing needs it: the folder then stays empty.
    let _ = mount("sysfs", &sys, "sysfs", quiet | MountFlags::NOEXEC, None);
    move_in()?;
    mount_setattr(Path::new("/"), RDONLY | NOSUID, 0, true).step(|| "make the root read-only".into())?;
    for path in PRIVATE.iter().chain(&["/proc"]) {
        mount_setattr(Path::new(path), 0, RDONLY, false).step(|| format!("make {path} writable"))?;
    }
    for rule in view.files.iter().filter(|rule| rule.write) {
        mount_setattr(&rule.path, 0, RDONLY, true)
            .step(|| format!("make {} writable", rule.path.display()))?;
    }
    make_own_folder(hosts)
}

/// An empty folder also where a hidden one lies outside of all that is shown: nobody has any business there, and whoever looks
/// for it is seen. Where none can be made there is nothing to find either.
fn make_decoys(view: &View) {
    let is_fence = |path: &Path| {
        path.file_name().is_some_and(|name| view.fence.iter().any(|fence| name == fence.as_str()))
    };
    let hidden = view.hide.iter().filter(|path| !is_fence(path)).map(|path| staged(path));
    for target in hidden.filter(|target| !target.exists()) {
        if make_dir(&target).is_ok() {
            let _ = tmpfs(&target, EMPTY, MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC);
        }
    }
}

/// The folder of Ringfence's own files: on a writable mount that only we hold open, below a read-only one that is seen.
fn make_own_folder(hosts: &str) -> Result<Furnished, SandboxError> {
    let own = Path::new("/run/ringfence");
    make_dir(own)?;
    tmpfs(own, "mode=0755,size=16m", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC)?;
    let file = write_file(&own.join("hosts"), hosts)?;
    write_file(&own.join("resolv.conf"), "nameserver 198.18.0.1\noptions timeout:1 attempts:1\n")?;
    write_file(
        &own.join("nsswitch.conf"),
        "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    )?;
    let workload = UnixListener::bind(WORKLOAD_SOCKET).step(|| "make the Workload API's socket".into())?;
    fs::set_permissions(WORKLOAD_SOCKET, fs::Permissions::from_mode(0o666))
        .step(|| "open the Workload API's socket to the service".into())?;
    for name in ["hosts", "resolv.conf", "nsswitch.conf"] {
        replace_etc(name)?;
    }
    mount_bind(own, own).step(|| "cover /run/ringfence".into())?;
    mount_setattr(own, RDONLY, 0, false).step(|| "make /run/ringfence read-only".into())?;
    Ok(Furnished { hosts: file, workload })
}

/// All paths that are shown one by one, parents before children.
fn kept(view: &View) -> Vec<&PathBuf> {
    let rules = view.files.iter().filter(|rule| rule.path != view.folder);
    let mut paths: Vec<_> =
        rules.clone().map(|rule| &rule.path).chain([&view.folder]).chain(&view.command).collect();
    paths.sort();
    paths.dedup();
    let inside = |path: &Path, folder: &Path| path != folder && path.starts_with(folder);
    // What a kept or system folder shows already need not be shown again, unless it gets flags of its own, or is one of the
    // few things beside the fence that are shown only to whom they are declared for.
    let shown = |path: &Path| {
        inside(path, &view.folder) || SYSTEM.iter().any(|system| inside(path, Path::new(system)))
    };
    let own = |path: &Path| {
        rules.clone().any(|rule| rule.path == path && (rule.write || inside(path, &view.folder)))
    };
    paths.retain(|path| **path == view.folder || own(path) || !shown(path));
    paths
}

/// A private folder of the new root. What of the view lies in it was bound before, and is bound again on top.
fn private_folder(path: &str, options: &str, flags: MountFlags, view: &View) -> Result<(), SandboxError> {
    let target = staged(Path::new(path));
    let inside: Vec<_> = kept(view).into_iter().filter(|p| p.starts_with(path)).collect();
    if inside.is_empty() {
        make_dir(&target)?;
        return tmpfs(&target, options, flags);
    }
    if inside.iter().any(|p| *p == Path::new(path)) {
        return Err(SandboxError::Spec(format!(
            "{path} is private to each service; declare a path inside it instead"
        )));
    }
    // Only the tops: what lies below comes along, with its own mounts.
    let tops: Vec<_> =
        inside.iter().filter(|p| !inside.iter().any(|q| p != &q && p.starts_with(q))).collect();
    let fds: Vec<_> = tops
        .iter()
        .map(|path| {
            rustix::fs::open(
                staged(path),
                rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            )
            .step(|| format!("open {}", path.display()))
        })
        .collect::<Result<_, _>>()?;
    tmpfs(&target, options, flags)?;
    for (path, fd) in tops.iter().zip(&fds) {
        use std::os::fd::AsRawFd;
        let target = staged(path);
        if rustix::fs::fstat(fd).is_ok_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode).is_dir()) {
            make_dir(&target)?;
        } else {
            target.parent().map_or(Ok(()), make_dir)?;
            File::create(&target).step(|| format!("make {}", target.display()))?;
        }
        mount_bind_recursive(format!("/proc/self/fd/{}", fd.as_raw_fd()), &target)
            .step(|| format!("show {}", path.display()))?;
    }
    Ok(())
}

fn make_device_folder(owner: u32) -> Result<(), SandboxError> {
    let dev = staged(Path::new("/dev"));
    make_dir(&dev)?;
    tmpfs(&dev, "mode=0755,size=64k", MountFlags::NOSUID | MountFlags::NOEXEC)?;
    for name in DEVICES {
        let (from, to) = (Path::new("/dev").join(name), dev.join(name));
        if from.exists() {
            File::create(&to).step(|| format!("make {}", to.display()))?;
            mount_bind(&from, &to).step(|| format!("show {}", from.display()))?;
        }
    }
    for (name, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(to, dev.join(name)).step(|| format!("make /dev/{name}"))?;
    }
    make_dir(&dev.join("pts"))?;
    mount(
        "devpts",
        dev.join("pts"),
        "devpts",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        Some(c"newinstance,ptmxmode=0666,mode=0620"),
    )
    .step(|| "mount /dev/pts".into())?;
    make_dir(&dev.join("shm"))?;
    let options = format!("mode=1777,uid={owner},size=256m,nr_inodes={INODES}");
    tmpfs(&dev.join("shm"), &options, MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC)
}

fn move_in() -> Result<(), SandboxError> {
    rustix::process::chdir(STAGING).step(|| "enter the staged root".into())?;
    rustix::process::pivot_root(".", ".").step(|| "make the staged root the root".into())?;
    // The old root is now mounted on top of the new one.
    unmount(".", UnmountFlags::DETACH).step(|| "let go of the host's root".into())?;
    rustix::process::chdir("/").step(|| "enter the new root".into())
}

/// Puts our file in the place of `/etc/NAME`, which may be a symbolic link to a folder that we made.
fn replace_etc(name: &str) -> Result<(), SandboxError> {
    let (ours, path) = (Path::new("/run/ringfence").join(name), Path::new("/etc").join(name));
    if let Ok(to) = fs::read_link(&path) {
        let to = Path::new("/etc").join(to);
        if !to.exists() {
            // A link into /run or /tmp: its target is ours to make. Anywhere else this fails, and then the bind says why.
            let _ = to.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| File::create(&to));
        }
    }
    match mount_bind(&ours, &path) {
        // Without these two files, glibc asks DNS first and at 127.0.0.1, where nobody answers: nothing opens up.
        Err(rustix::io::Errno::NOENT) if name != "hosts" => return Ok(()),
        result => result.step(|| format!("replace {} (the host needs such a file)", path.display()))?,
    }
    mount_setattr(&path, RDONLY, 0, false).step(|| format!("make {} read-only", path.display()))
}

pub(crate) fn tmpfs(at: &Path, options: &str, flags: MountFlags) -> Result<(), SandboxError> {
    let options = std::ffi::CString::new(options).step(|| "name the mount options".into())?;
    mount("ringfence", at, "tmpfs", flags, Some(options.as_c_str()))
        .step(|| format!("mount {}", at.display()))
}

pub(crate) fn make_dir(path: &Path) -> Result<(), SandboxError> {
    fs::create_dir_all(path).step(|| format!("make {}", path.display()))
}

fn write_file(path: &Path, text: &str) -> Result<File, SandboxError> {
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .open(path)
        .step(|| format!("make {}", path.display()))?;
    file.write_all(text.as_bytes()).step(|| format!("write {}", path.display()))?;
    Ok(file)
}

pub(crate) fn staged(path: &Path) -> PathBuf {
    Path::new(STAGING).join(path.strip_prefix("/").unwrap_or(path))
}
