"""An OpenAI-compatible gateway that schedules requests over pools of vLLM servers."""
