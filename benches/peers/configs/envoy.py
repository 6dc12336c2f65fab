"""Envoy with the table as a map of routes, and in a Lua filter."""

import json
import subprocess

import install
import processes
from bench import Peer

TYPES = "type.googleapis.com/envoy.extensions"


def peers():
    return [Peer("envoy", version, starter(route_map)), Peer("envoy + Lua", version, starter(lua), measures=["rate"])]


def version():
    said = subprocess.run([install.envoy(), "--version"], capture_output=True, text=True).stdout
    # As in "/path/of/envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL".
    return f"Envoy {said.split('version:')[1].split('/')[1]}"


def starter(attach):
    def start(bench, folder, port):
        binary = install.envoy()
        config = configuration(bench, folder, port, *attach(bench.users))
        config = bench.write(folder / "envoy.json", json.dumps(config))
        command = [binary, "-c", config, "--concurrency", bench.workers, "--disable-hot-restart",
                   "--log-level", "error"]
        return processes.start(bench.proxy_cores, command, folder / "envoy.out")
    return start


def route_map(users):
    """Routes of a virtual host, and filters: a route a user, found by hash, that sets the header."""
    def to_api(user):
        bearer = {"header": {"key": "authorization", "value": f"Bearer {user.jwt}"},
                  "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        return {"action": {"name": "route", "typed_config": {
            "@type": "type.googleapis.com/envoy.config.route.v3.Route", "match": {"prefix": "/"},
            "route": {"cluster": "api"}, "request_headers_to_add": [bearer]}}}

    device = {"name": "device", "typed_config": {
        "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
        "header_name": "devicetoken"}}
    routes = {user.device: to_api(user) for user in users}
    return {"matcher": {"matcher_tree": {"input": device, "exact_match_map": {"map": routes}}}}, []


def lua(users):
    """Routes of a virtual host, and filters: one route, and a script."""
    table = ",".join(f'["{user.device}"]="Bearer {user.jwt}"' for user in users)
    script = {"name": "lua", "typed_config": {
        "@type": f"{TYPES}.filters.http.lua.v3.Lua",
        "default_source_code": {"inline_string": LUA.format(table=table)}}}
    return {"routes": [{"match": {"prefix": "/"}, "route": {"cluster": "api"}}]}, [script]


def configuration(bench, folder, port, routes, filters):
    access_log = {"name": "envoy.access_loggers.file", "typed_config": {
        "@type": f"{TYPES}.access_loggers.file.v3.FileAccessLog", "path": str(folder / "access.log")}}
    router = {"name": "router", "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"}}
    connections = {"name": "envoy.filters.network.http_connection_manager", "typed_config": {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in", "access_log": [access_log],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], **routes}]},
        "http_filters": [*filters, router]}}
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
