"""Training: the curriculum as data and one loop for all of its steps."""

from mi2v_lite.training.curriculum import Config, Step, load_config

__all__ = ["Config", "Step", "load_config"]
