//! The lines of a sealed export: what `tokens export --sealed` writes and `tokens import` reads. Whole
//! entries, as a store keeps them; their tokens stay under its seal, so that these lines are worth
//! nothing without its key.
//!
//! ```text
//! {"sealed_export":2,"canary":"…","keys":{"1a2b3c4d":2},"entries":2}
//! {"principal":"user:…","generation":3,"epoch":0,"record":{…,"sealed":"…","key":"1a2b3c4d"},"notes":{}}
//! …
//! {"forgotten":"forgotten:0123456789abcdef0123456789abcdef","generation":3,"epoch":1}
//! …
//! {"end":3}
//! ```
//!
//! Exports of version 1 hold tombstones as entries that have nothing but their version.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::principal::{InstanceId, Principal};
use crate::store::{
    Entry, Generation, KeyId, Notes, Pseudonym, Record, Rejected, RunId, Tombstone, Version,
};

/// What this program writes, and the newest that it reads.
pub(super) const VERSION: u32 = 2;

/// The first line: what this is, and which keys it needs.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Header {
    #[serde(rename = "sealed_export")]
    pub(super) version: u32,
    /// In base64; `None` if the store had none: then it was empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    canary: Option<String>,
    /// Keys, and how many records need each.
    #[serde(default)]
    keys: BTreeMap<String, u64>,
    /// About how many entries follow.
    #[serde(default)]
    pub(super) entries: u64,
}

impl Header {
    /// The first line of an export of a store with this canary and these keys.
    pub(super) fn new(canary: Option<&[u8]>, keys: &[(KeyId, u64)], entries: u64) -> Header {
        Header {
            version: VERSION,
            canary: canary.map(|canary| BASE64_STANDARD.encode(canary)),
            keys: keys
                .iter()
                .map(|(key, records)| (key.to_string(), *records))
                .collect(),
            entries,
        }
    }

    /// Reads a line; `None` if it is not the first one of a sealed export.
    pub(super) fn read(line: &str) -> Option<Header> {
        serde_json::from_str(line.trim_start_matches('\u{feff}')).ok()
    }

    /// What proves which key the store is sealed with. An error if it is not readable.
    pub(super) fn canary(&self) -> Result<Option<Vec<u8>>, NotReadable> {
        let decoded = self
            .canary
            .as_deref()
            .map(|text| BASE64_STANDARD.decode(text));
        decoded.transpose().map_err(|_| NotReadable("its canary"))
    }

    /// The keys that its records need, and how many need each.
    pub(super) fn keys(&self) -> Result<Vec<(KeyId, u64)>, NotReadable> {
        let keys = self.keys.iter();
        keys.map(|(key, records)| Ok((key_id(key)?, *records)))
            .collect()
    }
}

/// A line after the first.
pub(super) enum Line {
    /// One entry.
    Entry(Principal, Box<Entry>),
    /// What is left of somebody who was forgotten.
    Tombstone(Tombstone),
    /// The last line: the export is whole. Says how many entries came before it.
    End(u64),
}

/// Which part of a line is not readable. Never quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} cannot be read")]
pub(super) struct NotReadable(&'static str);

/// The last line.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct End {
    end: u64,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenTombstone<'a> {
    #[serde(borrow)]
    forgotten: Cow<'a, str>,
    generation: u64,
    epoch: u64,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenEntry<'a> {
    #[serde(borrow)]
    principal: Cow<'a, str>,
    generation: u64,
    epoch: u64,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    record: Option<WrittenRecord<'a>>,
    notes: WrittenNotes,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenRecord<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    known: bool,
    #[serde(borrow)]
    sealed: Cow<'a, str>,
    #[serde(borrow)]
    key: Cow<'a, str>,
    received: Timestamp,
    expires: Timestamp,
    run: Uuid,
}

#[derive(Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
struct WrittenNotes {
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_dead: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer_lost: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<WrittenRejected>,
    #[serde(skip_serializing_if = "Option::is_none")]
    displaced: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contested_until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    suppressed_until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registered_in: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenRejected {
    until: Timestamp,
    with: [u8; 8],
}

/// Appends the first line to `text`.
pub(super) fn write_header(header: &Header, text: &mut Vec<u8>) {
    append(header, text);
}

/// Appends one entry to `text`.
pub(super) fn write_entry(principal: &Principal, entry: &Entry, text: &mut Vec<u8>) {
    let Entry {
        generation,
        epoch,
        record,
        notes,
    } = entry;
    let written = WrittenEntry {
        principal: principal.to_string().into(),
        generation: generation.0,
        epoch: *epoch,
        record: record.as_ref().map(written_record),
        notes: written_notes(notes),
    };
    append(&written, text);
}

/// Appends one tombstone to `text`.
pub(super) fn write_tombstone(tombstone: &Tombstone, text: &mut Vec<u8>) {
    let Tombstone { pseudonym, version } = tombstone;
    let written = WrittenTombstone {
        forgotten: pseudonym.to_string().into(),
        generation: version.generation.0,
        epoch: version.epoch,
    };
    append(&written, text);
}

/// Appends the last line to `text`.
pub(super) fn write_end(entries: u64, text: &mut Vec<u8>) {
    append(&End { end: entries }, text);
}

/// Reads a line after the first. The error says what is wrong with it, and never quotes it.
pub(super) fn read(line: &str) -> Result<Line, String> {
    let written: WrittenEntry<'_> = match serde_json::from_str(line) {
        Ok(written) => written,
        Err(error) => {
            if let Ok(End { end }) = serde_json::from_str(line) {
                return Ok(Line::End(end));
            }
            return match serde_json::from_str(line) {
                Ok(written) => Ok(Line::Tombstone(read_tombstone(&written)?)),
                Err(_) => Err(format!(
                    "not a line of a sealed export (column {})",
                    error.column()
                )),
            };
        }
    };
    let WrittenEntry {
        principal,
        generation,
        epoch,
        record,
        notes,
    } = written;
    let principal = Principal::parse(&principal).ok_or(NotReadable("its principal"));
    let record = record.map(read_record).transpose();
    let entry = || {
        let entry = Entry {
            generation: Generation(generation),
            epoch,
            record: record?,
            notes: read_notes(notes)?,
        };
        Ok(Line::Entry(principal?, Box::new(entry)))
    };
    entry().map_err(|error: NotReadable| error.to_string())
}

fn read_tombstone(written: &WrittenTombstone<'_>) -> Result<Tombstone, String> {
    let pseudonym = Pseudonym::parse(&written.forgotten);
    let version = Version {
        generation: Generation(written.generation),
        epoch: written.epoch,
    };
    match pseudonym.filter(|_| version.epoch > 0) {
        Some(pseudonym) => Ok(Tombstone { pseudonym, version }),
        None => Err(NotReadable("its pseudonym").to_string()),
    }
}

fn append(line: &impl Serialize, text: &mut Vec<u8>) {
    serde_json::to_writer(&mut *text, line).expect("strings and numbers always serialise");
    text.push(b'\n');
}

fn written_record(record: &Record) -> WrittenRecord<'static> {
    let Record {
        instance,
        known,
        sealed,
        key,
        received,
        expires,
        run,
    } = record;
    WrittenRecord {
        instance: instance.map(|instance| instance.to_string()),
        known: *known,
        sealed: BASE64_STANDARD.encode(sealed).into(),
        key: key.to_string().into(),
        received: *received,
        expires: *expires,
        run: run.0,
    }
}

fn read_record(written: WrittenRecord<'_>) -> Result<Record, NotReadable> {
    Ok(Record {
        instance: instance(written.instance)?,
        known: written.known,
        sealed: BASE64_STANDARD
            .decode(&*written.sealed)
            .map_err(|_| NotReadable("its sealed text"))?,
        key: key_id(&written.key)?,
        received: written.received,
        expires: written.expires,
        run: RunId(written.run),
    })
}

fn written_notes(notes: &Notes) -> WrittenNotes {
    let Notes {
        refresh_dead,
        answer_lost,
        rejected,
        displaced,
        contested_until,
        suppressed_until,
        registered_in,
    } = notes;
    WrittenNotes {
        refresh_dead: refresh_dead.map(|generation| generation.0),
        answer_lost: answer_lost.map(|generation| generation.0),
        rejected: rejected.map(|Rejected { until, with }| WrittenRejected { until, with }),
        displaced: *displaced,
        contested_until: *contested_until,
        suppressed_until: *suppressed_until,
        registered_in: registered_in.map(|instance| instance.to_string()),
    }
}

fn read_notes(written: WrittenNotes) -> Result<Notes, NotReadable> {
    let rejected = written.rejected;
    Ok(Notes {
        refresh_dead: written.refresh_dead.map(Generation),
        answer_lost: written.answer_lost.map(Generation),
        rejected: rejected.map(|WrittenRejected { until, with }| Rejected { until, with }),
        displaced: written.displaced,
        contested_until: written.contested_until,
        suppressed_until: written.suppressed_until,
        registered_in: instance(written.registered_in)?,
    })
}

fn instance(written: Option<String>) -> Result<Option<InstanceId>, NotReadable> {
    let parsed = written.map(|text| InstanceId::parse(&text));
    parsed.transpose().map_err(|_| NotReadable("its instance"))
}

/// The inverse of [`KeyId`]'s `Display`.
fn key_id(text: &str) -> Result<KeyId, NotReadable> {
    let is_hex = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parsed = u32::from_str_radix(text, 16).ok().filter(|_| is_hex);
    let id = parsed.ok_or(NotReadable("the name of its key"))?;
    Ok(KeyId(id.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::DeviceToken;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn full() -> (Principal, Entry) {
        let device = DeviceToken::parse("6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b11").unwrap();
        let instance = InstanceId::parse("11111111-1111-4111-8111-111111111111").unwrap();
        let entry = Entry {
            generation: Generation(7),
            epoch: 2,
            record: Some(Record {
                instance: Some(instance),
                known: true,
                sealed: (0..=255).collect(),
                key: KeyId([0, 0, 0xab, 1]),
                received: at(1_000),
                expires: at(2_000),
                run: RunId(Uuid::from_u128(9)),
            }),
            notes: Notes {
                refresh_dead: Some(Generation(7)),
                answer_lost: Some(Generation(6)),
                rejected: Some(Rejected {
                    until: at(-3),
                    with: [1, 2, 3, 4, 5, 6, 7, 255],
                }),
                displaced: Some(at(4)),
                contested_until: Some(at(5)),
                suppressed_until: Some(at(i64::MAX)),
                registered_in: Some(instance),
            },
        };
        (Principal::User(device), entry)
    }

    fn line_of(principal: &Principal, entry: &Entry) -> String {
        let mut text = Vec::new();
        write_entry(principal, entry, &mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn an_entry_reads_as_it_was_written_whatever_is_in_it() {
        let (user, full) = full();
        let tombstone = Entry {
            generation: Generation(u64::MAX),
            epoch: 3,
            ..Entry::default()
        };
        let without_notes = Entry {
            notes: Notes::default(),
            ..full.clone()
        };
        let account = Principal::Account("a \"name\"\n".into());
        for principal in [user, account] {
            for entry in [&full, &tombstone, &without_notes] {
                let line = line_of(&principal, entry);
                assert_eq!(line.matches('\n').count(), 1, "{line}");
                let Ok(Line::Entry(of, read)) = read(&line) else {
                    panic!("not an entry: {line}");
                };
                assert_eq!((&of, &*read), (&principal, entry));
            }
        }
    }

    #[test]
    fn the_first_and_the_last_line_read_as_they_were_written() {
        let keys = [(KeyId([0, 1, 2, 3]), 5), (KeyId([0xff; 4]), 1)];
        let mut text = Vec::new();
        write_header(&Header::new(Some(b"canary"), &keys, 6), &mut text);
        let header = Header::read(std::str::from_utf8(&text).unwrap()).unwrap();
        assert_eq!((header.version, header.entries), (VERSION, 6));
        assert_eq!(header.canary().unwrap().unwrap(), b"canary");
        assert_eq!(header.keys().unwrap(), keys);
        text.clear();
        write_end(6, &mut text);
        let end = read(std::str::from_utf8(&text).unwrap());
        assert!(matches!(end, Ok(Line::End(6))));
    }

    #[test]
    fn a_line_that_is_no_good_is_refused_without_quoting_it() {
        let (principal, entry) = full();
        let good = line_of(&principal, &entry);
        assert!(Header::read(&good).is_none());
        for (what, with) in [
            ("user:", "USER:"),
            ("0000ab01", "+000ab01"),
            ("0000ab01", "0ab01"),
            ("AAEC", "A*EC"),
            ("\"epoch\"", "\"SECRET\""),
            ("11111111-", "11111111+"),
        ] {
            assert!(good.contains(what), "{what}");
            let Err(error) = read(&good.replace(what, with)) else {
                panic!("{with} was read");
            };
            assert!(
                !error.contains("SECRET") && !error.contains("AAEC"),
                "{error}"
            );
        }
    }
}
