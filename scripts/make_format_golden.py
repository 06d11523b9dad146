"""Writes tests/golden/formats/: runs as an earlier program left them, interrupted and finished.

    python scripts/make_format_golden.py OLD_PROGRAM        (needs numpy and pillow)

OLD_PROGRAM is the program before its words and modules changed (of commit 282a48e). For each kind
of model (points, pictures, captions) there is `config.toml` with the keys of that time, the data,
`run/`, killed in the middle of a stage and therefore with a checkpoint, and `ensemble/` of the
finished run (of captions also `teacher/`). `expected.json` has the SHA-256 of what the old program
made of them: the weights after it went on, and samples. tests/end_to_end/formats_test.cpp compares.
"""

import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

OUT = pathlib.Path(__file__).resolve().parents[1] / "tests/golden/formats"
ALONE = {"OMP_NUM_THREADS": "1", "ATELIER_CACHE": "off", "PATH": os.environ["PATH"]}

COMMON = """seed = 3
output = "run"
threads = 1
precision = "fp32"
checkpoint_seconds = 0

[students]
parallel = 1
threads = 1
{students}
[partition]
students = 2
method = "{method}"

[probe]
every = 3
sampler_every = 0
count = 8

[evaluate]
count = {count}
steps = 2
seeds = 1

[data]
path = "{data}"

[network]
{network}

[teacher]
steps = 16
batch = 8
lr = 2e-3
warmup = 2
ema_decay = 0.9
level_mean = -1.0
level_deviation = 1.3
{teacher}
[dm]
steps = 6
batch = 4
fake_updates = 2
warmup = 1
fake_warmup = 1
{dm}
[adm]
steps = 6
batch = 4
fake_updates = 2
gan_weight = "0.01"
warmup = 1
fake_warmup = 1
{adm}
{more}
"""

UNET = (
    'architecture = "adm_unet"\nmodel_channels = 4\nchannel_mult = [1, 2]\nnum_blocks = 1\n'
    "attention_resolutions = [4]"
)
NO_PAIRS = 'regression = "none"\n'

# The stage in which each run was killed is named by the folder of its checkpoints.
KINDS = {
    "points": {
        "stopped": "students/1/dm",
        "config": {
            "method": "consecutive",
            "data": "data.safetensors",
            "network": 'architecture = "mlp"\nhidden = 16\nblocks = 2',
            "students": "",
            "count": 40,
            "teacher": "",
            "dm": "",
            "adm": "",
            "more": "[pairs]\ncount = 40\nsteps = 4\nshard = 16\n",
        },
        "sample": ["--count", "6", "--seed", "4"],
    },
    "pictures": {
        "stopped": "students/0/tsm",
        "config": {
            "method": "consecutive",
            "data": "data.zip",
            "network": UNET.replace("model_channels = 4", "model_channels = 8"),
            "students": "widths = [4]\n",
            "count": 16,
            "teacher": "",
            "dm": NO_PAIRS,
            "adm": NO_PAIRS,
            "more": "[pairs]\ncount = 0\n\n[tsm]\nsteps = 8\nbatch = 4\nwarmup = 1\n",
        },
        "sample": ["--count", "4", "--seed", "4", "--class", "0,3", "--engine", "torch"],
    },
    "captions": {
        "stopped": "teacher",
        "config": {
            "method": "kmeans",
            "data": "data",
            "network": UNET,
            "students": "lora_rank = 2\n",
            "count": 4,
            "teacher": "condition_dropout = 0.2\nguidance = 1.5\n",
            "dm": "",
            "adm": "",
            "more": "[text]\nwidth = 8\nlayers = 1\nheads = 2\ntokens = 12\nmerges = 20\n",
        },
        "sample": ["--count", "2", "--seed", "4", "--prompt", "a dark badge", "--engine", "torch"],
    },
}


def write_points(folder):
    angle = np.arange(96) * 0.785398
    wobble = 0.1 * np.stack([np.sin(np.arange(96) * 1.7), np.cos(np.arange(96) * 2.3)], -1)
    points = (np.stack([np.cos(angle), np.sin(angle)], -1) + wobble).astype("<f4")
    labels = (np.arange(96) % 8).astype("<i8")
    header = json.dumps(
        {
            "points": {"dtype": "F32", "shape": [96, 2], "data_offsets": [0, 768]},
            "labels": {"dtype": "I64", "shape": [96], "data_offsets": [768, 1536]},
        }
    ).encode()
    header += b" " * (-len(header) % 8)
    content = len(header).to_bytes(8, "little") + header + points.tobytes() + labels.tobytes()
    (folder / "data.safetensors").write_bytes(content)


def write_pictures(folder, program):
    with tempfile.TemporaryDirectory() as temporary:
        for i in range(40):
            column, row = np.meshgrid(np.arange(8), np.arange(8))
            shade = 40 * (i % 4) + (row if i % 4 < 2 else column) * 12 + i
            pixels = np.stack([shade, 255 - shade, shade // 2], -1).astype("u1")
            path = pathlib.Path(temporary, f"kind{i % 4}", f"{100 + i}.png")
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(path)
        subprocess.run(
            [program, "import", temporary, folder / "data.zip", "--size", "8"], check=True
        )


def write_captioned(folder):
    (folder / "data").mkdir()
    for i in range(12):
        shade = (np.arange(64) * (i + 3)) % 97 + (0 if i < 6 else 120)
        pixels = shade.reshape(8, 8).astype("u1")
        Image.fromarray(pixels).save(folder / "data" / f"{100 + i}.png")
        words = f"a {'dark' if i < 6 else 'bright'} badge, number {i}\n"
        (folder / "data" / f"{100 + i}.txt").write_text(words)


def call(program, arguments, where):
    done = subprocess.run(
        [program, *arguments], cwd=where, env=ALONE, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done


def kill_within(program, where, stopped):
    """Kills a run as soon as the stage has a checkpoint, and as often as that takes."""
    checkpoints = where / "run" / stopped / "training/checkpoints"
    for _ in range(50):
        with subprocess.Popen(
            [program, "run", "config.toml"],
            cwd=where,
            env=ALONE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as job:
            while job.poll() is None:
                if len(list(checkpoints.glob("step-*"))) == 2:
                    break
                time.sleep(0.001)
            job.send_signal(signal.SIGKILL)
        if any(checkpoints.glob("step-*")):
            return
        shutil.rmtree(where / "run")
    raise SystemExit(f"{stopped} was never interrupted")


def lighten(run, stopped):
    """Removes what is not needed to go on: half-written files, old checkpoints, charts' values."""
    for path in [*run.rglob("*.tmp"), *run.rglob(".lock"), *run.rglob("events.out.*")]:
        path.unlink()
    for path in list(run.rglob("training")):
        if path.parent != run / stopped:
            shutil.rmtree(path)
    for old in sorted((run / stopped).glob("training/checkpoints/step-*"))[:-1]:
        old.unlink()


def weights(run):
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*.safetensors"))
        if path.name in ("model.safetensors", "centroids.safetensors")
        and "training" not in path.parts
    }


def processor():
    text = pathlib.Path("/proc/cpuinfo").read_text()
    vendor = next(line.split(": ")[1] for line in text.splitlines() if line.startswith("vendor_id"))
    return {"vendor": vendor, "avx512": " avx512f " in text}


def main():
    program = pathlib.Path(sys.argv[1]).resolve()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    expected = {"processor": processor()}
    for kind, of in KINDS.items():
        where = OUT / kind
        where.mkdir()
        {
            "points": write_points,
            "pictures": lambda folder: write_pictures(folder, program),
            "captions": write_captioned,
        }[kind](where)
        (where / "config.toml").write_text(COMMON.format(**of["config"]))
        kill_within(program, where, of["stopped"])
        lighten(where / "run", of["stopped"])
        with tempfile.TemporaryDirectory() as temporary:
            there = pathlib.Path(temporary, kind)
            shutil.copytree(where, there)
            call(program, ["run", "config.toml"], there)
            expected[kind] = {"stopped": of["stopped"], "weights": weights(there / "run")}
            shutil.copytree(there / "run/ensemble", where / "ensemble")
            if of["stopped"] == "teacher":  # otherwise the interrupted run has it
                shutil.copytree(there / "run/teacher", where / "teacher")
                shutil.rmtree(where / "teacher/training")
            shutil.rmtree(there / "run")
            call(program, ["run", "config.toml"], there)
            undisturbed = weights(there / "run")
            assert undisturbed == expected[kind]["weights"], "the old program did not resume well"
            out = there / "samples.npz"
            call(program, ["sample", where / "ensemble", *of["sample"], "--out", out], there)
            expected[kind]["sample"] = of["sample"]
            expected[kind]["samples"] = hashlib.sha256(out.read_bytes()).hexdigest()
    (OUT / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
