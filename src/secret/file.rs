//! Files that hold secrets: whose they are, and who else may read or write them.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use rustix::fs::StatVfsMountFlags;

use super::Secret;

/// No key or password is longer.
const MAX_BYTES: u64 = 64 * 1024;

/// Why the secret in a file is not used. Follows the file's name.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Missing, not to be opened, too large, or no text.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// Somebody else could have put another secret there.
    #[error("can be written by group or others: chmod go-w")]
    WritableByOthers,
}

/// The secret in a file that only its owner can write, with a warning if others can read it. One newline
/// at the end is not part of it.
pub fn read_secret(path: &Path) -> Result<(Secret, Option<String>), Unusable> {
    let (mut text, warning) = read(path)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok((Secret::new(text), warning))
}

/// The text of a file that only its owner can write, with a warning if others can read it.
pub fn read(path: &Path) -> Result<(String, Option<String>), Unusable> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.len() > MAX_BYTES {
        return Err(io::Error::other("larger than 64 KiB").into());
    }
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text)?;
    if others_can_write(&metadata) {
        return Err(Unusable::WritableByOthers);
    }
    Ok((text, warning(path, &metadata)))
}

/// Whether anyone but the owner could change the file.
pub fn others_can_write(metadata: &Metadata) -> bool {
    metadata.permissions().mode() & 0o022 != 0
}

/// Whether anyone but the owner could read the file.
pub fn others_can_read(metadata: &Metadata) -> bool {
    metadata.permissions().mode() & 0o044 != 0
}

/// What an operator should know of a file that is used.
pub fn warning(path: &Path, metadata: &Metadata) -> Option<String> {
    (others_can_read(metadata) && !is_mounted_secret(path)).then(|| {
        format!(
            "{} holds a secret and can be read by group or others: chmod go-rwx",
            path.display()
        )
    })
}

/// Gives a file or folder that root has just created in `folder` to the owner of `folder`, so that a
/// command that root runs locks no service out. Other users cannot give files away, and need not.
pub fn give_to_owner_of(folder: &Path, created: &File) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = fs::metadata(folder)?;
    let of = created.metadata()?;
    if (owner.uid(), owner.gid()) == (of.uid(), of.gid()) {
        return Ok(());
    }
    fchown(created, Some(owner.uid()), Some(owner.gid()))
}

/// Container platforms mount secrets readable for all, in a place of their own.
fn is_mounted_secret(path: &Path) -> bool {
    path.starts_with("/run/secrets")
        || rustix::fs::statvfs(path)
            .is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::RDONLY))
}
