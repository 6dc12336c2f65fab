//! An export of whole entries, whose tokens stay under the store's seal.

use super::super::sealed::{Header, write_end, write_entry, write_header};
use super::Lines;
use crate::cli::opening::StoreView;
use crate::principal::Principal;
use crate::store::{self, Entry, Listed};

/// Every entry, tombstones too.
pub(super) struct Sealed {
    header: Header,
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
        match entry.record {
            Some(_) => self.pairs += 1,
            None => self.others += 1,
        }
        write_entry(principal, entry, text);
        None
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
