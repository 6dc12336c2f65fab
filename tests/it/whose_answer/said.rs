//! The bytes that the hostile API says: answers good and hostile.

use fastrand::Rng;

/// An answer that leaves no doubt.
pub fn good(rng: &mut Rng, tag: &str, content: &[u8]) -> Vec<u8> {
    let status = ["200 OK", "201 Created", "401 Unauthorized", "500 Oops"][rng.usize(..4)];
    let mut said = format!("HTTP/1.1 {status}\r\nX-Tag: ~{tag}~\r\n").into_bytes();
    match rng.bool() {
        true => {
            said.extend(format!("Content-Length: {}\r\n\r\n", content.len()).bytes());
            said.extend(content);
        }
        false => {
            said.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            said.extend(chunked(rng, content));
        }
    }
    said
}

fn chunked(rng: &mut Rng, content: &[u8]) -> Vec<u8> {
    let mut said = Vec::new();
    for chunk in content.chunks(rng.usize(1..80)) {
        said.extend(format!("{:x}\r\n", chunk.len()).bytes());
        said.extend(chunk);
        said.extend(b"\r\n");
    }
    said.extend(b"0\r\n\r\n");
    said
}

/// An answer of which something is wrong, or nothing after all.
pub fn hostile(rng: &mut Rng, tag: &str, content: &[u8]) -> Vec<u8> {
    let pick = |rng: &mut Rng, from: &[&str]| from[rng.usize(..from.len())].to_owned();
    let mut said = Vec::new();
    for _ in 0..rng.usize(..8).saturating_sub(5) {
        let interim = ["100 Continue", "103 Early Hints", "102 Processing", "199 X"];
        said.extend(format!("HTTP/1.1 {}\r\nX-Tag: ~{tag}~\r\n\r\n", pick(rng, &interim)).bytes());
    }
    let line = match rng.u8(..4) {
        0 => pick(
            rng,
            &[
                "HTTP/1.1 204 No Content",
                "HTTP/1.1 304 Not Modified",
                "HTTP/1.1 205 Reset Content",
                "HTTP/1.0 200 OK",
                "HTTP/1.1 101 Switching Protocols",
                "HTTP/1.1 20 OK",
                "HTTP/1.1 2000 OK",
                "HTTP/2 200",
                "HTTP/1.1 200",
                "http/1.1 200 OK",
                "ICY 200 OK",
                "",
                "\r\nHTTP/1.1 200 OK",
                "HTTP/1.1  200 OK",
                "HTTP/1.1 200 OK\r\nHTTP/1.1 200 OK",
                "PRI * HTTP/2.0\r\n\r\nSM",
            ],
        ),
        _ => "HTTP/1.1 200 OK".to_owned(),
    };
    said.extend(format!("{line}\r\nX-Tag: ~{tag}~\r\n").bytes());
    let length = content.len();
    let chunks = chunked(rng, content);
    let (framing, content) = match rng.u8(..16) {
        0 => (format!("Content-Length: {length}"), content.to_vec()),
        1 => ("Transfer-Encoding: chunked".into(), chunks),
        2 => ("X: y".into(), content.to_vec()),
        3 => (
            format!("Content-Length: {length}\r\nTransfer-Encoding: chunked"),
            chunks,
        ),
        4 => (
            format!("Transfer-Encoding: chunked\r\nContent-Length: {length}"),
            content.to_vec(),
        ),
        5 => (
            format!("Content-Length: {length}\r\nContent-Length: {length}"),
            content.to_vec(),
        ),
        6 => (
            format!("Content-Length: {length}\r\nContent-Length: {}", length + 5),
            content.to_vec(),
        ),
        7 => (
            format!("Content-Length: {length}\r\nContent-Length: 0{length}"),
            content.to_vec(),
        ),
        8 => (
            format!("Content-Length: {length}, {length}"),
            content.to_vec(),
        ),
        9 => {
            let lengths = [
                "+1",
                "-1",
                "0x1",
                "",
                "1e1",
                "01",
                "18446744073709551616",
                "1 1",
            ];
            (
                format!("Content-Length: {}", pick(rng, &lengths)),
                content.to_vec(),
            )
        }
        10 => {
            let codings = [
                "gzip, chunked",
                "chunked, chunked",
                "identity",
                "xchunked",
                "chunked,",
                "Chunked",
                "chunked\r\nTransfer-Encoding: chunked",
                "\u{b}chunked",
            ];
            (
                format!("Transfer-Encoding: {}", pick(rng, &codings)),
                chunks,
            )
        }
        11 => {
            let sizes = [
                "FFFFFFFFFFFFFFFFF",
                "-1",
                "1;a=b",
                "+1",
                "0x1",
                " 1",
                "1 ",
                "",
                "1\n",
                "00000000000000000001",
                "8000000000000000",
            ];
            let chunk = format!("{}\r\nx\r\n", pick(rng, &sizes)).into_bytes();
            (
                "Transfer-Encoding: chunked".into(),
                [chunk, chunks].concat(),
            )
        }
        12 => {
            let trailer = format!("X-Tag: ~{tag}~\r\n\r\n").into_bytes();
            let open = chunks[..chunks.len() - 2].to_vec();
            (
                "Transfer-Encoding: chunked".into(),
                [open, trailer].concat(),
            )
        }
        13 => {
            let fields = [
                "Content-Length : 1",
                "Transfer-Encoding : chunked",
                "Content-Length:\r\n 1",
                " Content-Length: 1",
                "Content_Length: 1",
                "Content-Length\r\n: 1",
                "Connection: content-length\r\nContent-Length: 1",
            ];
            (pick(rng, &fields), content.to_vec())
        }
        14 => {
            let fields = [
                "Connection: close",
                "Connection: Upgrade\r\nUpgrade: websocket",
                "Keep-Alive: timeout=0",
                "Proxy-Connection: close",
            ];
            (
                format!("{}\r\nContent-Length: {length}", pick(rng, &fields)),
                content.to_vec(),
            )
        }
        _ => (format!("Content-Length: {}", length / 2), content.to_vec()),
    };
    said.extend(framing.bytes());
    said.extend(b"\r\n\r\n");
    said.extend(content);
    match rng.u8(..6) {
        0 => said.extend(good(rng, tag, format!("~{tag}~").as_bytes())),
        1 => said.extend(format!("~{tag}~").bytes()),
        2 => said.extend(pick(rng, &["\r\n", "0\r\n\r\n", "\0", "HTTP/1.1 200 OK\r\n"]).bytes()),
        _ => {}
    }
    if rng.u8(..4) == 0 {
        for _ in 0..rng.usize(1..4) {
            mutate(rng, &mut said);
        }
    }
    said
}

/// Changes something by chance.
fn mutate(rng: &mut Rng, said: &mut Vec<u8>) {
    if said.is_empty() {
        return;
    }
    let at = rng.usize(..said.len());
    let end = (at + rng.usize(1..20)).min(said.len());
    match rng.u8(..6) {
        0 => said[at] = rng.u8(..),
        1 => drop(said.drain(at..end)),
        2 => said.truncate(at),
        3 => {
            let again = said[at..end].to_vec();
            said.splice(at..at, again);
        }
        4 => {
            let pieces: [&[u8]; 5] = [b"\r\n", b"\n", b"\r", b"\0", b"\r\n\r\n"];
            said.splice(at..at, pieces[rng.usize(..5)].iter().copied());
        }
        _ => said[at] ^= 1 << rng.u8(..8),
    }
}
