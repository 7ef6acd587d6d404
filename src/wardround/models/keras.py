"""Keras 3 models on the torch backend, as modules whose names and initial weights do not depend on the process.

A Keras model is run as a function of its variables (`keras.StatelessScope`), and their values live here. Trainable variables
are parameters; all variables of a layer with `trainable=False` are parameters without gradient; statistics, as BatchNorm's,
are buffers that a training forward updates in place. Seeds come from PyTorch's generator and are in neither.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from wardround.errors import ConfigError, WardroundError
from wardround.models.keras_session import afresh, plain, precise
from wardround.types import Arrays

_SEED = "seed_generator_state"
_ROWS = 64
_FAR = 1e3
"""Deviations from the mean at which a logit has left the interval from 0 to 1, and a probability has not."""


def is_keras(made: object) -> bool:
    """Whether an object is a Keras model or layer; Keras is not imported for it.

    Raises:
        ConfigError: it is one, of another backend than torch.
    """
    library: Any = sys.modules.get("keras")
    if library is None or not isinstance(made, library.Layer):
        return False
    backend = library.backend.backend()
    if backend != "torch":
        raise ConfigError(
            f"model {type(made).__name__}: Keras runs on its {backend} backend here, expected torch: set KERAS_BACKEND=torch "
            "in the environment before keras is imported"
        )
    return True


def build(make: Callable[[], Any], shape: Sequence[int], *, seed: int, dtype: torch.dtype, where: str) -> KerasModule:
    """The module of a Keras model in float32 or float64; arguments as for `KerasModule`.

    Raises:
        ConfigError: see `KerasModule`; or float64, and the installed Keras can only round to float32.
    """
    module = KerasModule(make, shape, seed=seed, where=where).to(dtype)
    if not module.exact:
        raise ConfigError(
            f"{where}: this version of Keras rounds float64 to float32 on the torch backend: use training.dtype: float32"
        )
    return module


class KerasModule(nn.Module):
    """Maps x [b, *shape] to logits [b, outputs] by a Keras model; BatchNorm and dropout follow `train()` and `eval()`.

    Names are `layer.variable`, with one more part for each layer that lies within another. A layer without a name of its own
    is called after its class and numbered within its parent (`dense`, `dense_1`), however many there were before.

    Args:
        make: gives a new, equal Keras model or layer at each call.
        shape: of one row. Pictures are (channels, height, width).
        seed: of the initial weights, where the initialisers have no seed of their own.
        where: what messages call the model.

    Attributes:
        network: the Keras model. It does not hold the trained values: see `filled`.
        convolves: whether it has convolutions over pictures or volumes.
        exact: whether it computes in the precision of its parameters.

    Raises:
        ConfigError: the model cannot take such rows, or has what would be ignored or wrong here: losses of its own
            (regularisers, `add_loss`), constraints, a precision of its own, probabilities instead of logits, random numbers
            or state outside of its layers.
    """

    network: Any

    def __init__(self, make: Callable[[], Any], shape: Sequence[int], *, seed: int, where: str) -> None:
        super().__init__()
        self._recipe = make, tuple(shape), seed, where
        self._dtype = torch.float32
        self._draws: list[int] = []
        self.exact = True
        with _explained(where, self._recipe[1]):
            self._build()
            layers = list(_layers(self.network, self))
            places = {id(v): place for layer, holder in layers for v, place in _hold(layer, holder)}
            self._places = [places[id(v)] for v in self._variables]
            self._draws = self._checked()
        kinds = {kind for layer, _ in layers for kind in _kinds(layer)}
        self.convolves = bool(kinds & {"Conv2D", "Conv3D", "BaseConv", "BaseDepthwiseConv", "BaseSeparableConv"})
        self._needs_rows = any(
            "BatchNormalization" in _kinds(layer) and layer.trainable and layer.input_spec.ndim == 2
            for layer, _ in layers
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits [b, outputs] of x [b, *shape].

        Raises:
            ValueError: training on a single row, of which BatchNorm over a table knows no variance.
        """
        if self.training and len(x) == 1 and self._needs_rows:
            raise ValueError("Keras BatchNormalization in training: expected more than one row")
        logits, state = self._run(x)
        for variable, (holder, name) in zip(self._variables, self._places, strict=True):
            held, value = getattr(holder, name), state[id(variable)]
            if value is not held and name in holder._buffers:
                held.copy_(value.detach())
        return logits

    def filled(self, arrays: Arrays) -> Any:
        """The Keras model with given values, to `save` or to `predict` with; it gives logits.

        Args:
            arrays: parameters and buffers by this module's names, as `Predictor.arrays`; what is absent is the module's own.
        """
        names = {id(value): name for name, value in [*self.named_parameters(), *self.named_buffers()]}
        for variable, value in zip(self._variables, self._values(), strict=True):
            variable.assign(arrays.get(names[id(value)], value).detach().cpu())
        return self.network

    def _values(self) -> list[Tensor]:
        return [getattr(holder, name) for holder, name in self._places]

    def _run(self, x: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """Logits, and what each variable, by id, holds afterwards."""
        import keras

        values = list(zip(self._variables, self._values(), strict=True))
        if self.training:
            values += [(self._seeds[i], torch.randint(2**31 - 1, (2,), dtype=torch.int32)) for i in self._draws]
        with plain(), precise(self._dtype), keras.device(str(x.device)), keras.StatelessScope(values) as scope:
            return self.network(x, training=self.training), scope.state_mapping

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> KerasModule:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._follow()
        return self

    def _follow(self) -> None:
        """A Keras model computes in the precision that it was built with: build it anew for another."""
        dtype = next((v.dtype for v in self._values() if v.is_floating_point()), self._dtype)
        if dtype != self._dtype:
            self._dtype = dtype
            self._build()

    def __reduce__(self) -> tuple[Any, ...]:
        values = {n: v.detach() for n, v in [*self.named_parameters(), *self.named_buffers()]}
        return _again, self._recipe, (values, self.training)

    def __setstate__(self, state: tuple[Arrays, bool]) -> None:
        values, training = state
        for name, held in [*self.named_parameters(), *self.named_buffers()]:
            held.data = values[name].clone()
        self._follow()
        self.train(training)

    # ------------------------------------------------------------------------------------------------- construction

    def _build(self) -> None:
        import keras

        make, shape, seed, where = self._recipe
        dtype = str(self._dtype).removeprefix("torch.")
        with afresh(seed, dtype), precise(self._dtype):
            network = make()
            network(torch.zeros(2, *shape, dtype=self._dtype), training=False)
            self.exact = keras.backend.result_type(dtype, dtype) == dtype
        found = {layer.name: layer.compute_dtype for layer in network._flatten_layers()}
        found |= {tensor.name: tensor.dtype for tensor in getattr(network, "inputs", None) or ()}
        for name, own in found.items():
            if own not in (None, dtype) and "float" in own:
                raise ConfigError(
                    f"{where}: {name} computes in {own}: leave its dtype out; training.dtype and engine.precision decide"
                )
        # not a submodule: on the torch backend its own copies of the values would count as parameters
        self.__dict__["network"] = network
        self._variables = [v for v in network.variables if v.name != _SEED]
        self._seeds = [v for v in network.variables if v.name == _SEED]

    def _checked(self) -> list[int]:
        """Refuse what would be ignored or wrong. Returns which seeds a training forward draws from."""
        import keras

        _, shape, seed, where = self._recipe
        constrained = [v.path for v in self._variables if v.constraint is not None]
        if constrained:
            raise ConfigError(
                f"{where}: {constrained[0]} has a constraint, which only Keras's optimisers keep: leave it out"
            )
        x = _FAR * torch.randn(_ROWS, *shape, generator=torch.Generator().manual_seed(0))
        values = [*zip(self._variables, self._values(), strict=True), *((s, s.value) for s in self._seeds)]
        with afresh(seed, "float32"), torch.no_grad():
            with keras.StatelessScope(values, collect_losses=True) as scope:
                self.network(x, training=True)
                losses = self.network.losses
            self.eval()
            logits, _ = self._run(x)
            self.train()
        if losses:
            raise ConfigError(
                f"{where}: it adds losses of its own (a regulariser, add_loss), which would be ignored: leave them out; "
                "training.optimizer.weight_decay is an L2 penalty"
            )
        if scope.state_mapping.keys() - {id(variable) for variable, _ in values}:
            raise ConfigError(
                f"{where}: it changes state that none of its layers holds: give random functions a keras.random.SeedGenerator "
                "that is an attribute of the layer, and make variables with add_weight"
            )
        if not isinstance(logits, Tensor):
            raise ConfigError(
                f"{where}: it gives a {type(logits).__name__}, expected one tensor of logits [rows, outputs]"
            )
        if 0 <= logits.min() < logits.max() <= 1:
            raise ConfigError(
                f"{where}: its outputs are probabilities (a sigmoid or softmax at the end), expected logits: leave the last "
                "activation out; the loss has it"
            )
        return [i for i, s in enumerate(self._seeds) if not torch.equal(scope.get_current_value(s), s.value)]


class _Holder(nn.Module):
    """The values of one Keras layer.

    Attributes:
        layer: the Keras layer, once it has values.
    """


def _again(make: Callable[[], Any], shape: Sequence[int], seed: int, where: str) -> KerasModule:
    return KerasModule(make, shape, seed=seed, where=where)


@contextmanager
def _explained(where: str, shape: Sequence[int]) -> Iterator[None]:
    try:
        yield
    except WardroundError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        hint = "; pictures come as [rows, channels, height, width], so begin with keras.layers.Permute((2, 3, 1))"
        raise ConfigError(
            f"{where} cannot take rows of shape {tuple(shape)}: {type(error).__name__}: {lines[0]}"
            f"{hint if len(shape) == 3 else ''}"
        ) from error


def _layers(layer: Any, holder: nn.Module) -> Iterator[tuple[Any, nn.Module]]:
    """Every layer within a layer and itself, each with the module that holds its values."""
    counts: dict[str, int] = {}
    yield layer, holder
    for child in layer._flatten_layers(include_self=False, recursive=False):
        kind = _snake_case(type(child).__name__)
        if re.fullmatch(rf"{kind}(_\d+)?", child.name):  # what Keras calls a layer without a name
            number = counts.get(kind, 0)
            counts[kind] = number + 1
            name = f"{kind}_{number}" if number else kind
        else:
            name = child.name
        inner = _Holder()
        holder.add_module(_free(holder, name), inner)
        yield from _layers(child, inner)


def _hold(layer: Any, holder: nn.Module) -> Iterator[tuple[Any, tuple[nn.Module, str]]]:
    """Give a holder the values of a layer's own variables; yields each with its place."""
    inner = {id(v) for child in layer._flatten_layers(include_self=False) for v in child.variables}
    for variable in layer.variables:
        if id(variable) in inner or variable.name == _SEED:
            continue
        name, value = _free(holder, variable.name), variable.value.detach().clone()
        if variable.trainable or not layer.trainable:
            holder.register_parameter(name, nn.Parameter(value, requires_grad=bool(variable.trainable)))
        else:
            holder.register_buffer(name, value)
        yield variable, (holder, name)
    holder.__dict__["layer"] = layer


def _free(holder: nn.Module, name: str) -> str:
    """A name that the holder has no use for yet."""
    while hasattr(holder, name):
        name += "_"
    return name


def _snake_case(name: str) -> str:
    """As Keras makes a layer's name of its class."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _kinds(layer: Any) -> set[str]:
    return {kind.__name__ for kind in type(layer).__mro__}
