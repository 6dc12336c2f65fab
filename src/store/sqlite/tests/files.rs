//! The files of a store: whose they are, and which are refused.

use super::*;

#[tokio::test]
async fn files_and_directories_are_their_owners_alone() {
    let parent = Directory::default();
    let path = parent.path().join("a/store");
    let store = open(&path, pseudonyms(), run(), Clock::real()).unwrap();
    commit(&store, 1).await;
    lease_of(&store, &user(1), id(1), Duration::from_secs(9))
        .await
        .unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    let mut files = 0;
    let mut directories = vec![path];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let expected = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode(&path), expected, "{}", path.display());
            match path.is_dir() {
                true => directories.push(path),
                false => files += 1,
            }
        }
    }
    // Two databases with their -wal and -shm, the opening lock and the owner's.
    assert_eq!(files, 8);
}

#[tokio::test]
async fn processes_that_open_a_new_store_at_once_all_succeed() {
    let directory = Directory::default();
    let stores: Vec<Sqlite> = std::thread::scope(|scope| {
        let threads = [(); 8].map(|()| scope.spawn(|| directory.open(run())));
        threads.map(|thread| thread.join().unwrap()).into()
    });
    commit(&stores[0], 1).await;
    for store in &stores {
        assert_eq!(store.count().await, Ok(1));
    }
}

#[tokio::test]
async fn a_directory_with_other_files_becomes_a_store() {
    let directory = Directory::default();
    for name in ["store.key", "lost+found", "tokens.db.new"] {
        fs::write(directory.path().join(name), "x").unwrap();
    }
    commit(&directory.open(run()), 1).await;
}

#[tokio::test]
async fn a_vanished_store_is_refused() {
    let directory = Directory::with_a_pair().await;
    fs::remove_file(directory.tokens()).unwrap();
    let refusal = directory.refusal();
    assert!(matches!(refusal, Refusal::Missing(_)), "{refusal:?}");
    assert!(refusal.to_string().contains("restore it from a backup"));
    assert!(!directory.tokens().exists(), "nothing was started empty");
}

#[tokio::test]
async fn an_empty_or_foreign_file_is_refused_and_left_as_it_is() {
    let foreign = Directory::default();
    foreign.execute("PRAGMA journal_mode = DELETE; CREATE TABLE other (a)");
    let foreign = fs::read(foreign.tokens()).unwrap();
    for content in [Vec::new(), b"not a database ".repeat(100), foreign] {
        let directory = Directory::default();
        fs::write(directory.tokens(), &content).unwrap();
        let refusal = directory.refusal();
        assert!(matches!(refusal, Refusal::Foreign(_)), "{refusal:?}");
        assert_eq!(fs::read(directory.tokens()).unwrap(), content);
    }
}

#[tokio::test]
async fn a_truncated_or_garbled_store_is_refused() {
    for garble in [
        |file: &fs::File, length: u64| file.set_len(length / 2).unwrap(),
        |file: &fs::File, length: u64| {
            // All pages but the first, which holds the schema.
            let garbage = vec![0xA5; usize::try_from(length - 4_096).unwrap()];
            file.write_all_at(&garbage, 4_096).unwrap();
        },
    ] {
        let directory = Directory::default();
        let store = directory.open(run());
        join_all((1..=100).map(|n| commit(&store, n))).await;
        drop(store);
        let file = fs::File::options().write(true).open(directory.tokens());
        let length = fs::metadata(directory.tokens()).unwrap().len();
        garble(&file.unwrap(), length);
        let refusal = directory.refusal();
        assert!(matches!(refusal, Refusal::Damaged { .. }), "{refusal:?}");
        assert!(refusal.to_string().contains("restore it from a backup"));
    }
}

/// A closed store of 20 MiB and more.
async fn large() -> Directory {
    let directory = Directory::default();
    let store = directory.open(run());
    join_all((1..=100).map(async |n| {
        let large = Record {
            sealed: vec![1; 256 * 1024],
            ..record(1)
        };
        let committed = store.commit(&user(n), large, over(0, 0), None).await;
        assert_eq!(committed, Ok(Commit::Committed(Generation(1))));
    }))
    .await;
    drop(store);
    assert!(fs::metadata(directory.tokens()).unwrap().len() > 20 * 1024 * 1024);
    directory
}

#[tokio::test]
async fn damage_in_a_large_store_ends_renewals_soon_after_the_start() {
    let directory = large().await;
    let file = fs::File::options().write(true).open(directory.tokens());
    let garbage = vec![0xA5; 1024 * 1024];
    file.unwrap()
        .write_all_at(&garbage, 10 * 1024 * 1024)
        .unwrap();
    let store = directory.open(run());
    let reader = view(directory.path(), pseudonyms(), directory.1)
        .unwrap()
        .unwrap();
    let checked = reader.check_whole().await;
    let damaged = match &checked {
        Err(store::OpenError::Refused(why)) => {
            matches!(why.downcast_ref(), Some(Refusal::Damaged { .. }))
        }
        _ => false,
    };
    assert!(damaged, "{checked:?}");
    let found = async {
        loop {
            if let Err(error) = store.writable() {
                return error.to_string();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(60), found).await;
    let found = found.expect("the damage is found");
    assert!(found.contains("restore it from a backup"), "{found}");
    let refused = lease_of(&store, &user(1), id(1), Duration::from_secs(1)).await;
    assert!(matches!(refused, Err(Error::Unwritable(_))), "{refused:?}");
    // What can be read still is.
    assert!(store.load(&user(1)).await.unwrap().record.is_some());
}

#[tokio::test]
async fn a_large_store_that_is_whole_is_used_at_once_and_closed_at_once() {
    let directory = large().await;
    for _ in 0..10 {
        let store = directory.open(run());
        assert_eq!(store.count().await, Ok(100));
        assert_eq!(store.writable(), Ok(()));
        let reader = view(directory.path(), pseudonyms(), directory.1)
            .unwrap()
            .unwrap();
        reader.check_whole().await.unwrap();
    }
}

#[tokio::test]
async fn a_large_store_that_was_truncated_is_refused() {
    let directory = large().await;
    let file = fs::File::options().write(true).open(directory.tokens());
    file.unwrap().set_len(18 * 1024 * 1024).unwrap();
    let refusal = directory.refusal();
    assert!(matches!(refusal, Refusal::Damaged { .. }), "{refusal:?}");
}
