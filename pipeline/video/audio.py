"""Re-encodes audio: if the container does not support the source's codec, or to distort voices.

    packet -> decoder -> filter graph (gaps filled, voice, rate and layout) -> encoder -> packets

The output has no gaps, so its times are counted from the first sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
import av.container
import av.filter
from av.audio.stream import AudioStream
from facestream.pipeline.video.decode import Packet

# The first that this FFmpeg has.
_CODECS: dict[str, tuple[str, ...]] = {
    "mp4": ("aac",),
    "mov": ("aac",),
    "3gp": ("aac",),
    "flv": ("aac",),
    "mpegts": ("aac",),
    "matroska": ("libopus", "aac"),
    "webm": ("libopus", "libvorbis"),
    "avi": ("libmp3lame", "ac3"),
}
NAMES = {"aac": "AAC", "libopus": "Opus", "libmp3lame": "MP3", "libvorbis": "Vorbis", "ac3": "AC-3"}
_RATES = (48000, 44100, 32000, 24000, 22050, 16000, 8000)
_SURROUND = ("5.1", "7.1")
_BIT_RATE = 64_000  # for each channel
# Pitch and formants lower by a fifth (samples played slower, then quickened without touching the pitch), harmonics
# moved off their places, the pitch made to waver and the band narrowed: who listens, or compares voices, has neither
# the height, nor the throat, nor the melody. It is no encryption.
_LOWER = 0.8
_DISTORTION = (
    ("asetrate", "{lowered}"),
    ("aresample", "{rate}"),
    ("atempo", f"{1 / _LOWER}"),
    ("afreqshift", "shift=45"),
    # vibrato begins with what lay in memory before, often no number, at which encoders fail: it gets silence first,
    # and what it makes of that is cut off before the filters that remember.
    ("adelay", "50:all=1"),
    ("vibrato", "f=5.5:d=0.15"),
    ("atrim", "start=0.05"),
    ("highpass", "f=120"),
    ("lowpass", "f=3600"),
)


def encoder_of(kind: str) -> str | None:
    """FFmpeg's name of the audio encoder for this container; None if it supports no audio."""
    return next((name for name in _CODECS.get(kind, ()) if name in av.codecs_available), None)


class AudioTranscoder:
    """One audio stream of an output, fed with the source's packets."""

    def __init__(
        self, output: av.container.OutputContainer, kind: str, decoder: av.AudioCodecContext, distort: bool
    ) -> None:
        """kind: the output's container. Raises ValueError or av.FFmpegError if it does not support such a stream."""
        name = encoder_of(kind)
        if name is None:
            raise ValueError(f"{kind} holds no sound")
        self._decoder = decoder
        self._distort = distort
        rate = decoder.sample_rate or 48000
        self.rate = 48000 if name == "libopus" or rate not in _RATES else rate
        channels = decoder.layout.nb_channels
        keeps = decoder.layout.name in _SURROUND and name in ("aac", "libopus")
        self.layout = decoder.layout.name if keeps else "mono" if channels == 1 else "stereo"
        stream = output.add_stream(name, rate=self.rate, layout=self.layout)
        assert isinstance(stream, AudioStream)
        self.stream = stream
        stream.bit_rate = _BIT_RATE * min(channels or 2, 6 if keeps else 2)
        stream.codec_context.time_base = Fraction(1, self.rate)
        self.failed = 0  # packets that could not be decoded
        self._graph: av.filter.Graph | None = None
        self._form: tuple[object, ...] = ()
        self._start_s: Fraction | None = None
        self._samples = 0

    def encode(self, packet: Packet | None, shift: Fraction) -> Iterator[Packet]:
        """The packets that this one completes, their times earlier by `shift` seconds; None: the rest."""
        try:
            frames = self._decoder.decode(packet)
        except av.FFmpegError:
            self.failed += 1
            frames = []
        for frame in frames:
            if frame.pts is not None and frame.time_base is None and packet is not None:
                frame.time_base = packet.time_base
            yield from self._filter(frame, shift)
        if packet is None and self._graph is not None:
            self._graph.push(None)
            yield from self._pull()
            yield from self.stream.encode(None)

    def _filter(self, frame: av.AudioFrame, shift: Fraction) -> Iterator[Packet]:
        form = frame.format.name, frame.layout.name, frame.sample_rate
        if self._start_s is None:
            at = frame.pts * Fraction(frame.time_base) if frame.pts is not None and frame.time_base else Fraction(0)
            self._start_s = at - shift
        if self._graph is not None and form != self._form:  # the source changed its format: a graph takes only one
            self._graph.push(None)
            yield from self._pull()
            self._graph = None
        if self._graph is None:
            self._graph = self._build(frame)
            self._form = form
        self._graph.push(frame)
        yield from self._pull()

    def _build(self, frame: av.AudioFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        unit = frame.time_base or Fraction(1, frame.sample_rate)
        source = graph.add(
            "abuffer",
            f"sample_rate={frame.sample_rate}:sample_fmt={frame.format.name}"
            f":channel_layout={frame.layout.name}:time_base={unit.numerator}/{unit.denominator}",
        )
        rate = self.rate
        steps = [("aresample", f"{rate}:async=1000")]
        if self._distort:
            values = {"rate": rate, "lowered": round(rate * _LOWER)}
            steps += [(name, options.format(**values)) for name, options in _DISTORTION]
        formats = [kind.name for kind in self.stream.codec_context.codec.audio_formats or ()] or ["s16"]
        steps.append(("aformat", f"sample_fmts={formats[0]}:sample_rates={rate}:channel_layouts={self.layout}"))
        last = source
        for name, options in steps:
            link = graph.add(name, options)
            last.link_to(link)
            last = link
        last.link_to(graph.add("abuffersink"))
        graph.configure()
        return graph

    def _pull(self) -> Iterator[Packet]:
        assert self._graph is not None
        while True:
            try:
                frame = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            assert isinstance(frame, av.AudioFrame)
            assert self._start_s is not None
            frame.time_base = Fraction(1, self.rate)
            frame.pts = round(self._start_s * self.rate) + self._samples
            self._samples += frame.samples
            yield from self.stream.encode(frame)
