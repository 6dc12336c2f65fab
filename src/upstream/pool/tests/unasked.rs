//! What a host sends on an idle connection is not taken for the answer to the next request.

use super::*;

fn something_lies_on(pool: &Pool) {
    let host = pool.hosts.borrow()[0].1.clone();
    let mut idle = host.idle.borrow_mut();
    fixture::something_lies_on(idle[0].connection.stream());
}

const FORGED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";

#[tokio::test(flavor = "local")]
async fn what_lies_on_an_idle_connection_is_nobodys_answer() {
    let (listener, authority) = listen().await;
    let (pool, open) = plain(authority, limits(1));
    let mut idle: Option<TcpStream> = None;
    for round in 0..20 {
        // It has come before the next request is written, and the runtime has heard nothing of it.
        if let Some(idle) = &mut idle {
            let said = match round % 3 {
                0 => idle.try_write(FORGED.as_bytes()),
                1 => idle.try_write(b"\r\n"),
                _ => socket2::SockRef::from(&*idle)
                    .shutdown(Shutdown::Write)
                    .map(|()| 1),
            };
            assert!(said.unwrap() > 0);
            something_lies_on(&pool);
        }
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            fixture::hear(&mut stream, "abc").await;
            say(&mut stream, OK).await;
            stream
        };
        let calling = async { text(post(&pool).await.unwrap()).await };
        let both = async { tokio::join!(calling, serving) };
        let both = tokio::time::timeout(Duration::from_secs(10), both).await;
        let (answer, stream) = both.expect("another connection is opened");
        assert_eq!(answer, "ok", "{round}");
        assert_eq!(open.get(), 1, "the old one is closed");
        idle = Some(stream);
    }
}

/// What the host says on an idle connection under TLS, before the system has told anybody.
#[derive(Clone, Copy, Debug)]
enum Unasked {
    /// An answer, once the first one was read.
    Later,
    /// An answer, in one piece with the first one.
    AtOnce,
    /// The same, but for the last byte of its record.
    Cut,
    /// Nothing for people: keys are changed.
    Keys,
    /// The end.
    End,
}

#[tokio::test(flavor = "local")]
async fn what_lies_on_an_idle_connection_under_tls_is_nobodys_answer() {
    let (listener, authority) = listen().await;
    let port = authority.rsplit(':').next().unwrap();
    let (acceptor, folder) = tls("localhost", &[]);
    let ca_file = folder.path().join("ca.pem");
    let hosts = hosts(Scheme::Https, format!("localhost:{port}"), Some(ca_file));
    let (pool, open) = pool(&hosts, limits(1));
    let unasked = [
        Unasked::Later,
        Unasked::AtOnce,
        Unasked::Cut,
        Unasked::Keys,
        Unasked::End,
    ];
    for unasked in unasked.repeat(4) {
        let serving = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.unwrap();
            hear(&mut stream).await;
            let (tcp, session) = stream.get_mut();
            let mut encrypted = Vec::new();
            for said in [OK, FORGED] {
                session.writer().write_all(said.as_bytes()).unwrap();
                while session.wants_write() {
                    session.write_tls(&mut encrypted).unwrap();
                }
                if !matches!(unasked, Unasked::AtOnce | Unasked::Cut) {
                    break;
                }
            }
            if matches!(unasked, Unasked::Cut) {
                encrypted.pop();
            }
            tcp.write_all(&encrypted).await.unwrap();
            stream
        };
        let calling = async { text(get(&pool).await.unwrap()).await };
        let both = async { tokio::join!(calling, serving) };
        let both = tokio::time::timeout(Duration::from_secs(10), both).await;
        let (answer, mut stream) = both.expect("another connection is opened");
        assert_eq!(answer, "ok", "{unasked:?}");
        assert!(open.get() <= 1, "the old one is closed");
        let (tcp, session) = stream.get_mut();
        match unasked {
            Unasked::Later => session.writer().write_all(FORGED.as_bytes()).unwrap(),
            Unasked::Keys => session.refresh_traffic_keys().unwrap(),
            Unasked::End => session.send_close_notify(),
            Unasked::AtOnce | Unasked::Cut => {}
        }
        let mut encrypted = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut encrypted).unwrap();
        }
        if !encrypted.is_empty() {
            assert_eq!(tcp.try_write(&encrypted).unwrap(), encrypted.len());
            something_lies_on(&pool);
        }
        // The host's end stays open as long as the next request is under way.
        tokio::task::spawn_local(async move {
            let _ = stream.read(&mut [0]).await;
        });
    }
}
