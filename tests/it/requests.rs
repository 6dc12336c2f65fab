//! Hostile and odd requests, byte by byte: what is refused and how, what becomes of the connection,
//! and what the API gets to see.

mod content;
mod cors;
mod fields;
mod framing;
mod hosts;
mod hygiene;
mod limits;
mod naming;
mod paths;
mod routes;

use damoov_proxy::simulator::{Recorded, Simulator};

use crate::harness::{Builder, Proxy, damoov, proxy};
use crate::wire::{Message, Wire, get, request};

/// A proxy and what is behind it.
struct Scene {
    damoov: Simulator,
    proxy: Proxy,
}

impl Scene {
    async fn new() -> Scene {
        Scene::with(|proxy| proxy).await
    }

    async fn with(change: impl FnOnce(Builder) -> Builder) -> Scene {
        let damoov = damoov().await;
        let proxy = change(proxy(&damoov)).start().await;
        Scene { damoov, proxy }
    }

    /// Sends a request on a connection of its own and reads the answer.
    async fn ask(&self, request: impl AsRef<[u8]>) -> Message {
        Wire::to(&self.proxy).await.ask(request).await
    }

    /// The request is answered by the proxy, with this status and code word, and by nobody else.
    async fn refuses(&self, request: impl AsRef<[u8]>, status: u16, code: &str) {
        let shown = shown(&request);
        let answer = self.ask(request).await;
        assert_eq!(
            (answer.status(), &*answer.code()),
            (status, code),
            "{shown}"
        );
        let proxy_status = answer.field("proxy-status").unwrap_or_default();
        assert!(
            proxy_status.starts_with("damoov-proxy; error=")
                && proxy_status.ends_with(&format!("; details=\"{code}\"")),
            "{shown}: {proxy_status}"
        );
        self.heard_nothing(&shown);
    }

    /// The request is refused in a way that leaves nothing to be read behind it: another request
    /// that follows on the same connection is not answered. Whether hyper refuses or the proxy,
    /// the statuses are `statuses`.
    async fn is_the_end(&self, request: impl AsRef<[u8]>, statuses: &[u16]) {
        let shown = shown(&request);
        let mut wire = Wire::to(&self.proxy).await;
        wire.write(
            [
                request.as_ref(),
                get("/mobilesdk/stage/echo?behind", "").as_bytes(),
            ]
            .concat(),
        )
        .await;
        let answer = wire.message().await;
        assert!(
            statuses.contains(&answer.status()),
            "{shown}: {}",
            answer.head
        );
        assert!(answer.closes(), "{shown}: {}", answer.head);
        let rest = wire.rest().await;
        assert!(
            rest.is_empty(),
            "{shown}: {}",
            String::from_utf8_lossy(&rest)
        );
        self.heard_nothing(&shown);
    }

    /// Nothing has reached the API, not even a login.
    fn heard_nothing(&self, why: &str) {
        let counts = self.damoov.handle().counts();
        assert_eq!(counts.total, Default::default(), "{why}");
    }

    /// What the API got, most recently.
    fn heard(&self) -> Recorded {
        let mut requests = self.damoov.handle().requests();
        requests.pop().expect("a request has arrived")
    }
}

fn shown(request: &impl AsRef<[u8]>) -> String {
    let text = request.as_ref();
    text[..text.len().min(300)].escape_ascii().to_string()
}
