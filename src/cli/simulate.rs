//! `damoov-proxy simulate`: only the simulated Damoov, for the tests of others.

mod arguments;
mod printed;

use anyhow::Context as _;

pub use self::arguments::Args;
use self::arguments::Topic;
use self::printed::{configuration, configured, known};
use super::output::print_aside;
use super::{Failure, print};
use crate::signals::{Asks, Signals};
use crate::simulator::{self, Simulator};

/// Serves until SIGINT or SIGTERM; prints the base URL on one line once it listens, then what it knows
/// and how a proxy reaches it.
pub async fn run(args: Args, signals: Signals) -> Result<(), Failure> {
    if let Some(Topic::Manual) = args.topic {
        signals.release();
        return print(simulator::MANUAL.trim_end());
    }
    let faults = args.faults();
    let address = args.listen;
    let settings = args.settings();
    let known = known(&settings);
    let instances_and_accounts = configured(&settings);
    let simulator = Simulator::start(settings)
        .await
        .with_context(|| format!("cannot listen on {address}"))
        .map_err(Failure::other)?;
    for fault in faults {
        simulator.handle().add_fault(fault);
    }
    let url = simulator.base_url();
    let file = configuration(&instances_and_accounts, &url);
    let text = format!(
        "simulated Damoov: {url}\n\n{known}\nmanual     damoov-proxy simulate manual\n\n\
         A proxy uses it in the place of Damoov with this damoov-proxy.toml (chmod 600, because it contains keys):\n\n\
         {file}"
    );
    let mut caught = signals.follow().map_err(Failure::other)?.in_order();
    let ended = async {
        while let Some(signal) = caught.recv().await {
            match signal.asks() {
                Asks::ToEnd | Asks::ToEndNow => break,
                Asks::ToReload | Asks::Nothing => {}
            }
        }
    };
    let printing = async {
        print_aside(text).await?;
        std::future::pending().await
    };
    tokio::select! {
        () = ended => {}
        failed = printing => return failed,
    }
    simulator.shutdown().await;
    Ok(())
}
