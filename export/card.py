"""The model card: what a person wants to know about an artifact, written from its manifest."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from export.manifest import Manifest
from models.checkpoint import starts


@dataclass(frozen=True, slots=True)
class Family:
    """Text that the models of a family have in common; fields in braces are filled in for each model."""

    what: str
    data: str
    limits: str
    command: str


FAMILIES = {
    "stn": Family(
        what="a spatial transformer network that finds a digit in a picture, rectifies it and reads it",
        data="MNIST (Y. LeCun, C. Cortes, C. J. C. Burges), 55,000 training digits, distorted anew for every batch: "
        "rotated, scaled and translated, in perspective, elastically warped, cluttered, and rendered as photographs "
        "of ink on paper",
        limits="It reads one digit a picture, in the handwriting of MNIST, whose ink is at least a quarter as high as "
        "the picture's shorter side is long; smaller ones, and those on long and narrow pages, it is likely to miss. "
        "It has never seen letters, several digits or nothing at all, and names a digit all the same; look at its "
        "confidence.",
        command="stn {kind}",
    ),
    "draw": Family(
        what="DRAW, a recurrent network that draws digits stroke by stroke through a window of attention",
        data="MNIST (Y. LeCun, C. Cortes, C. J. C. Burges), 55,000 training digits, binarised anew for every batch; "
        "the class is withheld from 40 % of them",
        limits="It draws MNIST's digits, 28 x 28, and nothing else. It was trained for 8 to 64 steps; with fewer it "
        "does not finish.",
        command="draw",
    ),
    "ntm": Family(
        what="a neural Turing machine that runs {task} on an external memory",
        data="random episodes, generated anew for every batch{task_data}",
        limits="It learned from short, random episodes; on much longer ones it makes the mistakes that its metrics "
        "name{task_limits}. What it answers is computed by a network and may be wrong.",
        command="ntm {task}",
    ),
}
UNEVEN = "; in half of them most vectors are nearly full or nearly empty, and many are the same as the one before"
TASK_DATA = {"copy": UNEVEN, "repeat-copy": UNEVEN}
TASK_LIMITS = {"priority-sort": ", and vectors whose priorities are close together, or equal, it sorts badly"}
PAPERS = {
    "stn": "Jaderberg, Simonyan, Zisserman, Kavukcuoglu: Spatial Transformer Networks. 2015. "
    "https://arxiv.org/abs/1506.02025",
    "draw": "Gregor, Danihelka, Graves, Rezende, Wierstra: DRAW: A Recurrent Neural Network For Image Generation. "
    "2015. https://arxiv.org/abs/1502.04623",
    "ntm": "Graves, Wayne, Danihelka: Neural Turing Machines. 2014. https://arxiv.org/abs/1410.5401",
}


def model_card(manifest: Manifest) -> str:
    """Return the card as Markdown."""
    family = FAMILIES[manifest.family]
    training = manifest.training
    task = training.get("task", "")
    words = {
        "kind": manifest.config.get("kind", ""),
        "task": task,
        "task_data": TASK_DATA.get(task, ""),
        "task_limits": TASK_LIMITS.get(task, ""),
    }
    metrics = "\n".join(f"| {name} | {value:.4g} |" for name, value in manifest.metrics.items())
    graphs = "\n".join(
        f"- `{name}`: largest difference from eager PyTorch {graph.worst_error:.1e} "
        f"(tolerated {graph.tolerance:.0e}), batches up to {graph.largest_batch}"
        for name, graph in manifest.graphs.items()
    )
    begun_with = starts(training)
    minutes = training.get("seconds", 0) / 60
    kept = f"the running average of the weights after {training.get('update')} updates, {minutes:.0f} minutes"
    if training.get("update") == 0:
        kept = "the weights that it began with" + ", which are the mean of several" * (len(begun_with) > 1)
    notes = [f"- Note: {training['note']}\n"] if "note" in training else []
    if any(Path(place).parts[-2:] == (manifest.name, str(manifest.version)) for place in begun_with):
        notes.append("- It began with weights that were in its own place before, and are not kept.\n")
    return f"""# {manifest.name}, version {manifest.version}

This is {family.what.format(**words)}.

{PAPERS[manifest.family]}

## Training

- Data: {family.data.format(**words)}.
- Command: `{_command(manifest, family.command.format(**words))}`
- Kept: {kept}.
{"".join(notes)}
## Metrics

On held-out data, as the trainer measured them when it kept these weights:

| metric | value |
|---|---|
{metrics}

## Graphs

{graphs}

## Limits

{family.limits.format(**words)}

## Licence

Apache-2.0, like the code. MNIST is used under the terms of its authors (CC BY-SA 3.0).
"""


def _command(manifest: Manifest, what: str) -> str:
    """Return the command that trains such a model again, with every option that is not the default."""
    training, config = manifest.training, manifest.config
    schedule = training.get("schedule", {})
    parts = [f"glimpse train {what}", f"--updates {schedule.get('updates')}"]
    if schedule.get("updates"):
        recorded = [name for name in ("learning_rate", "cooldown") if name in schedule]
        parts += [f"--{name.replace('_', '-')} {schedule[name]}" for name in recorded]
    if manifest.family != "ntm" and not schedule.get("bfloat16", True):
        parts.append("--precision float32")
    parts.append(f"--seed {training.get('seed')}")
    if (controller := config.get("controller", "lstm")) != "lstm":
        parts.append(f"--controller {controller}")
    parts += [f"--start {shlex.quote(place)}" for place in starts(training)]
    return " ".join(parts)
