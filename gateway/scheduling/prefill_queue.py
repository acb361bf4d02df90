"""Where one server's engine stands in its prefills, step by step, as far as its chunks show.

The engine prefills first come first served, at most `room` tokens a step. A chunk from any of its
streams marks the end of a step; between chunks the model's own step times carry the state on.
A request that is dispatched during a step joins the next one.
"""


class PrefillQueue:
    """The step under way on one server, and the prefill that waits.

    Attributes:
        step_began_at: when the step under way began.
        in_step: prefill tokens the engine knew of then, those beyond the step's room included.
        after: tokens that came since.
        taken: tokens prefilled so far.
    """

    __slots__ = ("after", "in_step", "step_began_at", "taken")

    def __init__(self) -> None:
        """Start idle."""
        self.step_began_at = 0.0
        self.in_step = 0
        self.after = 0
        self.taken = 0

    def add(self, tokens: int, *, now: float, busy: bool) -> None:
        """A request was dispatched; an idle engine begins a step with it at once."""
        if busy:
            self.after += tokens
        else:
            self.step_began_at = now
            self.in_step = tokens
            self.after = 0

    def remove(self, tokens: int) -> None:
        """A request left before its first token."""
        after = min(tokens, self.after)
        self.after -= after
        self.in_step = max(0, self.in_step - (tokens - after))

    def first_token_seen(self, unfinished_tokens: int, *, now: float, room: int) -> None:
        """A step ended `now` and finished a prompt; call chunk_seen before.

        Of the prompts still without a first token, `unfinished_tokens` together, at most a step's
        `room` can have been prefilled in part, since the engine goes first come first served.
        """
        pending = self.in_step + self.after
        left = max(unfinished_tokens - room, min(pending, unfinished_tokens))
        self.taken += pending - left
        self.step_began_at = now
        self.in_step = left
        self.after = 0

    def chunk_seen(self, at: float, *, base_s: float, per_token_s: float, room: int) -> None:
        """A step ended at `at`; let the steps that fit before it consume their prefill.

        Args:
            at: when the chunk arrived.
            base_s: seconds of a step without prefill.
            per_token_s: seconds per prefill token.
            room: prefill tokens that fit into a step, >= 1.
        """
        if at <= self.step_began_at:
            return
        began_at = self.step_began_at
        while self.in_step or self.after:
            tokens = min(room, self.in_step)
            step_s = base_s + per_token_s * tokens
            if began_at + step_s > at + step_s / 2:
                break
            began_at += step_s
            self.in_step += self.after - tokens
            self.after = 0
            self.taken += tokens
        self.step_began_at = at

    def ahead_of(
        self, own_tokens: int, now: float, base_s: float, per_token_s: float, room: int
    ) -> tuple[float, int, int]:
        """What a request of `own_tokens` would wait for if it reached a busy engine at `now`.

        Returns:
            Seconds that the step under way has taken already, steps that have to end, that one
            included, and the prefill tokens in them.
        """
        in_step = self.in_step
        behind = 0
        if in_step > room:
            in_step, behind = room, in_step - room
        step_s = base_s + per_token_s * in_step
        elapsed_s = now - self.step_began_at
        if elapsed_s > step_s:
            # The step has outrun its forecast: a prefill is about to end, decoding just goes on.
            elapsed_s = step_s - 0.1 * base_s if in_step else elapsed_s % base_s
        rest = behind + self.after + own_tokens
        return elapsed_s, 1 - (-rest // room), in_step + rest
