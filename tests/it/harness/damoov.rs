//! The simulated Damoov in this process, its users, and what it says of the calls that came.

use std::time::Duration;

use damoov_proxy::principal::{DeviceToken, InstanceId, Principal};
use damoov_proxy::simulator::{Instance, LoginCall, Settings, Simulator};

use super::ports::loopback;

/// A simulated Damoov on a free port, with no login limit unless the test sets one.
pub async fn damoov() -> Simulator {
    damoov_with(|settings| settings.login_limit = None).await
}

/// A simulated Damoov on a free port, its settings changed by `change`.
pub async fn damoov_with(change: impl FnOnce(&mut Settings)) -> Simulator {
    let mut settings = Settings {
        listen: loopback(0),
        ..Settings::default()
    };
    change(&mut settings);
    Simulator::start(settings)
        .await
        .expect("a free port on loopback")
}

/// A second instance, beside the one that [`damoov`] and the proxies know.
pub const SECOND_ID: &str = "22222222-2222-4222-8222-222222222222";
pub const SECOND_KEY: &str = "second-key";

/// A simulated Damoov with both instances, and no login limit.
pub async fn damoov_of_two() -> Simulator {
    damoov_with(|settings| {
        settings.login_limit = None;
        settings.instances.push(Instance {
            id: InstanceId::parse(SECOND_ID).unwrap(),
            key: SECOND_KEY.to_owned(),
        });
    })
    .await
}

/// The DeviceToken number `number`: always the same one.
pub fn user(number: usize) -> DeviceToken {
    DeviceToken::parse(&format!("{number:08x}-0000-4000-8000-000000000000")).unwrap()
}

/// The same as a principal.
pub fn principal(number: usize) -> Principal {
    Principal::User(user(number))
}

/// The most of `calls` in any span of `per`.
pub fn most_within(calls: &[LoginCall], per: Duration) -> usize {
    let ends = calls.iter().map(|first| first.at.plus(per));
    ends.enumerate()
        .map(|(first, end)| calls.partition_point(|call| call.at < end) - first)
        .max()
        .unwrap_or(0)
}
