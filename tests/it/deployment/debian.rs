//! The Debian package: what it installs, what it leaves when it goes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{check_offline, config, succeed, text};
use crate::harness::{programs, rounds};

/// Runs a script of the package on a system whose files lie in `root`.
fn run_script(name: &str, argument: &str, root: &Path) {
    let mut shell = Command::new("sh");
    let script = config(&format!("debian/{name}"));
    succeed(shell.arg(script).arg(argument).env("DPKG_ROOT", root));
}

/// A system with nothing but what the scripts need.
fn empty_system() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for folder in ["etc", "usr/lib/sysusers.d"] {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    let users = root.path().join("usr/lib/sysusers.d/damoov-proxy.conf");
    fs::write(users, text("systemd/damoov-proxy.sysusers")).unwrap();
    root
}

#[test]
fn what_the_package_configures_is_valid_and_lies_where_the_unit_looks() {
    check_offline("debian/config.toml");
    let file = text("debian/config.toml");
    let unit = text("systemd/damoov-proxy.service");
    assert!(unit.contains("--config /etc/damoov-proxy/config.toml"));
    for secret in ["instance_key", "store_key"] {
        let credential = format!("LoadCredential={secret}:/etc/damoov-proxy/secrets/{secret}");
        assert!(unit.contains(&credential), "{credential}");
        let copy = format!("\"/run/credentials/damoov-proxy.service/{secret}\"");
        assert!(file.contains(&copy), "{copy}");
    }
    let socket = text("systemd/damoov-proxy.socket");
    let configured: toml::Table = toml::from_str(&file).unwrap();
    let listen = configured["listen"].as_str().unwrap();
    assert!(socket.contains(&format!("ListenStream={listen}\n")));
}

#[test]
fn installing_makes_a_user_and_a_key_and_a_second_time_changes_neither() {
    let system = empty_system();
    let key = system.path().join("etc/damoov-proxy/secrets/store_key");
    run_script("postinst", "configure", system.path());
    let users = fs::read_to_string(system.path().join("etc/passwd")).unwrap();
    assert!(users.contains("damoov-proxy:x:"), "{users}");
    let first = fs::read_to_string(&key).unwrap();
    assert_eq!(first.trim().len(), 44, "32 bytes in base64");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&key), 0o600);
    assert_eq!(mode(key.parent().unwrap()), 0o700);

    run_script("postinst", "configure", system.path());
    assert_eq!(fs::read_to_string(&key).unwrap(), first);
    for (script, argument) in [
        ("prerm", "remove"),
        ("postrm", "remove"),
        ("postrm", "purge"),
    ] {
        run_script(script, argument, system.path());
    }
    assert_eq!(
        fs::read_to_string(&key).unwrap(),
        first,
        "no store opens without it"
    );
}

/// Built as users build it: in a folder of its own, since what is built there has no simulator.
fn build() -> (tempfile::TempDir, PathBuf) {
    let target = tempfile::tempdir().unwrap();
    let mut build = Command::new(config("debian/build"));
    build.env("CARGO_TARGET_DIR", target.path());
    succeed(build.env("PATH", programs::path_with_cargo_deb()));
    let built = fs::read_dir(target.path().join("debian")).unwrap();
    let mut packages = built.map(|file| file.unwrap().path());
    let package = packages.next().expect("a package");
    assert!(packages.next().is_none());
    (target, package)
}

#[test]
fn the_package_is_without_fault_and_leaves_the_store_when_it_goes() {
    // It is built in release, which takes minutes.
    if rounds(0, 1) == 0 {
        return;
    }
    let (_target, package) = build();
    let listed = succeed(Command::new("dpkg-deb").arg("--contents").arg(&package));
    for file in [
        "./usr/bin/damoov-proxy",
        "./usr/share/man/man1/damoov-proxy.1.gz",
        "./usr/share/bash-completion/completions/damoov-proxy",
        "./usr/lib/sysusers.d/damoov-proxy.conf",
        "./etc/damoov-proxy/config.toml",
        "system/damoov-proxy.service",
        "system/damoov-proxy.socket",
    ] {
        assert!(listed.contains(file), "{file} is missing in\n{listed}");
    }
    let mut lintian = Command::new("lintian");
    // The package was never uploaded to Debian.
    lintian.args(["--suppress-tags", "initial-upload-closes-no-bugs"]);
    lintian.args(["--fail-on", "error,warning", "--allow-root"]);
    succeed(lintian.arg(&package));

    let system = empty_system();
    let dpkg = |arguments: &[&str]| {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", system.path().display()));
        dpkg.args([
            "--force-script-chrootless",
            "--force-depends",
            "--force-not-root",
        ]);
        succeed(dpkg.args(arguments))
    };
    for folder in ["updates", "info", "triggers"] {
        fs::create_dir_all(system.path().join("var/lib/dpkg").join(folder)).unwrap();
    }
    fs::write(system.path().join("var/lib/dpkg/status"), "").unwrap();
    let _ = fs::remove_file(system.path().join("usr/lib/sysusers.d/damoov-proxy.conf"));
    dpkg(&["--install", package.to_str().unwrap()]);
    let binary = system.path().join("usr/bin/damoov-proxy");
    let said = succeed(Command::new(&binary).arg("-V"));
    assert!(!said.contains("simulator"), "{said}");
    let store = system.path().join("var/lib/damoov-proxy/tokens.db");
    fs::create_dir_all(store.parent().unwrap()).unwrap();
    fs::write(&store, "the tokens").unwrap();
    dpkg(&["--remove", "damoov-proxy"]);
    assert!(!binary.exists());
    dpkg(&["--purge", "damoov-proxy"]);
    assert_eq!(fs::read_to_string(&store).unwrap(), "the tokens");
    let key = system.path().join("etc/damoov-proxy/secrets/store_key");
    assert!(key.exists(), "the store is worth nothing without it");
}
