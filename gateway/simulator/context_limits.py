"""How long prompts and answers may be, and what vLLM says when they are longer."""

from gateway.simulator.api_errors import ApiError, invalid_body, invalid_value

_CHARACTERS_PER_TOKEN = 13
"""vLLM refuses longer texts before it tokenises them."""


class ContextLimits:
    """Checks against the longest context; each raises `ApiError` 400."""

    def __init__(self, max_len: int) -> None:
        """Allow prompt and answer `max_len` tokens together."""
        self._max_len = max_len

    def check_answer(self, limit: object) -> int:
        """Return `max_tokens` if an answer may be that long in any context."""
        if not isinstance(limit, int) or isinstance(limit, bool):
            raise invalid_body("Input should be a valid integer", "body.max_tokens")
        if limit < 1:
            raise invalid_value(f"max_tokens must be at least 1, got {limit}.", "max_tokens", limit)
        if limit > self._max_len:
            message = (
                f"max_tokens={limit} cannot be greater than max_model_len={self._max_len}. "
                "Please request fewer output tokens."
            )
            raise invalid_value(message, "max_tokens", limit)
        return limit

    def room(self, prompt: list[int]) -> int:
        """Return the tokens that an answer may have after this prompt."""
        if not prompt:
            message = "Either prompt or prompt_embeds must be provided and non-empty."
            raise ApiError(400, "BadRequestError", f"{message} (parameter=prompt)", "prompt")
        if len(prompt) >= self._max_len:
            message = (
                f"This model's maximum context length is {self._max_len} tokens. However, your "
                f"prompt contains {len(prompt)} input tokens, which exceeds this limit even "
                "without any output tokens. Please reduce the length of the input prompt."
            )
            raise invalid_value(message, "input_tokens", len(prompt))
        return self._max_len - len(prompt)

    def check_fit(self, prompt_tokens: int, room: int, limit: int) -> None:
        """Check an answer's length against the room after its prompt."""
        if limit <= room:
            return
        message = (
            f"This model's maximum context length is {self._max_len} tokens. However, you "
            f"requested {limit} output tokens and your prompt contains {prompt_tokens} input "
            "tokens. Please reduce the length of the input prompt or the number of requested "
            "output tokens."
        )
        raise invalid_value(message, "input_tokens", prompt_tokens)

    def check_characters(self, characters: int) -> None:
        """Check the length of a text before it is tokenised."""
        most = _CHARACTERS_PER_TOKEN * self._max_len
        if characters > most:
            message = (
                f"This model's maximum context length is {self._max_len} tokens. However, your "
                f"prompt contains {characters} characters (more than {most} characters, which is "
                f"the upper bound for {self._max_len} input tokens). Please reduce the length of "
                "the input prompt."
            )
            raise invalid_value(message, "input_text", characters)
