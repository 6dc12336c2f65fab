//! All processes of a server: those that work in its folder. A postmaster's children leave its process
//! group, so that a signal to the group would miss them.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Those that work in `folder` or below.
fn of(folder: &Path) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").expect("Linux has /proc");
    let numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let works_there = |number: &i32| {
        let works = fs::read_link(format!("/proc/{number}/cwd"));
        works.is_ok_and(|works| works.starts_with(folder))
    };
    numbers
        .filter(works_there)
        .filter_map(Pid::from_raw)
        .collect()
}

/// Sends all of them a signal, twice: the first may have been about to start another.
pub(crate) fn signal(folder: &Path, signal: Signal) {
    for _ in 0..2 {
        for process in of(folder) {
            let _ = kill_process(process, signal);
        }
    }
}

/// SIGKILL to all of them, until none is left.
pub(crate) fn kill(folder: &Path) {
    loop {
        let processes = of(folder);
        if processes.is_empty() {
            return;
        }
        for process in processes {
            let _ = kill_process(process, Signal::KILL);
        }
        thread::sleep(Duration::from_millis(10));
    }
}
