//! The fence's folder as a service sees it: what lies beside the fence, and neither the fence nor its copies.
//!
//! A fence names the environment of every service. A mount over its file was rejected: it is gone as soon as an editor renames a
//! new file to that place. So was Landlock: it grants whole hierarchies, and a fence below `/tmp` lies in a granted one. So
//! the folder itself is not shown: one of ours stands in its place, in which each entry is shown by itself. What comes
//! to lie beside the fence later is not seen until the service's shim starts anew.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::mount::{MountFlags, mount_bind, mount_bind_recursive};

use crate::mounts::{View, make_dir, staged, tmpfs};
use crate::{SandboxError, error::Context as _};

/// Most entries beside a fence: each is a mount.
const MAX_ENTRIES: usize = 1024;
/// Where version control keeps every earlier text of the fence.
const HISTORIES: [&str; 4] = [".git", ".hg", ".svn", ".jj"];

/// Lays the folder out at its staged place; `from` leads to the real one, `init` is the uid that owns the new one.
pub(crate) fn lay_out(view: &View, from: &Path, init: u32) -> Result<(), SandboxError> {
    let target = staged(&view.folder);
    make_dir(&target)?;
    let options = format!("mode=0755,uid={init},gid={init},size=1m");
    tmpfs(&target, &options, MountFlags::NOSUID | MountFlags::NODEV)?;
    fill(view, from, &view.folder, &mut 0)
}

fn fill(view: &View, from: &Path, at: &Path, entries: &mut usize) -> Result<(), SandboxError> {
    for entry in fs::read_dir(from).step(|| format!("list {}", at.display()))? {
        let name = entry.step(|| format!("list {}", at.display()))?.file_name();
        let (source, path) = (from.join(&name), at.join(&name));
        let hidden = view.hide.contains(&path);
        if !hidden && at == view.folder && is_copy(view, &name.to_string_lossy()) {
            continue;
        }
        let kind = match fs::symlink_metadata(&source) {
            // Gone meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata.step(|| format!("look at {}", path.display()))?.file_type(),
        };
        *entries += 1;
        if *entries > MAX_ENTRIES {
            return Err(SandboxError::Spec(format!(
                "more than {MAX_ENTRIES} files lie beside the fence in {}: keep them in a folder there, or the fence in one of its own",
                view.folder.display()
            )));
        }
        let target = staged(&path);
        if hidden {
            // Covered later on.
            if source.is_dir() {
                make_dir(&target)?;
            } else {
                make_file(&target)?;
            }
        } else if kind.is_symlink() {
            let to = fs::read_link(&source).step(|| format!("read {}", path.display()))?;
            symlink(to, &target).step(|| format!("make {}", target.display()))?;
        } else if kind.is_dir() {
            make_dir(&target)?;
            if view.hide.iter().any(|hidden| hidden.starts_with(&path)) {
                fill(view, &source, &path, entries)?;
            } else {
                mount_bind_recursive(&source, &target).step(|| format!("show {}", path.display()))?;
            }
        } else {
            make_file(&target)?;
            mount_bind(&source, &target).step(|| format!("show {}", path.display()))?;
        }
    }
    Ok(())
}

/// Editors leave swap and backup files that hold the text of the fence and its name (`ringfence.yaml~`, `.ringfence.yaml.swp`).
fn is_copy(view: &View, name: &str) -> bool {
    HISTORIES.contains(&name) || view.fence.iter().any(|fence| name.contains(fence))
}

fn make_file(path: &Path) -> Result<(), SandboxError> {
    File::create(path).map(drop).step(|| format!("make {}", path.display()))
}
