"""The NMS plugin for TensorRT 10 and 11: an IPluginV3 in Python that launches nms.cu's kernels on TensorRT's stream.

Inputs xyxy float32 [N, K, 4] and scores float32 [N, K]; outputs counts int32 [N] and faces float32 [N, K, 5], see
kernels.nms. Python runs while a CUDA graph is captured and not when it is replayed. The creator must be registered
before a plan with this layer is loaded.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from facestream.engines.cuda.kernels import MAX_BOXES, nms, nms_workspace

NAME = "FacestreamNMS"
VERSION = "1"
NAMESPACE = ""


@cache
def make(trt: Any) -> Any:
    """The plugin's creator for a TensorRT module, registered once; its `create(threshold, iou)` makes a plugin."""

    class Plugin(trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime):  # type: ignore[misc]
        def __init__(self, threshold: float, iou: float) -> None:
            for base in (trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime):
                base.__init__(self)
            self.plugin_name = NAME
            self.plugin_version = VERSION
            self.plugin_namespace = NAMESPACE
            self.num_outputs = 2
            self.threshold = threshold
            self.iou = iou

        def get_capability_interface(self, kind: Any) -> Any:
            return self

        def get_output_data_types(self, input_types: Any) -> list[Any]:
            return [trt.DataType.INT32, trt.DataType.FLOAT]

        def get_output_shapes(self, inputs: Any, shape_inputs: Any, builder: Any) -> list[Any]:
            counts = trt.DimsExprs(1)
            faces = trt.DimsExprs(3)
            counts[0] = inputs[0][0]
            faces[0] = inputs[0][0]
            faces[1] = inputs[0][1]
            faces[2] = builder.constant(5)
            return [counts, faces]

        def supports_format_combination(self, position: int, tensors: Any, inputs: int) -> bool:
            wanted = trt.DataType.INT32 if position == inputs else trt.DataType.FLOAT
            tensor = tensors[position].desc if hasattr(tensors[position], "desc") else tensors[position]
            return bool(tensor.type == wanted and tensor.format == trt.TensorFormat.LINEAR)

        def configure_plugin(self, inputs: Any, outputs: Any) -> None:
            pass

        def on_shape_change(self, inputs: Any, outputs: Any) -> None:
            if inputs[0].dims[1] > MAX_BOXES:
                raise ValueError(f"at most {MAX_BOXES} boxes an image")

        def get_workspace_size(self, inputs: Any, outputs: Any) -> int:
            largest = inputs[0].max if hasattr(inputs[0], "max") else inputs[0].dims
            return nms_workspace(largest[0])

        def enqueue(
            self, input_desc: Any, output_desc: Any, inputs: Any, outputs: Any, workspace: int, stream: int
        ) -> None:
            from facestream.engines.cuda.devices import device_in_use

            images = input_desc[0].dims[0]
            boxes = input_desc[0].dims[1]
            launch = device_in_use().launcher(stream)
            addresses = (int(a) for a in (*inputs, workspace, *outputs))
            nms(launch, images, boxes, self.threshold, self.iou, *addresses)

        def attach_to_context(self, context: Any) -> Any:
            return self.clone()

        def set_tactic(self, tactic: int) -> None:
            pass

        def get_valid_tactics(self) -> list[int]:
            return []

        def get_fields_to_serialize(self) -> Any:
            values = {"threshold": self.threshold, "iou": self.iou}
            kind = trt.PluginFieldType.FLOAT32
            self.fields = [trt.PluginField(k, np.array([v], np.float32), kind) for k, v in values.items()]
            return trt.PluginFieldCollection(self.fields)

        def clone(self) -> Any:
            return Plugin(self.threshold, self.iou)

    class Creator(trt.IPluginCreatorV3One):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.name = NAME
            self.plugin_version = VERSION
            self.plugin_namespace = NAMESPACE
            kind = trt.PluginFieldType.FLOAT32
            empty = np.array([], np.float32)
            fields = [trt.PluginField(k, empty, kind) for k in ("threshold", "iou")]
            self.field_names = trt.PluginFieldCollection(fields)

        def create_plugin(self, name: str, fields: Any, phase: Any) -> Any:
            values = {field.name: float(np.asarray(field.data).reshape(-1)[0]) for field in fields}
            return Plugin(values["threshold"], values["iou"])

        def create(self, threshold: float, iou: float) -> Any:
            return Plugin(threshold, iou)

    creator = Creator()
    trt.get_plugin_registry().register_creator(creator, NAMESPACE)
    return creator
