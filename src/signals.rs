//! The signals of the process. They are caught by the first instruction of `main`: until then one of
//! them would end it at once, whatever it is doing. Knows which signal came, not what follows from it.

use std::borrow::Cow;
use std::io;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;

use signal_hook::consts::signal::*;
use signal_hook::iterator;
use signal_hook::{flag, low_level};
use tokio::sync::mpsc;

/// What asks a server to end; caught before all others.
const ENDING: [i32; 2] = [SIGTERM, SIGINT];

/// What stays as it is: signals that nothing can catch; those by which the process or the system says
/// that it is broken, QUIT and ABRT, by which an operator ends what nothing else ends; and those that
/// do nothing anyway. PIPE is among these: the Rust runtime ignores it, and writes fail instead.
const LEFT_ALONE: [i32; 15] = [
    SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGQUIT, SIGABRT, SIGCHLD,
    SIGCONT, SIGURG, SIGWINCH, SIGPIPE,
];

/// The last ordinary signal; real-time signals follow, of which the C library keeps some.
const LAST_ORDINARY: i32 = 31;
/// The last real-time signal.
const LAST: i32 = 64;

/// Signals that are caught and kept until they are followed or released.
#[derive(Debug)]
pub struct Signals {
    caught: iterator::Signals,
}

/// While set, signals do what they do to any process. Static, because signals belong to the process.
static BY_DEFAULT: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caught(i32);

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// To end once callers go elsewhere.
    ToEnd,
    /// To end as soon as the answers under way have ended.
    ToEndNow,
    /// To read the configuration again.
    ToReload,
    /// Nothing.
    Nothing,
}

impl Signals {
    /// Catches every signal that can be caught and would end the process or halt it, but those by
    /// which it dies.
    ///
    /// # Errors
    ///
    /// The system takes no handler, or has no descriptor left.
    pub fn catch() -> io::Result<Signals> {
        let caught = iterator::Signals::new(ENDING)?;
        let others = (1..=LAST).filter(|signal| !LEFT_ALONE.contains(signal));
        for signal in others {
            // It does not know real-time signals; nothing has to be done for them.
            let _ = flag::register_conditional_default(signal, BY_DEFAULT.clone());
            match caught.add_signal(signal) {
                Err(error) if signal <= LAST_ORDINARY => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(Signals { caught })
    }

    /// Lets signals do to this process what they do to any other, for commands that have nothing to
    /// bring to an end. What came until now is made up for.
    pub fn release(mut self) {
        BY_DEFAULT.store(true, Ordering::SeqCst);
        for signal in self.caught.pending() {
            // Fails only for those that do nothing.
            let _ = low_level::emulate_default_handler(signal);
        }
    }

    /// Follows the signals that came, and those that will. Until [`Followed::in_order`] one that asks
    /// for the end ends the process at once, with exit code 0: there is nothing to bring to an end.
    ///
    /// # Errors
    ///
    /// There can be no thread that waits for them.
    pub fn follow(mut self) -> io::Result<Followed> {
        let (tell, told) = mpsc::unbounded_channel();
        let end = Arc::new(Mutex::new(End::AtOnce));
        let known = end.clone();
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for signal in self.caught.forever() {
                    let caught = Caught(signal);
                    // Held until it has been told: what came before the change is not lost by it.
                    let end = known.lock().expect("no code panics under this lock");
                    match (&*end, caught.asks()) {
                        (End::AtOnce, Asks::ToEnd | Asks::ToEndNow) => process::exit(0),
                        // Refused only if the process is about to end.
                        (End::AtOnce | End::InOrder, _) => drop(tell.send(caught)),
                        // Fails only for those that do nothing.
                        (End::AsByDefault, _) => drop(low_level::emulate_default_handler(signal)),
                    }
                }
            })?;
        Ok(Followed { told, end })
    }
}

/// Signals that a thread waits for.
#[derive(Debug)]
pub struct Followed {
    told: mpsc::UnboundedReceiver<Caught>,
    end: Arc<Mutex<End>>,
}

/// What becomes of a signal that asks for the end.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The process ends as it is.
    AtOnce,
    /// It is told to those that bring things to an end.
    InOrder,
    /// The process dies of it.
    AsByDefault,
}

impl Followed {
    /// From now on there is something to bring to an end. The signals that came, and those that will.
    pub fn in_order(self) -> mpsc::UnboundedReceiver<Caught> {
        self.set(End::InOrder);
        self.told
    }

    /// Lets signals do to this process what they do to any other: it has failed, and only has to say
    /// so.
    pub fn release(self) {
        self.set(End::AsByDefault);
    }

    fn set(&self, end: End) {
        *self.end.lock().expect("no code panics under this lock") = end;
    }
}

/// Returns when SIGINT, SIGTERM or SIGHUP comes, for commands that were [released](Signals::release)
/// and have something to bring to an end after all. A second one ends the process.
pub async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    /// Signals do what they do again when this is dropped.
    struct Heeding;
    impl Drop for Heeding {
        fn drop(&mut self) {
            BY_DEFAULT.store(true, Ordering::SeqCst);
        }
    }
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ];
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds.map(signal) else {
        // The signals end the process by themselves then.
        return std::future::pending().await;
    };
    let _heeding = Heeding;
    BY_DEFAULT.store(false, Ordering::SeqCst);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

impl Caught {
    /// What it asks for.
    pub fn asks(self) -> Asks {
        match self.0 {
            SIGTERM => Asks::ToEnd,
            SIGINT => Asks::ToEndNow,
            SIGHUP => Asks::ToReload,
            _ => Asks::Nothing,
        }
    }

    /// As the system's manual calls it.
    pub fn name(self) -> Cow<'static, str> {
        match low_level::signal_name(self.0) {
            Some(name) => name.into(),
            None => format!("signal {}", self.0).into(),
        }
    }
}

#[cfg(test)]
impl Caught {
    /// SIGTERM and SIGINT, for tests.
    pub(crate) const TERM: Caught = Caught(SIGTERM);
    pub(crate) const INT: Caught = Caught(SIGINT);
    pub(crate) const HUP: Caught = Caught(SIGHUP);
    pub(crate) const USR1: Caught = Caught(SIGUSR1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_signal_has_a_name_and_asks_for_one_thing() {
        for (caught, asks, name) in [
            (Caught::TERM, Asks::ToEnd, "SIGTERM"),
            (Caught::INT, Asks::ToEndNow, "SIGINT"),
            (Caught::HUP, Asks::ToReload, "SIGHUP"),
            (Caught::USR1, Asks::Nothing, "SIGUSR1"),
            (Caught(40), Asks::Nothing, "signal 40"),
        ] {
            assert_eq!((caught.asks(), &*caught.name()), (asks, name));
        }
    }
}
