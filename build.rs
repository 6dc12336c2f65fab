//! Tells the crate which target it is built for: `--version` says so.

use std::env;

fn main() {
    let target = env::var("TARGET").expect("cargo sets it for every build script");
    println!("cargo::rustc-env=DAMOOV_PROXY_TARGET={target}");
    println!("cargo::rerun-if-changed=build.rs");
}
