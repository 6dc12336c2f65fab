//! damoov-proxy, the binary.

fn main() {}
