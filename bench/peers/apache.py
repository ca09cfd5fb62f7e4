"""Apache with mod_auth_openidc, sessions in Redis."""

from __future__ import annotations

from pathlib import Path

from bench.contestant import Contestant
from bench.machine import Missing, installed, version_of
from bench.stage import SECRET, Stage, listening
from tests.scenarios.house import free_port

_MODULES = Path("/usr/lib/apache2/modules")
_NAMES = ("mpm_event", "authz_core", "authn_core", "authz_user", "auth_openidc", "proxy", "proxy_http")


def openidc(stage: Stage) -> Contestant:
    program, port = installed("apache2"), free_port()
    if not (_MODULES / "mod_auth_openidc.so").exists():
        raise Missing("mod_auth_openidc")
    redis_port, redis = stage.redis()
    config = stage.home / "apache.conf"
    load = "\n".join(f"LoadModule {name}_module {_MODULES}/mod_{name}.so" for name in _NAMES)
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
ProxyPass / http://127.0.0.1:{stage.app_port}/ keepalive=On upgrade=websocket
<Location />
  AuthType openid-connect
  Require valid-user
</Location>
"""
    )
    process = stage.run([program, "-DFOREGROUND", "-f", str(config)])
    listening(port)
    version = version_of([program, "-v"]) + ", mod_auth_openidc"
    return Contestant("Apache, mod_auth_openidc, Redis", port, [process], redis, version, signs_in=True)
