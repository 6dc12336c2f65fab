//! Callers and an API in memory, on the thread of the proxy that stands between them. The API knows
//! which token is the right one, so that nothing but a proxy that does its work gets answers.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use damoov_proxy::damoov::auth;
use damoov_proxy::peer::Peer;
use damoov_proxy::principal::DeviceToken;
use damoov_proxy::proxy::Forwarder;
use damoov_proxy::server::{self, Stage};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::{Builder, LocalRuntime};
use tokio::sync::watch;

use crate::wiring::{self, LIFE, Wired, jwt, refresh_token};

/// Bytes of the API's answers.
const CONTENT: usize = 1024;
/// How an answer ends, and nothing else does.
const END: &[u8] = b"}}";
const PATH: &str = "/indicators/v3/Scores/safety?StartDate=2026-11-01&EndDate=2026-11-07";
const UNAUTHORIZED: &[u8] =
    b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

/// One request, and what the API thinks of tokens when it comes.
pub(crate) struct Call {
    request: Vec<u8>,
    right: Right,
}

/// Which token the API takes.
enum Right {
    /// The one that it took before.
    AsBefore,
    /// This one.
    Is(String),
    /// None, before somebody refreshes.
    Unissued,
}

/// A caller, the proxy and the API, connected.
pub(crate) struct Exchanges {
    runtime: LocalRuntime,
    api: Rc<Api>,
    caller: DuplexStream,
    /// `None` if caller and API talk without a proxy.
    proxy: Option<Wired>,
    calls: Vec<Call>,
}

struct Api {
    right: RefCell<String>,
    /// What the next refreshes bring: the JWT, and the whole answer.
    grants: RefCell<VecDeque<(String, Vec<u8>)>>,
    answer: Vec<u8>,
}

impl Call {
    /// A call of `user`, whose token is the one that the API took before.
    pub(crate) fn of(user: DeviceToken) -> Call {
        Call {
            request: format!(
                "GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: bench/1.0\r\n\
                 Accept: */*\r\nDeviceToken: {user}\r\n\r\n"
            )
            .into_bytes(),
            right: Right::AsBefore,
        }
    }

    /// The same with the token that is stored.
    pub(crate) fn with_stored_token(user: DeviceToken) -> Call {
        Call {
            right: Right::Is(jwt(user, 0)),
            ..Call::of(user)
        }
    }

    /// The same when the API takes no token that there is.
    pub(crate) fn with_rejected_token(user: DeviceToken) -> Call {
        Call {
            right: Right::Unissued,
            ..Call::of(user)
        }
    }

    /// A call without a proxy: it has the token itself.
    pub(crate) fn straight(user: DeviceToken) -> Call {
        let mut call = Call::with_stored_token(user);
        call.request.truncate(call.request.len() - 2);
        let field = format!("Authorization: Bearer {}\r\n\r\n", jwt(user, 0));
        call.request.extend_from_slice(field.as_bytes());
        call
    }
}

impl Exchanges {
    /// Through a proxy that holds this many users' pairs in its store. `warm` is called at once,
    /// `calls` when they are counted; `refreshed` is whom refreshes, if any come, are for.
    pub(crate) fn through_proxy(
        users: usize,
        refreshed: DeviceToken,
        warm: Vec<Call>,
        calls: Vec<Call>,
    ) -> Exchanges {
        let runtime = runtime();
        let api = Api::new(refreshed, warm.len() + calls.len());
        let (caller, proxy) = runtime.block_on(async {
            let mut proxy = wiring::wire(users).await;
            let (mut dialed, answering) = (proxy.dialed, api.clone());
            tokio::task::spawn_local(async move {
                while let Some(dialed) = dialed.recv().await {
                    let api = answering.clone();
                    match dialed.authority.as_str() {
                        auth::HOST => tokio::task::spawn_local(api.grant(dialed.stream)),
                        _ => tokio::task::spawn_local(api.answer(dialed.stream)),
                    };
                }
            });
            proxy.dialed = tokio::sync::mpsc::unbounded_channel().1;
            let forwarder = Forwarder::new(proxy.proxy.clone());
            let answers = Rc::new(server::answers(forwarder, proxy.times.clone()));
            let (caller, stream) = tokio::io::duplex(64 * 1024);
            let (stage, watched) = watch::channel(Stage::Serving);
            tokio::task::spawn_local(async move {
                let served = server::serve_connection(Peer::Uid(0), stream, answers, watched).await;
                drop(stage);
                served.expect("the caller stays");
            });
            (caller, proxy)
        });
        Exchanges::warmed(runtime, api, caller, Some(proxy), warm, calls)
    }

    /// Caller and API alone: what they cost is in every other count, too.
    pub(crate) fn straight(user: DeviceToken, warm: Vec<Call>, calls: Vec<Call>) -> Exchanges {
        let runtime = runtime();
        let api = Api::new(user, 0);
        let (caller, stream) = tokio::io::duplex(64 * 1024);
        runtime.block_on(async {
            tokio::task::spawn_local(api.clone().answer(stream));
        });
        Exchanges::warmed(runtime, api, caller, None, warm, calls)
    }

    fn warmed(
        runtime: LocalRuntime,
        api: Rc<Api>,
        mut caller: DuplexStream,
        proxy: Option<Wired>,
        warm: Vec<Call>,
        calls: Vec<Call>,
    ) -> Exchanges {
        runtime.block_on(api.called(&mut caller, &warm));
        Exchanges {
            runtime,
            api,
            caller,
            proxy,
            calls,
        }
    }

    /// Makes the calls, and returns once all of them stand in the access log, too. What is left is
    /// the folder; everything else is left behind as it is, because to take it apart costs.
    pub(crate) fn run(mut self) -> Option<TempDir> {
        let called = self.api.called(&mut self.caller, &self.calls);
        self.runtime.block_on(called);
        let proxy = self.proxy.take();
        std::mem::forget(self);
        proxy.map(|proxy| {
            drop(proxy.log);
            std::mem::forget((proxy.proxy, proxy.provider, proxy.background));
            std::mem::forget(proxy.handed_out);
            proxy.folder
        })
    }
}

impl Api {
    fn new(refreshed: DeviceToken, refreshes: usize) -> Rc<Api> {
        let grants = (1..=refreshes).map(|generation| {
            let jwt = jwt(refreshed, generation);
            let refresh = refresh_token(refreshed, generation);
            let content = format!(
                r#"{{"Result":{{"DeviceToken":"{refreshed}","AccessToken":{{"Token":"{jwt}","ExpiresIn":{LIFE}}},"RefreshToken":"{refresh}"}},"Status":200,"Title":"","Errors":[]}}"#
            );
            (jwt, ok(&content))
        });
        let start = r#"{"Status":200,"Title":"","Errors":[],"Result":{"Text":""#;
        let text = "x".repeat(CONTENT - start.len() - 1 - END.len());
        Rc::new(Api {
            right: RefCell::default(),
            grants: RefCell::new(grants.collect()),
            answer: ok(&[start, &text, "\"}}"].concat()),
        })
    }

    /// Makes calls, one after the other; each must be answered 200.
    async fn called(&self, caller: &mut DuplexStream, calls: &[Call]) {
        let mut answer = Vec::with_capacity(4096);
        for call in calls {
            match &call.right {
                Right::AsBefore => {}
                Right::Is(token) => self.right.borrow_mut().clone_from(token),
                Right::Unissued => self.right.borrow_mut().replace_range(.., "unissued"),
            }
            caller.write_all(&call.request).await.expect("it is served");
            answer.clear();
            while !answer.ends_with(END) {
                let read = caller.read_buf(&mut answer).await.expect("an answer");
                let is_good = read > 0 && answer.starts_with(b"HTTP/1.1 200 ");
                assert!(is_good, "{}", answer.escape_ascii());
            }
        }
    }

    /// The API: 1 KiB for a request with the right token, else 401.
    async fn answer(self: Rc<Api>, mut stream: DuplexStream) {
        let mut request = Vec::with_capacity(4096);
        loop {
            request.clear();
            while !request.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut request).await.expect("a request") == 0 {
                    return;
                }
            }
            let head = str::from_utf8(&request).expect("visible ASCII");
            let (_, token) = head.split_once(": Bearer ").expect("it has a token");
            let is_right = token.starts_with(self.right.borrow().as_str());
            let answer = if is_right { &self.answer } else { UNAUTHORIZED };
            stream.write_all(answer).await.expect("it is read");
        }
    }

    /// The Auth endpoints: each call is a refresh, and gets the next grant.
    async fn grant(self: Rc<Api>, mut stream: DuplexStream) {
        let mut request = Vec::with_capacity(4096);
        loop {
            request.clear();
            // The content is one object, of strings.
            while !request.ends_with(b"\"}") {
                if stream.read_buf(&mut request).await.expect("a request") == 0 {
                    return;
                }
            }
            assert!(request.starts_with(b"POST /v1/Auth/RefreshToken "));
            let (jwt, answer) = self.grants.borrow_mut().pop_front().expect("enough grants");
            *self.right.borrow_mut() = jwt;
            stream.write_all(&answer).await.expect("it is read");
        }
    }
}

fn ok(content: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n\
         Content-Length: {}\r\n\r\n{content}",
        content.len()
    )
    .into_bytes()
}

fn runtime() -> LocalRuntime {
    Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())
        .expect("a runtime")
}
