"""Checks of notebook 06, full scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mi2v_checks.base import hide_answers, passed, require


def _near(got: float, wanted: float, share: float = 1e-3) -> bool:
    return abs(got - wanted) <= share * abs(wanted)


def group_sizes(answer: Callable[[dict[str, Sequence[int]]], dict[str, int]]) -> None:
    """Checks how many values the motion modules and the spatial layers of a file hold.

    Args:
        answer: `answer(shapes)` counts them as "motion" and "spatial", for name -> shape, as the header of the file has
            them.

    Raises:
        CheckFailed: if it counts tensors, adds the sides of a shape, or counts position tables as parameters.
    """
    shapes = {
        "conv_in.weight": [320, 4, 3, 3],
        "conv_in.bias": [320],
        "down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight": [320, 320],
        "down_blocks.0.motion_modules.0.temporal_transformer.norm.bias": [320],
        "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.pos_encoder.pe": [
            *(1, 32, 320)
        ],
    }
    got = {key: int(value) for key, value in answer(dict(shapes)).items()}
    require(set(got) == {"motion", "spatial"}, f"Two groups are asked for, 'motion' and 'spatial'; got {sorted(got)}.")
    require(
        got != {"motion": 3, "spatial": 2},
        "These are numbers of tensors; a tensor has as many values as its shape's product.",
    )
    require(got["spatial"] != 320 + 4 + 3 + 3 + 320, "The sides of a shape are multiplied, not added.")
    require(got["spatial"] == 11840, f"conv_in has 320 x 4 x 3 x 3 + 320 = 11,840 values; got {got['spatial']:,}.")
    require(
        got["motion"] != 102_720 + 10_240,
        "The position table (pos_encoder.pe) was counted: it is a constant, no parameter. Leave it out.",
    )
    require(got["motion"] == 102_720, f"The motion module has 320 x 320 + 320 = 102,720; got {got['motion']:,}.")
    passed("The header alone tells what a file holds; no weight was read.")


def training_bytes(answer: Callable[[int, int], int]) -> None:
    """Checks how many bytes the trainer holds for parameters, without activations.

    Args:
        answer: `answer(frozen, trained)` gives the bytes. All weights are float32; what trains also has a gradient, two
            moments of AdamW and an average, all float32.

    Raises:
        CheckFailed: if frozen weights get moments, something is forgotten, or numbers are taken for bytes.
    """
    got = int(answer(1000, 10))
    require(got != 1060 - 10, "These are numbers, not bytes: a float32 takes 4 bytes.")
    require(
        got != 4 * 5 * 1010, "Frozen weights have no gradient, no moments and no average: only what trains has them."
    )
    require(
        got != 4 * (1000 + 4 * 10), "Something that trains is there five times: weight, gradient, two moments, average."
    )
    require(got != 4 * (1000 + 3 * 10), "AdamW keeps two moments, and the trainer keeps the average as well.")
    require(got != 4 * 5 * 10, "Frozen weights are held too, once.")
    require(got == 4 * (1000 + 5 * 10), f"1000 frozen and 10 trained make 4 x (1000 + 5 x 10) = 4200 bytes; got {got}.")
    require(int(answer(0, 7)) == 140, "Right for that case; but 7 trained alone take 140 bytes.")
    passed("Stage 2 trains a third of its values, and that costs half of the bytes.")


def sync_seconds(answer: Callable[[float, int, int, float, float], float]) -> None:
    """Checks the time in which gradients are summed over several machines of several GPUs each.

    Args:
        answer: `answer(size, gpus, nodes, inside, between)` gives seconds; `size` are the bytes of the gradients,
            `gpus` the number in one machine, `inside` and `between` what one GPU sends in a second within its machine
            and out of it, in bytes.

    Raises:
        CheckFailed: if one machine uses the wire between machines, all bytes leave every GPU, the way there and back is
            counted once, or the time grows with the number of GPUs.
    """
    size, g, m, inside, between = 2e9, 8, 4, 3e11, 2.5e10

    def parts(gpus: int, nodes: int) -> tuple[float, float]:
        return 2 * (gpus - 1) / gpus * size / inside, 2 * (nodes - 1) / nodes * size / gpus / between

    first, second = parts(g, m)
    one = float(answer(size, g, 1, inside, between))
    flat = 2 * (g - 1) / g * size / between
    require(
        not _near(one, flat),
        "In one machine nothing crosses the wire between machines: its GPUs are joined by the faster links inside.",
    )
    require(_near(one, first), f"8 GPUs in one machine need 2 x 7/8 x 2 GB / 300 GB/s = {first:.4f} s; got {one:.4f}.")
    got = float(answer(size, g, m, inside, between))
    ring = 2 * (g * m - 1) / (g * m) * size / between
    require(not _near(got, ring), "One ring through all GPUs lets every byte cross the slow wire. Sum inside first.")
    require(
        not _near(got, first + second * g),
        "After the sum inside, each GPU holds an eighth, and only this eighth leaves through its own wire.",
    )
    require(not _near(got, (first + second) / 2), "Once to sum up, once to hand the sum back: twice.")
    grows = first * g + second * m
    require(not _near(got, grows), "(n - 1) / n, not n - 1: a longer ring has more, but smaller pieces.")
    require(
        _near(got, first + second),
        f"{first:.4f} s inside and {second:.4f} s between, one after the other; got {got:.4f}.",
    )
    alone = float(answer(size, 1, 1, inside, between))
    require(abs(alone) < 1e-12, f"One GPU alone has nobody to sum with; got {alone:.4f} s.")
    passed("However many GPUs and machines are added, neither term more than doubles.")


def when_to_stop(answer: Callable[[list[float], int, float], int]) -> None:
    """Checks a rule that ends a training when the held-out loss has stopped falling.

    Args:
        answer: `answer(losses, patience, least)` gives the number, from 0, of the validation after which to stop: the
            first at which the best of the last `patience` losses is not lower by `least` than the best before them; the
            last one if that never happens.

    Raises:
        CheckFailed: if one rise is enough, the place of the best loss is returned, `least` is forgotten, or the rule
            looks too far ahead.
    """
    noisy = [9.0, 7.0, 7.5, 5.0, 5.2, 4.9, 5.1, 4.95, 5.0, 4.97, 3.0]
    got = int(answer(list(noisy), 3, 0.5))
    require(got != 2, "One rise is noise. Compare the best of several with the best before them.")
    require(got != noisy.index(min(noisy)), "The place of the lowest loss is only known afterwards.")
    require(got != noisy.index(4.9), "This is the best so far; the answer is where the rule notices that it stays so.")
    require(got != 8, "`least` is forgotten: 4.9 is better than 5.0 by less than 0.5.")
    require(got == 6, f"At number 6 the best of 5.2, 4.9, 5.1 is not lower than 5.0 by 0.5; got {got}.")
    falling = [10.0 - i for i in range(8)]
    got = int(answer(falling, 3, 0.5))
    require(got == 7, f"A loss that falls all the time is never stopped: the answer is the last number, 7; got {got}.")
    require(int(answer([1.0] * 9, 4, 0.1)) == 4, "A constant loss stops as soon as four stand behind the first: at 4.")
    passed("It waits through noise, and knows nothing of what comes later: a plateau before a fall would end it.")


def checkpoint_interval(answer: Callable[[float, float, int], float]) -> None:
    """Checks the time between checkpoints that loses least, after Young (1974).

    Args:
        answer: `answer(write_seconds, days_between, gpus)` gives it in seconds, where `days_between` are the days
            between two failures of *one* GPU.

    Raises:
        CheckFailed: if the number of GPUs is forgotten, days are taken for seconds, or the 2 or the root is missing.
    """
    write, days, gpus = 60.0, 2000.0, 1000
    mean = days * 86_400 / gpus
    wanted = (2 * write * mean) ** 0.5
    got = float(answer(write, days, gpus))
    require(
        not _near(got, (2 * write * days * 86_400) ** 0.5),
        "This is for one GPU: a thousand fail a thousand times as often.",
    )
    require(not _near(got, (2 * write * days / gpus) ** 0.5), "Days went in as seconds: a day has 86,400.")
    require(not _near(got, (write * mean) ** 0.5), "The 2 is missing: sqrt(2 x write time x time between failures).")
    require(not _near(got, 2 * write * mean), "The root is missing.")
    require(
        not _near(got, (2 * write * days * 86_400 * gpus) ** 0.5), "More GPUs fail more often: divide by their number."
    )
    require(_near(got, wanted), f"sqrt(2 x 60 s x {mean:,.0f} s) = {wanted:,.0f} s; got {got:,.0f}.")
    require(_near(float(answer(10.0, 100.0, 10)), (2 * 10 * 864_000) ** 0.5), "Right for one case only.")
    passed("Ten times the GPUs, a third of the interval: failures set the pace.")


GOAL = {"clips": 6e6, "dollars": 1500.0, "days": 7.0, "updates": 10_000}
CARD = {"gib": 24.0, "weights": 11.6, "clip": 2.9, "tflop": 36.8, "tflops": 100.0, "dollars": 2.0}


def training_plan(answer: Callable[[], dict[str, float]]) -> None:
    """Checks a plan for Stage 2: any that keeps to the rules of the notebook and to the budget is right.

    Args:
        answer: `answer()` gives `gpus`, `batch` (of one GPU), `accumulation`, `updates`, `learning_rate` and
            `checkpoint_minutes`.

    Raises:
        CheckFailed: if it does not fit the card, the budget, the week, or if rate, updates or checkpoints break a rule.
    """
    plan = dict(answer())
    names = ("gpus", "batch", "accumulation", "updates", "learning_rate", "checkpoint_minutes")
    missing = [name for name in names if not float(plan.get(name, 0)) > 0]
    require(not missing, f"The plan says nothing, or nothing above zero, about {', '.join(missing)}.")
    gpus, batch, parts, updates, rate, minutes = (float(plan[name]) for name in names)
    held = CARD["weights"] + CARD["clip"] * batch
    require(
        held <= CARD["gib"],
        f"{held:.1f} GiB do not fit {CARD['gib']:.0f}: the weights stay, so fewer clips at once; accumulate instead.",
    )
    total = gpus * batch * parts
    seen = total * updates
    require(seen >= GOAL["clips"], f"{seen / 1e6:.1f} million clips are seen; {GOAL['clips'] / 1e6:.0f} are asked for.")
    require(
        updates >= GOAL["updates"],
        f"{updates:,.0f} updates: a batch of {total:,.0f} wastes clips; the experiment shows what large batches lose.",
    )
    wanted, linear = 3e-5 * (total / 128) ** 0.5, 3e-5 * total / 128
    if not 0.8 <= rate / wanted <= 1.25:
        require(abs(rate / 3e-5 - 1) > 0.05, f"The rate is that of a batch of 128; this one has {total:.0f}.")
        require(
            abs(rate / linear - 1) > 0.05, "Linear scaling is the rule of plain SGD; AdamW's rate goes with the root."
        )
    require(0.8 <= rate / wanted <= 1.25, f"3e-5 belongs to 128 clips; by the rule {total:.0f} get {wanted:.2e}.")
    hours = seen * CARD["tflop"] / CARD["tflops"] / 3600
    price, days = hours * CARD["dollars"], hours / gpus / 24
    require(price <= GOAL["dollars"], f"{price:,.0f} dollars: the clips cost, not the number of GPUs. See fewer clips.")
    require(days <= GOAL["days"], f"{days:.1f} days: the price stays the same with more GPUs, the time does not.")
    best = (2 * 60 * 2100 * 86_400 / gpus) ** 0.5 / 60
    require(
        best / 3 <= minutes <= 3 * best,
        f"A checkpoint every {minutes:.0f} minutes; Young's rule says {best:.0f} for {gpus:.0f} GPUs.",
    )
    passed(f"{gpus:.0f} GPUs, {days:.1f} days, {price:,.0f} dollars, {seen / 1e6:.1f} M clips, {total:.0f} at a time.")


hide_answers(globals())
