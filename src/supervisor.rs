//! What the supervisor of this process is told: systemd, or whatever speaks its protocol (sd_notify(3)). A
//! process without a supervisor tells nobody. Knows datagrams, not what goes on in the proxy.

use std::env;
use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Instant, sleep};

/// A supervisor that does not read what it is told is waited for this long, and no longer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is tried meanwhile.
const AGAIN: Duration = Duration::from_millis(20);

/// Tells the supervisor how this process is. Everything sent at once is one datagram, and nothing that it
/// does or fails to do is an error of the proxy.
#[derive(Clone, Debug, Default)]
pub struct Supervisor(Option<Arc<Link>>);

/// The way to a supervisor.
#[derive(Debug)]
struct Link {
    /// Connected to anew for each datagram: a supervisor that was restarted listens on another socket there.
    address: io::Result<SocketAddr>,
    /// How long the supervisor waits for a sign of life.
    watchdog: Option<Duration>,
    /// The status line told last.
    status: Mutex<String>,
    /// Once the end is told, this process is not ready any more, whatever else has just ended.
    is_stopping: AtomicBool,
    /// One warning is enough: there is nothing to be done while the process runs.
    has_warned: AtomicBool,
}

impl Supervisor {
    /// The one that `NOTIFY_SOCKET` names, with the patience that `WATCHDOG_USEC` says.
    pub fn from_environment() -> Supervisor {
        match env::var_os("NOTIFY_SOCKET") {
            Some(socket) => Supervisor::at(&socket, sd_notify::watchdog_enabled()),
            None => Supervisor::none(),
        }
    }

    /// No supervisor.
    pub fn none() -> Supervisor {
        Supervisor(None)
    }

    /// One that listens on `socket`: the path of a unix socket, or a name after an `@`.
    pub(crate) fn at(socket: &OsStr, watchdog: Option<Duration>) -> Supervisor {
        Supervisor(Some(Arc::new(Link {
            address: address(socket),
            watchdog: watchdog.filter(|patience| !patience.is_zero()),
            status: Mutex::default(),
            is_stopping: AtomicBool::new(false),
            has_warned: AtomicBool::new(false),
        })))
    }

    /// Whether there is somebody to tell.
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// How long the supervisor waits for a sign of life; `None` if it does not wait for one.
    pub fn watchdog(&self) -> Option<Duration> {
        self.0.as_ref()?.watchdog
    }

    /// This process serves. `status` is one line for people.
    pub async fn ready(&self, status: &str) {
        let Some(link) = &self.0 else { return };
        link.note(status);
        link.while_serving(&[NotifyState::Ready, NotifyState::Status(&one_line(status))])
            .await;
    }

    /// Tells a status line, if it is another one than before.
    pub async fn status(&self, status: &str) {
        if let Some(link) = &self.0
            && link.note(status)
        {
            link.tell(&[NotifyState::Status(&one_line(status))]).await;
        }
    }

    /// Every worker lives.
    pub async fn alive(&self) {
        if let Some(link) = &self.0 {
            link.tell(&[NotifyState::Watchdog]).await;
        }
    }

    /// Tells that the configuration is being read again, runs `reload`, and tells when it is over, whatever
    /// came of it. Returns what it returns.
    pub async fn reloading<T>(&self, reload: impl Future<Output = T>) -> T {
        let Some(link) = &self.0 else {
            return reload.await;
        };
        let mut reloading = vec![NotifyState::Reloading];
        // A supervisor takes the message for that of an earlier reload without the time, and this clock
        // is always there.
        reloading.extend(NotifyState::monotonic_usec_now());
        reloading.push(NotifyState::Status("reading the configuration again"));
        link.while_serving(&reloading).await;
        let reloaded = reload.await;
        let status = one_line(&link.status.lock().expect("no code panics under this lock"));
        link.while_serving(&[NotifyState::Ready, NotifyState::Status(&status)])
            .await;
        reloaded
    }

    /// This process is about to end, and is to be given `more` time for it from now on. To be told again
    /// before that is over.
    pub async fn stopping(&self, status: &str, more: Duration) {
        let Some(link) = &self.0 else { return };
        link.note(status);
        let more = u32::try_from(more.as_micros()).unwrap_or(u32::MAX);
        let (status, extend) = (one_line(status), NotifyState::ExtendTimeoutUsec(more));
        let is_first = !link.is_stopping.swap(true, Ordering::SeqCst);
        let stopping = is_first.then_some(NotifyState::Stopping);
        let states = stopping
            .into_iter()
            .chain([NotifyState::Status(&status), extend]);
        link.tell(&states.collect::<Vec<_>>()).await;
    }
}

impl Link {
    /// Whether `status` is another one than before.
    fn note(&self, status: &str) -> bool {
        let mut last = self.status.lock().expect("no code panics under this lock");
        let is_new = *last != status;
        status.clone_into(&mut last);
        is_new
    }

    /// Tells this unless the process is about to end: a reload may end after that.
    async fn while_serving(&self, states: &[NotifyState<'_>]) {
        if !self.is_stopping.load(Ordering::SeqCst) {
            self.tell(states).await;
        }
    }

    async fn tell(&self, states: &[NotifyState<'_>]) {
        let datagram: String = states.iter().map(|state| format!("{state}\n")).collect();
        let until = Instant::now() + PATIENCE;
        loop {
            match self.send(datagram.as_bytes()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() >= until {
                        return self.warn(&error);
                    }
                    sleep(AGAIN).await;
                }
                Err(error) => return self.warn(&error),
                Ok(()) => return,
            }
        }
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        let address = match &self.address {
            Ok(address) => address,
            Err(error) => return Err(error.kind().into()),
        };
        let socket = UnixDatagram::unbound()?;
        // `sd_notify::notify` would wait for a supervisor that does not read.
        socket.set_nonblocking(true)?;
        socket.send_to_addr(datagram, address)?;
        Ok(())
    }

    fn warn(&self, error: &io::Error) {
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %error,
                "the supervisor that NOTIFY_SOCKET names cannot be told how this process is: it may take \
                 it for one that never starts; requests are served all the same"
            );
        }
    }
}

/// What `NOTIFY_SOCKET` means.
fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(socket),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// A line break would begin another message.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests;
