"""SSH on torch: the reference that compiled engines are compared with."""

from __future__ import annotations

import torch
from torch import nn

from engines.boxes import F32, Array
from engines.detector import Detector, DetectorOptions


class TorchDetector(Detector):
    """Any module with the shipped graph's interface (train.model.Deploy), on a device.

    The module comes from outside, so that this package does not depend on the training code.
    """

    def __init__(self, module: nn.Module, options: DetectorOptions, device: str = "cpu") -> None:
        super().__init__(options)
        self.module, self.device = module.to(device).eval(), device
        self.coarsest_anchors = int(getattr(module, "coarsest_anchors", 0))

    @torch.inference_mode()
    def infer(self, images: Array) -> tuple[F32, F32]:
        xyxy, scores = self.module(torch.from_numpy(images).to(self.device))
        return xyxy.float().cpu().numpy(), scores.float().cpu().numpy()
