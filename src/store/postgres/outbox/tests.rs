//! What is put stays until it is removed, whatever happens to the process and to the file.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::time::Duration;

use rustix::process::{Resource, Rlimit};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::store::actor::{self, Actor, say};
use crate::store::contract::{record, user};
use crate::store::{Generation, LeaseId, Record, Version};

const THE_PART: &str = "store::postgres::outbox::tests::the_part_of_a_child";

/// The pair number `n` of a user, committed over the generation `n - 1`.
fn pending(of: u64, n: u8) -> Pending {
    Pending {
        principal: user(of),
        record: record(n),
        over: Version {
            generation: Generation(u64::from(n) - 1),
            epoch: 0,
        },
        lease: Some(LeaseId(Uuid::from_u64_pair(3, of))),
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// All that waits, in order.
async fn all(outbox: &Outbox) -> Vec<Pending> {
    let page = outbox.page(0, 1_000).await.unwrap();
    page.into_iter().map(|(_, pending)| pending).collect()
}

#[tokio::test]
async fn what_waits_is_counted_from_outside_and_nothing_is_left_there() {
    let folder = folder();
    assert_eq!(waiting_in(folder.path()).unwrap(), 0);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

    let outbox = Outbox::open(folder.path()).unwrap();
    outbox.put(pending(1, 1)).await.unwrap();
    outbox.put(pending(2, 1)).await.unwrap();
    let names = || -> Vec<_> {
        let files = fs::read_dir(folder.path()).unwrap();
        files.map(|file| file.unwrap().file_name()).collect()
    };
    let before = names();
    assert_eq!(waiting_in(folder.path()).unwrap(), 2);
    assert_eq!(names(), before);
}

/// What was moved aside.
fn set_aside(folder: &TempDir) -> Vec<String> {
    let names = fs::read_dir(folder.path()).unwrap();
    let names = names.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains("damaged")).collect()
}

/// No test of its own: what a child process does.
#[tokio::test]
async fn the_part_of_a_child() {
    let Some((part, folder)) = actor::part() else {
        return;
    };
    let outbox = Outbox::open(&folder).unwrap();
    match part.as_str() {
        "put" => put_for_ever(&outbox).await,
        "fill the disk" => fill_the_disk(&outbox).await,
        other => panic!("no such part: {other}"),
    }
}

/// Puts pair after pair of eight users at once, and says which are durable.
async fn put_for_ever(outbox: &Outbox) {
    futures_util::future::join_all((1..=8).map(async |of| {
        for n in 1..=250 {
            outbox.put(pending(of, n)).await.unwrap();
            say(format!("{of} {n}"));
        }
    }))
    .await;
    std::future::pending().await
}

/// Lives through a medium that takes no more bytes, and one that takes them again.
async fn fill_the_disk(outbox: &Outbox) {
    let limit = |current| {
        let maximum = None;
        rustix::process::setrlimit(Resource::Fsize, Rlimit { current, maximum }).unwrap();
    };
    outbox.put(pending(1, 1)).await.unwrap();
    limit(Some(4_096));
    let refused = outbox.put(pending(2, 1)).await;
    assert!(matches!(refused, Err(Error::Unwritable(_))), "{refused:?}");
    assert!(matches!(outbox.writable(), Err(Error::Unwritable(_))));
    assert!(matches!(outbox.admit(), Err(Error::Unwritable(_))));
    assert_eq!(outbox.find(&user(1)).await, Ok(Some(pending(1, 1))));
    limit(None);
    // The probe finds it out by itself.
    let recovered = tokio::time::timeout(Duration::from_secs(10), async {
        while outbox.writable().is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    recovered.await.expect("a probe a second");
    assert_eq!(outbox.find(&user(2)).await, Ok(None));
    outbox.put(pending(2, 1)).await.unwrap();
    say("recovered");
}

#[tokio::test]
async fn a_pair_waits_through_restarts_as_it_was_put() {
    let folder = folder();
    let outbox = Outbox::open(folder.path()).unwrap();
    let without = Pending {
        lease: None,
        record: Record {
            instance: None,
            known: false,
            ..record(4)
        },
        ..pending(2, 4)
    };
    outbox.put(pending(1, 1)).await.unwrap();
    outbox.put(without.clone()).await.unwrap();
    assert_eq!(*outbox.waiting().borrow(), 2);
    drop(outbox);
    let outbox = Outbox::open(folder.path()).unwrap();
    assert_eq!(*outbox.waiting().borrow(), 2, "known at once");
    assert_eq!(all(&outbox).await, [pending(1, 1), without.clone()]);
    assert_eq!(outbox.find(&user(2)).await, Ok(Some(without)));
    assert_eq!(outbox.find(&user(3)).await, Ok(None));
}

#[tokio::test]
async fn a_later_pair_takes_the_place_of_an_earlier_one_and_never_the_reverse() {
    let folder = folder();
    let (one, other) = (
        Outbox::open(folder.path()).unwrap(),
        Outbox::open(folder.path()).unwrap(),
    );
    one.put(pending(1, 1)).await.unwrap();
    other.put(pending(1, 3)).await.unwrap();
    one.put(pending(1, 2)).await.unwrap();
    assert_eq!(all(&one).await, [pending(1, 3)]);
    let of_a_later_epoch = Pending {
        over: Version {
            generation: Generation(0),
            epoch: 1,
        },
        ..pending(1, 1)
    };
    one.put(of_a_later_epoch.clone()).await.unwrap();
    assert_eq!(all(&other).await, [of_a_later_epoch]);
}

#[tokio::test]
async fn a_pair_that_took_the_place_meanwhile_is_not_removed() {
    let folder = folder();
    let outbox = Outbox::open(folder.path()).unwrap();
    outbox.put(pending(1, 1)).await.unwrap();
    outbox.put(pending(1, 2)).await.unwrap();
    outbox.remove(pending(1, 1)).await.unwrap();
    assert_eq!(all(&outbox).await, [pending(1, 2)]);
    outbox.remove(pending(1, 2)).await.unwrap();
    outbox.remove(pending(1, 2)).await.unwrap();
    assert_eq!(*outbox.waiting().borrow(), 0);
}

#[tokio::test]
async fn pages_follow_the_order_in_which_pairs_were_put() {
    let folder = folder();
    let outbox = Outbox::open(folder.path()).unwrap();
    for of in [5, 2, 4, 1, 3] {
        outbox.put(pending(of, 1)).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut after = 0;
    loop {
        let page = outbox.page(after, 2).await.unwrap();
        let Some((last, _)) = page.last() else { break };
        after = *last;
        seen.extend(page.into_iter().map(|(_, pending)| pending.principal));
    }
    assert_eq!(seen, [5, 2, 4, 1, 3].map(user));
}

#[tokio::test]
async fn what_another_process_puts_is_found_at_once_and_counted_soon() {
    let folder = folder();
    let (one, other) = (
        Outbox::open(folder.path()).unwrap(),
        Outbox::open(folder.path()).unwrap(),
    );
    let mut waiting = one.waiting();
    other.put(pending(1, 1)).await.unwrap();
    assert_eq!(one.find(&user(1)).await, Ok(Some(pending(1, 1))));
    let counted = waiting.wait_for(|waiting| *waiting == 1);
    tokio::time::timeout(Duration::from_secs(10), counted)
        .await
        .expect("each second")
        .unwrap();
}

#[tokio::test]
async fn what_is_put_by_another_process_is_found_however_soon() {
    let folder = folder();
    let (one, other) = (
        Outbox::open(folder.path()).unwrap(),
        Outbox::open(folder.path()).unwrap(),
    );
    let mut glances = 0;
    for n in 1..=100 {
        // Until the thread need not be asked, for a while.
        let began = tokio::time::Instant::now();
        while n % 25 == 0 && !one.glance.is_empty() && began.elapsed().as_secs() < 10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        glances += u32::from(one.glance.is_empty());
        assert_eq!(one.find(&user(1)).await, Ok(None), "round {n}");
        other.put(pending(1, n)).await.unwrap();
        assert_eq!(
            one.find(&user(1)).await,
            Ok(Some(pending(1, n))),
            "round {n}"
        );
        other.remove(pending(1, n)).await.unwrap();
    }
    assert!(glances >= 4, "{glances}");
}

#[tokio::test]
async fn every_pair_that_was_put_survives_kill_9() {
    let folder = folder();
    let mut durable = [0; 9];
    for round in 0..5 {
        let mut putting = Actor::play(THE_PART, "put", folder.path());
        let heard: Vec<_> = (0..20 + round * 37).map_while(|_| putting.hear()).collect();
        assert!(!heard.is_empty(), "the child said nothing");
        for said in heard.into_iter().chain(putting.kill()) {
            // The kill may cut the last line short.
            let Some((of, n)) = said.split_once(' ') else {
                continue;
            };
            let (Ok(of), Ok(n)) = (of.parse::<usize>(), n.parse::<u8>()) else {
                continue;
            };
            durable[of] = durable[of].max(n);
        }
        let outbox = Outbox::open(folder.path()).unwrap();
        assert!(set_aside(&folder).is_empty(), "round {round}");
        for of in 1..=8u64 {
            let found = outbox.find(&user(of)).await.unwrap();
            let expected = durable[usize::try_from(of).unwrap()];
            let Some(found) = found else {
                assert_eq!(expected, 0, "user {of}, round {round}");
                continue;
            };
            let n = found.record.sealed[0];
            assert!(n >= expected, "user {of}, round {round}");
            assert_eq!(found, pending(of, n));
        }
    }
    assert!(durable[1..].iter().all(|n| *n > 0));
}

#[test]
fn a_full_disk_is_told_until_a_probe_succeeds() {
    let folder = folder();
    let mut actor = Actor::play(THE_PART, "fill the disk", folder.path());
    assert_eq!(actor.hear().as_deref(), Some("recovered"));
}

#[tokio::test]
async fn what_is_no_outbox_is_moved_aside() {
    for content in [
        &b"not a database, and long enough to look like one"[..],
        b"",
    ] {
        let folder = folder();
        let path = folder.path().join("outbox.db");
        fs::write(&path, content.repeat(100)).unwrap();
        let outbox = Outbox::open(folder.path()).unwrap();
        outbox.put(pending(1, 1)).await.unwrap();
        let aside = set_aside(&folder);
        assert_eq!(aside.len(), 1, "{aside:?}");
        assert_eq!(
            fs::read(folder.path().join(&aside[0])).unwrap(),
            content.repeat(100)
        );
        drop(outbox);
        let outbox = Outbox::open(folder.path()).unwrap();
        assert_eq!(all(&outbox).await, [pending(1, 1)]);
    }
}

#[tokio::test]
async fn a_file_that_is_damaged_while_it_is_open_is_replaced_and_told() {
    let folder = folder();
    let outbox = Outbox::open(folder.path()).unwrap();
    for of in 1..=50 {
        outbox.put(pending(of, 1)).await.unwrap();
    }
    drop(outbox);
    let outbox = Outbox::open(folder.path()).unwrap();
    let file = fs::File::options()
        .write(true)
        .open(folder.path().join("outbox.db"))
        .unwrap();
    let length = file.metadata().unwrap().len();
    for page in 1..length / 4_096 {
        file.write_all_at(&[0xaa; 4_096], page * 4_096).unwrap();
    }
    outbox.put(pending(60, 1)).await.unwrap();
    assert_eq!(outbox.find(&user(60)).await, Ok(Some(pending(60, 1))));
    assert_eq!(outbox.writable(), Ok(()));
    assert!(!set_aside(&folder).is_empty());
}

#[tokio::test]
async fn a_file_that_is_removed_while_it_is_open_is_made_anew() {
    let folder = folder();
    let outbox = Outbox::open(folder.path()).unwrap();
    outbox.put(pending(1, 1)).await.unwrap();
    for name in ["outbox.db", "outbox.db-wal", "outbox.db-shm"] {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    outbox.put(pending(2, 1)).await.unwrap();
    drop(outbox);
    let outbox = Outbox::open(folder.path()).unwrap();
    assert_eq!(all(&outbox).await, [pending(1, 1), pending(2, 1)]);
}

#[tokio::test]
async fn the_outbox_of_a_newer_version_is_refused_and_left_alone() {
    let folder = folder();
    let outbox = Outbox::open(folder.path()).unwrap();
    outbox.put(pending(1, 1)).await.unwrap();
    drop(outbox);
    let path = folder.path().join("outbox.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", 9).unwrap();
    drop(db);
    let refusal = Outbox::open(folder.path()).err().unwrap();
    assert!(
        matches!(refusal, Refusal::Newer { found: 9, .. }),
        "{refusal}"
    );
    assert!(set_aside(&folder).is_empty());
}

#[tokio::test]
async fn the_files_are_their_owners_alone() {
    let folder = folder();
    let path = folder.path().join("new");
    let outbox = Outbox::open(&path).unwrap();
    outbox.put(pending(1, 1)).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for name in ["outbox.db", "outbox.db-wal", "outbox.db-shm"] {
        assert_eq!(mode(&path.join(name)), 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_closed_outbox_says_so() {
    let folder = folder();
    let outbox = Outbox::open(folder.path()).unwrap();
    outbox.close();
    assert_eq!(outbox.put(pending(1, 1)).await, Err(Error::Closed));
    assert_eq!(outbox.writable(), Err(Error::Closed));
}
