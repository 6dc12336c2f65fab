//! The hostile API: what it does on each of its connections.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{spawn_local, yield_now};

use super::plan::{Plan, Then};

/// How often the proxy may run before the API ends an answer that leads to nothing.
const PATIENCE: usize = 24;

/// The socket of a connection once more.
pub type Twin = Rc<std::net::TcpStream>;

/// What the driver and the connections of the API know of each other.
#[derive(Default)]
pub struct Stage {
    pub plan: RefCell<Option<Rc<Plan>>>,
    /// The connection that had a request last, and its number, for what happens at once.
    pub last: RefCell<Option<(u64, Twin)>>,
    /// Connections that have a request and are not done with it.
    pub busy: Cell<usize>,
    pub changed: Notify,
    pub accepted: Cell<u64>,
}

pub async fn accept(listener: TcpListener, stage: Rc<Stage>) {
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
    pub fn act_at_once(&self, then: &Then) {
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
