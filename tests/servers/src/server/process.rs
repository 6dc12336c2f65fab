//! The processes of one server: its postmaster and all that it starts.

use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Mutex;

use crate::{account, processes};

/// What ends with the last [`Server`](super::Server).
pub(crate) struct Process {
    pub(super) folder: PathBuf,
    pub(super) address: SocketAddr,
    /// `None` while it is stopped.
    postmaster: Mutex<Option<Child>>,
}

impl Process {
    pub(super) fn new(folder: PathBuf, address: SocketAddr) -> Process {
        Process {
            folder,
            address,
            postmaster: Mutex::default(),
        }
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// The end of the log, for a test that fails.
    pub(super) fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    pub(super) fn begin(&self) {
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.folder.join("log"));
        let log = log.expect("the folder is the test's own");
        let data = self.folder.join("data");
        fs::set_permissions(&data, PermissionsExt::from_mode(0o700)).expect("it was made");
        let mut postgres = account::postgres("postgres", &data);
        postgres.arg("-D").arg(&data);
        postgres
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log);
        let child = postgres.spawn().expect("PostgreSQL can be started");
        *self.postmaster.lock().expect("no test panicked in here") = Some(child);
    }

    pub(super) fn still_runs(&self) {
        let mut postmaster = self.postmaster.lock().expect("no test panicked in here");
        let ended = postmaster
            .as_mut()
            .and_then(|child| child.try_wait().expect("a child"));
        if let Some(status) = ended {
            panic!("PostgreSQL ended with {status}:\n{}", self.last_lines());
        }
    }

    pub(super) fn end(&self, ask: impl FnOnce(&Child)) {
        let mut postmaster = self.postmaster.lock().expect("no test panicked in here");
        if let Some(mut child) = postmaster.take() {
            ask(&child);
            child.wait().expect("a child");
        }
    }

    pub(super) fn kill(&self) {
        processes::kill(&self.folder);
        self.end(|_| ());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server's last lines:\n{}", self.last_lines());
        }
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
