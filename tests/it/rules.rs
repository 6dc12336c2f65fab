//! What the configuration says may change while requests are under way: each is answered by what was
//! in force when it began.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use damoov_proxy::cli::opening::open_store;
use damoov_proxy::cli::wiring::{Foundation, Wired, rules, wire};
use damoov_proxy::config::{self, Environment, Secrets, Settings};
use damoov_proxy::metrics::Metrics;
use damoov_proxy::proxy::{Forwarder, Proxy, Rules};
use damoov_proxy::server::{self, Ending, Inherited, Stage};
use damoov_proxy::telemetry::access::AccessLog;
use damoov_proxy::telemetry::{Format, Log};
use damoov_proxy::upstream::Hosts;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Callers that go on all the time, and how many requests each of them makes.
const CALLERS: usize = 8;
const REQUESTS: usize = 150;
/// A rule holds for about this long.
const PAUSE: Duration = Duration::from_micros(700);

/// Which of two configurations something is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    A,
    B,
}

impl Side {
    fn letter(self) -> char {
        match self {
            Side::A => 'a',
            Side::B => 'b',
        }
    }

    fn origin(self) -> String {
        format!("https://{}.example", self.letter())
    }
}

/// An API that says who it is and with which instance and key it was called, after a moment.
async fn api(side: Side) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let answer = move |request: Request<Incoming>| async move {
        let named = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        let heard = format!(
            "{} {} {}",
            side.letter(),
            &named("instanceid")[..1],
            named("instancekey")
        );
        let content = request.into_body().collect().await.unwrap().to_bytes();
        tokio::time::sleep(Duration::from_millis(content.len() as u64 % 3)).await;
        Ok::<_, hyper::Error>(http::Response::new(Full::new(Bytes::from(heard))))
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(answer);
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    authority
}

/// The configuration of one side: the same path leads to another host, with another instance and
/// key, for pages of another origin.
fn settings(folder: &Path, side: Side, authority: &str) -> Settings {
    let (letter, origin) = (side.letter(), side.origin());
    let id = "01234567-1111-4111-8111-111111111111".replacen('0', &letter.to_string(), 1);
    let text = format!(
        r#"
listen = "127.0.0.1:0"
allowed_origins = ["{origin}"]
[workers]
threads = 2
[[instance]]
name = "main"
id = "{id}"
key = "key of {letter}"
[store]
path = "store"
[[route]]
path = "/changing"
host = "{letter}.telematicssdk.com"
credential = "instance"
[upstream.hosts]
"{letter}.telematicssdk.com" = "http://{authority}"
"#
    );
    let file = folder.join(format!("{letter}.toml"));
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let loaded = config::load(&file, &Environment::default(), Secrets::Resolve);
    loaded.unwrap().settings
}

/// Publishes the rules of both sides in turn until `ended`.
fn keep_publishing(proxy: &Proxy, both: impl Fn(Side) -> Rules, ended: &AtomicBool) {
    let mut next = Side::B;
    while !ended.load(Ordering::Relaxed) {
        proxy.publish(both(next));
        next = match next {
            Side::A => Side::B,
            Side::B => Side::A,
        };
        thread::sleep(PAUSE);
    }
}

/// What pages of both origins get, in turn. Returns how many answers of each side there were.
async fn call(authority: String, number: usize) -> [usize; 2] {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut answered = [0, 0];
    for round in 0..REQUESTS {
        let page = [Side::A, Side::B][(number + round) % 2];
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{authority}/changing"))
            .header("origin", page.origin())
            .body(Full::new(Bytes::from(vec![b'x'; round])))
            .unwrap();
        let answer = client.request(request).await.unwrap();
        let status = answer.status();
        let permitted = answer.headers().get("access-control-allow-origin").cloned();
        let content = answer.into_body().collect().await.unwrap().to_bytes();
        let content = String::from_utf8(content.to_vec()).unwrap();
        if status == StatusCode::FORBIDDEN {
            // The rules of the other side were in force.
            assert!(content.contains("origin_forbidden"), "{content}");
            assert_eq!(permitted, None);
            continue;
        }
        let letter = page.letter();
        assert_eq!(status, StatusCode::OK, "{content}");
        assert_eq!(content, format!("{letter} {letter} key of {letter}"));
        assert_eq!(permitted.unwrap(), page.origin().as_str());
        answered[page as usize] += 1;
    }
    answered
}

#[tokio::test]
async fn no_request_mixes_two_configurations_that_change_under_load() {
    let folder = TempDir::new().unwrap();
    let sides = [
        settings(folder.path(), Side::A, &api(Side::A).await),
        settings(folder.path(), Side::B, &api(Side::B).await),
    ];
    let hosts = Hosts::new(&sides[0].upstream).unwrap();
    let other_hosts = hosts.updated(&sides[1].upstream).unwrap();
    let log = Log::open(Format::Json).unwrap();
    let foundation = Foundation {
        store: open_store(&sides[0].store).await.unwrap(),
        hosts: hosts.clone(),
        metrics: Arc::new(Metrics::new()),
        access: AccessLog::new(log.lines()),
    };
    let Wired {
        proxy, background, ..
    } = wire(sides[0].clone(), foundation).unwrap();

    let bound = server::bind(sides[0].server.clone(), &mut Inherited::default()).unwrap();
    let authority = bound.local_addrs()[0].to_string();
    let (stage, ending) = Ending::by_hand();
    let (_, times) = watch::channel(sides[0].server.times);
    let answering = proxy.clone();
    let serving = tokio::spawn(server::serve(
        bound,
        move || Forwarder::new(answering.clone()),
        times,
        ending.stage,
    ));
    let ended = Arc::new(AtomicBool::new(false));
    let publishing = thread::spawn({
        let ended = ended.clone();
        move || {
            let both = |side| match side {
                Side::A => rules(&sides[0], &hosts).unwrap(),
                Side::B => rules(&sides[1], &other_hosts).unwrap(),
            };
            keep_publishing(&proxy, both, &ended);
        }
    });
    let calling = (0..CALLERS).map(|number| tokio::spawn(call(authority.clone(), number)));
    let answered = futures_util::future::join_all(calling).await;

    ended.store(true, Ordering::Relaxed);
    publishing.join().unwrap();
    stage.send_replace(Stage::Draining);
    serving.await.unwrap().unwrap();
    background.finish(Duration::ZERO).await;
    let mut all = [0, 0];
    for answered in answered.into_iter().map(Result::unwrap) {
        all = [all[0] + answered[0], all[1] + answered[1]];
    }
    assert!(all.iter().all(|answers| *answers > 50), "{all:?}");
}
