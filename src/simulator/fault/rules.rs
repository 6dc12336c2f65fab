//! The rules in force, looked at once for every call.

use std::sync::Mutex;
use std::time::Duration;

use super::{Action, Fault, On};
use crate::principal::Principal;

/// The rules in force, oldest first.
#[derive(Debug, Default)]
pub(in crate::simulator) struct Faults(Mutex<Vec<Fault>>);

/// What the rules have in store for one call.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::simulator) struct Struck {
    pub(in crate::simulator) delay: Duration,
    pub(in crate::simulator) action: Option<Action>,
}

impl Faults {
    pub(in crate::simulator) fn add(&self, fault: Fault) {
        self.0.lock().expect("no holder panics").push(fault);
    }

    pub(in crate::simulator) fn list(&self) -> Vec<Fault> {
        self.0.lock().expect("no holder panics").clone()
    }

    pub(in crate::simulator) fn clear(&self) {
        self.0.lock().expect("no holder panics").clear();
    }

    /// Takes what concerns a call of `endpoint` at `path` by `principal`.
    pub(in crate::simulator) fn strike(
        &self,
        endpoint: &On,
        path: &str,
        principal: Option<&Principal>,
    ) -> Struck {
        let mut struck = Struck::default();
        let mut faults = self.0.lock().expect("no holder panics");
        for fault in faults.iter_mut() {
            let whose = fault.principal.as_ref();
            if !fault.on.concerns(endpoint, path) || whose.is_some() && whose != principal {
                continue;
            }
            match &fault.action {
                Action::Delay(delay) => struck.delay += delay.draw(),
                _ if struck.action.is_some() => continue,
                action => struck.action = Some(action.clone()),
            }
            if let Some(times) = &mut fault.times {
                *times = times.saturating_sub(1);
            }
        }
        faults.retain(|fault| fault.times != Some(0));
        struck
    }
}
