"""Envoy: as a plain proxy, and with its oauth2 filter (sessions in cookies)."""

from __future__ import annotations

from bench.contestant import Contestant
from bench.machine import installed, version_of
from bench.stage import SECRET, Stage, listening
from tests.scenarios.house import free_port


def plain(stage: Stage) -> Contestant:
    return _envoy(stage, "Envoy, plain proxy", free_port(), "")


def oauth2(stage: Stage) -> Contestant:
    port, op = free_port(), stage.op
    filters = f"""
                  - name: envoy.filters.http.oauth2
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.oauth2.v3.OAuth2
                      config:
                        token_endpoint: {{ cluster: op, uri: "{op.issuer}/token", timeout: 10s }}
                        authorization_endpoint: "{op.issuer}/authorize"
                        redirect_uri: "http://127.0.0.1:{port}/callback"
                        redirect_path_matcher: {{ path: {{ exact: /callback }} }}
                        signout_path: {{ path: {{ exact: /signout }} }}
                        forward_bearer_token: true
                        use_refresh_token: true
                        auth_scopes: [openid, profile, email, offline_access]
                        credentials:
                          client_id: "{op.client_id}"
                          token_secret: {{ name: token }}
                          hmac_secret: {{ name: hmac }}"""
    contestant = _envoy(stage, "Envoy, oauth2 filter", port, filters)
    contestant.signs_in = True
    return contestant


def _envoy(stage: Stage, name: str, port: int, filters: str) -> Contestant:
    program = installed("envoy")
    config = stage.home / f"envoy-{port}.yaml"
    config.write_text(
        f"""
static_resources:
  secrets:
    - {{ name: token, generic_secret: {{ secret: {{ inline_string: "{stage.op.client_secret}" }} }} }}
    - {{ name: hmac, generic_secret: {{ secret: {{ inline_string: "{SECRET}" }} }} }}
  listeners:
    - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: web
                upgrade_configs: [{{ upgrade_type: websocket }}]
                route_config:
                  virtual_hosts:
                    - {{ name: app, domains: ["*"], routes: [{{ match: {{ prefix: / }}, route: {{ cluster: app, timeout: 0s }} }}] }}
                http_filters:{filters}
                  - name: envoy.filters.http.router
                    typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
    - {{ name: app, type: STATIC, load_assignment: {{ cluster_name: app, {_endpoint(stage.app_port)} }} }}
    - {{ name: op, type: STATIC, load_assignment: {{ cluster_name: op, {_endpoint(stage.op.port)} }} }}
"""
    )
    command = [
        program,
        "-c",
        str(config),
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "--log-level",
        "error",
    ]
    process = stage.run(command)
    listening(port)
    return Contestant(name, port, [process], version=version_of([program, "--version"]))


def _endpoint(port: int) -> str:
    return (
        "endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: "
        f"{{ address: 127.0.0.1, port_value: {port} }} }} }} }}] }}]"
    )
