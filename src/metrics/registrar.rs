//! Registering metrics where they are made. A field of [`Metrics`](super::Metrics) has a type that
//! only a [`Registrar`] makes, so that a metric that is not registered does not compile.

use std::hash::Hash;
use std::ops::Deref;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry, Unit};

use super::process::Process;

/// The prefix of every metric but those of the process.
const PREFIX: &str = "damoov_proxy";

/// A metric that `/metrics` shows.
#[derive(Debug)]
pub struct Registered<M>(M);

impl<M> Deref for Registered<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.0
    }
}

/// Label sets whose values are all known beforehand.
pub(super) trait Bounded: Sized {
    /// Every set that can occur.
    fn all() -> Vec<Self>;
}

/// Registers metrics, one after the other, in the order in which `/metrics` shows them.
#[derive(Debug)]
pub(super) struct Registrar {
    registry: Registry,
}

impl Registrar {
    /// With the metrics of the process.
    pub(super) fn new() -> Registrar {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        Registrar { registry }
    }

    /// A single metric, or a family whose labels become known later.
    pub(super) fn plain<M: Metric + Clone + Default>(
        &mut self,
        name: &str,
        help: &str,
    ) -> Registered<M> {
        self.register(name, help, None, M::default())
    }

    /// As [`Registrar::plain`]; `_seconds` is appended to the name.
    pub(super) fn seconds<M: Metric + Clone + Default>(
        &mut self,
        name: &str,
        help: &str,
    ) -> Registered<M> {
        self.register(name, help, Some(Unit::Seconds), M::default())
    }

    /// A family that shows each of its series, at 0, from the first scrape: an alert on the rate of a
    /// series that appears with its first event misses that event.
    pub(super) fn complete<L, M>(&mut self, name: &str, help: &str) -> Registered<Family<L, M>>
    where
        L: Bounded + Clone + Eq + Hash + EncodeLabelSet,
        M: Default,
        Family<L, M>: Metric,
    {
        self.register(name, help, None, all_at_zero())
    }

    /// As [`Registrar::complete`]; `_seconds` is appended to the name.
    pub(super) fn complete_seconds<L, M>(
        &mut self,
        name: &str,
        help: &str,
    ) -> Registered<Family<L, M>>
    where
        L: Bounded + Clone + Eq + Hash + EncodeLabelSet,
        M: Default,
        Family<L, M>: Metric,
    {
        self.register(name, help, Some(Unit::Seconds), all_at_zero())
    }

    /// A gauge that is −1 until it is known.
    pub(super) fn unknown(&mut self, name: &str, help: &str) -> Registered<Gauge> {
        let gauge = self.plain::<Gauge>(name, help);
        gauge.set(-1);
        gauge
    }

    /// What never changes.
    pub(super) fn constant(&mut self, name: &str, help: &str, metric: impl Metric) {
        self.registry.register(prefixed(name), help, metric);
    }

    fn register<M: Metric + Clone>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        metric: M,
    ) -> Registered<M> {
        let (name, shown) = (prefixed(name), metric.clone());
        match unit {
            Some(unit) => self.registry.register_with_unit(name, help, unit, shown),
            None => self.registry.register(name, help, shown),
        }
        Registered(metric)
    }

    pub(super) fn into_registry(self) -> Registry {
        self.registry
    }
}

fn prefixed(name: &str) -> String {
    format!("{PREFIX}_{name}")
}

fn all_at_zero<L, M>() -> Family<L, M>
where
    L: Bounded + Clone + Eq + Hash + EncodeLabelSet,
    M: Default,
{
    let family = Family::default();
    for labels in L::all() {
        drop(family.get_or_create(&labels));
    }
    family
}
