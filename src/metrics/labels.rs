//! The labels: enums whose values are known beforehand, and the patterns of the route table.
//!
//! `label!` declares one label, `labels!` a set of them whose series are all shown from the start; each
//! area has a file.

mod config;
mod log;
mod renewals;
mod requests;
mod store;
mod upstream;

pub use self::config::{ReloadLabels, ReloadResult};
pub use self::log::{LogLabels, LogTarget};
pub use self::renewals::{
    AuthEndpoint, Doubt, Freshness, Grant, GrantLabel, LookupLabels, RenewalLabels, RenewalResult,
    Trigger, UnreadableLabels,
};
pub use self::requests::{Method, Outcome, RequestLabels, RouteLabel, StatusClass};
pub use self::store::{StoreLabels, StoreOperation, StoreResult};
pub use self::upstream::{CutLabels, CutReason, HostLabel, ReplayLabels, ReplayResult, Stalled};

/// Declares a label: an enum, and for each value the text that stands in `/metrics` and in the log.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// Each value.
            #[allow(dead_code, reason = "not every label is looked up in advance")]
            pub const ALL: &[$name] = &[$($name::$variant),+];

            /// As it stands in labels and logs.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }

        impl prometheus_client::encoding::EncodeLabelValue for $name {
            fn encode(
                &self,
                encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
            ) -> Result<(), std::fmt::Error> {
                self.as_str().encode(encoder)
            }
        }
    };
}
use label;

/// Declares the labels of one metric, all of them enums: a struct, and every set of values that it can
/// have.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $label:ident),+ $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, prometheus_client::encoding::EncodeLabelSet)]
        pub struct $name { $($(#[$field_doc])* pub $field: $label),+ }

        #[cfg(any(test, feature = "internals"))]
        impl crate::metrics::series::LabelSets for $name {
            fn most(_: crate::metrics::Bounds) -> usize {
                [$($label::ALL.len()),+].into_iter().product()
            }
        }

        impl crate::metrics::registrar::Bounded for $name {
            fn all() -> Vec<$name> {
                let mut all = Vec::new();
                labels!(@each all $name () $($field: $label)+);
                all
            }
        }
    };
    // One loop in the other for each label.
    (@each $all:ident $name:ident ($($chosen:ident)*) $field:ident: $label:ident $($rest:tt)*) => {
        for &$field in $label::ALL {
            labels!(@each $all $name ($($chosen)* $field) $($rest)*);
        }
    };
    (@each $all:ident $name:ident ($($chosen:ident)*)) => {
        $all.push($name { $($chosen),* });
    };
}
use labels;
