//! The statements on the canary, a row of the table `meta`.

use rusqlite::{Connection, OptionalExtension};

/// The canary, if there is one yet.
pub(super) fn load(db: &Connection) -> rusqlite::Result<Option<Vec<u8>>> {
    db.query_row("SELECT value FROM meta WHERE key = 'canary'", [], |row| {
        row.get(0)
    })
    .optional()
}

/// Keeps `fresh` if there is none yet, and returns the one that stands.
pub(super) fn leave(db: &Connection, fresh: &[u8]) -> rusqlite::Result<Vec<u8>> {
    db.execute(
        "INSERT INTO meta (key, value) VALUES ('canary', ?1) ON CONFLICT DO NOTHING",
        [fresh],
    )?;
    db.query_row("SELECT value FROM meta WHERE key = 'canary'", [], |row| {
        row.get(0)
    })
}

/// Puts `fresh` in the place of `stands`. Returns false if another one stands there.
pub(super) fn replace(db: &Connection, stands: &[u8], fresh: &[u8]) -> rusqlite::Result<bool> {
    let rows = db.execute(
        "UPDATE meta SET value = ?2 WHERE key = 'canary' AND value IN (?1, ?2)",
        [stands, fresh],
    )?;
    Ok(rows > 0)
}
