//! Everything that the store tells about one principal: its pair, its notes, what stands in the way of
//! its login, and what its next request does and costs. For a person, or a program, that asks why.
//! Shows no token.

mod obstacles;
mod outlook;
mod past;

use std::fmt::Display;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::settings::Settings;
use super::vault::pair::Pair;
use super::vault::seal::{Ring, Unopened};
use crate::clock::{Stamp, Timestamp};
use crate::directory::Directory;
use crate::principal::{InstanceId, Principal};
use crate::store::{Away, Condition, Entry, Error, Guard, KeyId, LeaseHolder, LoginBudget, RunId};
use crate::telemetry::LogName;

pub use obstacles::Obstacle;
pub use outlook::{After401, NextRequest};
pub use past::{LastRenewal, RenewalOutcome};

/// Who is asked about, and what is known.
pub struct Inquiry<'a> {
    /// The numbers of the engine.
    pub settings: &'a Settings,
    /// The credentials that are configured.
    pub directory: &'a Directory,
    /// The keys of the store.
    pub ring: &'a Ring,
    /// Who is asked about.
    pub principal: &'a Principal,
    /// What the store says of it.
    pub entry: &'a Entry,
    /// The state of the login budget.
    pub budget: &'a LoginBudget,
    /// Who holds its lease.
    pub lease: Option<LeaseHolder>,
    /// How the store is.
    pub condition: &'a Condition,
    /// Now, by the store's clock.
    pub now: Stamp,
}

/// Everything that is known of one principal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// Who it is.
    #[serde(serialize_with = "as_text")]
    pub principal: Principal,
    /// Whether the store knows anything of it.
    pub known: bool,
    /// What stands for it in logs.
    #[serde(serialize_with = "as_text")]
    pub log_name: LogName,
    /// How many pairs it has had.
    pub generation: u64,
    /// How often it was forgotten.
    pub epoch: u64,
    /// The instance that its pair was issued under, or that a user without a pair was registered in.
    #[serde(serialize_with = "as_text_or_null")]
    pub instance: Option<InstanceId>,
    /// Its pair, as far as it can be told without asking the API.
    pub stored: Stored,
    /// How old the pair is; `None` if there is none.
    pub ages: Option<Ages>,
    /// The answer to the last refresh was lost: its RefreshToken may have been rotated. It is tried once
    /// more before a login.
    pub answer_lost: bool,
    /// How its last renewal ended, as far as the store tells: failures of the moment are only in the log
    /// of the process that met them. `None`: nobody has renewed it.
    pub last_renewal: Option<LastRenewal>,
    /// Everything that stands in the way of a login.
    pub obstacles: Vec<Obstacle>,
    /// What its next request does.
    pub next_request: NextRequest,
    /// What a 401 to that request then does.
    pub after_401: After401,
    /// Who renews it now; `None` if nobody does.
    pub lease: Option<Renewing>,
    /// How the store is.
    pub store: StoreState,
}

/// A process that renews a principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Renewing {
    /// The process run, as the log names it.
    #[serde(serialize_with = "as_text")]
    pub run: RunId,
    /// Since when; `None` if the store does not keep that.
    #[serde(rename = "since_millis")]
    pub since: Option<Timestamp>,
    /// How long it has been at it.
    #[serde(rename = "age_seconds", serialize_with = "as_seconds_or_null")]
    pub age: Option<Duration>,
    /// How long it may still go on without a sign of life, in real time.
    #[serde(rename = "left_seconds", serialize_with = "as_seconds")]
    pub left: Duration,
}

/// How the store is, as far as it concerns renewals.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoreState {
    /// Since when and why it is not reached; `None` if it is.
    #[serde(serialize_with = "why_or_null")]
    pub away: Option<Away>,
    /// Whether processes on other machines may share it.
    pub shared: bool,
    /// Pairs that wait on this machine's disk until the store has them.
    pub outbox: u64,
    /// Seconds by which the store's clock is ahead of this machine's.
    #[serde(rename = "clock_offset_seconds")]
    pub clock_offset: f64,
    /// Processes that share it.
    pub processes: u32,
    /// Whether a synchronous standby stands behind it; `None` if that is not known, or means nothing.
    pub standby: Option<bool>,
}

/// What is known of a stored pair without asking the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stored {
    /// There is no pair.
    Absent,
    /// It is sealed with this key, which is not configured: it is left alone, and so is its user.
    KeyMissing(#[serde(serialize_with = "as_text")] KeyId),
    /// It cannot be opened with the key that it names.
    Damaged,
    /// It has no RefreshToken.
    WithoutRefreshToken,
    /// Its RefreshToken was rejected.
    Dead,
    /// Its RefreshToken can be redeemed.
    Refreshable,
}

/// How old a pair is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ages {
    /// When its JWT was received.
    #[serde(rename = "received_millis")]
    pub received: Timestamp,
    /// When its JWT expires.
    #[serde(rename = "expires_millis")]
    pub expires: Timestamp,
    /// How long ago it was received.
    #[serde(rename = "age_seconds", serialize_with = "as_seconds")]
    pub age: Duration,
    /// How long the JWT still lives; zero once it has expired.
    #[serde(rename = "left_seconds", serialize_with = "as_seconds")]
    pub left: Duration,
    /// How long ago it expired; zero while it lives.
    #[serde(rename = "overdue_seconds", serialize_with = "as_seconds")]
    pub overdue: Duration,
}

/// Explains a principal. `guard` reads one of the store's guards by its name.
///
/// # Errors
///
/// Those of `guard`.
pub async fn explain<F: Future<Output = Result<Guard, Error>>>(
    inquiry: &Inquiry<'_>,
    guard: impl Fn(String) -> F,
) -> Result<Explanation, Error> {
    let Inquiry {
        principal, entry, ..
    } = *inquiry;
    let now = inquiry.now.wall;
    let obstacles = obstacles::of(inquiry, guard).await?;
    let record = entry.record.as_ref();
    let stored = Stored::of(inquiry.ring, principal, entry);
    let ages = record.map(|record| Ages {
        received: record.received,
        expires: record.expires,
        age: now.since(record.received),
        left: record.expires.since(now),
        overdue: now.since(record.expires),
    });
    let next_request = NextRequest::of(stored, ages, &obstacles, inquiry.settings.wait);
    Ok(Explanation {
        principal: principal.clone(),
        known: *entry != Entry::default(),
        log_name: inquiry.ring.log_name(principal),
        generation: entry.generation.0,
        epoch: entry.epoch,
        instance: record
            .and_then(|record| record.instance)
            .or(entry.notes.registered_in),
        stored,
        ages,
        answer_lost: entry.notes.answer_lost == Some(entry.generation),
        last_renewal: LastRenewal::of(entry, now, inquiry.settings.remember_rejected),
        next_request,
        after_401: After401::of(inquiry, next_request, stored, &obstacles),
        obstacles,
        lease: inquiry.lease.map(|holder| Renewing {
            run: holder.run,
            since: holder.since,
            age: holder.since.map(|since| now.since(since)),
            left: holder.left,
        }),
        store: StoreState::of(inquiry.condition),
    })
}

impl StoreState {
    fn of(condition: &Condition) -> StoreState {
        StoreState {
            away: condition.away.clone(),
            shared: condition.shared,
            outbox: condition.outbox,
            clock_offset: condition.clock_offset,
            processes: condition.processes,
            standby: condition.standby,
        }
    }
}

impl Stored {
    /// What is known of the pair in `entry`.
    pub fn of(ring: &Ring, principal: &Principal, entry: &Entry) -> Stored {
        let Some(record) = &entry.record else {
            return Stored::Absent;
        };
        match Pair::of_record(ring, principal, record) {
            Err(Unopened::UnknownKey) => Stored::KeyMissing(record.key),
            Err(_) => Stored::Damaged,
            Ok(pair) if pair.refresh_token.is_none() => Stored::WithoutRefreshToken,
            Ok(_) if entry.notes.refresh_dead == Some(entry.generation) => Stored::Dead,
            Ok(_) => Stored::Refreshable,
        }
    }

    /// Whether only a login brings its next token.
    pub fn needs_login(self) -> bool {
        match self {
            Stored::Absent | Stored::Damaged | Stored::WithoutRefreshToken | Stored::Dead => true,
            Stored::KeyMissing(_) | Stored::Refreshable => false,
        }
    }
}

fn as_text<S: Serializer>(shown: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(shown)
}

fn as_text_or_null<S: Serializer>(
    shown: &Option<impl Display>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match shown {
        Some(shown) => serializer.collect_str(shown),
        None => serializer.serialize_none(),
    }
}

fn as_seconds<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(span.as_secs_f64())
}

fn as_seconds_or_null<S: Serializer>(
    span: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    span.map(|span| span.as_secs_f64()).serialize(serializer)
}

fn why_or_null<S: Serializer>(away: &Option<Away>, serializer: S) -> Result<S::Ok, S::Error> {
    let why = away.as_ref().map(|away| &away.why);
    why.serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::fixture::{Medium, Process, directory, grant, main, settings, user};
    use crate::secret::Secret;
    use crate::store::{LeaseId, Note};

    async fn explanation(process: &Process) -> Explanation {
        let key = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
        let (settings, directory) = (settings(), directory());
        let entry = process.store.load(&user(1)).await.unwrap();
        let budget = process.store.login_budget(&settings.budget).await.unwrap();
        let inquiry = Inquiry {
            settings: &settings,
            directory: &directory,
            ring: &Ring::new(&Secret::from(key), &[]).unwrap(),
            principal: &user(1),
            entry: &entry,
            budget: &budget,
            lease: process.store.lease_holder(&user(1)).await.unwrap(),
            condition: &process.store.condition(),
            now: process.store.stamp(),
        };
        let guard = |name: String| {
            let store = process.store.clone();
            async move { store.guard(&name).await }
        };
        explain(&inquiry, guard).await.unwrap()
    }

    #[tokio::test]
    async fn a_principal_is_explained_from_its_first_login_to_its_dead_token() {
        let process = Medium::new().start();
        let provider = &process.provider;
        let nothing = explanation(&process).await;
        assert_eq!(nothing.stored, Stored::Absent);
        assert_eq!(nothing.next_request, NextRequest::LogsIn);

        let expected = provider.expect_tokens().unwrap();
        let user = user(1);
        let adopted = provider.adopt(expected, &user, Some(main()), grant(&user, 1));
        let adopted = adopted.await.unwrap();
        let known = explanation(&process).await;
        assert_eq!(known.stored, Stored::Refreshable);
        assert_eq!(known.next_request, NextRequest::Served);
        assert_eq!(known.instance, Some(main()));
        assert!(known.ages.unwrap().left > Duration::from_secs(86_000));

        let dead = Note::RefreshDead(adopted.generation);
        process.store.note(&user, dead).await.unwrap();
        let dead = explanation(&process).await;
        assert_eq!(dead.stored, Stored::Dead);
        assert_eq!(
            (dead.next_request, dead.stored.needs_login()),
            (NextRequest::Served, true)
        );
        let json = serde_json::to_value(&dead).unwrap();
        assert_eq!(json["stored"], "dead");
        assert_eq!(json["next_request"], "served");
        assert_eq!(json["instance"], main().to_string());
    }

    #[tokio::test]
    async fn who_renews_a_principal_is_told() {
        let process = Medium::new().start();
        assert_eq!(explanation(&process).await.lease, None);
        let (id, ttl) = (LeaseId::fresh(), Duration::from_secs(15));
        process
            .store
            .lease(&user(1), id, ttl)
            .await
            .unwrap()
            .1
            .unwrap();
        let lease = explanation(&process).await.lease.unwrap();
        assert!(lease.left > Duration::from_secs(10), "{:?}", lease.left);
        let json = serde_json::to_value(explanation(&process).await).unwrap();
        assert_eq!(json["lease"]["run"], lease.run.to_string());
        assert!(json["lease"]["left_seconds"].as_f64().unwrap() > 10.0);
        assert_eq!(json["store"]["processes"], 1);
    }
}
