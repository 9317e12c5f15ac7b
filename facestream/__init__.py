"""Real-time face detection, tracking and anonymisation for video.

An installed package holds `pipeline`, `engines` and `train` in this folder. In a checkout they lie beside it, so the
checkout's root is one more place where this package's parts are found.
"""

from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "pyproject.toml").is_file() and (_ROOT / "pipeline").is_dir():
    __path__.append(str(_ROOT))
