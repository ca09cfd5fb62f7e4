"""Nightporter and its peers, each a real process that a person can sign in to.

All keep connections to the app open, add their identity headers and run on one core. A peer whose
program is not installed is left out, by name.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.machine import LOAD_CORE, PROXY_CORE, program
from tests.op.scripted import ScriptedOP
from tests.scenarios.browser import Browser
from tests.scenarios.house import SCOPES, free_port, until

TOOLS = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "config" / "forward-auth"
SECRET = "0123456789abcdef0123456789abcdef"


@dataclass
class Contestant:
    """One of them, running.

    Attributes:
        port: where browsers come.
        pids: of its processes, without the store's.
        cookie: of the person who signed in; "" where nobody has to.
        redis: pid of its Redis, 0 = it has none.
    """

    name: str
    port: int
    pids: list[int]
    cookie: str = ""
    redis: int = 0
    version: str = ""


@dataclass
class Stage:
    """What all have in common, and what has to be ended.

    Attributes:
        app_port: of the app: nginx on the other core, 1 KiB at every path.
    """

    home: Path
    op: ScriptedOP = field(default_factory=ScriptedOP)
    app_port: int = 0
    running: list[subprocess.Popen[bytes]] = field(default_factory=list[subprocess.Popen[bytes]])

    def run(
        self,
        command: list[str],
        *,
        core: str = PROXY_CORE,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a process on a core; `end` ends it."""
        log = (self.home / f"log-{len(self.running)}").open("wb")
        process = subprocess.Popen(
            ["taskset", "-c", core, *command],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=cwd or self.home,
            env={**{k: v for k, v in os.environ.items() if not k.startswith("NIGHTPORTER_")}, **(env or {})},
        )
        log.close()
        self.running.append(process)
        return process

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """End one process."""
        if process in self.running:
            self.running.remove(process)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def end(self) -> None:
        for process in reversed(list(self.running)):
            self.stop(process)
        self.op.stop()


@contextlib.contextmanager
def stage(home: Path) -> Iterator[Stage]:
    """The app and the provider; everything that is started on it ends with it."""
    made = Stage(home)
    made.op.at_life_s = 36_000.0
    made.op.client_id, made.op.client_secret = "bench", "bench-secret"
    home.chmod(0o755)  # one of them gives up its rights
    try:
        made.op.start()
        made.app_port = free_port()
        body = "x" * 1024
        files = home / "files"
        files.mkdir()
        for name, size in (("1m", 1 << 20), ("100m", 100 << 20)):
            with (files / name).open("wb") as out:
                out.truncate(size)
        server = (
            f"server {{ listen 127.0.0.1:{made.app_port} backlog=1024; sendfile on; root {files};"
            f'location / {{ return 200 "{body}"; }} location = /1m {{}} location = /100m {{}} }}'
        )
        made.run(nginx(home, made.app_port, server), core=LOAD_CORE)
        listening(made.app_port)
        yield made
    finally:
        made.end()


def listening(port: int, limit_s: float = 60.0) -> None:
    """Wait until somebody answers there."""

    def answers() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/ready")
            connection.getresponse()
            return True
        except OSError:
            return False
        finally:
            connection.close()

    until(answers, limit_s)


def nginx(home: Path, port: int, http_block: str) -> list[str]:
    """An nginx of ours with one worker, in the foreground."""
    config = home / f"nginx-{port}.conf"
    user = "user root;" if os.getuid() == 0 else ""
    config.write_text(
        f"{user} worker_processes 1; daemon off; pid {home}/pid-{port}; error_log {home}/error-{port} error;"
        "events { worker_connections 16384; } http { access_log off; keepalive_requests 1000000000;"
        f"client_body_temp_path {home}/b{port}; proxy_temp_path {home}/p{port}; "
        f"fastcgi_temp_path {home}/f{port}; uwsgi_temp_path {home}/u{port}; scgi_temp_path {home}/s{port};"
        f"{http_block} }}"
    )
    return [program("nginx"), "-c", str(config)]


def signed_in(stage: Stage, port: int) -> str:
    """Walk through a real login, and answer the cookies."""
    browser = Browser(f"http://127.0.0.1:{port}", [port])
    reply = browser.visit("/page")
    assert reply.status == 200, (port, reply.status, reply.url, reply.body[:500], browser.trail)
    assert browser.jar
    again = browser.get("/page")
    assert again.status == 200, (port, again.status)
    return browser.cookie


def redis(stage: Stage) -> tuple[int, int]:
    """A Redis on the other core: its port and pid."""
    port = free_port()
    process = stage.run(
        [program("redis-server"), "--port", str(port), "--save", "", "--bind", "127.0.0.1"], core=LOAD_CORE
    )
    until(lambda: _pings(port))
    return port, process.pid


def _pings(port: int) -> bool:
    import socket

    try:
        with socket.create_connection(("127.0.0.1", port), 5) as sock:
            sock.sendall(b"PING\r\n")
            return sock.recv(16).startswith(b"+PONG")
    except OSError:
        return False


KEEP = "proxy_http_version 1.1; proxy_set_header Connection '';"


def nginx_plain(stage: Stage, *, buffering: bool = True) -> Contestant:
    port = free_port()
    off = "" if buffering else "proxy_buffering off;"
    upgrade = (
        "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; proxy_http_version 1.1;"
    )
    process = stage.run(
        nginx(
            stage.home,
            port,
            f"upstream app {{ server 127.0.0.1:{stage.app_port}; keepalive 64; }} server {{ listen 127.0.0.1:{port} backlog=1024;"
            f"location / {{ proxy_pass http://app; {off} {KEEP} }} location /ws {{ proxy_pass http://app; {upgrade} }} }}",
        )
    )
    listening(port)
    name = "nginx, plain proxy" if buffering else "nginx, plain, unbuffered"
    return Contestant(name, port, [process.pid], version=_version([program("nginx"), "-v"]))


def settings(stage: Stage, port: int, public: int, operations: int, store: str) -> dict[str, str]:
    return {
        "PYTHONPATH": str(ROOT),
        "NIGHTPORTER_ISSUER": stage.op.issuer,
        "NIGHTPORTER_CLIENT_ID": stage.op.client_id,
        "NIGHTPORTER_CLIENT_SECRET": stage.op.client_secret,
        "NIGHTPORTER_SCOPES": SCOPES,
        "NIGHTPORTER_UPSTREAM": f"http://127.0.0.1:{stage.app_port}",
        "NIGHTPORTER_PUBLIC_URL": f"http://127.0.0.1:{public}",
        "NIGHTPORTER_LISTEN": f"127.0.0.1:{port}",
        "NIGHTPORTER_OPERATIONS_LISTEN": f"127.0.0.1:{operations}",
        "NIGHTPORTER_COOKIE_KEYS": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        "NIGHTPORTER_STORE": store,
        "NIGHTPORTER_LIMITS_MAX_CONNECTIONS": "20000",
    }


def nightporter(stage: Stage, *, store: str = "") -> Contestant:
    port, redis_pid = free_port(), 0
    if not store:
        redis_port, redis_pid = redis(stage)
        store = f"redis://127.0.0.1:{redis_port}/0"
    process = stage.run(
        [sys.executable, "-m", "proxy", "serve"],
        env=settings(stage, port, port, free_port(), store),
        cwd=ROOT,
    )
    listening(port)
    return Contestant("Nightporter", port, [process.pid], signed_in(stage, port), redis_pid, "this tree")


def behind_nginx(stage: Stage) -> Contestant:
    """nginx auth_request → Nightporter, with the shipped configuration; both together."""
    engine, pages, answers = free_port(), free_port(), f"unix:{stage.home}/np-auth.sock"
    redis_port, redis_pid = redis(stage)
    env = settings(stage, pages, engine, free_port(), f"redis://127.0.0.1:{redis_port}/0")
    env |= {"NIGHTPORTER_FORWARD_AUTH_LISTEN": answers, "NIGHTPORTER_FORWARD_AUTH_ENGINE": "nginx"}
    process = stage.run([sys.executable, "-m", "proxy", "serve"], env=env, cwd=ROOT)
    listening(pages)
    text = (CONFIG / "nginx.conf").read_text()
    inner = text[text.index("http {") + 6 : text.rindex("}")]
    for shipped, put in (
        ("127.0.0.1:8000", f"127.0.0.1:{engine}"),
        ("127.0.0.1:8080", f"127.0.0.1:{pages}"),
        ("127.0.0.1:8082", answers),
        ("127.0.0.1:9000", f"127.0.0.1:{stage.app_port}"),
        ("http://127.0.0.1:8082/", "http://nightporter_auth/"),
    ):
        inner = inner.replace(shipped, put)
    worker = stage.run(nginx(stage.home, engine, inner))
    listening(engine)
    return Contestant(
        "nginx auth_request → Nightporter",
        engine,
        [process.pid, worker.pid],
        signed_in(stage, engine),
        redis_pid,
    )


def haproxy_plain(stage: Stage) -> Contestant:
    port = free_port()
    config = stage.home / "haproxy.cfg"
    config.write_text(
        "global\n  nbthread 1\n  maxconn 4000\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n"
        f"  timeout server 60s\n  http-reuse always\nfrontend web\n  bind 127.0.0.1:{port}\n  default_backend app\n"
        f"backend app\n  server app 127.0.0.1:{stage.app_port}\n"
    )
    process = stage.run([program("haproxy"), "-db", "-f", str(config)])
    listening(port)
    return Contestant(
        "HAProxy, plain proxy", port, [process.pid], version=_version([program("haproxy"), "-v"])
    )


def caddy_plain(stage: Stage) -> Contestant:
    port = free_port()
    config = stage.home / "Caddyfile"
    config.write_text(
        f"{{\n admin off\n auto_https off\n}}\nhttp://127.0.0.1:{port} {{\n reverse_proxy 127.0.0.1:{stage.app_port}\n}}\n"
    )
    process = stage.run(
        [str(TOOLS / "caddy"), "run", "--config", str(config), "--adapter", "caddyfile"],
        env={"GOMAXPROCS": "1", "HOME": str(stage.home)},
    )
    listening(port)
    return Contestant(
        "Caddy, plain proxy", port, [process.pid], version=_version([str(TOOLS / "caddy"), "version"])
    )


def traefik_plain(stage: Stage) -> Contestant:
    port = free_port()
    dynamic = stage.home / "traefik-dynamic.yml"
    dynamic.write_text(
        "http:\n  routers:\n    app:\n      rule: PathPrefix(`/`)\n      service: app\n  services:\n    app:\n"
        f"      loadBalancer:\n        servers:\n          - url: http://127.0.0.1:{stage.app_port}\n"
    )
    process = stage.run(
        [
            str(TOOLS / "traefik"),
            f"--entryPoints.web.address=127.0.0.1:{port}",
            f"--providers.file.filename={dynamic}",
            "--global.checkNewVersion=false",
            "--global.sendAnonymousUsage=false",
        ],
        env={"GOMAXPROCS": "1"},
    )
    listening(port)
    return Contestant(
        "Traefik, plain proxy", port, [process.pid], version=_version([str(TOOLS / "traefik"), "version"])
    )


def _endpoint(port: int) -> str:
    return (
        "endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: "
        f"{{ address: 127.0.0.1, port_value: {port} }} }} }} }}] }}]"
    )


def _envoy(stage: Stage, name: str, port: int, filters: str) -> subprocess.Popen[bytes]:
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
    process = stage.run(
        [
            str(TOOLS / "envoy"),
            *("-c", str(config), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"),
        ]
    )
    listening(port)
    return process


def envoy_plain(stage: Stage) -> Contestant:
    port = free_port()
    process = _envoy(stage, "plain", port, "")
    version = _version([str(TOOLS / "envoy"), "--version"])
    return Contestant("Envoy, plain proxy", port, [process.pid], version=version)


def envoy_oauth2(stage: Stage) -> Contestant:
    port = free_port()
    op = stage.op
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
    process = _envoy(stage, "oauth2", port, filters)
    version = _version([str(TOOLS / "envoy"), "--version"])
    return Contestant("Envoy, oauth2 filter", port, [process.pid], signed_in(stage, port), version=version)


def apache_oidc(stage: Stage) -> Contestant:
    port = free_port()
    redis_port, redis_pid = redis(stage)
    modules = Path("/usr/lib/apache2/modules")
    names = ("mpm_event", "authz_core", "authn_core", "authz_user", "auth_openidc", "proxy", "proxy_http")
    config = stage.home / "apache.conf"
    load = "\n".join(f"LoadModule {name}_module {modules}/mod_{name}.so" for name in names)
    config.write_text(
        f"""{load}
ServerRoot {stage.home}
ServerName 127.0.0.1
PidFile {stage.home}/apache.pid
User www-data
Group www-data
ErrorLog {stage.home}/apache.log
DefaultRuntimeDir {stage.home}
Mutex posixsem
Listen 127.0.0.1:{port}
MaxKeepAliveRequests 0
KeepAliveTimeout 60
OIDCProviderMetadataURL {stage.op.issuer}/.well-known/openid-configuration
OIDCClientID "{stage.op.client_id}"
OIDCClientSecret "{stage.op.client_secret}"
OIDCRedirectURI http://127.0.0.1:{port}/callback
OIDCCryptoPassphrase {SECRET}
OIDCPKCEMethod S256
OIDCScope "openid profile email offline_access"
OIDCCacheType redis
OIDCRedisCacheServer 127.0.0.1:{redis_port}
OIDCCookieSameSite On
ProxyPass / http://127.0.0.1:{stage.app_port}/ keepalive=On
<Location />
  AuthType openid-connect
  Require valid-user
</Location>
"""
    )
    process = stage.run([program("apache2"), "-DFOREGROUND", "-f", str(config)])
    listening(port)
    version = _version([program("apache2"), "-v"]) + ", mod_auth_openidc"
    return Contestant(
        "Apache, mod_auth_openidc, Redis", port, [process.pid], signed_in(stage, port), redis_pid, version
    )


def oauth2_proxy(stage: Stage) -> Contestant:
    port = free_port()
    redis_port, redis_pid = redis(stage)
    process = stage.run(
        [
            program("oauth2-proxy"),
            "--provider=oidc",
            f"--oidc-issuer-url={stage.op.issuer}",
            f"--client-id={stage.op.client_id}",
            f"--client-secret={stage.op.client_secret}",
            f"--redirect-url=http://127.0.0.1:{port}/oauth2/callback",
            f"--cookie-secret={SECRET}",
            "--cookie-secure=false",
            "--email-domain=*",
            f"--upstream=http://127.0.0.1:{stage.app_port}/",
            f"--http-address=127.0.0.1:{port}",
            "--session-store-type=redis",
            f"--redis-connection-url=redis://127.0.0.1:{redis_port}",
            "--skip-provider-button=true",
            "--scope=openid profile email offline_access",
            "--code-challenge-method=S256",
            "--request-logging=true",
        ],
        env={"GOMAXPROCS": "1"},
    )
    listening(port)
    version = _version([program("oauth2-proxy"), "--version"])
    return Contestant("oauth2-proxy, Redis", port, [process.pid], signed_in(stage, port), redis_pid, version)


def _version(command: list[str]) -> str:
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    return (out.stdout + out.stderr).strip().splitlines()[0][:90]


def available() -> dict[str, Callable[[Stage], Contestant]]:
    """Every contestant whose program is here, by a short name; the floor and ours first."""
    found: dict[str, Callable[[Stage], Contestant]] = {"nginx": nginx_plain, "nightporter": nightporter}
    found["behind-nginx"] = behind_nginx
    found["nginx-unbuffered"] = partial(nginx_plain, buffering=False)
    if program("haproxy"):
        found["haproxy"] = haproxy_plain
    if (TOOLS / "envoy").exists():
        found["envoy"] = envoy_plain
        found["envoy-oauth2"] = envoy_oauth2
    if (TOOLS / "caddy").exists():
        found["caddy"] = caddy_plain
    if (TOOLS / "traefik").exists():
        found["traefik"] = traefik_plain
    if program("apache2") and Path("/usr/lib/apache2/modules/mod_auth_openidc.so").exists():
        found["apache"] = apache_oidc
    if program("oauth2-proxy"):
        found["oauth2-proxy"] = oauth2_proxy
    return found
