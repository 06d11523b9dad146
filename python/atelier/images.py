"""The array type that `sample` returns for images."""

from __future__ import annotations

from typing import Any

import numpy as np

from atelier import _atelier


class Images(np.ndarray):
    """A numpy array, uint8 [N, height, width, channels], that other libraries and notebooks show.

    `PIL.Image.fromarray(images[0])` works for grey images too, for which Pillow expects
    [height, width]; notebooks display the images side by side instead of numbers.
    `np.asarray(images)` is the plain array.
    """

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """Drops the last axis of a single grey image. numpy itself does not use this interface."""
        grey = self.dtype == np.uint8 and self.ndim == 3 and self.shape[2] == 1
        plain = self.view(np.ndarray)
        return (plain[:, :, 0] if grey else plain).__array_interface__

    def grid(self, columns: int = 10, gap: int = 2) -> Images:
        """All images in rows of `columns` with `gap` grey pixels between them.

        Returns uint8 [height, width, channels].
        """
        if not self._shows() or self.ndim != 4:
            raise _atelier.UsageError(
                f"a grid is made of images, uint8 [N, height, width, channels]; these are "
                f"{self.dtype} {list(self.shape)}"
            )
        if columns < 1 or gap < 0:
            raise _atelier.UsageError(
                f"columns is {columns} and gap {gap}; they must be at least 1 and 0"
            )
        count, height, width, channels = self.shape
        columns = min(columns, max(count, 1))
        rows = -(-count // columns)
        sheet = np.full(
            (rows * (height + gap) - gap if rows else 0, columns * (width + gap) - gap, channels),
            128,
            np.uint8,
        )
        for i, image in enumerate(np.asarray(self)):
            top, left = i // columns * (height + gap), i % columns * (width + gap)
            sheet[top : top + height, left : left + width] = image
        return sheet.view(Images)

    def _shows(self) -> bool:
        """Whether these are still images: slices of images are, sums of them are not."""
        return bool(
            self.dtype == np.uint8
            and self.ndim in (3, 4)
            and self.shape[-1] in (1, 3)
            and self.size
        )

    def _repr_png_(self) -> bytes | None:
        """The display in notebooks: at most the first hundred images."""
        if not self._shows():
            return None
        sheet = self[:100].grid() if self.ndim == 4 else self
        return _atelier.encode_png(np.ascontiguousarray(sheet, np.uint8).view(np.ndarray))
