"""Makes events of a streamed answer in the form that its first server gave them."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

from gateway.wire.json_shapes import StreamEvent

DONE: Final = b"data: [DONE]\n\n"


class AnswerEvents:
    """Events with the id and the time of one answer, and the model that the client asked for."""

    def __init__(self, *, chat: bool, tells_ids: bool, model: Raw) -> None:
        """Make events of nothing yet.

        Args:
            chat: the answer is one of /v1/chat/completions, else of /v1/completions.
            tells_ids: whether the client wants token ids.
            model: as the client named it, in JSON; its server may know it by another name.
        """
        self._chat = chat
        self._tells_ids = tells_ids
        self._model = model
        self._head: dict[str, Any] = {}

    def learn(self, event: StreamEvent) -> None:
        """Take over what is the same in all events from the first of them."""
        if not self._head:
            kind = "chat.completion.chunk" if self._chat else "text_completion"
            self._head = {
                "id": event.id,
                "object": kind,
                "created": event.created,
                "model": self._model,
            }

    def text(
        self,
        text: object,
        finish_reason: object,
        stop_reason: object,
        *,
        ids: Sequence[int] = (),
        prompt_ids: Sequence[int] | None = None,
    ) -> bytes:
        """An event with a piece of the answer, its token ids and, for the first, the prompt's."""
        choice: dict[str, Any] = {"index": 0}
        members: dict[str, Any] = {"choices": [choice]}
        if self._chat:
            choice |= {"delta": {"content": text}, "logprobs": None, "finish_reason": finish_reason}
            if finish_reason is not None:
                choice["stop_reason"] = stop_reason
            if prompt_ids is not None:
                members["prompt_token_ids"] = prompt_ids
        else:
            choice |= {
                "text": text,
                "logprobs": None,
                "finish_reason": finish_reason,
                "stop_reason": stop_reason,
                "prompt_token_ids": prompt_ids,
            }
        choice["token_ids"] = ids if self._tells_ids else None
        return self._event(members)

    def usage(self, prompt_tokens: int, completion_tokens: int, fingerprint: object) -> bytes:
        """The event with the usage of the whole answer."""
        usage = {
            "prompt_tokens": prompt_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "completion_tokens": completion_tokens,
            "prompt_tokens_details": None,
        }
        extra = {"system_fingerprint": fingerprint} if fingerprint else {}
        return self._event({"choices": [], "usage": usage} | extra)

    def _event(self, members: dict[str, Any]) -> bytes:
        return b"data: %b\n\n" % msgspec.json.encode(self._head | members)
