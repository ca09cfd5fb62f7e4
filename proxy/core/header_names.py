"""Field names by what they would do to an app. Data only; `headers.py` holds the rules.

All but `IDENTITY_NAMES` are in normal form: lower case, non-alphanumerics as ``-``.
"""

from __future__ import annotations

IDENTITY_NAMES = (
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Forwarded-Preferred-Username",
    "X-Forwarded-Groups",
    "X-Forwarded-Access-Token",
)
"""The names apps already read (oauth2-proxy's); what a deployment sets is configuration."""

KNOWN_IDENTITY = frozenset(
    b"x-forwarded-user x-forwarded-email x-forwarded-preferred-username x-forwarded-groups"
    b" x-forwarded-access-token x-forwarded-id-token x-forwarded-roles x-forwarded-login"
    b" x-remote-user x-remote-email x-remote-name x-remote-groups x-remote-group remote-user remote-groups"
    b" remote-email remote-name remote-roles x-auth-user x-authenticated-user"
    b" x-authenticated-userid x-authenticated-groups x-webauth-user x-webauth-email x-webauth-name"
    b" x-webauth-groups x-webauth-role x-nightporter-assertion x-pomerium-jwt-assertion x-pomerium-assertion"
    b" x-goog-iap-jwt-assertion cf-access-jwt-assertion cf-access-authenticated-user-email ssl-client-verify"
    b" ssl-client-s-dn x-ssl-client-verify x-ssl-client-dn x-ssl-client-s-dn x-client-cert client-cert"
    b" client-cert-chain x-forwarded-client-cert x-forwarded-tls-client-cert"
    b" x-forwarded-tls-client-cert-info".split()
)
KNOWN_PREFIXES = (
    b"x-auth-request-",
    b"x-authentik-",
    b"x-pomerium-claim-",
    b"x-goog-authenticated-user-",
    b"x-amzn-oidc-",
    b"x-ms-client-principal",
    b"x-ms-token-",
    b"oidc-",
    b"x-vouch-",
    b"proxy-",
)
"""Families of the peers, and `Proxy-*` (hop-by-hop by convention, RFC 9110 §7.6.1)."""

OVERRIDES = frozenset(
    b"x-original-url x-original-uri x-original-method x-rewrite-url x-http-method x-http-method-override"
    b" x-method-override x-forwarded-prefix x-forwarded-uri x-forwarded-path x-forwarded-method"
    b" x-envoy-original-path x-envoy-original-method x-envoy-external-address x-envoy-internal"
    b" x-script-name".split()
)
"""Fields by which some frameworks replace method or URL: they would bypass a rule."""

# `Proxy` alone would become HTTP_PROXY in a CGI app (httpoxy, CVE-2016-5385).
HOP_BY_HOP = frozenset(b"keep-alive te trailer trailers http2-settings proxy".split())

CLAIMS = frozenset(
    b"x-real-ip x-client-ip client-ip true-client-ip cf-connecting-ip fastly-client-ip x-cluster-client-ip"
    b" x-forwarded x-forwarded-ssl x-forwarded-scheme x-forwarded-protocol x-forwarded-server x-forwarded-by"
    b" x-scheme x-url-scheme front-end-https via".split()
)
"""What proxies say about the client: believed from a trusted peer, dropped from others."""
