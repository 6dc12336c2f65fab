//! The writing thread with outputs that block, fill up and fail.

use super::*;

/// What was written, a call a piece.
#[derive(Clone, Default)]
pub(in crate::telemetry) struct Paper {
    pieces: Arc<Mutex<Vec<String>>>,
    /// Takes only this many bytes of each further piece, and then none.
    full: Arc<AtomicBool>,
}

impl Paper {
    pub(in crate::telemetry) fn pieces(&self) -> Vec<String> {
        self.pieces.lock().unwrap().clone()
    }
}

impl io::Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut pieces = self.pieces.lock().unwrap();
        let is_full = self.full.load(Ordering::SeqCst);
        let taken = match (is_full, bytes.len()) {
            (true, 0..10) => return Err(io::ErrorKind::StorageFull.into()),
            (true, length) => length - 9,
            (false, length) => length,
        };
        pieces.push(String::from_utf8(bytes[..taken].to_vec()).unwrap());
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes nothing until it is let go.
struct Stuck(mpsc::Receiver<()>);

impl io::Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(in crate::telemetry) fn log_on(to: impl io::Write + Send + 'static, format: Format) -> Log {
    Log::start_on(Output::test(to), format).unwrap()
}

fn eventually(condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(20), "never");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn where_nothing_is_taken_lines_are_lost_rather_than_memory() {
    let (free, stuck) = mpsc::channel();
    let log = log_on(Stuck(stuck), Format::Json);
    let lost = Lost::default();
    log.lines().count_into(lost.clone());
    let line = "x".repeat(1023) + "\n";
    for _ in 0..3 * BUFFER_LIMIT / line.len() {
        log.lines().leave(Target::Other, &line);
    }
    assert!(log.lines().0.other.waiting() < BUFFER_LIMIT + line.len());
    assert!(lost.other.get() >= (BUFFER_LIMIT / line.len()) as u64 - 1);
    assert_eq!((lost.access.get(), lost.audit.get()), (0, 0));
    eventually(|| log.lines().health().unwritable().is_some());
    drop(free);
    eventually(|| log.lines().health().unwritable().is_none());
    drop(log);
}

#[test]
fn the_end_waits_one_second_for_a_log_that_takes_nothing() {
    let (free, stuck) = mpsc::channel();
    let log = log_on(Stuck(stuck), Format::Json);
    log.lines().leave(Target::Other, "line\n");
    let began = Instant::now();
    drop(log);
    let waited = began.elapsed();
    assert!(
        waited >= AT_THE_END && waited < 3 * AT_THE_END,
        "{waited:?}"
    );
    drop(free);
}

#[test]
fn a_full_disk_is_counted_line_by_line_and_its_end_is_told() {
    let paper = Paper::default();
    let log = log_on(paper.clone(), Format::Text);
    // What was lost before anybody counted is counted, too.
    paper.full.store(true, Ordering::SeqCst);
    log.lines()
        .leave(Target::Audit, "a line that is cut short\n");
    eventually(|| log.lines().health().unwritable().is_some());
    let lost = Lost::default();
    log.lines().count_into(lost.clone());
    assert_eq!(lost.audit.get(), 1);
    for _ in 0..3 {
        log.lines().leave(Target::Other, "lost\n");
    }
    eventually(|| lost.other.get() == 3);
    let unwritable = log.lines().health().unwritable().unwrap();
    assert!(
        unwritable.why.contains("cannot be written: "),
        "{unwritable:?}"
    );
    paper.full.store(false, Ordering::SeqCst);
    eventually(|| log.lines().health().unwritable().is_none());
    log.lines().leave(Target::Other, "whole again\n");
    drop(log);
    let text = paper.pieces().concat();
    let lines: Vec<_> = text.lines().collect();
    let [cut, .., recovered, whole] = &lines[..] else {
        panic!("{text}")
    };
    assert!("a line that is cut short".starts_with(cut), "{text}");
    assert!(recovered.contains("can be written again"), "{text}");
    assert!(recovered.ends_with("lines_lost=4"), "{text}");
    assert_eq!(*whole, "whole again");
}

#[test]
fn all_that_was_said_is_written_before_the_end_and_many_lines_at_once() {
    let paper = Paper::default();
    let log = log_on(paper.clone(), Format::Json);
    let buffer = Buffer::of(Target::Access);
    for _ in 0..10_000 {
        log.lines()
            .write(&buffer, |_, text| text.push_str("line\n"));
    }
    drop(log);
    assert_eq!(paper.pieces().concat().lines().count(), 10_000);
    assert!(
        paper.pieces().len() < 1_000,
        "{} writes",
        paper.pieces().len()
    );
}

#[test]
fn access_lines_are_gathered_while_they_keep_coming() {
    let paper = Paper::default();
    let log = log_on(paper.clone(), Format::Json);
    let buffer = Buffer::of(Target::Access);
    let began = Instant::now();
    while began.elapsed() < 10 * GATHER {
        log.lines()
            .write(&buffer, |_, text| text.push_str("line\n"));
    }
    drop(log);
    let most = began.elapsed().as_millis() / GATHER.as_millis() + 2;
    let pieces = paper.pieces().len();
    assert!(pieces as u128 <= most, "{pieces} writes, {most} are enough");
}

#[test]
fn lines_after_the_end_are_counted() {
    let paper = Paper::default();
    let log = log_on(paper.clone(), Format::Json);
    let (lines, lost) = (log.lines().clone(), Lost::default());
    lines.count_into(lost.clone());
    drop(log);
    eventually(|| {
        lines.leave(Target::Other, "late\n");
        lost.other.get() > 0
    });
}
