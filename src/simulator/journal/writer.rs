//! Keeps the journal: gives each arrival and each end its number, and holds the newest entries.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use http::StatusCode;

use super::{Called, End, Entry, Fate, Journal, Tick, Verdict};
use crate::clock::Clock;
use crate::principal::{DeviceToken, Principal};
use crate::simulator::tokens::{Birth, Serial};

/// How many of the newest entries are kept: up to about 200 MB.
const KEPT: usize = 1_000_000;

/// Keeps the journal.
#[derive(Debug)]
pub(in crate::simulator) struct Writer {
    clock: Clock,
    /// Whether anything is kept at all; looked at first, by every call.
    kept: AtomicBool,
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    ticks: u64,
    entries: VecDeque<Entry>,
    forgotten: u64,
    /// The token that each user's last data call through a door came with.
    last_used: HashMap<(Option<Arc<str>>, Principal), Serial>,
}

/// A call that is under way. Dropped before [`Line::end`], it ends as one whose caller hung up.
pub(in crate::simulator) struct Line<'a> {
    writer: &'a Writer,
    /// Counts all entries, the forgotten ones too; `None`: no journal is kept, or the call is over.
    entry: Option<u64>,
}

/// A data call that was answered.
pub(in crate::simulator) struct DataCall<'a> {
    pub(in crate::simulator) door: Option<&'a Arc<str>>,
    pub(in crate::simulator) owner: Option<&'a Principal>,
    pub(in crate::simulator) named: Option<DeviceToken>,
    pub(in crate::simulator) presented: Option<Serial>,
    pub(in crate::simulator) verdict: Verdict,
    pub(in crate::simulator) status: Option<StatusCode>,
}

impl Writer {
    pub(in crate::simulator) fn new(clock: Clock) -> Writer {
        Writer {
            clock,
            kept: AtomicBool::new(false),
            pages: Mutex::default(),
        }
    }

    /// Keeps a journal from now on.
    pub(in crate::simulator) fn begin(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// Whether one is kept.
    pub(in crate::simulator) fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    /// The journal as it stands; of one principal, if it is named, with what concerns everybody.
    pub(in crate::simulator) fn read(&self, whose: Option<&Principal>) -> Journal {
        let pages = self.pages();
        let concerned = |entry: &&Entry| {
            whose.is_none() || entry.principal.is_none() || entry.principal.as_ref() == whose
        };
        Journal {
            entries: pages.entries.iter().filter(concerned).cloned().collect(),
            forgotten: pages.forgotten,
        }
    }

    /// The point at which the journal stands.
    pub(in crate::simulator) fn tick(&self) -> Tick {
        self.pages().tick(&self.clock)
    }

    /// A call of an Auth endpoint or a registration has arrived.
    pub(in crate::simulator) fn arrival(
        &self,
        called: Called,
        door: Option<&Arc<str>>,
    ) -> Line<'_> {
        let entry = self.is_kept().then(|| {
            let mut pages = self.pages();
            let arrived = pages.tick(&self.clock);
            pages.append(Entry {
                door: door.cloned(),
                ..Entry::new(called, arrived)
            })
        });
        Line {
            writer: self,
            entry,
        }
    }

    /// A data call was answered.
    pub(in crate::simulator) fn data<'a>(&self, call: impl FnOnce() -> DataCall<'a>) {
        if !self.is_kept() {
            return;
        }
        let call = call();
        let mut pages = self.pages();
        if !pages.is_news(&call) {
            return;
        }
        let at = pages.tick(&self.clock);
        let fate = Fate::Delivered;
        pages.append(Entry {
            door: call.door.cloned(),
            principal: call.owner.cloned(),
            named: call.named,
            presented: call.presented,
            verdict: Some(call.verdict),
            status: call.status.map(|status| status.as_u16()),
            end: Some(End { at, fate }),
            ..Entry::new(Called::Data, at)
        });
    }

    /// The simulator was told to do something about `whose` tokens, or those of all.
    pub(in crate::simulator) fn command(
        &self,
        called: Called,
        whose: Option<&Principal>,
        issued: Option<Birth>,
    ) {
        if !self.is_kept() {
            return;
        }
        let mut pages = self.pages();
        let at = pages.tick(&self.clock);
        let fate = Fate::Delivered;
        pages.append(Entry {
            principal: whose.cloned(),
            issued,
            verdict: Some(Verdict::Granted),
            end: Some(End { at, fate }),
            ..Entry::new(called, at)
        });
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().expect("no holder panics")
    }
}

impl Pages {
    fn tick(&mut self, clock: &Clock) -> Tick {
        self.ticks += 1;
        Tick {
            number: self.ticks,
            at: clock.wall(),
        }
    }

    /// Returns which entry it is, counted from the first that ever was.
    fn append(&mut self, entry: Entry) -> u64 {
        if self.entries.len() == KEPT {
            self.entries.pop_front();
            self.forgotten += 1;
        }
        self.entries.push_back(entry);
        self.forgotten + self.entries.len() as u64 - 1
    }

    fn entry(&mut self, entry: u64) -> Option<&mut Entry> {
        let place = usize::try_from(entry.checked_sub(self.forgotten)?).ok()?;
        self.entries.get_mut(place)
    }

    /// Whether a data call says what the one before it did not; remembers its token.
    fn is_news(&mut self, call: &DataCall<'_>) -> bool {
        let owner = call.owner.cloned();
        let stray = call.named.is_some() && owner != call.named.map(Principal::User);
        let (Some(owner), Some(serial)) = (owner, call.presented) else {
            return stray || call.verdict != Verdict::Granted;
        };
        let used = (call.door.cloned(), owner);
        let before = self.last_used.insert(used, serial);
        stray || call.verdict != Verdict::Granted || before != Some(serial)
    }
}

impl Line<'_> {
    /// What the call says.
    pub(in crate::simulator) fn says(
        &self,
        principal: Option<&Principal>,
        presented: Option<Serial>,
    ) {
        self.write(|entry| {
            entry.principal = principal.cloned();
            entry.presented = presented;
        });
    }

    /// What was decided, the pair that was issued, and the status of the answer, if there is to be one.
    pub(in crate::simulator) fn decided(
        &self,
        verdict: Verdict,
        issued: Option<Birth>,
        status: Option<StatusCode>,
    ) {
        self.write(|entry| {
            entry.verdict = Some(verdict);
            entry.issued = issued;
            entry.status = status.map(|status| status.as_u16());
        });
    }

    /// The call is over.
    pub(in crate::simulator) fn end(mut self, fate: Fate) {
        self.over(fate);
    }

    fn over(&mut self, fate: Fate) {
        let Some(number) = self.entry.take() else {
            return;
        };
        let mut pages = self.writer.pages();
        let at = pages.tick(&self.writer.clock);
        if let Some(entry) = pages.entry(number) {
            entry.end = Some(End { at, fate });
        }
    }

    fn write(&self, change: impl FnOnce(&mut Entry)) {
        let Some(number) = self.entry else { return };
        if let Some(entry) = self.writer.pages().entry(number) {
            change(entry);
        }
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.over(Fate::HungUp);
    }
}
