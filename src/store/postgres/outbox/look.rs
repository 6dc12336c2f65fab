//! How many pairs wait in an outbox, for commands that change nothing: read from a copy, beside a running
//! process as well.

use std::io;
use std::path::Path;

use super::pairs;
use crate::store::sqlite::connections;
use crate::store::sqlite::private_copy::PrivateCopy;

const FILES: [&str; 2] = ["outbox.db", "outbox.db-wal"];

/// Counts the pairs that wait in the folder `path`: none if there is no outbox.
pub(in crate::store::postgres) fn waiting_in(path: &Path) -> io::Result<u64> {
    if !path.join(FILES[0]).try_exists()? {
        return Ok(0);
    }
    let copy = PrivateCopy::of(path, FILES)?;
    let counted = connections::open(&copy.path.join(FILES[0])).and_then(|db| pairs::count(&db));
    counted.map_err(io::Error::other)
}
