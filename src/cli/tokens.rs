//! `tokens`: looks at the store and changes it, also beside a running proxy, which follows within a
//! second. Never prints a token.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use futures_util::stream::{self, StreamExt};
use serde::Deserialize;

use super::service::{OpenStore, open_store};
use super::{ConfigFile, Failure, print};
use crate::clock::{Clock, Timestamp};
use crate::config::{Secrets, Settings};
use crate::credentials::Pair;
use crate::principal::{DeviceToken, InstanceId, Principal};
use crate::secret::Secret;
use crate::store::{Commit, Entry, Lease, Record, Store};

/// What to do with the stored tokens.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// One line for each principal: instance, generation, age, what is left, notes
    List(ConfigFile),
    /// All that is known of one principal
    Show(One),
    /// Drop a principal's tokens: its next request logs in anew
    Forget(One),
    /// Adopt tokens that were issued elsewhere, without a login
    Import {
        /// JSON lines {"DeviceToken", "InstanceId", "AccessToken", "RefreshToken"}; - for standard input
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// Where the settings are.
        #[command(flatten)]
        config: ConfigFile,
    },
}

/// One principal of a store.
#[derive(Debug, Args)]
pub struct One {
    /// A DeviceToken, or account:NAME
    #[arg(value_parser = principal)]
    principal: Principal,
    /// Where the settings are.
    #[command(flatten)]
    config: ConfigFile,
}

fn principal(text: &str) -> Result<Principal, String> {
    match DeviceToken::parse(text) {
        Ok(token) => Ok(Principal::User(token)),
        Err(error) => Principal::parse(text).ok_or_else(|| error.to_string()),
    }
}

/// Entries read at once.
const PAGE: usize = 1000;
/// Lines imported at once: they share the store's group commits.
const CONCURRENT: usize = 256;
/// A lease that a running proxy holds is waited for so often, this long apart.
const LEASE_TRIES: u32 = 150;
const LEASE_AGAIN: Duration = Duration::from_millis(100);
/// The lease of one import.
const LEASE: Duration = Duration::from_secs(15);
/// `EX_DATAERR` of sysexits.h: some lines could not be imported.
const DATA_ERROR: u8 = 65;
/// Told apart from success by scripts: there is no such principal.
const NOT_FOUND: u8 = 1;

/// Runs the command.
pub fn run(command: Command) -> Result<ExitCode, Failure> {
    let config = match &command {
        Command::List(config) | Command::Import { config, .. } => config,
        Command::Show(one) | Command::Forget(one) => &one.config,
    };
    let (_, loaded) = config
        .clone()
        .load(Secrets::Resolve)
        .map_err(Failure::Config)?;
    super::background_runtime()?.block_on(async {
        let open = open_store(&loaded.settings.store).await?;
        match command {
            Command::List(_) => list(&*open.store).await,
            Command::Show(one) => show(&open, &one.principal).await,
            Command::Forget(one) => forget(&*open.store, &one.principal).await,
            Command::Import { from, .. } => import(&open, &loaded.settings, &from).await,
        }
    })
}

async fn list(store: &dyn Store) -> Result<ExitCode, Failure> {
    let now = Clock::from_environment().wall();
    let mut after: Option<Principal> = None;
    print(&format!(
        "{:<42} {:<36} {:>10} {:>10} {:>10}  NOTES",
        "PRINCIPAL", "INSTANCE", "GENERATION", "AGE", "LEFT"
    ));
    loop {
        let page = store
            .list(after.as_ref(), PAGE)
            .await
            .map_err(Failure::other)?;
        for (principal, entry) in &page {
            print(&line(principal, entry, now));
        }
        match page.into_iter().next_back() {
            None => return Ok(ExitCode::SUCCESS),
            Some((last, _)) => after = Some(last),
        }
    }
}

fn line(principal: &Principal, entry: &Entry, now: Timestamp) -> String {
    let (instance, age, left) = match &entry.record {
        None => ("-".to_owned(), "-".to_owned(), "-".to_owned()),
        Some(record) => (
            record
                .instance
                .map_or("-".to_owned(), |instance| instance.to_string()),
            rough(now.since(record.received)),
            rough(record.expires.since(now)),
        ),
    };
    let notes = notes(entry, now).join(", ");
    let generation = entry.generation.0;
    format!(
        "{:<42} {instance:<36} {generation:>10} {age:>10} {left:>10}  {notes}",
        principal.to_string()
    )
}

/// What stands in the way of this principal's renewal.
fn notes(entry: &Entry, now: Timestamp) -> Vec<String> {
    let notes = &entry.notes;
    let until = |what: &str, until: Timestamp| {
        (until > now).then(|| format!("{what} for {}", rough(until.since(now))))
    };
    [
        notes
            .refresh_dead
            .filter(|dead| *dead == entry.generation)
            .map(|_| "RefreshToken dead".into()),
        notes
            .answer_lost
            .filter(|lost| *lost == entry.generation)
            .map(|_| "answer lost".into()),
        notes
            .rejected
            .and_then(|rejected| until("login rejected", rejected.until)),
        notes
            .contested_until
            .and_then(|contested| until("contested", contested)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// To two digits or so: `45s`, `90m`, `23h`, `60d`.
fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        172_800.. => format!("{}d", seconds / 86_400),
    }
}

async fn show(open: &OpenStore, principal: &Principal) -> Result<ExitCode, Failure> {
    let entry = open.store.load(principal).await.map_err(Failure::other)?;
    if entry == Entry::default() {
        eprintln!("nothing is known of {principal}");
        return Ok(ExitCode::from(NOT_FOUND));
    }
    let now = Clock::from_environment().wall();
    let mut text = format!(
        "principal      {principal}\nin logs        {}\ngeneration     {}\nepoch          {}",
        open.ring.log_name(principal),
        entry.generation.0,
        entry.epoch,
    );
    let mut say = |name: &str, value: String| text.push_str(&format!("\n{name:<14} {value}"));
    match &entry.record {
        None => say("pair", "none".into()),
        Some(record) => {
            let pair = Pair::open(&open.ring, principal, &record.sealed);
            say(
                "instance",
                record.instance.map_or("none".into(), |i| i.to_string()),
            );
            say(
                "received",
                format!("{} ago", rough(now.since(record.received))),
            );
            say("token left", rough(record.expires.since(now)));
            say(
                "RefreshToken",
                match pair {
                    None => "the record is damaged".into(),
                    Some(pair) if pair.refresh_token.is_some() => "present".into(),
                    Some(_) => "none".into(),
                },
            );
        }
    }
    for note in notes(&entry, now) {
        say("note", note);
    }
    print(&text);
    Ok(ExitCode::SUCCESS)
}

async fn forget(store: &dyn Store, principal: &Principal) -> Result<ExitCode, Failure> {
    if store.forget(principal).await.map_err(Failure::other)? {
        print(&format!("forgot {principal}"));
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("nothing is known of {principal}");
    Ok(ExitCode::from(NOT_FOUND))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Line {
    device_token: String,
    instance_id: Option<String>,
    access_token: String,
    refresh_token: Option<String>,
}

async fn import(
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
                eprintln!("line {number}: {reason}");
            }
        }
    }
    print(&format!("imported {imported}, failed {failed}"));
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
