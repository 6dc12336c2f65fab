//! One connection through the forwarder.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;

use super::messages::{Message, Messages};
use super::{At, Network, Part, State};

/// How far the two sides are with each other.
#[derive(Default)]
struct Progress {
    /// Requests that the client has ended.
    asked: u64,
    /// Answers that the server has ended.
    answered: u64,
    /// The request whose answer is lost, counted as `asked` will be, and who waits for that.
    loses: Option<(u64, oneshot::Sender<()>)>,
    /// The server answers with a byte that is no message.
    encryption_asked: bool,
    /// The statements of the client's transaction.
    transaction: String,
}

/// Why a connection is over.
enum Over {
    /// One side has closed it.
    Closed,
    /// Something was lost, or the network is cut: both sides see a reset.
    Broken,
}

/// Forwards both directions until one side closes, the network is cut, or something is lost.
pub(super) async fn forward(network: Arc<Network>, client: TcpStream) {
    let to = *network.to.lock().expect("nobody panics in here");
    let Ok(server) = TcpStream::connect(to).await else {
        return reset(client);
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let progress = Mutex::new(Progress::default());
    let over = tokio::select! {
        over = upwards(&network, &progress, &mut from_client, &mut to_server) => over,
        over = downwards(&network, &progress, &mut from_server, &mut to_client) => over,
        () = is_cut(&network) => Err(Over::Broken),
    };
    if let Err(Over::Broken) = over {
        reset(from_client.reunite(to_client).expect("the two halves"));
        reset(from_server.reunite(to_server).expect("the two halves"));
    }
}

/// Closes it with RST: nothing that is under way arrives.
fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger();
}

async fn is_cut(network: &Network) {
    let mut state = network.state.subscribe();
    let _ = state.wait_for(|state| *state == State::Cut).await;
}

/// Returns once something may pass.
async fn passes(network: &Network) {
    let mut state = network.state.subscribe();
    let open = state.wait_for(|state| matches!(state, State::Open { .. }));
    let delay = match open.await.as_deref() {
        Ok(State::Open { delay }) => *delay,
        _ => Duration::ZERO,
    };
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

async fn upwards(
    network: &Network,
    progress: &Mutex<Progress>,
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
) -> Result<Infallible, Over> {
    let mut messages = Messages::of_client();
    loop {
        read(from, &mut messages).await?;
        passes(network).await;
        while let Some(message) = messages.next() {
            look_at_request(
                network,
                &mut progress.lock().expect("nobody panics"),
                &message,
            )?;
            write(to, message.bytes()).await?;
        }
    }
}

/// Plans the loss of its answer, or returns an error to lose the message itself.
fn look_at_request(
    network: &Network,
    progress: &mut Progress,
    message: &Message,
) -> Result<(), Over> {
    progress.encryption_asked |= matches!(message, Message::AskForEncryption(_));
    if let Some(sql) = message.sql() {
        let starts = |word: &str| {
            let start = sql.trim_start().get(..word.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(word))
        };
        if starts("BEGIN") {
            progress.transaction.clear();
        }
        progress.transaction += &sql;
        let ends = starts("COMMIT");
        let meant = |at: &At| match at {
            At::Statement(text) => sql.contains(text),
            At::CommitOf(text) => ends && progress.transaction.contains(text),
        };
        let mut losses = network.losses.lock().expect("nobody panics in here");
        if progress.loses.is_none()
            && let Some(found) = losses.iter().position(|ordered| meant(&ordered.at))
        {
            let ordered = losses.remove(found);
            if ordered.part == Part::Request {
                let _ = ordered.happened.send(());
                return Err(Over::Broken);
            }
            progress.loses = Some((progress.asked + 1, ordered.happened));
        }
    }
    progress.asked += u64::from(message.ends_request());
    Ok(())
}

async fn downwards(
    network: &Network,
    progress: &Mutex<Progress>,
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
) -> Result<Infallible, Over> {
    let mut messages = Messages::of_server();
    loop {
        read(from, &mut messages).await?;
        passes(network).await;
        if let Some(byte) = answer_to_encryption(progress, &mut messages) {
            write(to, &[byte]).await?;
        }
        while let Some(message) = messages.next() {
            if is_lost(&mut progress.lock().expect("nobody panics"), &message)? {
                continue;
            }
            write(to, message.bytes()).await?;
        }
    }
}

fn answer_to_encryption(progress: &Mutex<Progress>, messages: &mut Messages) -> Option<u8> {
    let mut progress = progress.lock().expect("nobody panics in here");
    if !progress.encryption_asked {
        return None;
    }
    let byte = messages.take_byte()?;
    progress.encryption_asked = false;
    if matches!(byte, b'S' | b'G') {
        messages.become_opaque();
    }
    Some(byte)
}

/// Whether the message belongs to an answer that is lost. An error once that answer is whole.
fn is_lost(progress: &mut Progress, message: &Message) -> Result<bool, Over> {
    let concerned = progress.answered + 1;
    progress.answered += u64::from(message.is_ready());
    match progress.loses.take() {
        Some((lost, happened)) if lost == concerned => {
            if message.is_ready() {
                let _ = happened.send(());
                return Err(Over::Broken);
            }
            progress.loses = Some((lost, happened));
            Ok(true)
        }
        other => {
            progress.loses = other;
            Ok(false)
        }
    }
}

async fn read(from: &mut OwnedReadHalf, messages: &mut Messages) -> Result<(), Over> {
    let mut buffer = vec![0; 16 * 1024];
    match from.read(&mut buffer).await {
        Ok(0) | Err(_) => Err(Over::Closed),
        Ok(read) => {
            messages.push(&buffer[..read]);
            Ok(())
        }
    }
}

async fn write(to: &mut OwnedWriteHalf, bytes: &[u8]) -> Result<(), Over> {
    to.write_all(bytes).await.map_err(|_| Over::Closed)
}
