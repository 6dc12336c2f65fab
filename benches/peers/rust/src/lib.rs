//! What the three proxies share: their arguments, the table of tokens, the hand-out of callers to
//! workers, and the way to the API.

use std::collections::HashMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::{fs, io, thread};

use clap::Parser;
use hyper::header::HeaderValue;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio_rustls::TlsConnector;

/// The arguments of each proxy.
#[derive(Clone, Parser)]
pub struct Setup {
    /// The port on 127.0.0.1 to listen on.
    #[arg(long)]
    pub listen: u16,
    /// The API's port on 127.0.0.1.
    #[arg(long)]
    pub api: u16,
    /// Threads that serve callers.
    #[arg(long)]
    pub threads: usize,
    /// A file with a DeviceToken and its JWT a line, a space between.
    #[arg(long)]
    pub tokens: PathBuf,
    /// The file that access events are written to.
    #[arg(long)]
    pub log: PathBuf,
    /// The CA of the API's certificate, which is for localhost. Without it there is no TLS.
    #[arg(long)]
    pub ca: Option<PathBuf>,
}

/// The Authorization of each DeviceToken.
pub type Tokens = HashMap<Box<[u8]>, HeaderValue>;

/// Reads the table from its file, which ends the process if it is none.
pub fn tokens(path: &Path) -> Tokens {
    let lines = fs::read_to_string(path).expect("a readable table of tokens");
    let pairs = lines.lines().map(|line| {
        let (device, token) = line.split_once(' ').expect("two words a line");
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}")).expect("a JWT");
        bearer.set_sensitive(true);
        (device.as_bytes().into(), bearer)
    });
    pairs.collect()
}

/// Serves callers on `setup.threads` workers, each a thread with a runtime and a `new` state of its
/// own, until the process is killed. Callers are handed to the workers in turn.
pub fn serve<S: 'static, F: Future<Output = ()> + 'static>(
    setup: &Setup,
    new: fn(&Setup) -> S,
    each: fn(Rc<S>, TcpStream) -> F,
) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, setup.listen))?;
    let mut workers = Vec::new();
    for _ in 0..setup.threads {
        let (worker, mut callers) = mpsc::unbounded_channel::<std::net::TcpStream>();
        let setup = setup.clone();
        thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_io().build();
            let state = Rc::new(new(&setup));
            let tasks = LocalSet::new();
            tasks.block_on(&runtime.expect("a runtime"), async move {
                while let Some(caller) = callers.recv().await {
                    let caller = TcpStream::from_std(caller).expect("a registered socket");
                    tokio::task::spawn_local(each(state.clone(), caller));
                }
            });
        });
        workers.push(worker);
    }
    for worker in workers.iter().cycle() {
        let (caller, _) = listener.accept()?;
        caller.set_nodelay(true)?;
        caller.set_nonblocking(true)?;
        worker.send(caller).expect("workers run for ever");
    }
    Ok(())
}

/// Opens connections to the API.
pub struct Api {
    address: SocketAddr,
    tls: Option<TlsConnector>,
}

/// A connection, with TLS or without.
pub trait Connection: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Connection for T {}

impl Api {
    pub fn new(setup: &Setup) -> Api {
        let tls = setup.ca.as_ref().map(|ca| {
            let mut roots = rustls::RootCertStore::empty();
            let ca = CertificateDer::from_pem_file(ca).expect("a certificate");
            roots.add(ca).expect("a CA");
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = rustls::ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&rustls::version::TLS13])
                .expect("TLS 1.3 is known")
                .with_root_certificates(roots)
                .with_no_client_auth();
            TlsConnector::from(Arc::new(config))
        });
        Api {
            address: (Ipv4Addr::LOCALHOST, setup.api).into(),
            tls,
        }
    }

    pub async fn connect(&self) -> io::Result<Pin<Box<dyn Connection>>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Box::pin(stream),
            Some(tls) => {
                let name = ServerName::try_from("localhost").expect("a name");
                Box::pin(tls.connect(name, stream).await?)
            }
        })
    }
}
