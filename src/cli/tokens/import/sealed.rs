//! The import of a sealed export: whole entries, in batches, each where it outranks the one that stands
//! in the store. An import that was cut off goes on where it is run again: what stands already is kept.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::pin::pin;
use std::process::ExitCode;

use futures_util::stream::{Stream, StreamExt};

use super::super::sealed::{self, Header, Line};
use super::buried::{self, Standing};
use super::report::{Count, Report};
use super::{Arguments, Ended, Target, count_as_used};
use crate::cli::lines::{AHEAD, InputLine};
use crate::cli::opening::keys;
use crate::cli::tokens::unopened;
use crate::cli::{Failure, exit, say};
use crate::config::Settings;
use crate::credentials::Pair;
use crate::credentials::canary;
use crate::credentials::seal::{self, Ring, Unopened};
use crate::principal::Principal;
use crate::store::{self, Entry, KeyId, Restored, Tombstone, Version};

/// Batches that are imported at once, so that one is read while others become durable.
const AT_ONCE: usize = 4;

/// Whether an export may be imported.
pub(super) enum Checked {
    /// The keys open all of it. `None`: it needs none.
    Good(Option<Ring>),
    /// It was said why not; the command ends with this code.
    Refused(ExitCode),
}

/// One line that was read.
struct Read {
    number: usize,
    bytes: u64,
    what: What,
}

/// What a line is.
enum What {
    /// An entry of this principal.
    Entry(Principal),
    /// What is left of somebody.
    Tombstone(Tombstone),
    /// A sentence says why it is no good.
    Bad(String),
    /// The last one, which says how many entries came before.
    End(u64),
}

/// What a batch brings.
#[derive(Default)]
struct Brought {
    entries: Vec<(Principal, Entry)>,
    tombstones: Vec<Tombstone>,
}

/// Refuses an export that the configured keys do not open, before the store is touched, and one that this
/// program does not understand.
pub(super) fn check(
    header: &Header,
    settings: &Settings,
    arguments: &Arguments,
) -> Result<Checked, Failure> {
    let refused = |code, why: &str| {
        say(&format!("error: {why}"));
        Ok(Checked::Refused(ExitCode::from(code)))
    };
    if header.version > sealed::VERSION {
        return refused(
            exit::INPUT,
            "the export was written by a newer version of this program: import it with that one",
        );
    }
    if arguments.overwrite {
        return refused(
            exit::USAGE,
            "--overwrite is not for sealed exports: what is newer is always kept; to go back to \
             older pairs, export them in clear",
        );
    }
    let (canary, needed) = match header
        .canary()
        .and_then(|canary| Ok((canary, header.keys()?)))
    {
        Ok(read) => read,
        Err(why) => {
            let why = format!("the first line of the export is damaged: {why}");
            return refused(exit::INPUT, &why);
        }
    };
    let ring = keys(&settings.store)?;
    let Some(canary) = canary else {
        return Ok(Checked::Good(ring));
    };
    let is_missing = |key: &KeyId| !ring.as_ref().is_some_and(|ring| ring.holds(*key));
    let of_canary = seal::key_of(&canary);
    let named = needed.iter().map(|(key, _)| *key).chain(of_canary);
    let missing: BTreeSet<_> = named.filter(is_missing).collect();
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(ToString::to_string).collect();
        let why = format!(
            "the export is sealed with a key that is not configured here ({}): make the [store] key \
             of the store that it came from the key of this one, or one of its old_keys; nothing was \
             imported",
            names.join(", ")
        );
        return refused(exit::STORE, &why);
    }
    match ring.as_ref().map(|ring| canary::check(ring, &canary)) {
        Some(Ok(())) => Ok(Checked::Good(ring)),
        Some(Err(_)) | None => refused(
            exit::INPUT,
            "the first line of the export is damaged: its canary does not open",
        ),
    }
}

/// Imports the lines after the first. Returns why it ended before they did.
pub(super) async fn import(
    lines: impl Stream<Item = InputLine>,
    into: &Target<'_>,
    ring: Option<&Ring>,
    report: &mut Report<'_>,
) -> Result<Option<Ended>, Failure> {
    let standing = &Standing::of(into).await?;
    let batches = lines.ready_chunks(AHEAD).map(|batch| async move {
        let (
            lines,
            Brought {
                entries,
                tombstones,
            },
        ) = read(batch, ring)?;
        let restored = restore(into, entries).await.map_err(Ended::Store)?;
        let buried = buried::bury(into, standing, tombstones).await;
        Ok((lines, restored, buried.map_err(Ended::Store)?))
    });
    let mut batches = pin!(batches.buffered(AT_ONCE));
    let (mut entries, mut end) = (0, None);
    let mut ended = HashMap::new();
    while let Some(batch) = batches.next().await {
        let (lines, restored, buried) = match batch {
            Ok(batch) => batch,
            Err(ended) => return Ok(Some(ended)),
        };
        let (mut restored, mut buried) = (restored.into_iter(), buried.into_iter());
        for line in lines {
            report.advance(1, line.bytes);
            let (count, told, usual) = match line.what {
                What::End(said) => {
                    end = Some(said);
                    continue;
                }
                What::Bad(why) => (Count::Failed, why, false),
                What::Entry(principal) => match restored.next() {
                    Some(Restored::Written) => (
                        Count::Imported,
                        format!("{principal} would be imported"),
                        true,
                    ),
                    Some(Restored::Kept) | None => (
                        Count::KeptNewer,
                        format!("what is stored of {principal} stays: it is the same, or newer"),
                        true,
                    ),
                },
                What::Tombstone(Tombstone { pseudonym, version }) => {
                    let highest: &mut Version = ended.entry(pseudonym).or_default();
                    if version.epoch > highest.epoch {
                        *highest = version;
                    }
                    match buried.next() {
                        Some(Restored::Written) => (
                            Count::Imported,
                            format!("{pseudonym} would be imported"),
                            true,
                        ),
                        Some(Restored::Kept) | None => (
                            Count::KeptNewer,
                            format!("{pseudonym} is stored already"),
                            true,
                        ),
                    }
                }
            };
            entries += 1;
            report.count(count);
            report.tell(line.number, &told, usual)?;
        }
    }
    if let Target::Store(open) = into {
        buried::forget_buried(open, &ended).await?;
    }
    Ok(match end {
        Some(end) if end == entries => None,
        Some(end) => Some(Ended::NotWhole(format!(
            "it had {end} entries, not {entries}"
        ))),
        None => Some(Ended::NotWhole(
            "it breaks off before its last line".to_owned(),
        )),
    })
}

/// Reads a batch of lines, and proves that the tokens in them are whole. Returns what they bring in their
/// order.
fn read(batch: Vec<InputLine>, ring: Option<&Ring>) -> Result<(Vec<Read>, Brought), Ended> {
    let mut lines = Vec::with_capacity(batch.len());
    let mut brought = Brought::default();
    for line in batch {
        let what = match line.text.map(|text| sealed::read(&text)) {
            Ok(Ok(Line::Entry(principal, entry))) => match useless(ring, &principal, &entry) {
                Some(why) => What::Bad(why),
                None => {
                    brought.entries.push((principal.clone(), *entry));
                    What::Entry(principal)
                }
            },
            Ok(Ok(Line::Tombstone(tombstone))) => {
                brought.tombstones.push(tombstone);
                What::Tombstone(tombstone)
            }
            Ok(Ok(Line::End(entries))) => What::End(entries),
            Ok(Err(why)) => What::Bad(why),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                What::Bad(error.to_string())
            }
            Err(error) => return Err(Ended::Unreadable(error)),
        };
        lines.push(Read {
            number: line.number,
            bytes: line.bytes,
            what,
        });
    }
    Ok((lines, brought))
}

/// Why the pair of an entry is of no use, if it is not: stored, it would cost a login.
fn useless(ring: Option<&Ring>, principal: &Principal, entry: &Entry) -> Option<String> {
    let record = entry.record.as_ref()?;
    let opened = match ring {
        Some(ring) => Pair::of_record(ring, principal, record).map(drop),
        None => Err(Unopened::UnknownKey),
    };
    let why = opened.err()?;
    Some(unopened(principal, record, why))
}

/// Puts the entries into the store, or only compares them with what stands there.
async fn restore(
    into: &Target<'_>,
    entries: Vec<(Principal, Entry)>,
) -> Result<Vec<Restored>, store::Error> {
    let view = match into {
        Target::Store(open) => {
            let restored = open.store.restore(entries.clone()).await?;
            count_as_used(open, entries.iter().map(|(principal, _)| principal)).await?;
            return Ok(restored);
        }
        Target::DryRun(view) => view,
    };
    let mut restored = Vec::with_capacity(entries.len());
    for (principal, entry) in entries {
        let stands = match view {
            Some(view) => view.store.load(&principal).await?,
            None => Entry::default(),
        };
        restored.push(match entry.outranks(&stands) {
            true => Restored::Written,
            false => Restored::Kept,
        });
    }
    Ok(restored)
}
