//! The journal: doors, serials, verdicts, and what became of answers.

use super::*;

const DOORS: [&str; 2] = ["one", "other"];

/// A simulator that keeps a journal, and a client at each of its doors.
async fn start_with_doors() -> (Simulator, [Client; 2]) {
    let simulator = Simulator::start(Settings {
        doors: DOORS.map(str::to_owned).to_vec(),
        ..unlimited()
    })
    .await
    .unwrap();
    simulator.handle().begin_journal();
    let clients = DOORS.map(|door| {
        let url = simulator.door_url(door).unwrap();
        Client::of(url.strip_prefix("http://").unwrap().parse().unwrap())
    });
    assert_eq!(simulator.door_url("a third one"), None);
    (simulator, clients)
}

fn born(serial: u64, parent: Option<u64>) -> Option<Birth> {
    Some(Birth {
        serial: Serial(serial),
        parent: parent.map(Serial),
    })
}

fn fate(entry: &Entry) -> Option<Fate> {
    entry.end.map(|end| end.fate)
}

#[tokio::test]
async fn each_call_stands_there_with_its_door_and_the_pairs_it_moved() {
    let (simulator, [one, other]) = start_with_doors().await;
    let first = one.log_in(USER).await;
    other.log_in(OTHER).await;
    let second = other.refresh(&first).await.unwrap();
    one.refresh(&first).await.unwrap();
    let issued = simulator.handle().issue(&user(USER));
    other.refresh(&second).await.unwrap();
    assert_eq!(issued.refresh_token.len(), 64);

    let journal = simulator.handle().journal();
    assert_eq!(journal.forgotten, 0);
    let said: Vec<_> = journal
        .entries
        .iter()
        .map(|entry| {
            let presented = entry.presented.map(|Serial(serial)| serial);
            (entry.called, presented, entry.issued, entry.verdict)
        })
        .collect();
    let (granted, rejected) = (Some(Verdict::Granted), Some(Verdict::Rejected));
    assert_eq!(
        said,
        [
            (Called::Login, None, born(1, None), granted),
            (Called::Login, None, born(2, None), granted),
            (Called::Refresh, Some(1), born(3, Some(1)), granted),
            (Called::Refresh, Some(1), None, rejected),
            (Called::Issue, None, born(4, Some(3)), granted),
            (Called::Refresh, Some(3), None, rejected),
        ]
    );
    let doors: Vec<_> = journal.entries.iter().map(|e| e.door.as_deref()).collect();
    let (one, other) = (Some("one"), Some("other"));
    assert_eq!(doors, [one, other, other, one, None, other]);
    assert_eq!(journal.entries[1].principal, Some(user(OTHER)));
    assert_eq!(journal.entries[3].principal, Some(user(USER)));
    let mut ticks = journal.entries.iter().flat_map(|entry| {
        assert_eq!(fate(entry), Some(Fate::Delivered));
        [entry.arrived, entry.end.unwrap().at]
    });
    let mut before = ticks.next().unwrap();
    for tick in ticks {
        assert!(before <= tick && before.at <= tick.at);
        before = tick;
    }
    assert!(before < simulator.handle().tick());
    simulator.shutdown().await;
}

#[tokio::test]
async fn an_answer_that_did_not_arrive_is_lost_or_nobody_waited_for_it() {
    let (simulator, [client, _]) = start_with_doors().await;
    let pair = client.log_in(USER).await;
    let lose = |lost| Fault::new(On::Refresh, Action::Lose(lost)).times(1);
    for lost in [Lost::Reset, Lost::Half] {
        simulator.handle().add_fault(lose(lost));
        client.refresh(&pair).await.unwrap_err();
    }
    let garbage = Action::Garbage(Garbage::Html);
    let faults = [garbage, Action::Reset, Action::status(503)];
    for fault in faults {
        let fault = Fault::new(On::Login, fault).times(1);
        simulator.handle().add_fault(fault);
        let _ = client
            .login(&client::login_body(USER), Some(INSTANCE_ID))
            .await;
    }
    simulator.handle().add_fault(lose(Lost::Hang));
    let hung = client.refresh(&pair);
    let hung_up = tokio::time::timeout(Duration::from_millis(200), hung).await;
    assert!(hung_up.is_err());
    while simulator.handle().journal().entries[6].end.is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    let entries = simulator.handle().journal().entries;
    let became: Vec<_> = entries
        .iter()
        .map(|entry| (entry.verdict.unwrap(), fate(entry).unwrap(), entry.status))
        .collect();
    assert_eq!(
        became,
        [
            (Verdict::Granted, Fate::Delivered, Some(200)),
            (Verdict::Granted, Fate::Lost, Some(200)),
            (Verdict::Rejected, Fate::Lost, Some(401)),
            (Verdict::Granted, Fate::Lost, Some(200)),
            (Verdict::Faulted, Fate::Lost, None),
            (Verdict::Faulted, Fate::Delivered, Some(503)),
            (Verdict::Rejected, Fate::HungUp, Some(401)),
        ]
    );
    simulator.shutdown().await;
}

#[tokio::test]
async fn of_data_calls_it_keeps_what_is_new() {
    let (simulator, [one, other]) = start_with_doors().await;
    let pair = one.log_in(USER).await;
    let path = "/indicators/v3/x";
    for client in [&one, &one, &other, &one, &other] {
        client.get(path, &pair.access()).await;
    }
    simulator.handle().expire(Some(&user(USER)));
    for _ in 0..2 {
        other.get(path, &pair.access()).await;
    }
    one.get(path, "never.issued.this").await;
    let named = client::request(Method::GET, path)
        .header("authorization", format!("Bearer {}", pair.access()))
        .header("DeviceToken", OTHER)
        .body(client::content(""));
    one.send(named.unwrap()).await.unwrap();

    let journal = simulator.handle().journal();
    let calls = journal.entries.iter().filter(|e| e.called == Called::Data);
    let said: Vec<_> = calls
        .map(|e| (e.door.as_deref().unwrap(), e.presented, e.verdict.unwrap()))
        .collect();
    let first = Some(Serial(1));
    assert_eq!(
        said,
        [
            ("one", first, Verdict::Granted),
            ("other", first, Verdict::Granted),
            ("other", first, Verdict::Rejected),
            ("other", first, Verdict::Rejected),
            ("one", None, Verdict::Rejected),
            ("one", first, Verdict::Rejected),
        ]
    );
    let last = journal.entries.last().unwrap();
    assert_eq!(last.named.map(Principal::User), Some(user(OTHER)));
    assert_eq!(last.principal, Some(user(USER)));
    simulator.shutdown().await;
}

#[tokio::test]
async fn it_is_kept_from_when_it_is_asked_for_and_read_over_http() {
    let (simulator, client) = start(unlimited()).await;
    client.log_in(USER).await;
    assert!(simulator.handle().journal().entries.is_empty());
    client.control(Method::POST, "/journal", "").await;
    client.log_in(USER).await;
    client.log_in(OTHER).await;
    client.control(Method::POST, "/reset", "").await;
    client.control(Method::POST, "/expire", "").await;

    let path = format!("/journal?principal={USER}");
    let journal = client.control(Method::GET, &path, "").await.json();
    assert_eq!(journal["forgotten"], 0);
    let entries = journal["entries"].as_array().unwrap();
    let login = &entries[0];
    assert_eq!(
        (&login["called"], &login["verdict"], &login["end"]["fate"]),
        (&json!("login"), &json!("granted"), &json!("delivered"))
    );
    assert_eq!(login["issued"], json!({"serial": 2, "parent": 1}));
    assert_eq!(login["principal"], format!("user:{USER}"));
    assert!(login["arrived"]["at"].as_i64() <= login["end"]["at"]["at"].as_i64());
    assert_eq!(entries[1]["called"], "expire");
    assert_eq!(entries.len(), 2, "{journal}");
    simulator.shutdown().await;
}
