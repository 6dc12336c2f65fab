//! The change feed: what is forgotten or restored, numbered without gaps. Its writers lock the end of the
//! feed until they have committed, so that a reader who sees a number has seen all before it. Renewals
//! are not in it: they are found when the lease is asked for.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_postgres::types::Type;

use super::columns::unsigned;
use super::link::Link;
use super::presence::Arrival;
use crate::principal::Principal;
use crate::store::{Change, Error, Generation, Pseudonym, Tombstone, Version};

/// How often the feed is read.
const POLL_EVERY: Duration = Duration::from_millis(400);

/// Queries that a statement goes on with whose query `changed` returns the principal, generation and
/// epoch of each row that it changed: they enter the feed, and what is 10,000 changes old leaves it. A
/// reader that is that far behind finds a gap. More than 100 are one change, of everything: a reader has
/// as little to do as the disk.
macro_rules! told {
    () => {
        "counted AS (
            SELECT count(*) > 100 AS many, CASE WHEN count(*) > 100 THEN 1 ELSE count(*) END AS numbers
            FROM changed
        ), ended AS (
            UPDATE meta SET feed_end = feed_end + counted.numbers FROM counted
            WHERE meta.id = 1 AND counted.numbers > 0
            RETURNING feed_end, counted.numbers, counted.many
        ), told AS (
            INSERT INTO feed (number, principal, generation, epoch)
            SELECT ended.feed_end - ended.numbers + row_number() OVER (ORDER BY changed.principal),
                changed.principal, changed.generation, changed.epoch
            FROM changed, ended WHERE NOT ended.many
            UNION ALL
            SELECT ended.feed_end, NULL, NULL, NULL FROM ended WHERE ended.many
        ), trimmed AS (
            DELETE FROM feed USING ended WHERE feed.number <= ended.feed_end - 10000
        )"
    };
}
pub(super) use told;

/// What came after the number `$1`, and the end of the feed, even if nothing came.
const READ: &str = "SELECT meta.feed_end, feed.number, feed.principal, feed.generation, feed.epoch
    FROM meta LEFT JOIN feed ON feed.number > $1
    WHERE meta.id = 1 ORDER BY feed.number LIMIT 1000";
/// How many rows [`READ`] returns if there may be more.
const FULL: usize = 1_000;

/// The task that reads.
pub(super) struct Feed {
    /// The receiver's end; `None` if there is no receiver, or the feed was closed.
    to: Arc<Mutex<Option<UnboundedSender<Change>>>>,
    task: JoinHandle<()>,
}

/// Where the reading stands.
struct Reader {
    link: Link,
    /// The number of the last change that was told.
    seen: i64,
    /// Tells when the server is another one, or was away: its feed may be another one as well.
    connected: Arrival,
    /// Whether changes may have been missed, as before the first reading.
    missed: bool,
    to: Arc<Mutex<Option<UnboundedSender<Change>>>>,
}

impl Feed {
    /// Starts the task, on the runtime that this is called on. The server need not be there yet.
    pub(super) fn start(link: Link) -> Feed {
        let to = Arc::default();
        let reader = Reader {
            connected: link.connected(),
            link,
            seen: 0,
            missed: true,
            to: Arc::clone(&to),
        };
        let task = tokio::spawn(reader.follow());
        Feed { to, task }
    }

    /// Returns a receiver that is told from now on. Ends the stream of the one before it.
    pub(super) fn subscribe(&self) -> UnboundedReceiver<Change> {
        let (sender, receiver) = unbounded_channel();
        if !self.task.is_finished() {
            *self.to.lock().expect("no code panics under this lock") = Some(sender);
        }
        receiver
    }

    /// Ends the receiver's stream.
    pub(super) fn close(&self) {
        self.task.abort();
        *self.to.lock().expect("no code panics under this lock") = None;
    }
}

impl Reader {
    async fn follow(mut self) {
        loop {
            if self.connected.has_changed().unwrap_or(false) {
                self.connected.mark_unchanged();
                self.missed = true;
            }
            match read(&self.link, self.seen).await {
                Ok((told, end)) => {
                    let is_full = told.len() == FULL;
                    self.tell(told, end);
                    if is_full {
                        continue;
                    }
                }
                // Those who need the store say that it is away.
                Err(_) => self.missed = true,
            }
            sleep(POLL_EVERY).await;
        }
    }

    fn tell(&mut self, told: Vec<(i64, Change)>, end: i64) {
        let follows = match told.first() {
            Some((first, _)) => *first == self.seen + 1,
            None => end == self.seen,
        };
        let changes = match follows && !self.missed {
            true => {
                self.seen = told.last().map_or(self.seen, |(number, _)| *number);
                let mut changes: Vec<_> = told.into_iter().map(|(_, change)| change).collect();
                if changes.contains(&Change::Everything) {
                    changes = vec![Change::Everything];
                }
                changes
            }
            false => {
                (self.seen, self.missed) = (end, false);
                vec![Change::Everything]
            }
        };
        if let Some(to) = &*self.to.lock().expect("no code panics under this lock") {
            for change in changes {
                // A receiver that went away wants no changes.
                let _ = to.send(change);
            }
        }
    }
}

/// The changes after the number `seen`, and the end of the feed.
async fn read(link: &Link, seen: i64) -> Result<(Vec<(i64, Change)>, i64), Error> {
    let rows = link.read(READ, [(&seen, Type::INT8)]).await?;
    let end = rows.first().map_or(0, |row| row.get(0));
    let change = |row: &tokio_postgres::Row| {
        let number = row.get::<_, Option<i64>>(1)?;
        let version = || Version {
            generation: Generation(unsigned(row.get(3))),
            epoch: unsigned(row.get(4)),
        };
        let key = row.get::<_, Option<&str>>(2);
        let change = match (
            key.and_then(Principal::parse),
            key.and_then(Pseudonym::parse),
        ) {
            (Some(principal), _) => Change::Entry {
                principal,
                version: version(),
            },
            (None, Some(pseudonym)) => Change::Forgotten(Tombstone {
                pseudonym,
                version: version(),
            }),
            // Anybody's: of many, or of one that this version does not know.
            (None, None) => Change::Everything,
        };
        Some((number, change))
    };
    Ok((rows.iter().filter_map(change).collect(), end))
}
