//! What the page says first in each state, and that it can be read: in both lights, on a telephone and on
//! a desk, by people and by the programs that read to them.

use std::fs;

use damoov_proxy::simulator::{Action, Fault, On, Simulator};

use super::*;
use crate::harness::{SCORES, damoov, eventually, rounds};
use crate::tokens::Disk;

/// What a proxy can be in when somebody looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Empty,
    Calm,
    Blocked,
    Suspended,
    StoreFull,
    ReloadFailed,
    Draining,
    Stale,
}

const STATES: [State; 8] = [
    State::Empty,
    State::Calm,
    State::Blocked,
    State::Suspended,
    State::StoreFull,
    State::ReloadFailed,
    State::Draining,
    State::Stale,
];

impl State {
    /// The word and the sign for it, and the shape that is drawn.
    fn signs(self) -> (&'static str, char, &'static str) {
        match self {
            State::Empty | State::Calm => ("All well", '✓', "#calm"),
            State::ReloadFailed | State::Draining => ("Warning", '▲', "#warn"),
            State::Blocked | State::Suspended | State::StoreFull => ("Failure", '✖', "#bad"),
            State::Stale => ("All well, as of", '?', "#none"),
        }
    }

    /// A condition of `/readyz` that it comes with.
    fn code(self) -> Option<&'static str> {
        match self {
            State::Empty | State::Calm | State::Stale => None,
            State::Blocked => Some("login_blocked"),
            State::Suspended => Some("logins_suspended"),
            State::StoreFull => Some("store_unwritable"),
            State::ReloadFailed => Some("reload_failed"),
            State::Draining => Some("draining"),
        }
    }
}

/// A proxy in some state, and what keeps it in it.
struct Scene {
    damoov: Simulator,
    proxy: Proxy,
    disk: Option<Disk>,
}

impl Scene {
    /// `None` if this machine cannot show it.
    async fn of(state: State) -> Option<Scene> {
        let damoov = damoov().await;
        let disk = match state {
            State::StoreFull => Some(Disk::new()?),
            _ => None,
        };
        let builder = proxy(&damoov)
            .administered()
            .set("renewal.wait", "1s")
            .set("login_budget.logins", "100")
            .set("drain_delay", "1m");
        let store = disk.as_ref().map_or_else(|| builder.store(), Disk::store);
        let proxy = builder.start_on(&store).await;
        let scene = Scene {
            damoov,
            proxy,
            disk,
        };
        scene.enter(state).await;
        Some(scene)
    }

    async fn enter(&self, state: State) {
        let Scene { damoov, proxy, .. } = self;
        if state == State::Empty {
            return;
        }
        for number in 0..6 {
            assert_eq!(proxy.get(number, SCORES).await.status, 200);
        }
        let fault = |on, code| {
            damoov
                .handle()
                .add_fault(Fault::new(on, Action::status(code)))
        };
        match state {
            State::Empty | State::Calm | State::Stale => {}
            State::Blocked => {
                fault(On::Login, 429);
                assert_eq!(proxy.get(9, SCORES).await.code(), "login_blocked");
            }
            State::Suspended => {
                damoov.handle().expire(None);
                fault(On::Refresh, 400);
                for number in 0..6 {
                    proxy.get(number, SCORES).await;
                }
            }
            State::StoreFull => {
                self.disk.as_ref().expect("mounted").fill(1 << 20);
                damoov.handle().expire(None);
                proxy.get(0, SCORES).await;
            }
            State::ReloadFailed => {
                let file = proxy.config();
                let text = fs::read_to_string(file).unwrap();
                let wrong = text.replace("drain_delay", "drain_dealy");
                crate::harness::write_private(file, &wrong);
                proxy.signal(rustix::process::Signal::HUP);
            }
            State::Draining => proxy.signal(rustix::process::Signal::TERM),
        }
        let Some(code) = state.code() else { return };
        eventually(code, async || {
            proxy.state().await["ready"].to_string().contains(code)
        })
        .await;
    }
}

async fn is_shown_in(state: State, browser: &mut Browser, looks: &[Look]) {
    let Some(mut scene) = Scene::of(state).await else {
        return;
    };
    for (number, look) in looks.iter().enumerate() {
        let what = format!("{state:?} {look:?}");
        if state == State::Stale && number > 0 {
            scene.proxy.start().await;
        }
        browser.look(&scene.proxy, *look).await;
        if state == State::Stale {
            scene.proxy.kill();
            browser.wait("#stale").await;
        }
        let (word, sign, shape) = state.signs();
        let said = browser.text("#word").await;
        assert!(said.starts_with(word), "{what}: {said}");
        assert_eq!(
            browser.attribute("#mark-use", "href").await,
            shape,
            "{what}"
        );
        let title = browser.title().await;
        assert!(title.starts_with(sign), "{what}: {title}");
        let icon = browser.attribute("#icon", "href").await;
        assert!(icon.starts_with("data:image/svg+xml,"), "{what}: {icon}");
        if let Some(code) = state.code() {
            let all = browser.text("#conditions").await;
            assert!(all.contains(code), "{what}: {all}");
            assert!(!browser.text("#facts .do").await.is_empty(), "{what}");
        }
        browser.is_flawless(&what).await;
    }
}

/// Each state once, each look in turn; `tests/run long`: each state in each look.
#[tokio::test]
async fn each_state_is_told_by_word_and_shape_and_axe_finds_nothing() {
    let mut browser = Browser::start();
    for (number, state) in STATES.into_iter().enumerate() {
        let mut looks = LOOKS;
        looks.rotate_left(number % LOOKS.len());
        is_shown_in(state, &mut browser, &looks[..rounds(1, LOOKS.len())]).await;
    }
    browser.end().await;
}

#[tokio::test]
async fn a_refused_reload_is_shown_with_its_report_and_what_needs_a_restart() {
    let scene = Scene::of(State::ReloadFailed)
        .await
        .expect("no disk needed");
    let mut browser = Browser::start();
    browser.open(&scene.proxy).await;
    let report = browser.wait("#reload pre").await;
    assert!(report.contains("drain_dealy"), "{report}");
    assert!(report.lines().count() > 1, "{report}");

    let file = scene.proxy.config();
    let text = fs::read_to_string(file).unwrap();
    let mended = text.replace("drain_dealy", "drain_delay");
    crate::harness::write_private(file, &format!("max_connections = 77\n{mended}"));
    scene.proxy.signal(rustix::process::Signal::HUP);
    browser.step("gone", "#reload pre").await;
    assert_eq!(browser.wait("#reload code").await, "max_connections");
    browser.is_flawless("a restart is needed").await;
    browser.end().await;
}

#[tokio::test]
async fn beside_each_chart_stands_a_table_with_the_figures_of_the_hour() {
    let scene = Scene::of(State::Calm).await.expect("no disk needed");
    let mut browser = Browser::start();
    // The step under way is told when it has ended.
    let told = |state: &Value, name: &str| -> u64 {
        let steps = state["history"][name].as_array().unwrap();
        steps.iter().map(|step| step.as_u64().unwrap()).sum()
    };
    eventually("the hour has all of it", async || {
        told(&scene.proxy.state().await, "requests") >= 6
    })
    .await;
    browser.open(&scene.proxy).await;
    let state = scene.proxy.state().await;
    for (table, column, name) in [
        ("#requests-table", 1, "requests"),
        ("#renewals-table", 2, "logins"),
    ] {
        let cells = format!("{table} tbody td:nth-child({})", column + 1);
        let shown = browser.step("texts", &cells).await;
        let shown = shown.as_array().unwrap();
        assert_eq!(shown.len(), 6, "{table}");
        let sum: u64 = shown
            .iter()
            .map(|cell| text(cell.clone()).parse::<u64>().unwrap())
            .sum();
        assert_eq!(sum, told(&state, name), "{table}");
    }
    let chart = browser.attribute("#requests svg", "aria-label").await;
    assert!(chart.contains("6 requests"), "{chart}");
    browser.end().await;
}

#[tokio::test]
async fn who_wants_no_motion_sees_none() {
    let scene = Scene::of(State::Empty).await.expect("no disk needed");
    let mut browser = Browser::start();
    let duration = json!({"selector": "#sentence", "name": "transitionDuration"}).to_string();
    browser.open(&scene.proxy).await;
    assert_ne!(browser.step("style", &duration).await, "0s");
    browser
        .open_as(&scene.proxy, json!({"motion": "reduce"}))
        .await;
    assert_eq!(browser.step("style", &duration).await, "0s");
    browser.end().await;
}
