//! Which connections a pool keeps when the configuration names other hosts, or the same hosts elsewhere.

use super::*;

/// The pool of a client whose host was at `old`, when the configuration says that it is at `new`.
fn moved(client: &mut Client, hosts: &Hosts, new: &str) {
    let settings = fixture::settings(Scheme::Http, new.to_owned(), None);
    let hosts = hosts.updated(&settings).unwrap();
    let targets = hosts.targets([HOST].into_iter()).unwrap();
    client.pool.reconcile(&targets, limits(8));
    client.target = targets[HOST].clone();
}

#[tokio::test(flavor = "local")]
async fn the_connections_of_a_host_that_stays_as_it_is_are_kept() {
    let (listener, authority) = listen().await;
    let hosts = hosts(Scheme::Http, authority.clone(), None);
    let (mut pool, open) = pool(&hosts, limits(1));
    let (answer, mut stream) = tokio::join!(get(&pool), async {
        let (mut stream, _) = listener.accept().await.unwrap();
        hear(&mut stream).await;
        say(&mut stream, OK).await;
        stream
    });
    let answer = answer.unwrap();
    // In use, then idle.
    moved(&mut pool, &hosts, &authority);
    assert_eq!(text(answer).await, "ok");
    moved(&mut pool, &hosts, &authority);
    let serving = async {
        hear(&mut stream).await;
        say(&mut stream, OK).await;
    };
    let (answer, ()) = tokio::join!(get(&pool), serving);
    assert_eq!(text(answer.unwrap()).await, "ok");
    assert_eq!(open.get(), 1);
}

#[tokio::test(flavor = "local")]
async fn a_host_that_moves_keeps_no_connection_to_where_it_was() {
    let (old, old_authority) = listen().await;
    let (new, new_authority) = listen().await;
    let hosts = hosts(Scheme::Http, old_authority.clone(), None);
    let (mut pool, open) = pool(&hosts, limits(2));
    let accept = async |listener: &tokio::net::TcpListener| {
        let (mut stream, _) = listener.accept().await.unwrap();
        hear(&mut stream).await;
        stream
    };
    // One connection is idle, another one in the middle of an answer.
    let (first, second, streams) = tokio::join!(get(&pool), get(&pool), async {
        let (mut idle, mut busy) = (accept(&old).await, accept(&old).await);
        say(&mut idle, OK).await;
        say(
            &mut busy,
            "HTTP/1.1 200 OK\r\nBusy: yes\r\nContent-Length: 2\r\n\r\n",
        )
        .await;
        (idle, busy)
    });
    let (mut idle, mut busy) = streams;
    let mut answers = [first.unwrap(), second.unwrap()];
    answers.sort_by_key(|answer| !answer.headers().contains_key("busy"));
    let [begun, whole] = answers;
    assert_eq!(text(whole).await, "ok");

    let before = pool.target.clone();
    moved(&mut pool, &hosts, &new_authority);
    assert_eq!(idle.read(&mut [0]).await.unwrap(), 0, "closed at once");
    say(&mut busy, "ok").await;
    assert_eq!(text(begun).await, "ok", "it ends by itself");
    assert_eq!(
        busy.read(&mut [0]).await.unwrap(),
        0,
        "closed after its answer"
    );
    assert_eq!(open.get(), 0);

    let serving = async {
        let mut stream = accept(&new).await;
        say(&mut stream, OK).await;
    };
    let (answer, ()) = tokio::join!(get(&pool), serving);
    assert_eq!(text(answer.unwrap()).await, "ok");

    // A request that began before it moved is sent to where it was, and leaves nothing behind.
    let now = std::mem::replace(&mut pool.target, before);
    let serving = async {
        let mut stream = accept(&old).await;
        say(&mut stream, OK).await;
        stream
    };
    let (answer, mut stream) = tokio::join!(get(&pool), serving);
    assert_eq!(text(answer.unwrap()).await, "ok");
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    pool.target = now;

    // Back again, it is the host that it was.
    moved(&mut pool, &hosts, &old_authority);
    let serving = async {
        let mut stream = accept(&old).await;
        for _ in 0..2 {
            say(&mut stream, OK).await;
            hear(&mut stream).await;
        }
        say(&mut stream, OK).await;
    };
    let calling = async {
        for _ in 0..3 {
            assert_eq!(text(get(&pool).await.unwrap()).await, "ok");
        }
    };
    tokio::join!(serving, calling);
    assert_eq!(pool.hosts.borrow().len(), 2);
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_host_that_is_gone_is_forgotten_once_nobody_uses_it() {
    let hosts = hosts(Scheme::Http, "one:80".to_owned(), None);
    let (pool, _) = pool(&hosts, limits(1));
    let used = pool.host(&pool.target);
    pool.reconcile(&Targets::default(), limits(1));
    tokio::time::sleep(2 * SWEEP).await;
    assert_eq!(pool.hosts.borrow().len(), 1);
    drop(used);
    tokio::time::sleep(2 * SWEEP).await;
    assert_eq!(pool.hosts.borrow().len(), 0);
}
