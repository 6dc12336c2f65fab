//! The contract on real servers.

use std::thread;

use servers::Database;
use tokio::runtime;

use super::*;
use crate::clock::Clock;
use crate::store::contract::{Medium, contract};

/// A database of its own on a server, reached straight.
pub(super) struct Direct {
    database: Database,
    clock: Clock,
}

impl Medium for Direct {
    type Store = Postgres;

    const TTL: Duration = Duration::from_millis(500);
    const TELLS_COMMITS: bool = false;
    const CLOCK_ERROR: Duration = Duration::from_millis(50);

    async fn new() -> Direct {
        Direct {
            database: Database::new(),
            clock: Clock::real(),
        }
    }

    async fn open(&self, run: RunId) -> Postgres {
        open(&self.database.url(), run, self.clock)
    }

    async fn open_scaled(&self, run: RunId, scale: u32) -> Postgres {
        open(&self.database.url(), run, Clock::scaled(scale))
    }

    async fn pass(&self, time: Duration) {
        let all = "SELECT coalesce(json_object_agg(login_group, history::json), '{}') FROM budgets";
        let all = self.database.value(all).await;
        let mut groups: serde_json::Value = serde_json::from_str(&all).unwrap();
        make_older(&mut groups, i64::try_from(time.as_millis()).unwrap());
        for (group, history) in groups.as_object().unwrap() {
            let aged =
                format!("UPDATE budgets SET history = '{history}' WHERE login_group = '{group}'");
            self.database.sql(&aged).await;
        }
    }
}

/// The clock is the server's, which no test sets: what was stamped becomes older instead.
fn make_older(stamped: &mut serde_json::Value, millis: i64) {
    use serde_json::Value;
    match stamped {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value.as_i64()) {
                    ("since_boot" | "wall", Some(at)) => *value = (at - millis).into(),
                    _ => make_older(value, millis),
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|one| make_older(one, millis)),
        _ => {}
    }
}

/// A handle on the database at `url`, whose tables are made if there are none.
pub(super) fn open(url: &str, run: RunId, clock: Clock) -> Postgres {
    let url = Url::parse(url).unwrap();
    let settings = Settings {
        address: url.address,
        password: url.password.map_or(Password::Absent, Password::Given),
        ca_file: None,
        connections: 4,
    };
    let opening = move || {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let opened = runtime.block_on(super::open(settings, true, run, clock));
        opened.unwrap_or_else(|refusal| panic!("{refusal}"))
    };
    // Within a test's runtime nothing may block.
    thread::spawn(opening).join().unwrap()
}

mod direct {
    use super::*;

    contract!(Direct);
}
