# %% [markdown]
# # First steps
# Cells begin with `# %%`: run them one by one in an editor that supports them, or the whole file
# with `python first_steps.py`.

# %%
from pathlib import Path

import numpy as np

import atelier

project = Path(__file__).resolve().parents[2]

# %% An ensemble: four students, each owning some of the ten classes.
ensemble = atelier.load(project / "models/fashion-mnist/k4")
print(ensemble)
for student, cell in enumerate(ensemble.partition.cells):
    print(f"student {student} owns {', '.join(ensemble.class_names[c] for c in cell)}")

# %% Which student owns a class? Both names and ids are accepted.
print("a sandal and a 9 go to students", ensemble.route(["sandal", 9]))

# %% Eight images, each drawn in one step by the student that owns its class.
images = ensemble.sample(8, classes=["sneaker", "bag"], seed=1)
print(images.shape, images.dtype, "classes", ensemble.labels(8, classes=["sneaker", "bag"], seed=1))

# %% An image depends only on its seed, number and class: the same request gives the same images.
assert np.array_equal(images, ensemble.sample(8, classes=["sneaker", "bag"], seed=1))

# %% A look at the first of them, without an imaging library.
for row in images[0, ::2, :, 0]:
    print("".join(" .:-=+*#%@"[value // 26] for value in row))

# %% The metrics of these weights.
for name, figure in ensemble.metrics.items():
    print(f"{name:24} {figure['mean']:.4f}")

# %% Invalid arguments are rejected with a message.
try:
    ensemble.sample(classes="sneekers")
except ValueError as error:
    print("rejected:", error)

# %% The teacher, a model directory, is an ensemble of one; here with fewer steps than usual.
teacher = atelier.load(project / "models/fashion-mnist/teacher", sampler="heun", steps=8)
print(teacher.evaluations, "evaluations per image:", teacher.sample(2, classes="bag").shape)
