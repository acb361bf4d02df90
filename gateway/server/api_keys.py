"""API keys of clients: who shows one, what it may use, how much of it.

Keys are kept as SHA-256 digests. A plain fast digest is right for them, where a password would
need a slow and salted one: a key is 256 random bits (`llm-gateway make-key`), so that nobody can
find it from its digest by trying, and it is checked on every request.
"""

import math
from collections.abc import Iterable
from hashlib import blake2b, sha256
from hmac import compare_digest
from typing import Final

from gateway.runtime.clock import Clock
from gateway.scheduling.model import ServiceName
from gateway.server.rate_limit import RateLimit, format_reset
from gateway.server.request_body import Refused
from gateway.wire.credentials import KeyPolicy, api_key_of
from gateway.wire.error_response import ProtocolError, protocol_answer
from gateway.wire.http_headers import Headers

_TAG_BYTES: Final = 16


class ApiKey:
    """A key in use: its policy, and what it has used up of its limits."""

    __slots__ = ("_policy", "_requests", "_tokens", "name")

    def __init__(self, policy: KeyPolicy, *, now: float) -> None:
        self.name = policy.name
        self._requests: RateLimit | None = None
        self._tokens: RateLimit | None = None
        self.change(policy, now=now)

    def change(self, policy: KeyPolicy, *, now: float) -> None:
        """Go by another policy from now on; what is used up stays used up."""
        self._policy = policy
        self._requests = _changed(self._requests, policy.requests_per_minute, now)
        self._tokens = _changed(self._tokens, policy.tokens_per_minute, now)

    def may_use(self, service: ServiceName) -> bool:
        """Whether requests of this service are allowed."""
        return self._policy.services is None or service in self._policy.services

    def take_request(self, *, now: float) -> None:
        """Count one request; raises Refused (429) if the key has none left, or no token."""
        self._require(self._requests, 1, ProtocolError.KEY_REQUESTS, now)
        self._require(self._tokens, 1, ProtocolError.KEY_TOKENS, now)
        if self._requests is not None:
            self._requests.take(1, now=now)

    def take_tokens(self, amount: float, *, now: float) -> float:
        """Set tokens aside for a request, at most a minute's worth; return how many.

        Raises:
            Refused: the key has not as many left (429).
        """
        if self._tokens is None:
            return 0.0
        self._require(self._tokens, amount, ProtocolError.KEY_TOKENS, now)
        taken = min(amount, self._tokens.per_minute)
        self._tokens.take(taken, now=now)
        return taken

    def settle_tokens(self, *, taken: float, used: float, now: float) -> None:
        """Correct what was set aside for a request by what it has used."""
        if self._tokens is not None:
            self._tokens.take(used - taken, now=now)

    def limit_headers(self, *, now: float) -> tuple[tuple[bytes, bytes], ...]:
        """How much is left, in headers of the names that OpenAI uses; none without a limit."""
        lines: list[tuple[bytes, bytes]] = []
        for limit, unit in ((self._requests, b"requests"), (self._tokens, b"tokens")):
            if limit is not None:
                lines += (
                    (b"x-ratelimit-limit-" + unit, b"%d" % limit.per_minute),
                    (b"x-ratelimit-remaining-" + unit, b"%d" % limit.remaining(now=now)),
                    (
                        b"x-ratelimit-reset-" + unit,
                        format_reset(limit.reset_s(now=now)).encode(),
                    ),
                )
        return tuple(lines)

    def _require(
        self, limit: RateLimit | None, amount: float, error: ProtocolError, now: float
    ) -> None:
        if limit is None:
            return
        wait_s = limit.wait_s(amount, now=now)
        if wait_s > 0:
            detail = f"The limit of {self.name!r} is {limit.per_minute} per minute."
            answer = protocol_answer(error, detail=detail, retry_after_s=wait_s)
            headers = (*answer.headers, *self.limit_headers(now=now))
            raise Refused(answer._replace(headers=headers))


class AccessControl:
    """Knows the keys; `replace` takes others at any time.

    Digests are looked up by a tag made with `salt` (random, of this process only), so that the
    time of a look-up tells nothing of them, and then compared in constant time.
    """

    def __init__(self, *, clock: Clock, salt: bytes) -> None:
        """Let everybody in, until `replace` says otherwise."""
        self._clock = clock
        self._salt = salt
        self._required = False
        self._keys: dict[str, ApiKey] = {}
        self._by_tag: dict[bytes, tuple[bytes, ApiKey]] = {}

    @property
    def required(self) -> bool:
        """Whether only requests with a key are let in."""
        return self._required

    def replace(self, policies: Iterable[KeyPolicy], *, required: bool) -> None:
        """Go by these keys from now on; a key that keeps its name keeps what it has used up.

        `required` without any key lets nobody in.
        """
        now = self._clock()
        keys: dict[str, ApiKey] = {}
        by_tag: dict[bytes, tuple[bytes, ApiKey]] = {}
        for policy in policies:
            known = self._keys.get(policy.name)
            if known is None:
                known = ApiKey(policy, now=now)
            else:
                known.change(policy, now=now)
            keys[policy.name] = known
            for digest in policy.digests:
                by_tag[self._tag(digest)] = (digest, known)
        self._keys, self._by_tag, self._required = keys, by_tag, required

    def identify(self, headers: Headers) -> ApiKey | None:
        """Whose request it is; None where no key is required.

        Raises:
            Refused: no key was shown, or one that is not known (401).
        """
        if not self._required:
            return None
        shown = api_key_of(headers)
        if shown is None:
            detail = "Send your key as the client's api_key."
            raise Refused(protocol_answer(ProtocolError.UNAUTHORIZED, detail=detail))
        digest = sha256(shown).digest()
        found = self._by_tag.get(self._tag(digest))
        if found is None or not compare_digest(found[0], digest):
            detail = "The one that was sent is not known here, or no longer."
            raise Refused(protocol_answer(ProtocolError.UNAUTHORIZED, detail=detail))
        return found[1]

    def _tag(self, digest: bytes) -> bytes:
        return blake2b(digest, key=self._salt, digest_size=_TAG_BYTES).digest()


def _changed(limit: RateLimit | None, per_minute: int | None, now: float) -> RateLimit | None:
    if per_minute is None:
        return None
    if limit is None:
        return RateLimit(per_minute, now=now)
    limit.change(per_minute, now=now)
    return limit


def estimated_tokens(prompt_bytes: int, prompt_tokens: int | None) -> int:
    """Tokens of a prompt: exact if they were sent as ids, else about four bytes each."""
    return prompt_tokens if prompt_tokens is not None else math.ceil(prompt_bytes / 4)
