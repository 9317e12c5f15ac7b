"""Training on several processes, as `torchrun` starts them: each takes its share of every batch (DDP).

torchrun --nproc_per_node 4 -m train --data DIR --model vgg16
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, slots=True)
class World:
    """This process's number and how many there are; (0, 1) is a run of one process."""

    rank: int = 0
    size: int = 1

    def share(self, count: Tensor) -> Tensor:
        """What a process divides its sums by so that the mean of all gradients is that of one process with the whole
        batch: the count over all processes, at least one, divided by their number."""
        if self.size == 1:
            return count.clamp(min=1)
        total = count.clone()
        dist.all_reduce(total)
        return total.clamp(min=1) / self.size

    def mean(self, x: Tensor) -> Tensor:
        """The mean over all processes."""
        if self.size > 1:
            x = x.clone()
            dist.all_reduce(x)
            x /= self.size
        return x


def join(device: str) -> tuple[World, str]:
    """Take the place that torchrun's environment gives this process, if it does: (world, the process's own device).

    CUDA processes talk by NCCL, one GPU each; CPU processes by gloo.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World(), device
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return World(dist.get_rank(), size), device


def leave(world: World) -> None:
    if world.size > 1 and dist.is_initialized():
        dist.destroy_process_group()
