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

/// Puts `fresh` in the place of the one that stands.
pub(super) fn replace(db: &Connection, fresh: &[u8]) -> rusqlite::Result<()> {
    db.execute("UPDATE meta SET value = ?1 WHERE key = 'canary'", [fresh])
        .map(drop)
}
