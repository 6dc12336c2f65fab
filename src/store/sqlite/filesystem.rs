//! What an operator should know of the place of a store that is not refused: a filesystem that is not
//! suited, files of another user.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::folder::{FILES, user};

/// What an operator should know of a folder that is not refused: each a sentence.
pub(in crate::store) fn warnings(path: &Path) -> Vec<String> {
    let existing = path.ancestors().find(|above| above.exists());
    let Some(existing) = existing else {
        return Vec::new();
    };
    let mut warnings = Vec::new();
    if let Ok(found) = rustix::fs::statfs(existing)
        && let Some(why) = unsuitable(found.f_type as u64)
    {
        warnings.push(format!("the store {} lies on {why}", path.display()));
    }
    if let (true, Ok(folder)) = (existing == path, fs::metadata(path)) {
        warnings.extend(of_another(path, &folder));
    }
    warnings
}

/// What root finds in the folder of another user.
fn of_another(path: &Path, folder: &Metadata) -> Vec<String> {
    if !rustix::process::geteuid().is_root() || folder.uid() == 0 {
        return Vec::new();
    }
    let owner = user(folder.uid());
    let mut warnings = vec![format!(
        "{} belongs to {owner}, and this is root: what root may do, {owner} may be refused",
        path.display()
    )];
    let owners = fs::read_dir(path.join("owners")).into_iter().flatten();
    let locks = owners.flatten().map(|lock| lock.path());
    for file in FILES.map(|name| path.join(name)).into_iter().chain(locks) {
        if let Ok(found) = fs::symlink_metadata(&file)
            && found.uid() != folder.uid()
        {
            warnings.push(format!(
                "{} belongs to {}, and {owner}, who owns the folder, may not be able to open it: \
                 `chown --reference={} {}`",
                file.display(),
                user(found.uid()),
                path.display(),
                file.display()
            ));
        }
    }
    warnings
}

/// Why a store should not lie on a filesystem of this type, if anything speaks against it. The
/// numbers are those of statfs(2).
fn unsuitable(kind: u64) -> Option<&'static str> {
    const NETWORK: &str = "a network filesystem, where locks and shared memory may not work: two \
                           processes could spend the same RefreshToken";
    match kind & 0xffff_ffff {
        0x0102_1994 | 0x8584_58f6 => {
            Some("a filesystem in memory: a restart of the machine costs every user a login")
        }
        0x794c_7630 => Some(
            "an overlay, which is thrown away with its container: mount a volume there, or every \
             new container costs every user a login",
        ),
        // NFS, SMB, CIFS, SMB2, Ceph, 9P, AFS, Coda, NCP, OCFS2, GFS2, Lustre
        0x6969 | 0x517b | 0xff53_4d42 | 0xfe53_4d42 | 0x00c3_6400 | 0x0102_1997 | 0x5346_414f
        | 0x7375_7245 | 0x564c | 0x7461_636f | 0x0116_1970 | 0x0bd0_0bd0 => Some(NETWORK),
        _ => None,
    }
}
