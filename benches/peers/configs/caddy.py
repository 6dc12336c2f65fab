"""Caddy with its map directive."""

import os
import subprocess

import install
import processes
from bench import Peer


def peers():
    return [Peer("caddy", version, start)]


def version():
    said = subprocess.run([install.program("caddy"), "version"], capture_output=True, text=True).stdout
    return f"Caddy {said.split()[0]}"


def start(bench, folder, port):
    binary = install.program("caddy")
    pairs = "".join(f'{user.device} "Bearer {user.jwt}"\n' for user in bench.users)
    tls = TLS.format(ca=bench.folder / "ca.pem") if bench.tls else ""
    config = bench.write(folder / "Caddyfile", CONFIG.format(
        folder=folder, port=port, pairs=pairs, api=f"{bench.scheme}://localhost:{bench.api_port}", tls=tls))
    command = [binary, "run", "--adapter", "caddyfile", "--config", config]
    # What Caddy would keep at home, and as many running threads as the others have workers.
    environment = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder),
                   "XDG_CONFIG_HOME": str(folder), "GOMAXPROCS": str(bench.workers)}
    return processes.start(bench.proxy_cores, command, folder / "caddy.out", env=environment)


CONFIG = """
{{
    admin off
    auto_https off
    log {{
        level ERROR
    }}
}}
http://127.0.0.1:{port} {{
    log {{
        output file {folder}/access.log
        level INFO
    }}
    map {{header.DeviceToken}} {{bearer}} {{
{pairs}
        default ""
    }}
    reverse_proxy {api} {{
        header_up Authorization {{bearer}}
        transport http {{
            keepalive_idle_conns 1024
            keepalive_idle_conns_per_host 1024
            versions 1.1
            {tls}
        }}
    }}
}}
"""

TLS = "tls_trusted_ca_certs {ca}"
