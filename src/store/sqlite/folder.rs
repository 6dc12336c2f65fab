//! The folder of a store: whose it is, and who may write to it. What is created in it belongs to its
//! owner, no matter who runs the command that creates it. Knows no database.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, OFlags};
use rustix::io::Errno;

use super::refusals::Refusal;
use crate::secret::file::give_to_owner_of;

/// The names that a store's files have, besides those in `owners/`.
pub(super) const FILES: [&str; 12] = [
    "tokens.db",
    "tokens.db-wal",
    "tokens.db-shm",
    "leases.db",
    "leases.db-wal",
    "leases.db-shm",
    "outbox.db",
    "outbox.db-wal",
    "outbox.db-shm",
    "open.lock",
    "owners",
    "store.key",
];
/// Those that may be links to elsewhere: nothing is looked for beside them.
const MAY_BE_LINKS: [&str; 2] = ["owners", "store.key"];
/// Permission to write for the group and for others.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// Permission for the owner to write to a folder.
const OWNER_MAY: u32 = 0o300;
/// The modes that a store's files and folders have.
const OF_A_FILE: u32 = 0o600;
const OF_A_FOLDER: u32 = 0o700;

/// Creates a folder and those above it, for their owner alone. Leaves one that exists as it is.
pub(in crate::store) fn create(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            let parent = path.parent().filter(|parent| *parent != Path::new(""));
            give_to_owner_of(parent.unwrap_or(Path::new(".")), &File::open(path)?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Some filesystems, /proc for one, say so of a folder that they do not take.
            let missing = path.parent().filter(|parent| !parent.exists());
            create(missing.ok_or(error)?)?;
            create(path)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Opens a file for writing; creates it for the folder's owner alone if there is none.
pub(super) fn create_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    match options.create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            options.create_new(false).open(path)
        }
        created => {
            let file = created?;
            give_to_owner_of(path.parent().unwrap_or(Path::new(".")), &file)?;
            Ok(file)
        }
    }
}

/// Refuses a folder that others can write, that this user cannot, or that holds files of a store
/// that this user cannot open. One that does not exist is judged by the folder that it would be
/// created in.
pub(in crate::store) fn refuse(path: &Path) -> Result<(), Refusal> {
    refuse_misnamed(path)?;
    let found = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return refuse_to_create(path),
        found => found.map_err(|error| inaccessible(path, error))?,
    };
    if found.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(Refusal::WritableByOthers {
            path: path.to_owned(),
            mode: found.mode() & 0o7777,
        });
    }
    refuse_unwritable(path)?;
    if rustix::process::geteuid().is_root() && found.mode() & OWNER_MAY != OWNER_MAY {
        return Err(not_writable(path, found.uid()));
    }
    for name in FILES {
        let file = path.join(name);
        let wanted = match name {
            "store.key" => Access::READ_OK,
            "owners" => Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK,
            _ => Access::READ_OK | Access::WRITE_OK,
        };
        match access(&file, wanted) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(inaccessible(&file, error.into())),
        }
    }
    Ok(())
}

/// Refuses what has a name of the store's and is something else: a folder that is none, or a link to
/// none; a database, or what belongs to one, that is a link.
pub(super) fn refuse_misnamed(path: &Path) -> Result<(), Refusal> {
    let mut above = path.ancestors();
    if let Some(lowest) = above.find(|above| fs::symlink_metadata(above).is_ok()) {
        match fs::metadata(lowest) {
            Ok(found) if !found.is_dir() => return Err(Refusal::NotAFolder(lowest.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Refusal::DanglingLink(lowest.to_owned()));
            }
            // Opening it will say what else is wrong.
            _ => {}
        }
    }
    let files = FILES.iter().filter(|name| !MAY_BE_LINKS.contains(name));
    let mut files = files.map(|name| path.join(name));
    match files.find(|file| file.is_symlink()) {
        Some(link) => Err(Refusal::Link(link)),
        None => Ok(()),
    }
}

/// Why a file or folder cannot be opened, with its owner and this user if that is the reason.
pub(super) fn inaccessible(path: &Path, error: io::Error) -> Refusal {
    let found = match (error.kind(), fs::metadata(path)) {
        (io::ErrorKind::PermissionDenied, Ok(found)) => found,
        _ => return Refusal::Unopened(path.to_owned(), error),
    };
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Refusal::OfAnother {
            path: path.to_owned(),
            owner: user(found.uid()),
            user: this_user(),
        };
    }
    own_mode(path, &found).unwrap_or_else(|| Refusal::Unopened(path.to_owned(), error))
}

/// What the mode of a file or folder denies its owner, if it does.
fn own_mode(path: &Path, found: &Metadata) -> Option<Refusal> {
    let needed = match found.is_dir() {
        true => OF_A_FOLDER,
        false => OF_A_FILE,
    };
    (found.mode() & needed != needed).then(|| Refusal::OwnMode {
        path: path.to_owned(),
        user: user(found.uid()),
        mode: found.mode() & 0o7777,
        needed,
    })
}

/// The name of a user, or the number if it has none.
pub(super) fn user(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let number = uid.to_string();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1) == Some(&number)).then_some(name)
    });
    name.map_or_else(|| format!("user {uid}"), str::to_owned)
}

fn this_user() -> String {
    user(rustix::process::geteuid().as_raw())
}

fn refuse_to_create(path: &Path) -> Result<(), Refusal> {
    let above = path.ancestors().skip(1).map(|above| match above {
        above if above == Path::new("") => Path::new("."),
        above => above,
    });
    match above.into_iter().find(|above| above.exists()) {
        Some(above) => refuse_unwritable(above),
        None => Ok(()),
    }
}

fn refuse_unwritable(folder: &Path) -> Result<(), Refusal> {
    match access(folder, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Ok(()),
        Err(Errno::ACCESS | Errno::PERM) => {
            Err(not_writable(folder, rustix::process::geteuid().as_raw()))
        }
        Err(error) => Err(Refusal::Unopened(folder.to_owned(), error.into())),
    }
}

/// Why this user may not write to a folder.
fn not_writable(folder: &Path, uid: u32) -> Refusal {
    let found = fs::metadata(folder).ok();
    let own = found.as_ref().filter(|found| found.uid() == uid);
    if let Some(denied) = own.and_then(|found| own_mode(folder, found)) {
        return denied;
    }
    Refusal::NotWritable {
        path: folder.to_owned(),
        owner: found.map_or_else(|| "another user".to_owned(), |found| user(found.uid())),
        user: user(uid),
    }
}

/// As the user that counts for opening files.
pub(super) fn access(path: &Path, access: Access) -> Result<(), Errno> {
    rustix::fs::accessat(CWD, path, access, AtFlags::EACCESS)
}
