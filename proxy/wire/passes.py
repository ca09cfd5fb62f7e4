"""What an engine was told that may let a request through, known again by the bytes of its question.

An engine that sends few fields, and cookies and target last (`config/forward-auth/nginx.conf`), asks
in the same bytes again and again, but for these two. A question that begins with the bytes of one
that was read and judged before, and goes on with cookies that were read before and another
target of visible ASCII, is legal and means what it says. Nothing is left to be found out but
whether the verdict still stands, for which the door is asked each time.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from proxy.core.gate import Forward
from proxy.core.headers import IN_TARGET
from proxy.wire.memo import LONGEST, Memo

_COOKIE = b"\r\ncookie: "
_END = b"\r\n\r\n"
_ENTRY_BYTES = 1_024
"""What a pass weighs beside its bytes."""


class Block(Struct, eq=False, gc=False):
    """What all questions with the same bytes in front of cookies and target have in common.

    Attributes:
        method: the engine's, for the log.
        host: of the original request.
    """

    method: bytes
    host: bytes


class Pass(Struct, eq=False, gc=False):
    """What was answered to somebody.

    Attributes:
        cookie: every value that the client sent.
        identity: the lines that were told of them; a verdict that still stands has the very same. Not the
            verdict itself: through that, a session that is over would be kept in memory.
        decision: one word for the log.
        ready: the answer, as far as the value of its `Date`.
    """

    cookie: bytes
    identity: bytes
    decision: str
    ready: bytes


class Passes:
    """Remembers passes; bounded, and at rest while most questions are new.

    Args:
        source: the field by which the engine says the target, in lower case.
        warm: (path, cookies, host) → the verdict on a request that is no WebSocket's, where it is at hand.
        head_bytes: a longer question is refused, so none that long is known.
        max_bytes: of passes that are remembered, about.
    """

    def __init__(
        self,
        source: bytes,
        warm: Callable[[bytes, bytes, bytes], Forward | None],
        head_bytes: int = LONGEST,
        max_bytes: int = 4 << 20,
    ) -> None:
        self._warm = warm
        self._longest = min(head_bytes, LONGEST)
        self._source = b"\r\n%b: " % source
        # As the engine spells them: learned from a question.
        self._cookie_mark, self._target_mark = _COOKIE, self._source
        self._blocks: Memo[Block] = Memo()
        self._passes: dict[bytes, Pass] = {}
        self._size, self._limit = 0, max_bytes

    @property
    def resting(self) -> bool:
        """Whether nothing is kept at the moment; see `Memo`."""
        return self._blocks.resting

    @property
    def found(self) -> int:
        """How many questions were known; it only grows, but for a new start now and then."""
        return self._blocks.hits

    def missed(self) -> None:
        """A question that passed is none that can be known; where most are not, rest for a while."""
        if not self._blocks.missed():
            self._passes.clear()
            self._size = 0

    def standing(self, data: bytes) -> tuple[bytes, bytes, Pass] | None:
        """The pass to a question, if it is known and what it says still holds.

        Args:
            data: all that was read.

        Returns:
            The engine's method, the path that it asks about and the pass; None = it has to be read.
        """
        front, _, rest = data.partition(self._cookie_mark)
        cookie, _, rest = rest.partition(self._target_mark)
        block, given, target = self._blocks.look(front), self._passes.get(cookie), rest[:-4]
        if block is None or given is None or target[:1] != b"/" or target.translate(None, IN_TARGET):
            return None
        path = target.partition(b"?")[0]
        if len(data) > self._longest or rest[-4:] != _END:
            return None
        verdict = self._warm(path, given.cookie, block.host)
        if verdict is None or verdict.identity is not given.identity:
            return None
        self._blocks.hits += 1
        return block.method, path, given

    def keep(self, data: bytes, method: bytes, target: bytes, host: bytes, given: Pass) -> bool:
        """Remember the pass to a question that was read whole, has no body and goes on; whether it is.

        Args:
            data: its bytes, the empty line included, and nothing else.
            method: the engine's.
            target, host: of the original request.
        """
        lower = data.lower()
        at, source = lower.rfind(_COOKIE), lower.rfind(self._source)
        cookies, targets = at + len(_COOKIE), source + len(self._source)
        # Only where they are last, and one after the other: then nothing is in between.
        last = given.cookie + data[source:targets] + target + _END
        if at < 0 or source < 0 or data[cookies:] != last or len(data) > self._longest:
            return False
        if data.find(_END) != len(data) - len(_END) or data[0] == 13:
            return False  # more than one question
        self._cookie_mark, self._target_mark = data[at:cookies], data[source:targets]
        if self._blocks.look(data[:at]) is None and not self._blocks.keep(data[:at], Block(method, host)):
            return False
        before = self._passes.pop(given.cookie, None)
        self._size += _weight(given) - (_weight(before) if before is not None else 0)
        if self._size > self._limit:
            self._passes.clear()
            self._size = _weight(given)
        self._passes[given.cookie] = given
        return True


def _weight(given: Pass) -> int:
    return 2 * len(given.cookie) + len(given.ready) + _ENTRY_BYTES
