//! Transactions whose own statements are prepared once: SQLite would parse them anew each time.

use std::ops::Deref;

use rusqlite::Connection;

/// A transaction; undone when it is dropped before it was committed.
pub(in crate::store) struct Transaction<'db> {
    db: &'db Connection,
}

impl Transaction<'_> {
    /// One that writes: waits for those of other connections. No other may be open on `db`.
    pub(in crate::store) fn writing(db: &Connection) -> rusqlite::Result<Transaction<'_>> {
        run(db, "BEGIN IMMEDIATE")?;
        Ok(Transaction { db })
    }

    /// One that only reads: all that it reads is of one moment. No other may be open on `db`.
    pub(super) fn reading(db: &Connection) -> rusqlite::Result<Transaction<'_>> {
        run(db, "BEGIN")?;
        Ok(Transaction { db })
    }

    /// Makes it last.
    pub(in crate::store) fn commit(self) -> rusqlite::Result<()> {
        run(self.db, "COMMIT")
    }

    /// Undoes it.
    pub(super) fn rollback(self) -> rusqlite::Result<()> {
        run(self.db, "ROLLBACK")
    }

    /// Does `work`; if it returns false, what it did is undone, and nothing else. Fails if that is not
    /// certain.
    pub(super) fn part(&self, work: impl FnOnce(&Connection) -> bool) -> rusqlite::Result<()> {
        run(self.db, "SAVEPOINT part")?;
        let done = work(self.db);
        if self.db.is_autocommit() {
            // The whole transaction has ended.
            return Ok(());
        }
        if !done {
            run(self.db, "ROLLBACK TO part")?;
        }
        run(self.db, "RELEASE part")
    }
}

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.db
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // It has ended if it was committed, or if SQLite undid it.
        if !self.db.is_autocommit()
            && let Err(error) = run(self.db, "ROLLBACK")
        {
            tracing::warn!(%error, "a transaction cannot be rolled back");
        }
    }
}

fn run(db: &Connection, statement: &str) -> rusqlite::Result<()> {
    db.prepare_cached(statement)?.execute([]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn db() -> Connection {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch("CREATE TABLE written (n)").unwrap();
        db
    }

    fn write(db: &Connection, n: i64) -> rusqlite::Result<usize> {
        db.execute("INSERT INTO written VALUES (?1)", [n])
    }

    fn written(db: &Connection) -> Vec<i64> {
        let mut statement = db.prepare("SELECT n FROM written ORDER BY n").unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.collect::<rusqlite::Result<_>>().unwrap()
    }

    #[test]
    fn only_what_is_committed_lasts() {
        let db = db();
        for round in 0..2 {
            let dropped = Transaction::writing(&db).unwrap();
            write(&dropped, 100 + round).unwrap();
            drop(dropped);
            let undone = Transaction::writing(&db).unwrap();
            write(&undone, 200 + round).unwrap();
            undone.rollback().unwrap();
            let committed = Transaction::writing(&db).unwrap();
            write(&committed, round).unwrap();
            committed.commit().unwrap();
        }
        assert_eq!(written(&db), [0, 1]);
    }

    #[test]
    fn a_part_that_fails_is_undone_alone() {
        let db = db();
        let transaction = Transaction::writing(&db).unwrap();
        transaction.part(|db| write(db, 1).is_ok()).unwrap();
        let failed = transaction.part(|db| {
            write(db, 2).unwrap();
            false
        });
        failed.unwrap();
        transaction.part(|db| write(db, 3).is_ok()).unwrap();
        transaction.commit().unwrap();
        assert_eq!(written(&db), [1, 3]);
    }

    #[test]
    fn a_transaction_that_a_part_ended_is_ended() {
        let db = db();
        let transaction = Transaction::writing(&db).unwrap();
        write(&transaction, 1).unwrap();
        transaction
            .part(|db| db.execute_batch("ROLLBACK").is_ok())
            .unwrap();
        assert!(transaction.is_autocommit());
        assert!(transaction.commit().is_err());
        assert!(written(&db).is_empty());
    }
}
