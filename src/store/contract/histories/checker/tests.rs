//! Forged histories: an honest one, and one for each lie.

use super::*;
use crate::store::contract::{LONG, SECOND, at, id, over, record};

/// Something that happened to user 1 within `from..to` seconds.
fn event(from: u32, to: u32, call: Call) -> Event {
    Event {
        of: 1,
        called: SECOND * from,
        answered: SECOND * to,
        call,
    }
}

fn entry(generation: u64, epoch: u64, pair: Option<u8>) -> Entry {
    Entry {
        generation: Generation(generation),
        epoch,
        record: pair.map(record),
        ..Entry::default()
    }
}

fn leased(n: u64, read: Entry) -> Call {
    Call::Leased {
        id: id(n),
        ttl: LONG,
        granted: true,
        read,
    }
}

fn committed(pair: u8, generation: u64, epoch: u64, lease: Option<u64>) -> Call {
    Call::Committed {
        record: record(pair),
        over: over(generation, epoch),
        lease: lease.map(id),
        superseded_by: None,
    }
}

fn loaded(read: Entry) -> Call {
    Call::Loaded { read }
}

fn extended(n: u64, held: bool) -> Call {
    Call::Extended {
        id: id(n),
        ttl: LONG,
        held,
    }
}

const HOUR: Duration = Duration::from_secs(3_600);

fn honest() -> Vec<Event> {
    let displaced = at(7);
    let noted = |mut entry: Entry| {
        entry.notes.displaced = Some(displaced);
        entry
    };
    vec![
        event(1, 4, leased(1, entry(0, 0, None))),
        event(5, 6, extended(1, true)),
        event(7, 10, committed(1, 0, 0, Some(1))),
        // While the commit is under way it may have ended the lease.
        event(8, 9, leased(2, entry(1, 0, Some(1)))),
        event(11, 12, Call::Released { id: id(2) }),
        event(13, 14, Call::Noted { displaced }),
        event(13, 15, loaded(entry(1, 0, Some(1)))),
        event(16, 17, loaded(noted(entry(1, 0, Some(1))))),
        event(18, 20, Call::Forgotten { was_there: true }),
        event(19, 21, loaded(entry(1, 1, None))),
        event(
            22,
            23,
            Call::Restored {
                entry: entry(9, 1, Some(3)),
                written: true,
            },
        ),
        event(24, 25, leased(3, entry(9, 1, Some(3)))),
        event(30, 31, Call::Claimed { hold: LONG }),
        event(700, 701, leased(4, entry(9, 1, Some(3)))),
        event(702, 703, extended(3, false)),
        event(704, 705, Call::Claimed { hold: LONG }),
    ]
}

/// What is found once `lie` is told, too.
fn found(lies: impl IntoIterator<Item = Event>) -> Vec<String> {
    findings(&honest().into_iter().chain(lies).collect::<Vec<_>>())
}

#[test]
fn an_honest_history_is_clean() {
    assert_eq!(found([]), Vec::<String>::new());
    // Another user's is another history.
    let other = honest().into_iter().map(|event| Event { of: 2, ..event });
    assert_eq!(found(other), Vec::<String>::new());
}

#[test]
fn each_lie_is_found() {
    let lies = [
        ("a second holder", event(2, 5, leased(9, entry(0, 0, None)))),
        (
            "a holder while another extends",
            event(703, 704, leased(9, entry(9, 1, Some(3)))),
        ),
        (
            "a read from before the commit that made way for it",
            event(8, 9, leased(9, entry(0, 0, None))),
        ),
        (
            "a generation committed twice",
            event(800, 801, committed(8, 0, 0, None)),
        ),
        (
            "a pair of nobody's making",
            event(16, 17, loaded(entry(1, 0, Some(8)))),
        ),
        (
            "a commit that disappeared",
            event(16, 17, loaded(entry(0, 0, None))),
        ),
        (
            "a forget that disappeared",
            event(21, 22, loaded(entry(1, 0, Some(1)))),
        ),
        (
            "a restore that disappeared",
            event(30, 31, loaded(entry(1, 1, None))),
        ),
        (
            "a note that disappeared",
            event(16, 17, loaded(entry(1, 0, Some(1)))),
        ),
        (
            "a pair claimed twice",
            event(40, 41, Call::Claimed { hold: HOUR }),
        ),
        (
            "superseded by what it was to replace",
            event(
                30,
                31,
                Call::Committed {
                    record: record(8),
                    over: over(9, 1),
                    lease: None,
                    superseded_by: Some(entry(9, 1, Some(3))),
                },
            ),
        ),
    ];
    for (what, lie) in lies {
        assert!(!found([lie]).is_empty(), "{what} is not found");
    }
}

#[test]
fn a_commit_that_nobody_ever_sees_is_found() {
    let lies = [
        event(800, 801, committed(8, 9, 1, None)),
        event(802, 803, loaded(entry(9, 1, Some(3)))),
    ];
    assert!(!found(lies).is_empty());
}
