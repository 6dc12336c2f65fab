//! Accepts connections on one socket and hands them to the workers, until listening ends. Knows nothing of what
//! comes on them.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use super::listen::{Acceptor, Stream};
use super::stage::Stage;
use super::worker::Worker;
use crate::telemetry::episode::Episode;

/// The log says again that `max_connections` are open if that lasts this long.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// How long the handshake of a TCP connection may take that a caller has begun when listening ends.
const LAST_CONNECTIONS: Duration = Duration::from_millis(50);

/// How long accepting rests when the system is out of descriptors or memory.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Hands every socket to the worker with the fewest connections: a sidecar has few callers with
/// long-lived connections, which a hash over the ports would spread badly.
pub(super) async fn accept(
    acceptor: Acceptor,
    workers: Arc<Vec<Worker>>,
    free: Arc<Semaphore>,
    mut stage: watch::Receiver<Stage>,
) {
    tokio::select! {
        () = accept_all(&acceptor, &workers, &free) => {}
        _ = stage.wait_for(|stage| *stage >= Stage::Draining) => {}
    }
    if acceptor.is_inherited() {
        return;
    }
    // A caller that connects between the last accept and the end of listening would be reset.
    match acceptor.turn_away() {
        Ok(()) => {
            let accepting = accept_all(&acceptor, &workers, &free);
            let _ = timeout(LAST_CONNECTIONS, accepting).await;
        }
        Err(error) => tracing::debug!(%error, "callers may still connect"),
    }
    match acceptor.into_backlog() {
        Ok(backlog) => {
            // Those beyond `max_connections` are closed.
            for stream in backlog {
                if let Ok(permit) = free.clone().try_acquire_owned() {
                    hand_to_the_idlest(&workers, stream, permit);
                }
            }
        }
        Err(error) => tracing::warn!(%error, "callers that had just connected are cut off"),
    }
}

async fn accept_all(acceptor: &Acceptor, workers: &[Worker], free: &Arc<Semaphore>) {
    let (full, failing) = (Episode::new(), Episode::new());
    loop {
        let permit = room(free, &full).await;
        match acceptor.accept().await {
            Ok(stream) => {
                if let Some(over) = failing.worked() {
                    let (seconds, tries) = (over.seconds(), over.hurt);
                    tracing::warn!(seconds, tries, "connections are accepted again");
                }
                hand_to_the_idlest(workers, stream, permit);
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                if failing.failed() {
                    tracing::warn!(%error, "cannot accept connections; pausing after each attempt");
                }
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

fn hand_to_the_idlest(workers: &[Worker], stream: Stream, permit: OwnedSemaphorePermit) {
    workers
        .iter()
        .min_by_key(|worker| worker.connections())
        .expect("there is at least one worker")
        .hand(stream, permit);
}

/// Waits for room for one more connection. Logs when there is none, and when there is again.
async fn room(free: &Arc<Semaphore>, full: &Episode) -> OwnedSemaphorePermit {
    if let Ok(permit) = free.clone().try_acquire_owned() {
        return permit;
    }
    let mut acquiring = pin!(free.clone().acquire_owned());
    let permit = loop {
        if full.failed() {
            tracing::warn!("`max_connections` are open: no more are accepted until one closes");
        }
        if let Ok(permit) = timeout(TELL_AGAIN, &mut acquiring).await {
            break permit.expect("the semaphore is never closed");
        }
    };
    if let Some(over) = full.worked() {
        let seconds = over.seconds();
        tracing::warn!(seconds, "there is room for connections again");
    }
    permit
}

/// The caller gave up while it waited in the backlog.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
