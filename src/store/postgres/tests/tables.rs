//! The tables: who makes them, who is refused, what stands in them and what stays out.

use futures_util::future::join_all;
use servers::{Database, url};
use uuid::Uuid;

use super::media::{Alone, open, settings};
use super::*;
use crate::store::contract::{LONG, first, over, pseudonyms};
use crate::store::postgres;
use crate::store::{
    Class, Day, Generation, LoginWindow, ReadOnly, Rejected, SlotId, Tombstone, Uses,
};

#[tokio::test]
async fn processes_that_start_at_once_make_the_tables_once() {
    for _round in 0..3 {
        let place = Direct::new().await;
        let stores = join_all((0..8).map(|_| place.open())).await;
        for (n, store) in (0..).zip(&stores) {
            let committed = store
                .commit(&user(n), record(1), Version::default(), None)
                .await;
            assert_eq!(committed, Ok(Commit::Committed(Generation(1))));
        }
        assert_eq!(stores[0].count().await, Ok(8));
    }
}

#[tokio::test]
async fn a_table_that_came_later_is_made_once_beside_an_earlier_version() {
    for _round in 0..3 {
        let place = Direct::new().await;
        let earlier = place.open().await;
        let lacks = place.database.sql("DROP TABLE uses");
        lacks.await;
        let stores = join_all((0..8).map(|_| place.open())).await;
        for (n, store) in (0..).zip(&stores) {
            earlier
                .commit(&user(n), record(1), Version::default(), None)
                .await
                .unwrap();
            assert_eq!(store.mark_used(vec![(user(n), Day(7))]).await, Ok(1));
        }
    }
}

/// Does this in one transaction, and `beside` it what meets it before it ends.
async fn meanwhile<T>(database: &Database, does: &str, beside: impl Future<Output = T>) -> T {
    let sql = format!("{does}; SELECT pg_sleep(0.7)");
    let sleeps = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event = 'PgSleep'";
    let beside = async {
        while database.value(sleeps).await == "0" {}
        beside.await
    };
    tokio::join!(database.sql(&sql), beside).1
}

#[tokio::test]
async fn a_process_waits_for_another_one_that_makes_the_same_table() {
    let place = Direct::new().await;
    drop(place.open().await);
    place.database.sql("DROP TABLE uses").await;
    let made = postgres::uses::TABLES.join("; ");
    let store = meanwhile(&place.database, &made, place.open()).await;
    assert_eq!(store.condition().away, None);
    assert_eq!(store.unused(Day(1), 1).await, Ok(vec![]));
}

#[tokio::test]
async fn a_mark_that_is_not_committed_yet_is_waited_for() {
    let place = Direct::new().await;
    let store = place.open().await;
    first(&store, &user(1), record(1)).await;
    store.mark_used(vec![(user(1), Day(5))]).await.unwrap();
    let one = user(1);
    let forgotten = store.forget_unused(&one, Day(9));
    let marks = "UPDATE uses SET day = 9";
    assert_eq!(
        meanwhile(&place.database, marks, forgotten).await,
        Ok(false)
    );
    assert!(store.load(&one).await.unwrap().record.is_some());
    assert_eq!(store.forget_unused(&one, Day(10)).await, Ok(true));
}

#[tokio::test]
async fn a_view_of_a_store_without_the_newest_table_reads_it() {
    let place = Direct::new().await;
    let store = place.open().await;
    first(&store, &user(1), record(1)).await;
    place.database.sql("DROP TABLE uses").await;
    let folder = tempfile::tempdir().unwrap();
    let seen = postgres::view(
        folder.path(),
        settings(&place.url()),
        false,
        pseudonyms(),
        Clock::real(),
    )
    .await;
    let view = seen.unwrap().expect("there are tables");
    let entry = view.load(&user(1)).await.unwrap();
    assert_eq!(entry.record, Some(record(1)));
    assert_eq!(view.count().await, Ok(1));
    let there = "SELECT to_regclass('uses') IS NULL";
    assert_eq!(place.database.value(there).await, "t", "it writes nothing");
}

#[tokio::test]
async fn a_role_that_owns_one_schema_needs_no_more() {
    let database = Database::new();
    let role = database.role("of the role").await;
    let at = url(&role.name, &[database.server().address()], database.name());
    let store = open(&at, run(), Clock::real()).await;
    let (lease, entry) = store.lease(&user(1), LeaseId::fresh(), LONG).await.unwrap();
    assert_eq!(lease, Lease::Granted { orphaned: false });
    let over = entry.unwrap().version();
    let committed = store.commit(&user(1), record(1), over, None).await;
    assert_eq!(committed, Ok(Commit::Committed(Generation(1))));
    let schema = "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename = 'entries'";
    assert_eq!(database.value(schema).await, role.name);
}

#[tokio::test]
async fn tables_of_a_newer_format_are_refused() {
    let place = Direct::new().await;
    drop(place.open().await);
    place.database.sql("UPDATE meta SET format = 7").await;
    let opened = postgres::open(
        settings(&place.url()),
        true,
        pseudonyms(),
        Process::patient(run()),
        Clock::real(),
    )
    .await;
    let refused = opened.err().expect("it is refused");
    assert!(refused.to_string().contains("format 7"), "{refused}");
}

#[tokio::test]
async fn a_login_that_is_refused_writes_nothing() {
    let place = Direct::new().await;
    let store = place.open().await;
    let windows = LoginWindows {
        group: "default".into(),
        windows: vec![LoginWindow {
            logins: 2,
            per: Duration::from_secs(3_600),
        }],
        reserve: 0,
    };
    let take = || store.take_login(SlotId(Uuid::new_v4()), Class::New, &windows);
    for _ in 0..2 {
        assert_eq!(take().await, Ok(Slot::Taken));
    }
    let row = "SELECT xmin::text || ' ' || version FROM budgets";
    let before = place.database.value(row).await;
    for refused in join_all((0..20).map(|_| take())).await {
        assert!(
            matches!(refused, Ok(Slot::Wait { blocked: false, .. })),
            "{refused:?}"
        );
    }
    assert_eq!(place.database.value(row).await, before);
}

#[tokio::test]
async fn a_feed_that_is_not_the_one_that_was_read_tells_everything() {
    let place = Direct::new().await;
    let store = place.open().await;
    for n in 1..=3 {
        first(&store, &user(n), record(1)).await;
    }
    let mut changes = store.changes();
    assert_eq!(store.forget(&user(1)).await, Ok(true));
    while changes.recv().await != Some(Change::Forgotten(left_of(1))) {}
    // Another process has written more than is kept; or the store has lost its newest changes.
    for end in ["feed_end + 20000", "feed_end - 1"] {
        place
            .database
            .sql(&format!("UPDATE meta SET feed_end = {end}"))
            .await;
        let told = tokio::time::timeout(Duration::from_secs(5), changes.recv()).await;
        assert!(matches!(told, Ok(Some(Change::Everything))), "{end}");
    }
    assert_eq!(store.forget(&user(2)).await, Ok(true));
    let told = tokio::time::timeout(Duration::from_secs(5), changes.recv()).await;
    assert_eq!(told, Ok(Some(Change::Forgotten(left_of(2)))));
}

#[tokio::test]
async fn old_changes_leave_the_feed() {
    let place = Direct::new().await;
    let store = place.open().await;
    first(&store, &user(1), record(1)).await;
    store.forget(&user(1)).await.unwrap();
    place
        .database
        .sql("UPDATE meta SET feed_end = feed_end + 10000")
        .await;
    first(&store, &user(2), record(1)).await;
    store.forget(&user(2)).await.unwrap();
    let kept = "SELECT string_agg(number::text, ' ') FROM feed";
    assert_eq!(place.database.value(kept).await, "10002");
}

#[tokio::test]
async fn a_row_that_is_damaged_damages_nobody_else() {
    let place = Direct::new().await;
    let store = place.open().await;
    for n in 1..=3 {
        first(&store, &user(n), record(1)).await;
    }
    let damage = format!(
        "UPDATE entries SET key_id = NULL WHERE principal = '{}'",
        user(2)
    );
    place.database.sql(&damage).await;
    let (one, two, three) = (user(1), user(2), user(3));
    let loads = join_all([&one, &two, &three].map(|user| store.load(user))).await;
    assert!(loads[0].is_ok() && loads[2].is_ok(), "{loads:?}");
    assert_eq!(loads[1], Err(Error::Damaged(user(2))));
    let (lease, entry) = store.lease(&user(2), LeaseId::fresh(), LONG).await.unwrap();
    assert_eq!(lease, Lease::Granted { orphaned: false });
    assert_eq!(entry, Err(Error::Damaged(user(2))));
    let listed = store.list(Listed::All, None, 10).await.unwrap();
    let listed: Vec<_> = listed
        .entries
        .into_iter()
        .map(|(principal, _)| principal)
        .collect();
    assert_eq!(listed, [user(1), user(3)]);
    // A new pair takes its place.
    let over = Version {
        generation: Generation(1),
        epoch: 0,
    };
    let committed = store.commit(&user(2), record(2), over, None).await;
    assert_eq!(committed, Ok(Commit::Committed(Generation(2))));
}

/// As after a restore that was not whole.
#[tokio::test]
async fn a_canary_that_is_not_kept_is_not_said_to_stand() {
    let place = Direct::new().await;
    let store = place.open().await;
    place.database.sql("DELETE FROM meta").await;
    let left = store.leave_canary(b"fresh".to_vec()).await;
    assert!(matches!(left, Err(Error::Unwritable(_))), "{left:?}");
    assert_eq!(store.canary().await, Ok(None));
}

/// One row of the budget is locked by somebody who does not let go.
#[tokio::test]
async fn calls_that_wait_for_each_other_end_at_their_deadline() {
    let place = Direct::new().await;
    let store = place.open().await;
    store.block_logins("default", LONG, None).await.unwrap();
    let sql = "BEGIN; SELECT FROM budgets FOR UPDATE; SELECT pg_sleep(60)";
    let locking = place.database.sql(sql);
    let calling = async {
        let locked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'
            AND datname = current_database()";
        while place.database.value(locked).await != "1" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let began = tokio::time::Instant::now();
        let calls = (0..6).map(|_| store.unblock_logins("default"));
        for answer in join_all(calls).await {
            assert!(matches!(answer, Err(Error::Away(_))), "{answer:?}");
        }
        began.elapsed()
    };
    let took = tokio::select! {
        took = calling => took,
        _ = locking => panic!("the lock was let go"),
    };
    assert!(took < link::CALL_DEADLINE * 3, "{took:?}");
}

/// A reader that is behind an import hears of a forget soon all the same.
#[tokio::test]
async fn a_restore_of_many_entries_is_one_change() {
    let place = Direct::new().await;
    let store = place.open().await;
    let mut changes = store.changes();
    let entry = Entry {
        generation: Generation(1),
        record: Some(record(1)),
        ..Entry::default()
    };
    let entries = |users: std::ops::Range<u64>| {
        let entries = users.map(|n| (user(n), entry.clone()));
        entries.collect::<Vec<_>>()
    };
    let numbered = "SELECT count(*) FROM feed";
    store.restore(entries(0..100)).await.unwrap();
    assert_eq!(place.database.value(numbered).await, "100");
    while changes.recv().await != Some(last(99)) {}
    store.restore(entries(100..1_201)).await.unwrap();
    assert_eq!(place.database.value(numbered).await, "103");
    assert_eq!(changes.recv().await, Some(Change::Everything));
    assert_eq!(store.forget(&user(7)).await, Ok(true));
    let forgotten = Change::Forgotten(left_of(7));
    loop {
        match changes.recv().await.expect("the store is open") {
            Change::Everything => {}
            told => break assert_eq!(told, forgotten),
        }
    }
}

/// The tombstone of a user whose first pair was forgotten.
fn left_of(n: u64) -> Tombstone {
    Tombstone {
        pseudonym: pseudonyms().current(&user(n)),
        version: over(1, 1),
    }
}

/// That a first pair of the user stands.
fn last(of: u64) -> Change {
    Change::Entry {
        principal: user(of),
        version: Version {
            generation: Generation(1),
            epoch: 0,
        },
    }
}

mod killed {
    use super::*;

    contract! { Alone: a_write_repeated_through_a_fault_is_done_once }
}

#[tokio::test]
async fn no_table_holds_the_name_of_who_was_forgotten() {
    let place = Direct::new().await;
    let store = place.open().await;
    let rejected = Rejected {
        until: Timestamp::from_millis(1),
        with: [7; 8],
    };
    for n in 1..=3 {
        first(&store, &user(n), record(1)).await;
        let taken = store
            .lease(&user(n), LeaseId::fresh(), Duration::ZERO)
            .await;
        assert!(matches!(taken, Ok((Lease::Granted { .. }, _))));
        store
            .note(&user(n + 3), Note::Rejected(rejected))
            .await
            .unwrap();
    }
    let named = (1..=3).map(|n| (user(n), Day(1))).collect();
    assert_eq!(store.mark_used(named).await, Ok(3));
    let holding = async |n: u64| {
        let name = user(n).to_string();
        let mut holding = Vec::new();
        for table in [
            "entries",
            "due",
            "rejections",
            "leases",
            "feed",
            "uses",
            "guards",
        ] {
            let sql = format!("SELECT count(*) FROM {table} WHERE {table}::text LIKE '%{name}%'");
            if place.database.value(&sql).await != "0" {
                holding.push(table);
            }
        }
        holding
    };
    assert_eq!(holding(1).await, ["entries", "due", "leases", "uses"]);
    assert_eq!(holding(4).await, ["entries", "rejections"]);
    for n in [1, 4] {
        assert_eq!(store.forget(&user(n)).await, Ok(true));
        assert_eq!(holding(n).await, Vec::<&str>::new());
    }
    // As an earlier version forgot.
    place
        .database
        .sql("UPDATE entries SET epoch = 1, sealed = NULL, received = NULL WHERE generation = 1")
        .await;
    let listed = store.list(Listed::All, None, 10).await.unwrap().entries;
    let bare: Vec<_> = listed.into_iter().filter(|(_, it)| it.is_bare()).collect();
    assert_eq!(bare.len(), 2);
    store.restore(bare).await.unwrap();
    for n in [2, 3] {
        assert_eq!(holding(n).await, Vec::<&str>::new());
        assert_eq!(store.load(&user(n)).await.unwrap().version(), over(1, 1));
    }
}
