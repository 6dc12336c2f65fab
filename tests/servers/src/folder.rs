//! The folder of a test binary, which holds all that its servers keep, and what cleans up behind it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::account;

/// Waits for the end of the test binary, which alone holds the other end of its input. Then ends what still
/// works in the folder, and removes it. A process of its own, since no destructor runs when a binary is
/// killed, nor for what is static.
const WATCHDOG: &str = r#"
trap '' HUP INT TERM
read -r _
found=yes
while [ "$found" ]; do
    found=
    for process in /proc/[0-9]*; do
        cd -P "$process/cwd" || continue
        case "$PWD" in
        "$1"/*) kill -9 "${process#/proc/}" && found=yes ;;
        esac
    done
done
cd /
rm -rf "$1"
"#;

struct Binary {
    folder: PathBuf,
    /// Its input is closed by the end of the binary.
    _watchdog: Child,
}

static BINARY: LazyLock<Binary> = LazyLock::new(|| {
    let folder = tempfile::Builder::new().prefix("servers-").tempdir();
    let folder = folder.expect("a folder can be made").keep();
    // The account of the servers passes through.
    fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).expect("it was just made");
    account::give(&folder);
    let watchdog = Command::new("/bin/sh")
        .args(["-c", WATCHDOG, "watchdog"])
        .arg(&folder)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("there is a shell");
    Binary {
        folder,
        _watchdog: watchdog,
    }
});

/// The folder of this binary.
pub(crate) fn folder() -> &'static Path {
    &BINARY.folder
}

/// A number that nothing else in this binary has.
pub(crate) fn number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A new folder, which is removed when the test binary ends.
pub fn new_folder(what: &str) -> PathBuf {
    new(what)
}

/// A new folder in it, for one server.
pub(crate) fn new(what: &str) -> PathBuf {
    let folder = folder().join(format!("{what}{}", number()));
    account::make_folder(&folder);
    folder
}
