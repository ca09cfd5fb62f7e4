"""All translators in order, and what none of them carries."""

from __future__ import annotations

from proxy.importing import access, headers, network, paths, provider, sessions
from proxy.importing.draft import Draft
from proxy.importing.flags import FLAGS, Fate
from proxy.importing.given import Given


def translate(given: Given) -> Draft:
    """Our configuration for what was given."""
    draft = Draft()
    for place, trouble in given.troubles:
        draft.decide(place, trouble)
    profile = provider.translate(given, draft)
    access.translate(given, draft, profile)
    network.translate(given, draft)
    paths.translate(given, draft)
    headers.translate(given, draft)
    sessions.translate(given, draft)
    _left(given, draft)
    return draft


def _left(given: Given, draft: Draft) -> None:
    for name, kept in given.elsewhere.items():
        if FLAGS[name].fate is not Fate.NEEDLESS:
            draft.decide(kept.place, f"in {kept.value}, not here: write the setting for {name} by hand")
    for name, given_value in given.values.items():
        flag = FLAGS[name]
        value = tuple(given_value.value) if flag.kind == "list" else given_value.value
        if name == "cookie-domain" and not network.foreign(given, name):
            continue  # one host, as here
        if flag.fate is Fate.LOST and value not in ("", (), *flag.fine):
            draft.missing(given_value.place, flag.remark)
