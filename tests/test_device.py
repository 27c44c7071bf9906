"""The package on a device: the CPU always, and a GPU where there is one (`tools/gpu check` runs these tests there).

Float32 is compared with TF32 switched off; what is compared is always the same computation on the CPU in float32.
"""

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from test_trainer import curriculum, fill

from mi2v_lite import MotionControl, MotionI2VPipeline
from mi2v_lite.control import Drag
from mi2v_lite.flow.splat_cache import SplatCache
from mi2v_lite.flow.warp import SplatOperator, splat_average
from mi2v_lite.models.autoencoder import decode, encode
from mi2v_lite.training.draws import Draws
from mi2v_lite.training.objectives import OBJECTIVES, make_task
from mi2v_lite.training.step_models import build_models
from mi2v_lite.training.trainer import train, trainable_parameters

pytestmark = pytest.mark.device
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
DEVICES = ["cpu", pytest.param("cuda", marks=NO_GPU)]
# How far a result may be from the CPU's in float32, as a share of the result's root mean square.
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
SIZE, FRAMES = 64, 4


@pytest.fixture(scope="module", autouse=True)
def exact_products():
    """TF32 off, on a GPU."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


@pytest.fixture(scope="module")
def pipe() -> MotionI2VPipeline:
    pipe = MotionI2VPipeline.from_lite(detail="none")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    ramp = torch.linspace(0, 255, SIZE).byte()
    colours = torch.stack([ramp.expand(SIZE, SIZE), ramp[:, None].expand(SIZE, SIZE), (ramp[:, None] ^ ramp)], dim=-1)
    return Image.fromarray(colours.numpy())


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_near(result: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    """The root mean square error is small beside the result."""
    error = (result.detach().float().cpu() - expected.detach().float()).square().mean().sqrt()
    size = expected.detach().float().square().mean().sqrt()
    assert error <= TOLERANCES[dtype] * size, f"off by {error / size:.2g} of the result, at most {TOLERANCES[dtype]}"


@pytest.mark.parametrize("device", DEVICES)
def test_splat_operator_is_the_scatter(device):
    flow, features = 3 * noise(2, FRAMES, 2, 24, 40), noise(2, 16, 24, 40, seed=1)
    expected = torch.stack([splat_average(features, flow[:, i])[0] for i in range(FRAMES)], dim=1)
    assert_near(SplatOperator(flow.to(device))(features.to(device)), expected, torch.float32)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("device", DEVICES)
def test_networks(pipe, device, dtype):
    side = SIZE // 8
    time, text = torch.tensor([500]), noise(1, 32, pipe.motion_unet.config.cross_attention_dim)
    stride = torch.arange(1, FRAMES)[None] * 8
    sample1 = noise(1, pipe.motion_unet.config.in_channels, FRAMES - 1, side, side)
    sample2 = noise(1, pipe.animation_unet.config.in_channels, FRAMES, side, side)
    condition = noise(1, pipe.controlnet.config.condition_channels, FRAMES - 1, side, side)
    flow, picture = 3 * noise(1, FRAMES - 1, 2, SIZE, SIZE), noise(1, 3, SIZE, SIZE).tanh()

    def run(device: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        # bfloat16 would round the shared weights for good, so copies go to the device.
        names = ("motion_unet", "controlnet", "animation_unet", "vae")
        stage1, controlnet, stage2, vae = (copy.deepcopy(getattr(pipe, name)).to(device, dtype) for name in names)
        x1, x2, c, t, p = (tensor.to(device, dtype) for tensor in (sample1, sample2, condition, text, picture))
        at, steps = time.to(device), stride.to(device)
        with torch.no_grad():
            down, mid = controlnet(x1, at, t, c, stride=steps)
            latents = encode(vae, p)
            return {
                "Stage 1": stage1(x1, at, t, stride=steps, down_residuals=down, mid_residual=mid),
                "Stage 2": stage2(x2, at, t, flow=flow.to(device)),
                "encoder": latents,
                "decoder": decode(vae, latents),
            }

    expected, result = run("cpu", torch.float32), run(device, dtype)
    for name in expected:
        assert_near(result[name], expected[name], dtype)


@pytest.mark.parametrize("device", DEVICES)
def test_a_clip_is_that_of_the_cpu(pipe, photo, device):
    control = MotionControl(size=photo.size, drags=[Drag([(20, 30), (34, 30)])])
    side = SIZE // 8
    start1 = noise(1, pipe.motion_unet.config.out_channels, FRAMES - 1, side, side)
    start2 = noise(1, pipe.animation_unet.config.in_channels, FRAMES, side, side, seed=1)

    def run(device: str) -> tuple[torch.Tensor, torch.Tensor]:
        pipe.to(device)
        options = {"height": SIZE, "width": SIZE, "num_inference_steps": 4, "guidance_scale": 2.0}
        motion = pipe.predict_motion(
            photo, "the camera pans left", control, num_frames=FRAMES, latents=start1, **options
        )
        clip = pipe.render(photo, motion, "the camera pans left", latents=start2, output_type="pt", **options)
        return motion.flow, clip.frames

    expected = run("cpu")
    result = run(device)
    pipe.to("cpu")
    for ours, theirs in zip(result, expected, strict=True):
        assert_near(ours, theirs, torch.float32)


@NO_GPU
def test_the_sampling_loop_never_waits_for_the_gpu(pipe, photo):
    """From the first step on, both stages only hand out work; the callback switches the guard on and off."""

    def guard(_, i, timestep, tensors):
        torch.cuda.set_sync_debug_mode("error" if i + 1 < steps else "default")
        return tensors

    steps = 4
    control = MotionControl(size=photo.size, drags=[Drag([(20, 30), (34, 30)])])
    options = {"height": SIZE, "width": SIZE, "num_inference_steps": steps, "callback_on_step_end": guard}
    pipe.to("cuda")
    try:
        motion = pipe.predict_motion(photo, "", control, num_frames=FRAMES, guidance_scale=2.0, **options)
        pipe.render(photo, motion, "", guidance_scale=2.0, output_type="pt", **options)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        pipe.to("cpu")


@pytest.mark.parametrize("stage", ["motion", "animation"])
def test_the_unet_is_one_graph(pipe, stage):
    """`torch.compile` finds no place where it would have to interrupt the network."""
    unet = getattr(pipe, f"{stage}_unet")
    side, frames = SIZE // 8, FRAMES - (stage == "motion")
    sample, text = noise(1, unet.config.in_channels, frames, side, side), noise(1, 32, unet.config.cross_attention_dim)
    given = {"stride": torch.arange(1, frames + 1)[None]}
    if stage == "animation":
        given = {"flow": unet.prepare(SplatCache(3 * noise(1, FRAMES - 1, 2, SIZE, SIZE)), (side, side))}
    compiled = torch.compile(unet, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(
            compiled(sample, torch.tensor([500]), text, **given), unet(sample, torch.tensor([500]), text, **given)
        )


STEPS = ["image_vae", "flow_vae", "start_video", "stage1_temporal", "controlnet", "stage2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return fill(tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("device", DEVICES)
def test_an_update_is_that_of_the_cpu(data, name, device):
    """Loss and gradient of each objective; on the device with activations computed again in the backward pass."""
    step = curriculum().step(name)
    # Fresh models, without what other steps would have to train first.
    step = replace(step, start_from={}, precision="no", gradient_checkpointing=False)
    config = replace(curriculum(), steps=(step,))

    def update(device: str, checkpointing: bool) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        models = build_models(config, replace(step, gradient_checkpointing=checkpointing), data)
        parameters = trainable_parameters(models, step.trainable)
        task = make_task(config, step, data, models)
        models.to(device).train()
        batch = {key: value.to(device) for key, value in task.train.draw(Draws.of(1, count=2)).items()}
        loss, _ = OBJECTIVES[step.objective].loss(models, batch, Draws.of(2, count=2), task)
        loss.backward()
        gradients = [value.grad.flatten().cpu() for value in parameters.values() if value.grad is not None]
        return loss, torch.cat(gradients)

    expected = update("cpu", False)
    result = update(device, "vae" not in name)
    for ours, theirs in zip(result, expected, strict=True):
        assert_near(ours, theirs, torch.float32)


@NO_GPU
def test_a_training_on_the_gpu_resumes(data, tmp_path):
    shutil.copytree(data, tmp_path / "runs")
    entry = replace(curriculum().step("flow_vae"), start_from={})
    config = replace(curriculum(), steps=(entry,))
    whole = train(config, "flow_vae", data)
    train(config, "flow_vae", tmp_path / "runs", stop_at=2)
    resumed = train(config, "flow_vae", tmp_path / "runs", resume=True)
    first, second = (load_file(next((folder / "flow_vae").glob("*.safetensors"))) for folder in (whole, resumed))
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=0, atol=1e-6)
