"""The stage of the comparison: users and their tokens, the API, and the peers before it."""

import base64
import dataclasses
import hashlib
import http.client
import json
import os
import pathlib
import subprocess
import sys
import time
import typing
import uuid

import processes
from install import Missing

USERS = 1000
JWT_BYTES = 700
LARGE_BYTES = 10 << 20
INSTANCE = "11111111-1111-4111-8111-111111111111"
SCORES = "/indicators/v3/Scores/safety?StartDate=2026-11-01&EndDate=2026-11-07"
ECHO = "/indicators/v3/echo"
LARGE = "/indicators/v3/large"
# One core is the proxy's; the load generator and the API share the other one.
PROXY_CORE, OTHER_CORE = 0, 1


@dataclasses.dataclass
class Peer:
    """Something to compare. `start` writes its configuration into the given folder, starts it on the
    given port, and returns its process; it raises `Missing` where the peer cannot be had."""

    name: str
    version: typing.Callable[[], str]
    start: typing.Callable[["Bench", pathlib.Path, int], subprocess.Popen]
    # All, if none are named.
    measures: typing.Collection[str] = ()
    attaches_tokens: bool = True


@dataclasses.dataclass
class Running:
    name: str
    process: subprocess.Popen
    port: int
    folder: pathlib.Path


class User:
    def __init__(self, number):
        self.device = str(uuid.UUID(int=number << 96 | 0x4000 << 64 | 0x8 << 60))
        now = int(time.time())
        claims = {"iat": now, "exp": now + 86400 * 5, "DeviceToken": self.device.replace("-", "")}
        header = encoded({"alg": "RS256", "typ": "JWT"})
        padding = JWT_BYTES - len(header) - len(encoded(claims)) - 2
        signature = base64.urlsafe_b64encode(os.urandom(JWT_BYTES)).decode()
        self.jwt = f"{header}.{encoded(claims)}.{signature[:padding]}"


def encoded(claims):
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")


class Bench:
    """Started with one API, over TLS or not, and peers with a number of workers each."""

    def __init__(self, folder, tls, workers, options):
        self.folder, self.tls, self.workers, self.options = folder, tls, workers, options
        # Peers that give up their privileges still write their buffers into it.
        folder.chmod(0o755)
        self.users = [User(number + 1) for number in range(USERS)]
        self.running = {}
        self.started = []
        self.folders = 0
        self.proxy_cores = str(PROXY_CORE) if workers == 1 else f"{PROXY_CORE},{OTHER_CORE}"
        self.scheme = "https" if tls else "http"
        self.large = os.urandom(LARGE_BYTES)
        self.wrk_script = self.write(folder / "wrk.lua", WRK.format(
            path=SCORES, devices=",".join(f'"{user.device}"' for user in self.users)))
        # A DeviceToken and its JWT a line.
        self.tokens = self.write(folder / "tokens", "".join(
            f"{user.device} {user.jwt}\n" for user in self.users))
        self.certificate()
        self.start_api()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for running in self.started[::-1]:
            self.stop(running)

    def write(self, path, text):
        path.write_text(text)
        return path

    def certificate(self):
        """A CA and what it signed: not every peer takes a certificate that is both."""
        new = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        self.write(self.folder / "names", "subjectAltName=DNS:localhost,IP:127.0.0.1")
        for command in (
            [*new, "-x509", "-days", "2", "-subj", "/CN=CA", "-keyout", "ca.key", "-out", "ca.pem"],
            [*new, "-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "request.pem"],
            ["openssl", "x509", "-req", "-days", "2", "-in", "request.pem", "-CA", "ca.pem",
             "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-out", "cert.pem"],
        ):
            subprocess.run(command, cwd=self.folder, check=True, capture_output=True)

    def start_api(self):
        """nginx again, which is far from being what limits the peers."""
        plain_port = processes.free_port()
        (self.folder / "large").write_bytes(self.large)
        self.api_port, tls = plain_port, ""
        if self.tls:
            self.api_port = processes.free_port()
            tls = API_TLS.format(folder=self.folder, port=self.api_port)
        body = json.dumps({"Result": {"x": "y" * 960}, "Status": 200, "Title": "", "Errors": []})
        config = self.write(self.folder / "api.conf", API.format(
            folder=self.folder, port=plain_port, tls=tls, body=body, echo=ECHO, large=LARGE))
        process = processes.start(str(OTHER_CORE), ["nginx", "-c", config, "-e", self.folder / "api.err"],
                                  self.folder / "api.out")
        # Callers who come directly come without TLS, as they come to the peers.
        self.api = Running("API", process, plain_port, self.folder)
        self.started.append(self.api)
        if not processes.listens(process, plain_port):
            sys.exit((self.folder / "api.err").read_text())

    def start(self, peer):
        """The peer, once it attaches the right tokens; none, with a line on stderr, where it does not."""
        self.folders += 1
        folder = self.folder / str(self.folders)
        folder.mkdir(mode=0o755)
        port = processes.free_port()
        try:
            running = Running(peer.name, peer.start(self, folder, port), port, folder)
        except Missing as missing:
            print(f"{peer.name} is left out: {missing}", file=sys.stderr)
            return None
        self.started.append(running)
        why = None
        if not processes.listens(running.process, port):
            why = "it does not listen"
        elif peer.attaches_tokens:
            why = self.wrong_token(running)
        if why is None:
            return running
        print(f"{peer.name} is left out: {why}; what it wrote:", file=sys.stderr)
        for log in [path for path in folder.iterdir() if path.suffix in (".log", ".err", ".out")]:
            print(log.read_text(errors="replace")[-2000:], file=sys.stderr)
        self.stop(running)
        return None

    def running_peer(self, peer):
        """The peer as it was started first, and runs on."""
        if peer.name not in self.running:
            self.running[peer.name] = self.start(peer)
        return self.running[peer.name]

    def stop(self, running):
        self.started.remove(running)
        processes.end(running.process)

    def wrong_token(self, running):
        """What the peer does wrong with the tokens of some users; none if nothing."""
        for user in self.users[:: USERS // 20]:
            try:
                status, content = self.ask(running, ECHO, user)
            except (OSError, http.client.HTTPException) as error:
                return f"asked for {user.device} it fails: {error}"
            if status != 200 or content.decode() != f"Bearer {user.jwt}":
                return f"asked for {user.device} it answers {status} {content[:400]}"
        return None

    def passes_large(self, running):
        """Whether 10 MiB pass unchanged."""
        status, content = self.ask(running, LARGE, self.users[0])
        return status == 200 and hashlib.sha256(content).digest() == hashlib.sha256(self.large).digest()

    def ask(self, running, path, user):
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
        try:
            connection.request("GET", path, headers={"DeviceToken": user.device})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def empty_logs(self, running):
        """What earlier rounds wrote is not to fill the disk during later ones."""
        for log in running.folder.glob("*.log"):
            os.truncate(log, 0)


WRK = """
local devices = {{{devices}}}
local requests, next = {{}}, 0
function init(args)
  for i, device in ipairs(devices) do
    requests[i] = wrk.format("GET", "{path}", {{["DeviceToken"] = device, ["Host"] = "127.0.0.1"}})
  end
end
function request()
  next = next % #requests + 1
  return requests[next]
end
function done(summary, latency, requests)
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write +
    summary.errors.status + summary.errors.timeout
  io.write(string.format('RESULT{{"requests":%d,"seconds":%f,"failed":%d,"p50":%f,"p99":%f}}',
    summary.requests, summary.duration / 1e6, failed, latency:percentile(50), latency:percentile(99)))
end
"""

API = """
daemon off; master_process off; worker_processes 1; pid {folder}/api.pid; error_log {folder}/api.err;
events {{ worker_connections 4096; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;
    default_type application/json;
    client_body_temp_path {folder}/api1; proxy_temp_path {folder}/api2; fastcgi_temp_path {folder}/api3;
    uwsgi_temp_path {folder}/api4; scgi_temp_path {folder}/api5;
    server {{
        listen 127.0.0.1:{port};
        {tls}
        location / {{ return 200 '{body}'; }}
        location = {echo} {{ return 200 '$http_authorization'; }}
        location = {large} {{ alias {folder}/large; }}
    }}
}}
"""

API_TLS = """
        listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.3;
        ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
"""
