"""`python -m facestream` is the same as `facestream`."""

from facestream.pipeline.__main__ import main

if __name__ == "__main__":
    main()
