//! A forwarder without any parsing, one upstream connection a caller: two reads and two writes a
//! request, which no proxy can do without. It attaches nothing.

use std::rc::Rc;

use clap::Parser;
use peers::{Api, Setup};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpStream;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BUFFER: usize = 256 << 10;

fn main() -> std::io::Result<()> {
    peers::serve(&Setup::parse(), Api::new, forward)
}

async fn forward(api: Rc<Api>, mut caller: TcpStream) {
    if let Ok(mut upstream) = api.connect().await {
        // An end of either connection is the end of both, whatever the reason.
        let _ = copy_bidirectional_with_sizes(&mut caller, &mut upstream, BUFFER, BUFFER).await;
    }
}
