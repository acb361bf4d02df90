"""What a client has of a streamed answer, as far as another server needs it to go on.

An engine holds text back while a character is incomplete. Token ids whose text has not come are not
counted as said: they are left to the next server to say again. Where several ids come in one event
(a busy server, speculative decoding), its text may be that of the first of them only; whether the
last of them end a character is known from their text (`doubtful_tail`). A client that wants the ids
itself may have more of them than of their text then: the next server must say the same ones again.
"""

from typing import Any, Final

import msgspec
from msgspec import Raw

from gateway.scheduling.model import TokenUsage
from gateway.wire.answer_events import DONE, AnswerEvents
from gateway.wire.continuation_obstacles import Members, wants_token_ids
from gateway.wire.json_shapes import StreamChoice, StreamEvent

_NULL: Final = Raw(b"null")
_NUMBER: msgspec.json.Decoder[int | None] = msgspec.json.Decoder(int | None, strict=False)
"""As lenient as the parser of requests."""
_DEFAULT_COMPLETION_TOKENS: Final = 16
"""`max_tokens` of a completion that sets none (OpenAI's API reference)."""
_INCOMPLETE: Final = "\ufffd"
"""How the text of ids ends while the engine holds it back (DecodeStream of HF's tokenizers)."""
_CONTEXT: Final = 8
"""Ids before a doubtful one that are enough to know where a character begins: it has four bytes."""
_SAMPLING: Final = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "stop_token_ids",
    "include_stop_str_in_output",
    "ignore_eos",
    "logit_bias",
    "bad_words",
    "allowed_token_ids",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "priority",
    "user",
    "cache_salt",
)
"""What the rest of the answer is sampled with, as the beginning was."""


class AnswerSoFar:
    """What the client has of an answer, as far as another server needs it to go on.

    Attributes:
        obstacle: why the answer cannot be continued, or None.
        finished: a choice said why it ended; only `ending` may be missing.
        breaks: how often a server left off.
        tells_ids: whether the client wants token ids, too.
    """

    def __init__(self, *, chat: bool, body: Members) -> None:
        """Begin with nothing.

        Args:
            chat: the answer is one of /v1/chat/completions, else of /v1/completions.
            body: the members of the request's body.
        """
        self.obstacle: str | None = None
        self.finished = False
        self.breaks = 0
        self.tells_ids = wants_token_ids(body)
        self._chat = chat
        self._body = body
        self._events = AnswerEvents(chat=chat, tells_ids=self.tells_ids, model=body["model"])
        self._max_tokens = _max_tokens(body, chat=chat)
        options = msgspec.json.decode(body.get("stream_options", _NULL))
        self._wants_usage = isinstance(options, dict) and bool(options.get("include_usage"))
        self._prompt_ids: list[int] | None = None
        self._prompt_told = False
        self._ids: list[int] = []
        self._unsaid: list[int] = []
        self._doubtful = 0
        """So many of the last ids came together with text that may not be theirs."""
        self._ahead: list[int] = []
        """Ids that the client has without their text: they come again, and are not for it."""
        self._usage_told = False
        self._done = False
        self._between_events = True

    @property
    def usage(self) -> TokenUsage:
        """Tokens of the whole answer so far, as far as they are known."""
        if self._prompt_ids is None:
            return TokenUsage()
        return TokenUsage(len(self._prompt_ids), len(self._ids) + len(self._unsaid))

    def broke(self) -> None:
        """A server left off: forget what it may have said without the client having seen it."""
        self.breaks += 1
        if not self.finished:
            self.forget_unsaid()
        if self._prompt_ids is None and self.obstacle is None:
            self.obstacle = "no token ids from the server"

    def forget_unsaid(self) -> None:
        """A server begins anew, and says the ids again that came without their text."""
        self._unsaid.clear()

    def doubtful_tail(self) -> list[int] | None:
        """The last ids, if only their text tells whether the client has all of it."""
        if not self._doubtful or self.finished or self.obstacle is not None:
            return None
        return self._ids[-self._doubtful - _CONTEXT :]

    def judge_tail(self, text: str | None) -> None:
        """Take in the text of `doubtful_tail`, which may then be shorter by one id, or none.

        None if no server tells it.
        """
        if text is None:
            self.obstacle = "the text of its last tokens is not known"
        elif text.endswith(_INCOMPLETE):
            self._ahead.insert(0, self._ids.pop())
            self._doubtful -= 1
        else:
            self._doubtful = 0

    def remaining_tokens(self, max_model_len: int | None) -> int | None:
        """How many tokens the answer may still have; None if nobody knows."""
        said = len(self._ids)
        if self._max_tokens is not None:
            return self._max_tokens - said
        if max_model_len is None:
            return None
        return max_model_len - len(self._prompt_ids or ()) - said

    def resumed_request(self, max_model_len: int | None) -> bytes | None:
        """The body that asks another server for the rest; None if there is no rest.

        Its model is the client's, as in the request that it takes the place of.
        """
        remaining = self.remaining_tokens(max_model_len)
        if remaining is None:
            self.obstacle = "no limit of tokens known"
        if self.finished or self.obstacle is not None or remaining is None or remaining <= 0:
            return None
        body = self._body
        members: dict[str, Any] = {"model": body["model"]}
        members |= {name: body[name] for name in _SAMPLING if name in body}
        if "min_tokens" in body:
            least = _number(body, "min_tokens") or 0
            members["min_tokens"] = max(0, least - len(self._ids))
        members |= {
            "prompt": [*(self._prompt_ids or ()), *self._ids],
            "max_tokens": remaining,
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_token_ids": True,
        }
        return msgspec.json.encode(members)

    def ending(self, max_model_len: int | None) -> bytes | None:
        """The events that a complete answer still lacks; None if it is not complete."""
        remaining = self.remaining_tokens(max_model_len)
        if not self.finished and (remaining is None or remaining > 0 or self.obstacle is not None):
            return None
        parts = [self.separator()]
        if not self.finished:
            parts.append(self._events.text("", "length", None))
        if self._wants_usage and not self._usage_told:
            parts.append(self._usage_event(len(self._ids), None))
        if not self._done:
            parts.append(DONE)
        return b"".join(parts)

    # -- fed by the streams -----------------------------------------------------------------

    def note_line(self, line: bytes) -> None:
        """The client has this line: remember whether it is in the middle of an event."""
        self._between_events = not line.strip()
        self._prompt_told = self._prompt_ids is not None

    def separator(self) -> bytes:
        """The empty line that ends an event whose server broke off right after it."""
        return b"" if self._between_events else b"\n"

    def note_done(self) -> None:
        """The client has [DONE]."""
        self._done = True

    def take_first(self, event: StreamEvent) -> None:
        """Learn from an event of the first server."""
        self._events.learn(event)
        if event.prompt_token_ids is not None:
            self._prompt_ids = event.prompt_token_ids
        self._usage_told = self._usage_told or (event.usage is not None and not event.choices)
        for choice in event.choices or ():
            if choice.prompt_token_ids is not None:
                self._prompt_ids = choice.prompt_token_ids
            text = choice.text
            if self._chat:
                delta = choice.delta if isinstance(choice.delta, dict) else {}
                text = delta.get("content")
                odd = [name for name in delta if name not in {"role", "content"} and delta[name]]
                if odd:
                    self.obstacle = odd[0]
            self._said(choice, text)

    def translate(self, event: StreamEvent, said_before: int) -> bytes | None:
        """Learn from an event of a later server.

        Returns:
            It as the client expects it; None if it does not go with what the client has.
        """
        if event.choices:
            choice = event.choices[0]
            finished = self.finished
            said = self._said(choice, choice.text)
            if not choice.text and choice.finish_reason is None:
                return b""
            ids = self._not_told(said) if self.tells_ids else ()
            if self.tells_ids and self.obstacle is not None:
                # The client does not get it, so it is not the end either.
                self.finished = finished
                return None
            return self._events.text(
                choice.text,
                choice.finish_reason,
                choice.stop_reason,
                ids=ids,
                prompt_ids=self._prompt_ids if self.tells_ids and not self._prompt_told else None,
            )
        if isinstance(event.usage, dict):
            if not self._wants_usage or self._usage_told:
                return b""
            self._usage_told = True
            own = event.usage.get("completion_tokens")
            tokens = said_before + own if isinstance(own, int) else len(self._ids)
            return self._usage_event(tokens, event.system_fingerprint)
        return b""

    @property
    def said(self) -> int:
        """Tokens that the client has the text of."""
        return len(self._ids)

    @property
    def lacks_text(self) -> bool:
        """Whether the text of the last ids has yet to come; without it they may be said again."""
        return bool(self._unsaid) and self.obstacle is None

    def _said(self, choice: StreamChoice, text: object) -> list[int]:
        """Take in what a choice says; returns the ids whose text the client has now."""
        if choice.token_ids is None and (text or choice.finish_reason is not None):
            self.obstacle = "no token ids from the server"
        ids = choice.token_ids or ()
        self._unsaid += ids
        said: list[int] = []
        if text or choice.finish_reason is not None:
            said, self._unsaid = self._unsaid, said
            self._ids += said
            self._doubtful = max(0, len(ids) - 1)
        if choice.finish_reason is not None:
            self.finished = True
        return said

    def _not_told(self, ids: list[int]) -> list[int]:
        """Those of the ids that the client does not have."""
        known = self._ahead[: len(ids)]
        if ids[: len(known)] != known:
            self.obstacle = "other token ids than the client has"
        del self._ahead[: len(known)]
        return ids[len(known) :]

    def _usage_event(self, completion_tokens: int, fingerprint: object) -> bytes:
        return self._events.usage(len(self._prompt_ids or ()), completion_tokens, fingerprint)


def _max_tokens(body: Members, *, chat: bool) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        limit = _number(body, name)
        if limit is not None:
            return limit
    return None if chat or "max_tokens" in body else _DEFAULT_COMPLETION_TOKENS


def _number(body: Members, name: str) -> int | None:
    try:
        return _NUMBER.decode(body.get(name, _NULL))
    except msgspec.ValidationError:
        return None
