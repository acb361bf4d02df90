"""Answers in the making: they listen to the engine and write, or collect, its tokens."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gateway.simulator.answer_format import DONE, Choice, StreamFormat, http_chunk
from gateway.simulator.api_errors import ApiError, engine_dead
from gateway.simulator.api_requests import AnswerKind, GenerationRequest
from gateway.simulator.fault_switches import CutKind, FaultSwitches
from gateway.simulator.synthetic_language import END_OF_TEXT, SyntheticLanguage


class ByteSink(Protocol):
    """Where a stream's bytes go."""

    def write(self, data: bytes) -> None:
        """Send bytes, buffering what the peer does not take."""

    def reset(self) -> None:
        """Reset the connection."""


class AnswerTokens:
    """The tokens of one choice, made as they are needed.

    Attributes:
        length: how many there will be.
        finish_reason: `stop` if the answer ends by itself, else `length`.
    """

    __slots__ = ("_known", "_speaker", "finish_reason", "length")

    def __init__(self, language: SyntheticLanguage, request: GenerationRequest, index: int) -> None:
        """Decide the length of choice `index` (counted over all prompts)."""
        prompt, choice = divmod(index, request.choices)
        self._speaker = language.speaker(request.model, request.prompts[prompt], choice)
        self._known: list[int] = []
        self.length = request.max_tokens[prompt]
        self.finish_reason = "length"
        if request.may_end[prompt]:
            while len(self._known) < self.length:
                self._known.append(self._speaker.next_token(may_end=True))
                if self._known[-1] == END_OF_TEXT:
                    self.finish_reason = "stop"
                    break
            self.length = len(self._known)

    def first(self, count: int) -> list[int]:
        """Return the first `count` tokens."""
        while len(self._known) < count:
            self._known.append(self._speaker.next_token(may_end=False))
        return self._known[:count]

    def at(self, position: int) -> int:
        """Return the token at a position counted from 1."""
        if len(self._known) < position:
            self.first(position)
        return self._known[position - 1]


class WholeAnswer:
    """Waits for the ends of all choices."""

    def __init__(self, choices: int, done: asyncio.Future[None]) -> None:
        """Resolve `done` when so many choices have ended."""
        self._open = choices
        self.done = done

    def on_tokens(self, count: int) -> None:
        """Nothing is sent before the end."""

    def on_finished(self) -> None:
        """One choice ended."""
        self._open -= 1
        if not self._open and not self.done.done():
            self.done.set_result(None)

    def fail(self) -> None:
        """The engine died."""
        if not self.done.done():
            self.done.set_exception(engine_dead())


@dataclass(slots=True)
class StreamEnds:
    """What a stream calls when it ends.

    Attributes:
        done: resolved at its end; the transport is then the caller's again.
        on_finish_reason: hears why each choice ended.
    """

    done: asyncio.Future[None]
    on_finish_reason: Callable[[str], None]


class StreamedAnswer:
    """Writes events as tokens come. Bytes wait here until `attach` names the connection."""

    def __init__(
        self,
        *,
        request: GenerationRequest,
        form: StreamFormat,
        ends: StreamEnds,
        switches: FaultSwitches,
        bundled: bool,
    ) -> None:
        """Make a stream of `form`; `bundled` puts all tokens of a step into one event."""
        self.request = request
        self.form = form
        self.switches = switches
        self.bundled = bundled
        self._ends = ends
        self._sink: ByteSink | None = None
        self._waiting: list[bytes] = []
        self._open = request.choices * len(request.prompts)
        self._completion_tokens = 0

    def attach(self, sink: ByteSink) -> None:
        """Send to this connection from now on: the response's head is out."""
        self._sink = sink
        if self._waiting:
            sink.write(b"".join(self._waiting))
            self._waiting.clear()

    def send(self, events: list[bytes]) -> None:
        """Send events, each as one chunk, in one write."""
        data = b"".join(map(http_chunk, events))
        if self._sink is None:
            self._waiting.append(data)
        else:
            self._sink.write(data)

    def choice_ended(self, reason: str, tokens: int) -> None:
        """One choice sent its last event; after the last one come usage and the end mark."""
        self._ends.on_finish_reason(reason)
        self._completion_tokens += tokens
        self._open -= 1
        if self._open:
            return
        events = [self.form.usage(self._completion_tokens)] if self.request.include_usage else []
        self.send([*events, DONE])
        self._resolve()

    def fail(self, error: ApiError | None = None) -> None:
        """End with an error event; vLLM sends the end mark even then."""
        if not self._ends.done.done():
            self.send([(error or engine_dead()).event(), DONE])
            self._resolve()

    def reset(self) -> None:
        """Cut the connection without a word."""
        if self._sink is not None:
            self._sink.reset()
        self._resolve()

    @property
    def done(self) -> asyncio.Future[None]:
        """Resolved at the end."""
        return self._ends.done

    @property
    def ended(self) -> bool:
        """Whether nothing more will be sent."""
        return self._ends.done.done()

    def _resolve(self) -> None:
        if not self._ends.done.done():
            self._ends.done.set_result(None)


class StreamedChoice:
    """One choice of a streamed answer; listens to its engine request."""

    def __init__(self, answer: StreamedAnswer, index: int, tokens: AnswerTokens) -> None:
        """Make the choice with this index over all prompts."""
        self._answer = answer
        self._index = index
        self._tokens = tokens
        self._prefix = answer.form.prefix(index)
        self._sent = 0

    def on_tokens(self, count: int) -> None:
        """Send the new tokens; the last one of the answer comes with `on_finished`."""
        answer = self._answer
        if count <= self._sent or answer.ended:
            return
        events = self._role()
        if answer.bundled:
            tokens = self._tokens.first(count)[self._sent :]
            events.append(answer.form.tokens(self._prefix, tokens, self._index, count))
        else:
            events += [
                answer.form.token(self._prefix, self._tokens.at(position), self._index, position)
                for position in range(self._sent + 1, count + 1)
            ]
        self._sent = count
        answer.send(events)
        self._cut()

    def on_finished(self) -> None:
        """Send what is left, and the finish reason."""
        length = self._tokens.length
        if not self._answer.bundled:
            self.on_tokens(length - 1)
        answer = self._answer
        if answer.ended:
            return
        events = self._role()
        rest = self._tokens.first(length)[self._sent :]
        reason = self._tokens.finish_reason
        events.append(answer.form.last(self._prefix, rest, reason, self._index, length))
        self._sent = length
        answer.send(events)
        answer.choice_ended(reason, length)

    def _role(self) -> list[bytes]:
        if self._sent or self._answer.request.kind is not AnswerKind.CHAT:
            return []
        return [self._answer.form.role(self._index)]

    def _cut(self) -> None:
        match self._answer.switches.take_cut(self._sent):
            case CutKind.RESET:
                self._answer.reset()
            case CutKind.ERROR:
                self._answer.fail()
            case None:
                pass


def finished_choices(tokens: list[AnswerTokens]) -> list[Choice]:
    """Return all choices of an answer that is not streamed."""
    return [Choice(t.first(t.length), t.finish_reason) for t in tokens]
