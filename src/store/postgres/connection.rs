//! One connection to one server: how it is made, and when it has ended. Never asks a server to cancel
//! anything: a COMMIT that is cancelled while it waits for its standby answers success.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::Severity;
use tokio_postgres::tls::TlsStream;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};

use super::address::Server;
use super::errors::Failure;
use super::socket::Socket;
use super::tls::Trust;
use crate::secret::Secret;

/// An open connection. Dropping it closes it, whatever is under way.
pub(super) struct Connection {
    client: Arc<Client>,
    /// How many warnings the server has sent: one that comes with the answer to a COMMIT makes it none.
    warnings: Arc<AtomicU64>,
    /// Reads and writes the socket.
    driver: AbortHandle,
}

/// As whom to connect.
pub(super) struct Login<'a> {
    pub(super) user: &'a str,
    pub(super) password: Option<&'a Secret>,
    pub(super) database: &'a str,
}

/// How to talk to a server.
pub(super) enum Transport<'a> {
    /// In plain text; the server must be on this machine.
    Plain,
    /// Over TLS.
    Encrypted(&'a Trust),
}

/// What a server's log and `pg_stat_activity` show of the connection.
const APPLICATION: &str = "damoov-proxy";

impl Connection {
    /// Connects and logs in. Notifies `ended` when the connection ends by itself. Must run on the
    /// runtime that is to drive the connection.
    pub(super) async fn open(
        server: &Server,
        login: Login<'_>,
        transport: Transport<'_>,
        ended: Arc<Notify>,
    ) -> Result<Connection, Failure> {
        let only_loopback = matches!(transport, Transport::Plain);
        let stream = Socket::dial(server, only_loopback).await.map_err(lost)?;
        let mut config = Config::new();
        config
            .user(login.user)
            .dbname(login.database)
            .application_name(APPLICATION);
        if let Some(password) = login.password {
            config.password(password.expose());
        }
        match (transport, server) {
            (Transport::Encrypted(trust), Server::Tcp(host, _)) => {
                let handshake = trust.handshake(host).map_err(lost)?;
                config.ssl_mode(SslMode::Require);
                let (client, connection) = config.connect_raw(stream, handshake).await?;
                Ok(Connection::drive(client, connection, ended))
            }
            (Transport::Encrypted(_), Server::Unix(..)) | (Transport::Plain, _) => {
                config.ssl_mode(SslMode::Disable);
                let (client, connection) = config.connect_raw(stream, NoTls).await?;
                Ok(Connection::drive(client, connection, ended))
            }
        }
    }

    fn drive<T>(
        client: Client,
        mut connection: tokio_postgres::Connection<Socket, T>,
        ended: Arc<Notify>,
    ) -> Connection
    where
        T: TlsStream + Unpin + Send + 'static,
    {
        let warnings = Arc::new(AtomicU64::new(0));
        let counted = warnings.clone();
        let driver = tokio::spawn(async move {
            loop {
                match poll_fn(|context| connection.poll_message(context)).await {
                    Some(Ok(AsyncMessage::Notice(notice))) => {
                        if notice.parsed_severity() == Some(Severity::Warning) {
                            tracing::debug!(code = notice.code().code(), "{}", notice.message());
                            counted.fetch_add(1, Ordering::AcqRel);
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => break,
                }
            }
            ended.notify_one();
        });
        Connection {
            client: Arc::new(client),
            warnings,
            driver: driver.abort_handle(),
        }
    }

    /// What statements are sent with. Only its typed calls: the others prepare named statements,
    /// which poolers that share a connection do not carry.
    pub(super) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// How many warnings have come before the last answer.
    pub(super) fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::Acquire)
    }

    /// Whether it has ended by itself.
    pub(super) fn has_ended(&self) -> bool {
        self.client.is_closed()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn lost(error: io::Error) -> Failure {
    Failure::lost(&error)
}
