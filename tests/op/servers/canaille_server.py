"""Canaille as an OP, in memory, run by an environment of its own (`requirements/op-canaille.txt`).

    python canaille_server.py '{"host": "127.0.0.1:1234", "client_id": …, "client_secret": …,
                                "redirect_uri": …, "post_logout_uri": …, "life_s": …, "people": ["ada"]}'

The first line on stdout is {"port": …}. `host` is where it is reached. Everybody's password is their
name. Its client's address is on a trusted domain, so nobody is asked for consent.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from typing import Any

from canaille import create_app
from canaille.app import models
from canaille.backends import Backend
from flask import Flask
from joserfc.jwk import RSAKey
from werkzeug.serving import make_server


def configured(asked: dict[str, Any]) -> Flask:
    os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # plain HTTP, on loopback
    app = create_app(
        config={
            "ENV_FILE": None,
            "SECRET_KEY": secrets.token_hex(),
            "SERVER_NAME": asked["host"],
            "PREFERRED_URL_SCHEME": "http",
            "OAUTH2_TOKEN_EXPIRES_IN": {
                "authorization_code": asked["life_s"],
                "refresh_token": asked["life_s"],
            },
            "CANAILLE": {
                "DATABASE": "memory",
                "JAVASCRIPT": False,
                "ACL": {"DEFAULT": {"PERMISSIONS": ["use_oidc"]}},
            },
            "CANAILLE_OIDC": {
                "ACTIVE_JWKS": [
                    RSAKey.generate_key(2048, {"kid": "k1", "use": "sig", "alg": "RS256"}).as_dict(
                        private=True
                    )
                ],
                "TRUSTED_DOMAINS": ["127.0.0.1"],
            },
        },
    )
    app.config["OAUTH2_TOKEN_EXPIRES_IN"] = {
        "authorization_code": asked["life_s"],
        "refresh_token": asked["life_s"],
    }
    return app


def populate(app: Flask, asked: dict[str, Any]) -> None:
    origin = "/".join(asked["redirect_uri"].split("/")[:3])
    with app.app_context():
        for name in asked["people"]:
            person = models.User(
                user_name=name,
                formatted_name=f"{name} of Canaille",
                family_name=name,
                display_name=name,
                emails=[f"{name}@example.com"],
                password=name,
            )
            Backend.instance.save(person)
        client = models.Client(
            client_id=asked["client_id"],
            client_secret=asked["client_secret"],
            client_name="app",
            client_uri=origin,
            redirect_uris=[asked["redirect_uri"]],
            post_logout_redirect_uris=[asked["post_logout_uri"]],
            grant_types=["authorization_code", "refresh_token"],
            response_types=["code"],
            scope=["openid", "profile", "email", "groups"],
            token_endpoint_auth_method="client_secret_basic",
        )
        Backend.instance.save(client)
        Backend.instance.update(client, audience=[client])
        Backend.instance.save(client)
        group = models.Group(display_name="staff", members=Backend.instance.query(models.User))
        Backend.instance.save(group)


def main() -> None:
    asked = json.loads(sys.argv[1])
    app = configured(asked)
    populate(app, asked)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    print(json.dumps({"port": server.server_port}), flush=True)
    server.serve_forever()


main()
