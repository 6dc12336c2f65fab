"""nginx: a static map, with the log as it is by default, a line a request, and gathered as ours is; a
Lua shared dictionary; and buffers tuned for large answers."""

import subprocess

import install
import processes
from bench import Peer

BUFFERED_LOG = "buffer=64k flush=1s"
LARGE_BUFFERS = ("proxy_buffers 16 64k; proxy_buffer_size 64k; proxy_busy_buffers_size 256k; "
                 "proxy_max_temp_file_size 0;")


def peers():
    return [
        Peer("nginx", version, static_map),
        Peer("nginx (log buffered)", version, log_buffered, measures=["rate"]),
        Peer("nginx tuned", version, large_buffers, measures=["large"]),
        Peer("nginx + Lua", version, lua, measures=["rate", "latency", "memory"]),
    ]


def version():
    said = subprocess.run([install.program("nginx"), "-v"], capture_output=True, text=True)
    return said.stderr.strip().removeprefix("nginx version: ")


def static_map(bench, folder, port, log="", more=""):
    pairs = "".join(f'{user.device} "Bearer {user.jwt}";\n' for user in bench.users)
    table = ("map_hash_bucket_size 1024; map_hash_max_size 4096; "
             "map $http_devicetoken $bearer {\n" + pairs + "}")
    return start(bench, folder, port, table, f"proxy_set_header Authorization $bearer; {more}", log)


def log_buffered(bench, folder, port):
    return static_map(bench, folder, port, log=BUFFERED_LOG)


def large_buffers(bench, folder, port):
    return static_map(bench, folder, port, more=LARGE_BUFFERS)


def lua(bench, folder, port):
    if not install.LUA_MODULE.exists():
        raise install.Missing("its Lua module is not installed")
    tokens = bench.write(folder / "tokens.lua", "return {\n" + "".join(
        f'["{user.device}"] = "Bearer {user.jwt}",\n' for user in bench.users) + "}\n")
    return start(bench, folder, port, LUA_TABLE.format(tokens=tokens), LUA_ATTACH, "", LUA_MODULES)


def start(bench, folder, port, table, attach, log, modules=""):
    tls = UPSTREAM_TLS.format(ca=bench.folder / "ca.pem") if bench.tls else ""
    config = bench.write(folder / "nginx.conf", CONFIG.format(
        folder=folder, port=port, workers=bench.workers, modules=modules, log=log, table=table,
        attach=attach, scheme=bench.scheme, api=bench.api_port, tls=tls))
    command = [install.program("nginx"), "-c", config, "-e", folder / "nginx.err"]
    return processes.start(bench.proxy_cores, command, folder / "nginx.out")


CONFIG = """
daemon off; worker_processes {workers}; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
{modules}
events {{ worker_connections 4096; }}
http {{
    access_log {folder}/access.log combined {log}; keepalive_requests 1000000000;
    client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
    uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
    {table}
    upstream api {{ server localhost:{api}; keepalive 256; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {scheme}://api; proxy_http_version 1.1; proxy_set_header Connection "";
            {tls}
            {attach}
        }}
    }}
}}
"""

UPSTREAM_TLS = """
            proxy_ssl_trusted_certificate {ca}; proxy_ssl_verify on; proxy_ssl_name localhost;
            proxy_ssl_protocols TLSv1.3;
"""

LUA_MODULES = "".join(f"load_module {install.LUA_MODULE.with_stem(module)};\n"
                      for module in ("ndk_http_module", "ngx_http_lua_module"))

LUA_TABLE = """
    lua_shared_dict tokens 16m;
    init_by_lua_block {{
        for device, bearer in pairs(dofile("{tokens}")) do
            ngx.shared.tokens:set(device, bearer)
        end
    }}
"""

LUA_ATTACH = """
            set $bearer '';
            access_by_lua_block { ngx.var.bearer = ngx.shared.tokens:get(ngx.var.http_devicetoken) }
            proxy_set_header Authorization $bearer;
"""
