"""Compile trained SSH weights or an ONNX file: `python build_engine.py [WEIGHTS] -o OUT`."""

from facestream.build_engine import main

if __name__ == "__main__":
    main()
