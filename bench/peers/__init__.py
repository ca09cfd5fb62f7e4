"""Nightporter and its peers: each starts as a real process that a person can sign in to.

All keep connections to the app open and run on one core.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.contestant import Contestant
from bench.peers import apache, caddy, envoy, haproxy, nginx, nightporter, oauth2_proxy, traefik
from bench.stage import Stage

Start = Callable[[Stage], Contestant]

PEERS: dict[str, Start] = {
    "nginx": nginx.plain,
    "nightporter": nightporter.sidecar,
    "behind-nginx": nightporter.behind_nginx,
    "nginx-unbuffered": nginx.unbuffered,
    "haproxy": haproxy.plain,
    "envoy": envoy.plain,
    "envoy-oauth2": envoy.oauth2,
    "caddy": caddy.plain,
    "traefik": traefik.plain,
    "apache": apache.openidc,
    "oauth2-proxy": oauth2_proxy.redis,
}
"""Short name → starts it, or raises `Missing`. The floor comes first, then ours."""
