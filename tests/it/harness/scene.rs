//! A proxy and what stands behind it.

use damoov_proxy::simulator::{Recorded, Simulator};

use super::builder::{Builder, proxy};
use super::damoov::damoov;
use super::process::Proxy;
use super::{ECHO, ECHO_HOST};
use crate::wire::{GOOD, Message, Upstream, Wire, request};

/// A proxy in front of the simulated Damoov.
pub struct Scene {
    pub damoov: Simulator,
    pub proxy: Proxy,
}

/// A proxy whose users are logged in by the simulator, in front of an API that a test plays.
pub struct PlayedScene {
    pub damoov: Simulator,
    /// The host of [`ECHO`].
    pub upstream: Upstream,
    pub proxy: Proxy,
}

impl Scene {
    pub async fn new() -> Scene {
        Scene::with(|proxy| proxy).await
    }

    pub async fn with(change: impl FnOnce(Builder) -> Builder) -> Scene {
        Scene::before(damoov().await, change).await
    }

    /// In front of a Damoov with settings of its own.
    pub async fn before(damoov: Simulator, change: impl FnOnce(Builder) -> Builder) -> Scene {
        let proxy = change(proxy(&damoov)).start().await;
        Scene { damoov, proxy }
    }

    /// Sends a request on a connection of its own and reads the answer.
    pub async fn ask(&self, request: impl AsRef<[u8]>) -> Message {
        Wire::to(&self.proxy).await.ask(request).await
    }

    /// What the API got, most recently.
    pub fn heard(&self) -> Recorded {
        let mut requests = self.damoov.handle().requests();
        requests.pop().expect("a request has arrived")
    }
}

impl PlayedScene {
    pub async fn new() -> PlayedScene {
        PlayedScene::with(|proxy| proxy).await
    }

    /// The proxy has one worker, so that it is known which connections are whose.
    pub async fn with(change: impl FnOnce(Builder) -> Builder) -> PlayedScene {
        let damoov = damoov().await;
        let upstream = Upstream::listen().await;
        let proxy = proxy(&damoov)
            .redirect(ECHO_HOST, &upstream.url())
            .set("workers.threads", "1");
        PlayedScene {
            proxy: change(proxy).start().await,
            damoov,
            upstream,
        }
    }

    /// A caller that has sent a request without content.
    pub async fn calling(&self, method: &str) -> Wire {
        let mut caller = Wire::to(&self.proxy).await;
        caller.write(request(method, ECHO, "")).await;
        caller
    }

    /// A caller that has asked, and the API's end, where the request's head has come.
    pub async fn asked(&self, request: impl AsRef<[u8]>) -> (Wire, Wire) {
        let mut caller = Wire::to(&self.proxy).await;
        caller.write(request).await;
        let mut api = self.upstream.accept().await;
        api.head().await;
        (caller, api)
    }

    /// What a caller gets who is the first on a new connection, and that connection.
    pub async fn answered(&self, answer: &str) -> (Message, Wire) {
        let mut caller = self.calling("GET").await;
        let api = self.upstream.answer_once(answer).await;
        (caller.message().await, api)
    }

    /// A request on a connection of its own gets its own answer.
    pub async fn still_works(&self) -> Wire {
        let (answer, api) = self.answered(GOOD).await;
        assert_eq!((answer.status(), &*answer.content), (200, &b"good"[..]));
        api
    }
}
