"""What a provider is seen to do: learned from its replies, exported, and stronger than its profile.

Only what is safe to learn changes what we do. Several refreshes in a row without a new refresh
token mean that presenting one twice costs nothing; a single new token at a provider that is not
supposed to rotate means that it may. Whether a used token is forgiven is never tried out on
people's sessions: `check --aggressive` does that on a grant made for it.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from proxy.core.providers import Reuse
from proxy.core.timing import RefreshPolicy
from proxy.core.token_reply import Issued

SURE_AFTER = 3
"""Replies in a row that agree before "does not rotate" is believed."""


class Observed:
    """What one provider was seen to do by this process.

    Args:
        rotates_at_times: it may keep a token for long and replace it then: it is not believed to keep it.

    Attributes:
        refreshes: replies that issued tokens for a refresh token.
        rotations: of those, with another refresh token.
        id_tokens: of those, with an ID token.
        life_s: life of the last access token, None = it named none.
        sign_ins: code exchanges that issued tokens.
        without_refresh_token: of those, without a refresh token.
        next_secret: whether it takes `client_secret_next` instead of `client_secret`; None = there is one.
    """

    def __init__(self, *, rotates_at_times: bool = False) -> None:
        self._at_times = rotates_at_times
        self.refreshes = self.rotations = self.id_tokens = 0
        self.sign_ins = self.without_refresh_token = 0
        self.life_s: float | None = None
        self.next_secret: bool | None = None
        self._odd_life = ""
        self._kept_in_a_row = 0
        self._rotates: bool | None = None
        self._id_token: bool | None = None

    def refreshed(self, sent: str, issued: Issued) -> None:
        """Take in a refresh that worked.

        Args:
            sent: the refresh token that was presented.
        """
        self.refreshes += 1
        self.life_s = issued.expires_in_s
        self._id_token = bool(issued.id_token)
        self.id_tokens += self._id_token
        if issued.refresh_token and issued.refresh_token != sent:
            self.rotations += 1
            self._kept_in_a_row, self._rotates = 0, True
            return
        self._kept_in_a_row += 1
        if self._kept_in_a_row >= SURE_AFTER and not self._at_times:
            self._rotates = False

    def signed_in(self, issued: Issued) -> None:
        """Take in a sign-in that worked."""
        self.sign_ins += 1
        self.without_refresh_token += not issued.refresh_token
        self.life_s = issued.expires_in_s

    def odd_life(self, issued: Issued, reckoned_s: float) -> str:
        """The life that a reply names and nobody reckons with, in its words; "" if it was told before.

        Args:
            reckoned_s: the life that is reckoned with instead.
        """
        named = issued.expires_in_s
        odd = "" if named is None or named == reckoned_s else f"{named:g}"
        news = odd if odd != self._odd_life else ""
        self._odd_life = odd
        return news

    def uses_secret(self, next_one: bool) -> None:
        """Take in which of two client secrets is in use."""
        self.next_secret = next_one

    @property
    def rotates(self) -> bool | None:
        """Whether a refresh brings another refresh token; None = not seen yet."""
        return self._rotates

    @property
    def new_id_token(self) -> bool | None:
        """Whether a refresh brings an ID token; None = not seen yet."""
        return self._id_token

    def policy(self, expected: RefreshPolicy) -> RefreshPolicy:
        """The policy to renew by: the expected one, where nothing speaks against it."""
        if self._rotates is False and expected.reuse is not Reuse.NONE:
            return replace(expected, reuse=Reuse.NONE)
        if self._rotates and expected.reuse is Reuse.NONE:
            return replace(expected, reuse=Reuse.PUNISHED)
        return expected

    def figures(self) -> Iterator[tuple[str, str, float]]:
        """What is exported: name, help, value. What was not seen yet is left out."""
        for name, text, value in (
            ("rotates", "1: a refresh brings another refresh token.", self._rotates),
            ("new_id_token", "1: a refresh brings an ID token.", self._id_token),
            ("token_life_seconds", "Life of its last access token.", self.life_s),
            ("next_secret", "1: it takes client_secret_next, and refuses client_secret.", self.next_secret),
        ):
            if value is not None:
                yield name, text, float(value)
        yield "sign_ins", "Sign-ins that issued tokens.", self.sign_ins
        text = "Sign-ins that brought no refresh token: these sessions end with their access token."
        yield "sign_ins_without_refresh_token", text, self.without_refresh_token
