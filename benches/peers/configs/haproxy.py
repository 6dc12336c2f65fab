"""HAProxy with a map."""

import subprocess

import install
import processes
from bench import Peer


def peers():
    return [Peer("haproxy", version, start)]


def version():
    said = subprocess.run([install.program("haproxy"), "-v"], capture_output=True, text=True).stdout
    return said.splitlines()[0]


def start(bench, folder, port):
    binary = install.program("haproxy")
    table = bench.write(folder / "haproxy.map", "".join(
        f"{user.device} Bearer {user.jwt}\n" for user in bench.users))
    tls = TLS.format(ca=bench.folder / "ca.pem") if bench.tls else ""
    config = bench.write(folder / "haproxy.cfg", CONFIG.format(
        port=port, threads=bench.workers, table=table, api=bench.api_port, tls=tls))
    return processes.start(bench.proxy_cores, [binary, "-db", "-f", config], folder / "access.log")


CONFIG = """
global
    nbthread {threads}
    log stdout format raw local0
    maxconn 8192
defaults
    mode http
    log global
    option httplog
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    http-reuse always
frontend in
    bind 127.0.0.1:{port}
    http-request set-header Authorization %[req.hdr(DeviceToken),map({table})]
    default_backend api
backend api
    server api 127.0.0.1:{api} {tls}
"""

TLS = "ssl verify required ca-file {ca} verifyhost localhost ssl-min-ver TLSv1.3"
