//! A faithful Damoov with faults on demand.
