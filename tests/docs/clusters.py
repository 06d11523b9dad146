#!/usr/bin/env python3
"""Types what docs/clusters.md says: python3 tests/docs/clusters.py build/release/atelier

Every command of that page's code blocks runs here, on a CPU, with networks, data and steps that
take seconds (TINY); ranks sum over Gloo. Clusters' own commands are stand-ins that start what the
real ones would, with the variables that those set: srun, mpirun, sbatch, scontrol, kubectl, and the
Python module ray; torchrun is PyTorch's, if it is installed. Of more than four ranks four are
started, except in Kubernetes' files, which say how many there are.

Exit code 77: something that is needed is not installed, which is named; the rest has run.
"""

import os
import pathlib
import random
import re
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import zlib

import pages

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/clusters.md"
COMMANDS = ("atelier", "srun", "mpirun", "sbatch", "scontrol", "kubectl")
MOST_RANKS = 4
IMAGES = """data.path=colours data.shape=[3,8,8] data.classes=8 teacher.path=
    network.model_channels=16 network.channel_mult=[1,2] network.num_blocks=1
    network.attention_resolutions=[4] device=cpu
    threads=1 students.threads=1 teacher.steps=3 teacher.batch=8 teacher.micro_batch=2 probe.every=0
    probe.count=8 evaluate.count=16 evaluate.steps=2 dm.steps=2 dm.batch=8 dm.micro_batch=2
    dm.fake_updates=1 adm.steps=2 adm.batch=8 adm.micro_batch=2 adm.fake_updates=1"""
TINY = {
    "imagenet64-msd4-adm": IMAGES,
    # The weights of LPIPS are not shipped.
    "imagenet64-msd4-pairs": f"""{IMAGES} pairs.count=32 pairs.steps=2 pairs.shard=4
        dm.regression=pseudo_huber""",
    "toy2d": """network.hidden=16 network.blocks=1 teacher.steps=20 teacher.batch=64
        pairs.count=256 pairs.steps=4 pairs.shard=16 dm.steps=6 adm.steps=4 probe.every=0
        probe.count=64 evaluate.count=200 evaluate.seeds=2""",
}


def free_port():
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return any_port.getsockname()[1]


# What stands in for the commands, each in a process of its own, in the test's folder.


def tiny(words):
    """The words of a call of atelier, with smaller sizes and on the CPU."""
    config = next((word for word in words if word.endswith(".toml")), None)
    dry = "--dry-run" in words
    named = {word.partition("=")[0] for word in words}
    made = []
    for before, word in zip([""] + words, words):
        if word == "/runs/config.toml":  # of pods, which share that volume
            made += ["configs/toy2d.toml", "output=runs/volume"]
        elif word.startswith("device=cuda"):
            made.append("device=cpu")
        elif before == "--count":
            made.append("200")
        elif before == "--data":
            made.append("greys")
        else:
            made.append(word)
        if word == config and not dry:
            name = "toy2d" if word.startswith("/") else pathlib.Path(word).stem
            made += [key for key in TINY[name].split() if key.partition("=")[0] not in named]
    return [*made, "--count", "200"] if words[0] == "evaluate" and not config else made


def atelier(words):
    """The program; what it was called with and how it ended are appended to the list of calls."""
    program, calls = os.environ["CLUSTERS_PROGRAM"], os.environ["CLUSTERS_CALLS"]
    code = subprocess.run([program, *tiny(words)], check=False).returncode
    with open(calls, "a", encoding="utf-8") as file:
        file.write(f"{code} {shlex.join(words)}\n")
    return code


def ranks(command, variables):
    """Starts a process for each mapping of variables; returns the largest exit code."""
    children = [
        subprocess.Popen(command, env={**os.environ, **{k: str(v) for k, v in of_rank.items()}})
        for of_rank in variables
    ]
    return max(child.wait() for child in children)


def after_options(words, with_value):
    """({option: value}, the words after the options); `with_value`: those without "="."""
    options, words = {}, list(words)
    while words and words[0].startswith("-"):
        name, equals, value = words.pop(0).partition("=")
        options[name] = value if equals or name not in with_value else words.pop(0)
    return options, words


def srun(words):
    options, command = after_options(words, {"--ntasks"})
    tasks = min(int(options.get("--ntasks", os.environ.get("CLUSTERS_TASKS", 1))), MOST_RANKS)
    job = os.environ.get("SLURM_JOB_ID", random.randrange(1, 10**6))
    return ranks(
        command,
        [
            {
                "SLURM_JOB_ID": job,
                "SLURM_STEP_ID": random.randrange(1000),
                "SLURM_JOB_NODELIST": "localhost",
                "SLURM_NTASKS": tasks,
                "SLURM_PROCID": rank,
                "SLURM_LOCALID": rank,
                "MASTER_PORT": port,
            }
            for port in [free_port()]
            for rank in range(tasks)
        ]
        if tasks > 1
        else [{"SLURM_JOB_ID": job, "SLURM_STEP_ID": 0, "SLURM_NTASKS": 1, "SLURM_PROCID": 0}],
    )


def mpirun(words):
    options, command = after_options(words, {"-np"})
    size, port = min(int(options["-np"]), MOST_RANKS), free_port()
    return ranks(
        command,
        [
            {
                "OMPI_COMM_WORLD_RANK": rank,
                "OMPI_COMM_WORLD_LOCAL_RANK": rank,
                "OMPI_COMM_WORLD_SIZE": size,
                "MASTER_PORT": port,
            }
            for rank in range(size)
        ],
    )


def sbatch(words):
    """Runs the script once for each number of its array, one after the other."""
    options, rest = after_options(words, {"--wrap"})
    if "--wrap" in options:
        return subprocess.run(["bash", "-c", options["--wrap"]], check=False).returncode
    said = re.findall(r"^#SBATCH (--[a-z-]+)(?:=(\S+))?$", pathlib.Path(rest[0]).read_text(), re.M)
    options = {**dict(said), **options}
    first, last = map(int, options["--array"].split("-"))
    per_node = options.get("--ntasks-per-node") or options.get("--ntasks") or 1
    for task in range(first, last + 1):
        variables = {
            "SLURM_JOB_ID": 400 + task,
            "SLURM_ARRAY_JOB_ID": 400,
            "SLURM_ARRAY_TASK_ID": task,
            "SLURM_ARRAY_TASK_COUNT": last - first + 1,
            "SLURM_ARRAY_TASK_MIN": first,
            "SLURM_ARRAY_TASK_MAX": last,
            "CLUSTERS_TASKS": int(options.get("--nodes", 1)) * int(per_node),
        }
        if code := ranks(["bash", *rest], [variables]):
            return code
    return 0


def scontrol(_):
    return 1  # nothing is preempted here, so nothing is to be queued again


def kubectl(words):
    """Starts the pods of Indexed Jobs: together where WORLD_SIZE is set, else one by one."""
    import yaml

    assert words[:2] == ["apply", "-f"], words
    for document in yaml.safe_load_all(pathlib.Path(words[2]).read_text()):
        if document["kind"] != "Job":
            continue
        spec = document["spec"]
        container = spec["template"]["spec"]["containers"][0]
        variables = {entry["name"]: entry["value"] for entry in container.get("env", [])}
        if "WORLD_SIZE" in variables:  # the name of a pod means something in a cluster only
            variables |= {"MASTER_ADDR": "localhost", "MASTER_PORT": free_port()}
        pods = [{**variables, "JOB_COMPLETION_INDEX": i} for i in range(spec["completions"])]
        assert container["command"] == ["/opt/atelier/bin/atelier"], container["command"]
        for together in [pods] if "WORLD_SIZE" in variables else [[pod] for pod in pods]:
            if code := ranks(["atelier", *container["args"]], together):
                return code
    return 0


RAY = '''
"""Runs tasks at once, in this process."""


class remote:
    def __init__(self, **options):
        assert options["num_gpus"] == 1 and options["retry_exceptions"], options

    def __call__(self, function):
        self.remote = function
        return self


def get(results):
    return results
'''

# The test.


def png(side, channels, number):
    """A picture of one colour with a bright square; the bytes of a PNG."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data))
            + name
            + data
            + struct.pack(">I", zlib.crc32(name + data))
        )

    rows = b""
    for y in range(side):
        rows += b"\0"
        for x in range(side):
            inside = side // 4 <= x < side // 2 and side // 4 <= y < side // 2 + number % 5
            rows += bytes((200 if inside else 20 + number * (9 + c)) % 256 for c in range(channels))
    kind = {1: 0, 3: 2}[channels]
    head = struct.pack(">IIBBBBB", side, side, 8, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def make_folder(folder, program):
    """What the page's commands find: the project's files, stand-ins, and data."""
    for name in ("configs", "models", "deploy", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    for name, side, channels, kinds in (("colours", 8, 3, 8), ("greys", 28, 1, 10)):
        for i in range(8 * kinds):
            path = folder / name / f"kind{i % kinds}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(side, channels, i))
    (folder / "bin").mkdir()
    (folder / "build/release").mkdir(parents=True)
    for command in COMMANDS:
        stand_in = folder / "bin" / command
        stand_in.write_text(
            f'#!/bin/sh\nexec {sys.executable} {__file__} --instead-of {command} "$@"\n'
        )
        stand_in.chmod(0o755)
    (folder / "build/release/atelier").symlink_to(folder / "bin/atelier")
    torchrun = pathlib.Path(sys.executable).parent / "torchrun"
    # It imports torch, whose CUDA build needs more of NVIDIA's libraries than Atelier does.
    try:
        subprocess.run([torchrun, "--help"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pass
    else:
        (folder / "bin/torchrun").symlink_to(torchrun)
    (folder / "modules").mkdir()
    (folder / "modules/ray.py").write_text(RAY)
    return {
        **os.environ,
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "CLUSTERS_PROGRAM": str(program),
        "CLUSTERS_CALLS": str(folder / "calls"),
        "OMP_NUM_THREADS": "1",
        "ATELIER_CACHE": "off",
    }


def blocks():
    """The page's code blocks: [(number of the first line, text)]."""
    lines, found, last = PAGE.read_text().split("\n"), [], None
    for number, line in pages.split_code(PAGE.read_text())[1]:
        # Blank lines within a block do not end it.
        if last is None or any(between.strip() for between in lines[last : number - 1]):
            found.append((number, []))
        found[-1][1].append(line[4:])
        last = number
    return [(number, "\n".join(of_block)) for number, of_block in found]


def shell_commands(text):
    """The commands of a block; a loop is one."""
    commands, loop = [], []
    for line in text.split("\n"):
        if loop or (line.startswith("for ") and "done" not in line):
            loop.append(line)
            if line.startswith("done"):
                commands.append("\n".join(loop))
                loop = []
        else:
            commands.append(line)
    assert not loop, f"a loop does not end: {loop}"
    return commands


def weights_in(run):
    """{name: bytes} of a run's models."""
    found = {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in sorted(run.rglob("model.safetensors"))
        if "training" not in path.parts
    }
    assert found, f"{run}: there are no models"
    return found


class Typist:
    def __init__(self, folder, environment):
        self.folder, self.environment = folder, environment
        self.typed, self.missing = 0, set()

    def type(self, command, *, said_so=True):
        """Runs one command in bash; every call of atelier in it must end with 0."""
        calls = self.folder / "calls"
        calls.write_text("")
        done = subprocess.run(
            ["bash", "-euc", command],
            cwd=self.folder,
            env={**self.environment, "PET_MASTER_PORT": str(free_port())},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        made = calls.read_text().splitlines()
        bad = [call for call in made if not call.startswith("0 ")]
        if done.returncode != 0 or bad or (not made and "simulate" not in command):
            said = f"{done.stdout}\n{done.stderr}"
            raise AssertionError(f"{command}\nexit code {done.returncode}, calls {made}\n{said}")
        self.typed += said_so
        return done.stdout

    def start_again(self, *runs):
        for run in runs:
            shutil.rmtree(self.folder / "runs" / run, ignore_errors=True)

    def one_machine(self, text):
        """A block of runs that begin with nothing; returns the weights that it comes to."""
        self.start_again("imagenet64-msd4-adm")
        for command in shell_commands(text):
            self.type(command)
        run = self.folder / "runs/imagenet64-msd4-adm"
        assert (run / "report.html").exists() and (run / "ensemble").exists()
        return weights_in(run)

    def shards(self, text):
        for command in shell_commands(text):
            self.type(command)
        assert (self.folder / "runs/imagenet64-msd4-pairs/pairs/manifest.json").exists()
        assert len(list((self.folder / "pictures").glob("*.png"))) == 200
        assert (self.folder / "evaluation/evaluation.json").exists()

    def ranks(self, text, expected):
        self.start_again("imagenet64-msd4-adm", "toy2d")
        for command in shell_commands(text):
            if command.startswith("torchrun") and not (self.folder / "bin/torchrun").exists():
                self.missing.add("torchrun")
                continue
            self.type(command)
            if command.startswith("srun"):
                run = self.folder / "runs/imagenet64-msd4-adm"
                assert weights_in(run) == expected, "ranks came to other weights"
                self.start_again("imagenet64-msd4-adm")

    def slurm(self, text):
        self.start_again("toy2d")
        run, alone = self.folder / "runs/toy2d", None
        for command in shell_commands(text.replace("CONFIG", "configs/toy2d.toml")):
            if "students-ranks" in command:  # the same students in another way
                alone = weights_in(run)
                shutil.rmtree(run / "students")
            self.type(command)
        assert alone.items() <= weights_in(run).items(), "ranks came to other weights"
        assert (run / "evaluation.json").exists() and (run / "report.html").exists()

    def kubernetes(self, text):
        self.start_again("volume")
        run, alone = self.folder / "runs/volume", None
        # "with a pod that runs ..."
        for stage in ("teacher", "partition", "pairs"):
            self.type(f"atelier {stage} /runs/config.toml", said_so=False)
        for command in shell_commands(text):
            if "ranks.yaml" in command:
                alone = weights_in(run)
                shutil.rmtree(run / "students/0")
            self.type(command)
        assert weights_in(run) == alone, "ranks came to other weights"

    def pytorch_job(self, text):
        import yaml

        worker = yaml.safe_load(text)["spec"]["pytorchReplicaSpecs"]["Worker"]
        command = worker["template"]["spec"]["containers"][0]["command"]
        words = ["atelier" if "/atelier" in word else word for word in command]
        words[2:3] = [str(self.folder / "bin/atelier")] if words[2] == "atelier" else words[2:3]
        before = weights_in(self.folder / "runs/volume")
        shutil.rmtree(self.folder / "runs/volume/students/0")
        # The operator sets the number of processes in this way.
        self.type(f"export PET_NPROC_PER_NODE=2; {shlex.join(words)}")
        assert weights_in(self.folder / "runs/volume") == before, "ranks came to other weights"

    def ray(self, text):
        before = weights_in(self.folder / "runs/volume")
        shutil.rmtree(self.folder / "runs/volume/students")
        self.type(f"PYTHONPATH=modules {sys.executable} - <<'END'\n{text}\nEND")
        assert weights_in(self.folder / "runs/volume") == before

    def page(self):
        ways, yaml_there = [], True
        try:
            import yaml  # noqa: F401
        except ImportError:
            yaml_there = False
            self.missing.add("PyYAML")
        for number, text in blocks():
            print(f"{PAGE.name}:{number}", flush=True)
            if "torchrun --no-python" in text and "kind:" not in text:
                self.ranks(text, ways[0])
            elif "sbatch" in text:
                self.slurm(text)
            elif "kubectl" in text:
                if yaml_there:
                    self.kubernetes(text)
            elif "kind: PyTorchJob" in text:
                if yaml_there and (self.folder / "bin/torchrun").exists():
                    self.pytorch_job(text)
            elif "import ray" in text:
                if yaml_there:
                    self.ray(text)
            elif "--shard" in text:
                self.shards(text)
            elif "--status" in text or "--dry-run" in text:
                for command in shell_commands(text):
                    assert self.type(command), f"{command} says nothing"
            elif "imagenet64-msd4-adm" in text:
                ways.append(self.one_machine(text))
            else:
                raise AssertionError(f"{PAGE}:{number}: nothing types this block:\n{text}")
        assert len(ways) == 2 and ways[0] == ways[1], "the two ways differ, or there are others"


def main():
    program = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        typist = Typist(folder, make_folder(folder, program))
        typist.page()
    print(f"{typist.typed} commands of {PAGE.name} were typed")
    if typist.missing:
        print(f"not installed, so what needs it was left out: {', '.join(sorted(typist.missing))}")
        sys.exit(77)


if __name__ == "__main__":
    if sys.argv[1] == "--instead-of":
        sys.exit(globals()[sys.argv[2]](sys.argv[3:]))
    main()
