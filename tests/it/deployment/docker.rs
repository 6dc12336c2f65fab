//! The Dockerfile.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{config, succeed, text};
use crate::harness::programs;

const DOCKERFILE: &str = "docker/Dockerfile";

#[test]
fn hadolint_finds_nothing_in_the_dockerfile() {
    succeed(programs::hadolint().arg(config(DOCKERFILE)));
}

#[test]
fn the_image_has_pinned_parents_no_root_no_simulator_and_a_healthcheck() {
    let file = text(DOCKERFILE);
    let lines: Vec<_> = file.lines().map(str::trim).collect();
    let parents: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("FROM "))
        .collect();
    assert_eq!(parents.len(), 2);
    for parent in parents {
        let (_, tag) = parent.split_once(':').expect("a tag");
        assert!(!tag.starts_with("latest"), "{parent}");
    }
    let rust = env!("CARGO_PKG_RUST_VERSION");
    assert!(
        file.contains(&format!("FROM rust:{rust}.")),
        "not Rust {rust}"
    );
    assert!(file.contains("--locked --no-default-features"));
    let user = lines
        .iter()
        .find(|line| line.starts_with("USER "))
        .expect("a user");
    assert!(!user.contains("root") && !user.contains(" 0"), "{user}");
    // By what the process was started with, whatever the file says by now.
    assert!(
        file.contains(r#"CMD ["/usr/bin/damoov-proxy", "healthcheck", "--at", "127.0.0.1:9091"]"#)
    );
    assert!(file.contains(r#"ENTRYPOINT ["/usr/bin/damoov-proxy"]"#));
}

/// The build stage sees what it copies, and nothing else: cargo wants every target of the manifest.
#[test]
fn what_the_build_stage_copies_is_what_cargo_needs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let stage = tempfile::tempdir().unwrap();
    let file = text(DOCKERFILE);
    let copies = file.lines().filter_map(|line| line.strip_prefix("COPY "));
    let copies = copies.filter(|copy| !copy.starts_with("--from"));
    for copy in copies.clone() {
        let mut parts: Vec<_> = copy.split_whitespace().collect();
        let to = parts.pop().expect("where to");
        for part in parts {
            let to = stage.path().join(match to {
                "./" => part,
                to => to,
            });
            fs::create_dir_all(to.parent().expect("below the stage")).unwrap();
            let mut copy = Command::new("cp");
            succeed(copy.arg("-r").arg(root.join(part)).arg(to));
        }
    }
    let mut metadata = Command::new(env!("CARGO"));
    // Packages of other platforms may never have been fetched.
    metadata.args(["metadata", "--locked", "--offline", "--format-version=1"]);
    metadata.args(["--filter-platform", "host-tuple"]);
    succeed(metadata.current_dir(stage.path()));

    let ignored = text("docker/Dockerfile.dockerignore");
    let sent: Vec<_> = ignored
        .lines()
        .filter_map(|line| line.strip_prefix('!'))
        .collect();
    for copy in copies.clone() {
        let (from, _) = copy.rsplit_once(' ').expect("where to");
        for part in from.split_whitespace() {
            assert!(sent.contains(&part), "{part} is not sent to the build");
        }
    }
}
