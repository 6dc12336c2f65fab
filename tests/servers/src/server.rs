//! A PostgreSQL server of a test's own, and what may befall it.

mod process;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use self::process::Process;
use crate::authority::Authority;
use crate::{account, background, folder, processes};

/// Of every server. Small, since several run at once; as durable as PostgreSQL is by default.
const SETTINGS: &str = "
fsync = on
synchronous_commit = on
wal_level = replica
max_connections = 200
shared_buffers = 16MB
max_wal_size = 256MB
wal_keep_size = 64MB
wal_receiver_timeout = 5s
wal_retrieve_retry_interval = 100ms
password_encryption = 'scram-sha-256'
jit = off
log_line_prefix = '%m [%p] %u@%d '
";

/// Everybody on this machine may do everything.
const TRUST: &str = "
local all,replication all trust
host all,replication all 127.0.0.0/8 trust
";

/// By TCP, with a password alone. The socket stays the test's own way in.
const PASSWORDS: &str = "
local all,replication all trust
host replication all 127.0.0.0/8 trust
host all all 127.0.0.0/8 scram-sha-256
";

/// The same, with TLS alone.
const TLS: &str = "
local all,replication all trust
host replication all 127.0.0.0/8 trust
hostssl all all 127.0.0.0/8 scram-sha-256
";

/// The longest that a server takes to start, with recovery, on a machine that is busy.
const START: Duration = Duration::from_secs(60);

/// What `initdb` leaves, to be copied.
static TEMPLATE: LazyLock<PathBuf> = LazyLock::new(|| {
    let template = folder::folder().join("template");
    account::make_folder(&template);
    let mut initdb = account::postgres("initdb", &template);
    initdb
        .args(["--username=postgres", "--auth=trust", "--encoding=UTF8"])
        .args(["--locale=C", "--no-sync", "--wal-segsize=4", "--pgdata"])
        .arg(template.join("data"));
    account::succeed(initdb);
    append(&template.join("data/postgresql.conf"), SETTINGS);
    template.join("data")
});

/// A server. Clones are the same one; it ends with the last of them.
#[derive(Clone)]
pub struct Server(Arc<Process>);

/// How a server is to be started.
pub struct Builder {
    settings: String,
    access: &'static str,
    tls: bool,
    folder: PathBuf,
    address: SocketAddr,
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// As an operator does: sessions end, everything is written.
    Fast,
    /// As a crash does, but in order.
    Immediate,
}

impl Server {
    /// Starts one.
    pub async fn start() -> Server {
        Server::builder().start().await
    }

    /// One that is to be started with settings of its own.
    pub fn builder() -> Builder {
        Builder {
            settings: String::new(),
            access: TRUST,
            tls: false,
            folder: folder::new("postgres"),
            address: free_address(),
        }
    }

    /// The one that all tests of this binary share.
    pub(crate) fn shared() -> &'static Server {
        static SHARED: LazyLock<Server> =
            LazyLock::new(|| background::wait(Server::builder().start_here()));
        &SHARED
    }

    /// Where it listens. Stays the same when it restarts.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The folder of its unix socket.
    pub fn socket(&self) -> &Path {
        &self.0.folder
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.0.log()
    }

    /// Starts it again, and waits until it answers.
    pub async fn restart(&self) {
        let server = self.clone();
        background::run(async move {
            server.0.begin();
            server.answers().await;
        })
        .await;
    }

    /// Stops it, and waits until it has ended.
    pub async fn stop(&self, how: Stop) {
        let signal = match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        };
        let process = Arc::clone(&self.0);
        background::unblocked(move || {
            process.end(|postmaster| {
                let pid = Pid::from_child(postmaster);
                kill_process(pid, signal).expect("the postmaster runs");
            })
        })
        .await;
    }

    /// SIGKILL to all its processes at once.
    pub async fn kill(&self) {
        let process = Arc::clone(&self.0);
        background::unblocked(move || process.kill()).await;
    }

    /// SIGSTOP to all its processes: connections stay open, nothing is answered.
    pub fn pause(&self) {
        processes::signal(&self.0.folder, Signal::STOP);
    }

    /// SIGCONT to all its processes.
    pub fn resume(&self) {
        processes::signal(&self.0.folder, Signal::CONT);
    }

    /// Refuses writes, in sessions that are open, too, or takes them again.
    pub async fn set_read_only(&self, read_only: bool) {
        self.set("default_transaction_read_only", &read_only.to_string())
            .await;
    }

    /// Changes a setting while it runs.
    pub async fn set(&self, name: &str, value: &str) {
        self.sql("postgres", &format!("ALTER SYSTEM SET {name} = '{value}'"))
            .await;
        self.sql("postgres", "SELECT pg_reload_conf()").await;
    }

    /// Ends all sessions on a database.
    pub async fn terminate_sessions(&self, database: &str) {
        let ended = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = '{database}' AND pid <> pg_backend_pid()"
        );
        self.sql("postgres", &ended).await;
    }

    /// What SQL returns, as the superuser: rows of text, `""` for a null.
    pub async fn sql(&self, database: &str, sql: &str) -> Vec<Vec<String>> {
        let rows = self.try_sql(database, sql).await;
        rows.unwrap_or_else(|error| panic!("{sql}: {error:?}\n{}", self.last_lines()))
    }

    /// The same, or why not.
    pub async fn try_sql(
        &self,
        database: &str,
        sql: &str,
    ) -> Result<Vec<Vec<String>>, tokio_postgres::Error> {
        let (server, database, sql) = (self.clone(), database.to_owned(), sql.to_owned());
        background::run(async move { server.query(&database, &sql).await }).await
    }

    /// On the runtime of this crate.
    pub(crate) async fn query(
        &self,
        database: &str,
        sql: &str,
    ) -> Result<Vec<Vec<String>>, tokio_postgres::Error> {
        let mut config = Config::new();
        config
            .host_path(self.socket())
            .port(self.address().port())
            .user("postgres")
            .dbname(database)
            .connect_timeout(Duration::from_secs(5));
        let (client, connection) = config.connect(NoTls).await?;
        let connection = tokio::spawn(connection);
        let messages = client.simple_query(sql).await?;
        drop(client);
        let _ = connection.await;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let texts = |row: tokio_postgres::SimpleQueryRow| {
            let columns = 0..row.len();
            columns
                .map(|column| row.get(column).unwrap_or_default().to_owned())
                .collect()
        };
        Ok(rows.map(texts).collect())
    }

    /// Waits until it answers, on the runtime of this crate.
    async fn answers(&self) {
        let polling = async {
            while self.query("postgres", "SELECT 1").await.is_err() {
                self.0.still_runs();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let answered = tokio::time::timeout(START, polling).await;
        answered.unwrap_or_else(|_| panic!("it does not answer:\n{}", self.last_lines()));
    }

    pub(crate) fn last_lines(&self) -> String {
        self.0.last_lines()
    }

    /// Shows the end of the log if the test fails.
    pub(crate) fn show_log_of_failure(&self) {
        if std::thread::panicking() {
            eprintln!("the server's last lines:\n{}", self.last_lines());
        }
    }
}

impl Builder {
    /// Changes a setting of `postgresql.conf`.
    pub fn set(mut self, name: &str, value: &str) -> Builder {
        self.settings += &format!("{name} = '{value}'\n");
        self
    }

    /// Asks for passwords, in plain text on loopback.
    pub fn passwords(mut self) -> Builder {
        self.access = PASSWORDS;
        self
    }

    /// Asks for TLS, with a certificate for `localhost` and its address, and for passwords.
    pub fn tls(mut self, authority: &Authority) -> Builder {
        // The name leads there alone.
        self.address = free_port(Ipv4Addr::LOCALHOST);
        authority.issue("localhost", self.address.ip(), &self.folder);
        self.access = TLS;
        self.tls = true;
        self
    }

    /// Starts it, and waits until it answers.
    pub async fn start(self) -> Server {
        background::run(self.start_here()).await
    }

    async fn start_here(self) -> Server {
        let (folder, data) = (self.folder.clone(), self.data());
        background::unblocked(move || {
            let mut copy = account::command(Path::new("/bin/cp"), &folder);
            copy.arg("--archive").arg(&*TEMPLATE).arg(&data);
            account::succeed(copy);
        })
        .await;
        self.start_on_data().await
    }

    /// Starts it on what lies in its folder already.
    pub(crate) async fn start_on_data(mut self) -> Server {
        let data = self.data();
        if self.tls {
            let file = |name| self.folder.join(name).display().to_string();
            let (certificate, key) = (file("server.crt"), file("server.key"));
            self = self
                .set("ssl", "on")
                .set("ssl_cert_file", &certificate)
                .set("ssl_key_file", &key);
        }
        let places = format!(
            "listen_addresses = '{}'\nport = {}\nunix_socket_directories = '{}'\n",
            self.address.ip(),
            self.address.port(),
            self.folder.display(),
        );
        append(&data.join("postgresql.conf"), &(places + &self.settings));
        fs::write(data.join("pg_hba.conf"), self.access).expect("the folder is the test's own");
        let server = Server(Arc::new(Process::new(self.folder, self.address)));
        server.0.begin();
        server.answers().await;
        server
    }

    /// Where its database will lie.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// An address of one server alone, so that nobody is given the port that it gives up and takes again.
pub(crate) fn free_address() -> SocketAddr {
    let [.., process] = std::process::id().to_be_bytes();
    let [.., high, low] = folder::number().to_be_bytes();
    free_port(Ipv4Addr::new(127, process | 1, high, low))
}

fn free_port(address: Ipv4Addr) -> SocketAddr {
    let listener = TcpListener::bind((address, 0)).expect("loopback has free ports");
    listener.local_addr().expect("it is bound")
}

fn append(file: &Path, text: &str) {
    let mut file = OpenOptions::new()
        .append(true)
        .open(file)
        .expect("initdb made it");
    file.write_all(text.as_bytes()).expect("there is space");
}
