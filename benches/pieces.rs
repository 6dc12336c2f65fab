//! What the pieces of a request's path cost, each alone, through the crate's public interface.
//!
//! ```sh
//! cargo bench --bench pieces
//! cargo bench --bench pieces -- seal
//! ```

#[allow(dead_code, reason = "the other bench uses the rest")]
#[path = "in_memory/wiring.rs"]
mod wiring;

#[allow(dead_code, reason = "the other bench uses the rest")]
#[path = "in_memory/exchange.rs"]
mod exchange;

use std::fs::OpenOptions;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion};
use damoov_proxy::caller::{Caller, authorize};
use damoov_proxy::clock::Clock;
use damoov_proxy::credentials::seal::Ring;
use damoov_proxy::credentials::{Need, Pair};
use damoov_proxy::damoov::routes::{Credential, Table};
use damoov_proxy::directory::Directory;
use damoov_proxy::handed_out::HandOut;
use damoov_proxy::head;
use damoov_proxy::headers::{self, Authorization, Renewal};
use damoov_proxy::naming::{self, Bearer};
use damoov_proxy::peer::Peer;
use damoov_proxy::principal::Principal;
use damoov_proxy::replay::{Memory, Recorder};
use damoov_proxy::secret::Secret;
use damoov_proxy::telemetry::LogName;
use damoov_proxy::telemetry::access::{Access, AccessLog};
use damoov_proxy::telemetry::{Format, Log, Lost};
use damoov_proxy::upstream::switch::Stream;
use futures_util::FutureExt;
use http::header::HeaderMap;
use http::{Method, Request, Response, request};
use http_body_util::{BodyExt, Full};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use exchange::{Call, Exchanges};
use wiring::{Wired, jwt, refresh_token, user, wire};

const PATH: &str = "/indicators/v3/Scores/safety";
/// Hits that are timed together.
const HITS: u64 = 5_000;
/// Events told before the log is waited for: fewer than may wait.
const EVENTS: u64 = 25_000;

fn main() {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut criterion = Criterion::default().configure_from_args();
    of_the_head(&mut criterion);
    of_credentials(&mut criterion, &runtime);
    of_content(&mut criterion, &runtime);
    of_connections(&mut criterion, &runtime);
    of_the_log(&mut criterion);
    criterion.final_summary();
}

/// As a service's HTTP client sends it.
fn request() -> request::Parts {
    let request = Request::get(format!("{PATH}?StartDate=2026-11-01&EndDate=2026-11-07"))
        .header("host", "127.0.0.1:8080")
        .header("user-agent", "bench/1.0")
        .header("accept", "application/json")
        .header("accept-encoding", "gzip, deflate")
        .header("connection", "keep-alive")
        .header("devicetoken", user(0).to_string())
        .header("x-request-id", "0c0e7f2b5d7a4a5c");
    request.body(()).expect("a request").into_parts().0
}

/// As the API answers it.
fn answer() -> HeaderMap {
    let answer = Response::builder()
        .header("date", "Sun, 22 Nov 2026 12:00:00 GMT")
        .header("content-type", "application/json; charset=utf-8")
        .header("content-length", "1024")
        .header("connection", "keep-alive")
        .header("server", "Kestrel")
        .header("strict-transport-security", "max-age=31536000");
    answer.body(()).expect("an answer").into_parts().0.headers
}

fn of_the_head(criterion: &mut Criterion) {
    let (request, answer) = (request(), answer());
    let settings = head::Settings::default();
    criterion.bench_function("check a head", |b| {
        b.iter(|| {
            let request = black_box(&request);
            let seen = head::Seen::of(&request.headers);
            head::check(request, seen, &settings).expect("a good one")
        });
    });
    let directory = Directory::new(Vec::new(), Vec::new());
    criterion.bench_function("name a principal", |b| {
        b.iter(|| {
            let (prefix, _) = naming::cut_prefix(black_box(PATH)).expect("a good path");
            naming::name(
                Credential::User,
                prefix,
                Bearer::Absent,
                black_box(&request.headers),
                &directory,
            )
            .expect("a user")
        });
    });
    let table = Table::new(Vec::new(), None);
    criterion.bench_function("find a route", |b| {
        b.iter(|| {
            table
                .find(black_box(PATH), &Method::GET)
                .expect("a known one");
        });
    });
    criterion.bench_function("clean a request's fields", |b| {
        b.iter_batched_ref(
            || request.headers.clone(),
            |fields| headers::clean_request(fields, Authorization::Dropped),
            BatchSize::SmallInput,
        );
    });
    criterion.bench_function("clean an answer's fields", |b| {
        b.iter_batched_ref(
            || answer.clone(),
            |fields| headers::clean_answer(fields, Renewal::None),
            BatchSize::SmallInput,
        );
    });
}

fn of_credentials(criterion: &mut Criterion, runtime: &Runtime) {
    let key = Secret::from("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=");
    let ring = Ring::new(&key, &[]).expect("a key");
    let principal = Principal::User(user(0));
    let pair = Pair::imported(
        &principal,
        Secret::new(jwt(user(0), 0)),
        Secret::new(refresh_token(user(0), 0)),
        Clock::real().wall(),
    )
    .expect("a JWT of this user");
    criterion.bench_function("seal a pair", |b| {
        b.iter(|| pair.seal(&ring, black_box(&principal)));
    });
    let sealed = pair.seal(&ring, &principal);
    criterion.bench_function("open a pair", |b| {
        b.iter(|| Pair::open(&ring, &principal, black_box(&sealed)).expect("its own"));
    });

    let Wired {
        provider,
        handed_out,
        background,
        ..
    } = runtime.block_on(wire(1));
    let caller = Caller::anybody(Peer::Uid(1000));
    let directory = Directory::new(Vec::new(), Vec::new());
    let authorized = authorize(caller, &directory, principal, None).expect("no instance named");
    // From the store; the further ones come from memory, at once.
    let got = runtime.block_on(provider.get(&authorized, Need::Usable));
    let credentials = got.expect("a stored pair").credentials;
    criterion.bench_function("get credentials from memory", |b| {
        b.iter(|| {
            let got = provider.get(black_box(&authorized), Need::Usable);
            got.now_or_never()
                .expect("it is in memory")
                .expect("a token")
        });
    });
    let token = handed_out
        .tokens(HandOut::Own, &caller, authorized.principal(), &credentials)
        .access_token;
    criterion.bench_function("check a handed-out token", |b| {
        b.iter(|| {
            let holder = handed_out.holder(HandOut::Own, &caller, black_box(&token));
            let holder = holder.now_or_never().expect("it is in memory");
            match holder.expect("the store can be read") {
                Bearer::Ours(principal) => principal,
                other => panic!("one of ours that counts, not {other:?}"),
            }
        });
    });
    runtime.block_on(background.finish(Duration::ZERO));
}

fn of_content(criterion: &mut Criterion, runtime: &Runtime) {
    let limit = 1024 * 1024;
    let memory = Arc::new(Memory::new(256 * limit, Default::default()));
    let content = Bytes::from(vec![b'x'; 4096]);
    let _timers = runtime.enter();
    criterion.bench_function("record 4 KiB of content", |b| {
        b.iter(|| {
            let recorder = Recorder::new(Full::new(black_box(content.clone())), &memory, limit);
            let sent = recorder.view().collect().now_or_never();
            sent.expect("all of it is there").expect("whole content");
            assert!(recorder.is_complete() && recorder.keeps());
            recorder
        });
    });
}

/// What it costs to ask an idle connection whether anything lies on it, beside a whole hit, whose
/// connections are in memory.
fn of_connections(criterion: &mut Criterion, runtime: &Runtime) {
    let (mut stream, _far) = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let near = TcpStream::connect(address).await.expect("it listens");
        let (far, _) = listener.accept().await.expect("a connection");
        (Stream::from(near), far)
    });
    criterion.bench_function("ask whether a connection is quiet", |b| {
        b.iter(|| assert!(black_box(&mut stream).is_quiet()));
    });
    let mut group = criterion.benchmark_group("of connections");
    group.sample_size(10);
    group.bench_function("a hit", |b| {
        b.iter_custom(|hits| {
            let calls = |count| (0..count).map(|_| Call::of(user(0)));
            let mut warm = vec![Call::with_stored_token(user(0))];
            warm.extend(calls(10));
            silenced(|| {
                // Enough that the end of the log, which is waited for, is nothing beside them.
                let many = hits.max(HITS);
                let exchanges = Exchanges::through_proxy(1, user(0), warm, calls(many).collect());
                let started = Instant::now();
                drop(exchanges.run());
                started.elapsed().mul_f64(hits as f64 / many as f64)
            })
        });
    });
    group.finish();
}

/// What a line costs the worker; to write it is another thread's work.
fn of_the_log(criterion: &mut Criterion) {
    // The log of the other benches may be followed already.
    let _ = Log::open(Format::Json).expect("a thread").follow(None);
    let event = Access {
        at: Instant::now(),
        route: "/indicators/v3",
        method: "GET",
        status: 200,
        outcome: "ok",
        source: "upstream",
        duration: Duration::from_micros(250),
        renewed: false,
        replayed: false,
        code: None,
        principal: Some(LogName::of([0; 8])),
        trace_id: None,
    };
    criterion.bench_function("tell an access event", |b| {
        b.iter_custom(|mut events| {
            silenced(|| {
                let mut took = Duration::ZERO;
                while events > 0 {
                    let log = Log::open(Format::Json).expect("a thread");
                    let lost = Lost::default();
                    log.lines().count_into(lost.clone());
                    let writer = AccessLog::new(log.lines()).writer();
                    let now = events.min(EVENTS);
                    let started = Instant::now();
                    for _ in 0..now {
                        writer.record(black_box(&event));
                    }
                    took += started.elapsed();
                    drop(log);
                    assert_eq!(lost.access.get(), 0);
                    events -= now;
                }
                took
            })
        });
    });
}

/// Runs this without a standard error.
fn silenced<T>(run: impl FnOnce() -> T) -> T {
    let terminal = rustix::io::dup(rustix::stdio::stderr()).expect("a descriptor");
    let nowhere = OpenOptions::new().write(true).open("/dev/null");
    rustix::stdio::dup2_stderr(nowhere.expect("/dev/null")).expect("a descriptor");
    let result = run();
    rustix::stdio::dup2_stderr(&terminal).expect("a descriptor");
    result
}
