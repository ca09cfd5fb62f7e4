"""Which of several providers a sign-in goes to."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct


class Offer(Struct, frozen=True):
    """A provider, as people may choose it.

    Attributes:
        name: as configured.
        title: on its button.
        hosts: where it is offered, in lower case; empty = everywhere that nobody claims for itself.
        paths: a sign-in that comes from below one of these goes to it unasked.
        callback: where its OP sends people back, below our prefix.
    """

    name: str
    title: str
    hosts: frozenset[str] = frozenset()
    paths: tuple[str, ...] = ()
    callback: str = "callback"

    @property
    def logo(self) -> str:
        """One or two letters for the button."""
        words = [word for word in self.title.split() if word[:1].isalnum()]
        return "".join(word[0] for word in words[:2]).upper() or "?"


def offered(offers: Sequence[Offer], host: str) -> list[Offer]:
    """The providers that sign people in at a host: those that name it, else those that name none."""
    own = [offer for offer in offers if host in offer.hosts]
    return own or [offer for offer in offers if not offer.hosts]


def chosen(offers: Sequence[Offer], *, host: str, path: str, hint: str) -> list[Offer]:
    """The providers to choose from; one if the choice is made.

    Args:
        host: of the public origin, in lower case.
        path: to which the sign-in will return.
        hint: the parameter `provider`; a name that is not offered here is no hint.
    """
    left = offered(offers, host)
    hinted = [offer for offer in left if offer.name == hint]
    if hinted:
        return hinted
    local = path.partition("?")[0]
    matching = [
        (max(len(prefix) for prefix in offer.paths if local.startswith(prefix)), offer)
        for offer in left
        if any(local.startswith(prefix) for prefix in offer.paths)
    ]
    if matching:
        longest = max(length for length, _ in matching)
        return [offer for length, offer in matching if length == longest]
    return left
