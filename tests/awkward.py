"""Unusual but valid files, each made by FFmpeg's own command with one property that tends to get lost."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PICTURE = "testsrc2=size=96x64:rate={rate}:duration={seconds}"
SOUND = "sine=frequency={tone}:sample_rate=48000:duration={seconds}"
X264 = ("-c:v", "libx264", "-preset", "ultrafast")
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params")
HDR10 = (
    "log-level=none:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:hdr10=1:repeat-headers=1:"
    "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1):max-cll=1000,400"
)


def ffmpeg(*words: str | Path) -> None:
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"


@dataclass(frozen=True)
class Awkward:
    """One file. words: output options of FFmpeg. tones: one sound track each. more: further inputs.

    graph: the first input. then: made once more from `{middle}` with these options. lost: the warnings that are due.
    """

    name: str
    words: tuple[str, ...] = X264
    tones: tuple[int, ...] = (440,)
    rate: str = "25"
    seconds: float = 0.4
    graph: str = ""
    more: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    then: tuple[str, ...] | None = None

    def make(self, folder: Path, helpers: dict[str, Path]) -> Path:
        path = folder / self.name
        first = (self.graph or PICTURE).format(rate=self.rate, seconds=self.seconds)
        inputs = ["-f", "lavfi", "-i", first]
        for tone in self.tones:
            inputs += ["-f", "lavfi", "-i", SOUND.format(tone=tone, seconds=self.seconds)]
        inputs += [word.format(**helpers) for word in self.more]
        maps = [word for i in range(1 + len(self.tones)) for word in ("-map", str(i))]
        words = [word.format(**helpers) if word.startswith("{") else word for word in self.words]
        if self.then is None:
            ffmpeg(*inputs, *maps, *words, path)
            return path
        middle = folder / f"middle-{self.name}"
        ffmpeg(*inputs, *maps, *words, middle)
        ffmpeg(*(word.format(middle=middle) for word in self.then), path)
        middle.unlink()
        return path


def helpers(folder: Path) -> dict[str, Path]:
    """Small files that some of the awkward ones are made of."""
    (folder / "words.srt").write_text(
        "1\n00:00:00,050 --> 00:00:00,200\nfirst\n\n2\n00:00:00,250 --> 00:00:00,390\nsecond\n"
    )
    (folder / "chapters.txt").write_text(
        ";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=200\ntitle=Morning\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=200\nEND=400\ntitle=Noon\n"
    )
    (folder / "font.ttf").write_bytes(
        b"\0\1\0\0\0\1" + bytes(6) + b"glyf" + bytes(4) + (28).to_bytes(4, "big") + (64).to_bytes(4, "big") + bytes(64)
    )
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)).save(folder / "art.png")
    return {path.stem: path for path in folder.iterdir()}


TAGS = {
    "ntsc": ("smpte170m", "smpte170m", "smpte170m", "tv"),
    "pal": ("bt470bg", "bt709", "bt470bg", "tv"),
    "hd": ("bt709", "bt709", "bt709", "tv"),
    "wide": ("bt2020", "bt2020-10", "bt2020nc", "tv"),
    "full": ("bt709", "bt709", "bt709", "pc"),
}


def tags(name: str) -> tuple[str, ...]:
    primaries, transfer, matrix, span = TAGS[name]
    return (
        "-color_primaries", primaries, "-color_trc", transfer, "-colorspace", matrix, "-color_range", span,
    )  # fmt: skip


VARYING = PICTURE + ",select='not(eq(mod(n,4),2))',setpts='PTS+if(gt(N,4),0.05/TB,0)'"
PRIVATE = (
    "-metadata", "title=My home", "-metadata", "location=+48.1374+011.5755/", "-metadata", "make=Maker of Cameras",
    "-metadata", "com.apple.quicktime.location.ISO6709=+48.1374+011.5755/", "-metadata", "comment=secret words",
    "-movflags", "use_metadata_tags",
)  # fmt: skip

FILES = (
    Awkward("varying.mp4", (*X264, "-vsync", "vfr"), graph=VARYING),
    Awkward("varying.mkv", (*X264, "-vsync", "vfr"), graph=VARYING),
    Awkward("film.mp4", rate="24000/1001"),
    Awkward("broadcast.mp4", rate="30000/1001"),
    Awkward("sports.mov", rate="60000/1001"),
    Awkward("sports.mkv", rate="60000/1001"),
    Awkward("ordered.mp4", ("-c:v", "libx264", "-preset", "veryfast", "-bf", "3", "-b_strategy", "0"), seconds=0.8),
    Awkward("trimmed.mp4", (*X264, "-g", "10"), then=("-ss", "0.5", "-i", "{middle}", "-c", "copy"), seconds=1),
    Awkward("delayed.mp4", then=("-itsoffset", "0.3", "-i", "{middle}", "-i", "{middle}", "-map", "0:v", "-map", "1:a",
                                 "-c", "copy")),
    Awkward("late.mkv", (*X264, "-output_ts_offset", "2.5")),
    Awkward("late.ts", (*X264, "-output_ts_offset", "7", "-muxdelay", "0")),
    Awkward("interlaced.mp4", (*X264, "-flags", "+ildct+ilme", "-top", "1"),
            graph="testsrc2=size=96x64:rate=50:duration={seconds},interlace=scan=tff"),
    Awkward("lower.mkv", (*X264, "-flags", "+ildct+ilme", "-x264opts", "bff=1"),
            graph="testsrc2=size=96x64:rate=50:duration={seconds},interlace=scan=bff"),
    Awkward("tape.ts", ("-c:v", "mpeg2video", "-flags", "+ildct+ilme", "-top", "1", "-c:a", "mp2"),
            graph="testsrc2=size=96x64:rate=50:duration={seconds},interlace=scan=tff"),
    Awkward("turned.mp4", then=("-i", "{middle}", "-c", "copy", "-map", "0", "-metadata:s:v", "rotate=90")),
    Awkward("upside.mov", then=("-i", "{middle}", "-c", "copy", "-map", "0", "-metadata:s:v", "rotate=180")),
    Awkward("anamorphic.mp4", (*X264, "-aspect", "16:9")),
    Awkward("anamorphic.mkv", (*X264, "-aspect", "16:9")),
    Awkward("deep.mkv", (*X264, "-pix_fmt", "yuv420p10le")),
    Awkward("studio.mov", (*X264, "-pix_fmt", "yuv422p10le", "-c:a", "pcm_s24le")),
    Awkward("deep.mp4", (*X265, "log-level=none", "-pix_fmt", "yuv420p10le", "-tag:v", "hvc1")),
    Awkward("hdr10.mp4", (*X265, HDR10, "-pix_fmt", "yuv420p10le", "-tag:v", "hvc1")),
    Awkward("hdr10.mkv", (*X265, HDR10, "-pix_fmt", "yuv420p10le")),
    *(Awkward(f"{name}.mp4", (*X264, *tags(name))) for name in TAGS),
    Awkward("hlg.mp4", (*X265, "log-level=none:transfer=arib-std-b67:colorprim=bt2020:colormatrix=bt2020nc",
                        "-pix_fmt", "yuv420p10le", "-tag:v", "hvc1")),
    Awkward("odd.mp4", (*X264, "-pix_fmt", "yuv444p"), graph="testsrc2=size=95x63:rate=25:duration={seconds}"),
    Awkward("odd.webm", ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-c:a", "libopus"),
            graph="testsrc2=size=95x63:rate=25:duration={seconds}"),
    Awkward("cropped.mp4", graph="testsrc2=size=100x54:rate=25:duration={seconds}"),
    Awkward("tracks.mp4", (*X264, "-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=fra",
                           "-disposition:a:1", "hearing_impaired"), tones=(440, 550, 660)),
    Awkward("tracks.mkv", (*X264, "-c:a:0", "flac", "-c:a:1", "ac3", "-c:a:2", "libopus"), tones=(440, 550, 660)),
    Awkward("silent.mp4", tones=()),
    Awkward("texts.mp4", (*X264, "-map", "2", "-c:s", "mov_text", "-metadata:s:s", "language=deu"),
            more=("-i", "{words}")),
    Awkward("texts.mkv", (*X264, "-map", "2", "-map", "2", "-c:s:0", "srt", "-c:s:1", "ass"), more=("-i", "{words}")),
    Awkward("texts.webm", ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-c:a", "libopus", "-map", "2", "-c:s", "webvtt"),
            more=("-i", "{words}")),
    Awkward("chapters.mp4", (*X264, "-map_chapters", "2"), more=("-i", "{chapters}")),
    Awkward("chapters.mkv", (*X264, "-map_chapters", "2"), more=("-i", "{chapters}")),
    Awkward("fonts.mkv", (*X264, "-attach", "{font}", "-metadata:s:t", "mimetype=application/x-truetype-font")),
    Awkward("album.mp4", (*X264, "-map", "2", "-c:v:1", "png", "-disposition:v:1", "attached_pic"),
            more=("-i", "{art}"), lost=("not copied: a cover picture",)),
    Awkward("album.mkv", (*X264, "-attach", "{art}", "-metadata:s:t", "mimetype=image/png"),
            lost=("not copied: a cover picture",)),
    Awkward("home.mp4", (*X264, *PRIVATE)),
    Awkward("home.mov", (*X264, *PRIVATE, "-timecode", "01:02:03:04"), lost=("not copied: a data stream (#2)",)),
    Awkward("home.mkv", (*X264, *PRIVATE[:-2])),
    Awkward("modern.mp4", ("-c:v", "libsvtav1", "-preset", "12")),
    Awkward("old.avi", (*X264, "-c:a", "mp3")),
    Awkward("motion.avi", ("-c:v", "mjpeg", "-c:a", "pcm_s16le")),
    Awkward("camera.mts", (*X264, "-c:a", "ac3")),
    Awkward("edit.mov", ("-c:v", "prores_ks", "-c:a", "pcm_s16le")),
    Awkward("grey.mkv", (*X264, "-pix_fmt", "gray")),
    Awkward("negative.mkv", (*X264, "-output_ts_offset", "-0.08", "-avoid_negative_ts", "disabled")),
)  # fmt: skip


def probe(path: Path) -> dict[str, Any]:
    """What FFmpeg's own ffprobe knows of a file."""
    shown = "-show_streams -show_format -show_chapters -show_packets -show_frames -show_data_hash md5 -of json"
    words = ["ffprobe", "-v", "error", *shown.split(), str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    probed: dict[str, Any] = json.loads(done.stdout)
    return probed
