//! The commands on a store that sidecars share: beside them, and while its server is not reached.

use std::time::Duration;

use damoov_proxy::simulator::{Action, Delay, Fault, On};
use serde_json::Value;
use servers::{Database, Server, Stop};
use tokio::time::Instant;

use super::checker::Trial;
use super::healing::nothing_is_lost;
use super::scene::{Fleet, damoov_of_a_fleet, sidecar};
use crate::harness::{Proxy, SCORES, captured, eventually, principal, user};

async fn run(proxy: &Proxy, command: &str, code: i32) -> String {
    let (exit, said) = proxy.run(command).await;
    assert_eq!(exit, Some(code), "{command}: {said}");
    said
}

async fn json(proxy: &Proxy, command: &str) -> Value {
    let output = captured(proxy.command(command)).await;
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{command}: {output:?}"))
}

#[tokio::test]
async fn what_one_sidecar_does_is_shown_by_commands_beside_another() {
    let damoov = damoov_of_a_fleet(|_| {}).await;
    let fleet = Fleet::start(damoov, 2, |_, builder| builder).await;
    let [first, second] = &fleet.sidecars[..] else {
        panic!("two sidecars")
    };
    let slow = Fault::new(On::Login, Action::Delay(Delay::Millis(2000)));
    fleet.damoov.handle().add_fault(slow);
    let call = first.calling(1, SCORES);
    let show = format!("tokens show {}", user(1));
    eventually("the lease is shown", async || {
        let (_, shown) = second.run(&show).await;
        shown.contains("lease          held by run ")
    })
    .await;
    assert_eq!(call.await.unwrap().status, 200);
    fleet.damoov.handle().clear_faults();
    first.import(&fleet.damoov, 2..=4);
    fleet.serve_all(2..=4).await;

    let shown = run(second, &show, 0).await;
    for row in [
        "lease          none",
        "store clock    that of this machine",
        "outbox         empty",
    ] {
        assert!(shown.contains(row), "{row}: {shown}");
    }
    let shown = json(second, &format!("{show} --json")).await;
    assert_eq!(shown["store"]["shared"], true);
    assert_eq!(shown["store"]["outbox"], 0);
    assert_eq!(shown["lease"], Value::Null);
    assert_eq!(run(second, "tokens list --count", 0).await, "4\n");
    let budget = json(second, "budget --json").await;
    assert_eq!(budget["windows"][0]["used"], 1);
    let checked = run(second, "check", 0).await;
    assert!(checked.contains("store      postgres://"), "{checked}");
    let verified = run(second, "tokens verify --sample 4", 0).await;
    assert!(verified.contains("refreshed 4, rejected 0"), "{verified}");
    let refused = run(second, "tokens backup --to /nowhere/backup", 1).await;
    assert!(
        refused.contains("pg_dump") && refused.contains("tokens export --sealed"),
        "{refused}"
    );
    run(second, &format!("tokens forget {}", user(2)), 0).await;
    eventually("the first sidecar follows", async || {
        first.get(2, SCORES).await;
        fleet.damoov.handle().counts_of(&principal(2)).logins.ok == 1
    })
    .await;
}

#[tokio::test]
async fn a_store_that_is_not_reached_is_exit_code_1_and_a_sentence() {
    let damoov = damoov_of_a_fleet(|_| {}).await;
    let server = Server::start().await;
    let database = Database::on(&server);
    let proxy = sidecar(&damoov, 0, &database.url()).stopped_here();
    run(&proxy, "tokens import --from /dev/null", 0).await;
    server.stop(Stop::Immediate).await;
    for command in [
        "check",
        "budget",
        "tokens list",
        "tokens import --from /dev/null",
        "tokens export --sealed --to -",
        "tokens reseal",
        "tokens verify",
    ] {
        let began = Instant::now();
        let said = run(&proxy, command, 1).await;
        assert!(said.contains("error: "), "{command}: {said}");
        assert!(
            said.contains("not reached") || said.contains("away"),
            "{command}: {said}"
        );
        assert!(began.elapsed() < Duration::from_secs(10), "{command}");
    }
    run(&proxy, "check --offline", 0).await;
}

#[tokio::test]
async fn a_key_is_replaced_in_the_order_that_costs_nobody_a_request() {
    let damoov = damoov_of_a_fleet(|_| {}).await;
    let mut fleet = Fleet::start(damoov, 2, |_, builder| builder).await;
    fleet.sidecars[0].import(&fleet.damoov, 1..=5);
    fleet.serve_all(1..=5).await;
    // First every sidecar can open what the new key seals, then each seals with it.
    for (key, old) in [("FIRST_KEY", "SECOND_KEY"), ("SECOND_KEY", "FIRST_KEY")] {
        for number in 0..2 {
            let sidecar = &mut fleet.sidecars[number];
            sidecar.terminate().await;
            sidecar.reconfigure("store.key.env", key);
            sidecar.reconfigure("store.old_keys", &format!("[{{ env = \"{old}\" }}]"));
            sidecar.start().await;
            fleet.damoov.handle().expire(None);
            fleet.serve_all(1..=5).await;
        }
    }
    // Too early: records are sealed with the key that would be dropped.
    let mut only_new = sidecar(&fleet.damoov, 2, &fleet.database.url())
        .set("store.key.env", "SECOND_KEY")
        .stopped_here();
    run(&only_new, "check", 78).await;
    let said = run(&fleet.sidecars[0], "tokens reseal", 0).await;
    assert!(said.contains("nothing is sealed with it"), "{said}");
    run(&only_new, "check", 0).await;
    only_new.start().await;
    fleet.sidecars.push(only_new);
    let sidecars: Vec<_> = fleet.sidecars.iter().collect();
    let healed = nothing_is_lost(&fleet.damoov, &sidecars, 1..=5).await;
    assert_eq!(fleet.logins(), 0);
    fleet.judge(Trial {
        healed: Some(healed),
        ..Trial::default()
    });
}
