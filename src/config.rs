//! The configuration: TOML as written, settings as meant. [`load`] reads a file and the
//! environment, reports all that is wrong with them at once, and aggregates what each component is
//! told at start. Opens no sockets, and no files but its own and those that hold secrets.

mod environment;
mod files;
mod lifetime;
mod quantity;
mod report;
mod secret_source;
mod section;
mod settings;
mod shape;
mod shown;
mod tree;

use std::cell::RefCell;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use environment::Environment;
#[cfg(test)]
pub use files::FileState;
pub use files::Seen;
pub use lifetime::{in_force, restart_needed};
pub use quantity::{compact, parse_duration};
use report::Problems;
pub use report::{Finding, Report};
use secret_source::SecretSources;
use section::Section;
use tree::SyntaxError;

use crate::damoov::routes::Route;
use crate::directory::Directory;
use crate::secret::{Secret, file};
use crate::server::Listener;
use crate::store::postgres;
use crate::{auth_endpoints, credentials, replay, server, telemetry, upstream};

/// Everything that a file sets, validated, with defaults for the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where and how callers are served.
    pub server: server::Settings,
    /// `[[instance]]` and `[[account]]`: at least one of them.
    pub directory: Arc<Directory>,
    /// `[login_budget]` and `[renewal]`.
    pub credentials: credentials::Settings,
    /// `[store]`
    pub store: Store,
    /// How much content is kept for a replay.
    pub replay: replay::Settings,
    /// `[upstream]`
    pub upstream: upstream::Settings,
    /// `[[route]]`: added to the built-in ones, or overriding them.
    pub routes: Vec<Route>,
    /// Where unknown paths go, in lower case; `None`: they are 404.
    pub default_host: Option<String>,
    /// Host values served besides IP addresses, localhost and `*.telematicssdk.com`; lower case.
    pub hosts: Vec<String>,
    /// The web origins whose pages may call, as browsers write them.
    pub allowed_origins: Vec<String>,
    /// What callers that log in by themselves get.
    pub auth_endpoints: auth_endpoints::Settings,
    /// Whether a 2xx counts as a 401 if the beginning of its JSON says so.
    pub in_band_401: bool,
    /// Where health and metrics are served; `None`: nowhere.
    pub status: Option<Listener>,
    /// Where the dashboard and its API are served as well; `None`: nowhere.
    pub admin: Option<Listener>,
    /// `[log]`
    pub log: telemetry::Settings,
}

/// Where pairs are kept, and under which seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// The folder of the embedded store, or of what PostgreSQL does not have yet.
    pub path: PathBuf,
    /// Whether a place without a store becomes one.
    pub create: bool,
    /// 32 bytes in base64; `None`: one is created in `path`.
    pub key: Option<Secret>,
    /// Earlier keys, which can still open records.
    pub old_keys: Vec<Secret>,
    /// The servers that many sidecars share; `None`: the store is embedded.
    pub postgres: Option<postgres::Settings>,
}

/// What to do about secrets that are kept elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// Read and check them.
    Resolve,
    /// Leave them alone; each is empty in the settings.
    Leave,
}

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it means.
    pub settings: Settings,
    /// What an operator should change although it is valid; one sentence each.
    pub warnings: Vec<String>,
}

/// Why there are no settings. No message shows a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No file was named, and there is none in the default places.
    #[error("no configuration: give --config FILE, or put one at {}", LOOKED_FOR.join(" or "))]
    NoFile,
    /// The file cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Other users could change the file.
    #[error("{} can be written by group or others: chmod go-w", path.display())]
    WritableByOthers {
        /// The file.
        path: PathBuf,
    },
    /// No configuration is as large.
    #[error("{} is larger than 1 MiB: this is no configuration", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// All that is wrong with the content, with file, line and column; several lines.
    #[error("{0}")]
    Invalid(Report),
}

impl Error {
    /// The error with its cause, ready to be shown: a line, or all that is wrong with the content.
    pub fn report(&self) -> String {
        match self {
            Error::Invalid(report) => report.to_string(),
            Error::Unreadable { source, .. } => format!("error: {self}: {source}"),
            Error::NoFile | Error::WritableByOthers { .. } | Error::TooLarge { .. } => {
                format!("error: {self}")
            }
        }
    }
}

/// No configuration is larger.
const MAX_BYTES: u64 = 1024 * 1024;

const LOOKED_FOR: [&str; 2] = ["./damoov-proxy.toml", "/etc/damoov-proxy/config.toml"];

/// The file to load: the one named on the command line, else by `$DAMOOV_PROXY_CONFIG`, else the
/// first that exists of `./damoov-proxy.toml` and `/etc/damoov-proxy/config.toml`.
///
/// # Errors
///
/// [`Error::NoFile`] if none of these exists.
pub fn find(explicit: Option<PathBuf>, environment: &Environment) -> Result<PathBuf, Error> {
    let named = || environment.get("DAMOOV_PROXY_CONFIG").map(PathBuf::from);
    let existing = || {
        LOOKED_FOR
            .map(PathBuf::from)
            .into_iter()
            .find(|path| path.exists())
    };
    explicit
        .or_else(named)
        .or_else(existing)
        .ok_or(Error::NoFile)
}

/// Reads and validates the file at `path` with the environment's overrides
/// (`DAMOOV_PROXY__SECTION__KEY`). Relative paths in either are relative to the file's folder.
///
/// # Errors
///
/// Every [`Error`] except [`Error::NoFile`]; [`Error::Invalid`] names everything that is wrong.
pub fn load(path: &Path, environment: &Environment, secrets: Secrets) -> Result<Loaded, Error> {
    read(path, environment, secrets).0
}

/// As [`load`], and says which files were read, or would have been: the file at `path` first.
pub fn read(
    path: &Path,
    environment: &Environment,
    secrets: Secrets,
) -> (Result<Loaded, Error>, Vec<Seen>) {
    let mut seen = vec![Seen::now(path)];
    let loaded = content(path).and_then(|(content, metadata)| {
        let sources = SecretSources {
            environment,
            folder: path.parent().unwrap_or(Path::new("")),
            secrets,
            file_is_private: !file::others_can_read(&metadata),
            warnings: RefCell::default(),
            seen: RefCell::default(),
        };
        let settings = parse(&content, &path.to_string_lossy(), &sources);
        seen.extend(sources.seen.take());
        Ok(Loaded {
            settings: settings.map_err(Error::Invalid)?,
            warnings: sources.warnings.take(),
        })
    });
    (loaded, seen)
}

/// What the file holds, if nobody but its owner can change that.
fn content(path: &Path) -> Result<(Vec<u8>, Metadata), Error> {
    let unreadable = |source| Error::Unreadable {
        path: path.to_owned(),
        source,
    };
    let path = path.to_owned();
    let file = File::open(&path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if file::others_can_write(&metadata) {
        return Err(Error::WritableByOthers { path });
    }
    let mut content = Vec::new();
    let mut all = file.take(MAX_BYTES + 1);
    all.read_to_end(&mut content).map_err(unreadable)?;
    match content.len() as u64 > MAX_BYTES {
        true => Err(Error::TooLarge { path }),
        false => Ok((content, metadata)),
    }
}

/// The settings that `content`, of the file called `path`, means; or all that is wrong with it.
fn parse(content: &[u8], path: &str, sources: &SecretSources<'_>) -> Result<Settings, Report> {
    let text = str::from_utf8(content).map_err(|error| {
        let (valid, _) = content.split_at(error.valid_up_to());
        let message = "the text from here on is not UTF-8".to_owned();
        let at = valid.len()..valid.len();
        report::syntax_errors(
            vec![SyntaxError { at, message }],
            path,
            &String::from_utf8_lossy(valid),
        )
    })?;
    let mut root = tree::parse(text).map_err(|errors| report::syntax_errors(errors, path, text))?;
    let mut scalars = Vec::new();
    root.scalars(&mut scalars);

    let problems = Problems::default();
    sources.environment.override_file(&mut root, &problems);
    let settings = Section::read_root(root, &problems, |top| settings::read(top, sources));
    match problems.render(path, text, &scalars) {
        Some(report) => Err(report),
        None => Ok(settings),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use http::Method;
    use proptest::prelude::*;

    use super::tree::{Node, Value};
    use super::*;
    use crate::damoov::routes::{Credential, Replay};
    use crate::store::postgres::Password;

    const INSTANCE: &str = r#"
[[instance]]
name = "main"
id = "11111111-1111-4111-8111-111111111111"
key = "canary"
"#;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let variables = variables.iter();
        variables
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    }

    /// What a file of mode 0600 means with these variables set.
    fn read(text: &str, variables: &[(&str, &str)], secrets: Secrets) -> Result<Settings, String> {
        let environment = environment(variables);
        let settings = parse(text.as_bytes(), "FILE", &private(&environment, secrets));
        settings.map_err(|report| report.to_string())
    }

    fn private(environment: &Environment, secrets: Secrets) -> SecretSources<'_> {
        SecretSources {
            folder: Path::new(""),
            environment,
            secrets,
            file_is_private: true,
            warnings: RefCell::default(),
            seen: RefCell::default(),
        }
    }

    fn example(name: &str) -> String {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        std::fs::read_to_string(folder.join(name)).unwrap()
    }

    /// The full example with the keys that are absent by default.
    fn full_example() -> String {
        let uncomment = |line: &str| match line.strip_prefix('#') {
            Some(key) if !key.is_empty() && !key.starts_with(' ') => key.to_owned(),
            _ => line.to_owned(),
        };
        let lines: Vec<_> = example("damoov-proxy.toml")
            .lines()
            .map(uncomment)
            .collect();
        lines.join("\n")
    }

    fn add_names(node: &Node, path: &str, names: &mut BTreeSet<String>) {
        match &node.value {
            Value::Table(entries) => {
                for (key, entry) in entries {
                    let name = report::dotted(path, key);
                    add_names(&entry.value, &name, names);
                    names.insert(name);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| add_names(item, path, names)),
            _ => {}
        }
    }

    #[test]
    fn the_full_example_sets_every_default() {
        // What everybody sets, set alike.
        let minimal = example("minimal.toml")
            .replace(
                "{ env = \"DAMOOV_INSTANCE_ID\" }",
                "\"11111111-1111-4111-8111-111111111111\"",
            )
            .replace("\"store\"", "\"/var/lib/damoov-proxy\"");
        let minimal = read(&minimal, &[], Secrets::Leave).unwrap();
        let full = read(&example("damoov-proxy.toml"), &[], Secrets::Leave).unwrap();
        assert_eq!(format!("{full:#?}"), format!("{minimal:#?}"));
    }

    #[test]
    fn the_full_example_has_every_key() {
        let root = tree::parse(&full_example()).unwrap();
        let mut present = BTreeSet::new();
        add_names(&root, "", &mut present);
        let problems = Problems::default();
        let environment = Environment::default();
        let sources = private(&environment, Secrets::Leave);
        Section::read_root(root, &problems, |top| settings::read(top, &sources));
        let accepted = problems.accepted_names();
        assert!(accepted.len() > 50, "{accepted:?}");
        let missing: Vec<_> = accepted.difference(&present).collect();
        assert!(missing.is_empty(), "{missing:?}");

        let settings = read(&full_example(), &[], Secrets::Leave).unwrap();
        assert_eq!(settings.directory.accounts().len(), 1);
        assert_eq!(settings.routes.len(), 1);
        assert!(settings.status.is_some());
        let postgres = settings.store.postgres.unwrap();
        assert_eq!(
            postgres.address.to_string(),
            "postgres://proxy@db1:5432,db2:5432/damoov"
        );
        assert!(
            matches!(postgres.password, Password::In(path) if path.ends_with("run/secrets/db"))
        );
    }

    #[test]
    fn settings_are_shown_by_every_key_of_the_file_and_without_a_secret() {
        fn add(value: &serde_json::Value, path: &str, names: &mut BTreeSet<String>) {
            match value {
                serde_json::Value::Object(entries) => {
                    for (key, entry) in entries {
                        let name = report::dotted(path, key);
                        add(entry, &name, names);
                        names.insert(name);
                    }
                }
                serde_json::Value::Array(items) => {
                    items.iter().for_each(|item| add(item, path, names));
                }
                _ => {}
            }
        }
        let root = tree::parse(&full_example()).unwrap();
        let problems = Problems::default();
        let environment = Environment::default();
        let sources = private(&environment, Secrets::Leave);
        let settings = Section::read_root(root, &problems, |top| settings::read(top, &sources));
        let mut names = BTreeSet::new();
        add(&settings.shown(), "", &mut names);
        let accepted = problems.accepted_names();
        // In the example there is one window, and no unix socket.
        let missing: Vec<_> = accepted.difference(&names).collect();
        assert!(missing.is_empty(), "{missing:?}");

        let secret = STANDARD.encode([9; 32]);
        let text = format!(
            "{INSTANCE}[store]\nkey = \"{secret}\"\nold_keys = [\"{secret}\"]\n\
             url = \"postgres://proxy:canary@db/d\"\n\
             [[account]]\nname = \"a\"\nemail = \"a@b\"\npassword = \"canary\""
        );
        let shown = read(&text, &[], Secrets::Resolve)
            .unwrap()
            .shown()
            .to_string();
        assert!(
            !shown.contains("canary") && !shown.contains(&secret),
            "{shown}"
        );
        assert_eq!(shown.matches("\"***\"").count(), 5, "{shown}");
    }

    #[test]
    fn a_store_on_postgres_may_be_set_by_the_environment_alone() {
        let key = STANDARD.encode([7; 32]);
        let url = "postgres://proxy:s%3Acret@db/damoov";
        let variables = [
            ("DAMOOV_PROXY__STORE__URL", url),
            ("DAMOOV_PROXY__STORE__KEY", &key),
        ];
        let store = read(INSTANCE, &variables, Secrets::Resolve).unwrap().store;
        let postgres = store.postgres.unwrap();
        assert_eq!(
            postgres.address.to_string(),
            "postgres://proxy@db:5432/damoov"
        );
        assert!(
            matches!(postgres.password, Password::Given(password) if password.expose() == "s:cret")
        );
        assert_eq!(postgres.connections, 4);
        assert!(
            read(INSTANCE, &[], Secrets::Resolve)
                .unwrap()
                .store
                .postgres
                .is_none()
        );
    }

    #[test]
    fn a_password_in_a_file_is_read_now_and_again_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "first\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let text = format!(
            "{INSTANCE}[store]\nurl = \"postgres://proxy@db/d\"\nkey = \"{}\"\npassword.file = '{}'",
            STANDARD.encode([7; 32]),
            path.display()
        );
        let store = read(&text, &[], Secrets::Resolve).unwrap().store;
        assert!(matches!(store.postgres.unwrap().password, Password::In(read) if read == path));
        std::fs::remove_file(&path).unwrap();
        assert!(read(&text, &[], Secrets::Leave).is_ok());
        assert!(read(&text, &[], Secrets::Resolve).is_err());
    }

    #[test]
    fn what_the_file_says_is_what_the_settings_mean() {
        let text = format!(
            r#"
listen = ["[::1]:0", {{ unix = "/run/proxy.sock", mode = "0600", group = "app" }}]
hosts = ["Proxy.Internal"]
{INSTANCE}
[login_budget]
logins = 1
more = [{{ logins = 40, per = "1h" }}]
[renewal]
keep_refresh_tokens = "off"
replay_limit = 4096
contested_backoff = "0s"
[upstream]
all_hosts = "https://gateway.internal"
[upstream.hosts]
"User.telematicssdk.com" = "http://127.0.0.1:19090/"
[[route]]
path = "/custom/*/data$"
host = "api.telematicssdk.com"
credential = "user_or_admin"
methods = ["GET", "PUT"]
replay = "never"
response_timeout = "2m"
[status]
listen = "0.0.0.0:9091"
"#
        );
        let settings = read(&text, &[], Secrets::Resolve).unwrap();
        let listeners = [
            Listener::Tcp("[::1]:0".parse().unwrap()),
            Listener::Unix {
                path: "/run/proxy.sock".into(),
                mode: 0o600,
                group: Some("app".to_owned()),
            },
        ];
        assert_eq!(settings.server.listeners, listeners);
        assert_eq!(settings.hosts, ["proxy.internal"]);
        let default = settings.directory.default_instance().unwrap();
        assert_eq!(&*default.name, "main");
        assert_eq!(settings.directory.instances()[0].key.expose(), "canary");
        assert_eq!(settings.credentials.budget.windows.len(), 2);
        assert_eq!(settings.credentials.budget.reserve, 0);
        assert_eq!(settings.credentials.keep_refresh_tokens, None);
        assert_eq!(settings.credentials.contested_backoff, Duration::ZERO);
        assert_eq!(settings.replay.limit, 4096);
        let redirect = upstream::Redirect {
            scheme: upstream::Scheme::Http,
            authority: "127.0.0.1:19090".to_owned(),
        };
        let redirects = &settings.upstream.redirects;
        assert_eq!(redirects.of("user.telematicssdk.com"), Some(&redirect));
        let gateway = redirects.of("api.telematicssdk.com").unwrap();
        assert_eq!(gateway.authority, "gateway.internal");
        let route = Route {
            path: "/custom/*/data$".into(),
            host: "api.telematicssdk.com".to_owned(),
            credential: Credential::UserOrAdmin,
            methods: vec![Method::GET, Method::PUT],
            replay: Replay::Never,
            response_timeout: Some(Duration::from_secs(120)),
        };
        assert_eq!(settings.routes, [route]);
        let status = Listener::Tcp("0.0.0.0:9091".parse().unwrap());
        assert_eq!(settings.status, Some(status));
    }

    #[test]
    fn an_override_stands_in_for_a_key_of_the_file() {
        let variables = [
            ("DAMOOV_PROXY__STORE__PATH", "/data"),
            ("DAMOOV_PROXY__MAX_CONNECTIONS", "17"),
            ("DAMOOV_PROXY__LISTEN__UNIX", "/run/proxy.sock"),
            ("DAMOOV_PROXY__RENEWAL__WAIT", "7s"),
            ("DAMOOV_PROXY__HOSTS", "[\"a.internal\", \"b.internal\"]"),
            ("DAMOOV_PROXY__INSTANCE__0__KEY__ENV", "KEY"),
            ("DAMOOV_PROXY__ACCOUNT__0__NAME", "reporting"),
            ("DAMOOV_PROXY__ACCOUNT__0__EMAIL", "ops@example.com"),
            ("DAMOOV_PROXY__ACCOUNT__0__PASSWORD", "12345"),
            ("KEY", "from the environment"),
            ("DAMOOV_PROXY_CONFIG", "is no override"),
            ("DAMOOV_PROXY_TIME_SCALE", "nor is this"),
        ];
        let elsewhere = INSTANCE.replace("\"canary\"", "{ file = \"/nowhere/key\" }");
        let text = format!("listen = \"127.0.0.1:1\"\n{elsewhere}");
        let settings = read(&text, &variables, Secrets::Resolve).unwrap();
        assert_eq!(settings.store.path, Path::new("/data"));
        assert_eq!(settings.server.max_connections, 17);
        assert!(matches!(
            &settings.server.listeners[..],
            [Listener::Unix { path, .. }] if path == Path::new("/run/proxy.sock")
        ));
        assert_eq!(settings.credentials.wait, Duration::from_secs(7));
        assert_eq!(settings.hosts, ["a.internal", "b.internal"]);
        let key = &settings.directory.instances()[0].key;
        assert_eq!(key.expose(), "from the environment");
        assert_eq!(settings.directory.accounts()[0].password.expose(), "12345");
    }

    #[test]
    fn overrides_append_elements_in_the_order_of_their_indices() {
        let variables: Vec<_> = (0..12)
            .map(|i| {
                (
                    format!("DAMOOV_PROXY__HOSTS__{i}"),
                    format!("h{i}.internal"),
                )
            })
            .collect();
        let variables: Vec<_> = variables.iter().map(|(n, v)| (&n[..], &v[..])).collect();
        let settings = read(INSTANCE, &variables, Secrets::Resolve).unwrap();
        let expected: Vec<_> = (0..12).map(|i| format!("h{i}.internal")).collect();
        assert_eq!(settings.hosts, expected);
    }

    #[test]
    fn the_command_line_names_the_file_before_the_environment() {
        let named = environment(&[("DAMOOV_PROXY_CONFIG", "named.toml")]);
        let explicit = Some(PathBuf::from("explicit.toml"));
        assert_eq!(find(explicit, &named).unwrap(), Path::new("explicit.toml"));
        assert_eq!(find(None, &named).unwrap(), Path::new("named.toml"));
    }

    #[test]
    fn relative_paths_start_at_the_files_folder_and_an_id_may_be_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("damoov-proxy.toml");
        let text = r#"
listen = { unix = "run/proxy.sock" }
[[instance]]
name = "main"
id = { env = "ID" }
key = { file = "key" }
[[account]]
name = "reporting"
email = { file = "email" }
password = { env = "ID" }
[store]
path = "store"
[upstream]
ca_file = "../ca.pem"
"#;
        for (name, text) in [
            ("damoov-proxy.toml", text),
            ("key", "k\n"),
            ("email", "a@b\n"),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let id = "22222222-2222-4222-8222-222222222222";
        let settings = load(&file, &environment(&[("ID", id)]), Secrets::Resolve).unwrap();
        let settings = settings.settings;
        assert_eq!(settings.directory.instances()[0].id.to_string(), id);
        assert_eq!(settings.directory.instances()[0].key.expose(), "k");
        assert_eq!(settings.directory.accounts()[0].email, "a@b");
        assert_eq!(settings.store.path, folder.path().join("store"));
        let ca_file = settings.upstream.ca_file.unwrap();
        assert_eq!(ca_file, folder.path().join("../ca.pem"));
        assert!(matches!(
            &settings.server.listeners[..],
            [Listener::Unix { path, .. }] if *path == folder.path().join("run/proxy.sock")
        ));
        // Offline nothing is resolved; with nothing set the variable is named.
        assert!(load(&file, &environment(&[]), Secrets::Leave).is_ok());
        let error = load(&file, &environment(&[]), Secrets::Resolve).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("invalid `instance.id`"), "{message}");
        assert!(
            message.contains("the environment variable ID is not set"),
            "{message}"
        );
    }

    #[test]
    fn offline_leaves_secrets_alone() {
        let elsewhere = INSTANCE.replace("\"canary\"", "{ file = \"/nowhere/key\" }");
        assert!(read(&elsewhere, &[], Secrets::Resolve).is_err());
        let settings = read(&elsewhere, &[], Secrets::Leave).unwrap();
        assert_eq!(settings.directory.instances()[0].key.expose(), "");
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("damoov-proxy.toml");
        std::fs::write(&path, INSTANCE).unwrap();
        for mode in [0o620, 0o602] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let loaded = load(&path, &Environment::default(), Secrets::Leave);
            assert!(matches!(loaded, Err(Error::WritableByOthers { .. })));
        }
    }

    #[test]
    fn no_slip_of_the_pen_shows_a_secret() {
        let text = format!(
            "{INSTANCE}[store]\nkey = \"canary\"\nold_keys = [\n  \"canary\",\n]\n\
             url = \"postgres://proxy:canary@db/d\"\n"
        );
        let mut refused = 0;
        for at in 0..text.len() {
            for slip in [
                "", "x", "\"", "'", "=", "[", "]", "{", "}", ",", ".", "\n", "#", "é",
            ] {
                let (before, after) = text.split_at(at);
                for after in [after, &after[1..]] {
                    let outcome = read(&format!("{before}{slip}{after}"), &[], Secrets::Resolve);
                    let Err(message) = outcome else { continue };
                    refused += 1;
                    assert!(!message.contains("canary"), "{slip:?} at {at}:\n{message}");
                }
            }
        }
        assert!(refused > 1000);
    }

    #[test]
    fn a_file_that_is_something_else_altogether_has_a_short_report() {
        let lines = "what is this?\n".repeat(5_000);
        let Err(report) = read(&lines, &[], Secrets::Leave) else {
            panic!("it is no TOML");
        };
        assert!(report.contains("\n… and "), "{report}");
        assert!(report.len() < 20_000, "{} bytes", report.len());
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic(text in TOML_ISH, value in TOML_ISH, name in "([A-Z0-9]{1,3}|STORE|PATH|INSTANCE|LISTEN|KEY|_){1,6}") {
            let name = format!("DAMOOV_PROXY__{name}");
            let _ = read(&text, &[], Secrets::Leave);
            let _ = read(&text, &[(&name, &value)], Secrets::Leave);
            let _ = read(INSTANCE, &[(&name, &value)], Secrets::Leave);
        }

        #[test]
        fn no_bytes_make_reading_panic(bytes: Vec<u8>) {
            let environment = Environment::default();
            let _ = parse(&bytes, "FILE", &private(&environment, Secrets::Leave));
        }
    }

    /// Known names, TOML's punctuation and anything else.
    const TOML_ISH: &str = "(listen|instance|key|id|store|path|renewal|wait|login_budget|logins|\
        reserve|more|upstream|hosts|route|\\[|\\]|\\[\\[|\\]\\]|\\{|\\}| = |\"|\"\"\"|'|\n|,|\\.|#|true|-1|0|1e9|5s|1d|\
        99999999999999999999|inf|\\PC|\r\n|\t){0,40}";
}
