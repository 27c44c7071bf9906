"""The tokenizer and the small text encoder of the lite model."""

import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTextModel, CLIPTokenizer

from mi2v_lite.models import text
from tools import vocabulary

SHIPPED = Path(text.__file__).parents[1] / "weights" / "tokenizer"


@pytest.fixture(scope="module")
def tokenizer():
    return CLIPTokenizer.from_pretrained(SHIPPED)


@pytest.fixture(scope="module")
def encoder(tokenizer):
    torch.manual_seed(0)
    return text.make_text_encoder({"vocab_size": len(tokenizer)}).eval()


def test_shipped_files_are_what_the_code_builds(tmp_path):
    text.build_tokenizer(tmp_path, vocabulary.vocabulary_words())
    for name in ("vocab.json", "merges.txt"):
        assert (tmp_path / name).read_bytes() == (SHIPPED / name).read_bytes()


def test_known_words_are_single_tokens(tokenizer):
    words = vocabulary.vocabulary_words()
    assert {"left", "right", "camera", "balloon", "slowly", "purple"} <= set(words)
    assert [word for word in words if len(tokenizer.tokenize(word)) != 1] == []


PROMPTS = ["a red balloon floats up", "Drôle de 漢字 🎈!", "x\u0000y\u200b", "", "  \n\t ", "१२"]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_any_prompt_tokenizes_and_comes_back(tokenizer, prompt):
    check_round_trip(tokenizer, prompt)


@given(prompt=st.text(max_size=40))
@settings(deadline=None, max_examples=100)
def test_any_unicode_tokenizes(tokenizer, prompt):
    check_round_trip(tokenizer, prompt)


def check_round_trip(tokenizer, prompt):
    backend = tokenizer.backend_tokenizer
    ids = tokenizer(prompt, verbose=False).input_ids
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert ids[0] == start and ids[-1] == end
    assert end not in ids[1:-1], "an unknown byte became the end token"
    # The tokens hold every byte of the normalised text, blanks aside.
    alphabet = byte_of_symbol()
    symbols = "".join(token.removesuffix("</w>") for token in tokenizer.convert_ids_to_tokens(ids[1:-1]))
    read = bytes(alphabet[symbol] for symbol in symbols).decode("utf-8")
    normal = backend.normalizer.normalize_str(prompt)
    # Python calls the four separators 0x1c to 0x1f blanks, Unicode (and the tokenizer) does not.
    assert read == "".join(c for c in normal if not c.isspace() or c in "\x1c\x1d\x1e\x1f")


def byte_of_symbol():
    """GPT-2's map between bytes and printable symbols, the other way round."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in kept]
    return {chr(b): b for b in kept} | {chr(256 + i): b for i, b in enumerate(rest)}


def test_tokenizer_survives_save_and_load(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    prompt = "a blue kite drifts left 🪁"
    assert again(prompt).input_ids == tokenizer(prompt).input_ids
    assert again.model_max_length == 32


def test_encoder_survives_save_and_load(tokenizer, encoder, tmp_path):
    encoder.save_pretrained(tmp_path)
    again = CLIPTextModel.from_pretrained(tmp_path).eval()
    prompts = ["a snail creeps right", ""]
    torch.testing.assert_close(
        text.encode_text(tokenizer, again, prompts), text.encode_text(tokenizer, encoder, prompts)
    )


def test_end_ids_fit_the_tokenizer(tokenizer, encoder):
    config = encoder.config
    assert (config.bos_token_id, config.eos_token_id) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert tokenizer.pad_token_id == config.pad_token_id


def test_left_and_right_differ(tokenizer, encoder):
    left, right = text.encode_text(tokenizer, encoder, ["the car moves left", "the car moves right"])
    assert left.shape == (32, 128)
    assert (left - right).abs().max() > 0.1
    # Causal attention: the common words before are the same.
    torch.testing.assert_close(left[:4], right[:4])


def test_item_does_not_depend_on_its_batch(tokenizer, encoder):
    prompts = ["up", "a very small green frog hops over two stones", ""]
    both = text.encode_text(tokenizer, encoder, prompts)
    for item, prompt in zip(both, prompts, strict=True):
        torch.testing.assert_close(item[None], text.encode_text(tokenizer, encoder, prompt), atol=1e-5, rtol=0)


def test_long_prompt_is_cut_with_a_warning(tokenizer, encoder):
    kept, lost = "red " * 30, "balloon floats away"
    with pytest.warns(UserWarning, match="balloon floats away"):
        cut = text.encode_text(tokenizer, encoder, kept + lost)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(cut, text.encode_text(tokenizer, encoder, kept))


def test_gradient_reaches_the_word(tokenizer, encoder):
    encoder.zero_grad()
    text.encode_text(tokenizer, encoder, "left").sum().backward()
    grad = encoder.get_input_embeddings().weight.grad
    assert grad[tokenizer.convert_tokens_to_ids("left</w>")].abs().sum() > 0
    assert grad[tokenizer.convert_tokens_to_ids("right</w>")].abs().sum() == 0


def test_same_function_serves_a_clip_of_other_size():
    tokenizer = CLIPTokenizer.from_pretrained(SHIPPED, model_max_length=77)
    config = {"vocab_size": len(tokenizer) + 100, "hidden_size": 48, "max_position_embeddings": 77}
    encoder = text.make_text_encoder(config)
    assert text.encode_text(tokenizer, encoder, ["up", ""]).shape == (2, 77, 48)


def test_lone_surrogates_of_a_command_line_are_read(tokenizer, encoder):
    assert text.encode_text(tokenizer, encoder, "caf\udce9").shape == (1, 32, 128)


def test_errors_say_what_to_do(tokenizer, encoder, tmp_path):
    with pytest.raises(ValueError, match="vocab_size"):
        text.make_text_encoder({})
    with pytest.raises(ValueError, match="strings"):
        text.encode_text(tokenizer, encoder, [])
    with pytest.raises(ValueError, match="strings"):
        text.encode_text(tokenizer, encoder, [None])
    with pytest.raises(ValueError, match="same model folder"):
        text.encode_text(tokenizer, text.make_text_encoder({"vocab_size": 40}), "up")
    with pytest.raises(ValueError, match="letters"):
        text.build_tokenizer(tmp_path, ["ice cream"])
