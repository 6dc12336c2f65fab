//! One session, from the 101 to its end: the caller's first message gets a token, a 401 in answer
//! to it is answered by a newer one, and then bytes go by in both directions; all but a token of the
//! proxy's own, which ends it.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf, split};
use tokio::time::timeout;

use super::Live;
use super::direction::{Activity, Direction, Text};
use super::end::{End, Goodbye};
use super::frames::Sender;
use super::message::{Authenticate, AuthenticateAnswer};
use super::watch::holds_own_token;
use crate::caller::{Authorized, Caller, authorize};
use crate::credentials::{Credentials, Need};
use crate::directory::Directory;
use crate::error::Error;
use crate::handed_out::HandOut;
use crate::naming::{self, Bearer};
use crate::principal::InstanceId;
use crate::server;
use crate::upstream::switch::{self, Switched};

/// A caller that nobody has named authenticates within this time.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// Upstream answers that within this time, or what it says is passed on unread.
const ANSWER: Duration = Duration::from_secs(10);
/// The session ends when nothing has moved for this long; the API pings every 30 s.
const SILENCE: Duration = Duration::from_secs(90);
/// Once one end says nothing more, the other one has this long to do likewise.
const HALF_CLOSED: Duration = Duration::from_secs(10);
/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// A connection to upstream that waits for the caller's to be given to it.
pub struct Session {
    pub(super) live: Arc<Live>,
    pub(super) upstream: Switched,
    pub(super) caller: Caller,
    /// Whose credentials it gets, if anybody was named before the switch.
    pub(super) authorized: Option<Authorized>,
    /// The instance that the caller named, if it did.
    pub(super) instance: Option<InstanceId>,
    /// Who was configured then.
    pub(super) directory: Arc<Directory>,
    /// What callers were given then.
    pub(super) hand_out: HandOut,
}

impl Session {
    /// Has the caller's connection until one of the two ends, or `draining` does. `read` is what
    /// the caller sent behind its handshake.
    pub async fn hold(
        self,
        caller: impl AsyncRead + AsyncWrite + Unpin,
        read: Bytes,
        draining: impl Future<Output = ()>,
    ) {
        let Session {
            live,
            upstream,
            caller: asks,
            authorized,
            instance,
            directory,
            hand_out,
        } = self;
        let Switched {
            stream,
            read: read_upstream,
            place: _place,
            ..
        } = upstream;
        let _open = Open::new(&live.metrics.live_connections);
        let activity = Activity::new();
        let (from_caller, to_caller) = split(caller);
        let (from_upstream, to_upstream) = split(stream);
        let mut relay = Relay {
            live,
            caller: asks,
            authorized,
            instance,
            directory,
            hand_out,
            up: Direction::new((from_caller, read), to_upstream, Sender::Caller, &activity),
            down: Direction::new(
                (from_upstream, read_upstream),
                to_caller,
                Sender::Upstream,
                &activity,
            ),
        };
        let ended = tokio::select! {
            biased;
            () = draining => Err(End::Draining),
            ended = relay.run() => ended,
            () = activity.idle_for(SILENCE) => Err(End::Silent),
        };
        if let Err(end) = ended {
            tracing::debug!(reason = ?end, "a live session ends before its ends do");
            relay.end(end).await;
        }
    }
}

impl server::Session for Box<Session> {
    async fn run(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        read: Bytes,
        draining: impl Future<Output = ()>,
    ) {
        self.hold(stream, read, draining).await;
    }
}

/// A session that has both of its connections.
struct Relay<C> {
    live: Arc<Live>,
    caller: Caller,
    authorized: Option<Authorized>,
    instance: Option<InstanceId>,
    directory: Arc<Directory>,
    hand_out: HandOut,
    /// From the caller to upstream.
    up: Direction<ReadHalf<C>, WriteHalf<switch::Stream>>,
    /// From upstream to the caller.
    down: Direction<ReadHalf<switch::Stream>, WriteHalf<C>>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Relay<C> {
    async fn run(&mut self) -> Result<(), End> {
        self.first_message().await?;
        let (up, down) = (pin!(self.up.relay()), pin!(self.down.relay()));
        // What is still under way when the time is up is lost with the connection.
        let _ = match select(up, down).await {
            Either::Left((ended, down)) => {
                ended?;
                timeout(HALF_CLOSED, down).await
            }
            Either::Right((ended, up)) => {
                ended?;
                timeout(HALF_CLOSED, up).await
            }
        };
        Ok(())
    }

    /// Returns once nothing more is to be read or changed.
    async fn first_message(&mut self) -> Result<(), End> {
        // A caller that is named may have authenticated with the handshake.
        let patience = match self.authorized {
            Some(_) => Duration::MAX,
            None => FIRST_MESSAGE,
        };
        let text = timeout(patience, self.up.next_text());
        let text = while_relaying(&mut self.down, text)
            .await?
            .map_err(|_| End::Late)??;
        match text {
            Text::Whole => {}
            Text::Binary => return Err(End::Binary),
            Text::TooLong => return Err(End::TooLong),
            Text::End => return Ok(()),
        }
        let text = self.up.text().to_vec();
        let Some(message) = Authenticate::read(&text) else {
            return keeps_own_tokens(&text);
        };
        self.up.discard();
        let authorized = self.authorized(message.access_token()).await?;
        self.authenticate(&message, &authorized).await
    }

    /// Whose credentials the caller gets: whom the handshake and the message name together.
    async fn authorized(&self, token: Option<String>) -> Result<Authorized, Error> {
        let bearer = match token {
            Some(token) => {
                self.live
                    .holder(self.hand_out, &self.caller, &token)
                    .await?
            }
            None => Bearer::Absent,
        };
        match (&self.authorized, bearer) {
            (_, Bearer::Void) => Err(naming::Error::BearerVoid.into()),
            (Some(named), Bearer::Ours(principal)) if *named.principal() != principal => {
                Err(naming::Error::Conflict.into())
            }
            (Some(named), _) => Ok(named.clone()),
            (None, Bearer::Ours(principal)) => {
                let (caller, directory) = (self.caller, &self.directory);
                Ok(authorize(caller, directory, principal, self.instance)?)
            }
            (None, Bearer::Foreign) => Err(naming::Error::BearerForeign.into()),
            (None, Bearer::Absent) => Err(naming::Error::DeviceTokenMissing.into()),
        }
    }

    /// Like any other request, the message is sent at most twice.
    async fn authenticate(
        &mut self,
        message: &Authenticate<'_>,
        authorized: &Authorized,
    ) -> Result<(), End> {
        let live = self.live.clone();
        let getting = live.provider.get(authorized, Need::Usable);
        let getting = unless_gone(&mut self.up, getting);
        let got = while_relaying(&mut self.down, getting).await??;
        let credentials = got.map_err(Error::from)?.credentials;
        match self.ask(message, &credentials).await? {
            Some(AuthenticateAnswer::Unauthorized) => {}
            Some(AuthenticateAnswer::Other) => {
                credentials.accept();
                return Ok(());
            }
            None => return Ok(()),
        }
        // Nothing is passed on meanwhile: the 401, should it be the answer, comes first.
        let renewing = live.provider.renew(authorized, &credentials);
        let renewed = unless_gone(&mut self.up, renewing).await?;
        let Some(renewed) = renewed.map_err(Error::from)? else {
            return Ok(());
        };
        self.down.discard();
        match self.ask(message, renewed.credentials()).await {
            Ok(Some(AuthenticateAnswer::Unauthorized)) => renewed.unauthorized(),
            Ok(Some(AuthenticateAnswer::Other)) => renewed.ok(),
            Ok(None) => drop(renewed),
            Err(end) => {
                renewed.failed();
                return Err(end);
            }
        }
        Ok(())
    }

    /// Sends the message with this token and waits for the answer, which is held then. `None` if
    /// it does not come in time, or not at all.
    async fn ask(
        &mut self,
        message: &Authenticate<'_>,
        credentials: &Credentials,
    ) -> Result<Option<AuthenticateAnswer>, End> {
        let named = |name: &str| Some(self.directory.instance_named(name)?.id);
        let message = message.with(credentials.token(), credentials.instance(), named);
        keeps_own_tokens(&message)?;
        self.up.push_text(message);
        self.up.flush().await?;
        let answered = async {
            loop {
                match self.down.next_text().await? {
                    Text::Whole => {
                        if let Some(answer) = AuthenticateAnswer::read(self.down.text()) {
                            return Ok(Some(answer));
                        }
                        self.down.release();
                    }
                    Text::TooLong => self.down.release_too_long(),
                    // Binary is reported of a caller alone.
                    Text::Binary | Text::End => return Ok(None),
                }
            }
        };
        timeout(ANSWER, answered).await.unwrap_or(Ok(None))
    }

    /// Tells both ends.
    async fn end(&mut self, end: End) {
        let Goodbye {
            error,
            to_caller,
            to_upstream,
        } = end.goodbye();
        // Neither end may be there to be told.
        let _ = timeout(GOODBYE, async {
            tokio::join!(
                self.down.end(error, to_caller),
                self.up.end(None, to_upstream)
            )
        })
        .await;
    }
}

/// The message has no token of the proxy's own in it.
fn keeps_own_tokens(message: &[u8]) -> Result<(), End> {
    match holds_own_token(message) {
        true => Err(End::Refused(naming::Error::BearerOurs.into())),
        false => Ok(()),
    }
}

/// Does `work` while what upstream says is passed on.
async fn while_relaying<T, R, W>(
    down: &mut Direction<R, W>,
    work: impl Future<Output = T>,
) -> Result<T, End>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    tokio::select! {
        done = work => Ok(done),
        ended = down.relay() => {
            ended?;
            Err(End::Upstream)
        }
    }
}

/// Does `work` unless the caller leaves: no login is spent on one that does not wait.
async fn unless_gone<T, R, W>(
    up: &mut Direction<R, W>,
    work: impl Future<Output = T>,
) -> Result<T, End>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    tokio::select! {
        done = work => Ok(done),
        () = up.gone() => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

/// Counts a session as open until it is dropped.
struct Open(Gauge);

impl Open {
    fn new(gauge: &Gauge) -> Open {
        gauge.inc();
        Open(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
