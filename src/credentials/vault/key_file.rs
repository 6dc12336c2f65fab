//! The key in the store's own folder, which is created if no key is configured.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use crate::secret::Secret;
use crate::secret::file::{self, Unusable};

/// The file of a key that was created beside the store.
pub const KEY_FILE: &str = "store.key";

/// Reads [`KEY_FILE`] in the directory `path`, or creates both. True when it was created now. Of
/// processes that create it at once one succeeds, and all read its key.
pub fn read_or_create(path: &Path) -> io::Result<(Secret, bool)> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let file = path.join(KEY_FILE);
    let created = match file.try_exists()? {
        true => false,
        false => create_key(path, &file)?,
    };
    Ok((read(path).map_err(io::Error::other)?, created))
}

/// Reads [`KEY_FILE`] in the directory `path`, if only its owner can write it.
pub fn read(path: &Path) -> Result<Secret, Unusable> {
    let (key, _) = file::read(&path.join(KEY_FILE))?;
    let key = Zeroizing::new(key);
    Ok(Secret::from(key.trim_end()))
}

/// What an operator should know of [`KEY_FILE`] in the directory `path`.
pub fn warning(path: &Path) -> Option<String> {
    let path = path.join(KEY_FILE);
    file::warning(&path, &fs::metadata(&path).ok()?)
}

/// Under another name first, so that half a key is never read. Returns false if another process was
/// first.
fn create_key(directory: &Path, file: &Path) -> io::Result<bool> {
    let mut key = Zeroizing::new([0; 32]);
    getrandom::fill(key.as_mut_slice())?;
    let unfinished = directory.join(format!("store.key.{}", uuid::Uuid::new_v4()));
    let mut written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)?;
    file::give_to_owner_of(directory, &written)?;
    let text = Zeroizing::new(BASE64_STANDARD.encode(key.as_slice()) + "\n");
    let linked = written
        .write_all(text.as_bytes())
        .and_then(|()| written.sync_all())
        // A link, unlike a rename, never replaces the key of another process.
        .and_then(|()| fs::hard_link(&unfinished, file));
    fs::remove_file(&unfinished)?;
    match linked {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        linked => linked?,
    }
    File::open(directory)?.sync_all()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::credentials::seal::Ring;

    #[test]
    fn processes_that_create_the_key_at_once_end_with_the_same() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("store");
        let keys: Vec<_> = std::thread::scope(|scope| {
            let threads = [(); 8].map(|()| scope.spawn(|| read_or_create(&directory).unwrap()));
            threads.map(|thread| thread.join().unwrap()).into()
        });
        assert_eq!(keys.iter().filter(|(_, created)| *created).count(), 1);
        assert!(keys.iter().all(|(key, _)| key.matches(keys[0].0.expose())));
        assert!(Ring::new(&keys[0].0, &[]).is_ok());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory.join("store.key")), 0o600);
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    }
}
