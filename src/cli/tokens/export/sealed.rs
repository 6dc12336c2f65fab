//! An export of whole entries, whose tokens stay under the store's seal.

use super::super::sealed::{Header, write_end, write_entry, write_header, write_tombstone};
use super::Lines;
use crate::cli::opening::StoreView;
use crate::principal::Principal;
use crate::store::{self, Entry, Listed, Pseudonyms, Tombstone};

/// Every entry, and every tombstone.
pub(super) struct Sealed {
    header: Header,
    /// What the forgotten are called.
    pseudonyms: Pseudonyms,
    pairs: u64,
    /// Notes and tombstones without a pair.
    others: u64,
}

impl Sealed {
    /// An export of this store, of about this many entries.
    pub(super) async fn of(view: &StoreView, entries: u64) -> Result<Sealed, store::Error> {
        let canary = view.store.canary().await?;
        let keys = view.store.keys().await?;
        Ok(Sealed {
            header: Header::new(canary.as_deref(), &keys, entries),
            pseudonyms: view.ring.pseudonyms(),
            pairs: 0,
            others: 0,
        })
    }
}

impl Lines for Sealed {
    fn listed(&self) -> Listed {
        Listed::All
    }

    fn begin(&mut self, text: &mut Vec<u8>) {
        write_header(&self.header, text);
    }

    fn append(
        &mut self,
        principal: &Principal,
        entry: &Entry,
        text: &mut Vec<u8>,
    ) -> Option<String> {
        if entry.is_bare() {
            // An earlier version kept the name.
            if *entry != Entry::default() {
                let (pseudonym, version) = (self.pseudonyms.current(principal), entry.version());
                self.bury(&Tombstone { pseudonym, version }, text);
            }
            return None;
        }
        match entry.record {
            Some(_) => self.pairs += 1,
            None => self.others += 1,
        }
        write_entry(principal, entry, text);
        None
    }

    fn has_tombstones(&self) -> bool {
        true
    }

    fn bury(&mut self, tombstone: &Tombstone, text: &mut Vec<u8>) {
        self.others += 1;
        write_tombstone(tombstone, text);
    }

    fn end(&mut self, text: &mut Vec<u8>) {
        write_end(self.pairs + self.others, text);
    }

    fn summary(&self) -> String {
        let Sealed { pairs, others, .. } = self;
        format!("exported {pairs} principals with tokens and {others} without, sealed")
    }

    fn failed(&self) -> u64 {
        0
    }
}
