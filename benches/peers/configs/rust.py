"""The proxies of the crate in rust/: pingora, and two that do less than any proxy must, as floors."""

import re

import install
import processes
from bench import Peer


def peers():
    return [
        Peer("pingora", lambda: locked("pingora"), starter("pingora")),
        Peer("bare hyper", lambda: locked("hyper"), starter("bare-hyper")),
        Peer("no parsing at all", lambda: locked("tokio"), starter("floor"),
             measures=["rate", "latency", "large"], attaches_tokens=False),
    ]


def locked(crate):
    lock = (install.ROOT / "benches/peers/rust/Cargo.lock").read_text()
    return f"{crate} " + re.search(rf'name = "{crate}"\nversion = "([^"]+)"', lock)[1]


def starter(binary):
    def start(bench, folder, port):
        tls = ["--ca", bench.folder / "ca.pem"] if bench.tls else []
        command = [install.rust_binaries() / binary, "--listen", port, "--api", bench.api_port,
                   "--threads", bench.workers, "--tokens", bench.tokens,
                   "--log", folder / "access.log", *tls]
        return processes.start(bench.proxy_cores, command, folder / f"{binary}.out")
    return start
