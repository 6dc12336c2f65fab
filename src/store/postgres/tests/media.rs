//! Where stores of tests live: a database of its own on a server, reached in several ways.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use servers::{At, Database, Forwarder, Part, Pgbouncer, Replication, Server, Standby};
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};

use super::*;
use crate::store::RunId;
use crate::store::contract::{Fault, pseudonyms};
use crate::store::postgres;

/// A database, and the way to it.
pub(super) struct Place<W> {
    pub(super) database: Database,
    way: W,
}

/// A way to a server.
pub(super) trait Way: Sized {
    /// A database, and this way to it.
    async fn new() -> (Database, Self);

    /// What is connected to, in this order.
    fn addresses(&self) -> Vec<SocketAddr>;

    /// As [`Medium::suffer`].
    async fn suffer(&self, _fault: Fault) -> bool {
        false
    }
}

/// By a network that loses answers and stands still when a test wants it to.
pub(super) type Direct = Place<Forwarder>;
/// By a pooler in transaction mode.
pub(super) type Pooled = Place<&'static Pgbouncer>;
/// On a standby that took over; the server before it is still configured.
pub(super) type AfterFailOver = Place<&'static Promoted>;
/// On a server of its own, which may be killed.
pub(super) type Alone = Place<Server>;

impl Way for Forwarder {
    async fn new() -> (Database, Forwarder) {
        let database = Database::new();
        let network = Forwarder::to(database.server().address());
        (database, network)
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        vec![self.address()]
    }

    async fn suffer(&self, fault: Fault) -> bool {
        match fault {
            Fault::Cut => {
                // Each table, and each kind of write that shares its table.
                let written = [
                    "leases",
                    "entries",
                    "budgets",
                    "guards",
                    "feed",
                    "UPDATE meta SET canary",
                    "AS anew",
                    "DELETE FROM rejections",
                    "UPDATE due SET claimed_until",
                    "INSERT INTO uses",
                ];
                let losses = written.map(|text| {
                    let loss = self.lose(Part::Answer, At::CommitOf(text.to_owned()));
                    timeout(Duration::from_secs(20), loss.happened())
                });
                for happened in join_all(losses).await {
                    happened.expect("each is written");
                }
            }
            Fault::Pause => {
                self.pause();
                sleep(link::CALL_DEADLINE).await;
                self.resume();
            }
            Fault::Restart => return false,
        }
        true
    }
}

impl Way for &'static Pgbouncer {
    async fn new() -> (Database, &'static Pgbouncer) {
        let database = Database::new();
        static POOLER: OnceCell<Pgbouncer> = OnceCell::const_new();
        let pooler = POOLER
            .get_or_init(async || Pgbouncer::before(database.server(), 4))
            .await;
        (database, pooler)
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        vec![self.address()]
    }
}

/// A standby that took over, and the server before it.
pub(super) struct Promoted {
    before: SocketAddr,
    now: Standby,
}

impl Way for &'static Promoted {
    async fn new() -> (Database, &'static Promoted) {
        static PROMOTED: OnceCell<Promoted> = OnceCell::const_new();
        let promoted = PROMOTED
            .get_or_init(async || {
                let server = Server::start().await;
                let standby = server.standby(Replication::Synchronous).await;
                server.kill().await;
                standby.promote().await;
                Promoted {
                    before: server.address(),
                    now: standby,
                }
            })
            .await;
        (Database::on(promoted.now.server()), promoted)
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        vec![self.before, self.now.server().address()]
    }
}

impl Way for Server {
    async fn new() -> (Database, Server) {
        let server = Server::start().await;
        (Database::on(&server), server)
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        vec![self.address()]
    }

    async fn suffer(&self, fault: Fault) -> bool {
        match fault {
            Fault::Cut => return false,
            Fault::Pause => {
                self.pause();
                sleep(link::CALL_DEADLINE).await;
                self.resume();
            }
            Fault::Restart => {
                self.kill().await;
                self.restart().await;
            }
        }
        true
    }
}

impl<W: Way> Place<W> {
    /// The URL of the database, by this way.
    pub(super) fn url(&self) -> String {
        self.database.url_at(&self.way.addresses())
    }

    /// One more process on the store.
    pub(super) async fn open(&self) -> Postgres {
        open(&self.url(), run(), Clock::real()).await
    }
}

impl<W: Way> Medium for Place<W> {
    type Store = Postgres;

    const TTL: Duration = Duration::from_millis(500);
    const TELLS_COMMITS: bool = false;
    const CLOCK_ERROR: Duration = Duration::from_millis(250);

    async fn new() -> Place<W> {
        let (database, way) = W::new().await;
        Place { database, way }
    }

    async fn open(&self, run: RunId) -> Postgres {
        open(&self.url(), run, Clock::real()).await
    }

    async fn open_scaled(&self, run: RunId, scale: u32) -> Postgres {
        open(&self.url(), run, Clock::scaled(scale)).await
    }

    /// The server's clock is not set: what it stamped gets older instead.
    async fn pass(&self, time: Duration) {
        let millis = i64::try_from(time.as_millis()).unwrap();
        let budgets = self
            .database
            .sql("SELECT login_group, history FROM budgets")
            .await;
        for budget in budgets {
            let mut history = serde_json::from_str(&budget[1]).unwrap();
            age(&mut history, millis);
            let update = format!(
                "UPDATE budgets SET version = version + 1, history = '{history}'
                 WHERE login_group = '{}'",
                budget[0]
            );
            self.database.sql(&update).await;
        }
    }

    async fn suffer(&self, fault: Fault) -> bool {
        self.way.suffer(fault).await
    }
}

/// Takes `millis` from each stamp.
fn age(history: &mut Value, millis: i64) {
    match history {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_i64() {
                    Some(at) if name == "since_boot" || name == "wall" => {
                        *value = (at - millis).into()
                    }
                    _ => age(value, millis),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| age(value, millis)),
        _ => {}
    }
}

/// A handle on the database at `url`, whose tables are made if there are none.
pub(super) async fn open(url: &str, run: RunId, clock: Clock) -> Postgres {
    postgres::open(
        settings(url),
        true,
        pseudonyms(),
        Process::patient(run),
        clock,
    )
    .await
    .unwrap()
}

/// What a configuration with this URL says.
pub(super) fn settings(url: &str) -> Settings {
    let url = Url::parse(url).unwrap();
    Settings {
        address: url.address,
        password: url.password.map_or(Password::Absent, Password::Given),
        ca_file: None,
        connections: 4,
    }
}
