//! `tokens import`: adopts tokens that were issued elsewhere, without a login.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde::Deserialize;

use crate::cli::service::OpenStore;
use crate::cli::{Failure, print, say};
use crate::clock::Clock;
use crate::config::Settings;
use crate::credentials::Pair;
use crate::principal::{DeviceToken, InstanceId, Principal};
use crate::secret::Secret;
use crate::store::{Commit, Lease, Record, Store};

/// Lines imported at once: they share the store's group commits.
const CONCURRENT: usize = 256;
/// A lease that a running proxy holds is waited for so often, this long apart.
const LEASE_TRIES: u32 = 150;
const LEASE_AGAIN: Duration = Duration::from_millis(100);
/// The lease of one import.
const LEASE: Duration = Duration::from_secs(15);
/// `EX_DATAERR` of sysexits.h: some lines could not be imported.
const DATA_ERROR: u8 = 65;
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Line {
    device_token: String,
    instance_id: Option<String>,
    access_token: String,
    refresh_token: Option<String>,
}

/// Imports every line of the file.
pub(super) async fn import(
    open: &OpenStore,
    settings: &Settings,
    from: &PathBuf,
) -> Result<ExitCode, Failure> {
    let lines: Box<dyn BufRead> = match from.as_os_str() == "-" {
        true => Box::new(io::stdin().lock()),
        false => Box::new(BufReader::new(File::open(from).map_err(|error| {
            Failure::other(
                anyhow::Error::new(error).context(format!("cannot read {}", from.display())),
            )
        })?)),
    };
    let clock = Clock::from_environment();
    let numbered = lines
        .lines()
        .enumerate()
        .filter(|(_, line)| line.as_ref().map_or(true, |line| !line.trim().is_empty()));
    let outcomes = stream::iter(numbered).map(|(index, line)| async move {
        let imported = match line {
            Ok(line) => import_line(open, settings, &clock, &line).await,
            Err(error) => Err(error.to_string()),
        };
        (index + 1, imported)
    });
    let mut outcomes = std::pin::pin!(outcomes.buffer_unordered(CONCURRENT));
    let (mut imported, mut failed) = (0u64, 0u64);
    while let Some((number, outcome)) = outcomes.next().await {
        match outcome {
            Ok(()) => imported += 1,
            Err(reason) => {
                failed += 1;
                say(&format!("line {number}: {reason}"));
            }
        }
    }
    print(&format!("imported {imported}, failed {failed}"))?;
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(DATA_ERROR)
    })
}

async fn import_line(
    open: &OpenStore,
    settings: &Settings,
    clock: &Clock,
    line: &str,
) -> Result<(), String> {
    // serde's message would quote the line, and with it a token.
    let line: Line = serde_json::from_str(line).map_err(|error| {
        format!(
            "not an object of DeviceToken, InstanceId, AccessToken, RefreshToken (column {})",
            error.column()
        )
    })?;
    let user = DeviceToken::parse(&line.device_token).map_err(|e| format!("DeviceToken: {e}"))?;
    let instance = instance(settings, line.instance_id.as_deref())?;
    let pair = Pair::imported(
        user,
        Secret::new(line.access_token),
        line.refresh_token
            .filter(|token| !token.is_empty())
            .map(Secret::new),
        clock.wall(),
    )
    .map_err(|error| error.to_string())?;
    let principal = Principal::User(user);
    lease(&*open.store, &principal).await?;
    let entry = open
        .store
        .load(&principal)
        .await
        .map_err(|error| error.to_string())?;
    let stands = entry.record.as_ref();
    let before = stands.and_then(|record| Pair::open(&open.ring, &principal, &record.sealed));
    let pair = pair.replacing(before.as_ref());
    let record = Record {
        instance: Some(instance),
        known: true,
        sealed: pair.seal(&open.ring, &principal),
        key: open.ring.key_id(),
        received: pair.received,
        expires: pair.expires(),
        run: open.run,
    };
    let committed = open
        .store
        .commit(&principal, record, entry.generation, entry.epoch)
        .await;
    open.store.release(&principal);
    match committed.map_err(|error| error.to_string())? {
        Commit::Committed(_) => Ok(()),
        Commit::Superseded(_) => Err("changed meanwhile; import it again".into()),
    }
}

/// Under a lease, so that no renewal of the old pair is under way.
async fn lease(store: &dyn Store, principal: &Principal) -> Result<(), String> {
    for _ in 0..LEASE_TRIES {
        match store
            .lease(principal, LEASE)
            .await
            .map_err(|error| error.to_string())?
        {
            Lease::Granted { .. } => return Ok(()),
            Lease::Held => tokio::time::sleep(LEASE_AGAIN).await,
        }
    }
    Err("a running proxy renews it and does not come to an end".into())
}

/// The configured instance that the line names, or the default one.
fn instance(settings: &Settings, named: Option<&str>) -> Result<InstanceId, String> {
    let instances = &settings.credentials.instances;
    match named {
        Some(id) => {
            let id = InstanceId::parse(id).map_err(|error| format!("InstanceId: {error}"))?;
            let configured = instances.iter().any(|instance| instance.id == id);
            configured
                .then_some(id)
                .ok_or_else(|| format!("InstanceId {id} is not configured"))
        }
        None => match instances.as_slice() {
            [only] => Some(only),
            several => several.iter().find(|instance| instance.default),
        }
        .map(|instance| instance.id)
        .ok_or_else(|| "InstanceId is missing, and no instance is the default".into()),
    }
}
