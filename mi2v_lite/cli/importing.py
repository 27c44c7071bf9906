"""`mi2v import`: turns published checkpoints into one pipeline folder (notebook 06)."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import common

FULL = Path(__file__).parents[1] / "configs" / "full.yaml"


def add(commands: argparse._SubParsersAction) -> None:
    """Registers `import`."""
    parser = commands.add_parser(
        "import",
        help="turn published checkpoints into a pipeline",
        description="Makes a pipeline folder from local files: Motion-I2V's release (--release), or Stable Diffusion "
        "1.5 and AnimateDiff v2 (--sd, --motion-module) to start a training from. Files given beside --release "
        "replace those of the release. If a file does not fit, it is named and nothing is written.",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--release", type=Path, metavar="DIR", help="Motion-I2V's release: the folder that holds models/"
    )
    parser.add_argument(
        "--sd", type=Path, metavar="PATH", help="Stable Diffusion 1.5: a diffusers folder or a single file"
    )
    parser.add_argument(
        "--motion-module", type=Path, metavar="PATH", help="AnimateDiff v2: a .ckpt or a MotionAdapter folder"
    )
    parser.add_argument(
        "--dreambooth", type=Path, metavar="PATH", help="a fine-tuned UNet for Stage 2, in any of these layouts"
    )
    parser.add_argument("--vae", type=Path, metavar="PATH", help="another image autoencoder")
    parser.add_argument("--stage1-unet", type=Path, metavar="PATH", help="a UNet of Stage 1 in the release's layout")
    parser.add_argument(
        "--controlnet", type=Path, metavar="PATH", help="a ControlNet of Stage 1 in the release's layout"
    )
    parser.add_argument("--flow-vae", type=Path, metavar="PATH", help="a flow autoencoder in the release's layout")
    parser.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="a CLIP tokenizer, needed if --sd is a single file"
    )
    parser.add_argument(
        "--dtype",
        choices=("float16", "bfloat16", "float32"),
        default="float16",
        help="precision of the weights that are written (default: float16)",
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=FULL,
        metavar="YAML",
        help="the curriculum that says the sizes (default: full.yaml)",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="the folder to make")


def run(options: argparse.Namespace) -> None:
    """Runs `mi2v import`, and prints what came from where; the report is in the folder too."""
    from mi2v_lite.training.curriculum import load_config

    config = load_config(options.config)
    common.check_folder(options.output.parent)
    from mi2v_lite.importing import Sources, import_pipeline, report_text

    given = ("release", "motion_module", "dreambooth", "vae", "flow_vae", "stage1_unet", "controlnet", "tokenizer")
    sources = Sources(stable_diffusion=options.sd, **{name: getattr(options, name) for name in given})
    print(report_text(import_pipeline(config, sources, options.output, options.dtype)))
    print(f"wrote {options.output}")
