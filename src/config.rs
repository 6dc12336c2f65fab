//! The configuration: TOML as written, settings as meant. [`load`] reads a file and the
//! environment, reports all that is wrong with them at once, and aggregates what each component is
//! told at start. Opens no sockets, and no files but its own and those that hold secrets.

mod environment;
mod quantity;
mod report;
mod secret_source;
mod section;
mod settings;
mod shape;
mod tree;

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use environment::Environment;
pub use quantity::compact;
use report::Problems;
use secret_source::SecretSources;
use section::Section;

use crate::damoov::routes::Route;
use crate::secret::Secret;
use crate::server::Listener;
use crate::{credentials, replay, server, telemetry, upstream};

/// All that a file says, validated, with defaults where it is silent.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where and how callers are served.
    pub server: server::Settings,
    /// Instances, accounts, `[login_budget]` and `[renewal]`.
    pub credentials: credentials::Settings,
    /// `[store]`
    pub store: Store,
    /// How much content is kept for a replay.
    pub replay: replay::Settings,
    /// `[upstream]`
    pub upstream: upstream::Settings,
    /// `[[route]]`: added to the built-in ones, or overriding them.
    pub routes: Vec<Route>,
    /// Where unknown paths go, in lower case; none: they are 404.
    pub default_host: Option<String>,
    /// Host values served besides IP addresses, localhost and `*.telematicssdk.com`; lower case.
    pub hosts: Vec<String>,
    /// The web origins whose pages may call, as browsers write them.
    pub allowed_origins: Vec<String>,
    /// Whether a small 2xx whose envelope says 401 counts as a 401.
    pub in_band_401: bool,
    /// Where health and metrics are served; none: nowhere.
    pub status: Option<Listener>,
    /// `[log]`
    pub log: telemetry::Format,
}

impl Settings {
    /// How many file descriptors the process may come to need: connections from callers, and
    /// 2,048 for connections to hosts, the store and the rest.
    pub fn descriptors(&self) -> u64 {
        self.server.max_connections as u64 + 2048
    }
}

/// Where pairs are kept, and under which seal.
#[derive(Clone, Debug)]
pub struct Store {
    /// The folder of the embedded store.
    pub path: PathBuf,
    /// 32 bytes in base64; none: one is created in `path`.
    pub key: Option<Secret>,
    /// Former keys, still good for reading.
    pub old_keys: Vec<Secret>,
}

/// What to do about secrets that are kept elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// Read and check them.
    Resolve,
    /// Leave them alone; each is empty in the settings.
    Leave,
}

/// A configuration that nothing is wrong with.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it means.
    pub settings: Settings,
    /// What an operator should change all the same; a sentence each.
    pub warnings: Vec<String>,
}

/// Why there are no settings. No message shows a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No file was named, and none is where one is looked for.
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
    /// Somebody besides its owner could change the file.
    #[error("{} can be written by group or others: chmod go-w", path.display())]
    WritableByOthers {
        /// The file.
        path: PathBuf,
    },
    /// All that is wrong with the content, with file, line and column; several lines.
    #[error("{0}")]
    Invalid(String),
}

const LOOKED_FOR: [&str; 2] = ["./damoov-proxy.toml", "/etc/damoov-proxy/config.toml"];

/// The file to load: the one named on the command line, else by `$DAMOOV_PROXY_CONFIG`, else the
/// first that exists of `./damoov-proxy.toml` and `/etc/damoov-proxy/config.toml`.
///
/// # Errors
///
/// [`Error::NoFile`] when there is none of these.
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
/// (`DAMOOV_PROXY__SECTION__KEY`).
///
/// # Errors
///
/// Any [`Error`] but [`Error::NoFile`]; [`Error::Invalid`] names everything that is wrong.
pub fn load(path: &Path, environment: &Environment, secrets: Secrets) -> Result<Loaded, Error> {
    let unreadable = |source| Error::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if secret_source::others_can_write(&metadata) {
        return Err(Error::WritableByOthers {
            path: path.to_owned(),
        });
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content).map_err(unreadable)?;

    let sources = SecretSources {
        environment,
        secrets,
        file_is_private: !secret_source::others_can_read(&metadata),
        warnings: RefCell::default(),
    };
    let settings = parse(&content, &path.to_string_lossy(), &sources).map_err(Error::Invalid)?;
    Ok(Loaded {
        settings,
        warnings: sources.warnings.into_inner(),
    })
}

/// The settings that `content`, of the file called `path`, means; or all that is wrong with it.
fn parse(content: &[u8], path: &str, sources: &SecretSources<'_>) -> Result<Settings, String> {
    let text = str::from_utf8(content).map_err(|error| {
        let (valid, _) = content.split_at(error.valid_up_to());
        let message = "the text from here on is not UTF-8".to_owned();
        let end = valid.len();
        report::syntax_error(end..end, message, path, &String::from_utf8_lossy(valid))
    })?;
    let mut root = tree::parse(text).map_err(|errors| {
        let draw =
            |error: tree::SyntaxError| report::syntax_error(error.at, error.message, path, text);
        errors
            .into_iter()
            .map(draw)
            .collect::<Vec<_>>()
            .join("\n\n")
    })?;
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
