//! Whatever the API says, however it is cut: nothing panics, hangs or spins, content is what was
//! announced, and a connection is used again only after a whole answer that leaves no doubt.

#![no_main]

use std::future::{Future, pending, poll_fn};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use damoov_proxy::metrics::Metrics;
use damoov_proxy::upstream::pool::{Limits, Pool};
use damoov_proxy::upstream::{Dial, Dialed, Head, Hosts, Redirect, Scheme, Settings, Target};
use http::{HeaderMap, Method};
use http_body_util::{BodyExt, Full};
use httparse::Status;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, split};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::{spawn_local, yield_now};
use tokio::time::{Instant, sleep, timeout};

const HOST: &str = "api.example";
/// Of the paused clock: how long an answer is waited for.
const DEADLINE: Duration = Duration::from_secs(60);
/// Longer than anything takes.
const AGES: Duration = Duration::from_secs(3600);
/// More than a pipe takes, so that an answer can come before all of it was sent.
const LONG: usize = 200 * 1024;
const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";

/// How the rest of the input is said: its first bytes.
#[derive(Clone, Copy)]
struct Scene {
    method: u8,
    /// The length of each piece; 0 is all at once.
    piece: u8,
    ways: u8,
}

impl Scene {
    fn method(self) -> Method {
        match self.method % 4 {
            0 => Method::GET,
            1 => Method::HEAD,
            _ => Method::POST,
        }
    }

    fn content(self) -> Bytes {
        match self.method % 4 {
            2 => Bytes::from("few"),
            3 => Bytes::from(vec![b'x'; LONG]),
            _ => Bytes::new(),
        }
    }

    fn pieces(self, said: &[u8]) -> impl Iterator<Item = &[u8]> {
        let size = match self.piece {
            0 => said.len().max(1),
            size => size.into(),
        };
        said.chunks(size)
    }

    /// Lets the proxy run between two pieces.
    fn pauses(self) -> bool {
        self.ways & 1 != 0
    }

    fn takes_long_content(self) -> bool {
        self.ways & 2 != 0
    }

    fn speaks_first(self) -> bool {
        self.ways & 4 != 0
    }

    fn keeps_open(self) -> bool {
        self.ways & 8 != 0
    }

    fn is_read(self) -> bool {
        self.ways & 16 == 0
    }
}

fuzz_target!(|input: &[u8]| {
    if let [method, piece, ways, said @ ..] = input {
        let scene = Scene {
            method: *method,
            piece: *piece,
            ways: *ways,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build_local(Default::default());
        runtime.expect("a runtime").block_on(play(scene, said));
    }
});

/// One request that is answered with `said`, then one that is answered well.
async fn play(scene: Scene, said: &[u8]) {
    let (dial, dialed) = unbounded_channel();
    let hosts = hosts().clone().dialed_by(Dial::Memory(dial));
    let limits = Limits {
        connect_timeout: AGES,
        idle_timeout: AGES,
        stall_timeout: AGES,
        max_connections: 1,
    };
    let metrics = metrics();
    let targets = hosts.targets([HOST].into_iter()).expect("a good name");
    let target = &targets[HOST];
    let pool = Pool::new(&targets, limits, metrics);
    let (all_said, said_all) = oneshot::channel();
    let api = spawn_local(api(scene, said.to_vec(), dialed, all_said));

    let most = 500 + 4 * said.len();
    let began = Instant::now();
    let first = ask(&pool, target, scene.method(), scene.content(), scene.is_read());
    let got = bounded(most, first).await;
    assert!(scene.keeps_open() || began.elapsed() < DEADLINE, "it hangs");
    let expected = whole(&scene.method(), said);
    if let Some(content) = &got {
        let (_, expected) = expected.as_ref().expect("no whole answer was said");
        assert_eq!(content, expected);
    }

    said_all.await.expect("the API says all that it has to say");
    let second = ask(&pool, target, Method::GET, Bytes::new(), true);
    let second = timeout(AGES, bounded(500, second)).await;
    let second = second.expect("the place of the first request is free");
    assert_eq!(second.expect("a good answer"), b"good");
    if api.await.expect("the API does not panic") {
        let (end, _) = expected.expect("a connection is used again after no whole answer");
        assert_eq!(end, Some(said.len()), "and only if nothing else was said");
    }

    drop(pool);
    sleep(AGES).await;
    let open = metrics.upstream_connections.get();
    assert_eq!(open, 0, "every connection is closed");
}

/// Plays the API, and tells whether both requests came on one connection.
async fn api(
    scene: Scene,
    said: Vec<u8>,
    mut dialed: UnboundedReceiver<Dialed>,
    all_said: oneshot::Sender<()>,
) -> bool {
    let first = dialed.recv().await.expect("a first connection");
    let (mut hears, mut says) = split(first.stream);
    let (heard, has_heard) = oneshot::channel();
    let hearing = async move {
        hear(&mut hears).await?;
        let _ = heard.send(());
        let length = scene.content().len();
        if length == LONG && !scene.takes_long_content() {
            return pending().await;
        }
        hears.read_exact(&mut vec![0; length]).await.ok()?;
        hear(&mut hears).await
    };
    let saying = async {
        if !scene.speaks_first() {
            let _ = has_heard.await;
        }
        for piece in scene.pieces(&said) {
            // The proxy may have closed the connection.
            let _ = says.write_all(piece).await;
            if scene.pauses() {
                yield_now().await;
            }
        }
        if !scene.keeps_open() {
            let _ = says.shutdown().await;
        }
        let _ = all_said.send(());
        says
    };
    let first = async {
        let (again, mut says) = tokio::join!(hearing, saying);
        match again {
            Some(()) => says.write_all(GOOD).await.expect("it waits for the answer"),
            None => pending().await,
        }
    };
    let second = async {
        let mut second = dialed.recv().await.expect("a second connection").stream;
        hear(&mut second).await.expect("a second request");
        second
            .write_all(GOOD)
            .await
            .expect("it waits for the answer");
    };
    tokio::select! {
        () = first => true,
        () = second => false,
    }
}

/// Reads a head.
async fn hear(stream: &mut (impl AsyncRead + Unpin)) -> Option<()> {
    let mut heard = Vec::new();
    while !heard.ends_with(b"\r\n\r\n") {
        heard.push(stream.read_u8().await.ok()?);
    }
    Some(())
}

/// The content of the answer, if one came and was read whole.
async fn ask(
    pool: &Pool,
    target: &Target,
    method: Method,
    content: Bytes,
    read: bool,
) -> Option<Vec<u8>> {
    let head = Head {
        method,
        target: "/".parse().expect("a path"),
        headers: HeaderMap::new(),
    };
    let answer = pool.send(target, &head, Full::new(content), Instant::now(), sleep(DEADLINE));
    let content = answer.await.ok()?.into_body();
    if !read {
        return None;
    }
    let content = timeout(DEADLINE, content.collect()).await.ok()?.ok()?;
    Some(content.to_bytes().to_vec())
}

/// What a plain reading of `said` makes of it: where a whole answer ends, unless with the
/// connection, and its content.
fn whole(method: &Method, mut said: &[u8]) -> Option<(Option<usize>, Vec<u8>)> {
    let all = said.len();
    loop {
        let mut fields = [httparse::EMPTY_HEADER; 100];
        let mut head = httparse::Response::new(&mut fields);
        let Ok(Status::Complete(end)) = head.parse(said) else {
            return None;
        };
        said = &said[end..];
        let field = |name: &str| {
            let fields = head.headers.iter();
            let named = fields.filter(|field| field.name.eq_ignore_ascii_case(name));
            named.map(|field| field.value).collect::<Vec<_>>()
        };
        let ends = |at: usize| Some(all - said.len() + at);
        match head.code? {
            101 => return None,
            100..200 => continue,
            204 | 205 | 304 => return Some((ends(0), Vec::new())),
            _ if *method == Method::HEAD => return Some((ends(0), Vec::new())),
            _ => {}
        }
        return match (&*field("content-length"), &*field("transfer-encoding")) {
            ([], []) => Some((None, said.to_vec())),
            ([length], []) => {
                let length = str::from_utf8(length).ok()?.parse().ok()?;
                Some((ends(length), said.get(..length)?.to_vec()))
            }
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => {
                let (length, content) = dechunked(said)?;
                Some((ends(length), content))
            }
            _ => None,
        };
    }
}

/// How long the chunks are, and their content.
fn dechunked(said: &[u8]) -> Option<(usize, Vec<u8>)> {
    let (mut at, mut content) = (0, Vec::new());
    loop {
        let Ok(Status::Complete((line, size))) = httparse::parse_chunk_size(&said[at..]) else {
            return None;
        };
        at += line;
        if size == 0 {
            break;
        }
        let end = at.checked_add(usize::try_from(size).ok()?)?;
        content.extend_from_slice(said.get(at..end)?);
        at = end + b"\r\n".len();
        said.get(..at)?.strip_suffix(b"\r\n")?;
    }
    loop {
        let line = said[at..].windows(2).position(|end| end == b"\r\n")?;
        at += line + b"\r\n".len();
        if line == 0 {
            return Some((at, content));
        }
    }
}

/// Fails where `future` is polled more than `most` times.
async fn bounded<F: Future>(most: usize, future: F) -> F::Output {
    let mut future = pin!(future);
    let mut polls = 0;
    poll_fn(|cx| {
        polls += 1;
        assert!(polls <= most, "it spins");
        future.as_mut().poll(cx)
    })
    .await
}

/// Made once: it reads certificates.
fn metrics() -> &'static Arc<Metrics> {
    static METRICS: OnceLock<Arc<Metrics>> = OnceLock::new();
    METRICS.get_or_init(|| Arc::new(Metrics::new()))
}

fn hosts() -> &'static Hosts {
    static HOSTS: OnceLock<Hosts> = OnceLock::new();
    HOSTS.get_or_init(|| {
        let redirect = Redirect {
            scheme: Scheme::Http,
            authority: HOST.to_owned(),
        };
        let settings = Settings {
            connect_timeout: AGES,
            response_timeout: AGES,
            stall_timeout: AGES,
            idle_timeout: AGES,
            max_connections: 1,
            ca_file: None::<PathBuf>,
            redirects: [(HOST.to_owned(), redirect)].into(),
        };
        Hosts::new(&settings).expect("good settings")
    })
}
