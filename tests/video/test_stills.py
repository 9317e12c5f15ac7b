"""Still pictures as people have them: what is hidden stays hidden, what is broken is covered or refused in one line."""

from __future__ import annotations

import contextlib
import io
import os
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from facestream.engines.boxes import Array
from facestream.pipeline.cli.app import main
from facestream.pipeline.errors import BadInput
from facestream.pipeline.types import CoveredFrame, Frame, TrackedFrame
from facestream.pipeline.video.icc import colours_of
from facestream.pipeline.video.sink import open_sink
from facestream.pipeline.video.source import open_source
from facestream.pipeline.video.still import FORMATS
from PIL import Image, ImageCms, PngImagePlugin

CASES = Path(os.environ.get("FACESTREAM_CASES", "../shared/cases")) / "files"
MARK = (210, 30, 60)


def scene(width: int = 160, height: int = 96) -> Image.Image:
    """Grey with a mark in the upper left quarter."""
    image = Image.new("RGB", (width, height), (90, 90, 90))
    image.paste(MARK, (8, 8, width // 2 - 8, height // 2 - 8))
    return image


def through(source: Path, target: Path) -> Image.Image:
    """From a source to a sink, with nothing to cover."""
    opened = open_source(source)
    info = opened.open()
    sink = open_sink(target, info)
    for frame in opened.items():
        assert isinstance(frame, Frame)
        sink.write(CoveredFrame(frame.picture, TrackedFrame(frame, ())))
    sink.close()
    return Image.open(target)


def near(image: Image.Image, at: tuple[int, int], colour: tuple[int, ...], by: int = 24) -> bool:
    found = np.asarray(image.convert("RGB"))[at[1], at[0]].astype(int)
    return bool(np.abs(found - colour[:3]).max() <= by)


def hidden() -> Image.Image:
    """The mark is there, and wholly transparent."""
    image = scene().convert("RGBA")
    alpha = np.full((96, 160), 255, np.uint8)
    alpha[:48, :80] = 0
    image.putalpha(Image.fromarray(alpha))
    return image


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".png", ".webp", ".tiff", ".heic", ".avif"])
def test_what_is_transparent_stays_hidden(tmp_path: Path, suffix: str) -> None:
    hidden().save(tmp_path / "in.png")
    out = through(tmp_path / "in.png", tmp_path / f"out{suffix}")
    assert near(out, (40, 24), (255, 255, 255)), "neither shown, nor kept under the transparency"
    assert near(out, (120, 72), (90, 90, 90))
    if suffix not in (".jpg", ".bmp"):
        alpha = np.asarray(out.convert("RGBA"))[..., 3]
        assert alpha[24, 40] < 10
        assert alpha[72, 120] > 245


def test_half_transparent_pixels_are_laid_on_white(tmp_path: Path) -> None:
    image = scene().convert("RGBA")
    image.putalpha(128)
    image.save(tmp_path / "in.png")
    assert near(through(tmp_path / "in.png", tmp_path / "out.jpg"), (120, 72), (172, 172, 172), 4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".heic", ".avif", ".webp", ".png", ".tif"])
def test_all_eight_orientations(tmp_path: Path, suffix: str, orientation: int) -> None:
    ways = [None, 0, 3, 1, 5, 2, 6, 4]  # how to store so that it is shown upright: the opposite of each
    way = ways[orientation - 1]
    image = scene() if way is None else scene().transpose(Image.Transpose(way))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / f"in{suffix}", exif=exif.tobytes() if suffix != ".tif" else exif)
    out = through(tmp_path / f"in{suffix}", tmp_path / "out.png")
    assert out.size == (160, 96)
    assert near(out, (40, 24), MARK, 40)
    assert near(out, (120, 72), (90, 90, 90))
    assert out.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("suffix", [".heic", ".heif", ".hif", ".avif", ".jfif", ".jpe"])
def test_a_format_that_we_read_is_written_too(tmp_path: Path, suffix: str) -> None:
    kind = FORMATS[suffix]
    scene().save(tmp_path / f"in{suffix}", format=kind)
    out = through(tmp_path / f"in{suffix}", tmp_path / f"out{suffix}")
    assert out.size == (160, 96)
    assert out.format == kind
    assert near(out, (40, 24), MARK, 40)


def test_a_picture_whose_suffix_says_nothing_is_no_video(tmp_path: Path) -> None:
    for name, kind in (("photo", "JPEG"), ("photo.mp4", "HEIF"), ("photo.dat", "PNG")):
        scene().save(tmp_path / name, format=kind)
        assert through(tmp_path / name, tmp_path / f"{name}.out.png").size == (160, 96)


def test_broken_exif_is_thrown_away(tmp_path: Path) -> None:
    """A rational with a denominator of 0 that Pillow reads and cannot write, an offset beyond the end, and rubbish."""
    entry = struct.pack("<HHII", 0x011A, 5, 1, 26)
    zero = b"Exif\0\0II*\0\x08\0\0\0\1\0" + entry + b"\0\0\0\0" + struct.pack("<II", 1, 0)
    beyond = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + struct.pack("<HHII", 0x0112, 3, 1 << 30, 1 << 31)
    head = b"Exif\0\0II*\0\x08\0\0\0\1\0"
    word = head + struct.pack("<HHI4s", 0x0112, 2, 4, b"abc\0") + bytes(4)  # an orientation that is text
    ratio = head + struct.pack("<HHII", 0x0112, 5, 1, 26) + bytes(4) + struct.pack("<II", 1, 0)  # and one that is 1/0
    rubbish = b"Exif\0\0rubbish"
    for exif in (zero, beyond, word, ratio, rubbish, b"Exif\0\0II*\0" + bytes([255] * 90)):
        for suffix in (".jpg", ".webp", ".png"):
            path = tmp_path / f"in{suffix}"
            scene().save(path, exif=exif)
            assert near(through(path, tmp_path / "out.jpg"), (40, 24), MARK, 40)
            (tmp_path / "out.jpg").unlink()


def test_a_png_with_a_large_text_chunk_is_done(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "x" * (3 << 20), zip=True)
    scene().save(tmp_path / "in.png", pnginfo=text)
    assert near(through(tmp_path / "in.png", tmp_path / "out.png"), (40, 24), MARK)
    assert Image.MAX_IMAGE_PIXELS is not None  # Pillow's own limits are back
    assert PngImagePlugin.MAX_TEXT_CHUNK == 1 << 20


@pytest.mark.parametrize(
    ("kind", "low", "high", "shown"),
    [("float32", 0.0, 1.0, 255), ("float32", 0.0, 200.0, 200), ("int32", 0, 65535, 255), ("uint16", 0, 65535, 255)],
)
def test_deep_gray(tmp_path: Path, kind: str, low: float, high: float, shown: int) -> None:
    values: Array = np.linspace(low, high, 64 * 64).reshape(64, 64).astype(kind)
    Image.fromarray(values).save(tmp_path / "in.tif")
    out = np.asarray(through(tmp_path / "in.tif", tmp_path / "out.png"))
    assert abs(int(out.max()) - shown) <= 1
    assert out.min() == 0
    assert abs(float(out.mean()) - shown / 2) < 2


def test_a_range_that_is_not_known_is_refused(tmp_path: Path) -> None:
    for number, values in enumerate(([-3.0, 1.0], [0.0, 5000.0], [0.0, float("nan")])):
        path = tmp_path / f"{number}.tif"
        Image.fromarray(np.array([values] * 4, np.float32)).save(path)
        with pytest.raises(BadInput, match="range is not known"):
            open_source(path).open()


def test_lab_becomes_rgb_without_its_profile(tmp_path: Path) -> None:
    lab = ImageCms.profileToProfile(
        scene(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    lab.save(tmp_path / "in.tif", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes())
    out = through(tmp_path / "in.tif", tmp_path / "out.png")
    assert near(out, (40, 24), MARK, 6)
    assert "icc_profile" not in out.info


def test_a_profile_keeps_its_colours_and_loses_its_words(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    made = colours_of(profile, gray=False)
    assert made is not None
    assert colours_of(profile, gray=True) is None
    assert "sRGB".encode("utf-16-be") not in made
    back = ImageCms.profileToProfile(
        scene(), ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.ImageCmsProfile(io.BytesIO(made))
    )
    assert back is not None
    assert np.abs(np.asarray(back).astype(int) - np.asarray(scene())).max() <= 1
    for size in (0, 40, 131, 200, len(profile) - 10):
        colours_of(profile[:size], gray=False)


def test_a_picture_too_large_for_the_memory_bound(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Image.new("L", (2000, 2000)).save(tmp_path / "in.png")
    (tmp_path / "c.toml").write_text("[decode]\nmax_picture_mb = 16\n")
    words = [
        "anonymize",
        str(tmp_path / "in.png"),
        "-o",
        str(tmp_path / "out.png"),
        "--config",
        str(tmp_path / "c.toml"),
    ]
    assert main(words) == 2
    assert "decode.max_picture_mb" in capfd.readouterr().err


@pytest.mark.parametrize("suffix", [".webp", ".avif", ".png", ".tif"])
def test_moving_pictures_and_pages_are_refused(tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    """One line that says what to do: covering only the first of them would be no help, and no end of the others."""
    path = tmp_path / f"in{suffix}"
    scene().save(path, save_all=True, append_images=[Image.new("RGB", (160, 96), "red")])
    assert main(["anonymize", str(path), "-o", str(tmp_path / f"out{suffix}")]) == 2
    (said,) = capfd.readouterr().err.splitlines()
    assert "it holds several pictures (convert it to a video, or to single pictures)" in said
    assert [left.name for left in tmp_path.iterdir()] == [path.name]


def mutants(seed: int, count: int) -> list[tuple[str, bytes]]:
    """Stills with bytes changed, cut out, doubled and cut off, mostly near the beginning, where the headers are."""
    dice = random.Random(seed)
    whole = []
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "maker"
    for suffix in (".jpg", ".png", ".webp", ".tif", ".bmp", ".heic", ".avif", ".jfif"):
        file = io.BytesIO()
        kind = FORMATS[suffix]
        scene(96, 64).save(file, format=kind, **({} if suffix == ".bmp" else {"exif": exif.tobytes()}))
        whole.append((suffix, file.getvalue()))
    out = []
    for _ in range(count):
        suffix, data = dice.choice(whole)
        changed = bytearray(data)
        for _ in range(dice.choice((1, 1, 2, 5, 20))):
            reach = min(len(changed), dice.choice((64, 400, 1 << 20)))
            at = dice.randrange(max(1, reach))
            how = dice.randrange(5)
            if how < 3 and changed:
                changed[at % len(changed)] = dice.choice((0, 255, 127, dice.randrange(256)))
            elif how == 3:
                del changed[at : at + dice.randrange(1, 9)]
            else:
                changed[at:at] = bytes(dice.randrange(256) for _ in range(dice.randrange(1, 9)))
        if dice.random() < 0.1:
            del changed[dice.randrange(len(changed) + 1) :]
        out.append((suffix, bytes(changed)))
    return out


def hold(tmp_path: Path, seed: int, count: int) -> None:
    """Each is written, or refused with one line, and leaves nothing behind."""
    done = 0
    for suffix, data in mutants(seed, count):
        path, out = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
        path.write_bytes(data)
        with contextlib.suppress(BadInput):
            through(path, out).close()
            done += 1
        path.unlink()
        out.unlink(missing_ok=True)
        assert not list(tmp_path.iterdir())
    assert count * 0.1 < done < count


def test_mutated_stills(tmp_path: Path) -> None:
    hold(tmp_path, 20, 200)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_six_thousand_mutated_stills(tmp_path: Path, seed: int) -> None:
    hold(tmp_path, seed, 1000)


@pytest.mark.parametrize(
    "name", ["rational.jpg", "fuzz2.webp", "bigtext.png", "pic.jfif", "photo.heic", "h_arrow.heic", "alpha.png"]
)
def test_cases_from_the_field(tmp_path: Path, name: str) -> None:
    if not (CASES / name).exists():
        pytest.skip(f"{CASES}/{name} is not there: set FACESTREAM_CASES")
    out = through(CASES / name, tmp_path / "out.png")
    if name == "h_arrow.heic":
        assert out.size == (3024, 4032)  # all of its tiles, upright
