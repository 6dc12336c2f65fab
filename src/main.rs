//! damoov-proxy, the binary: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use damoov_proxy::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .expect("nothing else installs a provider before main");
    Cli::parse().run()
}
