//! Durations in buckets. Counting takes two atomic additions and no lock: it happens on the path of
//! each request.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// The upper ends of the buckets; one more bucket holds what is longer.
const BOUNDS: [Duration; 15] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// Durations in buckets. Clones count into the same buckets.
#[derive(Clone, Debug, Default)]
pub struct Histogram(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// One for each bound, and one for what is longer.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// Nanoseconds, enough for 584 years.
    sum: AtomicU64,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&self, duration: Duration) {
        let bucket = BOUNDS.iter().position(|bound| duration <= *bound);
        self.0.buckets[bucket.unwrap_or(BOUNDS.len())].fetch_add(1, Ordering::Relaxed);
        let nanoseconds = duration.as_secs() * 1_000_000_000 + u64::from(duration.subsec_nanos());
        self.0.sum.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn counted(&self) -> Counted {
        let buckets = self.0.buckets.each_ref();
        Counted(buckets.map(|bucket| bucket.load(Ordering::Relaxed)))
    }
}

/// What was counted, by bucket.
#[derive(Clone, Debug)]
pub struct Counted([u64; BOUNDS.len() + 1]);

impl Counted {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The duration that a share `of` of all did not exceed, between 0 and 1: interpolated within its bucket,
    /// as Prometheus does it. `None` if there were none. Those beyond the last bound count as that long.
    pub fn quantile(&self, of: f64) -> Option<Duration> {
        let count = self.count();
        let rank = of * count as f64;
        let mut below = 0;
        for (number, in_bucket) in self.0.iter().copied().enumerate() {
            if in_bucket > 0 && (below + in_bucket) as f64 >= rank {
                let from = number
                    .checked_sub(1)
                    .map_or(Duration::ZERO, |at| BOUNDS[at]);
                let Some(to) = BOUNDS.get(number) else {
                    return Some(from);
                };
                let share = (rank - below as f64) / in_bucket as f64;
                return Some(from + (*to - from).mul_f64(share.clamp(0.0, 1.0)));
            }
            below += in_bucket;
        }
        None
    }
}

#[cfg(any(test, feature = "internals"))]
impl super::series::Extent for Histogram {
    fn most_series(_: super::Bounds) -> usize {
        let sum_and_count = 2;
        BOUNDS.len() + 1 + sum_and_count
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let bounds = BOUNDS.iter().map(Duration::as_secs_f64);
        let counts = self.0.buckets.iter().map(|b| b.load(Ordering::Relaxed));
        let buckets: Vec<_> = bounds.chain([f64::INFINITY]).zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(self.0.sum.load(Ordering::Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let histogram = Histogram::default();
        assert_eq!(histogram.counted().quantile(0.5), None);
        for _ in 0..100 {
            histogram.observe(Duration::from_millis(60));
        }
        let half = histogram.counted().quantile(0.5);
        assert_eq!(half, Some(Duration::from_millis(75)));
        histogram.observe(Duration::from_secs(99));
        let counted = histogram.counted();
        assert_eq!(counted.count(), 101);
        assert_eq!(counted.quantile(1.0), Some(Duration::from_secs(30)));
        assert_eq!(counted.quantile(0.99), Some(Duration::from_micros(99_995)));
    }

    #[test]
    fn a_duration_is_in_the_first_bucket_that_it_does_not_exceed() {
        let (histogram, mut registry) = (Histogram::default(), Registry::default());
        registry.register("h", "Help", histogram.clone());
        for millis in [0, 1, 2, 31_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        for line in [
            "h_bucket{le=\"0.0005\"} 1",
            "h_bucket{le=\"0.001\"} 2",
            "h_bucket{le=\"0.0025\"} 3",
            "h_bucket{le=\"30.0\"} 3",
            "h_bucket{le=\"+Inf\"} 4",
            "h_sum 31.003",
            "h_count 4",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }
}
