"""The pipelines with tiny random models: conventions of diffusers, seeds, batches, brush, errors at the door."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.hooks import CpuOffload
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
)
from PIL import Image
from safetensors.torch import load_file, save_file

from mi2v_lite.control import Drag, MotionControl, Thing
from mi2v_lite.flow.fields import to_unit
from mi2v_lite.io.pixels import image_tensor, to_uint8
from mi2v_lite.models.autoencoder import encode, make_vae
from mi2v_lite.models.controlnet import TrajectoryControlNet
from mi2v_lite.models.text import build_tokenizer, make_text_encoder
from mi2v_lite.models.unet import VideoUNet
from mi2v_lite.pipelines import AnimationPipeline, MotionFieldOutput, MotionFieldPipeline, MotionI2VPipeline, inputs
from tools.benchmark import fitting

SIZE, FRAMES = 32, 4
IMAGE_CHANNELS, FLOW_CHANNELS = 3, 2
SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "rescale_betas_zero_snr": True,
}
UNET = {
    "block_out_channels": (32, 32),
    "layers_per_block": 1,
    "attention_levels": (True, False),
    "num_attention_heads": 4,
    "cross_attention_dim": 16,
    "motion_num_attention_heads": 4,
    "motion_max_length": 9,
}


def wake(model: torch.nn.Module) -> torch.nn.Module:
    """Gives what starts at zero some weight: nothing may be switched off in these tests."""
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> dict:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(tmp_path_factory.mktemp("tokenizer"), ["red", "balloon"])
    vae = {"block_out_channels": [8, 8, 8, 8], "layers_per_block": 1, "norm_num_groups": 4}
    stage1 = VideoUNet(
        in_channels=IMAGE_CHANNELS + FLOW_CHANNELS, out_channels=FLOW_CHANNELS, use_stride_embedding=True, **UNET
    )
    stage2 = VideoUNet(
        in_channels=IMAGE_CHANNELS, out_channels=IMAGE_CHANNELS, fusion="attention", first_frame_timestep=1, **UNET
    )
    text = {"vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    return {
        "vae": wake(make_vae({**vae, "latent_channels": IMAGE_CHANNELS, "scaling_factor": 0.7})),
        "flow_vae": wake(
            make_vae(
                {**vae, "in_channels": 2, "out_channels": 2, "latent_channels": FLOW_CHANNELS, "scaling_factor": 1.3}
            )
        ),
        "text_encoder": make_text_encoder(text).eval(),
        "tokenizer": tokenizer,
        "motion_unet": wake(stage1),
        "controlnet": wake(
            TrajectoryControlNet.from_unet(stage1, condition_channels=FLOW_CHANNELS + 1, condition_hidden=8)
        ),
        "animation_unet": wake(stage2),
    }


@pytest.fixture
def pipe(parts) -> MotionI2VPipeline:
    settings = {"motion_steps": 2, "animation_steps": 2, "motion_guidance_scale": 3.0, "animation_guidance_scale": 2.0}
    pipe = MotionI2VPipeline(**parts, scheduler=DDIMScheduler(**SCHEDULE), stride=4, **settings)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))


def seed(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def brush() -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[:, : SIZE // 2] = True
    return mask


def drawn(**kwargs) -> MotionControl:
    return MotionControl((SIZE, SIZE), [Drag([(8, 16), (20, 16)])], **kwargs)


def some_flow(batch: int = 1) -> torch.Tensor:
    return 4 * torch.randn(batch, FRAMES - 1, 2, SIZE, SIZE, generator=seed(9))


def test_both_stages(pipe, photo):
    out = pipe(photo, "red balloon", drawn(brush=brush()), num_frames=FRAMES, generator=seed())
    assert out.flow.shape == (1, FRAMES - 1, 2, SIZE, SIZE) and out.flow.dtype == torch.float32
    assert out.flow.abs().max() <= SIZE and out.flow[..., : SIZE // 2].abs().max() > 0
    assert out.flow[..., SIZE // 2 :].abs().max() == 0  # outside the brush
    assert len(out.frames) == 1 and len(out.frames[0]) == FRAMES and out.frames[0][0].size == (SIZE, SIZE)


def test_two_calls_equal_one(pipe, photo):
    whole = pipe(photo, "red", drawn(brush=brush()), num_frames=FRAMES, generator=seed(), output_type="np")
    generator = seed()
    motion = pipe.predict_motion(photo, "red", drawn(brush=brush()), num_frames=FRAMES, generator=generator)
    frames = pipe.render(photo, motion, "red", generator=generator, output_type="np").frames
    assert torch.equal(motion.flow, whole.flow) and np.array_equal(frames, whole.frames)
    again = pipe.render(photo, motion.flow, "red", brush=brush(), generator=seed(1), output_type="np").frames
    assert not np.array_equal(again, frames)


def test_a_held_brush_leaves_the_photo_outside(pipe, photo):
    options = {"num_inference_steps": 2, "output_type": "latent"}
    held, left = (
        pipe.render(photo, some_flow(), "red", brush=brush(), hold_control=hold, generator=seed(), **options).frames
        for hold in (True, False)
    )
    half = held.shape[-1] // 2
    outside = held[..., half:]
    assert torch.equal(outside, outside[:, :, :1].expand_as(outside))
    assert torch.equal(held[..., :half], left[..., :half]) and not torch.equal(outside, left[..., half:])


def test_a_held_control_is_in_the_latents(pipe, photo):
    """At every latent whose whole block is drawn on, and at no other, the sampling ends at the control's own latent."""
    control = MotionControl((SIZE, SIZE), [Drag([(16, 16), (26, 16)], radius=12)])
    options = {"num_frames": FRAMES, "generator": seed(), "output_type": "latent"}
    found = pipe.predict_motion(photo, "", control, hold_control=True, **options).flow
    flow, mask = control.field(FRAMES - 1)
    known = encode(pipe.flow_vae, to_unit(flow)).transpose(0, 1)[None].detach()  # (1, C, N, h, w)
    covered = mask.unfold(2, 8, 8).unfold(3, 8, 8).amin((-1, -2))[:, 0] == 1  # (N, h, w)
    assert 0 < covered.float().mean() < 0.5
    same = torch.isclose(found, known, atol=1e-5).all(1)[0]
    assert torch.equal(same, covered)


def test_held_things_move_exactly_and_reach_render(pipe, photo):
    mask = np.zeros((SIZE, SIZE), bool)
    mask[9:20, 5:18] = True
    control = MotionControl((SIZE, SIZE), things=[Thing(mask, [Drag([(10, 10), (13, 8)])])])
    options = {"num_frames": FRAMES, "control": control}
    motion = pipe.predict_motion(photo, "", hold_control=True, generator=seed(), **options)
    asked, _ = control.field(FRAMES - 1)
    inside = torch.from_numpy(mask)
    torch.testing.assert_close(motion.flow[0][..., inside], asked[..., inside])
    assert motion.control == [control]
    left = pipe.predict_motion(photo, "", hold_control=False, generator=seed(), **options)
    assert left.control is None and not torch.allclose(left.flow[0][..., inside], asked[..., inside])
    none = pipe.predict_motion(photo, "", hold_control=True, generator=seed(), num_frames=FRAMES, control=drawn())
    assert none.control is None
    large = photo.resize((2 * SIZE, 2 * SIZE))
    call = {"detail": "carry", "output_type": "np", "times": range(FRAMES), "generator": seed()}
    held = pipe.render(large, motion, **call, height=SIZE, width=SIZE).frames
    free = pipe.render(large, motion.flow, **{**call, "generator": seed()}, height=SIZE, width=SIZE).frames
    assert held.shape == free.shape == (1, FRAMES, 2 * SIZE, 2 * SIZE, 3) and not np.array_equal(held, free)


# Equation: control-guidance
def test_control_guidance_goes_beyond_the_control(pipe, photo):
    """After one step the latents are linear in the prediction, so scale 3 lies as far beyond 2 as 2 beyond 1."""
    options = {"num_frames": FRAMES, "num_inference_steps": 1, "guidance_scale": 1.0, "output_type": "latent"}
    pipe.scheduler = DDIMScheduler(**SCHEDULE, clip_sample=False)

    def latents(scale: float) -> torch.Tensor:
        call = {**options, "generator": seed(), "control_guidance_scale": scale}
        return pipe.predict_motion(photo, "red", drawn(), **call).flow

    one, two, three = latents(1.0), latents(2.0), latents(3.0)
    assert not torch.allclose(one, two)
    torch.testing.assert_close(three - two, two - one, atol=1e-4, rtol=1e-3)
    without = pipe.predict_motion(photo, "red", **{**options, "generator": seed()}).flow
    torch.testing.assert_close(latents(0.0), without, atol=1e-4, rtol=1e-3)


def test_every_input_matters(pipe, photo):
    def flow(**kwargs):
        return pipe.predict_motion(
            **{"image": photo, "prompt": "red", "num_frames": FRAMES, "generator": seed(), **kwargs}
        ).flow

    plain = flow()
    assert torch.equal(plain, flow())
    assert torch.equal(plain, flow(control=drawn(), control_scale=0.0))
    assert torch.equal(plain, flow(stride=[4, 8, 12])) and torch.equal(plain, flow(guidance_scale=3.0))
    others = {
        "prompt": "balloon",
        "negative_prompt": "balloon",
        "control": drawn(),
        "stride": 8,
        "num_inference_steps": 3,
        "guidance_scale": 1.0,
        "generator": seed(1),
        "image": photo.rotate(90),
    }
    for name, value in others.items():
        assert not torch.allclose(plain, flow(**{name: value})), name
    steered = flow(control=drawn())
    assert torch.equal(steered, flow(control=drawn(), control_guidance_scale=1.0, hold_control=False))
    for option in ({"control_guidance_scale": 2.0}, {"hold_control": True}, {"control_scale": 2.0}):
        assert not torch.allclose(steered, flow(control=drawn(), **option)), option
    two = pipe.predict_motion([photo] * 2, "red", num_frames=FRAMES, stride=[[4, 8, 12], [8, 16, 24]])
    assert two.flow.shape[0] == 2 and not torch.allclose(two.flow[0], two.flow[1])
    for option in ({"control_guidance_scale": 2.0}, {"hold_control": True}):
        assert torch.equal(plain, flow(**option)), f"{option} is nothing without a control"


def test_without_guidance_the_negative_prompt_is_unused(pipe, photo):
    flows = [
        pipe.predict_motion(
            photo, "red", num_frames=FRAMES, generator=seed(), guidance_scale=1.0, negative_prompt=negative
        ).flow
        for negative in ("", "balloon")
    ]
    assert torch.equal(*flows)


def test_image_range_of_stage1(pipe, photo):
    unit = MotionFieldPipeline(**pipe.motion_field.components, stage1_image_range="unit")
    pixels = image_tensor(photo)
    with torch.no_grad():
        assert torch.allclose(unit.encode_image(pixels), encode(pipe.vae, (pixels + 1) / 2), atol=1e-6)
        assert torch.allclose(pipe.motion_field.encode_image(pixels), encode(pipe.vae, pixels), atol=1e-6)


def test_batch_equals_items_alone(pipe, photo):
    images, prompts = [photo, photo.rotate(90)], ["red", "balloon"]
    paint = [drawn(brush=brush()), MotionControl((SIZE, SIZE), [Drag([(20, 20), (4, 4)])])]
    pipe.to(torch.float64)  # random networks amplify float32's rounding, which may hide what is wrong
    try:
        both = pipe(images, prompts, paint, num_frames=FRAMES, generator=[seed(0), seed(1)], output_type="pt")
        for i in range(2):
            alone = pipe(images[i], prompts[i], paint[i], num_frames=FRAMES, generator=seed(i), output_type="pt")
            torch.testing.assert_close(both.flow[i : i + 1], alone.flow, rtol=0, atol=1e-5)
            torch.testing.assert_close(both.frames[i : i + 1], alone.frames, rtol=0, atol=1e-5)
    finally:
        pipe.to(torch.float32)


def test_one_photo_for_all_prompts(pipe, photo):
    flow = pipe.predict_motion(photo, ["red", "balloon"], num_frames=FRAMES, generator=[seed(0), seed(1)]).flow
    assert flow.shape[0] == 2 and not torch.allclose(flow[0], flow[1])


def test_save_and_load(pipe, photo, tmp_path):
    expected = pipe(photo, "red", drawn(), num_frames=FRAMES, generator=seed(), output_type="np")
    pipe.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "model_index.json",
        "vae",
        "flow_vae",
        "text_encoder",
        "tokenizer",
        "motion_unet",
        "controlnet",
        "animation_unet",
        "scheduler",
    }
    loaded = MotionI2VPipeline.from_lite(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.config.motion_steps == 2 and loaded.config.stride == 4
    assert loaded.vae.config.scaling_factor == 0.7 and loaded.motion_unet.dtype == torch.float32
    found = loaded(photo, "red", drawn(), num_frames=FRAMES, generator=seed(), output_type="np")
    assert torch.equal(found.flow, expected.flow) and np.array_equal(found.frames, expected.frames)
    bare = MotionI2VPipeline.from_pretrained(tmp_path, controlnet=None)
    with pytest.raises(ValueError, match="no ControlNet"):
        bare.predict_motion(photo, control=drawn(), num_frames=FRAMES)


def test_half_precision_files_load_as_float32(pipe, tmp_path):
    stage = pipe.animation
    stage.to(torch.float16, silence_dtype_warnings=True).save_pretrained(tmp_path)
    stage.to(torch.float32)
    loaded = AnimationPipeline.from_pretrained(tmp_path, dtype=torch.float32)
    assert loaded.vae.dtype == loaded.text_encoder.dtype == loaded.unet.dtype == torch.float32


def test_missing_weights(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="holds no pipeline"):
        MotionI2VPipeline.from_lite(tmp_path)
    monkeypatch.setattr("mi2v_lite.pipelines.motion_i2v.LITE_WEIGHTS", tmp_path)
    with pytest.raises(FileNotFoundError, match="No lite weights.*come with the package"):
        MotionI2VPipeline.from_lite()


@pytest.mark.parametrize("wrong, said", [({"output_type": "gif"}, "output_type must be"), ({}, "2 to 3 frames")])
def test_mistakes_of_stage_2_are_told_before_stage_1(pipe, photo, monkeypatch, wrong, said):
    monkeypatch.setattr(pipe.motion_unet, "forward", None)
    shorter = {pipe.animation_unet.config.fusion: 3}  # if its table of positions is shorter than that of Stage 1
    monkeypatch.setattr(inputs, "most_frames", lambda fusion, _: shorter.get(fusion, 16) if not wrong else 16)
    with pytest.raises(ValueError, match=said):
        pipe(photo, "red", num_frames=4, **wrong)


@pytest.mark.parametrize("name", ["vae", "flow_vae"])
def test_a_decoder_that_overflows_is_told(pipe, photo, monkeypatch, name):
    """In half precision it happens, and would be black frames."""
    vae = getattr(pipe, name)
    decode = vae.decode
    monkeypatch.setattr(vae, "decode", lambda z: SimpleNamespace(sample=decode(z).sample / 0))
    with pytest.raises(ValueError, match="autoencoder gave values that are not numbers"):
        pipe(photo, "red", num_frames=FRAMES, generator=seed())


@pytest.mark.parametrize("kind", [DPMSolverMultistepScheduler, EulerDiscreteScheduler, EulerAncestralDiscreteScheduler])
def test_other_schedulers(pipe, photo, kind):
    pipe.scheduler = kind.from_config(pipe.scheduler.config, rescale_betas_zero_snr=False)
    runs = [
        pipe(photo, "red", drawn(brush=brush()), num_frames=FRAMES, generator=seed(), output_type="pt")
        for _ in range(2)
    ]
    assert runs[0].frames.isfinite().all() and runs[0].flow.isfinite().all()
    assert torch.equal(runs[0].frames, runs[1].frames) and torch.equal(runs[0].flow, runs[1].flow)


# Equation: clean-first-frame
def test_first_frame_and_brush_in_stage2(pipe, photo):
    seen = []
    original = pipe.animation_unet.forward

    def spy(sample, *args, **kwargs):
        seen.append(sample)
        return original(sample, *args, **kwargs)

    after = []

    def callback(_pipe, _step, _timestep, tensors):
        after.append(tensors["latents"])
        return {}

    noise = torch.randn(1, IMAGE_CHANNELS, FRAMES, SIZE // 8, SIZE // 8, generator=seed())
    pipe.animation_unet.forward = spy
    try:
        latents = pipe.render(
            photo,
            some_flow(),
            brush=brush(),
            latents=noise,
            num_inference_steps=3,
            callback_on_step_end=callback,
            output_type="latent",
        ).frames
    finally:
        del pipe.animation_unet.forward
    with torch.no_grad():
        still = encode(pipe.vae, image_tensor(photo))
    assert len(seen) == 3 and seen[0].shape[0] == 2  # both guidance halves in one call
    for sample in [*seen, latents]:
        assert torch.allclose(sample[:, :, 0], still, atol=1e-6)
    right = slice(SIZE // 16, None)
    for step, time in enumerate(pipe.scheduler.timesteps[1:]):
        known = pipe.scheduler.add_noise(still[:, :, None], noise, time[None])
        assert torch.allclose(after[step][:, :, 1:, :, right], known[:, :, 1:, :, right], atol=1e-6)
        assert not torch.allclose(after[step][:, :, 1:, :, : SIZE // 16], known[:, :, 1:, :, : SIZE // 16], atol=1e-2)


def test_callback_may_change_the_latents(pipe, photo):
    steps = []

    def callback(_pipe, step, _timestep, tensors):
        steps.append(step)
        return {"latents": torch.zeros_like(tensors["latents"])}

    latents = pipe.predict_motion(photo, num_frames=FRAMES, callback_on_step_end=callback, output_type="latent").flow
    assert steps == [0, 1] and not latents.any()


def test_the_splat_is_built_once(pipe, photo, monkeypatch):
    from mi2v_lite.flow import splat_cache

    built = []

    class Counted(splat_cache.SplatOperator):
        def __init__(self, flow, *args, **kwargs):
            built.append(tuple(flow.shape))
            super().__init__(flow, *args, **kwargs)

    monkeypatch.setattr(splat_cache, "SplatOperator", Counted)
    pipe.render(photo, some_flow(), output_type="np")
    sides = [SIZE // 8, SIZE // 16]
    assert sorted(built) == sorted((1, FRAMES - 1, 2, side, side) for side in sides)


def test_output_types(pipe, photo):
    clips = {
        kind: pipe.render(photo, some_flow(), generator=seed(), output_type=kind).frames for kind in ("np", "pil", "pt")
    }
    assert clips["np"].dtype == np.uint8 and clips["np"].shape == (1, FRAMES, SIZE, SIZE, 3)
    assert clips["pt"].shape == (1, FRAMES, 3, SIZE, SIZE) and clips["pt"].abs().max() <= 1
    assert np.array_equal(np.stack([np.asarray(frame) for frame in clips["pil"][0]]), clips["np"][0])
    restored = clips["np"].transpose(0, 1, 4, 2, 3) / 127.5 - 1
    assert np.abs(restored - clips["pt"].numpy()).max() <= 1 / 255 + 1e-6
    assert pipe.render(photo, some_flow(), output_type="np", return_dict=False)[0].shape == clips["np"].shape
    flow = pipe.predict_motion(photo, num_frames=FRAMES, output_type="np").flow
    assert isinstance(flow, np.ndarray) and isinstance(pipe.render(photo, flow, output_type="np").frames, np.ndarray)


def test_images_at_the_door(photo):
    array = np.asarray(photo)
    expected = image_tensor(photo)
    assert expected.shape == (1, 3, SIZE, SIZE) and expected.min() == -1 and expected.max() == 1
    for image in (array, expected, expected[0], array[None], [photo], [array]):
        assert torch.equal(image_tensor(image), expected)
    assert image_tensor(photo.convert("L")).shape == expected.shape
    assert image_tensor([photo, photo]).shape[0] == 2
    for wrong in (
        array / 255.0,
        array[..., 0],
        expected * 255,
        expected * float("nan"),
        expected[:, :2],
        expected.long(),
        [],
        [photo, photo.resize((8, 8))],
        "photo.png",
        None,
    ):
        with pytest.raises(ValueError):
            image_tensor(wrong)


def test_odd_sizes_are_resized_and_said(pipe):
    odd = Image.new("RGB", (45, 29), (10, 200, 30))
    with pytest.warns(UserWarning, match="45x29.*48x32"):
        motion = pipe.predict_motion(odd, "red", drawn(brush=brush()), num_frames=FRAMES)
    assert motion.flow.shape[-2:] == (32, 48) and motion.brush.shape[-2:] == (32, 48)
    with pytest.warns(UserWarning, match="45x29"):
        assert pipe.render(odd, motion).frames[0][0].size == (48, 32)
    with pytest.warns(UserWarning) as said:
        pipe(odd, num_frames=FRAMES)
    assert sum("45x29" in str(one.message) for one in said) == 1
    small = pipe.predict_motion(odd, num_frames=FRAMES, height=16, width=24).flow
    assert small.shape[-2:] == (16, 24)


def test_flow_of_another_size_but_the_same_shape(pipe, photo):
    half = some_flow()[..., ::2, ::2] / 2
    assert pipe.render(photo, half, output_type="np").frames.shape[2:4] == (SIZE, SIZE)


def test_to_half_and_components(pipe):
    assert pipe.motion_field.unet is pipe.motion_unet and pipe.animation.vae is pipe.vae
    pipe.to(torch.bfloat16)
    try:
        assert pipe.motion_field.unet.dtype == torch.bfloat16
    finally:
        pipe.to(torch.float32)


def test_a_stage_is_built_again_only_when_something_was_replaced(pipe):
    first, second = pipe.motion_field, pipe.animation
    pipe.to(torch.float32)
    assert pipe.motion_field is first and pipe.animation is second
    pipe.register_to_config(animation_steps=3)
    assert pipe.motion_field is first and pipe.animation.config.num_inference_steps == 3
    pipe.scheduler = DDIMScheduler(**SCHEDULE)
    assert pipe.motion_field is not first and pipe.motion_field.scheduler is pipe.animation.scheduler is pipe.scheduler


def test_slices_of_the_pipeline_change_nothing(pipe, photo):
    def clip() -> tuple[torch.Tensor, np.ndarray]:
        out = pipe(photo, "red balloon", drawn(), num_frames=FRAMES, generator=seed(), output_type="np")
        return out.flow, out.frames

    flow, frames = clip()
    decoded = []
    pipe.enable_attention_slicing(3)
    pipe.vae.enable_slicing()
    pipe.flow_vae.enable_slicing()
    pipe.vae.decoder.register_forward_hook(lambda module, inputs, output: decoded.append(len(output)))
    assert pipe.controlnet.down_blocks[0].slice_size == pipe.motion_unet.mid_block.slice_size == 3
    sliced = clip()
    torch.testing.assert_close(sliced[0], flow, rtol=0, atol=1e-4 * SIZE)
    assert np.abs(sliced[1].astype(int) - frames).max() <= 1
    assert decoded == [1] * FRAMES and inputs.DECODE_BATCH > 1
    pipe.disable_attention_slicing()
    pipe.vae.disable_slicing()
    pipe.flow_vae.disable_slicing()
    assert torch.equal(clip()[0], flow)


def test_offloading_moves_each_model_once_a_stage(pipe, photo, monkeypatch):
    """Accelerate's hooks with the moves written down: a ControlNet must not come and go at every step."""
    expected = pipe(photo, "red", drawn(), num_frames=FRAMES, generator=seed(), output_type="np")
    names = {id(part): name for name, part in pipe.components.items()}
    there, moves, most = set(), [], []

    def arrive(hook: CpuOffload, module: torch.nn.Module, *args: object, **kwargs: object) -> tuple:
        if hook.prev_module_hook is not None:
            there.discard(names[id(hook.prev_module_hook.model)])
        if names[id(module)] not in there:
            there.add(names[id(module)])
            moves.append(names[id(module)])
        most.append(set(there))
        return args, kwargs

    def leave(hook: CpuOffload, module: torch.nn.Module) -> torch.nn.Module:
        there.discard(names[id(module)])
        return module

    monkeypatch.setattr(CpuOffload, "pre_forward", arrive)
    monkeypatch.setattr(CpuOffload, "init_hook", leave)
    pipe.enable_model_cpu_offload(device="cpu")
    try:
        out = pipe(photo, "red", drawn(), num_frames=FRAMES, generator=seed(), output_type="np")
    finally:
        pipe.remove_all_hooks()
    assert torch.equal(out.flow, expected.flow) and np.array_equal(out.frames, expected.frames)
    assert moves.count("controlnet") == moves.count("motion_unet") == moves.count("animation_unet") == 1
    assert not any({"motion_unet", "animation_unet"} <= now for now in most), "one UNet at a time"
    assert all(set(one) in most for one in fitting.OFFLOADED), "what the benchmark counts with is what happens"
    assert not there, "nothing stays on the device"


def nan_flow() -> torch.Tensor:
    flow = some_flow()
    flow[0, 0, 0, 0, 0] = float("nan")
    return flow


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prompt": []}, "string"),
        ({"prompt": ["red", "red", "red"], "image": "two"}, "different sizes"),
        ({"prompt": 3}, "string"),
        ({"control": "drag"}, "MotionControl"),
        ({"num_frames": 1}, "2 to"),
        ({"num_frames": 99}, "2 to"),
        ({"stride": [8, 16]}, "stride"),
        ({"stride": -1}, "stride"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"height": 30}, "multiple of 8"),
        ({"latents": torch.zeros(1, 3, 3, 4, 4)}, "latents"),
        ({"condition": torch.zeros(1, 1, 3, 4, 4)}, "condition"),
        ({"prompt_embeds": torch.zeros(1, 4, 16), "prompt": "red"}, "not both"),
        ({"prompt_embeds": torch.zeros(1, 4, 5)}, "prompt_embeds"),
        ({"brush": np.full((SIZE, SIZE), 7)}, "brush"),
        ({"generator": [torch.Generator()] * 3}, "generators"),
        ({"output_type": "pil"}, "output_type"),
    ],
)
def test_stage1_errors(pipe, photo, wrong, message):
    arguments = {"image": photo, "num_frames": FRAMES, **wrong}
    if arguments["image"] == "two":
        arguments["image"] = [photo, photo]
    with pytest.raises(ValueError, match=message):
        pipe.predict_motion(**arguments)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"motion": nan_flow()}, "NaN"),
        ({"motion": some_flow()[:, :, :1]}, "flow must be"),
        ({"motion": some_flow()[..., :8]}, "aspect ratio"),
        ({"motion": torch.zeros(1, 40, 2, SIZE, SIZE)}, "2 to 5 frames"),  # 9 positions hold 5 frames
        ({"motion": some_flow(3), "prompt": ["red", "red"]}, "different sizes"),
        ({"latents": torch.zeros(1, 3, 3, 4, 4)}, "latents"),
        ({"brush": np.ones((2, 2, 2, 2), bool)}, "brush"),
        ({"output_type": "mp4"}, "output_type"),
    ],
)
def test_stage2_errors(pipe, photo, wrong, message):
    with pytest.raises(ValueError, match=message):
        pipe.render(**{"image": photo, "motion": some_flow(), **wrong})


def test_render_takes_the_brush_of_the_motion(pipe, photo):
    flow, mask = some_flow(), inputs.brush_tensor(brush(), SIZE, SIZE)
    given = pipe.render(photo, flow, brush=brush(), generator=seed(), output_type="np").frames
    carried = pipe.render(photo, MotionFieldOutput(flow=flow, brush=mask), generator=seed(), output_type="np").frames
    without = pipe.render(photo, flow, generator=seed(), output_type="np").frames
    assert np.array_equal(given, carried) and not np.array_equal(given, without)


@pytest.fixture
def sharp(parts) -> MotionI2VPipeline:
    """The same models behind a pipeline that works small and carries detail."""
    pipe = MotionI2VPipeline(
        **parts,
        scheduler=DDIMScheduler(**SCHEDULE),
        stride=4,
        motion_steps=2,
        animation_steps=2,
        working_size=SIZE,
        detail="carry",
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def large() -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (75, 110, 3), dtype=np.uint8))


def test_carried_detail_has_the_size_of_the_photo_and_any_rate(sharp, large):
    out = sharp(large, "red", num_frames=FRAMES, fps=10, seconds=0.7, generator=seed())
    assert out.flow.shape == (1, FRAMES - 1, 2, SIZE, 48)  # 110 x 75 in cells, as near as multiples of 8 allow
    assert len(out.frames[0]) == 7 and out.frames[0][0].size == (110, 75)
    assert np.array_equal(np.asarray(out.frames[0][0]), np.asarray(large)), "it begins with the photo itself"
    assert len(sharp(large, "red", num_frames=2, generator=seed()).frames[0]) == 48  # two seconds of 24 frames
    array = sharp(large, "red", num_frames=FRAMES, fps=10, seconds=0.7, generator=seed(), output_type="np").frames
    assert array.shape == (1, 7, 75, 110, 3) and np.array_equal(array[0, 3], np.asarray(out.frames[0][3]))
    tensor = sharp(large, "red", num_frames=FRAMES, fps=10, seconds=0.7, generator=seed(), output_type="pt").frames
    assert tensor.shape == (1, 7, 3, 75, 110) and np.array_equal(to_uint8(tensor), array)
    (stream,) = sharp(
        large, "red", num_frames=FRAMES, fps=10, seconds=0.7, generator=seed(), output_type="stream"
    ).frames
    for number, frame in enumerate(stream):
        assert np.array_equal(frame, array[0, number])


def test_without_carried_detail_the_networks_frames_are_what_they_were(sharp, pipe, large):
    """The stages by hand, on the photo reduced by hand, and both pipelines."""
    small = inputs.resized(image_tensor(large), (SIZE, 48))
    generator = seed()
    motion = sharp.motion_field(small, "red", num_frames=FRAMES, generator=generator)
    frames = sharp.animation(small, motion.flow, "red", generator=generator, output_type="np").frames
    for out in (
        sharp(large, "red", num_frames=FRAMES, detail="none", generator=seed(), output_type="np"),
        pipe(small, "red", num_frames=FRAMES, guidance_scale=7.0, generator=seed(), output_type="np"),
    ):
        assert torch.equal(out.flow, motion.flow) and np.array_equal(out.frames, frames)


def test_an_item_of_a_batch_is_carried_as_it_is_alone(sharp, large):
    other = Image.fromarray(np.asarray(large)[::-1])
    words, options = ["red", "balloon"], {"num_frames": FRAMES, "fps": 5, "seconds": 1, "output_type": "np"}
    both = sharp([large, other], words, generator=[seed(1), seed(2)], **options).frames
    for item, photo in enumerate((large, other)):
        alone = sharp(photo, words[item], generator=[seed(1 + item)], **options).frames[0]
        # Batches round differently, and a rounding may turn at a torn place: nearly all pixels agree within a level.
        assert (np.abs(both[item].astype(int) - alone) <= 1).mean() > 0.995


def test_outside_a_brush_the_photo_stays_to_the_pixel(sharp, large):
    mask = np.zeros((75, 110), bool)
    mask[10:61, 21:83] = True
    control = MotionControl((110, 75), [Drag([(40, 30), (60, 40)])], brush=mask)
    out = sharp(large, "red", control, num_frames=FRAMES, fps=4, seconds=1, generator=seed(), output_type="np")
    assert (out.frames[0][:, ~mask] == np.asarray(large)[~mask]).all() and out.brush.shape == (1, 1, SIZE, 48)
    assert (out.frames[0][-1][mask] != np.asarray(large)[mask]).any()


def test_a_field_of_ones_own_grid_can_be_carried(sharp, large):
    flow = torch.zeros(FRAMES - 1, 2, 64, 96)  # twice the size at which Stage 2 works
    flow[:, 0] = torch.linspace(2, 6, FRAMES - 1).view(-1, 1, 1)
    frames = sharp.render(large, flow, "red", times=range(FRAMES), generator=seed(), output_type="np").frames[0]
    assert frames.shape == (FRAMES, 75, 110, 3)
    with pytest.raises(ValueError, match="one aspect ratio"):
        sharp.render(large, torch.zeros(3, 2, 32, 32))


def test_callbacks_and_seeds_are_as_before(sharp, large):
    steps = []
    options = {"callback_on_step_end": lambda pipe, i, t, latents: steps.append(i) or {}, "output_type": "np"}
    motion = sharp.predict_motion(large, "red", num_frames=FRAMES, generator=seed())
    once, again = (sharp.render(large, motion, "red", generator=seed(), **options).frames for _ in range(2))
    assert np.array_equal(once, again) and steps == [0, 1, 0, 1]


def test_wrong_wishes_for_detail_are_told_before_the_sampling(sharp, large, parts):
    def never(*_: object, **__: object) -> None:
        raise AssertionError("sampled")

    sharp.predict_motion = never
    for wish, words in (
        ({"detail": "sharp"}, "detail must be one of carry, none, got 'sharp'"),
        ({"fps": 0}, "fps must be a positive number, got 0"),
        ({"seconds": float("nan")}, "seconds must be a positive number"),
        ({"output_type": "latent"}, "output_type must be 'pil', 'np', 'pt' or 'stream', got 'latent'"),
    ):
        with pytest.raises(ValueError, match=words):
            sharp(large, "red", **wish)
    for wish in ({"detail": "much"}, {"working_size": 30}):
        with pytest.raises(ValueError, match="detail must be|working_size must be a multiple of 8"):
            MotionI2VPipeline(**parts, scheduler=DDIMScheduler(**SCHEDULE), **wish)


def test_a_folder_that_is_not_whole_is_refused(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    weights = tmp_path / "text_encoder" / "model.safetensors"
    tensors = load_file(weights)
    name = next(key for key in tensors if "embed" in key)
    for change, said in (
        ({key: tensors[key] for key in tensors if key != name}, "text_encoder lacks 1 of the network's tensors"),
        ({**tensors, "strange.weight": torch.zeros(2)}, "text_encoder holds 1 tensors .*strange.weight"),
    ):
        save_file(change, weights, metadata={"format": "pt"})
        with pytest.raises(ValueError, match=said):
            MotionI2VPipeline.from_lite(tmp_path)
    save_file(tensors, weights, metadata={"format": "pt"})
    shutil.rmtree(tmp_path / "tokenizer")
    with pytest.raises(ValueError, match="lacks tokenizer/, which its model_index.json lists"):
        MotionI2VPipeline.from_lite(tmp_path)
    assert MotionI2VPipeline.from_lite(tmp_path, tokenizer=pipe.tokenizer).tokenizer is pipe.tokenizer


def test_detail_is_saved_and_can_be_chosen_when_loading(sharp, tmp_path):
    sharp.save_pretrained(tmp_path)
    loaded = MotionI2VPipeline.from_lite(tmp_path)
    assert (loaded.config.detail, loaded.config.working_size) == ("carry", SIZE)
    assert MotionI2VPipeline.from_lite(tmp_path, detail="none").config.detail == "none"


def test_a_restyled_video_is_as_large_as_its_first_frame(sharp):
    base = np.random.default_rng(2).integers(0, 256, (20, 34, 3), dtype=np.uint8).repeat(6, 0).repeat(6, 1)
    video = np.stack([base[:96, 2 * i : 2 * i + 144] for i in range(7)])
    painted = Image.fromarray(255 - video[0]).resize((216, 144))
    with pytest.warns(UserWarning, match="216x144 px where the source has 144x96"):
        made = sharp.video_to_video(video, painted, window=4, generator=seed(), output_type="np")
    assert made.frames.shape == (1, 7, 144, 216, 3) and made.tracks[0].flow.shape[-2:] == (64, 96)
    assert np.array_equal(made.frames[0, 0], np.asarray(painted))
    plain = sharp.video_to_video(video, 255 - video[0], window=4, detail="none", generator=seed(), output_type="np")
    assert plain.frames.shape == (1, 7, 96, 144, 3)
