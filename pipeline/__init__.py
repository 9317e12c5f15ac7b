"""From a source to a covered copy of it."""

import facestream.engines  # noqa: F401  before ONNX Runtime is imported from anywhere: see there
