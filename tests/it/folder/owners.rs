//! A folder that is a user's, and commands of root in it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use damoov_proxy::simulator::Simulator;

use super::snapshot;
use crate::harness::programs::copy_binary;
use crate::harness::{Proxy, damoov, eventually, proxy, said, user};

/// `nobody`, as whom the service runs in some of these tests.
const NOBODY: u32 = 65_534;

/// Gives a folder and all in it to `nobody`.
fn give_to_nobody(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give_to_nobody(&entry.unwrap().path());
        }
    }
}

/// The same command as a user who is not root, from a copy that this user can run.
fn as_nobody(proxy: &Proxy, command: &str) -> Command {
    let copy = proxy.store().with_file_name("bin");
    if !copy.exists() {
        copy_binary(&copy);
    }
    let root = proxy.command(command);
    let mut same = Command::new(copy);
    same.args(root.get_args())
        .envs(
            root.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .uid(NOBODY)
        .gid(NOBODY)
        .stdin(Stdio::null());
    same
}

/// The service of a user who is not root. Killed when dropped.
struct Service(Child);

impl Service {
    async fn start(proxy: &Proxy) -> Service {
        let log = proxy.store().with_file_name("service.log");
        let mut command = as_nobody(proxy, "run");
        let child = command
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let service = Service(child);
        eventually("the service listens", async || {
            let said = fs::read_to_string(&log).unwrap();
            assert!(
                !said.contains("\"ERROR\"") && !said.contains("error:"),
                "{said}"
            );
            said.contains("\"message\":\"listening\"")
        })
        .await;
        service
    }

    fn end(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A proxy that was never started, whose files are all `nobody`'s. `None` if these tests may not play
/// another user.
async fn of_nobody() -> Option<(Simulator, Proxy)> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not tested: commands of root; only root can play another user");
        return None;
    }
    let damoov = damoov().await;
    let proxy = proxy(&damoov).stopped_here();
    give_to_nobody(proxy.store().parent().unwrap());
    Some((damoov, proxy))
}

#[tokio::test]
async fn what_root_does_in_the_services_folder_the_service_can_open() {
    let Some((damoov, proxy)) = of_nobody().await else {
        return;
    };
    let all_nobodys = |when: &str| {
        for (name, (owner, ..)) in snapshot(proxy.store()) {
            assert_eq!(owner, NOBODY, "{name} {when}");
        }
    };
    let by_root = |command: &str| {
        let status = proxy.command(command).status().unwrap();
        assert!(status.code() < Some(2), "{command}: {status}");
    };
    let forget = format!("tokens forget {}", user(1));
    // Root makes the store, with its key.
    proxy.import(&damoov, 1..4);
    all_nobodys("after an import into no store");
    let service = Service::start(&proxy).await;
    by_root(&forget);
    proxy.import(&damoov, 1..4);
    all_nobodys("beside the service");
    drop(service);
    by_root(&forget);
    all_nobodys("after a kill");
    let service = Service::start(&proxy).await;
    let locks = || fs::read_dir(proxy.store().join("owners")).unwrap().count();
    by_root(&forget);
    assert_eq!(locks(), 1, "the service's own");
    service.end();
    assert_eq!(locks(), 0);
}

#[tokio::test]
async fn a_lock_file_that_root_left_behind_stops_no_start() {
    let Some((_damoov, proxy)) = of_nobody().await else {
        return;
    };
    Service::start(&proxy).await.end();
    let left = proxy
        .store()
        .join("owners/5f0e9c1c-0000-4000-8000-000000000000.lock");
    fs::write(&left, "").unwrap();
    fs::set_permissions(&left, fs::Permissions::from_mode(0o600)).unwrap();
    Service::start(&proxy).await.end();
    assert!(!left.exists());
}

#[tokio::test]
async fn run_and_check_refuse_the_same_folders_and_name_owner_and_user() {
    let Some((_damoov, proxy)) = of_nobody().await else {
        return;
    };
    Service::start(&proxy).await.end();
    let (store, tokens) = (proxy.store(), proxy.store().join("tokens.db"));
    let mode = |mode| fs::set_permissions(store, fs::Permissions::from_mode(mode)).unwrap();
    let own = |path: &Path, owner| chown(path, Some(owner), None).unwrap();
    type Change<'c> = &'c dyn Fn();
    let owners = store.join("owners");
    let file_mode =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let cases: [(Change<'_>, Change<'_>, &[&str]); 8] = [
        (
            &|| mode(0o777),
            &|| mode(0o700),
            &["others may write", "0777"],
        ),
        (
            &|| mode(0o770),
            &|| mode(0o700),
            &["others may write", "0770"],
        ),
        (
            &|| mode(0o500),
            &|| mode(0o700),
            &["mode 0500", "`chmod 700 "],
        ),
        (
            &|| file_mode(&tokens, 0o400),
            &|| file_mode(&tokens, 0o600),
            &[
                "tokens.db belongs to nobody, whom its mode 0400",
                "`chmod 600 ",
            ],
        ),
        (
            &|| file_mode(&tokens, 0),
            &|| file_mode(&tokens, 0o600),
            &[
                "tokens.db belongs to nobody, whom its mode 0000",
                "`chmod 600 ",
            ],
        ),
        (
            &|| file_mode(&owners, 0o600),
            &|| file_mode(&owners, 0o700),
            &[
                "owners belongs to nobody, whom its mode 0600",
                "`chmod 700 ",
            ],
        ),
        (
            &|| own(store, 0),
            &|| own(store, NOBODY),
            &["root", "nobody"],
        ),
        (
            &|| own(&tokens, 0),
            &|| own(&tokens, NOBODY),
            &["tokens.db belongs to root", "nobody, who runs this"],
        ),
    ];
    for (break_it, mend, words) in cases {
        break_it();
        for command in ["run", "check"] {
            let (code, said) = said(as_nobody(&proxy, command)).await;
            assert_eq!(code, Some(78), "{command}, {words:?}: {said}");
            for word in words {
                assert!(said.contains(word), "{command}, {word}: {said}");
            }
        }
        mend();
    }
    let (code, said) = proxy.run("check").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("belongs to nobody, and this is root"),
        "{said}"
    );
    Service::start(&proxy).await.end();
}
