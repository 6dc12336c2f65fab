//! Media and files that fail: a renewal is not started where its pair could not be kept, and a
//! store that is broken is never replaced by an empty one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use damoov_proxy::simulator::{Action, Delay, On, Simulator};
use http::Request;
use rusqlite::Connection;

use super::shim::Shim;
use super::{calls, fault_once, log_in, refused, retry_after, roomy, served};
use crate::harness::{Proxy, SCORES, damoov, eventually, principal, user};

/// A small filesystem of its own, which root alone can make. Unmounted when dropped.
pub struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// `None` if the tests may not mount anything.
    pub fn new() -> Option<Disk> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .status();
        let mounted = mounted.is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("not tested: a full disk; only root may mount a small one");
        }
        mounted.then_some(Disk { folder })
    }

    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn filler(&self) -> PathBuf {
        self.folder.path().join("filler")
    }

    /// Leaves this many bytes free.
    pub fn fill(&self, leave: u64) {
        let space = rustix::fs::statvfs(self.folder.path()).unwrap();
        let free = space.f_bavail * space.f_frsize;
        fs::write(self.filler(), vec![0; (free - leave) as usize]).unwrap();
    }

    pub fn empty(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let lazily = Command::new("umount")
            .arg("-l")
            .arg(self.folder.path())
            .status();
        assert!(lazily.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// What `/readyz` says speaks against it; empty when ready.
async fn reasons(proxy: &Proxy) -> String {
    let answer = proxy.status("/readyz").await;
    match answer.status.as_u16() {
        200 => String::new(),
        _ => answer.text(),
    }
}

async fn is_ready(proxy: &Proxy) -> bool {
    reasons(proxy).await.is_empty()
}

/// User 1 has an expired token, user 2 a fresh one, user 3 none.
async fn no_renewal_is_started(damoov: &Simulator, proxy: &Proxy) {
    for number in [1, 3] {
        let answer = proxy.get(number, SCORES).await;
        refused(&answer, 503, "store_unavailable");
        assert!(retry_after(&answer) >= 1);
    }
    served(&proxy.get(2, SCORES).await, 2);
    let total = damoov.handle().counts().total;
    assert_eq!((total.refreshes.all(), total.logins.all()), (0, 0));
}

#[tokio::test]
async fn on_a_full_disk_no_renewal_is_started_and_fresh_tokens_are_served() {
    let Some(disk) = Disk::new() else { return };
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start_on(&disk.store()).await;
    log_in(&damoov, &proxy, [1, 2]).await;
    assert!(is_ready(&proxy).await);
    damoov.handle().expire(Some(&principal(1)));
    disk.fill(1024 * 1024);
    eventually("not ready", async || !is_ready(&proxy).await).await;
    assert!(reasons(&proxy).await.contains("MB are free"));
    no_renewal_is_started(&damoov, &proxy).await;
    // Nor is anybody registered whose tokens would be lost.
    let register = || proxy.send_with(Request::post("/v1/Registration/create"), "{}");
    refused(&register().await, 503, "store_unavailable");
    assert_eq!(damoov.handle().counts().total.registrations.all(), 0);

    disk.empty();
    eventually("ready", async || is_ready(&proxy).await).await;
    served(&proxy.get(1, SCORES).await, 1);
    served(&proxy.get(3, SCORES).await, 3);
    assert_eq!(register().await.status, 200);
    assert_eq!((calls(&damoov, 1), calls(&damoov, 3)), ((0, 1), (1, 0)));
}

/// The answer is there and the disk is full: the pair is kept in memory until it can be stored.
#[tokio::test]
async fn a_disk_that_fills_up_during_a_renewal_loses_no_pair() {
    let Some(disk) = Disk::new() else { return };
    let damoov = damoov().await;
    let mut proxy = roomy(&damoov)
        .set("renewal.wait", "2s")
        .start_on(&disk.store())
        .await;
    log_in(&damoov, &proxy, [1]).await;
    damoov.handle().expire(None);
    fault_once(&damoov, On::Refresh, Action::Delay(Delay::Millis(800)));
    let caller = proxy.calling(1, SCORES);
    eventually("a refresh was processed", async || {
        calls(&damoov, 1) == (0, 1)
    })
    .await;
    disk.fill(0);
    refused(&caller.await.unwrap(), 503, "store_unavailable");
    assert!(!is_ready(&proxy).await);
    assert_eq!(damoov.handle().counts_of(&principal(1)).data_calls, 1);

    disk.empty();
    eventually("the pair is durable", async || {
        let committed = "operation=\"commit\",result=\"ok\"";
        proxy.metric("store_operations_total", committed).await == 2.0
    })
    .await;
    proxy.crash().await;
    served(&proxy.get(1, SCORES).await, 1);
    assert_eq!(calls(&damoov, 1), (0, 1));
}

/// The medium takes no writes although there is space: a renewal that noticed keeps its pair, none
/// is started after it.
#[tokio::test]
async fn on_a_medium_that_fails_no_renewal_is_started_and_no_pair_is_lost() {
    const EIO: i64 = 5;
    const EROFS: i64 = 30;
    tokio::join!(
        medium_fails("syncs", EIO),
        medium_fails("writes", EIO),
        medium_fails("writes", EROFS)
    );
}

async fn medium_fails(calls_that_fail: &str, errno: i64) {
    let shim = Shim::new();
    let damoov = damoov().await;
    let proxy = roomy(&damoov).set("renewal.wait", "1s");
    let mut proxy = shim.apply(proxy).start().await;
    log_in(&damoov, &proxy, [0, 1, 2]).await;
    damoov.handle().expire(Some(&principal(0)));
    damoov.handle().expire(Some(&principal(1)));
    shim.set(calls_that_fail, errno);
    refused(&proxy.get(0, SCORES).await, 503, "store_unavailable");
    assert!(reasons(&proxy).await.contains("cannot be written"));
    assert_eq!(calls(&damoov, 0), (0, 1));
    damoov.handle().reset();
    no_renewal_is_started(&damoov, &proxy).await;

    shim.set(calls_that_fail, 0);
    eventually("ready", async || is_ready(&proxy).await).await;
    eventually("the pair is durable", async || {
        proxy.get(0, SCORES).await.status == 200
    })
    .await;
    proxy.crash().await;
    for number in [0, 1, 2, 3] {
        served(&proxy.get(number, SCORES).await, number);
    }
    assert_eq!(calls(&damoov, 0), (0, 0));
    assert_eq!((calls(&damoov, 1), calls(&damoov, 3)), ((0, 1), (1, 0)));
}

#[tokio::test]
async fn while_no_lease_can_be_taken_the_proxy_is_not_ready_and_says_so() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    let leases = Connection::open(proxy.store().join("leases.db")).unwrap();
    let rename = |from: &str, to: &str| {
        leases
            .execute_batch(&format!("ALTER TABLE {from} RENAME TO {to}"))
            .unwrap();
    };
    rename("leases", "away");
    for _ in 0..2 {
        refused(&proxy.get(1, SCORES).await, 503, "store_unavailable");
    }
    assert!(reasons(&proxy).await.contains("leases.db"));
    rename("away", "leases");
    // Nobody asks for a lease meanwhile.
    eventually("ready", async || is_ready(&proxy).await).await;
    served(&proxy.get(1, SCORES).await, 1);
    for line in ["leases cannot be taken", "leases can be taken again"] {
        assert_eq!(proxy.log().matches(line).count(), 1, "{}", proxy.log());
    }
}

#[tokio::test]
async fn a_damaged_record_costs_that_user_one_login_and_is_counted() {
    let damoov = damoov().await;
    let mut proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, [1, 2]).await;
    proxy.kill();
    proxy.damage_pair(1);
    proxy.start().await;
    served(&proxy.get(2, SCORES).await, 2);
    served(&proxy.get(1, SCORES).await, 1);
    assert_eq!((calls(&damoov, 1), calls(&damoov, 2)), ((1, 0), (0, 0)));
    let counted = proxy
        .metric("store_operations_total", "result=\"damaged\"")
        .await;
    assert!(counted >= 1.0);
    proxy.crash().await;
    served(&proxy.get(1, SCORES).await, 1);
    assert_eq!(calls(&damoov, 1), (1, 0));
}

#[tokio::test]
async fn a_damaged_record_holds_up_nobody_else_and_can_be_forgotten() {
    let damoov = damoov().await;
    let mut proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, [1, 2]).await;
    proxy.kill();
    let db = Connection::open(proxy.store().join("tokens.db")).unwrap();
    db.execute(
        "UPDATE entries SET instance = 'none' WHERE principal = ?1",
        [principal(1).to_string()],
    )
    .unwrap();
    drop(db);
    proxy.start().await;
    refused(&proxy.get(1, SCORES).await, 503, "store_unavailable");
    served(&proxy.get(2, SCORES).await, 2);
    served(&proxy.get(3, SCORES).await, 3);
    assert!(is_ready(&proxy).await);
    let damaged = "result=\"damaged\"";
    assert!(proxy.metric("store_operations_total", damaged).await >= 1.0);

    let forget = format!("tokens forget {}", user(1));
    assert!(proxy.command(&forget).status().unwrap().success());
    served(&proxy.get(1, SCORES).await, 1);
    assert_eq!((calls(&damoov, 1), calls(&damoov, 2)), ((1, 0), (0, 0)));
}

#[tokio::test]
async fn a_store_that_cannot_be_trusted_is_refused_with_78_and_a_way_out() {
    type Break = fn(&Path);
    let breaks: [(&str, Break); 6] = [
        ("damaged", |store| {
            let file = store.join("tokens.db");
            let mut bytes = fs::read(&file).unwrap();
            bytes[4096..].iter_mut().for_each(|byte| *byte ^= 0x5a);
            fs::write(file, bytes).unwrap();
        }),
        ("overwritten", |store| {
            fs::write(store.join("tokens.db"), "not a database ".repeat(1000)).unwrap();
        }),
        ("emptied", |store| {
            fs::write(store.join("tokens.db"), "").unwrap();
        }),
        ("gone", |store| {
            fs::remove_file(store.join("tokens.db")).unwrap();
        }),
        ("newer", |store| {
            let db = Connection::open(store.join("tokens.db")).unwrap();
            db.pragma_update(None, "user_version", 99).unwrap();
        }),
        ("another key's", |store| {
            fs::write(store.join("store.key"), STANDARD.encode([7; 32])).unwrap();
        }),
    ];
    let damoov = damoov().await;
    for (name, break_it) in breaks {
        let mut proxy = roomy(&damoov).start().await;
        served(&proxy.get(1, SCORES).await, 1);
        assert!(proxy.terminate().await.success());
        break_it(proxy.store());
        let logins = damoov.handle().counts().total.logins.all();
        for command in ["run", "check"] {
            let output = proxy
                .command(command)
                .stderr(Stdio::piped())
                .output()
                .unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(78), "{name}: {said}");
            assert!(
                said.contains("restore") || said.contains("key"),
                "{name}: {said}"
            );
        }
        assert_eq!(damoov.handle().counts().total.logins.all(), logins);
    }
}

#[tokio::test]
async fn a_key_that_was_lost_is_not_replaced_by_another_one() {
    let damoov = damoov().await;
    let mut proxy = roomy(&damoov).start().await;
    served(&proxy.get(1, SCORES).await, 1);
    assert!(proxy.terminate().await.success());
    let key_file = proxy.store().join("store.key");
    let key = fs::read(&key_file).unwrap();
    fs::remove_file(&key_file).unwrap();
    let output = proxy.command("run").output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(!key_file.exists());
    fs::write(&key_file, key).unwrap();
    proxy.start().await;
    served(&proxy.get(1, SCORES).await, 1);
    assert_eq!(damoov.handle().counts().total.logins.all(), 1);
}

/// User 0 was refreshed, and the medium takes no writes: its pair is in memory alone.
async fn with_a_pair_in_memory_alone(shim: &Shim, damoov: &Simulator, drain: &str) -> Proxy {
    let proxy = roomy(damoov)
        .set("renewal.wait", "1s")
        .set("drain_timeout", drain);
    let proxy = shim.apply(proxy).start().await;
    log_in(damoov, &proxy, [0]).await;
    damoov.handle().expire(None);
    shim.set("syncs", 5);
    refused(&proxy.get(0, SCORES).await, 503, "store_unavailable");
    assert_eq!(calls(damoov, 0), (0, 1));
    proxy
}

#[tokio::test]
async fn what_the_medium_takes_at_the_last_moment_is_not_lost() {
    let shim = Shim::new();
    let damoov = damoov().await;
    let mut proxy = with_a_pair_in_memory_alone(&shim, &damoov, "20s").await;
    proxy.signal(rustix::process::Signal::TERM);
    eventually("draining", async || {
        reasons(&proxy).await.contains("draining")
    })
    .await;
    shim.set("syncs", 0);
    assert_eq!(proxy.ended().await.code(), Some(0), "{}", proxy.log());
    proxy.start().await;
    served(&proxy.get(0, SCORES).await, 0);
    assert_eq!(calls(&damoov, 0), (0, 1));
}

#[tokio::test]
async fn pairs_that_no_medium_takes_are_counted_and_the_exit_code_is_1() {
    let shim = Shim::new();
    let damoov = damoov().await;
    let mut proxy = with_a_pair_in_memory_alone(&shim, &damoov, "1s").await;
    assert_eq!(proxy.terminate().await.code(), Some(1));
    let log = proxy.log();
    let told = log
        .lines()
        .find(|line| line.contains("tokens of 1 users are lost"));
    assert!(
        told.is_some_and(|line| line.contains("\"users\":1")),
        "{log}"
    );
}
