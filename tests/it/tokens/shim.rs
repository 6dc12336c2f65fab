//! Between the proxy and the C library: a wall clock that jumps and files that cannot be written,
//! steered by a test while the proxy runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::Builder;

/// What stands between a proxy and the C library. Each setting is a file with a number, 0 at first:
/// `clock` in seconds ahead, `writes` and `syncs` of `tokens.db` with the errno they fail with.
pub struct Shim {
    folder: tempfile::TempDir,
}

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long setting(const char *name) {
    char path[512], text[32] = {0};
    snprintf(path, sizeof path, "%s/%s", getenv("SHIM"), name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    long length = read(file, text, sizeof text - 1);
    close(file);
    return length > 0 ? atol(text) : 0;
}

static int fails(int file, const char *name) {
    char link[64], path[512] = {0};
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    if (readlink(link, path, sizeof path - 1) < 0 || !strstr(path, "tokens.db")) return 0;
    long why = setting(name);
    if (why) errno = why;
    return why != 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += setting("clock");
    return result;
}
ssize_t write(int file, const void *bytes, size_t length) {
    return fails(file, "writes") ? -1 : syscall(SYS_write, file, bytes, length);
}
ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t at) {
    return fails(file, "writes") ? -1 : syscall(SYS_pwrite64, file, bytes, length, at);
}
ssize_t pwrite(int file, const void *bytes, size_t length, off_t at) {
    return pwrite64(file, bytes, length, at);
}
int fsync(int file) { return fails(file, "syncs") ? -1 : syscall(SYS_fsync, file); }
int fdatasync(int file) { return fails(file, "syncs") ? -1 : syscall(SYS_fdatasync, file); }
"#;

impl Shim {
    /// One that changes nothing yet.
    pub fn new() -> Shim {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("shim.c");
        fs::write(&source, SOURCE).unwrap();
        let shim = Shim { folder };
        let compiled = Command::new("cc")
            .args(["-O1", "-shared", "-fPIC", "-o"])
            .arg(shim.library())
            .arg(&source)
            .status()
            .expect("the C compiler that SQLite is built with");
        assert!(compiled.success());
        shim
    }

    /// Puts it below `proxy`.
    pub fn apply(&self, proxy: Builder) -> Builder {
        proxy
            .env("LD_PRELOAD", text(&self.library()))
            .env("SHIM", text(self.folder.path()))
    }

    /// Changes a setting, at once.
    pub fn set(&self, name: &str, number: i64) {
        let unfinished = self.folder.path().join("unfinished");
        fs::write(&unfinished, number.to_string()).unwrap();
        fs::rename(unfinished, self.folder.path().join(name)).unwrap();
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("shim.so")
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
