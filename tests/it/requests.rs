//! Hostile and odd requests, byte by byte: what is refused and how, what becomes of the connection,
//! and what the API gets to see.

// Content that nobody has read when the answer is given.
mod content;
// Web pages: preflights, and what their browsers are told of answers.
mod cors;
// Lines and names of fields.
mod fields;
// Where a request ends must be beyond doubt (RFC 9112 §6).
mod framing;
// Which Host is served, and who may ask: a web page must not reach a proxy on the loopback.
mod hosts;
// What the API gets to see of a request, and the caller of an answer (I9).
mod hygiene;
// Limits of size, time and number.
mod limits;
// Naming the principal and the instance.
mod naming;
// Paths that two servers could read differently, and the spellings of routes.
mod paths;
// Methods, protocols and expectations.
mod routes;

use crate::harness::Scene;
use crate::wire::{Wire, get};

impl Scene {
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
}

fn shown(request: &impl AsRef<[u8]>) -> String {
    let text = request.as_ref();
    text[..text.len().min(300)].escape_ascii().to_string()
}
