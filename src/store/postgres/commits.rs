//! Commits, as many as come at once in one transaction.

use std::collections::HashSet;

use tokio_postgres::types::Type;

use super::batch::{Job, Work};
use super::columns::{Columns, columns, insert_entries};
use super::leases;
use super::link::Link;
use super::loads;
use super::session::Statement;
use super::tombstones::{Names, forgotten};
use crate::store::{Commit, Entry, Error, Generation, LeaseId, Pseudonyms, Record, Version};

/// What one commit proposes.
pub(super) struct Proposal {
    /// As it is to stand, without the notes that stand there.
    entry: Entry,
    /// The lease that ends with it.
    lease: Option<LeaseId>,
}

impl Proposal {
    pub(super) fn new(record: Record, over: Version, lease: Option<LeaseId>) -> Proposal {
        let entry = Entry {
            generation: Generation(over.generation.0.saturating_add(1)),
            epoch: over.epoch,
            record: Some(record),
            ..Entry::default()
        };
        Proposal { entry, lease }
    }

    /// Whether its principal may have a tombstone, and no pair.
    fn may_be_of_the_forgotten(&self) -> bool {
        self.entry.epoch > 0 || self.entry.generation == Generation(1)
    }

    /// What came of it, if `stands` does: an earlier attempt may have been done although its answer was
    /// lost.
    fn beside(&self, stands: Entry) -> Commit {
        let Entry {
            generation,
            epoch,
            record,
            ..
        } = &self.entry;
        match (&stands.generation, &stands.epoch, &stands.record) == (generation, epoch, record) {
            true => Commit::Committed(*generation),
            false => Commit::Superseded(stands),
        }
    }
}

/// The comparison and the write are one statement. A commit on top of nothing, or of what was forgotten, makes
/// a row; any other needs one: the subquery, which cannot become a scan of the table, keeps it from making one.
/// What has no pair has the higher version of its row and of what was forgotten. What the keeper looks at
/// follows.
const COMMIT: &str = concat!(
    "WITH ",
    forgotten!("$19", "$20"),
    ", committed AS (",
    insert_entries!(),
    " LEFT JOIN forgotten ON name = wanted.principal
      WHERE wanted.generation = coalesce(forgotten_generation, 0) + 1
              AND wanted.epoch = coalesce(forgotten_epoch, 0)
          OR (SELECT sealed IS NOT NULL OR generation > 0 OR epoch > 0 FROM entries
              WHERE entries.principal = wanted.principal)
      ON CONFLICT (principal) DO UPDATE SET
          generation = excluded.generation, epoch = excluded.epoch,
          instance = excluded.instance, known = excluded.known, sealed = excluded.sealed,
          key_id = excluded.key_id, received = excluded.received,
          expires = excluded.expires, run = excluded.run, refresh_dead = NULL, answer_lost = NULL,
          rejected_until = NULL, rejected_with = NULL, registered_in = NULL
      WHERE CASE WHEN stands.sealed IS NOT NULL THEN stands.generation ELSE greatest(
              stands.generation,
              (SELECT forgotten_generation FROM forgotten WHERE name = excluded.principal))
          END = excluded.generation - 1
          AND CASE WHEN stands.sealed IS NOT NULL THEN stands.epoch ELSE greatest(
              stands.epoch,
              (SELECT forgotten_epoch FROM forgotten WHERE name = excluded.principal))
          END = excluded.epoch
      RETURNING principal, received, key_id
    )
    INSERT INTO due (principal, received, key_id) SELECT principal, received, key_id FROM committed
    ON CONFLICT (principal) DO UPDATE SET
        received = excluded.received, key_id = excluded.key_id, dead = false, claimed_until = 0
    RETURNING principal"
);

/// Writes commits.
pub(super) struct Commits {
    pub(super) link: Link,
    pub(super) pseudonyms: Pseudonyms,
}

impl Work for Commits {
    type Asked = Proposal;
    /// Inside: the entry that stands in the way is damaged.
    type Answer = Result<Commit, Error>;

    async fn work(&self, batch: &[Job<Proposal>]) -> Result<Vec<Result<Commit, Error>>, Error> {
        let committed = self.write(batch).await?;
        let refused = batch.iter().filter(|job| !committed.contains(&job.key));
        let standing = match committed.len() == batch.len() {
            true => Ok(Vec::new()),
            false => loads::load(&self.link, &self.pseudonyms, refused).await,
        };
        Ok(answers(batch, &committed, standing))
    }
}

/// What each of the batch is answered if those `committed` were written, and this was read of the others. A
/// reading that failed is theirs alone.
fn answers(
    batch: &[Job<Proposal>],
    committed: &HashSet<String>,
    standing: Result<Vec<Result<Entry, Error>>, Error>,
) -> Vec<Result<Commit, Error>> {
    let mut standing = standing.map(Vec::into_iter);
    let answer = |job: &Job<Proposal>| {
        if committed.contains(&job.key) {
            return Ok(Commit::Committed(job.asked.entry.generation));
        }
        let standing = standing.as_mut().map_err(|error| error.clone())?;
        let stands = standing.next().expect("one was read for each of them");
        Ok(job.asked.beside(stands?))
    };
    batch.iter().map(answer).collect()
}

impl Commits {
    /// Returns the keys of those that were written. The leases of the others end as well: their pairs
    /// are spent.
    async fn write(&self, batch: &[Job<Proposal>]) -> Result<HashSet<String>, Error> {
        let mut columns = Columns::default();
        let mut forgotten = Names::default();
        let (mut leased, mut leases) = (Vec::new(), Vec::new());
        for job in batch {
            columns.push(&job.key, &job.asked.entry);
            if job.asked.may_be_of_the_forgotten() {
                forgotten.push(&self.pseudonyms, &job.principal);
            }
            if let Some(LeaseId(id)) = job.asked.lease {
                leased.push(job.key.as_str());
                leases.push(id);
            }
        }
        let mut columns = columns.parameters();
        columns.extend(forgotten.parameters());
        let ending = [
            (&leased as _, Type::TEXT_ARRAY),
            (&leases as _, Type::UUID_ARRAY),
        ];
        let written = self.link.write([
            Statement {
                sql: COMMIT,
                parameters: &columns,
            },
            Statement {
                sql: leases::END,
                parameters: &ending,
            },
        ]);
        let [committed, _] = written.await?;
        Ok(committed.iter().map(|row| row.get(0)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::{record, user};

    fn job(of: u64) -> Job<Proposal> {
        Job {
            principal: user(of),
            key: user(of).to_string(),
            asked: Proposal::new(record(1), Version::default(), None),
        }
    }

    #[test]
    fn what_was_committed_does_not_fail_with_a_reading() {
        let batch = [1, 2, 3].map(job);
        let committed = HashSet::from([user(1).to_string(), user(3).to_string()]);
        let away = Error::Away("no answer".to_owned());
        let answers = |standing| answers(&batch, &committed, standing);
        let done = || Ok(Commit::Committed(Generation(1)));
        assert_eq!(
            answers(Err(away.clone())),
            [done(), Err(away.clone()), done()]
        );
        let damaged = Error::Damaged(user(2));
        assert_eq!(
            answers(Ok(vec![Err(damaged.clone())])),
            [done(), Err(damaged), done()]
        );
        let forgotten = Entry {
            epoch: 1,
            ..Entry::default()
        };
        let superseded = Ok(Commit::Superseded(forgotten.clone()));
        assert_eq!(
            answers(Ok(vec![Ok(forgotten)])),
            [done(), superseded, done()]
        );
    }
}
