"""`mi2v import`: published checkpoints to one pipeline folder (notebook 06)."""

from __future__ import annotations

import argparse
from pathlib import Path

FULL = Path(__file__).parents[1] / "configs" / "full.yaml"


def add(commands: argparse._SubParsersAction) -> None:
    """Register `import`."""
    each = commands.add_parser(
        "import",
        help="published checkpoints to a pipeline",
        description="Makes a pipeline folder from local files: Motion-I2V's release (--release), or Stable Diffusion "
        "1.5 and AnimateDiff v2 (--sd, --motion-module) as a start for training. What is given beside --release "
        "replaces that part of it. A file that does not fit is named, and nothing is written.",
    )
    each.set_defaults(run=run)
    each.add_argument("--release", type=Path, metavar="DIR", help="Motion-I2V's release, the folder with models/")
    each.add_argument("--sd", type=Path, metavar="PATH", help="Stable Diffusion 1.5: a diffusers folder or one file")
    each.add_argument(
        "--motion-module", type=Path, metavar="PATH", help="AnimateDiff v2: a .ckpt or a MotionAdapter folder"
    )
    each.add_argument("--dreambooth", type=Path, metavar="PATH", help="a fine-tuned UNet for Stage 2, in any layout")
    each.add_argument("--vae", type=Path, metavar="PATH", help="another autoencoder for pictures")
    each.add_argument("--stage1-unet", type=Path, metavar="PATH", help="the release's, or one trained in its layout")
    each.add_argument("--controlnet", type=Path, metavar="PATH", help="of Stage 1, likewise")
    each.add_argument("--flow-vae", type=Path, metavar="PATH", help="the autoencoder for motion, likewise")
    each.add_argument("--tokenizer", type=Path, metavar="DIR", help="needed where --sd is one file")
    each.add_argument(
        "--dtype", choices=("float16", "bfloat16", "float32"), default="float16", help="of the weights (float16)"
    )
    each.add_argument("--config", type=Path, default=FULL, metavar="YAML", help="the sizes (default: full.yaml)")
    each.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="the folder to make")


def run(options: argparse.Namespace) -> None:
    """`mi2v import`; prints what came from where, which is in the folder too.

    Raises:
        ValueError: see `importing.import_pipeline`.
    """
    from mi2v_lite.training.curriculum import load_config

    config = load_config(options.config)
    from mi2v_lite.importing import Sources, import_pipeline, report_text

    given = ("release", "motion_module", "dreambooth", "vae", "flow_vae", "stage1_unet", "controlnet", "tokenizer")
    sources = Sources(stable_diffusion=options.sd, **{name: getattr(options, name) for name in given})
    print(report_text(import_pipeline(config, sources, options.output, options.dtype)))
    print(f"wrote {options.output}")
