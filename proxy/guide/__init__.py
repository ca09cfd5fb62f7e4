"""What people are told about each provider: console steps, remedies in its own words, what to expect.

Texts only, loaded by the doctor, the pages' remedies and the generated documents; the running proxy
works by the profiles (`core/providers`).
"""

from __future__ import annotations

from types import MappingProxyType

from proxy.guide import enterprise, everybody, self_hosted
from proxy.guide.entry import GENERIC, TOPICS, Guide, topic_of

__all__ = ["GUIDES", "TOPICS", "Guide", "remedy", "topic_of"]

GUIDES: MappingProxyType[str, Guide] = MappingProxyType(
    {guide.name: guide for guide in (GENERIC, *everybody.TABLE, *enterprise.TABLE, *self_hosted.TABLE)}
)


def remedy(provider: str, topic: str) -> str:
    """What to change at this provider, in its console's words; the general words where it has none.

    Args:
        topic: one of `TOPICS`.
    """
    own = GUIDES[provider].remedies.get(topic, "") if provider in GUIDES else ""
    return own or GENERIC.remedies[topic]
