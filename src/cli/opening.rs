//! Opens the store that the settings name, with the keys to it: to work on it, or to look at it.

mod error;

use std::process::ExitCode;
use std::sync::Arc;

pub use self::error::StoreError;
use super::output::say;
use crate::clock::Clock;
use crate::config;
use crate::credentials::{canary, key_file, seal};
use crate::secret::Secret;
use crate::store::{self, Engine, KeyId, Opened, Pseudonyms, ReadOnly, RunId, Store};

/// An open store and the keys to it.
pub struct OpenStore {
    /// The store.
    pub store: Arc<dyn Store>,
    /// What seals its records.
    pub ring: seal::Ring,
    /// This run of the process.
    pub run: RunId,
}

/// Opens the store that the settings name, creating it and its key if there is none.
pub async fn open_store(settings: &config::Store) -> Result<OpenStore, StoreError> {
    open(settings, async |ring, store| {
        canary::check_records(ring, &store.keys().await?)?;
        Ok(canary::verify(ring, store).await?)
    })
    .await
}

/// Opens the store for a proxy. One that other machines share may be away, or have another key: the proxy
/// starts all the same, and a task of its own tells of the key.
pub async fn open_to_serve(settings: &config::Store) -> Result<OpenStore, StoreError> {
    match settings.postgres {
        None => open_store(settings).await,
        Some(_) => open(settings, async |_, _| Ok(())).await,
    }
}

/// Opens a store although pairs in it are sealed with keys that are lost: to forget those.
pub async fn open_to_forget(settings: &config::Store) -> Result<OpenStore, StoreError> {
    open(settings, async |ring, store| match store.canary().await? {
        Some(canary) => Ok(canary::check(ring, &canary)?),
        None => Ok(canary::verify(ring, store).await?),
    })
    .await
}

async fn open(
    settings: &config::Store,
    verify: impl AsyncFn(&seal::Ring, &dyn Store) -> Result<(), StoreError>,
) -> Result<OpenStore, StoreError> {
    let ring = match keys(settings)? {
        Some(ring) => ring,
        None => ring(settings, &first_key(settings).await?)?,
    };
    let clock = Clock::from_environment();
    let opened = store::open(&place(settings), ring.pseudonyms(), clock).await?;
    let Opened { store, run } = opened;
    for warning in warnings(settings) {
        tracing::warn!("{warning}");
    }
    verify(&ring, &*store).await?;
    Ok(OpenStore { store, ring, run })
}

/// Makes the key of a store that has none yet.
async fn first_key(settings: &config::Store) -> Result<Secret, StoreError> {
    let file = settings.path.join(key_file::KEY_FILE);
    let has_a_key = has_a_key(settings).await;
    if file.exists() {
        // Another process made the key, and maybe the store, a moment ago.
        return read_key(settings);
    }
    if has_a_key? {
        return Err(StoreError::KeyLost(file));
    }
    store::make_place(&place(settings))?;
    let made = key_file::read_or_create(&settings.path);
    let (key, created) = made.map_err(|source| StoreError::KeyFile {
        path: file.clone(),
        source,
    })?;
    if created {
        tracing::warn!(
            path = %file.display(),
            "no [store] key is configured: one was created beside the store; back it up, \
             without it the stored tokens are lost"
        );
    }
    Ok(key)
}

/// Whether there is a store that was sealed with a key.
async fn has_a_key(settings: &config::Store) -> Result<bool, StoreError> {
    let clock = Clock::from_environment();
    match store::view(&place(settings), Pseudonyms::none(), clock).await? {
        Some(store) => Ok(store.canary().await?.is_some()),
        None => Ok(false),
    }
}

/// A store that is only read, and the keys to it.
pub struct StoreView {
    /// The store.
    pub store: Box<dyn ReadOnly>,
    /// What its records are sealed with.
    pub ring: seal::Ring,
}

/// Opens the store that the settings name without changing anything; `None` if there is none.
pub async fn view(settings: &config::Store) -> Result<Option<StoreView>, StoreError> {
    let Some(ring) = keys(settings)? else {
        let file = settings.path.join(key_file::KEY_FILE);
        return match has_a_key(settings).await? {
            true => Err(StoreError::KeyLost(file)),
            // Its first run was killed before it had a key: nothing is stored.
            false => Ok(None),
        };
    };
    let clock = Clock::from_environment();
    let Some(store) = store::view(&place(settings), ring.pseudonyms(), clock).await? else {
        return Ok(None);
    };
    if let Some(canary) = store.canary().await? {
        canary::check(&ring, &canary)?;
    }
    Ok(Some(StoreView { store, ring }))
}

/// The keys that the settings name, or that lie in the store's folder; `None` if there is none yet.
pub fn keys(settings: &config::Store) -> Result<Option<seal::Ring>, StoreError> {
    let key = match &settings.key {
        Some(key) => key.clone(),
        None if settings.path.join(key_file::KEY_FILE).exists() => read_key(settings)?,
        None => return Ok(None),
    };
    Ok(Some(ring(settings, &key)?))
}

/// Refuses a store that a proxy would refuse, or whose damage it would find once it serves. Changes
/// nothing. How many pairs each old key is still needed for; `None` if there is no store yet.
pub async fn check(settings: &config::Store) -> Result<Option<Vec<(KeyId, u64)>>, StoreError> {
    store::check_place(&place(settings))?;
    match view(settings).await? {
        None => Ok(None),
        Some(view) => {
            view.store.check_whole().await?;
            let needed = view.store.keys().await?;
            Ok(Some(canary::check_records(&view.ring, &needed)?))
        }
    }
}

/// What an operator should know of a store that is not refused: one sentence each.
pub fn warnings(settings: &config::Store) -> Vec<String> {
    let mut warnings = store::warnings(&place(settings));
    let file = settings.path.join(key_file::KEY_FILE);
    if settings.key.is_none() {
        warnings.extend(key_file::warning(&settings.path));
        warnings.push(format!(
            "no [store] key is configured: {} lies beside the store, so that a copy of the \
             folder is every token in clear; keep the key elsewhere, and a backup of it",
            file.display()
        ));
    }
    warnings
}

/// Whether there is a store where the settings say. An error if there was one, or if one must be there.
pub async fn is_there(settings: &config::Store) -> Result<bool, StoreError> {
    Ok(store::is_there(&place(settings)).await?)
}

/// Where the store is, for an operator.
pub fn shown_place(settings: &config::Store) -> String {
    match &settings.postgres {
        Some(postgres) => postgres.address.to_string(),
        None => settings.path.display().to_string(),
    }
}

/// What looks at a store ends with this code if there is none.
pub(super) fn no_store(settings: &config::Settings, code: u8) -> ExitCode {
    let place = shown_place(&settings.store);
    say(&format!(
        "there is no store in {place} yet: the first `run` will make one"
    ));
    ExitCode::from(code)
}

/// Where the store is, without the keys to it.
fn place(settings: &config::Store) -> store::Settings {
    store::Settings {
        path: settings.path.clone(),
        create: settings.create,
        engine: match &settings.postgres {
            None => Engine::Embedded,
            Some(server) => Engine::Postgres(server.clone()),
        },
    }
}

fn read_key(settings: &config::Store) -> Result<Secret, StoreError> {
    key_file::read(&settings.path).map_err(|why| StoreError::KeyUnusable {
        path: settings.path.join(key_file::KEY_FILE),
        why,
    })
}

fn ring(settings: &config::Store, key: &Secret) -> Result<seal::Ring, StoreError> {
    if settings.key.is_none() && seal::Ring::new(key, &[]).is_err() {
        return Err(StoreError::KeyCut(settings.path.join(key_file::KEY_FILE)));
    }
    Ok(seal::Ring::new(key, &settings.old_keys)?)
}
