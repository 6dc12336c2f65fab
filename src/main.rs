//! damoov-proxy, the binary: arguments in, exit code out.

use std::process::ExitCode;

use damoov_proxy::cli;
use damoov_proxy::signals::Signals;

fn main() -> ExitCode {
    // First of all: until then any signal would end the process, whatever it is doing.
    let signals = Signals::catch();
    // A huge page is resident as a whole, 2 MiB, however little of it is in use; the process is small.
    // Nobody asks for any, but some systems give them to everybody. Older kernels cannot refuse.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .expect("nothing else installs a provider before main");
    cli::main(signals)
}
