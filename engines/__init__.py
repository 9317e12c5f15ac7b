"""Models and what runs them."""

import os

# ONNX Runtime's builds tell their maker over HTTPS that and where they run, and keep a number of the machine for it.
# It must be set before the library is first imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
