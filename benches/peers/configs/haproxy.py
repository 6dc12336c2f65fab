"""HAProxy with a map, and the same with buffers tuned for large answers."""

import subprocess

import install
import processes
from bench import Peer


def peers():
    return [
        Peer("haproxy", version, start),
        Peer("haproxy tuned", version, large_buffers, measures=["large"]),
    ]


def version():
    said = subprocess.run([install.program("haproxy"), "-v"], capture_output=True, text=True).stdout
    return said.splitlines()[0]


def large_buffers(bench, folder, port):
    return start(bench, folder, port, more="tune.bufsize 65536")


def start(bench, folder, port, more=""):
    binary = install.program("haproxy")
    table = bench.write(folder / "haproxy.map", "".join(
        f"{user.device} Bearer {user.jwt}\n" for user in bench.users))
    tls = TLS.format(ca=bench.folder / "ca.pem") if bench.tls else ""
    config = bench.write(folder / "haproxy.cfg", CONFIG.format(
        port=port, threads=bench.workers, table=table, api=bench.api_port, tls=tls, more=more))
    return processes.start(bench.proxy_cores, [binary, "-db", "-f", config], folder / "access.log")


CONFIG = """
global
    nbthread {threads}
    log stdout format raw local0
    maxconn 1024
    {more}
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
