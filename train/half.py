"""The deployed net in half precision for torch on a card; engines.half does the same to the exported graph."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from engines.gpu_picture import Normalisation
from engines.half import LARGEST, ROOM, probes
from train.model import SSH, STRIDES, Deploy


class HalfDeploy(nn.Module):
    """images: half [N, 3, H, W], normalised as `normalisation` says -> xyxy float32 [N, K, 4], scores float32 [N, K].

    The net runs in half precision and channels last, boxes and scores are float32. Where values come near to what half
    precision holds, input and biases are scaled by a power of two, which leaves nets of ReLUs as they are.
    """

    def __init__(self, model: SSH) -> None:
        super().__init__()
        self.deploy = Deploy(model).eval()
        convs = [layer for layer in self.deploy.model.modules() if isinstance(layer, nn.Conv2d)]
        scale = 2.0 ** min(0, math.floor(math.log2(LARGEST / ROOM / max(self._peak(convs), 1e-9))))
        for layer in convs:
            if layer.bias is not None:
                layer.bias.data *= scale
        zero = tuple(float(v) for v in self.deploy.zero)
        self.normalisation = Normalisation(zero, model.spec.std, scale)  # type: ignore[arg-type]
        # On the device beforehand: while a CUDA graph is captured nothing can come from the host.
        for i, sizes in enumerate(model.spec.sizes):
            self.register_buffer(f"sizes{i}", torch.tensor(sizes), persistent=False)
        self.deploy.model.half().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def _peak(self, convs: list[nn.Conv2d]) -> float:
        """The largest value that any convolution puts out for the probes."""
        found = [0.0]

        def watch(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            found.append(float(output.abs().max()))

        hooks = [layer.register_forward_hook(watch) for layer in convs]
        for picture in probes():
            self.deploy(torch.from_numpy(picture))
        for hook in hooks:
            hook.remove()
        return max(found)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        net, back = self.deploy.model, 1 / self.normalisation.scale
        maps = net.maps(images.contiguous(memory_format=torch.channels_last))
        out = [
            self.deploy._best(s.float() * back, b.float() * back, stride, self.get_buffer(f"sizes{i}"))
            for i, ((s, b), stride) in enumerate(zip(maps, STRIDES, strict=True))
        ]
        return torch.cat([xyxy for xyxy, _ in out], 1), torch.cat([score for _, score in out], 1)
