//! Files that are damaged, emptied or taken away while a store has them open.

use super::*;

/// Waits until `store` says that its file is damaged.
async fn damage_is_told(store: &Sqlite) {
    let told = async {
        loop {
            let why = store.writable().err().map(|error| error.to_string());
            if why.is_some_and(|why| why.contains("restore it from a backup")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(5), told).await;
    told.expect("the damage is told");
    let refused = lease_of(store, &user(1), id(1), Duration::from_secs(1)).await;
    assert!(matches!(refused, Err(Error::Unwritable(_))), "{refused:?}");
}

#[tokio::test]
async fn a_file_that_is_emptied_in_place_ends_renewals_though_nobody_asks() {
    for asks_first in [false, true] {
        let directory = Directory::with_a_pair().await;
        let store = directory.open(run());
        if asks_first {
            let ttl = Duration::from_secs(1);
            store.lease(&user(1), id(1), ttl).await.unwrap().1.unwrap();
        }
        let file = fs::File::options().write(true).open(directory.tokens());
        file.unwrap().set_len(0).unwrap();
        damage_is_told(&store).await;
    }
}

#[tokio::test]
async fn garbage_in_place_of_the_pages_ends_renewals_once_it_is_read() {
    let directory = Directory::with_a_pair().await;
    let store = directory.open(run());
    let length = fs::metadata(directory.tokens()).unwrap().len();
    let garbage = vec![0xA5; usize::try_from(length).unwrap() - 4_096];
    let file = fs::File::options().write(true).open(directory.tokens());
    file.unwrap().write_all_at(&garbage, 4_096).unwrap();
    assert!(store.load(&user(1)).await.is_err());
    damage_is_told(&store).await;
}

#[tokio::test]
async fn nothing_is_made_in_a_folder_that_took_the_place_of_the_open_one() {
    let directory = Directory(tempfile::tempdir().unwrap(), Clock::real());
    let (store, away) = (
        directory.open(run()),
        directory.path().with_extension("away"),
    );
    let ttl = Duration::from_secs(600);
    let granted = Ok(Lease::Granted { orphaned: false });
    assert_eq!(lease_of(&store, &user(1), id(1), ttl).await, granted);
    assert_eq!(lease_of(&store, &user(2), id(1), ttl).await, granted);
    fs::rename(directory.path(), &away).unwrap();
    fs::create_dir(directory.path()).unwrap();
    store.release(&user(1), id(1));
    assert!(lease_of(&store, &user(3), id(1), ttl).await.is_err());
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    // The same folder is back.
    fs::remove_dir(directory.path()).unwrap();
    fs::rename(&away, directory.path()).unwrap();
    assert_eq!(lease_of(&store, &user(3), id(1), ttl).await, granted);
}
