"""What is compared: one file a peer, each with its configuration as a careful operator would write it.

All attach one of the same tokens by the header DeviceToken, keep connections alive on both sides,
write an access log to a file, and have as many threads or processes as there are workers."""

from configs import caddy, envoy, haproxy, nginx, rust


def peers():
    pingora, *floors = rust.peers()
    return [*nginx.peers(), *haproxy.peers(), pingora, *envoy.peers(), *caddy.peers(), *floors]
