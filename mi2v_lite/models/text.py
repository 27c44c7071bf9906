"""From prompts to embeddings: the tokenizer and the small CLIP text encoder of the lite model.

The embeddings are the text condition of Motion-I2V (sections 3.1 and 3.2). The full model uses the CLIP ViT-L of Stable
Diffusion 1.5. The lite model uses the same two classes, `transformers.CLIPTokenizer` and `transformers.CLIPTextModel`,
with smaller sizes, so that `encode_text` works for both.

The vocabulary of the lite model is a byte-level BPE in CLIP's own file format (vocab.json and merges.txt). It contains
all 256 bytes, so that every prompt can be tokenized, and it makes one token of each word in a list about things that
move.
"""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
LITE_TOKENS = 32
SHOWN = 200  # characters of what was cut off a prompt, in the warning
# These sizes make 0.6 million parameters, which is enough for a language of a few hundred words.
LITE_TEXT_CONFIG = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": LITE_TOKENS,
    "projection_dim": 128,
}


def make_text_encoder(config: dict) -> CLIPTextModel:
    """Make a text encoder with random weights.

    Args:
        config: fields of `transformers.CLIPTextConfig`, which replace those of `LITE_TEXT_CONFIG`. `vocab_size`, the
            length of the tokenizer, is required. The ids of the start and of the end are by default the last two of
            the vocabulary, as in CLIP.

    Returns:
        The encoder, whose `last_hidden_state` is (B, tokens, hidden_size).

    Raises:
        ValueError: if the config has no `vocab_size`.
    """
    if "vocab_size" not in config:
        raise ValueError("the text encoder's config has no vocab_size; give vocab_size=len(tokenizer).")
    size = config["vocab_size"]
    ids = {"bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": size - 1}
    return CLIPTextModel(CLIPTextConfig(**{**LITE_TEXT_CONFIG, **ids, **config}))


def encode_text(tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, prompts: str | list[str]) -> torch.Tensor:
    """Encode prompts as the context of cross-attention.

    All prompts are padded to the full length of the model, 32 tokens for lite and 77 for Stable Diffusion 1.5. As in
    Stable Diffusion there is no attention mask, so that the padding is attended to as well. A prompt that is too long
    is cut, with a warning that names the part that was cut off.

    Args:
        tokenizer: of the same model as the encoder.
        text_encoder: gradients reach it, so call this function under `torch.no_grad` if it is frozen.
        prompts: one or more strings; "" is the unconditional prompt.

    Returns:
        (B, tokens, hidden_size), on the device and in the dtype of the encoder.

    Raises:
        ValueError: if a prompt is not a string, or the tokenizer has more entries than the encoder.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise ValueError(f"prompts must be one or more strings, got {prompts!r}; give '' for no prompt.")
    if len(tokenizer) > text_encoder.config.vocab_size:
        raise ValueError(
            f"tokenizer has {len(tokenizer)} entries but the text encoder {text_encoder.config.vocab_size}; "
            "load both from the same model folder."
        )
    # From the command line there may be lone surrogates, which are not valid Unicode; they become "?".
    prompts = [prompt.encode("utf-8", "replace").decode("utf-8") for prompt in prompts]
    length = min(tokenizer.model_max_length, text_encoder.config.max_position_embeddings)
    ids = tokenizer(prompts, padding="max_length", truncation=True, max_length=length, return_tensors="pt").input_ids
    _warn_if_cut(tokenizer, prompts, length)
    return text_encoder(input_ids=ids.to(text_encoder.device)).last_hidden_state


def _warn_if_cut(tokenizer: CLIPTokenizer, prompts: list[str], length: int) -> None:
    """Warn if a prompt has more tokens than fit into `length`."""
    for prompt in prompts:
        # Byte-level BPE never makes more tokens than there are bytes, so short prompts need no second pass.
        if len(prompt.encode("utf-8")) + 2 <= length:
            continue
        full = tokenizer(prompt, truncation=False, verbose=False).input_ids
        if len(full) > length:
            cut = tokenizer.decode(full[length - 1 : -1])
            cut = cut if len(cut) <= SHOWN else f"{cut[:SHOWN]}..."
            warnings.warn(
                f"the prompt has {len(full)} tokens, the model reads {length}; this part was cut off: {cut!r}",
                stacklevel=3,
            )


def _learn_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Byte-pair encoding (Sennrich et al. 2016) run until every word is one token.

    Ties go to the alphabetically first pair, so the result is the same on every machine.

    Args:
        words: lower case ASCII words.

    Returns:
        The merges in the order of their rank; `</w>` marks the end of a word, as in CLIP.
    """
    pieces = [[*word[:-1], word[-1] + "</w>"] for word in sorted(set(words))]
    merges: list[tuple[str, str]] = []
    while True:
        counts = Counter(pair for piece in pieces for pair in pairwise(piece))
        if not counts:
            return merges
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        pieces = [_merge(piece, best) for piece in pieces]


def _merge(piece: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for symbol in piece:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged


def build_tokenizer(folder: str | Path, words: Iterable[str]) -> CLIPTokenizer:
    """Write a tokenizer of the lite model's kind into `folder` and return it.

    The ids are those of 256 bytes, of the same 256 with `</w>`, of the merges, and of start and end. A prompt has at
    most 32 tokens.

    Args:
        folder: is made if it is missing; it gets vocab.json, merges.txt and the files of transformers, so that
            `CLIPTokenizer.from_pretrained(folder)` loads it.
        words: which words are single tokens; `tools/vocabulary.py` has those of the lite model.

    Returns:
        The tokenizer.

    Raises:
        ValueError: if a word is not made of lower case ASCII letters.
    """
    words = sorted(set(words))
    for word in words:
        if not re.fullmatch("[a-z]+", word):
            raise ValueError(f"word {word!r} is not made of lower case letters a-z; split or respell it.")
    merges = _learn_merges(words)
    alphabet = sorted(ByteLevel.alphabet())
    # Two merges can make the same string ("ro"+"ll", "r"+"oll"); dict.fromkeys keeps one entry.
    symbols = dict.fromkeys([*alphabet, *(a + "</w>" for a in alphabet), *(a + b for a, b in merges), START, END])
    vocab = {symbol: index for index, symbol in enumerate(symbols)}

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LITE_TOKENS)
    tokenizer.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tokenizer
