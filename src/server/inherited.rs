//! Sockets that the process which started this one listens on and passes on (sd_listen_fds(3)): what comes
//! while this process starts waits in them. Each is matched to a configured listener by its address.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process;

use listenfd::ListenFd;
use socket2::SockRef;

use super::listen::{Socket, resolved};
use super::{Error, Listener};

/// Inherited sockets that no listener has taken yet.
#[derive(Debug, Default)]
pub struct Inherited(Vec<Given>);

/// One of them.
#[derive(Debug)]
struct Given {
    socket: Socket,
    /// Its file descriptor.
    number: usize,
}

/// Why inherited sockets cannot be served. Each is to be mended in the supervisor's configuration or in the
/// proxy's.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// `LISTEN_FDS` is no number.
    #[error("LISTEN_FDS is {0:?}, not a number: let the supervisor set it")]
    Count(String),
    /// Something else than a stream socket that listens.
    #[error(
        "file descriptor {number}, which LISTEN_FDS passes on, is no socket that listens for streams: pass \
         on only those of ListenStream=, with Accept=no"
    )]
    Kind {
        /// The file descriptor.
        number: usize,
    },
    /// No listener of the configuration has this address.
    #[error(
        "the inherited socket {place} (file descriptor {number}) is no listener of the configuration: name \
         this very address in `listen`, [status] or [admin], or do not pass it on"
    )]
    Unmatched {
        /// Its address or path.
        place: String,
        /// The file descriptor.
        number: usize,
    },
    /// The file of a unix socket lets others connect than its listener says.
    #[error(
        "the inherited socket {place} (file descriptor {number}) has the mode {mode:04o}, and the `mode` of \
         its listener is {allowed:04o}: users could connect that the configuration keeps out; set \
         SocketMode={allowed:04o} in the socket unit, or that `mode`"
    )]
    Mode {
        /// Its path.
        place: String,
        /// The file descriptor.
        number: usize,
        /// Of its file.
        mode: u32,
        /// Of the configuration.
        allowed: u32,
    },
}

/// The first descriptor that is passed on; those before it are the standard streams.
const FIRST: usize = 3;

impl Socket {
    /// The inherited socket of this listener, or else one that is made now.
    ///
    /// # Errors
    ///
    /// The place cannot be listened on, or more users can connect to an inherited socket than may.
    pub fn open(listener: &Listener, inherited: &mut Inherited) -> Result<Socket, Error> {
        match inherited.take(listener)? {
            Some(socket) => Ok(socket),
            None => Socket::bind(listener),
        }
    }
}

impl Inherited {
    /// Takes what was passed to this very process, and no child of it gets it as well. To be called once, before
    /// there are other threads.
    ///
    /// # Errors
    ///
    /// Something was passed that callers cannot connect to.
    pub fn from_environment() -> Result<Inherited, Refused> {
        let is_for_us = env::var("LISTEN_PID").is_ok_and(|pid| pid == process::id().to_string());
        let Some(count) = env::var_os("LISTEN_FDS").filter(|_| is_for_us) else {
            return Ok(Inherited::default());
        };
        let count = count.to_string_lossy();
        if count.parse::<u16>().is_err() {
            return Err(Refused::Count(count.into_owned()));
        }
        let mut passed = ListenFd::from_env();
        let given = (0..passed.len()).map(|index| {
            let number = FIRST + index;
            match socket(&mut passed, index) {
                Ok(Some(socket)) => Ok(Given { socket, number }),
                Ok(None) | Err(_) => Err(Refused::Kind { number }),
            }
        });
        given.collect::<Result<_, _>>().map(Inherited)
    }

    /// The socket of this listener, if it was passed on. Its mode stays the supervisor's.
    fn take(&mut self, listener: &Listener) -> Result<Option<Socket>, Refused> {
        let is_its = |given: &Given| match (&given.socket, listener) {
            (socket, Listener::Tcp(wanted)) => socket.address().is_some_and(|address| {
                (address.ip().to_canonical(), address.port())
                    == (wanted.ip().to_canonical(), wanted.port())
            }),
            (socket, Listener::Unix { path, .. }) => {
                let own = socket.path();
                own.is_some_and(|own| own == *path || resolved(&own) == resolved(path))
            }
        };
        let Some(index) = self.0.iter().position(is_its) else {
            return Ok(None);
        };
        let Given { socket, number } = self.0.swap_remove(index);
        if let Listener::Unix { path, mode, .. } = listener {
            check_mode(path, number, *mode)?;
        }
        Ok(Some(socket))
    }

    /// Refuses sockets that no listener has taken: callers would connect to them and never be answered.
    ///
    /// # Errors
    ///
    /// There is one.
    pub fn none_left(&self) -> Result<(), Refused> {
        match self.0.iter().min_by_key(|given| given.number) {
            None => Ok(()),
            Some(Given { socket, number }) => Err(Refused::Unmatched {
                place: socket.to_string(),
                number: *number,
            }),
        }
    }
}

/// Refuses the inherited socket `path` if its mode lets anybody do what `allowed` does not.
fn check_mode(path: &Path, number: usize, allowed: u32) -> Result<(), Refused> {
    let mode = match fs::metadata(path) {
        Ok(file) => file.permissions().mode() & 0o777,
        Err(error) => {
            tracing::warn!(socket = %path.display(), %error, "the mode of an inherited socket cannot be seen");
            return Ok(());
        }
    };
    match mode & !allowed {
        0 => Ok(()),
        _ => Err(Refused::Mode {
            place: path.display().to_string(),
            number,
            mode,
            allowed,
        }),
    }
}

/// The socket that was passed on at this place, if it listens.
fn socket(passed: &mut ListenFd, index: usize) -> io::Result<Option<Socket>> {
    if let Ok(Some(listener)) = passed.take_tcp_listener(index) {
        return match SockRef::from(&listener).is_listener()? {
            true => Socket::inherited_tcp(listener).map(Some),
            false => Ok(None),
        };
    }
    match passed.take_unix_listener(index)? {
        Some(listener) if SockRef::from(&listener).is_listener()? => {
            Socket::inherited_unix(listener).map(Some)
        }
        Some(_) | None => Ok(None),
    }
}
