//! The pool against hosts that the tests play on the loopback interface.

mod errors;
mod reconcile;
mod unasked;

use super::*;
use crate::upstream::fixture::{self, HOST, OK, hosts, listen, named, tls};
use crate::upstream::{Hosts, MAX_AGE, Scheme};
use http::{HeaderMap, Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prometheus_client::metrics::gauge::Gauge;
use std::io::Write;
use std::net::Shutdown;
use std::ops::Deref;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

fn limits(max_connections: usize) -> Limits {
    Limits {
        connect_timeout: Duration::from_secs(5),
        stall_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(55),
        max_connections,
    }
}

/// A pool, and the host that the test sends requests to.
struct Client {
    pool: Pool,
    target: Target,
}

impl Deref for Client {
    type Target = Pool;

    fn deref(&self) -> &Pool {
        &self.pool
    }
}

/// A client of [`HOST`], and how many connections it has open.
fn pool(hosts: &Hosts, limits: Limits) -> (Client, Gauge) {
    let metrics = Arc::new(Metrics::new());
    let targets = hosts.targets([HOST].into_iter()).unwrap();
    let client = Client {
        pool: Pool::new(&targets, limits, &metrics),
        target: targets[HOST].clone(),
    };
    (client, metrics.upstream_connections.clone())
}

fn plain(authority: String, limits: Limits) -> (Client, Gauge) {
    pool(&hosts(Scheme::Http, authority, None), limits)
}

fn head(method: Method) -> Head {
    Head {
        method,
        target: "/trips?a=1".parse().unwrap(),
        headers: HeaderMap::new(),
    }
}

async fn get(pool: &Client) -> Result<Response<AnswerContent>, Error> {
    pool.send(
        &pool.target,
        &head(Method::GET),
        Full::default(),
        Instant::now(),
        std::future::pending(),
    )
    .await
}

async fn text(answer: Response<AnswerContent>) -> String {
    let whole = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(whole.to_vec()).unwrap()
}

/// Reads one request without content.
async fn hear(stream: &mut (impl AsyncRead + Unpin)) -> String {
    fixture::hear(stream, "\r\n\r\n").await
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), answer: &str) {
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

#[tokio::test(flavor = "local")]
async fn a_connection_is_used_again_and_the_newest_first() {
    let (listener, authority) = listen().await;
    let (pool, open) = plain(authority, limits(8));
    let serving = async {
        let (mut first, _) = listener.accept().await.unwrap();
        hear(&mut first).await;
        let (mut second, _) = listener.accept().await.unwrap();
        hear(&mut second).await;
        say(&mut first, OK).await;
        say(&mut second, OK).await;
        // Both are idle; the second became so last.
        hear(&mut second).await;
        say(&mut second, OK).await;
    };
    let calling = async {
        let (first, second) = tokio::join!(get(&pool), get(&pool));
        assert_eq!(text(first.unwrap()).await, "ok");
        assert_eq!(text(second.unwrap()).await, "ok");
        assert_eq!(open.get(), 2);
        assert_eq!(text(get(&pool).await.unwrap()).await, "ok");
    };
    tokio::join!(serving, calling);
}

#[tokio::test(flavor = "local")]
async fn target_host_and_framing_are_set_anew() {
    let (listener, authority) = listen().await;
    let (pool, _) = plain(authority.clone(), limits(1));
    let post = head(Method::POST);
    let calling = pool.send(
        &pool.target,
        &post,
        Full::default(),
        Instant::now(),
        std::future::pending(),
    );
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let heard = hear(&mut stream).await;
        say(&mut stream, OK).await;
        heard
    };
    let (answer, heard) = tokio::join!(calling, serving);
    answer.unwrap();
    assert_eq!(
        heard,
        format!("POST /trips?a=1 HTTP/1.1\r\nhost: {authority}\r\ncontent-length: 0\r\n\r\n")
    );
}

#[tokio::test(flavor = "local")]
async fn beyond_the_limit_requests_wait_for_a_connection_and_then_give_up() {
    let (listener, authority) = listen().await;
    let impatient = Limits {
        connect_timeout: Duration::from_millis(50),
        ..limits(1)
    };
    let (pool, _) = plain(authority, impatient);
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..2 {
            hear(&mut stream).await;
            say(&mut stream, OK).await;
        }
    };
    let calling = async {
        let held = get(&pool).await.unwrap();
        assert!(matches!(get(&pool).await, Err(Error::Busy)));
        // The next one gets the connection as soon as the first answer was read.
        let (next, _) = tokio::join!(get(&pool), text(held));
        assert_eq!(text(next.unwrap()).await, "ok");
    };
    tokio::join!(serving, calling);
}

#[tokio::test(flavor = "local")]
async fn an_answer_dropped_half_read_closes_its_connection_and_frees_its_place() {
    let (listener, authority) = listen().await;
    let (pool, _) = plain(authority, limits(1));
    let serving = async {
        let (mut first, _) = listener.accept().await.unwrap();
        hear(&mut first).await;
        say(
            &mut first,
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        )
        .await;
        let (mut second, _) = listener.accept().await.unwrap();
        hear(&mut second).await;
        say(&mut second, OK).await;
        assert_eq!(first.read(&mut [0; 8]).await.unwrap_or(0), 0);
    };
    let calling = async {
        drop(get(&pool).await.unwrap());
        assert_eq!(text(get(&pool).await.unwrap()).await, "ok");
    };
    tokio::join!(serving, calling);
}

async fn post(pool: &Client) -> Result<Response<AnswerContent>, Error> {
    let head = head(Method::POST);
    let (now, never) = (Instant::now(), std::future::pending());
    pool.send(&pool.target, &head, Full::from("abc"), now, never)
        .await
}

#[tokio::test(flavor = "local")]
async fn a_connection_of_age_carries_no_request_whether_it_was_idle_or_busy() {
    let (listener, _) = listen().await;
    let address = listener.local_addr().unwrap();
    let (hosts, network) = named(Scheme::Http, "api.example", None, vec![address]);
    let (pool, open) = pool(&hosts, limits(1));
    let grow_old = async |age: Duration| {
        tokio::time::pause();
        tokio::time::advance(age).await;
        tokio::time::resume();
    };
    let second = Duration::from_secs(1);
    // Seldom enough that the sweeper has no part in it; idle for less than it may be.
    let mut asked = 0;
    for busy in [false, true] {
        let (answer, mut stream) = tokio::join!(get(&pool), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            hear(&mut stream).await;
            say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n").await;
            stream
        });
        asked += 1;
        if busy {
            grow_old(MAX_AGE).await;
        }
        say(&mut stream, "ok").await;
        assert_eq!(text(answer.unwrap()).await, "ok");
        if !busy {
            // In use again and again, it is as old as any other.
            for _ in 0..6 {
                grow_old(MAX_AGE / 6 - second).await;
                let serving = async {
                    hear(&mut stream).await;
                    say(&mut stream, OK).await;
                };
                let (answer, ()) = tokio::join!(get(&pool), serving);
                assert_eq!(text(answer.unwrap()).await, "ok");
            }
            grow_old(6 * second).await;
        }
        assert_eq!(network.asked(), asked);
        let serving = async {
            let (mut next, _) = listener.accept().await.unwrap();
            hear(&mut next).await;
            say(
                &mut next,
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            )
            .await;
            assert_eq!(
                stream.read(&mut [0]).await.unwrap(),
                0,
                "the old one is closed"
            );
        };
        let (answer, ()) = tokio::join!(get(&pool), serving);
        assert_eq!(text(answer.unwrap()).await, "ok");
        asked += 1;
        assert_eq!(network.asked(), asked, "the name is asked for again");
        assert_eq!(open.get(), 0);
    }
}

#[tokio::test(flavor = "local")]
async fn an_idle_connection_is_closed_in_time() {
    let (listener, authority) = listen().await;
    let brief = Limits {
        idle_timeout: Duration::from_millis(40),
        ..limits(1)
    };
    let (pool, _) = plain(authority, brief);
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        hear(&mut stream).await;
        say(&mut stream, OK).await;
        stream.read(&mut [0]).await.unwrap()
    };
    let calling = async { text(get(&pool).await.unwrap()).await };
    let (read, _) = tokio::join!(serving, calling);
    assert_eq!(read, 0, "the end of the stream");
}

#[tokio::test(flavor = "local")]
async fn over_tls_long_content_goes_both_ways_and_the_connection_is_used_again() {
    let (listener, authority) = listen().await;
    let port = authority.rsplit(':').next().unwrap();
    let (acceptor, folder) = tls("localhost", &[]);
    let ca_file = folder.path().join("ca.pem");
    let hosts = hosts(Scheme::Https, format!("localhost:{port}"), Some(ca_file));
    let (pool, _) = pool(&hosts, limits(1));
    let serving = async {
        // One connection alone; its session tickets come after the handshake.
        let (stream, _) = listener.accept().await.unwrap();
        let stream = acceptor.accept(stream).await.unwrap();
        let echo = service_fn(|request: Request<Incoming>| async move {
            Ok::<_, std::convert::Infallible>(Response::new(request.into_body()))
        });
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), echo)
            .await
            .unwrap();
        std::future::pending().await
    };
    let calling = async {
        // The last one is answered while it is sent.
        for length in [0, 10, 1, 4 * 1024 * 1024] {
            let content = vec![b'x'; length];
            let post = head(Method::POST);
            let sent = pool.send(
                &pool.target,
                &post,
                Full::from(content.clone()),
                Instant::now(),
                std::future::pending(),
            );
            let answer = sent.await.unwrap();
            assert_eq!(answer.version(), Version::HTTP_11);
            assert!(text(answer).await.as_bytes() == content, "{length}");
        }
    };
    tokio::select! {
        () = serving => unreachable!(),
        () = calling => {}
    }
}

#[tokio::test(flavor = "local")]
async fn a_certificate_nobody_vouches_for_is_refused() {
    let (listener, authority) = listen().await;
    let (acceptor, _) = tls("127.0.0.1", &[]);
    let (pool, _) = pool(&hosts(Scheme::Https, authority, None), limits(1));
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        acceptor.accept(stream).await
    };
    let (answer, served) = tokio::join!(get(&pool), serving);
    assert!(matches!(answer, Err(Error::Unreachable(_))));
    assert!(served.is_err());
}
