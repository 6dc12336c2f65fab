//! A standby that follows a server, and takes over.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use crate::forwarder::Forwarder;
use crate::server::Server;
use crate::{account, background};

/// What a commit on the primary waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    /// Until the standby has it, on its disk.
    Synchronous,
    /// For nothing.
    Asynchronous,
}

/// A standby, and the way on which it is told.
pub struct Standby {
    server: Server,
    feed: Forwarder,
}

/// What the primary calls it.
const NAME: &str = "standby";

impl Server {
    /// Starts a standby of this server, and waits until it follows.
    pub async fn standby(&self, replication: Replication) -> Standby {
        let feed = Forwarder::to(self.address());
        let (primary, on_the_way) = (self.clone(), feed.address());
        let server = background::run(async move { primary.copy_that_follows(on_the_way).await });
        let standby = Standby {
            server: server.await,
            feed,
        };
        self.waits_for("streaming", "state").await;
        if replication == Replication::Synchronous {
            self.set("synchronous_standby_names", NAME).await;
            self.waits_for("sync", "sync_state").await;
        }
        standby
    }

    async fn copy_that_follows(&self, feed: SocketAddr) -> Server {
        let conninfo = format!(
            "host={} port={} user=postgres application_name={NAME}",
            feed.ip(),
            feed.port()
        );
        let builder = Server::builder().set("primary_conninfo", &conninfo);
        let (primary, folder, data) = (self.clone(), builder.folder().to_owned(), builder.data());
        background::unblocked(move || {
            let mut backup = account::postgres("pg_basebackup", &folder);
            backup
                .args([
                    "--username=postgres",
                    "--checkpoint=fast",
                    "--wal-method=stream",
                    "--no-sync",
                ])
                .arg(format!("--host={}", primary.socket().display()))
                .arg(format!("--port={}", primary.address().port()))
                .arg(format!("--pgdata={}", data.display()));
            account::succeed(backup);
            fs::write(data.join("standby.signal"), "").expect("it was just made");
        })
        .await;
        builder.start_on_data().await
    }

    async fn waits_for(&self, state: &str, column: &str) {
        let sql =
            format!("SELECT {column} FROM pg_stat_replication WHERE application_name = '{NAME}'");
        for _ in 0..1500 {
            if self.sql("postgres", &sql).await == [[state]] {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the standby does not follow:\n{}", self.last_lines());
    }
}

impl Standby {
    /// Where it will take writes once it is promoted.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Keeps from it what is committed from now on: it lacks that when it is promoted.
    pub fn hold_back(&self) {
        self.feed.cut();
    }

    /// Ends its being one: it takes writes from now on.
    pub async fn promote(&self) {
        let promoted = self
            .server
            .sql("postgres", "SELECT pg_promote(true, 60)")
            .await;
        assert_eq!(promoted, [["t"]], "{}", self.server.last_lines());
    }
}
