//! What a server lost, never had, or never takes, and answers of its that were lost.

use super::*;

#[tokio::test]
async fn a_refresh_that_meets_a_server_which_went_back_is_kept() {
    let (_folder, process) = Process::alone(Writes::Work);
    let displaced = Some(record(2).received);
    let stands = Entry {
        notes: Notes {
            displaced,
            refresh_dead: Some(Generation(2)),
            ..Notes::default()
        },
        ..pending(1, 2).entry()
    };
    process.server.put(&user(1), stands);
    assert_eq!(process.committer.commit(pending(1, 4)).await, committed(4));
    let expected = Entry {
        notes: Notes {
            displaced,
            ..Notes::default()
        },
        ..pending(1, 4).entry()
    };
    assert_eq!(process.server.stands(&user(1)), expected);
    assert!(process.doubt.left().is_some());
    // Who holds no lease compared with what was never there.
    let ahead = Pending {
        lease: None,
        ..pending(2, 4)
    };
    let superseded = process.committer.commit(ahead).await;
    assert_eq!(superseded, Ok(Commit::Superseded(Entry::default())));
}

#[tokio::test]
async fn a_pair_that_the_server_never_takes_stays_until_its_user_is_forgotten() {
    let (_folder, process) = Process::alone(Writes::Work);
    process.committer.commit(pending(1, 1)).await.unwrap();
    process.server.set(Writes::Refuse);
    for of in 1..=2 {
        let committed_all = process.committer.commit(pending(of, 2)).await;
        assert_eq!(committed_all, committed(2));
    }
    assert_eq!(process.lease(1).await, Ok(pending(1, 2).entry()));
    // Nobody else is held up, and neither are other writes.
    process.server.commits(5).await;
    process.server.set(Writes::Work);
    assert_eq!(process.committer.commit(pending(3, 1)).await, committed(1));
    process.server.set(Writes::Refuse);
    let note = Note::Displaced(record(2).received);
    assert_eq!(process.committer.note(&user(1), note).await, Ok(()));
    assert_eq!(process.waiting(), 2);
    for of in 1..=2 {
        assert_eq!(process.committer.forget(&user(of)).await, Ok(true));
        assert_eq!(process.committer.forget(&user(of)).await, Ok(false));
    }
    assert_eq!(process.waiting(), 0);
    let forgotten = Entry {
        generation: Generation(1),
        epoch: 1,
        ..Entry::default()
    };
    assert_eq!(process.lease(1).await, Ok(forgotten));
    assert_eq!(process.lease(2).await, Ok(Entry::default()));
}

#[tokio::test]
async fn what_the_server_never_had_was_not_lost_there() {
    let (_folder, process) = Process::alone(Writes::Work);
    process.committer.commit(pending(1, 1)).await.unwrap();
    // Two pairs reach the outbox alone; the next one is refused by what stands under them.
    process.server.set(Writes::Fail);
    process.committer.commit(pending(1, 2)).await.unwrap();
    process.committer.commit(pending(1, 3)).await.unwrap();
    process.committer.sending.abort();
    process.server.set(Writes::Work);
    assert_eq!(process.committer.commit(pending(1, 4)).await, committed(4));
    assert_eq!(process.server.stands(&user(1)), pending(1, 4).entry());
    assert_eq!(process.doubt.left(), None);
}

#[tokio::test]
async fn a_forget_whose_answer_was_lost_is_remembered_by_its_repetition() {
    let (_folder, process) = Process::alone(Writes::Work);
    process.committer.commit(pending(1, 1)).await.unwrap();
    let older = process.server.all();
    process.server.set(Writes::LoseAnswers);
    let forgotten = process.committer.forget(&user(1)).await;
    assert!(matches!(forgotten, Err(Error::Away(_))), "{forgotten:?}");
    process.server.set(Writes::Work);
    assert_eq!(process.committer.forget(&user(1)).await, Ok(false));
    process.server.go_back_to(older);
    let leased = process.lease(1).await.unwrap();
    assert_eq!((leased.epoch, leased.record), (1, None));
    assert!(process.doubt.left().is_some());
}

#[tokio::test]
async fn a_restore_whose_answer_was_lost_is_remembered_by_its_repetition() {
    let (_folder, process) = Process::alone(Writes::Work);
    let entries = vec![(user(1), pending(1, 3).entry())];
    process.server.set(Writes::LoseAnswers);
    let lost = process.committer.restore(entries.clone()).await;
    assert!(matches!(lost, Err(Error::Away(_))), "{lost:?}");
    process.server.set(Writes::Work);
    let repeated = process.committer.restore(entries).await;
    assert_eq!(repeated, Ok(vec![Restored::Kept]));
    process.server.go_back_to(Default::default());
    assert_eq!(process.lease(1).await, Ok(pending(1, 3).entry()));
}

#[tokio::test]
async fn an_entry_that_the_server_lost_is_returned_as_it_was_acknowledged() {
    let (_folder, process) = Process::alone(Writes::Work);
    process.committer.commit(pending(1, 1)).await.unwrap();
    let older = process.server.all();
    process.committer.commit(pending(1, 2)).await.unwrap();
    process.server.go_back_to(older);
    assert_eq!(process.doubt.left(), None);
    assert_eq!(process.lease(1).await, Ok(pending(1, 2).entry()));
    assert!(process.doubt.left().is_some());
    let loaded = process.committer.load(&user(1)).await;
    assert_eq!(loaded, Ok(pending(1, 2).entry()));
    // What another process commits on top is believed.
    process.server.put(&user(1), pending(1, 3).entry());
    assert_eq!(process.lease(1).await, Ok(pending(1, 3).entry()));
}
