//! The folder of the store, and the hands of operators in it: who looks changes nothing, what root
//! creates is the owner's, and no renewal goes into a file that is gone.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::harness::{Proxy, SCORES, captured, damoov, eventually, principal, proxy, user};

/// `nobody`, as whom the service runs in some of these tests.
const NOBODY: u32 = 65_534;

/// Names, owners, permissions, times and contents of all that lies in a folder.
type Snapshot = BTreeMap<String, (u32, u32, i64, i64, Vec<u8>)>;

fn snapshot(folder: &Path) -> Snapshot {
    let mut found = Snapshot::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let of = fs::metadata(&path).unwrap();
            let content = match of.is_dir() {
                true => Vec::new(),
                false => fs::read(&path).unwrap(),
            };
            let stamp = (of.uid(), of.mode(), of.mtime(), of.mtime_nsec(), content);
            found.insert(path.display().to_string(), stamp);
            if of.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

fn assert_same(before: &Snapshot, after: &Snapshot, what: &str) {
    let changed = |(name, stamp)| (after.get(name) != Some(stamp)).then_some(name);
    let changed: Vec<_> = before.iter().filter_map(changed).collect();
    let made: Vec<_> = after
        .keys()
        .filter(|name| !before.contains_key(*name))
        .collect();
    assert!(
        changed.is_empty() && made.is_empty(),
        "{what} changed {changed:?}, made {made:?}"
    );
}

/// What a command says, and its exit code.
async fn run(proxy: &Proxy, command: &str) -> (Option<i32>, String) {
    said(proxy.command(command)).await
}

async fn said(command: Command) -> (Option<i32>, String) {
    let output = captured(command).await;
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// The length of a file; 0 if there is none.
fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

async fn logged_nothing(proxy: &Proxy) {
    let log = proxy.store().join("tokens.db-wal");
    eventually("the log is empty", async || length(&log) == 0).await;
    // The one that emptied it has finished.
    let lock = fs::File::open(proxy.store().join("open.lock")).unwrap();
    lock.lock().unwrap();
}

#[tokio::test]
async fn who_looks_at_a_store_changes_nothing_in_its_folder() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    for number in [1, 2] {
        proxy.get(number, SCORES).await;
    }
    let looks = [
        "check".to_owned(),
        "tokens list".to_owned(),
        format!("tokens show {}", user(1)),
        "tokens export --to -".to_owned(),
    ];
    for state in ["runs", "was killed", "ended"] {
        match state {
            "runs" => logged_nothing(&proxy).await,
            "was killed" => {
                proxy.get(3, SCORES).await;
                proxy.kill();
                assert!(length(&proxy.store().join("tokens.db-wal")) > 0);
            }
            _ => {
                proxy.start().await;
                assert!(proxy.terminate().await.success());
            }
        }
        let before = snapshot(proxy.store());
        for look in &looks {
            let (code, said) = run(&proxy, look).await;
            assert_eq!(code, Some(0), "{look} while it {state}: {said}");
            if look.ends_with("list") {
                let users = if state == "runs" { 2 } else { 3 };
                assert_eq!(said.lines().count(), 1 + users, "{state}: {said}");
            }
            assert_same(
                &before,
                &snapshot(proxy.store()),
                &format!("{look} while it {state}"),
            );
        }
    }
}

#[tokio::test]
async fn who_looks_where_no_store_is_says_so_and_makes_none() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).stopped_here();
    for (look, code) in [
        ("check".to_owned(), 0),
        ("tokens list".to_owned(), 0),
        (format!("tokens show {}", user(1)), 1),
        (format!("tokens forget {}", user(1)), 1),
        ("tokens verify".to_owned(), 1),
        ("tokens reseal".to_owned(), 1),
        ("tokens export --to -".to_owned(), 1),
    ] {
        let (found, said) = run(&proxy, &look).await;
        assert_eq!(found, Some(code), "{look}: {said}");
        assert!(said.contains("the first `run` will make one"), "{said}");
    }
    assert!(!proxy.store().exists());
}

#[tokio::test]
async fn an_empty_folder_is_refused_where_no_store_is_to_be_made() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).set("store.create", "false").stopped_here();
    for command in ["run", "check", "tokens list"] {
        let (code, said) = run(&proxy, command).await;
        assert_eq!(code, Some(78), "{command}: {said}");
        assert!(said.contains("`[store] create` is false"), "{said}");
        assert!(!proxy.store().exists());
    }
    proxy.reconfigure("store.create", "true");
    proxy.start().await;
    proxy.get(1, SCORES).await;
    proxy.terminate().await;
    proxy.reconfigure("store.create", "false");
    proxy.start().await;
}

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
        fs::copy(env!("CARGO_BIN_EXE_damoov-proxy"), &copy).unwrap();
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

/// Whether these tests may play another user.
fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("not tested: commands of root; only root can play another user");
    }
    root
}

#[tokio::test]
async fn what_root_does_in_the_services_folder_the_service_can_open() {
    if !is_root() {
        return;
    }
    let damoov = damoov().await;
    let proxy = proxy(&damoov).stopped_here();
    let home = proxy.store().parent().unwrap();
    give_to_nobody(home);
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
    if !is_root() {
        return;
    }
    let damoov = damoov().await;
    let proxy = proxy(&damoov).stopped_here();
    give_to_nobody(proxy.store().parent().unwrap());
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
    if !is_root() {
        return;
    }
    let damoov = damoov().await;
    let proxy = proxy(&damoov).stopped_here();
    give_to_nobody(proxy.store().parent().unwrap());
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
    let (code, said) = run(&proxy, "check").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("belongs to nobody, and this is root"),
        "{said}"
    );
    Service::start(&proxy).await.end();
}

#[tokio::test]
async fn a_linked_file_is_refused_and_a_linked_folder_is_not() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    proxy.get(1, SCORES).await;
    proxy.terminate().await;
    let elsewhere = proxy.store().with_file_name("elsewhere");
    let backup = proxy.store().with_file_name("backup");
    let backup = format!("tokens backup --to {}", backup.display());
    for name in ["tokens.db", "leases.db"] {
        let file = proxy.store().join(name);
        fs::rename(&file, &elsewhere).unwrap();
        symlink(&elsewhere, &file).unwrap();
        for command in ["run", "check", "tokens list", &backup] {
            let (code, said) = run(&proxy, command).await;
            assert_eq!(code, Some(78), "{command}, {name}: {said}");
            let sentence = format!("{name} is a symbolic link: link the folder, not the file");
            assert!(said.contains(&sentence), "{command}: {said}");
        }
        fs::rename(&elsewhere, &file).unwrap();
    }
    fs::rename(proxy.store(), &elsewhere).unwrap();
    symlink(&elsewhere, proxy.store()).unwrap();
    proxy.start().await;
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    proxy.get(2, SCORES).await;
    let (code, said) = run(&proxy, &backup).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("backed up 2 principals"), "{said}");
    assert_eq!(damoov.handle().counts().total.logins.all(), 2);
}

#[tokio::test]
async fn what_is_no_folder_is_called_that_by_every_command() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).stopped_here();
    let home = proxy.store().parent().unwrap();
    let inside = home.join("inside");
    fs::write(&inside, "a file").unwrap();
    let cases: [(&Path, &str); 2] = [
        (&inside, "is not a folder"),
        (Path::new("nowhere"), "is a symbolic link to nothing"),
    ];
    for (target, sentence) in cases {
        for nested in [false, true] {
            let _ = fs::remove_file(proxy.store());
            symlink(target, proxy.store()).unwrap();
            let path = match nested {
                true => proxy.store().join("nested"),
                false => proxy.store().to_owned(),
            };
            for command in ["run", "check", "tokens list"] {
                let mut command_of_it = proxy.command(command);
                command_of_it.env("DAMOOV_PROXY__STORE__PATH", &path);
                let (code, said) = said(command_of_it).await;
                assert_eq!(code, Some(78), "{command}, {sentence}: {said}");
                let named = format!("{} {sentence}", proxy.store().display());
                assert!(said.contains(&named), "{command}: {said}");
            }
        }
    }
}

#[tokio::test]
async fn a_lost_key_is_called_that_by_every_command() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    proxy.get(1, SCORES).await;
    proxy.terminate().await;
    let key = proxy.store().join("store.key");
    let kept = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    for command in ["run", "check", "tokens list"] {
        let (code, said) = run(&proxy, command).await;
        assert_eq!(code, Some(78), "{command}: {said}");
        assert!(said.contains("store.key is lost"), "{said}");
        assert!(said.contains("Restore it from its backup"), "{said}");
        assert!(!key.exists(), "{command} made a new key");
    }
    fs::write(&key, kept).unwrap();
    proxy.start().await;
}

#[tokio::test]
async fn a_key_that_others_can_write_or_that_is_cut_is_refused() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    proxy.get(1, SCORES).await;
    proxy.terminate().await;
    let key = proxy.store().join("store.key");
    let kept = fs::read(&key).unwrap();
    let cases: [(u32, &[u8], &str); 4] = [
        (0o620, &kept, "store.key can be written by group or others"),
        (0o602, &kept, "store.key can be written by group or others"),
        (0o600, &kept[..20], "store.key is empty or cut"),
        (0o600, b"", "restore it from its backup"),
    ];
    for (mode, content, sentence) in cases {
        fs::write(&key, content).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        for command in ["run", "check", "tokens list"] {
            let (code, said) = run(&proxy, command).await;
            assert_eq!(code, Some(78), "{command}, {mode:o}: {said}");
            assert!(said.contains(sentence), "{command}, {mode:o}: {said}");
        }
    }
    fs::write(&key, &kept).unwrap();
    for (mode, warned) in [(0o600, false), (0o640, true), (0o604, true)] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let (code, said) = run(&proxy, "check").await;
        assert_eq!(code, Some(0), "{mode:o}: {said}");
        let warning = "store.key holds a secret and can be read by group or others";
        assert_eq!(said.contains(warning), warned, "{mode:o}: {said}");
    }
}

async fn is_ready(proxy: &Proxy) -> bool {
    proxy.status("/readyz").await.status == 200
}

#[tokio::test]
async fn no_renewal_goes_into_a_file_that_was_removed_or_replaced() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    proxy.get(2, SCORES).await;
    for name in ["tokens.db", "tokens.db-wal", "tokens.db-shm"] {
        for replaced in [false, true] {
            proxy.get(1, SCORES).await;
            logged_nothing(&proxy).await;
            let (file, aside) = (proxy.store().join(name), proxy.store().join("aside"));
            fs::rename(&file, &aside).unwrap();
            if replaced {
                fs::copy(&aside, &file).unwrap();
            }
            let moved = Instant::now();
            eventually("not ready", async || !is_ready(&proxy).await).await;
            assert!(moved.elapsed() < Duration::from_secs(1), "{name}");
            let ready = proxy.status("/readyz").await.text();
            assert!(
                ready.contains("store_unwritable") || ready.contains(name),
                "{ready}"
            );
            damoov.handle().expire(Some(&principal(1)));
            let refreshes = damoov.handle().counts().total.refreshes.all();
            assert_eq!(proxy.get(1, SCORES).await.code(), "store_unavailable");
            assert_eq!(proxy.get(2, SCORES).await.status, 200);
            assert_eq!(damoov.handle().counts().total.refreshes.all(), refreshes);
            let (code, said) = run(&proxy, "tokens list").await;
            assert_eq!(code, Some(78), "{name}: {said}");

            fs::rename(&aside, &file).unwrap();
            eventually("ready", async || is_ready(&proxy).await).await;
            assert_eq!(proxy.get(1, SCORES).await.status, 200);
        }
    }
    let log = proxy.log();
    let told = log
        .lines()
        .filter(|line| line.contains("are not in their place"));
    // Once, not for each of those that followed at once.
    assert_eq!(told.count(), 1, "{log}");
    assert_eq!(damoov.handle().counts().total.logins.all(), 2);
}

#[tokio::test]
async fn a_second_process_never_works_on_another_file_beside_the_first() {
    let damoov = damoov().await;
    let first = proxy(&damoov).start().await;
    first.get(1, SCORES).await;
    logged_nothing(&first).await;
    let (tokens, aside) = (first.store().join("tokens.db"), first.store().join("aside"));
    fs::copy(&tokens, &aside).unwrap();
    fs::rename(&aside, &tokens).unwrap();
    let second = proxy(&damoov).stopped(first.store());
    for command in ["run", "check", "tokens list"] {
        let (code, said) = run(&second, command).await;
        assert_eq!(code, Some(78), "{command}: {said}");
        assert!(said.contains("running process"), "{said}");
    }
}

#[tokio::test]
async fn the_folder_of_lock_files_is_made_anew_and_the_log_tells_it() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    proxy.get(1, SCORES).await;
    let owners = proxy.store().join("owners");
    let locks = || fs::read_dir(&owners).map_or(0, Iterator::count);
    assert_eq!(locks(), 1);
    fs::remove_dir_all(&owners).unwrap();
    let removed = Instant::now();
    eventually("the lock file is there", async || locks() == 1).await;
    assert!(removed.elapsed() < Duration::from_secs(1));
    eventually("it is told", async || {
        proxy.log().contains("owners/ was removed")
    })
    .await;
    damoov.handle().expire(None);
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    assert!(is_ready(&proxy).await);
    assert!(proxy.terminate().await.success());
}

#[tokio::test]
async fn after_a_quiet_second_the_file_holds_all_and_its_log_nothing() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let alone = |store: &Path| {
        let copy = tempfile::tempdir().unwrap();
        fs::copy(store.join("tokens.db"), copy.path().join("tokens.db")).unwrap();
        let db = rusqlite::Connection::open(copy.path().join("tokens.db")).unwrap();
        let count = "SELECT count(*) FROM entries WHERE sealed IS NOT NULL";
        db.query_row(count, [], |row| row.get::<_, u32>(0)).unwrap()
    };
    proxy.get(1, SCORES).await;
    logged_nothing(&proxy).await;
    assert_eq!(alone(proxy.store()), 1);
    // What another process wrote, too.
    proxy.import(&damoov, 2..10);
    logged_nothing(&proxy).await;
    assert_eq!(alone(proxy.store()), 9);
}

#[tokio::test]
async fn a_backup_beside_a_running_proxy_restores_every_user_without_a_login() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    proxy.import(&damoov, 0..50);
    let callers: Vec<_> = (0..50)
        .map(|number| proxy.calling(number, SCORES))
        .collect();
    let file = proxy.store().with_file_name("backup");
    let backup = format!("tokens backup --to {}", file.display());
    let (code, said) = run(&proxy, &backup).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("backed up 50 principals"), "{said}");
    assert!(said.contains("store.key"), "{said}");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    for caller in callers {
        assert_eq!(caller.await.unwrap().status, 200);
    }
    let kept = fs::read(&file).unwrap();
    let (code, said) = run(&proxy, &backup).await;
    assert_eq!(
        (code, fs::read(&file).unwrap() == kept),
        (Some(1), true),
        "{said}"
    );

    // Beside the log of the crash it is told apart, and not spoilt.
    proxy.get(99, SCORES).await;
    proxy.kill();
    let tokens = proxy.store().join("tokens.db");
    fs::copy(&file, &tokens).unwrap();
    for command in ["check", "run"] {
        let (code, said) = run(&proxy, command).await;
        assert_eq!(code, Some(78), "{command}: {said}");
        assert!(
            said.contains("Remove tokens.db-wal and tokens.db-shm"),
            "{said}"
        );
        assert!(fs::read(&tokens).unwrap() == kept, "{command} changed it");
    }
    for name in ["tokens.db-wal", "tokens.db-shm"] {
        let _ = fs::remove_file(proxy.store().join(name));
    }
    proxy.start().await;
    for number in 0..50 {
        assert_eq!(proxy.get(number, SCORES).await.status, 200);
    }
    assert_eq!(damoov.handle().counts().total.logins.all(), 1, "user 99");
}

#[tokio::test]
async fn a_backup_to_standard_output_is_refused_and_makes_no_file() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    proxy.terminate().await;
    let home = proxy.store().parent().unwrap();
    let mut command = proxy.command("tokens backup --to -");
    command.current_dir(home);
    let (code, said) = said(command).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("name a new file"), "{said}");
    assert!(!home.join("-").exists());
}
