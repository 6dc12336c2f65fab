//! A rolling restart under load, behind a load balancer that follows readiness: nobody notices.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::checker::Trial;
use super::healing::nothing_is_lost;
use super::scene::{Fleet, damoov_of_a_fleet};
use crate::harness::{SCORES, eventually, heavy, rounds, user};
use crate::signals::ask;
use crate::wire::get;

const SIDECARS: usize = 3;
const USERS: usize = 12;
/// Short enough that tokens expire all the time.
const LIFETIME: Duration = Duration::from_secs(3);

/// What the load balancer and its callers know.
struct Balancer {
    sidecars: Vec<Sidecar>,
    answered: AtomicUsize,
    failures: Mutex<Vec<String>>,
    over: AtomicBool,
}

struct Sidecar {
    address: SocketAddr,
    leaving: AtomicBool,
}

impl Balancer {
    /// A user's calls, until all is over: on one connection to a sidecar for as long as that lets it, then on
    /// one to another that is not leaving.
    async fn call(self: Arc<Balancer>, number: usize) {
        let request = get(SCORES, "").replace(&user(1).to_string(), &user(number).to_string());
        while !self.over.load(Ordering::Relaxed) {
            let sidecar = &self.sidecars[fastrand::usize(..SIDECARS)];
            if sidecar.leaving.load(Ordering::Acquire) {
                tokio::task::yield_now().await;
                continue;
            }
            if let Ok(mut stream) = TcpStream::connect(sidecar.address).await {
                self.use_up(&mut stream, &request).await;
            } else {
                self.fails(format!("no connection to {}", sidecar.address));
            }
        }
    }

    fn fails(&self, how: String) {
        self.failures.lock().unwrap().push(how);
    }

    async fn use_up(&self, stream: &mut TcpStream, request: &str) {
        // Some connections of a pool are given up for other reasons.
        for _ in 0..fastrand::usize(1..50) {
            match ask(stream, request).await {
                Some(closes) => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    if closes || self.over.load(Ordering::Relaxed) {
                        return;
                    }
                }
                None => {
                    self.fails(format!("no good answer from {:?}", stream.peer_addr()));
                    return;
                }
            }
        }
    }

    /// Returns after `more` further answers.
    async fn answers(&self, more: usize) {
        let before = self.answered.load(Ordering::Relaxed);
        eventually("there is load", async || {
            self.answered.load(Ordering::Relaxed) >= before + more
        })
        .await;
    }
}

#[tokio::test]
async fn a_rolling_restart_of_three_under_load_fails_no_request() {
    let _turn = heavy().await;
    let damoov = damoov_of_a_fleet(|settings| settings.lifetimes.after_login = LIFETIME).await;
    let mut fleet = Fleet::start(damoov, SIDECARS, |_, sidecar| {
        sidecar.set("drain_delay", "300ms")
    })
    .await;
    fleet.sidecars[0].import(&fleet.damoov, 0..USERS);
    let sidecars = fleet.sidecars.iter().map(|sidecar| Sidecar {
        address: sidecar.address(),
        leaving: AtomicBool::new(false),
    });
    let balancer = Arc::new(Balancer {
        sidecars: sidecars.collect(),
        answered: AtomicUsize::new(0),
        failures: Mutex::default(),
        over: AtomicBool::new(false),
    });
    let mut callers = JoinSet::new();
    for number in 0..USERS {
        callers.spawn(Arc::clone(&balancer).call(number));
    }
    for round in 0..rounds(1, 30) {
        for number in 0..SIDECARS {
            balancer.answers(10 * USERS).await;
            let sidecar = &mut fleet.sidecars[number];
            sidecar.signal(Signal::TERM);
            balancer.sidecars[number]
                .leaving
                .store(true, Ordering::Release);
            let ended = sidecar.ended().await;
            assert!(ended.success(), "{}", sidecar.log());
            sidecar.start().await;
            balancer.sidecars[number]
                .leaving
                .store(false, Ordering::Release);
        }
        let failures = balancer.failures.lock().unwrap().clone();
        assert!(failures.is_empty(), "round {round}: {failures:?}");
    }
    let handle = fleet.damoov.handle();
    eventually("tokens expired under load", async || {
        handle.counts().total.refreshes.ok > 2 * USERS as u64
    })
    .await;
    balancer.over.store(true, Ordering::Relaxed);
    callers.join_all().await;
    assert!(balancer.failures.lock().unwrap().is_empty());
    let sidecars: Vec<_> = fleet.sidecars.iter().collect();
    let healed = nothing_is_lost(&fleet.damoov, &sidecars, 0..USERS).await;
    assert_eq!(fleet.logins(), 0);
    fleet.judge(Trial {
        healed: Some(healed),
        ..Trial::default()
    });
}
