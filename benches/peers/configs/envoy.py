"""Envoy with a Lua filter that holds the table."""

import json
import subprocess

import install
import processes
from bench import Peer

TYPES = "type.googleapis.com/envoy.extensions"


def peers():
    return [Peer("envoy", version, start)]


def version():
    said = subprocess.run([install.envoy(), "--version"], capture_output=True, text=True).stdout
    # As in "/path/of/envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL".
    return f"Envoy {said.split('version:')[1].split('/')[1]}"


def start(bench, folder, port):
    binary = install.envoy()
    config = bench.write(folder / "envoy.json", json.dumps(configuration(bench, folder, port)))
    command = [binary, "-c", config, "--concurrency", bench.workers, "--disable-hot-restart",
               "--log-level", "error"]
    return processes.start(bench.proxy_cores, command, folder / "envoy.out")


def configuration(bench, folder, port):
    table = ",".join(f'["{user.device}"]="Bearer {user.jwt}"' for user in bench.users)
    access_log = {"name": "envoy.access_loggers.file", "typed_config": {
        "@type": f"{TYPES}.access_loggers.file.v3.FileAccessLog", "path": str(folder / "access.log")}}
    lua = {"name": "lua", "typed_config": {
        "@type": f"{TYPES}.filters.http.lua.v3.Lua",
        "default_source_code": {"inline_string": LUA.format(table=table)}}}
    router = {"name": "router", "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"}}
    everything = {"name": "all", "domains": ["*"], "routes": [
        {"match": {"prefix": "/"}, "route": {"cluster": "api"}}]}
    connections = {"name": "envoy.filters.network.http_connection_manager", "typed_config": {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in", "access_log": [access_log],
        "route_config": {"virtual_hosts": [everything]}, "http_filters": [lua, router]}}
    api = {"name": "api", "type": "STATIC", "connect_timeout": "5s", "load_assignment": {
        "cluster_name": "api",
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(bench.api_port)}}]}]}}
    if bench.tls:
        api["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": f"{TYPES}.transport_sockets.tls.v3.UpstreamTlsContext", "sni": "localhost",
            "common_tls_context": {
                "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
                "validation_context": {"trusted_ca": {"filename": str(bench.folder / "ca.pem")}}}}}
    listener = {"address": address(port), "filter_chains": [{"filters": [connections]}]}
    return {"static_resources": {"listeners": [listener], "clusters": [api]}}


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


LUA = """
local tokens = {{{table}}}
function envoy_on_request(handle)
  local headers = handle:headers()
  headers:replace("authorization", tokens[headers:get("devicetoken")])
end
"""
