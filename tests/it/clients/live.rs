//! Live tracking, followed with the packages `websockets` (Python) and `ws` (Node).

use damoov_proxy::simulator::{INSTANCE_ID, INSTANCE_KEY};

use super::*;
use crate::harness::{damoov_with, principal, programs, user};

#[tokio::test]
async fn websockets_follows_through_expiry_revocation_and_restarts() {
    follows(programs::python(), "live.py").await;
}

#[tokio::test]
async fn ws_follows_through_expiry_revocation_and_restarts() {
    follows(programs::node(), "live.js").await;
}

async fn follows(interpreter: Command, script: &str) {
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        settings.live.update = Duration::from_millis(20);
        settings.live.ping = Duration::from_millis(500);
    })
    .await;
    let mut proxy = troubled(&damoov).start().await;
    let device = user(1).to_string();
    let arguments = [&proxy.url(""), &device, INSTANCE_ID, INSTANCE_KEY];
    let mut client = Script::start(interpreter, script, &arguments);
    let mut connection = updated(&mut client, 0).await;
    for trouble in TROUBLES {
        trouble.strike(&damoov, &mut proxy).await;
        if trouble.ends_tokens_alone() {
            client.tell("connect again");
        }
        connection = updated(&mut client, connection).await;
    }
    client.end().await;
    renewed_no_more_than_needed(&damoov, &principal(1), 1);
}

/// Waits for a `device_update` on a connection later than `earlier`; gives the connection.
async fn updated(client: &mut Script, earlier: u64) -> u64 {
    loop {
        let message = client.line().await;
        let connection = message["connection"].as_u64().unwrap();
        if message["type"] == "device_update" && connection > earlier {
            return connection;
        }
    }
}
