//! A database of one test, and roles on it.

use std::net::SocketAddr;

use crate::background;
use crate::folder;
use crate::server::Server;

/// An empty database. Dropped with its sessions when this is.
pub struct Database {
    server: Server,
    name: String,
}

/// A role with a password that owns one schema, of its own name, and nothing else.
pub struct Role {
    /// Its name.
    pub name: String,
    /// Its password.
    pub password: String,
}

impl Default for Database {
    fn default() -> Database {
        Database::new()
    }
}

impl Database {
    /// One on the server that all tests of this binary share. Blocks for a moment.
    pub fn new() -> Database {
        Database::on(Server::shared())
    }

    /// One on this server. Blocks for a moment.
    pub fn on(server: &Server) -> Database {
        Database::made(server, "")
    }

    /// One in a tablespace of this server, in an empty folder of the test's. Blocks for a moment.
    pub fn in_folder(server: &Server, folder: &std::path::Path) -> Database {
        crate::account::give(folder);
        let tablespace = format!("space{}", folder::number());
        let made = format!(
            "CREATE TABLESPACE {tablespace} LOCATION '{}'",
            folder.display()
        );
        run(server, made);
        Database::made(server, &format!("TABLESPACE {tablespace}"))
    }

    fn made(server: &Server, how: &str) -> Database {
        let name = format!("test{}", folder::number());
        run(
            server,
            format!("CREATE DATABASE {name} TEMPLATE template0 {how}"),
        );
        Database {
            server: server.clone(),
            name,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server that it is on.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Its URL, by TCP, as the superuser.
    pub fn url(&self) -> String {
        self.url_at(&[self.server.address()])
    }

    /// The same by way of what stands in front of the server, or beside it.
    pub fn url_at(&self, addresses: &[SocketAddr]) -> String {
        url("postgres", addresses, &self.name)
    }

    /// The same by the unix socket.
    pub fn socket_url(&self) -> String {
        let folder = self
            .server
            .socket()
            .display()
            .to_string()
            .replace('/', "%2F");
        let port = self.server.address().port();
        format!("postgres://postgres@{folder}:{port}/{}", self.name)
    }

    /// What SQL returns here, as the superuser: rows of text, `""` for a null.
    pub async fn sql(&self, sql: &str) -> Vec<Vec<String>> {
        self.server.sql(&self.name, sql).await
    }

    /// The same for one value.
    pub async fn value(&self, sql: &str) -> String {
        let mut rows = self.sql(sql).await;
        assert_eq!((rows.len(), rows[0].len()), (1, 1), "{sql}: {rows:?}");
        rows.remove(0).remove(0)
    }

    /// Ends all sessions here.
    pub async fn terminate_sessions(&self) {
        self.server.terminate_sessions(&self.name).await;
    }

    /// A new role that owns only its schema.
    pub async fn role(&self, password: &str) -> Role {
        let name = format!("{}_role", self.name);
        self.sql(&format!(
            "CREATE ROLE {name} LOGIN PASSWORD '{password}';
             CREATE SCHEMA {name} AUTHORIZATION {name};
             REVOKE ALL ON SCHEMA public FROM PUBLIC;
             REVOKE ALL ON DATABASE {database} FROM PUBLIC;
             GRANT CONNECT ON DATABASE {database} TO {name}",
            database = self.name,
        ))
        .await;
        Role {
            name,
            password: password.to_owned(),
        }
    }

    /// Gives a role another password.
    pub async fn change_password(&self, role: &mut Role, password: &str) {
        self.sql(&format!("ALTER ROLE {} PASSWORD '{password}'", role.name))
            .await;
        role.password = password.to_owned();
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.server.show_log_of_failure();
        let (server, name) = (self.server.clone(), self.name.clone());
        background::spawn(async move {
            // The server may be gone already.
            let dropped = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            let _ = server.query("postgres", &dropped).await;
            background::unblocked(move || drop(server)).await;
        });
    }
}

/// The URL of a database on one of these servers; whoever of them takes writes.
pub fn url(user: &str, addresses: &[SocketAddr], database: &str) -> String {
    let addresses: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
    format!("postgres://{user}@{}/{database}", addresses.join(","))
}

fn run(server: &Server, sql: String) {
    let server = server.clone();
    let done = background::wait(async move {
        let done = server.query("postgres", &sql).await;
        done.map_err(|error| format!("{sql}: {error:?}\n{}", server.last_lines()))
    });
    if let Err(error) = done {
        panic!("{error}");
    }
}
