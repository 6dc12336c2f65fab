//! Sidecars that share one store, in front of one simulated Damoov that keeps a journal.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use damoov_proxy::principal::{DeviceToken, Principal};
use damoov_proxy::simulator::{Settings, Simulator, Tick};
use futures_util::future::join_all;
use http::Request;
use servers::Database;

use super::checker::{Heard, Served, Trial, assert_clean};
use crate::harness::{Answer, Builder, Proxy, SCORES, damoov_with, principal, proxy_through, user};

/// The doors of the sidecars, by number.
pub const DOORS: [&str; 10] = [
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
];

/// Sidecars, their store, and what their callers were answered.
pub struct Fleet {
    pub damoov: Simulator,
    pub sidecars: Vec<Proxy>,
    /// Outlives the sidecars.
    pub database: Database,
    pub heard: HeardSoFar,
}

/// What callers were answered, kept for the judgement. Clones are the same.
#[derive(Clone, Default)]
pub struct HeardSoFar(Arc<Mutex<Vec<Heard>>>);

/// A simulated Damoov with a door for each sidecar and a journal; no login limit unless `change` sets one.
pub async fn damoov_of_a_fleet(change: impl FnOnce(&mut Settings)) -> Simulator {
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        settings.doors = DOORS.map(str::to_owned).to_vec();
        change(settings);
    })
    .await;
    damoov.handle().begin_journal();
    damoov
}

/// Sidecar number `number` on a store at this URL.
pub fn sidecar(damoov: &Simulator, number: usize, url: &str) -> Builder {
    keyed(damoov, number).set("store.url", url)
}

/// The same on a store of its own, with the key that all have in common.
pub fn keyed(damoov: &Simulator, number: usize) -> Builder {
    proxy_through(damoov, DOORS[number])
        .set("store.key.env", "FIRST_KEY")
        .env("FIRST_KEY", &BASE64_STANDARD.encode([1; 32]))
        .env("SECOND_KEY", &BASE64_STANDARD.encode([2; 32]))
}

impl Fleet {
    /// `size` sidecars on this database that have not started, the configuration of each changed by `change`.
    pub fn stopped_on(
        database: Database,
        damoov: Simulator,
        size: usize,
        change: impl Fn(usize, Builder) -> Builder,
    ) -> Fleet {
        let sidecars = (0..size).map(|number| {
            let builder = sidecar(&damoov, number, &database.url());
            change(number, builder).stopped_here()
        });
        Fleet {
            sidecars: sidecars.collect(),
            damoov,
            database,
            heard: HeardSoFar::default(),
        }
    }

    /// The same on an empty database, started at the same time.
    pub async fn start(
        damoov: Simulator,
        size: usize,
        change: impl Fn(usize, Builder) -> Builder,
    ) -> Fleet {
        let mut fleet = Fleet::stopped_on(Database::new(), damoov, size, change);
        fleet.start_all().await;
        fleet
    }

    /// Starts all sidecars at the same time.
    pub async fn start_all(&mut self) {
        join_all(self.sidecars.iter_mut().map(Proxy::start)).await;
    }

    /// One call of user `number` on a sidecar. What it was answered is kept for the judgement.
    pub async fn ask(&self, sidecar: usize, number: usize) -> Answer {
        let request = Request::get(SCORES).header("DeviceToken", user(number).to_string());
        let asked = self.damoov.handle().tick();
        let answer = self.sidecars[sidecar].send(request).await;
        let call = asked..self.damoov.handle().tick();
        self.heard.keep(sidecar, number, call, Some(&answer));
        answer
    }

    /// One call that is answered with the user's own token.
    pub async fn serve(&self, sidecar: usize, number: usize) {
        let answer = self.ask(sidecar, number).await;
        let said = (answer.status.as_u16(), answer.served_as().to_owned());
        assert_eq!(
            said,
            (200, user(number).to_string()),
            "user {number} on sidecar {sidecar}: {}",
            answer.text()
        );
    }

    /// Each of these users is served by each sidecar, all at once.
    pub async fn serve_all(&self, users: impl IntoIterator<Item = usize>) {
        let calls = users.into_iter().flat_map(|number| {
            (0..self.sidecars.len()).map(move |sidecar| self.serve(sidecar, number))
        });
        join_all(calls).await;
    }

    /// All calls of Login so far.
    pub fn logins(&self) -> u64 {
        self.damoov.handle().counts().total.logins.all()
    }

    /// The sum of a metric over all sidecars.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let values = self.sidecars.iter().map(|one| one.metric(name, labels));
        join_all(values).await.iter().sum()
    }

    /// Asserts that the journal, and what callers heard, keep to every rule.
    pub fn judge(&self, trial: Trial) {
        let heard = self.heard.0.lock().unwrap().clone();
        let trial = Trial { heard, ..trial };
        assert_clean(&self.damoov.handle().journal(), &trial);
    }
}

impl HeardSoFar {
    /// Keeps one call of user `number` on a sidecar; `None`: there was no answer.
    pub fn keep(&self, sidecar: usize, number: usize, call: Range<Tick>, answer: Option<&Answer>) {
        self.0.lock().unwrap().push(Heard {
            door: DOORS[sidecar],
            principal: principal(number),
            asked: call.start,
            answered: call.end,
            answer: answer.map_or(Served::Nothing, served),
        });
    }
}

fn served(answer: &Answer) -> Served {
    match DeviceToken::parse(answer.served_as()) {
        Ok(device) if answer.status == 200 => Served::As(Principal::User(device)),
        _ => Served::Refused(answer.status.as_u16(), answer.code()),
    }
}
