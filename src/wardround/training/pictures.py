"""Rows that stay as they are stored, on disk or in memory, until a batch is made of them.

A pixel x of a picture becomes (x - low) / (high - low), in the training dtype, on the training device; where pictures are
standardised, a network is then given (x - mean) / scale of its channel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]
_ROOM = 4
"""Pictures are moved to a GPU, as they are stored, where they take no more than this fraction (1 / n) of its free memory."""

_BLOCK = 2**21
"""Numbers that are held in float64 at once while pictures are summed up."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Standard:
    """(x - mean) / scale, by channel and by where a row came from.

    Attributes:
        mean, scale: float64 [S, C].
        owner: integers [R], which of the S holds for each row; None where there is one for all.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    owner: NDArray[np.integer[Any]] | None = None

    def __call__(self, x: Tensor, rows: NDArray[np.integer[Any]]) -> Tensor:
        """Pictures as a network is given them.

        Args:
            x: [*rows.shape, C, *sizes].
            rows: their numbers, of any shape; without `owner` only its dimensions matter.

        Returns:
            As x, which is not changed.
        """
        which = np.zeros([1] * rows.ndim, dtype=np.int64) if self.owner is None else self.owner[rows]
        spread = (*which.shape, -1, *[1] * (x.dim() - rows.ndim - 1))
        mean, factor = (torch.from_numpy(own[which]).to(x.dtype).to(x.device) for own in (self.mean, 1.0 / self.scale))
        return (x - mean.view(spread)).mul_(factor.view(spread))


Recipe = tuple[list[str], Ints, tuple[float, float] | None, torch.dtype, Standard | None]
"""Files of the parts, their order, scale, dtype and standard: what a process needs to make the same `Pictures`."""


class Pictures:
    """The stored rows of several sites as one array [R, *shape]: what training asks of a tensor of features, and no more.

    Args:
        parts: arrays [n, *shape] of one shape, memory maps included; the rows of all, one part after another, are numbered.
        order: int64 [R], which of them stands at each place; None for all, in their order.
        scale: (low, high) of stored numbers, or None to take them as they are.
        dtype, device: of the tensors that are made.
        standard: what `[...]` applies, and `index_select` does not: training augments in between.

    Attributes:
        dtype, device, shape: of the tensors that are made, as a tensor has them.
        standard: as given.
    """

    def __init__(
        self, parts: Sequence[NDArray[Any]], *, order: Ints | None = None, scale: tuple[float, float] | None = None,
        dtype: torch.dtype = torch.float32, device: torch.device | None = None, standard: Standard | None = None,
    ) -> None:  # fmt: skip
        self._parts = tuple(parts)
        self._ends: Ints = np.cumsum([len(part) for part in parts], dtype=np.int64)
        self._order: Ints = np.arange(self._ends[-1]) if order is None else order
        self._scale, self.dtype, self.standard = scale, dtype, standard
        self.device = device or torch.device("cpu")
        self._moved: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        """[R, *shape]."""
        return torch.Size((len(self._order), *self._parts[0].shape[1:]))

    @property
    def nbytes(self) -> int:
        """Bytes of the rows as they are stored."""
        return sum(part.nbytes for part in self._parts)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, rows: Tensor | int) -> Tensor:
        """The rows with the numbers in a tensor of any shape, or one row, as a network is given them."""
        if isinstance(rows, int):
            return self[torch.tensor([rows])][0]
        found = self.index_select(0, rows.reshape(-1)).view(*rows.shape, *self.shape[1:])
        return found if self.standard is None else self.standard(found, rows.cpu().numpy())

    def index_select(self, dim: int, rows: Tensor) -> Tensor:
        """Rows [r, *shape], not standardised, with the numbers in an int64 tensor [r]; `dim` is 0, as a tensor's own may be."""
        if dim != 0:
            raise ValueError(f"dim = {dim}: pictures are selected by row, dimension 0")
        if self._moved is not None:
            return self._scaled(self._moved.index_select(0, rows.to(self.device)))
        return self._scaled(torch.from_numpy(self.stored(rows.cpu().numpy())).to(self.device))

    def stored(self, rows: Ints) -> NDArray[Any]:
        """Rows as they are stored, a copy [r, *shape]."""
        number = self._order[rows]
        part = np.searchsorted(self._ends, number, side="right")
        start = self._ends - [len(one) for one in self._parts]
        if len(rows) and (part == part[0]).all():
            return np.asarray(self._parts[part[0]][number - start[part[0]]])
        found = np.empty((len(rows), *self._parts[0].shape[1:]), dtype=np.result_type(*self._parts))
        for p in np.unique(part):
            own = part == p
            found[own] = self._parts[p][number[own] - start[p]]
        return found

    def exact(self, rows: Ints) -> Iterator[NDArray[np.float64]]:
        """The rows with these numbers, not standardised, in float64 and in blocks [n, *shape]."""
        each = max(_BLOCK // max(self.shape[1:].numel(), 1), 1)
        for start in range(0, len(rows), each):
            block = torch.from_numpy(self.stored(rows[start : start + each])).double()
            yield scaled(block, self._scale).numpy()

    def standardized(self, standard: Standard | None) -> Pictures:
        """The same rows by another standard; nothing is read."""
        return Pictures(
            self._parts, order=self._order, scale=self._scale, dtype=self.dtype, device=self.device, standard=standard
        )

    def new_zeros(self, *shape: int) -> Tensor:
        """As a tensor's."""
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def taken(self, order: Ints) -> Pictures:
        """The same rows in another order, or some of them, not standardised; nothing is read."""
        return Pictures(self._parts, order=self._order[order], scale=self._scale, dtype=self.dtype, device=self.device)

    def on(self, device: torch.device, dtype: torch.dtype) -> Pictures:
        """The same rows for a device and a dtype; a GPU with room holds them, as they are stored."""
        other = Pictures(
            self._parts, order=self._order, scale=self._scale, dtype=dtype, device=device, standard=self.standard
        )
        if device.type == "cuda" and self.nbytes * _ROOM <= torch.cuda.mem_get_info(device)[0]:
            other._moved = torch.from_numpy(self.stored(np.arange(len(self)))).to(device)
        return other

    def shared(self, folder: Path) -> Recipe:
        """How another process makes the same: it maps the files that are mapped here, and what is in memory from `folder`.

        Raises:
            OSError: no room in the folder.
        """
        files = []
        for number, part in enumerate(self._parts):
            file = _file_of(part)
            if file is None:
                file = folder / f"pictures-{number}.npy"
                np.save(file, part)
            files.append(str(file))
        return files, self._order, self._scale, self.dtype, self.standard

    @classmethod
    def mapped(cls, recipe: Recipe) -> Pictures:
        """What `shared` described, on the CPU."""
        files, order, scale, dtype, standard = recipe
        parts = [np.load(file, mmap_mode="r", allow_pickle=False) for file in files]
        return cls(parts, order=order, scale=scale, dtype=dtype, standard=standard)

    def _scaled(self, rows: Tensor) -> Tensor:
        return scaled(rows.to(self.dtype), self._scale)


def scaled(rows: Tensor, scale: tuple[float, float] | None) -> Tensor:
    """Stored numbers, in a floating dtype, with `scale` = (low, high) at 0 and 1; as they are where it is None."""
    if scale is None:
        return rows
    low, high = scale
    return (rows - low if low else rows) * (1.0 / (high - low))


def _file_of(part: NDArray[Any]) -> Path | None:
    """The .npy file that a whole memory map shows; None for anything else, a slice of a map included."""
    if not isinstance(part, np.memmap) or part.filename is None or isinstance(part.base, np.ndarray):
        return None
    file = Path(part.filename)
    return file.absolute() if file.suffix == ".npy" else None
