//! The folder of the store, and the hands of operators in it: who looks changes nothing, what root
//! creates is the owner's, and no renewal goes into a file that is gone.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::harness::{Proxy, SCORES, damoov, eventually, proxy, user};

// A folder that is a user's, and commands of root in it.
mod owners;
// Folders and keys that every command refuses, in the same words.
mod refusals;
// Files that go away, or are exchanged, under a proxy that runs.
mod files;
// `tokens backup`.
mod backup;

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
async fn commands_that_look_at_a_store_change_nothing_in_its_folder() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    for number in [1, 2] {
        proxy.get(number, SCORES).await;
    }
    let looks = [
        "check".to_owned(),
        "tokens list".to_owned(),
        format!("tokens show {}", user(1)),
        format!("explain {}", user(1)),
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
            let (code, said) = proxy.run(look).await;
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
async fn commands_that_find_no_store_say_so_and_make_none() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).stopped_here();
    for (look, code) in [
        ("check".to_owned(), 0),
        ("tokens list".to_owned(), 0),
        (format!("tokens show {}", user(1)), 1),
        (format!("explain {}", user(1)), 1),
        (format!("tokens forget {}", user(1)), 1),
        ("tokens verify".to_owned(), 1),
        ("tokens reseal".to_owned(), 1),
        ("tokens export --to -".to_owned(), 1),
    ] {
        let (found, said) = proxy.run(&look).await;
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
        let (code, said) = proxy.run(command).await;
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
