//! Notes, as many as come at once in one transaction.

use super::batch::{Job, Work};
use super::columns::{Columns, columns, insert_entries};
use super::link::Link;
use super::session::Statement;
use super::strangers::REJECTION_FOLLOWS;
use crate::store::{Entry, Error, Note, Notes};

/// A fact as the row that would hold nothing else.
pub(super) struct Fact {
    entry: Entry,
    /// Whether it ends a note instead.
    alive: bool,
}

impl From<Note> for Fact {
    fn from(note: Note) -> Fact {
        let mut notes = Notes::default();
        match note {
            Note::RefreshDead(generation) => notes.refresh_dead = Some(generation),
            Note::RefreshAlive => {}
            Note::AnswerLost(generation) => notes.answer_lost = Some(generation),
            Note::Rejected(rejected) => notes.rejected = Some(rejected),
            Note::Displaced(at) => notes.displaced = Some(at),
            Note::ContestedUntil(until) => notes.contested_until = Some(until),
            Note::SuppressedUntil(until) => notes.suppressed_until = Some(until),
            Note::RegisteredIn(instance) => notes.registered_in = Some(instance),
        }
        Fact {
            entry: Entry {
                notes,
                ..Entry::default()
            },
            alive: note == Note::RefreshAlive,
        }
    }
}

/// Each proposed row holds one fact; a row that stands keeps all others. One that is `known` says that
/// the RefreshToken is alive: no fact needs that column for itself. What is said of a pair ([`Note::is_of_a_pair`])
/// is nothing to whom has none.
const NOTE: &str = concat!(
    insert_entries!(),
    " WHERE refresh_dead IS NULL AND answer_lost IS NULL AND NOT known
        OR (SELECT sealed IS NOT NULL FROM entries WHERE entries.principal = wanted.principal)
      ON CONFLICT (principal) DO UPDATE SET
        refresh_dead = CASE WHEN excluded.known THEN NULL
            ELSE coalesce(excluded.refresh_dead, stands.refresh_dead) END,
        answer_lost = coalesce(excluded.answer_lost, stands.answer_lost),
        rejected_until = coalesce(excluded.rejected_until, stands.rejected_until),
        rejected_with = coalesce(excluded.rejected_with, stands.rejected_with),
        known = stands.known AND excluded.rejected_until IS NULL,
        displaced = coalesce(excluded.displaced, stands.displaced),
        contested_until = coalesce(excluded.contested_until, stands.contested_until),
        suppressed_until = coalesce(excluded.suppressed_until, stands.suppressed_until),
        registered_in = CASE
            WHEN excluded.rejected_until IS NOT NULL THEN NULL
            WHEN stands.sealed IS NULL THEN coalesce(excluded.registered_in, stands.registered_in)
            ELSE stands.registered_in END"
);
/// A pair whose RefreshToken is dead is not due.
const DUE_FOLLOWS: &str = "UPDATE due SET dead = NOT dead FROM entries
    WHERE due.principal = ANY($1) AND entries.principal = due.principal
        AND due.dead <> coalesce(entries.refresh_dead = entries.generation, false)";

/// Writes notes.
pub(super) struct Noting(pub(super) Link);

impl Work for Noting {
    type Asked = Fact;
    type Answer = ();

    async fn work(&self, batch: &[Job<Fact>]) -> Result<Vec<()>, Error> {
        let mut columns = Columns::default();
        for job in batch {
            columns.push(&job.key, &job.asked.entry);
            if job.asked.alive {
                columns.mark_known();
            }
        }
        let principals = [columns.principals()];
        let columns = columns.parameters();
        let noted = self.0.write([
            Statement {
                sql: NOTE,
                parameters: &columns,
            },
            Statement {
                sql: DUE_FOLLOWS,
                parameters: &principals,
            },
            Statement {
                sql: REJECTION_FOLLOWS,
                parameters: &principals,
            },
        ]);
        noted.await?;
        Ok(batch.iter().map(|_| ()).collect())
    }
}
