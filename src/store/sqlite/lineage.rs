//! Whether a `tokens.db` and the write-ahead log beside it belong together. SQLite takes that for
//! granted, and would mix a restored file with the log of the one before it. So each transaction
//! writes down which one it follows, in a table with one row and a page of its own; the log of a
//! file begins with a transaction that follows what the file holds.
//!
//! The formats: <https://sqlite.org/fileformat2.html>, 1.6 and 4.1.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use rusqlite::Connection;

/// One transaction.
type Mark = [u8; 8];

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// Where salts lie in the header of a log, and of a frame.
const SALTS: std::ops::Range<usize> = 16..24;
const FRAME_SALTS: std::ops::Range<usize> = 8..16;
/// A leaf page of a table.
const LEAF: u8 = 0x0d;
/// How the row begins: 20 bytes of payload, row 1, a header of 4 bytes, no `id` of its own, two blobs
/// of 8 bytes.
const ROW: [u8; 6] = [20, 1, 4, 0, 28, 28];

/// Makes the transaction that is open on `db` the one that follows the last.
pub(super) fn follow(db: &Connection) -> rusqlite::Result<()> {
    db.prepare_cached(
        "UPDATE lineage SET previous = current, current = randomblob(8) WHERE id = 1",
    )?
    .execute([])
    .map(drop)
}

/// Whether `log` follows what `alone` holds, a `tokens.db` without its log. True where neither says:
/// both are of an earlier format, or the log holds nothing.
pub(super) fn belongs(alone: &Connection, log: &Path) -> io::Result<bool> {
    let row = "SELECT rootpage, current FROM lineage, sqlite_schema WHERE name = 'lineage'";
    let Ok((page, current)) =
        alone.query_row(row, [], |row| Ok((row.get::<_, u32>(0)?, row.get(1)?)))
    else {
        return Ok(true);
    };
    let logged = marks(log, page)?;
    Ok(logged.is_empty() || logged.contains::<Mark>(&current))
}

/// The transaction that a log follows, and those that it holds, as far as they are on this page.
fn marks(log: &Path, page: u32) -> io::Result<HashSet<Mark>> {
    let mut marks = HashSet::new();
    let mut log = match File::open(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(marks),
        opened => BufReader::new(opened?),
    };
    let mut header = [0; HEADER];
    if !filled(&mut log, &mut header)? {
        return Ok(marks);
    }
    let size = u32_at(&header, 8);
    let mut frame = [0; FRAME_HEADER];
    let mut content = vec![0; usize::try_from(size).map_err(io::Error::other)?.min(65_536)];
    // What is left of an earlier log has other salts.
    while filled(&mut log, &mut frame)? && frame[FRAME_SALTS] == header[SALTS] {
        if u32_at(&frame, 0) != page {
            log.seek_relative(i64::from(size))?;
            continue;
        }
        if !filled(&mut log, &mut content)? {
            break;
        }
        if let Some((previous, current)) = row(&content) {
            if marks.is_empty() {
                marks.insert(previous);
            }
            marks.insert(current);
        }
    }
    Ok(marks)
}

/// The only row of a page; `None` if it looks otherwise.
fn row(page: &[u8]) -> Option<(Mark, Mark)> {
    let cells = u16::from_be_bytes(page.get(3..5)?.try_into().ok()?);
    if page.first() != Some(&LEAF) || cells != 1 {
        return None;
    }
    let at = usize::from(u16::from_be_bytes(page.get(8..10)?.try_into().ok()?));
    let (begins, marks) = page.get(at..at + ROW.len() + 16)?.split_at(ROW.len());
    let (previous, current) = marks.split_at(8);
    (begins == ROW).then_some((previous.try_into().ok()?, current.try_into().ok()?))
}

/// False at the end of the file.
fn filled(from: &mut impl Read, into: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(into) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes[at..at + 4].try_into().expect("four bytes");
    u32::from_be_bytes(bytes)
}
