//! Leases in their file: freed together, judged one by one, written down again.

use super::*;

#[tokio::test]
async fn leases_that_were_given_back_are_soon_free_though_nothing_else_happens() {
    let directory = Directory::default();
    let (one, other) = (directory.open(run()), directory.open(run()));
    let ttl = Duration::from_secs(600);
    for given_back in [1, 2] {
        for number in 0..given_back {
            lease_of(&one, &user(number), id(1), ttl).await.unwrap();
        }
        (0..given_back).for_each(|number| one.release(&user(number), id(1)));
        let freed = async {
            for number in 0..given_back {
                while lease_of(&other, &user(number), id(2), ttl).await == Ok(HELD) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                other.release(&user(number), id(2));
            }
            lease_of(&other, &user(1_000), id(2), ttl).await.unwrap();
        };
        let freed = tokio::time::timeout(Duration::from_secs(10), freed).await;
        assert!(freed.is_ok());
    }
}

#[tokio::test]
async fn leases_asked_for_at_once_are_each_judged_alone_and_given_back_at_once() {
    const BY_OTHER: u64 = 2;
    const KNOWN: u64 = 3;
    let directory = Directory::default();
    let (one, other) = (directory.open(run()), directory.open(run()));
    let ttl = Duration::from_secs(600);
    commit(&one, KNOWN).await;
    lease_of(&other, &user(BY_OTHER), id(2), ttl).await.unwrap();
    for _first_then_extended in 0..2 {
        let one = &one;
        let all = (1..=200).map(|n| async move { one.lease(&user(n), id(1), ttl).await });
        for (n, leased) in (1..).zip(join_all(all).await) {
            let (lease, entry) = leased.unwrap();
            let is_granted = lease == Lease::Granted { orphaned: false };
            assert_eq!(is_granted, n != BY_OTHER, "{n}");
            let generation = entry.unwrap().generation;
            assert_eq!(generation, Generation(u64::from(n == KNOWN)), "{n}");
        }
    }
    (1..=200).for_each(|n| one.release(&user(n), id(1)));
    // It gives back before it takes.
    lease_of(&one, &user(1_000), id(1), ttl).await.unwrap();
    let other = &other;
    let all = (1..=200).map(|n| async move { lease_of(other, &user(n), id(2), ttl).await });
    for (n, lease) in (1..).zip(join_all(all).await) {
        assert_eq!(lease, Ok(Lease::Granted { orphaned: false }), "{n}");
    }
}

#[tokio::test]
async fn damaged_leases_are_replaced_under_running_processes() {
    let directory = Directory::default();
    let (one, other) = (directory.open(run()), directory.open(run()));
    let ttl = Duration::from_secs(600);
    lease_of(&one, &user(1), id(1), ttl).await.unwrap();
    for file in ["leases.db", "leases.db-wal", "leases.db-shm"] {
        fs::remove_file(directory.path().join(file)).unwrap();
    }
    fs::write(directory.path().join("leases.db"), "garbage".repeat(1_000)).unwrap();
    let granted = Lease::Granted { orphaned: false };
    assert_eq!(lease_of(&one, &user(1), id(1), ttl).await, Ok(granted));
    assert_eq!(lease_of(&other, &user(1), id(2), ttl).await, Ok(HELD));
    drop((one, other));
    fs::write(directory.path().join("leases.db"), "garbage".repeat(1_000)).unwrap();
    let later = directory.open(run());
    assert_eq!(lease_of(&later, &user(1), id(3), ttl).await, Ok(granted));
}

#[tokio::test]
async fn a_lease_of_an_earlier_boot_is_orphaned() {
    let directory = Directory::default();
    let (one, other) = (directory.open(run()), directory.open(run()));
    let ttl = Duration::from_secs(600);
    lease_of(&one, &user(1), id(1), ttl).await.unwrap();
    let db = Connection::open(directory.path().join("leases.db")).unwrap();
    db.execute("UPDATE leases SET boot = 'earlier'", [])
        .unwrap();
    let granted = Lease::Granted { orphaned: true };
    assert_eq!(lease_of(&other, &user(1), id(2), ttl).await, Ok(granted));
}

#[tokio::test]
async fn a_lease_that_another_process_has_since_is_not_written_down_again() {
    let directory = Directory::default();
    let (stopped, other) = (directory.open(run()), directory.open(run()));
    let ttl = Duration::from_secs(600);
    lease_of(&stopped, &user(1), id(1), Duration::ZERO)
        .await
        .unwrap();
    lease_once_free(&other, &user(1), id(2), ttl).await;
    for file in ["leases.db", "leases.db-wal", "leases.db-shm"] {
        fs::remove_file(directory.path().join(file)).unwrap();
    }
    // Each notices at its next lease, and writes down what it remembers.
    lease_of(&stopped, &user(2), id(3), ttl).await.unwrap();
    lease_of(&other, &user(3), id(4), ttl).await.unwrap();
    lease_once_free(&stopped, &user(4), id(5), ttl).await;
    assert_eq!(lease_of(&stopped, &user(1), id(1), ttl).await, Ok(HELD));
    assert_eq!(stopped.extend(&user(1), id(1), ttl).await, Ok(false));
    assert_eq!(other.extend(&user(1), id(2), ttl).await, Ok(true));
}

#[tokio::test]
async fn a_view_tells_who_holds_a_lease_and_changes_nothing() {
    let directory = Directory::with_a_pair().await;
    let look = || {
        view(directory.path(), pseudonyms(), directory.1)
            .unwrap()
            .unwrap()
    };
    let nobody = look().lease_holder(&user(1)).await;
    assert_eq!(nobody, Ok(None), "no process has run leases here yet");
    let holds = run();
    let store = directory.open(holds);
    let ttl = Duration::from_secs(600);
    lease_of(&store, &user(1), id(1), ttl).await.unwrap();
    let content = || {
        let files = fs::read_dir(directory.path()).unwrap();
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        let bytes = |file: PathBuf| (fs::read(&file).ok(), file);
        // The index of a log is what its readers share.
        let shared = |file: &PathBuf| file.to_string_lossy().ends_with("-shm");
        let files = files.into_iter().filter(|file| !shared(file));
        files.map(bytes).collect::<Vec<_>>()
    };
    let before = content();
    let view = look();
    let holder = view.lease_holder(&user(1)).await.unwrap().unwrap();
    assert_eq!(holder.run, holds);
    assert!(holder.left <= ttl && !holder.left.is_zero());
    assert_eq!(view.lease_holder(&user(2)).await, Ok(None));
    assert!(content() == before, "a file was changed");
    drop(store);
    assert_eq!(view.lease_holder(&user(1)).await, Ok(None));
}
