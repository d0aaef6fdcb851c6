"""Models whose weights come from a file are built without drawing the random ones they replace."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

_DRAWS = (
    *(Tensor.uniform_, Tensor.normal_, init.uniform_, init.normal_),
    *(init.trunc_normal_, init.kaiming_uniform_),
)


class Undrawn(TorchFunctionMode):
    """In its block new weights are 0 where they would be drawn."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        arguments: Sequence[Any] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, or what stands for it."""
        given = dict(options or {})
        if function in _DRAWS:
            drawn: Tensor = arguments[0] if arguments else given["tensor"]
            with torch.no_grad():
                return drawn.zero_()
        if function is Tensor.erfinv_:  # of numbers drawn before: of 0 it is 0
            return arguments[0]
        return function(*arguments, **given)
