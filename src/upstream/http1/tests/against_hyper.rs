//! The same answers read by hyper's client and by this.

use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;

use super::*;

/// What both clients make of an answer: its status, its fields and its content.
type Told = (u16, Vec<(String, Vec<u8>)>, Vec<u8>);

fn told(parts: &http::response::Parts, content: Vec<u8>) -> Told {
    // hyper leaves to a 204 the length that it must not have (RFC 9110 §8.6).
    let is_empty = parts.status == StatusCode::NO_CONTENT;
    let fields = parts.headers.iter();
    let fields = fields.filter(|(name, _)| !is_empty || *name != header::CONTENT_LENGTH);
    let fields = fields.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
    let mut fields: Vec<_> = fields.collect();
    // A field that was taken out leaves its place to the last one. Those of one name keep their order.
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    (parts.status.as_u16(), fields, content)
}

async fn told_by_hyper(far_writes: Vec<u8>) -> Option<Told> {
    let (near, mut far) = duplex(ROOM);
    tokio::task::spawn_local(async move {
        // hyper takes what comes before the request for nobody's.
        hear(&mut far, "\r\n\r\n").await;
        // It may have heard enough before the end.
        let _ = far.write_all(&far_writes).await;
    });
    let (mut sender, connection) = http1::handshake(TokioIo::new(near)).await.unwrap();
    let request = http::Request::get("/")
        .header("host", "a")
        .body(Full::<Bytes>::default());
    let asking = async {
        let (parts, content) = sender
            .send_request(request.unwrap())
            .await
            .ok()?
            .into_parts();
        let content = content.collect().await.ok()?.to_bytes().to_vec();
        Some(told(&parts, content))
    };
    let driving = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        biased;
        told = asking => told,
        () = driving => None,
    }
}

async fn told_by_us(far_writes: Vec<u8>, piece: usize) -> Option<Told> {
    let (connection, mut far) = connected(ROOM);
    let writing = async move {
        for piece in far_writes.chunks(piece) {
            // What was heard may be enough before the end.
            let _ = far.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        far.shutdown().await.unwrap();
        std::future::pending().await
    };
    let asking = async {
        let (parts, content) = get(connection).await.ok()?.into_parts();
        let (content, _) = whole(Response::new(content)).await.ok()?;
        Some(told(&parts, content))
    };
    tokio::select! {
        told = asking => told,
        () = writing => None,
    }
}

fn answers() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => Just("HTTP/1.1 200 OK\r\n".to_owned()),
        1 => Just("HTTP/1.0 200 OK\r\n".to_owned()),
        1 => Just("HTTP/1.1 204 No Content\r\n".to_owned()),
        1 => Just("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n".to_owned()),
        1 => "HTTP/[0-9].[0-9] [0-9]{2,4} [ -~]{0,5}\r?\n",
    ];
    let field = prop_oneof![
        Just("Content-Length: 5\r\n".to_owned()),
        Just("Transfer-Encoding: chunked\r\n".to_owned()),
        "(?i)content-length: ?[0-9+, ]{0,3}\r\n",
        "(?i)transfer-encoding: ?(chunked|gzip|identity|, ){0,3}\r\n",
        "(?i)connection: (close|keep-alive)\r\n",
        "[A-Za-z-]{1,8}:[ -~\t\u{e4}]{0,9}\r?\n",
        "[ -~\r\n]{0,8}",
    ];
    let content = prop_oneof![
        Just("hello".to_owned()),
        Just("5\r\nhello\r\n0\r\n\r\n".to_owned()),
        "(5;?a?\r\nhello\r\n){0,2}0\r\n(A: b\r\n)?\r\n",
        "[0-9a-fx;\r\n ]{0,20}",
    ];
    (line, proptest::collection::vec(field, 0..4), content).prop_map(|(line, fields, content)| {
        format!("{line}{}\r\n{content}", fields.concat()).into()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever the API says: no panic, and what is taken for an answer is the one that hyper
    /// reads, too. It may take more for answers than this does.
    #[test]
    fn an_answer_is_the_one_that_hyper_reads_or_none(answer in answers(), piece in 1..80_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
        runtime.unwrap().block_on(async {
            let ours = told_by_us(answer.clone(), piece).await;
            // hyper reads content of a 205, which has none.
            if ours.as_ref().is_some_and(|(status, ..)| *status != 205) {
                let theirs = told_by_hyper(answer).await;
                prop_assert_eq!(ours, theirs);
            }
            Ok(())
        })?;
    }
}
