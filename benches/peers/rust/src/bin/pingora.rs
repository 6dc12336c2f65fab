//! pingora as its examples use it: a table of tokens in the filter of requests, and an access log.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use clap::Parser;
use peers::{Setup, Tokens};
use pingora::prelude::*;
use pingora::proxy::http_proxy_service;
use pingora::server::configuration::ServerConf;
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let setup = Setup::parse();
    let conf = ServerConf {
        threads: setup.threads,
        // More than there are callers, so that no connection is closed for want of room.
        upstream_keepalive_pool_size: 1024,
        ca_file: setup.ca.as_ref().map(|path| path.display().to_string()),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let attach = Attach {
        tokens: peers::tokens(&setup.tokens),
        api: HttpPeer::new(
            ("127.0.0.1", setup.api),
            setup.ca.is_some(),
            "localhost".to_owned(),
        ),
        log: log(&setup.log),
    };
    let mut service = http_proxy_service(&server.configuration, attach);
    service.add_tcp(&format!("127.0.0.1:{}", setup.listen));
    server.add_service(service);
    server.run_forever();
}

type Log = Arc<Mutex<BufWriter<File>>>;

/// An access log in the way of nginx's `buffer=64k flush=1s`.
fn log(path: &Path) -> Log {
    let file = File::create(path).expect("a writable log");
    let log = Arc::new(Mutex::new(BufWriter::with_capacity(64 << 10, file)));
    let flushed = log.clone();
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_secs(1));
            let mut log = flushed.lock().expect("nobody panics while writing");
            log.flush().expect("room for the log");
        }
    });
    log
}

struct Attach {
    tokens: Tokens,
    api: HttpPeer,
    log: Log,
}

#[async_trait]
impl ProxyHttp for Attach {
    type CTX = Instant;

    fn new_ctx(&self) -> Instant {
        Instant::now()
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut Instant) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.api.clone()))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        _: &mut Instant,
    ) -> Result<()> {
        let device = session.req_header().headers.get("devicetoken");
        match device.and_then(|device| self.tokens.get(device.as_bytes())) {
            Some(bearer) => request.insert_header("authorization", bearer),
            None => Error::e_explain(HTTPStatus(400), "nobody is named"),
        }
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, started: &mut Instant) {
        let head = session.req_header();
        let status = session
            .response_written()
            .map_or(0, |head| head.status.as_u16());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let mut log = self.log.lock().expect("nobody panics while writing");
        writeln!(
            log,
            "{:.3} {} {} {status} {} {:.6}",
            now.expect("a clock after 1970").as_secs_f64(),
            head.method,
            head.uri,
            session.body_bytes_sent(),
            started.elapsed().as_secs_f64(),
        )
        .expect("room for the log");
    }
}
