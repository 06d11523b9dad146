"""The files of deploy/ that start training: python3 tests/deploy/check.py build/release/atelier

Slurm scripts must parse and run, against commands that stand in for srun and scontrol; Kubernetes'
files must be YAML with the parts that training relies on; and the program must take every command
line in them. Exit code 77: PyYAML is not installed.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
SLURM = sorted((ROOT / "deploy" / "slurm").glob("*.sbatch"))
WORDS = {
    "students": ["configs/toy2d.toml", "output={0}/run"],
    "students-ranks": ["configs/toy2d.toml", "output={0}/run"],
    "shards": ["pairs", "configs/toy2d.toml", "output={0}/run"],
}
ARRAY = {
    "SLURM_ARRAY_JOB_ID": "40",
    "SLURM_ARRAY_TASK_ID": "1",
    "SLURM_ARRAY_TASK_COUNT": "4",
    "SLURM_ARRAY_TASK_MIN": "0",
    "SLURM_ARRAY_TASK_MAX": "3",
}


def takes(program, words, environment):
    """Throws unless the program understands a command line; that files are missing is no matter."""
    done = subprocess.run(
        [program, *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "--help" not in done.stderr, f"{' '.join(words)}: {done.stderr}"


def run_script(script, folder, code, program=None):
    """Runs a Slurm script; returns its exit code, srun's words, and scontrol's."""
    tools = pathlib.Path(folder)
    for name, text in {
        "srun": f'printf "%s\\n" "$@" > {tools}/srun.log; exit {code}',
        "scontrol": f'printf "%s\\n" "$@" > {tools}/scontrol.log',
    }.items():
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    for log in tools.glob("*.log"):
        log.unlink()
    environment = dict(os.environ, PATH=f"{tools}:{os.environ['PATH']}", **ARRAY)
    if program:
        environment["ATELIER"] = program
    words = [word.format(folder) for word in WORDS[script.stem]]
    done = subprocess.run(
        ["bash", str(script), *words], cwd=ROOT, env=environment, capture_output=True, check=False
    )
    read = {
        name: (tools / f"{name}.log").read_text().split("\n")[:-1]
        if (tools / f"{name}.log").exists()
        else []
        for name in ("srun", "scontrol")
    }
    return done.returncode, read["srun"], read["scontrol"]


def check_slurm(program):
    assert {script.stem for script in SLURM} == set(WORDS), "a script has no words to try it with"
    for script in SLURM:
        subprocess.run(["bash", "-n", str(script)], check=True)
        settings = re.findall(r"^#SBATCH (--[a-z-]+)(?:=\S+)?$", script.read_text(), re.MULTILINE)
        assert "--requeue" in settings and "--array" in settings, f"{script.name}: {settings}"
        with tempfile.TemporaryDirectory() as folder:
            code, started, queued = run_script(script, folder, 0, program)
            assert code == 0 and not queued, f"{script.name}: exit code {code}"
            at = started.index(program)
            environment = dict(os.environ, **ARRAY)
            takes(program, started[at + 1 :], environment)
            if script.stem == "shards":
                assert started[-2:] == ["--shard", "auto"], started
                continue
            assert "--signal" in settings, f"{script.name}: nothing warns it of the time limit"
            for code in (75, 130):
                ended, _, queued = run_script(script, folder, code, program)
                assert ended == code and queued == ["requeue", "40_1"], (script.name, ended, queued)
            ended, _, queued = run_script(script, folder, 1, program)
            assert ended == 1 and not queued, f"{script.name}: a failed student is queued again"


def check_kubernetes(program, yaml):
    jobs = 0
    for path in sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            assert {"apiVersion", "kind", "metadata"} <= set(document), path.name
            if document["kind"] != "Job":
                continue
            jobs += 1
            spec = document["spec"]
            assert spec["completionMode"] == "Indexed", path.name
            rules = {
                code: rule["action"]
                for rule in spec["podFailurePolicy"]["rules"]
                for code in rule.get("onExitCodes", {}).get("values", [])
            }
            assert rules == {75: "Ignore", 130: "Ignore", 2: "FailJob"}, f"{path.name}: {rules}"
            pod = spec["template"]["spec"]
            assert pod["restartPolicy"] == "Never", path.name
            container = pod["containers"][0]
            assert container["resources"]["limits"]["nvidia.com/gpu"] == 1, path.name
            variables = {entry["name"]: entry["value"] for entry in container.get("env", [])}
            if "WORLD_SIZE" in variables:
                assert int(variables["WORLD_SIZE"]) == spec["completions"], path.name
                name = document["metadata"]["name"]
                assert variables["MASTER_ADDR"] == f"{name}-0.{pod['subdomain']}", path.name
            words = [
                str(ROOT / "configs/toy2d.toml") if word.endswith(".toml") else word
                for word in container["args"]
            ]
            with tempfile.TemporaryDirectory() as folder:
                environment = dict(os.environ, JOB_COMPLETION_INDEX="1")
                takes(program, [*words, f"output={folder}/run"], environment)
    assert jobs == 2, f"{jobs} jobs were found"


def main():
    program = str(pathlib.Path(sys.argv[1]).resolve())
    check_slurm(program)
    try:
        import yaml
    except ImportError:
        print("PyYAML is not installed; Kubernetes' files were not read")
        sys.exit(77)
    check_kubernetes(program, yaml)
    print(f"{len(SLURM)} Slurm scripts and Kubernetes' files are as they should be")


if __name__ == "__main__":
    main()
