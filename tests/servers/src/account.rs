//! Where the programs are, and the account that runs them: PostgreSQL and pgbouncer refuse root.

use std::env;
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

/// Names the folder of PostgreSQL's programs, if it is not Debian's.
const VARIABLE: &str = "DAMOOV_PROXY_POSTGRES";
const DEBIAN: &str = "/usr/lib/postgresql";
const HINT: &str = "tests/run installs what the tests need; after that, cargo test finds it";

/// The account of the package, if root runs the tests; else everything runs as who started them.
static ACCOUNT: LazyLock<Option<(u32, u32)>> = LazyLock::new(|| {
    rustix::process::geteuid().is_root().then(|| {
        let accounts = fs::read_to_string("/etc/passwd").expect("/etc/passwd can be read");
        let line = accounts.lines().find(|line| line.starts_with("postgres:"));
        let line = line.unwrap_or_else(|| panic!("there is no account postgres: {HINT}"));
        let mut numbers = line.split(':').skip(2).map(str::parse::<u32>);
        let mut number = || numbers.next().expect("a field").expect("a number");
        (number(), number())
    })
});

/// The newest PostgreSQL's programs.
static PROGRAMS: LazyLock<PathBuf> = LazyLock::new(|| {
    if let Some(named) = env::var_os(VARIABLE) {
        return named.into();
    }
    let versions = fs::read_dir(DEBIAN).into_iter().flatten();
    let newest = versions
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|version| program_of(*version, "postgres").is_file())
        .max();
    let newest = newest.unwrap_or_else(|| panic!("there is no PostgreSQL in {DEBIAN}: {HINT}"));
    program_of(newest, "")
});

fn program_of(version: u32, name: &str) -> PathBuf {
    Path::new(DEBIAN)
        .join(version.to_string())
        .join("bin")
        .join(name)
}

/// One of PostgreSQL's programs.
pub(crate) fn postgres(name: &str, folder: &Path) -> Command {
    command(&PROGRAMS.join(name), folder)
}

/// A program that works in `folder` ([`crate::processes`] finds it there), as the account that may.
pub(crate) fn command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .stdin(Stdio::null())
        .env("LC_ALL", "C")
        .process_group(0);
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
        command.env_remove(name);
    }
    if let Some((user, group)) = *ACCOUNT {
        command.uid(user).gid(group);
    }
    command
}

/// Gives a file or an empty folder to the account.
pub(crate) fn give(path: &Path) {
    if let Some((user, group)) = *ACCOUNT {
        chown(path, Some(user), Some(group)).expect("root may give what it made");
    }
}

/// Makes a folder that belongs to the account.
pub(crate) fn make_folder(path: &Path) {
    fs::create_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    give(path);
}

/// Runs a program to its end, which must be a good one.
pub(crate) fn succeed(mut command: Command) {
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}: {HINT}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}:\n{said}");
}
