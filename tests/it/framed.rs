//! What must be understood is understood however it is framed: with a length, chunked, until close,
//! compressed although nobody asked for it, with a byte order mark. From the API and from callers.

use std::io::Write;
use std::sync::Arc;
use std::sync::Mutex;

use damoov_proxy::simulator::{INSTANCE_KEY, Simulator};
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use http::Request;
use serde_json::{Value, json};

use crate::harness::{ECHO, Proxy, SCORES, damoov, proxy, user};
use crate::wire::{Message, Upstream, Wire, request};

// A 401 inside a success.
mod in_band;
// Logins, refreshes, registrations, moved and deleted users.
mod tokens;

/// A way to say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Sized,
    Chunked,
    UntilClose,
    Marked,
    Gzip,
    GzipChunked,
    GzipMembers,
    GzipMarked,
    Zlib,
    Deflate,
    Twice,
}

const FORMS: [Form; 11] = [
    Form::Sized,
    Form::Chunked,
    Form::UntilClose,
    Form::Marked,
    Form::Gzip,
    Form::GzipChunked,
    Form::GzipMembers,
    Form::GzipMarked,
    Form::Zlib,
    Form::Deflate,
    Form::Twice,
];

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn zlib(content: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn deflate(content: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

impl Form {
    /// The fields of a message, each with its end of line, and the bytes behind its head.
    fn of(self, content: &[u8]) -> (String, Vec<u8>) {
        let marked = ["\u{feff}".as_bytes(), content].concat();
        let (coding, coded) = match self {
            Form::Sized | Form::Chunked | Form::UntilClose => ("", content.to_vec()),
            Form::Marked => ("", marked),
            Form::Gzip | Form::GzipChunked => ("gzip", gzip(content)),
            Form::GzipMembers => {
                let (one, other) = content.split_at(content.len() / 2);
                ("X-GZip", [gzip(one), gzip(other)].concat())
            }
            Form::GzipMarked => ("gzip", gzip(&marked)),
            Form::Zlib => ("deflate", zlib(content)),
            Form::Deflate => ("Deflate", deflate(content)),
            Form::Twice => ("deflate, gzip", gzip(&zlib(content))),
        };
        let coding = match coding {
            "" => String::new(),
            coding => format!("Content-Encoding: {coding}\r\n"),
        };
        match self {
            Form::Chunked | Form::GzipChunked => {
                let chunked = format!("{coding}Transfer-Encoding: chunked\r\n");
                let (one, other) = coded.split_at(coded.len() / 3);
                let (first, second) = (one.len(), other.len());
                let first = format!("{first:x}\r\n").into_bytes();
                let second = format!("\r\n{second:x};ext\r\n").into_bytes();
                let chunks = [&*first, one, &*second, other, b"\r\n0\r\n\r\n"];
                (chunked, chunks.concat())
            }
            Form::UntilClose => (coding, coded),
            _ => {
                let length = coded.len();
                (format!("{coding}Content-Length: {length}\r\n"), coded)
            }
        }
    }

    /// An answer that says this.
    fn answer(self, status: &str, content: &str) -> Vec<u8> {
        let (fields, content) = self.of(content.as_bytes());
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n{fields}\r\n"
        );
        [head.into_bytes(), content].concat()
    }
}

/// The host of the Auth endpoints, played by a test: each request gets what is set, on a connection
/// of its own.
struct Played {
    url: String,
    state: Arc<Mutex<State>>,
    _task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct State {
    /// By the end of a path.
    answers: Vec<(&'static str, Vec<u8>)>,
    heard: Vec<Message>,
}

impl Played {
    async fn start() -> Played {
        let upstream = Upstream::listen().await;
        let url = upstream.url();
        let state = Arc::<Mutex<State>>::default();
        let shared = state.clone();
        let task = tokio::spawn(async move {
            loop {
                let Some(mut wire) = upstream.next().await else {
                    continue;
                };
                let request = wire.message().await;
                let answer = {
                    let mut state = shared.lock().unwrap();
                    let path = request.head.split(' ').nth(1).unwrap().to_owned();
                    state.heard.push(request);
                    let answer = state.answers.iter().find(|(end, _)| path.ends_with(end));
                    answer.map(|(_, answer)| answer.clone()).unwrap_or_default()
                };
                wire.write(answer).await;
            }
        });
        Played {
            url,
            state,
            _task: task,
        }
    }

    /// From now on requests whose path ends like this get this answer.
    fn answers(&self, path: &'static str, answer: Vec<u8>) {
        let mut state = self.state.lock().unwrap();
        state.answers.retain(|(known, _)| *known != path);
        state.answers.push((path, answer));
    }

    /// How many requests there were whose path ends like this.
    fn heard(&self, path: &str) -> usize {
        let state = self.state.lock().unwrap();
        let mut paths = state
            .heard
            .iter()
            .map(|request| request.head.split(' ').nth(1));
        let path = paths
            .by_ref()
            .filter(|heard| heard.unwrap().ends_with(path));
        path.count()
    }
}

const LOGIN: &str = "/Login";
const REFRESH: &str = "/RefreshToken";
const USERS: &str = "user.telematicssdk.com";

/// The answer to a login or a refresh of user `number`, whose tokens the simulator accepts.
fn granted(damoov: &Simulator, number: usize) -> String {
    let pair = damoov.handle().issue(&crate::harness::principal(number));
    json!({
        "Result": {
            "DeviceToken": user(number).to_string(),
            "AccessToken": {"Token": pair.access_token, "ExpiresIn": 86_400},
            "RefreshToken": pair.refresh_token,
        },
        "Status": 200,
        "Title": "",
        "Errors": [],
    })
    .to_string()
}
