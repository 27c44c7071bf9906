"""The former name of `mi2v_lite.training.step_models`, for programs that still use it."""

from mi2v_lite.training.step_models import build_models, load_model, load_tokenizer, make_scheduler, newest

__all__ = ["build_models", "load_model", "load_tokenizer", "make_scheduler", "newest"]
