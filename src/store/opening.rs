//! Opens a store: the one place that knows which engines there are.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Error, OpenError, Pseudonyms, ReadOnly, RunId, Store, postgres, sqlite};
use crate::clock::Clock;

/// Where a store is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder of the embedded store; of a shared one, the folder of what it does not have yet.
    pub path: PathBuf,
    /// Whether a place without a store becomes one.
    pub create: bool,
    /// What keeps it.
    pub engine: Engine,
}

/// What keeps a store.
#[derive(Clone, Debug)]
pub enum Engine {
    /// This process, in files of the folder.
    Embedded,
    /// PostgreSQL, for any number of processes.
    Postgres(postgres::Settings),
}

/// A store that is open for one process run.
pub struct Opened {
    /// The store. Dropping the last handle finishes what was asked of it and gives its leases back.
    pub store: Arc<dyn Store>,
    /// This process run, as the store's leases and records name it.
    pub run: RunId,
}

impl From<sqlite::Refusal> for OpenError {
    fn from(refusal: sqlite::Refusal) -> OpenError {
        OpenError::Refused(Box::new(refusal))
    }
}

impl From<postgres::Refusal> for OpenError {
    fn from(refusal: postgres::Refusal) -> OpenError {
        match refusal {
            postgres::Refusal::Failed(Error::Away(why)) => OpenError::Away(why),
            refusal => OpenError::Refused(Box::new(refusal)),
        }
    }
}

/// Opens the store that the settings name; creates it if there is none and they permit that. `pseudonyms` and
/// `clock` must be those of all processes on the store. Blocks its thread while files are checked. A server that
/// is away is no error: [`Store::condition`] says so, and the store is used once it is back.
///
/// A store that vanished or broke is refused, never replaced by an empty one: that would cost every
/// user a login.
pub async fn open(
    settings: &Settings,
    pseudonyms: Pseudonyms,
    clock: Clock,
) -> Result<Opened, OpenError> {
    let run = RunId(uuid::Uuid::new_v4());
    let store: Arc<dyn Store> = match &settings.engine {
        Engine::Embedded => {
            refuse_absent(settings)?;
            Arc::new(sqlite::open(&settings.path, pseudonyms, run, clock)?)
        }
        Engine::Postgres(server) => {
            let process = postgres::Process::new(run, &settings.path)?;
            let opened =
                postgres::open(server.clone(), settings.create, pseudonyms, process, clock);
            Arc::new(opened.await?)
        }
    };
    Ok(Opened { store, run })
}

/// Opens the store for reading, beside whatever uses it. Returns `None` if there is none yet and
/// [`open`] would create it.
pub async fn view(
    settings: &Settings,
    pseudonyms: Pseudonyms,
    clock: Clock,
) -> Result<Option<Box<dyn ReadOnly>>, OpenError> {
    match &settings.engine {
        Engine::Embedded => match sqlite::view(&settings.path, pseudonyms, clock)? {
            Some(reader) => Ok(Some(Box::new(reader))),
            None => refuse_absent(settings).map(|()| None),
        },
        Engine::Postgres(server) => {
            let (path, create) = (&settings.path, settings.create);
            let view = postgres::view(path, server.clone(), create, pseudonyms, clock).await?;
            Ok(view.map(|view| Box::new(view) as Box<dyn ReadOnly>))
        }
    }
}

/// Returns whether there is a store where the settings say.
///
/// Errors: there was one that is incomplete now, or there is none and none may be created.
pub async fn is_there(settings: &Settings) -> Result<bool, OpenError> {
    match &settings.engine {
        Engine::Embedded => {
            refuse_absent(settings)?;
            Ok(sqlite::is_there(&settings.path)?)
        }
        Engine::Postgres(_) => Ok(view(settings, Pseudonyms::none(), Clock::real())
            .await?
            .is_some()),
    }
}

/// Refuses a place that [`open`] would refuse because of who may write there. Changes nothing.
pub fn check_place(settings: &Settings) -> Result<(), OpenError> {
    Ok(sqlite::refuse_folder(&settings.path)?)
}

/// Returns what an operator should know of a place that is not refused: each a sentence.
pub fn warnings(settings: &Settings) -> Vec<String> {
    match settings.engine {
        Engine::Embedded => sqlite::warnings(&settings.path),
        // The server is watched while it is used.
        Engine::Postgres(_) => Vec::new(),
    }
}

/// Makes the folder that [`open`] would make, for what has to be there before; refuses what it would refuse.
pub fn make_place(settings: &Settings) -> Result<(), OpenError> {
    if matches!(settings.engine, Engine::Embedded) {
        refuse_absent(settings)?;
    }
    Ok(sqlite::make_folder(&settings.path)?)
}

fn refuse_absent(settings: &Settings) -> Result<(), OpenError> {
    match settings.create || sqlite::is_there(&settings.path)? {
        true => Ok(()),
        false => Err(OpenError::Absent(settings.path.clone())),
    }
}
