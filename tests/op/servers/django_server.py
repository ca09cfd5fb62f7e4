"""django-oauth-toolkit as an OP, run by an environment of its own (`requirements/op-django.txt`).

    python django_server.py '{"home": …, "issuer": …, "client_id": …, "client_secret": …, "redirect_uri": …,
                              "post_logout_uri": …, "life_s": …, "oauth": {…}, "people": ["ada"]}'

The first line on stdout is {"port": …}. `oauth` goes into the setting OAUTH2_PROVIDER as it is.
Everybody's password is their name.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import django
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from django.conf import settings

LOGIN_PAGE = """<!doctype html><title>Sign in</title>
<form method="post">{% csrf_token %}{{ form.as_p }}<button type="submit">Sign in</button></form>"""


def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def configure(asked: dict[str, Any]) -> None:
    database = Path(asked["home"]) / "op.sqlite3"
    settings.configure(
        SECRET_KEY="for tests only",
        DEBUG=False,
        DEBUG_PROPAGATE_EXCEPTIONS=True,  # so that they are in the log
        ALLOWED_HOSTS=["127.0.0.1"],
        ROOT_URLCONF="django_site",
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": str(database),
                "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE"},
            }
        },
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "oauth2_provider",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "OPTIONS": {
                    "context_processors": ["django.template.context_processors.request"],
                    "loaders": [
                        (
                            "django.template.loaders.locmem.Loader",
                            {"registration/login.html": LOGIN_PAGE},
                        ),
                        "django.template.loaders.app_directories.Loader",
                    ],
                },
            }
        ],
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        LOGIN_URL="/accounts/login/",
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        OAUTH2_PROVIDER={
            "OIDC_ENABLED": True,
            "OIDC_ISS_ENDPOINT": asked["issuer"],
            "OIDC_RSA_PRIVATE_KEY": private_key(),
            "OIDC_RP_INITIATED_LOGOUT_ENABLED": True,
            "OAUTH2_VALIDATOR_CLASS": "django_site.Validator",
            "SCOPES": {"openid": "OpenID Connect", "profile": "Profile", "email": "E-mail"},
            "ACCESS_TOKEN_EXPIRE_SECONDS": asked["life_s"],
            "ID_TOKEN_EXPIRE_SECONDS": asked["life_s"],
            **asked["oauth"],
        },
    )
    django.setup()


def populate(asked: dict[str, Any]) -> None:
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from oauth2_provider.models import Application

    call_command("migrate", verbosity=0)
    for name in asked["people"]:
        User.objects.create_user(name, f"{name}@example.com", name)
    Application.objects.create(
        client_id=asked["client_id"],
        client_secret=asked["client_secret"],
        name="app",
        client_type=Application.CLIENT_CONFIDENTIAL,
        authorization_grant_type=Application.GRANT_AUTHORIZATION_CODE,
        redirect_uris=asked["redirect_uri"],
        post_logout_redirect_uris=asked["post_logout_uri"],
        algorithm=Application.RS256_ALGORITHM,
    )


def main() -> None:
    from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
    from django.core.wsgi import get_wsgi_application

    asked = json.loads(sys.argv[1])
    configure(asked)
    populate(asked)
    server = ThreadedWSGIServer(("127.0.0.1", 0), WSGIRequestHandler)
    server.set_app(get_wsgi_application())
    print(json.dumps({"port": server.server_port}), flush=True)
    server.serve_forever()


main()
