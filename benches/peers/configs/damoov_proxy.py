"""damoov-proxy, its whole job: defaults, metrics on, the access log to a file."""

import hashlib
import json
import pathlib
import subprocess

import install
import processes
from bench import INSTANCE, Peer


def peer(name, binary=None):
    """One build: the given file, or else one of this folder."""
    path = lambda: binary or install.damoov_proxy()
    return Peer(name, lambda: version(path(), binary is None),
                lambda bench, folder, port: start(path(), bench, folder, port))


def version(binary, built_here):
    said = subprocess.run([binary, "--version"], capture_output=True, text=True).stdout.strip()
    if built_here:
        git = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
        commit = subprocess.run(git, cwd=install.ROOT, capture_output=True, text=True).stdout.strip()
        return f"{said}, commit {commit or 'unknown'}"
    return f"{said}, SHA-256 of the binary {hashlib.sha256(pathlib.Path(binary).read_bytes()).hexdigest()[:12]}"


def start(binary, bench, folder, port):
    config = bench.write(folder / "damoov-proxy.toml", CONFIG.format(
        port=port, folder=folder, workers=bench.workers, instance=INSTANCE, ca=bench.folder / "ca.pem",
        api=f"{bench.scheme}://localhost:{bench.api_port}"))
    # The instance's key stands in it.
    config.chmod(0o600)
    pairs = "".join(json.dumps({"DeviceToken": user.device, "InstanceId": INSTANCE,
                                "AccessToken": user.jwt, "RefreshToken": "r"}) + "\n"
                    for user in bench.users)
    done = subprocess.run([binary, "tokens", "import", "--from", "-", "--config", config],
                          input=pairs, text=True, capture_output=True)
    if done.returncode:
        raise install.Missing(f"tokens import says: {done.stderr}")
    return processes.start(bench.proxy_cores, [binary, "--config", config], folder / "access.log")


CONFIG = """
listen = "127.0.0.1:{port}"
[workers]
threads = {workers}
[[instance]]
name = "main"
id = "{instance}"
key = "key"
[store]
path = "{folder}/store"
[renewal]
keep_refresh_tokens = "off"
[status]
listen = "127.0.0.1:0"
[upstream]
ca_file = "{ca}"
[upstream.hosts]
"api.telematicssdk.com" = "{api}"
"user.telematicssdk.com" = "{api}"
"""
