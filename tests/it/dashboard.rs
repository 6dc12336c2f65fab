//! The dashboard as an operator has it: Debian's chromium, led by Playwright, in front of the real proxy.
//! `tests/run` installs both; the steps that are taken are those of tests/clients/dashboard.py.

use serde_json::{Value, json};

use crate::harness::script::Script;
use crate::harness::{Proxy, programs, proxy};

// What is shown in each state, in each light, on each screen; that axe finds nothing wrong with it.
mod states;
// News that stop and go on; tabs that nobody looks at.
mod news;
// A user that is searched for, renewed, forgotten; by keyboard alone.
mod explain;
// Text that others wrote.
mod hostile;

/// A browser, and the page that was opened last.
struct Browser(Script);

/// How the page is looked at.
#[derive(Clone, Copy, Debug)]
struct Look {
    scheme: &'static str,
    width: u32,
}

const LOOKS: [Look; 4] = [
    Look::new("light", 1440),
    Look::new("dark", 320),
    Look::new("light", 320),
    Look::new("dark", 1440),
];

impl Look {
    const fn new(scheme: &'static str, width: u32) -> Look {
        Look { scheme, width }
    }
}

impl Browser {
    fn start() -> Browser {
        let chromium = programs::chromium();
        let program = chromium.get_program().to_str().unwrap();
        Browser(Script::start(
            programs::python(),
            "dashboard.py",
            &[program],
        ))
    }

    /// Opens the dashboard of `proxy`, and waits until it shows what it was told.
    async fn open(&mut self, proxy: &Proxy) {
        self.open_as(proxy, json!({})).await;
    }

    async fn look(&mut self, proxy: &Proxy, look: Look) {
        let Look { scheme, width } = look;
        self.open_as(proxy, json!({"scheme": scheme, "width": width}))
            .await;
    }

    async fn open_as(&mut self, proxy: &Proxy, mut how: Value) {
        how["url"] = dashboard(proxy).into();
        self.step("open", &how.to_string()).await;
    }

    async fn step(&mut self, name: &str, argument: &str) -> Value {
        self.0.step(format!("{name} {argument}").trim_end()).await
    }

    /// The text of what `selector` selects first, seen or not.
    async fn text(&mut self, selector: &str) -> String {
        text(self.step("text", selector).await)
    }

    /// Waits until it can be seen.
    async fn wait(&mut self, selector: &str) -> String {
        text(self.step("wait", selector).await)
    }

    async fn attribute(&mut self, selector: &str, name: &str) -> String {
        let arguments = json!({"selector": selector, "name": name});
        text(self.step("attribute", &arguments.to_string()).await)
    }

    async fn title(&mut self) -> String {
        text(self.step("title", "").await)
    }

    /// The id of what has the focus after a key.
    async fn press(&mut self, key: &str) -> String {
        text(self.step("press", key).await)
    }

    /// axe finds nothing, nothing is wider than the window, the browser had to refuse nothing, and nobody
    /// else was asked.
    async fn is_flawless(&mut self, what: &str) {
        for (step, none) in [
            ("axe", json!([])),
            ("overflow", json!(0)),
            ("complained", json!([])),
            ("foreign", json!([])),
        ] {
            assert_eq!(self.step(step, "").await, none, "{step}: {what}");
        }
    }

    async fn end(self) {
        self.0.end().await;
    }
}

fn text(said: Value) -> String {
    said.as_str().unwrap_or_default().to_owned()
}

fn dashboard(proxy: &Proxy) -> String {
    format!("http://{}/dashboard", proxy.admin_address())
}
