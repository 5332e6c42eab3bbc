"""Batch norm over the batches of several processes, on any device (torch's own refuses CPUs).

B batch of this process, C channels, H height, W width, P processes.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class SyncNorm(nn.BatchNorm2d):
    """Batch norm whose statistics in training are those of all processes' batches together; else nn.BatchNorm2d.

    group: the process group; all its processes run the network at the same time, on batches of any size, even 0. Where
    they have fewer than two numbers a channel together, which have no variance, the norm works as in evaluation and its
    running statistics stay; nn.BatchNorm2d would raise, but to ask here would wait for the device at every norm.
    """

    group: Any

    @classmethod
    def of(cls, norm: nn.BatchNorm2d, group: Any) -> "SyncNorm":
        """Return a synchronised norm that holds the very parameters and buffers of `norm`, in its mode."""
        assert norm.affine
        assert norm.track_running_stats
        synchronised = cls(norm.num_features, eps=norm.eps, momentum=norm.momentum, device="meta")
        synchronised._parameters.update(norm._parameters)
        synchronised._buffers.update(norm._buffers)
        synchronised.group = group
        return synchronised.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        running = self.running_mean, self.running_var
        out, mean, variance, count = _Normalize.apply(x, self.weight, self.bias, *running, self.eps, self.group)
        with torch.no_grad():
            is_enough = count >= 2
            self.num_batches_tracked.add_(is_enough)
            momentum = 1.0 / max(1.0, float(self.num_batches_tracked)) if self.momentum is None else self.momentum
            unbiased = torch.where(is_enough, variance * count / (count - 1).clamp(min=1), variance)
            self.running_mean.lerp_(mean.to(self.running_mean), momentum)
            self.running_var.lerp_(unbiased.to(self.running_var), momentum)
        return out


def synchronize_norms(model: nn.Module, group: Any) -> None:
    """Put a SyncNorm in the place of every plain batch norm, in place; parameters, buffers and names stay.

    A norm of an emptied block stays as it is: its statistics do not depend on the batch.
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(module, name, SyncNorm.of(child, group))


class _Normalize(torch.autograd.Function):
    """Normalises by the statistics of all processes, or the running ones where their batches have no variance.

    Gradients of weight and bias are this process's alone.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_variance: Tensor,
        eps: float,
        group: Any,
    ) -> tuple[Tensor, ...]:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        if x.numel():
            variance, mean = torch.var_mean(wide, dim=(0, 2, 3), correction=0)  # (C,)
        else:
            variance = mean = wide.new_zeros(x.shape[1])
        own = torch.cat([mean, variance, mean.new_full((1,), x.numel() // x.shape[1])])  # (2 C + 1,)
        gathered = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
        dist.all_gather(gathered, own, group=group)
        means, variances, counts = torch.stack(gathered).split([len(mean), len(mean), 1], dim=1)  # (P, C), (P, 1)
        count = counts.sum()
        share = counts / count.clamp(min=1)
        mean = (share * means).sum(0)
        variance = (share * (variances + (means - mean).square())).sum(0)  # within, and between the processes
        is_enough = count >= 2
        mean = torch.where(is_enough, mean, running_mean.to(mean))
        variance = torch.where(is_enough, variance, running_variance.to(variance))
        out = F.batch_norm(wide, mean, variance, weight.to(wide), bias.to(wide), False, 0.0, eps).to(x.dtype)
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps), count)
        ctx.group = group
        ctx.mark_non_differentiable(mean, variance, count)
        return out, mean, variance, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse_deviation, count = ctx.saved_tensors
        wide = gradient.to(mean.dtype)
        normalized = (x.to(mean.dtype) - _per_channel(mean)) * _per_channel(inverse_deviation)  # (B, C, H, W)
        of_bias = wide.sum(dim=(0, 2, 3))  # (C,)
        of_weight = (wide * normalized).sum(dim=(0, 2, 3))
        sums = torch.stack([of_bias, of_weight])
        dist.all_reduce(sums, group=ctx.group)
        shift, slope = torch.where(count >= 2, sums / count.clamp(min=1), 0.0)  # running statistics are constants
        scale = weight.to(mean.dtype) * inverse_deviation
        of_x = (wide - _per_channel(shift) - normalized * _per_channel(slope)) * _per_channel(scale)
        return of_x.to(x.dtype), of_weight.to(weight.dtype), of_bias.to(weight.dtype), None, None, None, None


def _per_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)
