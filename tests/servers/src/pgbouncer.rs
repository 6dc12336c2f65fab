//! pgbouncer in front of a server, in transaction mode.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::Duration;

use crate::server::{Server, free_address};
use crate::{account, folder, processes};

const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// A pooler. Killed when dropped.
pub struct Pgbouncer {
    folder: PathBuf,
    address: SocketAddr,
    child: Child,
}

impl Pgbouncer {
    /// In front of this server, with at most `connections` to each of its databases. Blocks for a moment.
    pub fn before(server: &Server, connections: usize) -> Pgbouncer {
        let (folder, address) = (folder::new("pgbouncer"), free_address());
        let config = format!(
            "[databases]
             * = host={} port={}
             [pgbouncer]
             listen_addr = {}
             listen_port = {}
             unix_socket_dir =
             auth_type = trust
             auth_file = users
             pool_mode = transaction
             default_pool_size = {connections}
             max_client_conn = 1000
             server_connect_timeout = 3
             server_login_retry = 1
             ",
            server.address().ip(),
            server.address().port(),
            address.ip(),
            address.port(),
        );
        let config: Vec<_> = config.lines().map(str::trim).collect();
        write(&folder.join("pgbouncer.ini"), &config.join("\n"));
        write(&folder.join("users"), "\"postgres\" \"\"\n");
        let log = File::create(folder.join("log")).expect("the folder is new");
        let mut command = account::command(Path::new(PROGRAM), &folder);
        command
            .arg("pgbouncer.ini")
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log);
        let mut pgbouncer = Pgbouncer {
            child: command.spawn().expect("pgbouncer is installed"),
            folder,
            address,
        };
        pgbouncer.listens();
        pgbouncer
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn listens(&mut self) {
        for _ in 0..1500 {
            if TcpStream::connect(self.address).is_ok() {
                return;
            }
            if let Some(status) = self.child.try_wait().expect("a child") {
                panic!("pgbouncer ended with {status}:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("pgbouncer does not listen:\n{}", self.log());
    }
}

impl Drop for Pgbouncer {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("pgbouncer's log:\n{}", self.log());
        }
        processes::kill(&self.folder);
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn write(file: &Path, text: &str) {
    fs::write(file, text).expect("the folder is new");
    account::give(file);
}
