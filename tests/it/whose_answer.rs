//! A hostile API over real sockets, and whose its answers become. Everything that it says to a request
//! carries that request's tag, in whatever shape: an answer and bytes behind it, two answers at once,
//! content where there is none, two framings that disagree, bytes that come once the connection is
//! idle. `tests/fuzz/run answers` plays a million of them.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use damoov_proxy::metrics::Metrics;
use damoov_proxy::upstream::pool::{Limits, Pool};
use damoov_proxy::upstream::{Head, Hosts, Redirect, Scheme, Settings, Target};
use fastrand::Rng;
use http::HeaderMap;
use http_body_util::{BodyExt, Full};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use crate::harness::{loopback, rounds};

// The hostile API: what it does on each of its connections.
mod api;
// What the API does with one request, by chance.
mod plan;
// Answers, good and hostile.
mod said;

use api::{Stage, accept};
use plan::Plan;

const HOST: &str = "api.example";
/// Longer than anything takes.
const AGES: Duration = Duration::from_secs(600);
/// What takes longer hangs.
const HANGS: Duration = Duration::from_secs(10);

/// No request may be given another one's tag, and a good answer always reaches who asked.
#[test]
fn no_answer_of_a_hostile_api_is_given_to_another_request() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let count = number("ANSWERS").unwrap_or(rounds(3_000, 1_000_000) as u64);
    let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..));
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default());
    let findings = runtime.unwrap().block_on(run(count, seed));
    assert!(findings.is_empty(), "seed {seed}:\n{}", findings.join("\n"));
}

/// Plays `count` answers; returns what was wrong.
async fn run(count: u64, seed: u64) -> Vec<String> {
    let listener = TcpListener::bind(loopback(0)).await;
    let listener = listener.unwrap();
    let (pool, target) = pool(listener.local_addr().unwrap());
    let stage = Rc::new(Stage::default());
    spawn_local(accept(listener, stage.clone()));
    let mut rng = Rng::with_seed(seed);
    let mut tags: HashSet<String> = HashSet::new();
    let (mut whole, mut refused, mut findings) = (0u64, 0u64, Vec::new());
    let mut mixed_up = 0;
    for number in 0..count {
        if number > 0 && number % 100_000 == 0 {
            eprintln!("{number} …");
        }
        let plan = Rc::new(Plan::new(&mut rng, seed, number));
        tags.insert(plan.tag.clone());
        *stage.plan.borrow_mut() = Some(plan.clone());
        let heard = timeout(HANGS, ask(&pool, &target, number, &plan)).await;
        plan.taken.set(true);
        stage.changed.notify_waiters();
        let finding = match &heard {
            Err(_) => Some("it hangs".to_owned()),
            Ok(heard) => {
                match heard.failure {
                    None => whole += 1,
                    Some(_) => refused += 1,
                }
                if heard
                    .tags()
                    .any(|tag| tag != plan.tag && tags.contains(tag))
                {
                    mixed_up += 1;
                    Some(format!("another request's answer: {heard:?}"))
                } else if plan
                    .must
                    .as_ref()
                    .is_some_and(|must| *must != heard.content)
                    || plan.must.is_some() && heard.failure.is_some()
                {
                    Some(format!("a good answer did not arrive: {heard:?}"))
                } else {
                    None
                }
            }
        };
        if let Some(finding) = finding {
            let said = plan.said.escape_ascii();
            findings.push(format!(
                "{number}: {} {finding}\n    said: {said}",
                plan.method
            ));
            if findings.len() == 20 {
                break;
            }
        }
        if plan.at_once {
            stage.act_at_once(&plan.then);
            plan.let_it_arrive();
            continue;
        }
        // Whatever the API says after the answer has arrived before the next request begins.
        let done = timeout(HANGS, async {
            while stage.busy.get() > 0 {
                stage.changed.notified().await;
            }
        });
        done.await.unwrap();
        plan.let_it_arrive();
    }
    eprintln!(
        "{count} generated answers, seed {seed}: {whole} passed on whole, {refused} refused or cut, \
         on {} connections; {} findings, {mixed_up} answers given to another request",
        stage.accepted.get(),
        findings.len(),
    );
    findings
}

fn pool(api: SocketAddr) -> (Pool, Target) {
    let redirect = Redirect {
        scheme: Scheme::Http,
        authority: api.to_string(),
    };
    let settings = Settings {
        connect_timeout: HANGS,
        response_timeout: AGES,
        stall_timeout: AGES,
        idle_timeout: AGES,
        max_connections: 1,
        ca_file: None::<PathBuf>,
        redirects: [(HOST.to_owned(), redirect)].into(),
    };
    let hosts = Hosts::new(&settings).unwrap();
    let limits = Limits {
        connect_timeout: HANGS,
        stall_timeout: AGES,
        idle_timeout: AGES,
        max_connections: 1,
    };
    let targets = hosts.targets([HOST].into_iter()).unwrap();
    let pool = Pool::new(&targets, limits, &Arc::new(Metrics::new()));
    (pool, targets[HOST].clone())
}

/// What a request got.
#[derive(Debug, Default)]
struct Heard {
    /// Status and fields.
    head: String,
    content: Vec<u8>,
    failure: Option<String>,
}

impl Heard {
    /// Everything in it that looks like a tag.
    fn tags(&self) -> impl Iterator<Item = &str> {
        let content = str::from_utf8(&self.content).unwrap_or_default();
        let words = [&*self.head, content].into_iter();
        words.flat_map(|text| text.split('~').skip(1).step_by(2))
    }
}

async fn ask(pool: &Pool, target: &Target, number: u64, plan: &Plan) -> Heard {
    let head = Head {
        method: plan.method.clone(),
        target: format!("/{number}").parse().unwrap(),
        headers: HeaderMap::new(),
    };
    let content = Full::new(Bytes::from(vec![b'x'; plan.length]));
    let mut heard = Heard::default();
    let answer = pool.send(target, &head, content, Instant::now(), sleep(AGES));
    let answer = match answer.await {
        Ok(answer) => answer,
        Err(error) => {
            heard.failure = Some(format!("{error:?}"));
            return heard;
        }
    };
    let (head, mut content) = answer.into_parts();
    heard.head = format!("{} {:?}", head.status, head.headers);
    while let Some(frame) = content.frame().await {
        match frame {
            Ok(frame) => heard.content.extend(frame.data_ref().into_iter().flatten()),
            Err(error) => heard.failure = Some(format!("{error:?}")),
        }
    }
    heard
}
