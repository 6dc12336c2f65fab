//! Programs that others wrote, which `tests/run` installs: found where it leaves them, unless a
//! variable of the environment names another one.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What to do without them.
pub const HINT: &str = "tests/run installs what the tests need; after that, cargo test finds it";

/// The Python with the packages of tests/clients/requirements.txt.
pub fn python() -> Command {
    command("DAMOOV_PROXY_PYTHON", "clients/bin/python", "python3")
}

/// Node; the package ws lies where Debian puts it, for a Node from elsewhere too.
pub fn node() -> Command {
    let mut command = command("DAMOOV_PROXY_NODE", "", "node");
    let mut folders: Vec<_> = env::var_os("NODE_PATH")
        .map(|paths| env::split_paths(&paths).collect())
        .unwrap_or_default();
    folders.push(PathBuf::from("/usr/share/nodejs"));
    let folders: OsString = env::join_paths(folders).unwrap();
    command.env("NODE_PATH", folders);
    command
}

/// Debian's browser.
pub fn chromium() -> Command {
    command("DAMOOV_PROXY_CHROMIUM", "", "chromium")
}

/// Prometheus' own tool.
pub fn promtool() -> Command {
    command(
        "DAMOOV_PROXY_PROMTOOL",
        "prometheus/usr/bin/promtool",
        "promtool",
    )
}

/// The server of Prometheus.
pub fn prometheus() -> Command {
    command(
        "DAMOOV_PROXY_PROMETHEUS",
        "prometheus/usr/bin/prometheus",
        "prometheus",
    )
}

/// The linter of Dockerfiles.
pub fn hadolint() -> Command {
    command("DAMOOV_PROXY_HADOLINT", "clients/bin/hadolint", "hadolint")
}

/// Knows the fields of Kubernetes' resources.
pub fn kubernetes_validate() -> Command {
    let name = "kubernetes-validate";
    let installed = "clients/bin/kubernetes-validate";
    command("DAMOOV_PROXY_KUBERNETES_VALIDATE", installed, name)
}

/// The PATH, with cargo-deb on it wherever it was installed.
pub fn path_with_cargo_deb() -> OsString {
    let installed = target().join("cargo-deb/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths(std::iter::once(installed).chain(env::split_paths(&path))).unwrap()
}

/// Copies the binary under test to where another user may run it. `cp` does it: a file that this process
/// writes is also open in every child that another test starts meanwhile, and what is open for writing
/// cannot be run.
pub fn copy_binary(to: &Path) {
    let mut copy = Command::new("cp");
    let copied = copy
        .arg(env!("CARGO_BIN_EXE_damoov-proxy"))
        .arg(to)
        .status();
    assert!(copied.unwrap().success(), "{copy:?}");
}

/// The program that `variable` names, the one `installed` in the target folder, or one on the PATH.
fn command(variable: &str, installed: &str, name: &str) -> Command {
    if let Some(named) = env::var_os(variable) {
        return Command::new(named);
    }
    let installed = target().join(installed);
    match installed.is_file() {
        true => Command::new(installed),
        false => Command::new(name),
    }
}

/// Where cargo builds, and where `tests/run` installs what no package has.
fn target() -> &'static Path {
    let binary = Path::new(env!("CARGO_BIN_EXE_damoov-proxy"));
    // It lies in `target/PROFILE`.
    binary.ancestors().nth(2).expect("a folder of a profile")
}
