//! Where a PostgreSQL store is: `postgres://USER@HOST[:PORT][,HOST[:PORT]…]/DATABASE`, written as libpq
//! reads it. Parameters that a store does not need are refused rather than ignored. Opens nothing.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::percent;
use crate::secret::Secret;

/// Where to connect to, as whom. Several servers are one store: at any time one of them takes writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// In the order in which they are tried; at least one.
    pub servers: Vec<Server>,
    /// The role.
    pub user: String,
    /// The database.
    pub database: String,
    /// Which servers are spoken to in plain text.
    pub plain: Plain,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// A name or an IP address, and a port.
    Tcp(String, u16),
    /// The folder of a unix socket, and the port in its name.
    Unix(PathBuf, u16),
}

/// Which servers are spoken to in plain text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// Those on this machine: nobody on the way could read or answer.
    OnThisMachine,
    /// Those behind a unix socket; `sslmode` asks for TLS on loopback as well.
    OnUnixSockets,
}

/// A URL as it is configured.
pub struct Url {
    /// What it says but for the password.
    pub address: Address,
    /// The password, if it is written there.
    pub password: Option<Secret>,
}

impl Url {
    /// Reads a URL. The error says what would be valid, and shows nothing of the text that might be a
    /// password.
    pub fn parse(text: &str) -> Result<Url, String> {
        let rest = after_scheme(text)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(Secret::new(decoded(password)?))),
            None => (login, None),
        };
        if user.is_empty() {
            return Err(format!("the user is missing: {EXPECTED}"));
        }
        let user = decoded(user)?;
        let mut parameters = Parameters::default();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            parameters.read(parameter)?;
        }
        let servers = servers(hosts, &parameters)?;
        let plain = parameters.mode.plain(&servers)?;
        let database = match database {
            "" => user.clone(),
            database => decoded(database)?,
        };
        let address = Address {
            servers,
            user,
            database,
            plain,
        };
        Ok(Url { address, password })
    }

    /// Whether `text` may hold a password: then nobody is shown it.
    pub fn may_hold_password(text: &str) -> bool {
        let authority = text.split_once("://").map_or(text, |(_, rest)| rest);
        let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        // Without its `@`, a login looks like a host with an odd port.
        let mut ports = hosts.split(':').skip(1).map(|after| {
            let end = after.find(|c| ",/?".contains(c)).unwrap_or(after.len());
            &after[..end]
        });
        login.contains(':')
            || text.contains("password")
            || !text.starts_with("postgres")
            || ports.any(|port| !port.bytes().all(|byte| byte.is_ascii_digit()))
    }
}

const EXPECTED: &str = "expected \"postgres://USER@HOST/DATABASE\"";

const REDIS: &str = "Redis cannot hold this store: what is kept are one-time secrets that cannot be \
                     issued again, and Redis acknowledges writes that a fail-over loses; expected \
                     \"postgres://USER@HOST/DATABASE\"";

fn after_scheme(text: &str) -> Result<&str, String> {
    let (scheme, rest) = text.split_once("://").ok_or(EXPECTED)?;
    match scheme.to_ascii_lowercase().as_str() {
        "postgres" | "postgresql" => Ok(rest),
        "redis" | "rediss" | "valkey" | "valkeys" => Err(REDIS.to_owned()),
        _ => Err(EXPECTED.to_owned()),
    }
}

/// What the query of a URL says.
#[derive(Default)]
struct Parameters {
    hosts: Option<String>,
    port: Option<u16>,
    mode: Mode,
}

/// libpq's `sslmode`, as far as it makes a difference here.
#[derive(Default)]
enum Mode {
    #[default]
    Default,
    /// No TLS, or none if the server has none.
    Lax(String),
    /// TLS. Certificate and name are verified whichever of its words is used.
    Strict,
}

impl Parameters {
    fn read(&mut self, parameter: &str) -> Result<(), String> {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = decoded(value)?;
        match (name, value.as_str()) {
            ("host", _) => self.hosts = Some(value),
            ("port", _) => self.port = Some(port(&value)?),
            ("sslmode", "require" | "verify-ca" | "verify-full") => self.mode = Mode::Strict,
            ("sslmode", "disable" | "allow" | "prefer") => self.mode = Mode::Lax(value),
            ("sslmode", _) => return Err("`sslmode`: expected \"verify-full\"".to_owned()),
            // What is done in any case, or says nothing about the store.
            ("target_session_attrs", "read-write" | "primary")
            | ("application_name" | "connect_timeout", _) => {}
            ("target_session_attrs", _) => {
                return Err(
                    "`target_session_attrs`: expected \"read-write\", for the store is written"
                        .to_owned(),
                );
            }
            ("password", _) => {
                return Err("`password` does not belong there: set [store] password".to_owned());
            }
            ("sslrootcert", _) => {
                return Err("`sslrootcert` does not belong there: set [store] ca_file".to_owned());
            }
            ("options", _) => {
                return Err(
                    "`options` are not supported, for poolers do not carry them: use ALTER ROLE … SET"
                        .to_owned(),
                );
            }
            _ => {
                return Err("only these parameters are supported: host, port, sslmode, \
                     target_session_attrs, application_name, connect_timeout"
                    .to_owned());
            }
        }
        Ok(())
    }
}

impl Mode {
    fn plain(&self, servers: &[Server]) -> Result<Plain, String> {
        match self {
            Mode::Strict => Ok(Plain::OnUnixSockets),
            Mode::Lax(mode) if !servers.iter().all(Server::is_on_this_machine) => Err(format!(
                "`sslmode={mode}` is for servers on this machine alone: elsewhere the certificate \
                 and its name are always verified"
            )),
            Mode::Default | Mode::Lax(_) => Ok(Plain::OnThisMachine),
        }
    }
}

/// The port of PostgreSQL.
const PORT: u16 = 5432;

/// The servers of an authority, or those of the parameter `host`, where libpq takes folders of unix
/// sockets from.
fn servers(authority: &str, parameters: &Parameters) -> Result<Vec<Server>, String> {
    let default = parameters.port.unwrap_or(PORT);
    match (authority, parameters.hosts.as_deref()) {
        ("", None) => Err(format!("the host is missing: {EXPECTED}")),
        ("", Some(hosts)) => hosts.split(',').map(|host| server(host, default)).collect(),
        (hosts, None) => hosts
            .split(',')
            .map(|host| {
                let (host, port) = host_and_port(host)?;
                server(&decoded(host)?, port.unwrap_or(default))
            })
            .collect(),
        (_, Some(_)) => Err("hosts stand before the database or in `host`, not in both".to_owned()),
    }
}

fn server(host: &str, port: u16) -> Result<Server, String> {
    let is_name = |host: &str| {
        !host.is_empty()
            && host
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    match host {
        folder if folder.starts_with('/') => Ok(Server::Unix(folder.into(), port)),
        host if is_name(host) || host.parse::<IpAddr>().is_ok() => {
            Ok(Server::Tcp(host.to_ascii_lowercase(), port))
        }
        _ => Err(format!("a host is no name and no address: {EXPECTED}")),
    }
}

fn host_and_port(text: &str) -> Result<(&str, Option<u16>), String> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(rest) => rest
            .split_once(']')
            .ok_or("an IPv6 address stands between `[` and `]`")?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    match rest.strip_prefix(':') {
        Some(text) => Ok((host, Some(port(text)?))),
        None if rest.is_empty() => Ok((host, None)),
        None => Err(format!("`:` and a port follow a host: {EXPECTED}")),
    }
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a port from 1 to 65535".to_owned()),
        Ok(port) => Ok(port),
    }
}

fn decoded(text: &str) -> Result<String, String> {
    String::from_utf8(percent::decoded(text).collect())
        .map_err(|_| "an escape such as `%C3` does not decode to UTF-8".to_owned())
}

impl Address {
    /// Whether `server` is spoken to in plain text.
    pub(super) fn is_plain(&self, server: &Server) -> bool {
        match (server, self.plain) {
            (Server::Unix(..), _) => true,
            (Server::Tcp(..), Plain::OnUnixSockets) => false,
            (Server::Tcp(..), Plain::OnThisMachine) => server.is_on_this_machine(),
        }
    }
}

/// As an operator reads it, without a password.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<_> = self.servers.iter().map(Server::to_string).collect();
        let (user, database) = (&self.user, &self.database);
        write!(f, "postgres://{user}@{}/{database}", servers.join(","))
    }
}

impl Server {
    fn is_on_this_machine(&self) -> bool {
        match self {
            Server::Unix(..) => true,
            Server::Tcp(host, _) if host == "localhost" => true,
            Server::Tcp(host, _) => host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Server::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Server::Tcp(host, port) => write!(f, "{host}:{port}"),
            Server::Unix(folder, port) => write!(f, "{}:{port}", folder.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Url {
        Url::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    fn refusal(text: &str) -> String {
        match Url::parse(text) {
            Ok(url) => panic!("{text} is {}", url.address),
            Err(why) => why,
        }
    }

    #[test]
    fn a_url_names_servers_a_role_and_a_database() {
        for (text, shown) in [
            (
                "postgres://proxy@db1/damoov",
                "postgres://proxy@db1:5432/damoov",
            ),
            (
                "postgresql://p@db1,DB2:5433,[::1]:7,10.0.0.9/d",
                "postgres://p@db1:5432,db2:5433,[::1]:7,10.0.0.9:5432/d",
            ),
            ("POSTGRES://p%40x@h", "postgres://p@x@h:5432/p@x"),
            (
                "postgres://p@%2Frun%2Fpg:6432/d",
                "postgres://p@/run/pg:6432/d",
            ),
            (
                "postgres://p@/d?host=/run/pg,/run/pg2&port=5433",
                "postgres://p@/run/pg:5433,/run/pg2:5433/d",
            ),
            (
                "postgres://p@a,b:7/d?port=8&application_name=x&connect_timeout=3",
                "postgres://p@a:8,b:7/d",
            ),
            (
                "postgres://p@h/d?target_session_attrs=read-write&sslmode=verify-full",
                "postgres://p@h:5432/d",
            ),
        ] {
            let url = read(text);
            assert_eq!(url.address.to_string(), shown);
            assert!(url.password.is_none());
        }
    }

    #[test]
    fn a_password_in_the_url_is_decoded_and_not_shown() {
        let url = read("postgres://p:s%3Acr%40t@h/d");
        assert_eq!(url.password.unwrap().expose(), "s:cr@t");
        assert_eq!(url.address.to_string(), "postgres://p@h:5432/d");
        for text in [
            "postgres://p:s@h/d",
            "postgres://p@h/d?password=s",
            "postgres://p:s@t@h",
            "redis://s@h",
            "p:s@h",
        ] {
            assert!(Url::may_hold_password(text), "{text}");
        }
        assert!(Url::may_hold_password("postgres://p:secreth/d"));
        assert!(!Url::may_hold_password("postgres://p@h:1,h2:2/d?options=x"));
    }

    #[test]
    fn plain_text_is_for_this_machine_alone() {
        let plain = |text: &str| {
            let address = read(text).address;
            let plain = address
                .servers
                .iter()
                .map(|server| address.is_plain(server));
            plain.collect::<Vec<_>>()
        };
        let all = "postgres://p@127.0.0.1,[::1],localhost,%2Frun,db/d";
        assert_eq!(plain(all), [true, true, true, true, false]);
        let strict = format!("{all}?sslmode=require");
        assert_eq!(plain(&strict), [false, false, false, true, false]);
        assert_eq!(plain("postgres://p@127.9.9.9/d?sslmode=disable"), [true]);
        for mode in ["disable", "allow", "prefer"] {
            assert!(refusal(&format!("{all}?sslmode={mode}")).contains("always verified"));
        }
    }

    #[test]
    fn what_a_store_does_not_support_is_refused_with_a_reason() {
        for (text, reason) in [
            ("redis://:s@h/0", "one-time secrets"),
            ("rediss://h", "acknowledges writes that a fail-over loses"),
            ("mysql://p@h/d", "postgres://USER@HOST/DATABASE"),
            ("db1", "postgres://USER@HOST/DATABASE"),
            ("postgres://h/d", "the user is missing"),
            ("postgres://p@/d", "the host is missing"),
            ("postgres://p@h:0/d", "a port"),
            ("postgres://p@h:x/d", "a port"),
            ("postgres://p@[::1]7/d", "a port follow"),
            ("postgres://p@h/d?port=0", "a port"),
            ("postgres://p@[::1/d", "between `[` and `]`"),
            ("postgres://p@h,/d", "no name"),
            ("postgres://p@a b/d", "no name"),
            ("postgres://p%FF@h/d", "UTF-8"),
            ("postgres://p@h/d?options=-cx", "ALTER ROLE"),
            ("postgres://p@h/d?password=s", "[store] password"),
            ("postgres://p@h/d?sslrootcert=f", "ca_file"),
            ("postgres://p@h/d?sslmode=on", "verify-full"),
            ("postgres://p@h/d?target_session_attrs=any", "read-write"),
            ("postgres://p@h/d?krbsrvname=x", "only these parameters"),
            ("postgres://p@h/d?host=g", "not in both"),
        ] {
            let why = refusal(text);
            assert!(why.contains(reason), "{text}: {why}");
            assert!(!why.contains(":s@"));
        }
    }
}
