//! The sockets: accepts, speaks HTTP/1.1, and cuts connections where the world says so.

use std::error::Error as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::answer::Cut;
use super::doors::{Doors, Visitor};
use super::world::World;
use super::{dispatch, live};

/// Serves until `stop` is sent or dropped; then drops every connection.
pub(super) async fn serve(
    doors: Doors,
    tls: Option<TlsAcceptor>,
    world: Arc<World>,
    mut stop: oneshot::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = doors.accept() => match accepted {
                Ok((stream, visitor)) => {
                    let connection = connect(stream, visitor, tls.clone(), Arc::clone(&world));
                    connections.spawn(connection);
                }
                // Out of file descriptors, most likely: others will be given back.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(ended) = connections.join_next() => raise(ended),
            _ = &mut stop => break,
        }
    }
    connections.abort_all();
    while let Some(ended) = connections.join_next().await {
        raise(ended);
    }
}

/// A panic of a connection is a panic of the simulator: a test must see it.
fn raise(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

async fn connect(stream: TcpStream, visitor: Visitor, tls: Option<TlsAcceptor>, world: Arc<World>) {
    // Without it small answers wait; nothing else depends on it.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        if let Some(stream) = serve_http1(stream, visitor, world).await {
            // The kernel then sends a reset instead of an orderly end.
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
        return;
    };
    let Ok(stream) = tls.accept(stream).await else {
        return;
    };
    serve_http1(stream, visitor, world).await;
}

/// Serves one connection; gives the stream back if it is to be reset.
async fn serve_http1<S>(stream: S, visitor: Visitor, world: Arc<World>) -> Option<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let switched = Mutex::new(None);
    let service = service_fn(async |request: Request<Incoming>| {
        if !live::is_asked_for(&request) {
            return dispatch::answer(&world, &visitor, request).await;
        }
        let (answer, session) = live::shake_hands(&world, request.into_parts().0).await;
        *switched.lock().expect("no holder panics") = session;
        Ok(answer)
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let Err(error) = (&mut connection).await else {
        let session = switched.lock().expect("no holder panics").take();
        if let Some(session) = session {
            let parts = connection.into_parts();
            session.run(parts.io.into_inner(), parts.read_buf).await;
        }
        return None;
    };
    let cut = error.source()?.downcast_ref::<Cut>()?;
    (*cut == Cut::Reset).then(|| connection.into_parts().io.into_inner())
}
