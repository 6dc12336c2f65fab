//! Sidecars whose wall clocks disagree, while DeviceTokens that nobody knows pour in.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use damoov_proxy::simulator::{KnownUsers, LoginLimit};
use futures_util::future::join_all;
use http::Request;

use super::checker::Trial;
use super::scene::{Fleet, damoov_of_a_fleet};
use crate::harness::{SCORES, allow_many_descriptors, eventually, heavy, rounds, user};
use crate::tokens::Shim;

/// How far the clock of each sidecar is ahead, in seconds.
const CLOCKS: [i64; 5] = [-50, -2, 0, 120, 3600];
const KNOWN: usize = 50;
/// Callers that make up users, at the same time.
const STRANGERS: usize = 40;
/// A JWT is over by the clock that is an hour ahead.
const LIFETIME: Duration = Duration::from_secs(1800);
const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn five_clocks_and_a_crowd_of_made_up_users_keep_to_one_budget() {
    let _turn = heavy().await;
    allow_many_descriptors();
    let made_up = rounds(5_000, 100_000);
    let damoov = damoov_of_a_fleet(|settings| {
        settings.login_limit = Some(LoginLimit::default());
        settings.known_users = KnownUsers::Only((0..KNOWN).map(user).collect());
        settings.lifetimes.after_login = LIFETIME;
    })
    .await;
    let shims = CLOCKS.map(|seconds| {
        let shim = Shim::new();
        shim.set("clock", seconds);
        shim
    });
    let fleet = Fleet::start(damoov, CLOCKS.len(), |number, sidecar| {
        shims[number].apply(sidecar)
    })
    .await;
    fleet.sidecars[2].import(&fleet.damoov, 0..KNOWN);
    fleet.serve_all(0..KNOWN).await;

    let asked = AtomicUsize::new(0);
    let strangers = join_all((0..STRANGERS).map(|_| make_up_users(&fleet, &asked, made_up)));
    let known = async {
        while asked.load(Ordering::Relaxed) < made_up {
            fleet.serve_all([fastrand::usize(0..KNOWN)]).await;
        }
    };
    let (codes, ()) = tokio::join!(strangers, known);
    for code in codes.into_iter().flatten().collect::<HashSet<_>>() {
        let permitted = ["login_budget_exhausted", "login_rejected"];
        assert!(permitted.contains(&code.as_str()), "{code}");
    }

    let counts = fleet.damoov.handle().counts();
    assert_eq!(counts.blocks_tripped, 0);
    assert_eq!(counts.total.refreshes.all(), 0, "somebody's clock counts");
    assert!(counts.total.logins.all() >= 3, "the budget is used");
    // A login takes its slot a moment before it arrives.
    let per = MINUTE - Duration::from_secs(1);
    fleet.judge(Trial {
        budget: vec![(4, per)],
        ..Trial::default()
    });
    assert_few_writes(fleet, made_up as u64).await;
}

/// Asks for users out of nowhere, together with the others until `most` were asked for; the codes of the
/// answers.
async fn make_up_users(fleet: &Fleet, asked: &AtomicUsize, most: usize) -> HashSet<String> {
    let mut codes = HashSet::new();
    loop {
        let number = asked.fetch_add(1, Ordering::Relaxed);
        if number >= most {
            return codes;
        }
        let sidecar = &fleet.sidecars[number % CLOCKS.len()];
        let stranger = uuid::Uuid::new_v4().to_string();
        let request = Request::get(SCORES).header("DeviceToken", stranger);
        codes.insert(sidecar.send(request).await.code());
    }
}

/// What the sidecars wrote in all: far less than a row for each refused user.
async fn assert_few_writes(fleet: Fleet, refused: u64) {
    let Fleet {
        sidecars, database, ..
    } = fleet;
    // A session says what it did when it ends, if not before.
    drop(sidecars);
    eventually("all sessions ended", async || {
        let others = "SELECT count(*) FROM pg_stat_activity
                      WHERE datname = current_database() AND pid <> pg_backend_pid()";
        database.value(others).await == "0"
    })
    .await;
    let written = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint FROM pg_stat_user_tables";
    let written: u64 = database.value(written).await.parse().unwrap();
    assert!(written > 0, "nothing is counted");
    assert!(written < refused / 10, "{written} rows written");
}
