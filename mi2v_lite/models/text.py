"""Prompts to embeddings: the tokenizer and the small CLIP text encoder of the lite model.

The full model uses Stable Diffusion 1.5's CLIP ViT-L; the lite model uses the same two classes
(`transformers.CLIPTokenizer`, `transformers.CLIPTextModel`) with other sizes, so `encode_text` serves both.

The lite vocabulary is a byte-level BPE in CLIP's own file format (vocab.json, merges.txt): all 256 bytes, so every
prompt tokenizes, and the merges of a list of words about things that move. BPE runs until each listed word
is one token. Serves the text conditioning c of Motion-I2V, Sections 3.1 and 3.2.
"""

from __future__ import annotations

import warnings

import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
LITE_TOKENS = 32
# hidden 128 and 2 layers: 0.6 M parameters, enough for a language of a few hundred words.
LITE_TEXT_CONFIG = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": LITE_TOKENS,
    "projection_dim": 128,
}


def make_text_encoder(config: dict) -> CLIPTextModel:
    """A CLIPTextModel with random weights.

    config: fields of `transformers.CLIPTextConfig` over the lite sizes; `vocab_size` (= len(tokenizer)) is needed.
    The start and end ids default to the last two of the vocabulary, where CLIP and `build_tokenizer` put them.
    Output `last_hidden_state`: (B, tokens, hidden_size). Errors: ValueError without vocab_size.
    """
    if "vocab_size" not in config:
        raise ValueError("text encoder config has no vocab_size; give vocab_size=len(tokenizer).")
    size = config["vocab_size"]
    ids = {"bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": size - 1}
    return CLIPTextModel(CLIPTextConfig(**{**LITE_TEXT_CONFIG, **ids, **config}))


def encode_text(tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, prompts: str | list[str]) -> torch.Tensor:
    """Prompts to cross-attention context, (B, tokens, dim) on the encoder's device and in its dtype.

    prompts: one or more strings; "" is the unconditional prompt. All are padded to the model's full length (32 lite,
    77 SD 1.5). No attention mask is used: Stable Diffusion attends to the padding too.
    A longer prompt is cut, with a warning that names the part cut off. Gradients flow: wrap in no_grad when frozen.
    Errors: ValueError when the tokenizer has more entries than the encoder, or a prompt is no string.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise ValueError(f"prompts must be one or more strings, got {prompts!r}; use '' for no prompt.")
    if len(tokenizer) > text_encoder.config.vocab_size:
        raise ValueError(
            f"tokenizer has {len(tokenizer)} entries but the text encoder {text_encoder.config.vocab_size}; "
            "load both from the same model folder."
        )
    # The command line can hand over lone surrogates, which are no valid Unicode; they become "?".
    prompts = [prompt.encode("utf-8", "replace").decode("utf-8") for prompt in prompts]
    length = min(tokenizer.model_max_length, text_encoder.config.max_position_embeddings)
    ids = tokenizer(prompts, padding="max_length", truncation=True, max_length=length, return_tensors="pt").input_ids
    _warn_if_cut(tokenizer, prompts, length)
    return text_encoder(input_ids=ids.to(text_encoder.device)).last_hidden_state


def _warn_if_cut(tokenizer: CLIPTokenizer, prompts: list[str], length: int) -> None:
    for prompt in prompts:
        # Byte-level BPE never makes more tokens than bytes: skip the second pass for short prompts.
        if len(prompt.encode("utf-8")) + 2 <= length:
            continue
        full = tokenizer(prompt, truncation=False, verbose=False).input_ids
        if len(full) > length:
            cut = tokenizer.decode(full[length - 1 : -1])
            warnings.warn(
                f"the prompt has {len(full)} tokens, the model reads {length}; this part was cut off: {cut!r}",
                stacklevel=3,
            )
