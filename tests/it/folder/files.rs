//! Files that go away, or are exchanged, under a proxy that runs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::logged_nothing;
use crate::harness::{Proxy, SCORES, damoov, eventually, principal, proxy};

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
            let (code, said) = proxy.run("tokens list").await;
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
        let (code, said) = second.run(command).await;
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
