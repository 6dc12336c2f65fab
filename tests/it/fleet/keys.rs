//! The store's key is rotated in the wrong order: one sidecar has the new key before another knows it.

use std::process::ExitStatus;

use super::checker::Trial;
use super::scene::{Fleet, damoov_of_a_fleet};
use crate::harness::rounds;

#[tokio::test]
async fn a_sidecar_that_lacks_the_key_refuses_those_users_and_logs_nobody_in() {
    let damoov = damoov_of_a_fleet(|_| ()).await;
    let mut fleet = Fleet::start(damoov, 2, |_, sidecar| sidecar).await;
    fleet.sidecars[0].import(&fleet.damoov, 0..2);
    fleet.serve_all(0..2).await;
    let [ahead, behind] = [0, 1];
    for round in 0..rounds(1, 5) {
        let [old, new] = match round % 2 {
            0 => ["FIRST_KEY", "SECOND_KEY"],
            _ => ["SECOND_KEY", "FIRST_KEY"],
        };
        let old_keys = format!("[{{ env = \"{old}\" }}]");
        restart_with(&mut fleet, ahead, new, &old_keys).await;
        fleet.damoov.handle().expire(None);
        // Sealed with the new key from here on.
        fleet.serve(ahead, 0).await;
        for _ in 0..3 {
            let answer = fleet.ask(behind, 0).await;
            assert_eq!(answer.code(), "store_unavailable", "{}", answer.text());
        }
        fleet.serve(behind, 1).await;

        // Not even a restart helps, nor does it harm.
        restart_with(&mut fleet, behind, old, "[]").await;
        let answer = fleet.ask(behind, 0).await;
        assert_eq!(answer.code(), "store_unavailable", "{}", answer.text());
        fleet.serve(behind, 1).await;
        let unknown = "result=\"unknown_key\"";
        let met = fleet.sidecars[behind].metric("store_operations_total", unknown);
        assert!(met.await >= 1.0);

        restart_with(&mut fleet, behind, new, &old_keys).await;
        fleet.damoov.handle().expire(None);
        fleet.serve_all(0..2).await;

        // Nothing needs the old key any more.
        let (code, said) = fleet.sidecars[ahead].run("tokens reseal").await;
        assert_eq!(code, Some(0), "{said}");
        for sidecar in [ahead, behind] {
            restart_with(&mut fleet, sidecar, new, "[]").await;
        }
        fleet.serve_all(0..2).await;
    }
    assert_eq!(fleet.logins(), 0);
    fleet.judge(Trial::default());
}

async fn restart_with(fleet: &mut Fleet, number: usize, key: &str, old_keys: &str) {
    let sidecar = &mut fleet.sidecars[number];
    let ended: ExitStatus = sidecar.terminate().await;
    assert!(ended.success(), "{}", sidecar.log());
    sidecar.reconfigure("store.key.env", key);
    sidecar.reconfigure("store.old_keys", old_keys);
    sidecar.start().await;
}
