//! What can be wrong with a process: the stable names that `/readyz` and the dashboard tell, and how bad each
//! is beside the others.

use std::fmt;

use serde::Serialize;

/// The stable name of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The store is being opened.
    Starting,
    /// A signal asked for the end.
    Draining,
    /// Renewals cannot be made durable.
    StoreUnwritable,
    /// The store is not reached: nothing is renewed.
    StoreAway,
    /// Damoov answered a login with 429.
    LoginBlocked,
    /// No login is left in the budget now.
    LoginBudgetExhausted,
    /// Damoov rejects every RefreshToken.
    LoginsSuspended,
    /// A host of the API cannot be connected to.
    UpstreamUnreachable,
    /// The configuration is refused as it is now: what was in force before stays.
    ReloadFailed,
    /// Something that the configuration says takes effect only at a restart.
    RestartNeeded,
    /// Lines of the log are lost.
    LogUnwritable,
}

impl Code {
    /// How bad it is beside others: the greatest one is told. What ends the process or keeps it from its
    /// work comes before what keeps it from Damoov, and that before what waits for office hours.
    pub(super) fn weight(self) -> u8 {
        match self {
            Code::StoreUnwritable => 11,
            Code::Draining => 10,
            Code::Starting => 9,
            Code::StoreAway => 8,
            Code::UpstreamUnreachable => 7,
            Code::LoginsSuspended => 6,
            Code::LoginBlocked => 5,
            Code::LoginBudgetExhausted => 4,
            Code::ReloadFailed => 3,
            Code::RestartNeeded => 2,
            Code::LogUnwritable => 1,
        }
    }
}

/// The stable name, as it is told.
impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[cfg(test)]
impl Code {
    /// Each of them.
    pub(super) const ALL: [Code; 11] = [
        Code::Starting,
        Code::Draining,
        Code::StoreUnwritable,
        Code::StoreAway,
        Code::LoginBlocked,
        Code::LoginBudgetExhausted,
        Code::LoginsSuspended,
        Code::UpstreamUnreachable,
        Code::ReloadFailed,
        Code::RestartNeeded,
        Code::LogUnwritable,
    ];
}
