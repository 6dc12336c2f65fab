//! The rest of a request whose answer has begun before all of it was sent. It goes out in a task of
//! its own, beside the answer and, if that is over first, behind it.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::outgoing::Outgoing;
use super::{Connection, Half, Reader, Wire};
use crate::upstream::stream::Stream;

/// An API that has answered and then takes nothing more of the request for this long does not want
/// the rest. Longer than a caller may pause.
pub(super) const REST_TIMEOUT: Duration = Duration::from_secs(30);

impl Connection {
    /// Leaves it to a task to send the rest of a request whose answer has begun.
    pub(super) fn read_on<B, S>(self, outgoing: Outgoing<B>, slot: S) -> Reader<S>
    where
        B: Body<Data = Bytes> + Unpin + 'static,
        S: Held,
    {
        let Wire {
            stream,
            read,
            buffers,
        } = *self.0;
        let (stream, rest) = tokio::io::split(stream);
        let slot = Rc::new(slot);
        let written = Rc::<Cell<u64>>::default();
        let shared = (slot.clone(), written.clone());
        let (answered, told) = oneshot::channel();
        tokio::task::spawn_local(async move {
            let (slot, written) = shared;
            send_rest(outgoing, rest, told, &*slot, &written).await;
        });
        Reader::Half(Box::new(Half {
            stream,
            read,
            answered,
            written,
            buffers,
            slot,
        }))
    }
}

/// What an exchange takes up, and others may need.
pub(in crate::upstream) trait Held: 'static {
    /// The answer is over, and the rest of the request goes out. What this returns is told how many
    /// bytes have gone out whenever it has to wait, and is ready once another request needs the slot.
    fn rest(&self) -> impl FnMut(u64, &mut Context<'_>) -> Poll<()> + 'static;
}

/// Goes on with a request whose answer has begun: until the answer is given up, or, after a whole
/// one, as long as the API takes it.
async fn send_rest<B: Body<Data = Bytes> + Unpin>(
    mut outgoing: Outgoing<B>,
    mut stream: WriteHalf<Stream>,
    mut answered: oneshot::Receiver<()>,
    slot: &impl Held,
    written: &Cell<u64>,
) {
    let sending = poll_fn(|cx| {
        let sent = outgoing.poll(&mut stream, cx);
        written.set(outgoing.total());
        sent
    });
    let mut sent = tokio::select! {
        biased;
        sent = sending => Some(sent),
        answered = &mut answered => match answered {
            Ok(()) => None,
            Err(_) => return,
        },
    };
    let mut needed = slot.rest();
    while sent.is_none() {
        let before = outgoing.total();
        let sending = poll_fn(|cx| match outgoing.poll(&mut stream, cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => needed(outgoing.total(), cx).map(|()| None),
        });
        match timeout(REST_TIMEOUT, sending).await {
            Ok(Some(done)) => sent = Some(done),
            Ok(None) => return,
            Err(_) if outgoing.total() == before => return,
            Err(_) => {}
        }
    }
    if let Some(Err(_)) = sent {
        // The API must not take what it has got for all. It may be gone already.
        let _ = timeout(REST_TIMEOUT, stream.shutdown()).await;
    }
}
