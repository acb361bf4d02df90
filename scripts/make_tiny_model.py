# ruff: noqa: INP001 (a program, not a package)
"""Build a tiny chat model with LoRA adapters for vLLM, from seeded noise, without a download.

Usage: make_tiny_model.py FOLDER writes FOLDER/model (a Qwen2 of two layers) and
FOLDER/adapters/{a,b,c,d} (rank 8 on the attention projections). Needs numpy, safetensors and
tokenizers; scripts/test-engine runs it where they are.
"""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

ADAPTERS = ("a", "b", "c", "d")
LAYERS = 2
HIDDEN = 128
QUERY_HEADS = 4
KEY_VALUE_HEADS = 2
HEAD_DIM = HIDDEN // QUERY_HEADS  # 32: vLLM's CPU attention has no kernel for 16
CONTEXT_TOKENS = 4096
VOCABULARY = 512
RANK = 8
LOGITS_SCALE = 4.0
"""Standard deviation. The best token is then ahead by about 1, as in real models; with vLLM's
`--load-format dummy` all tokens are equally likely, to the last bit of a float32."""

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{%- if not (loop.last and continue_final_message | default(false)) -%}"
    "{{ '<|im_end|>\n' }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
# Enough words to fill the vocabulary: a token that the tokenizer does not know has no text.
CORPUS = (
    "hello world, how are you today? I am fine, thank you. And how is the weather where you are?",
    "The quick brown fox jumps over the lazy dog, and the dog answers the fox in a friendly way.",
    "A gateway forwards requests to many servers and streams the answers back to its clients.",
    "Some of them wait in a queue until a place becomes free; nobody should wait without reason.",
    "Once upon a time there was a small machine that could only speak in random words, and yet",
    "people listened with great pleasure, because every sentence sounded like distant thunder.",
    "system user assistant 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24",
    '{"role": "user", "content": "tell me a story", "numbers": [1, 2, 3]}\n\n',
)


def main(folder: Path) -> None:
    """Write the model and its adapters below `folder`."""
    write_model(folder / "model")
    for seed, name in enumerate(ADAPTERS, start=1):
        write_adapter(folder / "adapters" / name, seed=seed)


def write_model(folder: Path) -> None:
    """Write tokenizer, configuration and weights."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    token_ids = {
        "eos_token_id": tokenizer.token_to_id(END),
        "pad_token_id": tokenizer.token_to_id(PAD),
    }
    write_json(
        folder / "tokenizer_config.json",
        tokenizer_class="PreTrainedTokenizerFast",
        eos_token=END,
        pad_token=PAD,
        model_max_length=CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
    write_json(
        folder / "config.json",
        architectures=["Qwen2ForCausalLM"],
        model_type="qwen2",
        num_hidden_layers=LAYERS,
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_attention_heads=QUERY_HEADS,
        num_key_value_heads=KEY_VALUE_HEADS,
        max_position_embeddings=CONTEXT_TOKENS,
        vocab_size=tokenizer.get_vocab_size(),
        tie_word_embeddings=False,
        dtype="bfloat16",
        **token_ids,
    )
    write_json(folder / "generation_config.json", **token_ids)
    special = [tokenizer.token_to_id(token) for token in (PAD, START, END)]
    save_file(
        weights(tokenizer.get_vocab_size(), never_said=special),
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )


def weights(vocabulary: int, *, never_said: list[int]) -> dict[str, np.ndarray]:
    """Return noise that keeps the scale of what passes through; some tokens get no weight."""
    noise = np.random.default_rng(0)

    def matrix(out: int, into: int, scale: float = 1.0) -> np.ndarray:
        return noise.normal(scale=scale / into**0.5, size=(out, into)).astype(np.float32)

    ones = np.ones(HIDDEN, np.float32)
    head = matrix(vocabulary, HIDDEN, LOGITS_SCALE)
    head[never_said] = 0
    tensors = {
        "model.embed_tokens.weight": matrix(vocabulary, HIDDEN, HIDDEN**0.5),
        "model.norm.weight": ones,
        "lm_head.weight": head,
    }
    heads = {"q": QUERY_HEADS, "k": KEY_VALUE_HEADS, "v": KEY_VALUE_HEADS}
    for number in range(LAYERS):
        layer = f"model.layers.{number}"
        for name, count in heads.items():
            projection = f"{layer}.self_attn.{name}_proj"
            tensors[f"{projection}.weight"] = matrix(count * HEAD_DIM, HIDDEN)
            tensors[f"{projection}.bias"] = np.zeros(count * HEAD_DIM, np.float32)
        tensors |= {
            f"{layer}.self_attn.o_proj.weight": matrix(HIDDEN, QUERY_HEADS * HEAD_DIM),
            f"{layer}.mlp.gate_proj.weight": matrix(2 * HIDDEN, HIDDEN),
            f"{layer}.mlp.up_proj.weight": matrix(2 * HIDDEN, HIDDEN),
            f"{layer}.mlp.down_proj.weight": matrix(HIDDEN, 2 * HIDDEN),
            f"{layer}.input_layernorm.weight": ones,
            f"{layer}.post_attention_layernorm.weight": ones,
        }
    return tensors


def train_tokenizer() -> Tokenizer:
    """Return a byte-level BPE: every text can be written, whatever the corpus."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([line for line in CORPUS for _ in range(4)], trainer)
    return tokenizer


def write_adapter(folder: Path, *, seed: int) -> None:
    """Write a LoRA adapter strong enough to change what a greedy answer says."""
    folder.mkdir(parents=True, exist_ok=True)
    query_width, key_value_width = QUERY_HEADS * HEAD_DIM, KEY_VALUE_HEADS * HEAD_DIM
    widths = {  # projection -> (in, out)
        "q_proj": (HIDDEN, query_width),
        "k_proj": (HIDDEN, key_value_width),
        "v_proj": (HIDDEN, key_value_width),
        "o_proj": (query_width, HIDDEN),
    }
    noise = np.random.default_rng(seed)
    tensors = {}
    for layer in range(LAYERS):
        for projection, (width_in, width_out) in widths.items():
            name = f"base_model.model.model.layers.{layer}.self_attn.{projection}"
            for half, shape in (("lora_A", (RANK, width_in)), ("lora_B", (width_out, RANK))):
                weights = noise.normal(scale=0.5, size=shape)
                tensors[f"{name}.{half}.weight"] = weights.astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    write_json(
        folder / "adapter_config.json",
        peft_type="LORA",
        task_type="CAUSAL_LM",
        base_model_name_or_path="model",
        r=RANK,
        lora_alpha=2 * RANK,
        lora_dropout=0.0,
        bias="none",
        target_modules=sorted(widths),
    )


def write_json(path: Path, **values: object) -> None:
    """Write `values` as one JSON object."""
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
