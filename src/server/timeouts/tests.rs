//! The timeouts of a connection, on paused time.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

const STALL: Duration = Duration::from_secs(60);

fn times() -> watch::Receiver<Times> {
    let times = Times {
        drain_delay: Duration::ZERO,
        drain_timeout: Duration::ZERO,
        stall_timeout: STALL,
    };
    watch::channel(times).1
}

async fn silence(stream: &mut TimedStream<tokio::io::DuplexStream>) -> Duration {
    let before = Instant::now();
    let error = stream.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    before.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_cut_from_its_first_byte_and_an_idle_connection_later() {
    let (mut caller, stream) = duplex(64);
    let timeouts = ConnectionTimeouts::new(Rc::default());
    let mut stream = TimedStream::new(stream, timeouts.clone(), times());
    caller.write_all(b"GE").await.unwrap();
    stream.read_u16().await.unwrap();
    assert_eq!(silence(&mut stream).await, HEAD_TIMEOUT);

    drop(timeouts.busy());
    assert_eq!(silence(&mut stream).await, IDLE_TIMEOUT);

    drop(timeouts.busy());
    caller.write_all(b"G").await.unwrap();
    stream.read_u8().await.unwrap();
    assert_eq!(silence(&mut stream).await, HEAD_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_being_answered_may_take_any_time() {
    let (_caller, stream) = duplex(64);
    let timeouts = ConnectionTimeouts::new(Rc::default());
    let mut stream = TimedStream::new(stream, timeouts.clone(), times());
    let _busy = timeouts.busy();
    let hour = Duration::from_secs(3600);
    assert!(tokio::time::timeout(hour, stream.read_u8()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_takes_nothing_is_cut_and_one_that_takes_a_little_is_not() {
    let (mut caller, stream) = duplex(64);
    let timeouts = ConnectionTimeouts::new(Rc::default());
    let mut stream = TimedStream::new(stream, timeouts.clone(), times());
    let _busy = timeouts.busy();
    let start = Instant::now();
    let reading = async {
        for _ in 0..10 {
            tokio::time::sleep(STALL - Duration::from_millis(1)).await;
            caller.read_u8().await.unwrap();
        }
    };
    let writing = async {
        let error = stream.write_all(&[0; 1024]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    };
    tokio::join!(reading, writing);
    let taken = 10 * (STALL - Duration::from_millis(1));
    assert_eq!(start.elapsed(), taken + STALL);
    assert_eq!(timeouts.cut(), Some(Cut::Stalled));
}

#[tokio::test(start_paused = true)]
async fn an_exchange_knows_since_when_its_caller_takes_nothing_and_can_be_ended() {
    let (mut caller, stream) = duplex(64);
    let timeouts = ConnectionTimeouts::new(Rc::default());
    let mut stream = TimedStream::new(stream, timeouts.clone(), times());
    let stalls = Rc::<Stalls>::default();
    let busy = timeouts.busy();
    busy.watch(&stalls);
    stream.write_all(&[0; 64]).await.unwrap();
    assert_eq!(stalls.longest(), None);
    let second = Duration::from_secs(1);
    let since = Instant::now();
    let more = tokio::time::timeout(second, stream.write_all(b"more"));
    assert!(more.await.is_err());
    assert_eq!(stalls.longest(), Some((since, Side::Caller)));
    caller.read_exact(&mut [0; 32]).await.unwrap();
    stream.write_all(&[0; 32]).await.unwrap();
    assert_eq!(stalls.longest(), None);

    let ending = async {
        tokio::time::sleep(second).await;
        stalls.end();
    };
    let (more, ()) = tokio::join!(stream.write_all(b"more"), ending);
    assert_eq!(more.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    drop(busy);
    let more = tokio::time::timeout(second, stream.write_all(b"more"));
    assert!(more.await.is_err(), "the next answer is another exchange's");
}
