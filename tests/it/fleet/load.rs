//! Callers without end: every user on every sidecar.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use damoov_proxy::simulator::{Handle, Tick};
use http::Request;
use http_body_util::Full;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::scene::{Fleet, HeardSoFar};
use crate::harness::{Client, SCORES, principal, user};

/// How long a caller thinks between two calls, at most.
const THINKS: Duration = Duration::from_millis(40);

/// Callers that call until they are told to stop.
pub struct Load {
    callers: JoinSet<()>,
    goes_on: watch::Sender<bool>,
}

/// One user on one sidecar.
struct Caller {
    damoov: Handle,
    heard: HeardSoFar,
    expiry: Arc<Expiry>,
    sidecar: usize,
    number: usize,
    url: String,
    client: Client,
}

/// When a user's token expired, and which sidecars have served that user since. It expires again once all
/// have: what expires between a refresh and the replay that follows looks like a user whom Damoov refuses.
struct Expiry(Mutex<(Tick, Vec<bool>)>);

impl Load {
    /// Starts a caller for each of these users on each sidecar, which must have been started once. What they
    /// are answered is kept for the judgement; no answer at all is one, too.
    pub fn on(fleet: &Fleet, users: Range<usize>) -> Load {
        let goes_on = watch::Sender::new(true);
        let mut callers = JoinSet::new();
        for number in users {
            let sidecars = vec![true; fleet.sidecars.len()];
            let expiry = Mutex::new((fleet.damoov.handle().tick(), sidecars));
            let expiry = Arc::new(Expiry(expiry));
            for (sidecar, proxy) in fleet.sidecars.iter().enumerate() {
                let caller = Caller {
                    damoov: fleet.damoov.handle().clone(),
                    heard: fleet.heard.clone(),
                    expiry: Arc::clone(&expiry),
                    sidecar,
                    number,
                    url: proxy.url(SCORES),
                    client: Client::new(),
                };
                callers.spawn(caller.call(goes_on.subscribe()));
            }
        }
        Load { callers, goes_on }
    }

    /// Returns once the last answers are there.
    pub async fn stop(mut self) {
        self.goes_on.send_replace(false);
        while let Some(ended) = self.callers.join_next().await {
            ended.unwrap();
        }
    }
}

impl Caller {
    async fn call(self, goes_on: watch::Receiver<bool>) {
        while *goes_on.borrow() {
            let request =
                Request::get(&self.url).header("DeviceToken", user(self.number).to_string());
            let asked = self.damoov.tick();
            let answer = self
                .client
                .send(request.body(Full::default()).unwrap())
                .await;
            let call = asked..self.damoov.tick();
            if answer.as_ref().is_ok_and(|answer| answer.status == 200) {
                self.expiry.served(&self, asked);
            }
            self.heard
                .keep(self.sidecar, self.number, call, answer.ok().as_ref());
            tokio::time::sleep(THINKS.mul_f64(fastrand::f64())).await;
        }
    }
}

impl Expiry {
    /// The last sidecar that serves a user lets the token expire again.
    fn served(&self, caller: &Caller, asked: Tick) {
        let mut expiry = self.0.lock().unwrap();
        let (expired, served) = &mut *expiry;
        if asked < *expired {
            return;
        }
        served[caller.sidecar] = true;
        if served.iter().all(|served| *served) {
            served.fill(false);
            caller.damoov.expire(Some(&principal(caller.number)));
            *expired = caller.damoov.tick();
        }
    }
}
