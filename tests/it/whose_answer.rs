//! A hostile API over real sockets, and whose its answers become. Everything that it says to a request
//! carries that request's tag, in whatever shape: an answer and bytes behind it, two answers at once,
//! content where there is none, two framings that disagree, bytes that come once the connection is
//! idle. `tests/fuzz/run answers` plays a million of them.

use std::cell::{Cell, RefCell};
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
use http::{HeaderMap, Method};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::task::{spawn_local, yield_now};
use tokio::time::{Instant, sleep, timeout};

use crate::harness::{loopback, rounds};

const HOST: &str = "api.example";
/// Longer than anything takes.
const AGES: Duration = Duration::from_secs(600);
/// What takes longer hangs.
const HANGS: Duration = Duration::from_secs(10);
/// How often the proxy may run before the API ends an answer that leads to nothing.
const PATIENCE: usize = 24;
/// Request content that fits in no buffer, so that an answer can come before all of it was sent.
const LONG: usize = 256 * 1024;

/// What the API does with one request.
struct Plan {
    tag: String,
    method: Method,
    /// Of the request's content, in bytes.
    length: usize,
    /// Whether the answer is written before the request's content is read.
    early: bool,
    said: Vec<u8>,
    /// What is written at once.
    piece: usize,
    /// The content that the request must get; `None` if the answer is none that must be believed.
    must: Option<Vec<u8>>,
    /// What happens on the connection after the answer has been taken.
    then: Then,
    /// Whether that happens in the very moment before the next request, which nobody can have been
    /// told of.
    at_once: bool,
    /// Whether the request has got its answer, or an error.
    taken: Cell<bool>,
}

/// After an answer.
enum Then {
    Nothing,
    /// Bytes that nobody asked for.
    Says(Vec<u8>),
    Closes,
    Resets,
}

/// The socket of a connection once more.
type Twin = Rc<std::net::TcpStream>;

/// What the driver and the connections of the API know of each other.
#[derive(Default)]
struct Stage {
    plan: RefCell<Option<Rc<Plan>>>,
    /// The connection that had a request last, and its number, for what happens at once.
    last: RefCell<Option<(u64, Twin)>>,
    /// Connections that have a request and are not done with it.
    busy: Cell<usize>,
    changed: Notify,
    accepted: Cell<u64>,
}

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

async fn accept(listener: TcpListener, stage: Rc<Stage>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        stage.accepted.set(stage.accepted.get() + 1);
        let number = stage.accepted.get();
        let stream = stream.into_std().unwrap();
        let twin = Rc::new(stream.try_clone().unwrap());
        let stream = TcpStream::from_std(stream).unwrap();
        let stage = stage.clone();
        spawn_local(async move {
            serve(number, stream, twin, &stage).await;
            stage.last.borrow_mut().take_if(|(last, _)| *last == number);
        });
    }
}

impl Stage {
    /// Does what comes after the answer, without a moment in which anybody could notice.
    fn act_at_once(&self, then: &Then) {
        use std::io::Write;
        let last = self.last.borrow();
        let Some((_, twin)) = &*last else {
            return;
        };
        // The proxy may have closed the connection.
        let _ = match then {
            Then::Says(late) => (&**twin).write_all(late),
            Then::Closes | Then::Resets => twin.shutdown(std::net::Shutdown::Both),
            Then::Nothing => Ok(()),
        };
    }
}

/// One connection of the API.
async fn serve(number: u64, mut stream: TcpStream, twin: Twin, stage: &Stage) {
    while hear(&mut stream).await.is_some() {
        *stage.last.borrow_mut() = Some((number, twin.clone()));
        stage.busy.set(stage.busy.get() + 1);
        let plan = stage.plan.borrow().clone().unwrap();
        let goes_on = answer(&mut stream, &plan).await;
        stage.busy.set(stage.busy.get() - 1);
        stage.changed.notify_waiters();
        if goes_on.is_none() {
            return;
        }
    }
}

/// Says what is planned. `None` if the connection is to be closed.
async fn answer(stream: &mut TcpStream, plan: &Plan) -> Option<()> {
    if !plan.early {
        stream.read_exact(&mut vec![0; plan.length]).await.ok()?;
    }
    for piece in plan.said.chunks(plan.piece) {
        stream.write_all(piece).await.ok()?;
        if plan.piece < plan.said.len() {
            yield_now().await;
        }
    }
    for _ in 0..PATIENCE {
        if plan.taken.get() {
            break;
        }
        yield_now().await;
    }
    if !plan.taken.get() {
        // It leads to nothing, unless its end is the connection's.
        return None;
    }
    match &plan.then {
        _ if plan.at_once => {}
        Then::Nothing => {}
        Then::Says(late) => stream.write_all(late).await.ok()?,
        Then::Closes => return None,
        Then::Resets => {
            let linger = socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
            return linger.is_err().then_some(());
        }
    }
    if plan.early {
        stream.read_exact(&mut vec![0; plan.length]).await.ok()?;
    }
    Some(())
}

/// Reads a head.
async fn hear(stream: &mut TcpStream) -> Option<()> {
    let mut heard = Vec::new();
    while !heard.ends_with(b"\r\n\r\n") {
        let mut piece = [0; 1024];
        // No further than the head, however much has come.
        let here = stream
            .peek(&mut piece)
            .await
            .ok()
            .filter(|read| *read > 0)?;
        let so_far = heard.len();
        heard.extend_from_slice(&piece[..here]);
        let end = heard.windows(4).position(|end| end == b"\r\n\r\n");
        heard.truncate(end.map_or(heard.len(), |end| end + 4));
        let taken = heard.len() - so_far;
        stream.read_exact(&mut piece[..taken]).await.ok()?;
    }
    Some(())
}

/// Tells two requests apart, and is nothing that chance brings about.
fn tag(seed: u64, number: u64) -> String {
    let mut mixed = seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    format!("{:016x}", mixed ^ (mixed >> 31))
}

impl Plan {
    fn new(rng: &mut Rng, seed: u64, number: u64) -> Plan {
        let tag = tag(seed, number);
        let (method, length) = match rng.u8(..16) {
            0..9 => (Method::GET, 0),
            9..11 => (Method::HEAD, 0),
            11..15 => (Method::POST, rng.usize(..100)),
            _ => (Method::POST, LONG),
        };
        let content = format!("~{tag}~").repeat(rng.usize(..6)).into_bytes();
        let is_good = rng.u8(..10) < 3;
        let said = match is_good {
            true => good(rng, &tag, &content),
            false => hostile(rng, &tag, &content),
        };
        let is_early = !is_good && rng.bool();
        let has_content = method != Method::HEAD;
        let piece = match rng.u8(..8) {
            0 => rng.usize(1..64),
            _ => said.len().max(1),
        };
        Plan {
            early: is_early && length == LONG,
            piece,
            // In pieces, more of it may come once the request has what it takes for its answer.
            at_once: rng.bool() && piece >= said.len(),
            must: is_good.then(|| if has_content { content } else { Vec::new() }),
            said: match is_good && !has_content {
                true => head_of(&said),
                false => said,
            },
            then: Then::new(rng, &tag),
            taken: Cell::new(false),
            tag,
            method,
            length,
        }
    }
}

impl Plan {
    /// A busy kernel hands over what loopback carries a little later than it was written; what comes
    /// once the next request is on its way is, to every client of HTTP/1.1, the answer to that one. The
    /// runtime of the proxy does not run meanwhile.
    fn let_it_arrive(&self) {
        if !matches!(self.then, Then::Nothing) {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

impl Then {
    fn new(rng: &mut Rng, tag: &str) -> Then {
        let late = good(rng, tag, format!("~{tag}~").as_bytes());
        match rng.u8(..12) {
            0 => Then::Says(late),
            1 => Then::Says(late[..rng.usize(1..late.len())].to_vec()),
            2 => Then::Says(hostile(rng, tag, format!("~{tag}~").as_bytes())),
            3 => Then::Says(b"\r\n".to_vec()),
            4 => {
                let timeout = format!("HTTP/1.1 408 Request Timeout\r\nX-Tag: ~{tag}~\r\n");
                Then::Says((timeout + "Content-Length: 0\r\nConnection: close\r\n\r\n").into())
            }
            5 => Then::Closes,
            6 => Then::Resets,
            _ => Then::Nothing,
        }
    }
}

fn head_of(said: &[u8]) -> Vec<u8> {
    let end = said.windows(4).position(|end| end == b"\r\n\r\n");
    said[..end.map_or(said.len(), |end| end + 4)].to_vec()
}

/// An answer that leaves no doubt.
fn good(rng: &mut Rng, tag: &str, content: &[u8]) -> Vec<u8> {
    let status = ["200 OK", "201 Created", "401 Unauthorized", "500 Oops"][rng.usize(..4)];
    let mut said = format!("HTTP/1.1 {status}\r\nX-Tag: ~{tag}~\r\n").into_bytes();
    match rng.bool() {
        true => {
            said.extend(format!("Content-Length: {}\r\n\r\n", content.len()).bytes());
            said.extend(content);
        }
        false => {
            said.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            said.extend(chunked(rng, content));
        }
    }
    said
}

fn chunked(rng: &mut Rng, content: &[u8]) -> Vec<u8> {
    let mut said = Vec::new();
    for chunk in content.chunks(rng.usize(1..80)) {
        said.extend(format!("{:x}\r\n", chunk.len()).bytes());
        said.extend(chunk);
        said.extend(b"\r\n");
    }
    said.extend(b"0\r\n\r\n");
    said
}

/// An answer of which something is wrong, or nothing after all.
fn hostile(rng: &mut Rng, tag: &str, content: &[u8]) -> Vec<u8> {
    let pick = |rng: &mut Rng, from: &[&str]| from[rng.usize(..from.len())].to_owned();
    let mut said = Vec::new();
    for _ in 0..rng.usize(..8).saturating_sub(5) {
        let interim = ["100 Continue", "103 Early Hints", "102 Processing", "199 X"];
        said.extend(format!("HTTP/1.1 {}\r\nX-Tag: ~{tag}~\r\n\r\n", pick(rng, &interim)).bytes());
    }
    let line = match rng.u8(..4) {
        0 => pick(
            rng,
            &[
                "HTTP/1.1 204 No Content",
                "HTTP/1.1 304 Not Modified",
                "HTTP/1.1 205 Reset Content",
                "HTTP/1.0 200 OK",
                "HTTP/1.1 101 Switching Protocols",
                "HTTP/1.1 20 OK",
                "HTTP/1.1 2000 OK",
                "HTTP/2 200",
                "HTTP/1.1 200",
                "http/1.1 200 OK",
                "ICY 200 OK",
                "",
                "\r\nHTTP/1.1 200 OK",
                "HTTP/1.1  200 OK",
                "HTTP/1.1 200 OK\r\nHTTP/1.1 200 OK",
                "PRI * HTTP/2.0\r\n\r\nSM",
            ],
        ),
        _ => "HTTP/1.1 200 OK".to_owned(),
    };
    said.extend(format!("{line}\r\nX-Tag: ~{tag}~\r\n").bytes());
    let length = content.len();
    let chunks = chunked(rng, content);
    let (framing, content) = match rng.u8(..16) {
        0 => (format!("Content-Length: {length}"), content.to_vec()),
        1 => ("Transfer-Encoding: chunked".into(), chunks),
        2 => ("X: y".into(), content.to_vec()),
        3 => (
            format!("Content-Length: {length}\r\nTransfer-Encoding: chunked"),
            chunks,
        ),
        4 => (
            format!("Transfer-Encoding: chunked\r\nContent-Length: {length}"),
            content.to_vec(),
        ),
        5 => (
            format!("Content-Length: {length}\r\nContent-Length: {length}"),
            content.to_vec(),
        ),
        6 => (
            format!("Content-Length: {length}\r\nContent-Length: {}", length + 5),
            content.to_vec(),
        ),
        7 => (
            format!("Content-Length: {length}\r\nContent-Length: 0{length}"),
            content.to_vec(),
        ),
        8 => (
            format!("Content-Length: {length}, {length}"),
            content.to_vec(),
        ),
        9 => {
            let lengths = [
                "+1",
                "-1",
                "0x1",
                "",
                "1e1",
                "01",
                "18446744073709551616",
                "1 1",
            ];
            (
                format!("Content-Length: {}", pick(rng, &lengths)),
                content.to_vec(),
            )
        }
        10 => {
            let codings = [
                "gzip, chunked",
                "chunked, chunked",
                "identity",
                "xchunked",
                "chunked,",
                "Chunked",
                "chunked\r\nTransfer-Encoding: chunked",
                "\u{b}chunked",
            ];
            (
                format!("Transfer-Encoding: {}", pick(rng, &codings)),
                chunks,
            )
        }
        11 => {
            let sizes = [
                "FFFFFFFFFFFFFFFFF",
                "-1",
                "1;a=b",
                "+1",
                "0x1",
                " 1",
                "1 ",
                "",
                "1\n",
                "00000000000000000001",
                "8000000000000000",
            ];
            let chunk = format!("{}\r\nx\r\n", pick(rng, &sizes)).into_bytes();
            (
                "Transfer-Encoding: chunked".into(),
                [chunk, chunks].concat(),
            )
        }
        12 => {
            let trailer = format!("X-Tag: ~{tag}~\r\n\r\n").into_bytes();
            let open = chunks[..chunks.len() - 2].to_vec();
            (
                "Transfer-Encoding: chunked".into(),
                [open, trailer].concat(),
            )
        }
        13 => {
            let fields = [
                "Content-Length : 1",
                "Transfer-Encoding : chunked",
                "Content-Length:\r\n 1",
                " Content-Length: 1",
                "Content_Length: 1",
                "Content-Length\r\n: 1",
                "Connection: content-length\r\nContent-Length: 1",
            ];
            (pick(rng, &fields), content.to_vec())
        }
        14 => {
            let fields = [
                "Connection: close",
                "Connection: Upgrade\r\nUpgrade: websocket",
                "Keep-Alive: timeout=0",
                "Proxy-Connection: close",
            ];
            (
                format!("{}\r\nContent-Length: {length}", pick(rng, &fields)),
                content.to_vec(),
            )
        }
        _ => (format!("Content-Length: {}", length / 2), content.to_vec()),
    };
    said.extend(framing.bytes());
    said.extend(b"\r\n\r\n");
    said.extend(content);
    match rng.u8(..6) {
        0 => said.extend(good(rng, tag, format!("~{tag}~").as_bytes())),
        1 => said.extend(format!("~{tag}~").bytes()),
        2 => said.extend(pick(rng, &["\r\n", "0\r\n\r\n", "\0", "HTTP/1.1 200 OK\r\n"]).bytes()),
        _ => {}
    }
    if rng.u8(..4) == 0 {
        for _ in 0..rng.usize(1..4) {
            mutate(rng, &mut said);
        }
    }
    said
}

/// Changes something by chance.
fn mutate(rng: &mut Rng, said: &mut Vec<u8>) {
    if said.is_empty() {
        return;
    }
    let at = rng.usize(..said.len());
    let end = (at + rng.usize(1..20)).min(said.len());
    match rng.u8(..6) {
        0 => said[at] = rng.u8(..),
        1 => drop(said.drain(at..end)),
        2 => said.truncate(at),
        3 => {
            let again = said[at..end].to_vec();
            said.splice(at..at, again);
        }
        4 => {
            let pieces: [&[u8]; 5] = [b"\r\n", b"\n", b"\r", b"\0", b"\r\n\r\n"];
            said.splice(at..at, pieces[rng.usize(..5)].iter().copied());
        }
        _ => said[at] ^= 1 << rng.u8(..8),
    }
}
