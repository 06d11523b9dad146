"""The module within Python's process: its lock, threads, signals and other libraries."""

import _thread
import contextlib
import pickle
import sys
import threading

import numpy as np
import pytest
from conftest import MODELS, PROJECT

import atelier


@contextlib.contextmanager
def without_thread_switches():
    """Python threads are switched only when one waits or releases the interpreter's lock itself."""
    previous = sys.getswitchinterval()
    sys.setswitchinterval(1e6)
    try:
        yield
    finally:
        sys.setswitchinterval(previous)


def another_thread_ran_during(work):
    """Whether another Python thread ran during `work`."""
    turn, ran = threading.Lock(), []
    turn.acquire()

    def other():
        with turn:
            ran.append(True)

    thread = threading.Thread(target=other)
    with without_thread_switches():
        thread.start()
        turn.release()
        before = bool(ran)
        work()
        after = bool(ran)
    thread.join()
    return after and not before


def test_other_threads_do_not_run_while_the_lock_is_kept():
    assert not any(another_thread_ran_during(lambda: sum(range(100_000))) for _ in range(20)), (
        "otherwise the tests below prove nothing"
    )


def first_hash():
    """Reads every weight; asked for again, a hash is known, and no other thread could run."""
    ensemble = atelier.load(MODELS / "k4")
    return lambda: ensemble.hash


@pytest.mark.parametrize("name", ["load", "sample", "evaluate", "hash"])
def test_other_threads_run_while_it_works(name, k4, toy_run):
    toy = atelier.load(toy_run / "ensemble")
    prepare = {
        "load": lambda: lambda: atelier.load(MODELS / "teacher"),
        "sample": lambda: lambda: k4.sample(64),
        "evaluate": lambda: lambda: toy.evaluate("toy:ring", 100),
        "hash": first_hash,
    }[name]
    assert any(another_thread_ran_during(prepare()) for _ in range(50))


@pytest.mark.parametrize("name", ["sample", "evaluate"])
def test_an_interrupt_ends_a_call_of_hours(name, k4):
    turn = threading.Lock()
    turn.acquire()

    def other():
        with turn:
            _thread.interrupt_main()

    thread = threading.Thread(target=other)
    with without_thread_switches(), pytest.raises(KeyboardInterrupt):
        thread.start()
        turn.release()  # runs once the call below has begun and gives up the lock
        k4.sample(2_000_000) if name == "sample" else k4.evaluate(
            "/usr/share/datasets/fashion-mnist", 2_000_000
        )
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


@pytest.mark.parametrize(
    "imports",
    [
        "import atelier",
        "import torch, atelier",
        "import atelier, torch",
        "import openvino, torch, atelier",
        "import atelier, openvino",
    ],
)
def test_it_works_beside_torch_and_openvino_in_any_import_order(imports, python, request):
    if "torch" in imports:
        request.getfixturevalue("importable_torch")
    use = "; print(torch.nn.Linear(2, 2)(torch.ones(1, 2)).shape)" if "torch" in imports else ""
    use += "; print(openvino.Core().available_devices)" if "openvino" in imports else ""
    code = (
        f"{imports}; e = atelier.load('models/fashion-mnist/k4'); "
        f"print(e.sample(2, seed=1).sum()){use}; print(e.sample(2, seed=1).sum())"
    )
    lines = python("-c", code).splitlines()
    assert lines[0] == lines[-1] and int(lines[0]) > 0


ENGINES = pytest.mark.parametrize(
    "how", [{}, {"precision": "bf16"}, {"engine": "torch"}], ids=["native", "openvino", "torch"]
)

FORK = """
import os, signal, sys
import atelier
how = {how}
ensemble = atelier.load("models/fashion-mnist/k4", **how)
{before}
child = os.fork()
if child == 0:
    signal.alarm(60)
    {inside}
    sys.exit(0)
status = os.waitpid(child, 0)[1]
assert status == 0, status
print("parent", len(ensemble.sample(2)))
"""


@ENGINES
def test_a_forked_process_reports_immediately_that_it_cannot_draw(how, python):
    inside = (
        "for ask in (lambda: ensemble.sample(64),"
        " lambda: atelier.load('models/fashion-mnist/k4', **how), lambda: ensemble.hash):\n"
        "        try: ask()\n"
        "        except atelier.Error as error:"
        " print('multiprocessing.get_context(\"spawn\")' in str(error), flush=True)"
    )
    assert python(
        "-c", FORK.format(how=how, before="ensemble.sample(64)", inside=inside)
    ).split() == ["True"] * 3 + ["parent", "2"]


@ENGINES
def test_processes_that_are_forked_before_anything_was_drawn_can_draw(how, python):
    printed = python(
        "-c",
        FORK.format(
            how=how,
            before="",
            inside="print(len(ensemble.sample(64)),"
            " len(atelier.load('models/fashion-mnist/k4', **how).sample(64)), flush=True)",
        ),
    )
    assert printed.split() == ["64", "64", "parent", "2"]


@pytest.mark.parametrize(
    "model",
    ["models/fashion-mnist/teacher", "models/fashion-mnist/k4/students/0", "models/captions"],
)
def test_a_process_that_is_forked_after_a_load_draws_or_reports_that_it_cannot(model, python):
    inside = (
        "try: print(len(other.sample(2, prompts='a bag') if other.reads_prompts"
        " else other.sample(2, classes=0)), flush=True)\n"
        "    except atelier.Error as error: print('forked' in str(error), flush=True)"
    )
    assert python(
        "-c", FORK.format(how={}, before=f"other = atelier.load({model!r})", inside=inside)
    ).split() in (["True", "parent", "2"], ["2", "parent", "2"])


def test_a_pool_of_forked_processes_propagates_the_error(python):
    code = """
import multiprocessing
import atelier
ensemble = atelier.load("models/fashion-mnist/k4")
ensemble.sample(64)
def draw(seed):
    return ensemble.sample(64, seed=seed).shape
with multiprocessing.get_context("fork").Pool(2) as pool:
    try:
        pool.map(draw, [1, 2])
    except atelier.Error as error:
        print("forked" in str(error))
"""
    assert python("-W", "ignore", "-c", code) == "True\n"


def test_a_pickled_ensemble_is_loaded_again_in_another_process(k4, tmp_path, python):
    small = atelier.load(MODELS / "k4-small", engine="torch")
    again = pickle.loads(pickle.dumps(small))
    assert (again.engine, again.path) == ("torch", MODELS / "k4-small") and np.array_equal(
        again.sample(3, seed=5), small.sample(3, seed=5)
    )
    teacher = atelier.load(MODELS / "teacher", sampler="heun", steps=3)
    assert pickle.loads(pickle.dumps(teacher)).evaluations == teacher.evaluations
    (tmp_path / "k4").write_bytes(pickle.dumps(k4))
    code = (
        f"import pickle; e = pickle.load(open({str(tmp_path / 'k4')!r}, 'rb')); "
        "print(e.sample(3, seed=2).sum())"
    )
    assert int(python("-c", code, folder=tmp_path)) == k4.sample(3, seed=2).sum()


def test_it_leaves_torchs_settings_alone(python, importable_torch):
    code = (
        "import torch, atelier; torch.set_default_dtype(torch.float64)\n"
        "e = atelier.load('models/fashion-mnist/k4', engine='torch'); a = e.sample(3, seed=1)\n"
        "assert torch.get_default_dtype() == torch.float64 and torch.is_grad_enabled()\n"
        "assert not torch.are_deterministic_algorithms_enabled()\n"
        "torch.set_default_dtype(torch.float32); assert (e.sample(3, seed=1) == a).all()"
    )
    python("-c", code)



def test_everything_public_is_documented():
    for name in atelier.__all__:
        thing = getattr(atelier, name)
        assert thing.__doc__, name
        for member in (
            vars(thing) if isinstance(thing, type) and not issubclass(thing, Exception) else ()
        ):
            if not member.startswith("_") and (
                callable(getattr(thing, member)) or isinstance(vars(thing)[member], property)
            ):
                assert vars(thing)[member].__doc__, f"{name}.{member}"


def test_a_torch_of_another_version_is_rejected_when_imported_and_else_raises_a_warning(
    python, tmp_path
):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("__version__ = '1.2.3'\n")
    (tmp_path / "torch/version.py").write_text("__version__ = '1.2.3'\n")
    before = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    refused = (
        before
        + "import torch\ntry: import atelier\n"
        + "except ImportError as error: print('torch 1.2.3 is imported' in str(error))"
    )
    assert python("-c", refused) == "True\n"
    warned = (
        before
        + "import warnings\nwith warnings.catch_warnings(record=True) as raised:\n"
        + "    warnings.simplefilter('always')\n    import atelier\n"
        + "print(sum('torch 1.2.3 is installed' in str(one.message) for one in raised))"
    )
    assert python("-c", warned) == "1\n"
