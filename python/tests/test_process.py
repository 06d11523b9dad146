"""The module as a guest in Python's process: its lock, threads, signals and other libraries."""

import _thread
import ast
import contextlib
import sys
import threading

import numpy as np
import pytest
from conftest import MODELS, PROJECT

import atelier


@contextlib.contextmanager
def lock_kept_by_whoever_has_it():
    """Meanwhile no thread of Python runs unless another one waits or gives up the interpreter's lock of its own accord."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e6)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


def ran_meanwhile(work):
    """Whether another thread of Python had its turn while `work` ran."""
    turn, ran = threading.Lock(), []
    turn.acquire()

    def other():
        with turn:
            ran.append(True)

    thread = threading.Thread(target=other)
    with lock_kept_by_whoever_has_it():
        thread.start()
        turn.release()
        before = bool(ran)
        work()
        after = bool(ran)
    thread.join()
    return after and not before


def test_other_threads_do_not_run_while_the_lock_is_kept():
    assert not any(ran_meanwhile(lambda: sum(range(100_000))) for _ in range(20)), "or the tests below say nothing"


@pytest.mark.parametrize("name", ["load", "sample", "evaluate", "hash"])
def test_other_threads_run_while_it_works(name, k4, toy_run):
    toy = atelier.load(toy_run / "ensemble")
    work = {
        "load": lambda: atelier.load(MODELS / "teacher"),
        "sample": lambda: k4.sample(64),
        "evaluate": lambda: toy.evaluate("toy:ring", 100),
        "hash": lambda: k4.hash,
    }[name]
    assert any(ran_meanwhile(work) for _ in range(50))


@pytest.mark.parametrize("name", ["sample", "evaluate"])
def test_an_interrupt_ends_what_would_take_hours(name, k4):
    turn = threading.Lock()
    turn.acquire()

    def other():
        with turn:
            _thread.interrupt_main()

    thread = threading.Thread(target=other)
    with lock_kept_by_whoever_has_it(), pytest.raises(KeyboardInterrupt):
        thread.start()
        turn.release()  # runs once the call below has begun and gives up the lock
        k4.sample(2_000_000) if name == "sample" else k4.evaluate("/usr/share/datasets/fashion-mnist", 2_000_000)
    thread.join()
    assert len(k4.sample(2)) == 2, "and it answers afterwards"


def test_threads_may_share_an_ensemble(k4):
    expected = [k4.sample(8, seed=seed) for seed in range(4)]
    found = [None] * 4

    def draw(seed):
        found[seed] = k4.sample(8, seed=seed)

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(one, other) for one, other in zip(found, expected))


@pytest.mark.parametrize("imports", ["import atelier", "import torch, atelier", "import atelier, torch", "import openvino, torch, atelier", "import atelier, openvino"])
def test_it_works_beside_torch_and_openvino_whoever_came_first(imports, python):
    use = "; print(torch.nn.Linear(2, 2)(torch.ones(1, 2)).shape)" if "torch" in imports else ""
    use += "; print(openvino.Core().available_devices)" if "openvino" in imports else ""
    code = f"{imports}; e = atelier.load('models/fashion-mnist/k4'); print(e.sample(2, seed=1).sum()){use}; print(e.sample(2, seed=1).sum())"
    lines = python("-c", code).splitlines()
    assert lines[0] == lines[-1] and int(lines[0]) > 0


def test_it_leaves_torchs_settings_alone(python):
    code = (
        "import torch, atelier; torch.set_default_dtype(torch.float64)\n"
        "e = atelier.load('models/fashion-mnist/k4', engine='torch'); a = e.sample(3, seed=1)\n"
        "assert torch.get_default_dtype() == torch.float64 and torch.is_grad_enabled() and not torch.are_deterministic_algorithms_enabled()\n"
        "torch.set_default_dtype(torch.float32); assert (e.sample(3, seed=1) == a).all()"
    )
    python("-c", code)


def test_stubs_name_what_the_module_has():
    tree = ast.parse((PROJECT / "python/atelier/_atelier.pyi").read_text())
    from atelier import _atelier

    stubs = {node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    assert stubs == {name for name in dir(_atelier) if not name.startswith("_")}
    methods = {node.name for owner in tree.body if isinstance(owner, ast.ClassDef) and owner.name == "Ensemble" for node in owner.body}
    assert methods - {"__init__"} == {name for name in dir(_atelier.Ensemble) if not name.startswith("_")}


def test_everything_public_says_what_it_is():
    for name in atelier.__all__:
        thing = getattr(atelier, name)
        assert thing.__doc__, name
        for member in vars(thing) if isinstance(thing, type) and not issubclass(thing, Exception) else ():
            if not member.startswith("_") and (callable(getattr(thing, member)) or isinstance(vars(thing)[member], property)):
                assert vars(thing)[member].__doc__, f"{name}.{member}"
