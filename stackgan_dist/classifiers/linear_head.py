"""The last layer of a classifier, fitted to a data set's classes from the frozen features of its pictures.

Multinomial logistic regression with a penalty has one best solution, so nothing depends on an order, a batch size or
a number of ranks: every rank keeps the features of its own pictures, the loss and its gradient are float64 sums over
all of them, and every rank takes the same steps of L-BFGS.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from stackgan_dist.errors import UserError

_STEPS = 1_000
"""Few pictures with many features take about as many until the solution is the same to 1e-6 whatever the order."""
_HISTORY = 50


def fit_head(
    features: Tensor, labels: Tensor, classes: int, decay: float, add_up: Callable[[Tensor], None]
) -> tuple[Tensor, Tensor]:
    """Weight (classes, width) and bias (classes,), float32, of the layer that tells classes by their features.

    Args:
        features: (N, width), this rank's, on the device that is to compute; N may be 0.
        labels: (N,), int64, on that device.
        classes: how many there are.
        decay: weight of half the squared weights and biases against the mean loss, in units of each feature's
            deviation. Without it on the biases, that of a class of which all pictures are held out would have no best
            value.
        add_up: replaces a tensor by its sum over all ranks.

    Raises UserError for features that are not finite, or when no rank has any.
    """
    x = features.double()
    moments = torch.stack([torch.ones_like(x).sum(0), x.sum(0), x.square().sum(0)])
    add_up(moments)
    count, mean = moments[0], moments[1] / moments[0].clamp(min=1)
    if count[0] == 0:
        raise UserError("there are no pictures to train the classifier on: lower --held-out or pack more")
    if not moments.isfinite().all():
        raise UserError("the classifier gave NaN or Inf for some pictures: its weights are damaged")
    # A feature that hardly varies is not blown up to the size of the others.
    deviation = (moments[2] / count - mean.square()).clamp(min=0).sqrt()
    deviation = deviation.clamp(min=1e-3 * float(deviation.max()) + torch.finfo(x.dtype).tiny)
    x = (x - mean) / deviation

    # The bias comes last.
    layer = torch.zeros(classes, x.shape[1] + 1, dtype=x.dtype, device=x.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [layer],
        max_iter=_STEPS,
        history_size=_HISTORY,
        tolerance_grad=1e-8,
        tolerance_change=0.0,  # the default stops on plateaus, at a place that rounding decides
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ layer[:, :-1].T + layer[:, -1], labels, reduction="sum")
        loss.backward()
        assert layer.grad is not None
        both = torch.cat([layer.grad.flatten(), loss.detach().reshape(1)])
        add_up(both)
        both /= count[0]
        layer.grad.copy_(both[:-1].view_as(layer) + decay * layer.detach())
        return both[-1] + decay / 2 * layer.detach().square().sum()

    optimizer.step(closure)
    weight = layer.detach()[:, :-1] / deviation
    return weight.float(), (layer.detach()[:, -1] - weight @ mean).float()
