"""Nearest-neighbour up-sampling by 2 followed by a 3x3 convolution, with fewer operations than the two steps have.

Each output pixel sees only 2x2 different input pixels, so the pair can be had in three forms, all the same function:

plain       enlarge, convolve: 36 multiplications for an input pixel and a pair of channels
transposed  one transposed convolution of stride 2 whose 4x4 kernel is the 3x3 one summed over a 2x2 box: 16, and no
            enlarged copy
minimal     along each axis an output is S m + A (l - m) or S m + B (r - m) of an input pixel m and its neighbours l
            and r, with S the sum of the three taps, A the first and B the last: 3 products for 2 outputs, hence 9 in
            two dimensions; each is one matrix product over all pixels (the idea is Winograd's, arXiv 1509.09308)

Which one a layer takes follows from where it runs and how wide it is, by a rule that was measured (docs/speed.md) and
not by timing it at every start: forms differ in their last bits, a timing may turn out either way, and two runs of one
configuration have to be equal bit for bit. `bench step` measures the rule again on any machine.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Form = Literal["plain", "transposed", "minimal"]

_MINIMAL_FROM = 96  # output channels; below, the additions of the minimal form cost more than it saves
_TRANSPOSED_FROM = 8  # input side; below, few pixels share the cost of making the 4x4 kernel


def choose_form(device_type: str, outputs: int, side: int, *, autocast: bool = False) -> Form:
    """The quickest form for a layer of `outputs` channels with an input of `side` pixels.

    On CPUs: minimal for wide layers and transposed for the others, at every side. On CUDA, where it was not measured,
    and under autocast: transposed from 8x8 pixels on.
    """
    if device_type == "cuda" or autocast:
        return "transposed" if side >= _TRANSPOSED_FROM else "plain"
    return "minimal" if outputs >= _MINIMAL_FROM else "transposed"


class UpsampleConv(nn.Conv2d):
    """The paper's "nearest-neighbor upsampling followed by a 3x3 stride 1 convolution" (section 4).

    (N, inputs, H, W) -> (N, outputs, 2H, 2W). The weight has the plain form, (outputs, inputs, 3, 3), whichever form
    computes with it.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, kernel_size=3, padding=1, bias=False)
        self.device_type: str | None = None
        """The type of device whose form it takes, where that is not the input's: on meta, to count what it costs."""

    def forward(self, input: Tensor) -> Tensor:
        """From (N, inputs, H, W) to (N, outputs, 2H, 2W), by the quickest form."""
        return FORMS[self.form_for(input)](input, self.weight)

    def form_for(self, input: Tensor) -> Form:
        """What computes the output for `input`."""
        kind = self.device_type or input.device.type
        autocast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        return choose_form(kind, self.out_channels, min(input.shape[-2:]), autocast=autocast)


def forms_taken(network: nn.Module, *inputs: Tensor) -> list[str]:
    """What the layers of `network` take in a forward pass of `inputs`, in order: "512 -> 256 at 8x8: minimal"."""
    taken: list[str] = []

    def note(layer: nn.Module, given: Any) -> None:
        assert isinstance(layer, UpsampleConv)
        height, width = given[0].shape[-2:]
        form = layer.form_for(given[0])
        taken.append(f"{layer.in_channels} -> {layer.out_channels} at {height}x{width}: {form}")

    hooks = [layer.register_forward_pre_hook(note) for layer in network.modules() if isinstance(layer, UpsampleConv)]
    try:
        with torch.no_grad():
            network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return taken


def _plain(input: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(F.interpolate(input, scale_factor=2, mode="nearest"), weight, padding=1)


def _transposed(input: Tensor, weight: Tensor) -> Tensor:
    kernel = F.pad(weight.flip(2, 3).transpose(0, 1), (1, 1, 1, 1))
    rows = kernel[:, :, 1:] + kernel[:, :, :-1]
    return F.conv_transpose2d(input, rows[..., 1:] + rows[..., :-1], stride=2, padding=1)


def _minimal(input: Tensor, weight: Tensor) -> Tensor:
    apply: Callable[[Tensor, Tensor], Tensor] = _Minimal.apply
    return apply(input, weight)


FORMS: dict[Form, Callable[[Tensor, Tensor], Tensor]] = {
    "plain": _plain,
    "transposed": _transposed,
    "minimal": _minimal,
}
"""(input (N, C, H, W), weight (O, C, 3, 3)) -> (N, O, 2H, 2W), by form."""


class _Minimal(torch.autograd.Function):
    """Everything in between has pixels as rows and channels as columns; gradients make it again instead of keeping it.

    For the nine products, kept as (3, 3): 0 is S with m, 1 is A with l - m, 2 is B with r - m, first along the height,
    then along the width.
    """

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(input, weight)
        kind = input.device.type
        # As autograd's own layers, gradients are computed under the autocast of the forward pass.
        ctx.autocast = (
            torch.autocast(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
            if torch.amp.is_autocast_available(kind)
            else nullcontext()
        )
        pixels = input.permute(0, 2, 3, 1)
        n, height, width, _ = pixels.shape
        products = torch.bmm(_differences(pixels), _combined(weight).transpose(1, 2)).view(3, 3, n, height, width, -1)
        rows = products.new_empty(2, *products.shape[1:])
        torch.add(products[0], products[1], out=rows[0])
        torch.add(products[0], products[2], out=rows[1])
        output = products.new_empty(n, height, 2, width, 2, products.shape[-1])
        for down in range(2):
            for right in range(2):
                torch.add(rows[down, 0], rows[down, 1 + right], out=output[:, :, down, :, right])
        return output.view(n, 2 * height, 2 * width, -1).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        with ctx.autocast:
            input, weight = ctx.saved_tensors
            return _Minimal._gradients(input, weight, grads[0])

    @staticmethod
    def _gradients(input: Tensor, weight: Tensor, output_grad: Tensor) -> tuple[Tensor, Tensor]:
        pixels = input.permute(0, 2, 3, 1)
        n, height, width, inputs = pixels.shape
        grad = output_grad.permute(0, 2, 3, 1).contiguous().view(n, height, 2, width, 2, -1)
        above, below = grad[:, :, 0], grad[:, :, 1]
        products = grad.new_empty(3, 3, n, height, width, grad.shape[-1])
        for number, row in enumerate((above + below, above, below)):
            torch.add(row[..., 0, :], row[..., 1, :], out=products[number, 0])
            products[number, 1], products[number, 2] = row[..., 0, :], row[..., 1, :]
        products = products.view(9, n * height * width, -1)

        spread = torch.bmm(products, _combined(weight)).view(3, 3, n, height, width, inputs)
        input_grad = _gathered(_gathered(spread, 3), 1).permute(0, 3, 1, 2)

        taps = torch.bmm(products.transpose(1, 2), _differences(pixels)).view(3, 3, -1, inputs)
        rows = torch.stack([taps[0] + taps[1], taps[0], taps[0] + taps[2]])
        weight_grad = torch.stack([rows[:, 0] + rows[:, 1], rows[:, 0], rows[:, 0] + rows[:, 2]], dim=1)
        return input_grad, weight_grad.permute(2, 3, 0, 1)


def _differences(pixels: Tensor) -> Tensor:
    """(N, H, W, C) -> (9, N H W, C): m, l - m and r - m along both axes; beyond the border there are zeros."""
    n, height, width, channels = pixels.shape
    spread = pixels.new_empty(3, 3, n, height, width, channels)
    spread[0, 0] = pixels
    torch.neg(pixels, out=spread[1, 0])
    torch.neg(pixels, out=spread[2, 0])
    spread[1, 0, :, 1:] += pixels[:, :-1]
    spread[2, 0, :, :-1] += pixels[:, 1:]
    rows = spread[:, 0]
    torch.neg(rows, out=spread[:, 1])
    torch.neg(rows, out=spread[:, 2])
    spread[:, 1, :, :, 1:] += rows[:, :, :, :-1]
    spread[:, 2, :, :, :-1] += rows[:, :, :, 1:]
    return spread.view(9, n * height * width, channels)


def _gathered(spread: Tensor, axis: int) -> Tensor:
    """The transpose of _differences along one axis, which `axis` numbers in the result.

    (3, 3, N, H, W, C) -> (3, N, H, W, C) with the width's three, and that -> (N, H, W, C) with the height's.
    """
    middle, left, right = spread.unbind(1 if axis == 3 else 0)
    size = middle.shape[axis]
    result = middle - left
    result -= right
    result.narrow(axis, 0, size - 1).add_(left.narrow(axis, 1, size - 1))
    result.narrow(axis, 1, size - 1).add_(right.narrow(axis, 0, size - 1))
    return result


def _combined(weight: Tensor) -> Tensor:
    """(O, C, 3, 3) -> (9, O, C): S, A and B of the three taps along both axes."""
    of_axis = weight.new_tensor([[1, 1, 1], [1, 0, 0], [0, 0, 1]])
    # As a product it is read once; sums of its slices would each walk through all of it.
    return (torch.kron(of_axis, of_axis) @ weight.reshape(-1, 9).T).view(9, *weight.shape[:2])
