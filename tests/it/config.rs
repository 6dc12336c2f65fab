//! What users see of the configuration: the example files are good, and each invalid file of
//! `tests/config/invalid` gives exactly the message beside it.
//!
//! The first lines of an invalid file may set the scene: `#! env NAME=VALUE` and `#! mode 0644`
//! (otherwise 0600). With `DAMOOV_PROXY_UPDATE_MESSAGES` set, messages are written, not compared.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use damoov_proxy::config::{self, Environment, Secrets};

#[test]
fn every_invalid_file_gives_exactly_its_message() {
    let update = std::env::var_os("DAMOOV_PROXY_UPDATE_MESSAGES").is_some();
    let files = invalid_files();
    assert!(files.len() >= 30, "only {} files", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let message = message_of(&file);
        let beside = file.with_extension("txt");
        if update {
            fs::write(&beside, &message).unwrap();
        } else if fs::read_to_string(&beside).ok().as_ref() != Some(&message) {
            wrong.push(format!("{}:\n{message}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn no_message_shows_a_secret() {
    let canary = "canary";
    let mut planted = 0;
    for file in invalid_files() {
        planted += String::from_utf8_lossy(&fs::read(&file).unwrap())
            .matches(canary)
            .count();
        assert!(!message_of(&file).contains(canary), "{}", file.display());
    }
    assert!(planted >= 10, "only {planted} secrets planted");
}

#[test]
fn check_accepts_the_example_files_offline() {
    for name in ["minimal.toml", "damoov-proxy.toml"] {
        let example = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("config")
            .join(name);
        let (_folder, path) = private_copy(&example);
        let output = check(&path, &["--offline"]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{name}");
        assert!(said.starts_with(&format!("config ok: {}\n", path.display())));
        assert!(said.contains("127.0.0.1:8080"), "{said}");
    }
}

#[test]
fn check_exits_with_64_when_the_configuration_is_wrong() {
    let (_folder, path) = private_copy(&invalid_files()[0]);
    let output = check(&path, &[]);
    assert_eq!(output.status.code(), Some(64));
    assert!(output.stdout.is_empty());
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .starts_with("error: ")
    );

    let output = check(Path::new("/nowhere/damoov-proxy.toml"), &["--offline"]);
    assert_eq!(output.status.code(), Some(64));
}

fn check(config: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_damoov-proxy"))
        .args(["check", "--config"])
        .arg(config)
        .args(arguments)
        .output()
        .unwrap()
}

/// In the order of their names.
fn invalid_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/invalid");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    files
}

/// A checkout's modes depend on the umask; a copy's do not.
fn private_copy(file: &Path) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("damoov-proxy.toml");
    fs::write(&copy, fs::read(file).unwrap()).unwrap();
    fs::set_permissions(&copy, Permissions::from_mode(0o600)).unwrap();
    (folder, copy)
}

fn message_of(file: &Path) -> String {
    let (folder, copy) = private_copy(file);
    let content = fs::read(file).unwrap();
    let content = String::from_utf8_lossy(&content);
    let mut variables = vec![(
        OsString::from("KEY"),
        OsString::from("from the environment"),
    )];
    for line in content.lines() {
        if let Some(variable) = line.strip_prefix("#! env ") {
            let (name, value) = variable.split_once('=').unwrap();
            variables.push((name.into(), value.into()));
        } else if let Some(mode) = line.strip_prefix("#! mode ") {
            let mode = u32::from_str_radix(mode, 8).unwrap();
            fs::set_permissions(&copy, Permissions::from_mode(mode)).unwrap();
        }
    }
    let environment: Environment = variables.into_iter().collect();
    let error = config::load(&copy, &environment, Secrets::Resolve)
        .map(|_| ())
        .expect_err(&format!("{} is accepted", file.display()));
    let folder = format!("{}/", folder.path().display());
    format!("{}\n", error.to_string().replace(&folder, ""))
}
