"""The constants by which the stages decide, one frozen struct a stage: docs/heuristics.md is generated from them.

They are not meant for everyday use. A settings file may change them in tables `[advanced.STAGE]`, and
`benchmarks/leak_table.py --set STAGE.NAME=VALUE` sweeps them. Each says its unit, its purpose, and where it comes from:

measured: an alternative was measured (docs/experiments), or the value is read from data. literature: taken from the
named paper or library. bound: follows from another constant, or from what is possible. guess: chosen by eye, never
measured.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct, to_builtins
from msgspec.structs import asdict

MEASURED = "measured"
LITERATURE = "literature"
BOUND = "bound"
GUESS = "guess"


def constant(unit: str, purpose: str, origin: str, minimum: float = 0) -> Meta:
    """A number from `minimum` on. unit: of the number; `1` where it has none."""
    return Meta(ge=minimum, description=purpose, extra={"unit": unit, "origin": origin})


class StageSettings(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One stage's constants."""


class AnalyserSettings(StageSettings, frozen=True):
    """analyse: what is known of a frame before any detection."""

    luma_side: Annotated[
        int, constant("px", "longer side of the luma on which cuts, motion and templates work", GUESS, 64)
    ] = 640
    dark_level: Annotated[
        int, constant("luma 0-255", "pixels below this are dark (16 is black in video range)", GUESS)
    ] = 45
    dark_share: Annotated[
        float, constant("share of pixels", "a frame with more dark pixels than this shows nothing", GUESS)
    ] = 0.98
    flat_deviation: Annotated[
        float, constant("luma", "a frame whose luma deviates by less shows nothing (covered lens, fog)", GUESS)
    ] = 6.0


class SceneCutSettings(StageSettings, frozen=True):
    """scene_cuts: where a scene ends."""

    width: Annotated[int, constant("px", "width of the picture that is compared", LITERATURE, 8)] = 64
    height: Annotated[int, constant("px", "height of the picture that is compared", LITERATURE, 8)] = 36
    histogram_bins: Annotated[int, constant("bins", "resolution of the luma histogram", GUESS, 2)] = 32
    pixel_change: Annotated[
        float, constant("luma", "mean difference from which, with histogram_change, a cut is seen", GUESS)
    ] = 12.0
    histogram_change: Annotated[
        float, constant("share of pixels", "share of the histogram that must have moved as well", GUESS)
    ] = 0.15
    full_change: Annotated[
        float, constant("luma", "mean difference from which it is a cut whatever the histogram says", GUESS)
    ] = 40.0


class CameraMotionSettings(StageSettings, frozen=True):
    """camera_motion: the camera's motion between two frames, from optical flow."""

    side: Annotated[int, constant("px", "longer side on which the flow is measured", MEASURED, 64)] = 320
    cell: Annotated[int, constant("px", "side of the cells of which each lends one corner", GUESS, 4)] = 24
    refresh_interval: Annotated[
        int, constant("frames", "corners are detected anew after so many frames", MEASURED, 1)
    ] = 3
    min_kept: Annotated[
        float, constant("share of corners", "with fewer left inside the frame they are detected anew", GUESS)
    ] = 0.8
    max_iterations: Annotated[int, constant("steps", "of the Lucas-Kanade flow, per level", MEASURED, 1)] = 10
    epsilon: Annotated[float, constant("px", "the flow stops when a step changes it by less", GUESS)] = 0.03
    min_corner_quality: Annotated[
        float, constant("eigenvalue", "smallest eigenvalue of the gradient covariance at a corner (OpenCV)", LITERATURE)
    ] = 1e-4
    min_corners: Annotated[int, constant("corners", "with fewer tracked, no motion is reported", GUESS, 3)] = 12
    min_change: Annotated[float, constant("luma", "mean difference below which the frame counts as unmoved", GUESS)] = (
        1.0
    )
    standing_shift: Annotated[float, constant("px", "shift up to which a corner counts as standing", GUESS)] = 0.15
    standing_share: Annotated[
        float, constant("share of corners", "standing ones from which the camera stands", GUESS)
    ] = 0.4
    inlier_distance: Annotated[
        float, constant("px", "RANSAC: distance up to which a corner agrees with the motion", GUESS)
    ] = 1.0
    min_inliers: Annotated[float, constant("share of corners", "that must agree with the motion", GUESS)] = 0.5
    min_spread: Annotated[
        float,
        constant("share of a side", "standard deviation of the agreeing corners (0.29: all over the frame)", GUESS),
    ] = 0.17
    max_zoom: Annotated[float, constant("factor", "that no camera zooms by between two frames", BOUND, 1)] = 1.25
    max_turn: Annotated[float, constant("rad", "that no camera turns by between two frames", BOUND)] = 0.35


class ExposureSettings(StageSettings, frozen=True):
    """exposure: dark regions are brightened for the detector."""

    side: Annotated[int, constant("px", "longer side of the map of gains", GUESS, 8)] = 80
    reach: Annotated[
        float,
        constant("share of the longer side", "deviation of the Gaussian over a region's surroundings", GUESS, 0.01),
    ] = 0.1
    target: Annotated[float, constant("luma over black", "surroundings darker than this are brightened", MEASURED)] = (
        80.0
    )
    strength: Annotated[float, constant("exponent", "1: all the way to `target`; 0: not at all", MEASURED)] = 0.6
    min_gain: Annotated[float, constant("factor", "a frame none of which needs as much is left as it is", GUESS, 1)] = (
        1.5
    )
    max_gain: Annotated[float, constant("factor", "the largest gain", BOUND, 1)] = 6.0


class PolicySettings(StageSettings, frozen=True):
    """policy: on which frames the detector runs, and at which size; load shedding."""

    reduced_scale: Annotated[
        float, constant("factor", "of the detector's input for a reduced full frame", MEASURED, 0.1)
    ] = 2 / 3
    eager_frames: Annotated[
        int, constant("frames", "after a cut with a full frame each: every face is new there", GUESS)
    ] = 5
    max_motion: Annotated[
        float, constant("share of the face's side", "`every = auto`: motion allowed between two detections", GUESS)
    ] = 0.25
    max_auto_interval: Annotated[int, constant("frames", "`every = auto`: longest interval", MEASURED, 1)] = 2
    steady_motion: Annotated[
        float,
        constant("share of the face's side", "per frame, up to which crops suffice between slow frames", GUESS),
    ] = 0.1
    slow_interval_s: Annotated[float, constant("s", "frames further apart than this are all detected on", GUESS)] = 0.06
    max_shed_gap_s: Annotated[
        float, constant("s", "after the last detection, from which load is not shed (covers last twice that)", BOUND)
    ] = 0.35
    recovery_frames: Annotated[int, constant("frames", "without a backlog after which less load is shed", GUESS, 1)] = (
        30
    )


class CropMosaicSettings(StageSettings, frozen=True):
    """crop_mosaic: crops around known faces in one small picture."""

    max_shown_side: Annotated[float, constant("px of the mosaic", "larger faces are shrunk to this", MEASURED, 8)] = (
        64.0
    )
    max_face_side: Annotated[
        float,
        constant("px of the detector's input", "with a larger face, a reduced full frame instead", MEASURED),
    ] = 256.0
    margin: Annotated[float, constant("share of the face's side", "shown around a face on each side", MEASURED)] = 0.75
    min_margin: Annotated[float, constant("px of the mosaic", "shown around a face at least", GUESS)] = 16.0
    shared_margin: Annotated[
        float,
        constant(
            "share of the face's side", "a face that another crop shows with this margin needs none of its own", GUESS
        ),
    ] = 0.25
    shared_scale: Annotated[
        float, constant("factor", "and with at least this share of its own crop's resolution", GUESS)
    ] = 0.7
    gap: Annotated[int, constant("px of the mosaic", "grey between two crops", GUESS)] = 8
    edge_tolerance: Annotated[
        float,
        constant("px of the mosaic", "a box may reach over its crop's edge; further, it is a part of a face", MEASURED),
    ] = 0.5


class TruncatedFaceSettings(StageSettings, frozen=True):
    """truncated_faces: faces that the frame's edge cuts."""

    min_width_over_height: Annotated[
        float,
        constant("ratio", "minimum plausible width/height of a complete face: of 85 % of labelled ones", MEASURED),
    ] = 0.7
    min_height_over_width: Annotated[
        float,
        constant("ratio", "minimum plausible height/width of a complete face: of 92 % of labelled ones", MEASURED),
    ] = 1.1
    edge_distance: Annotated[
        float, constant("share of the longer side", "distance to the edge up to which a box counts as cut", GUESS)
    ] = 0.04


class KalmanSettings(StageSettings, frozen=True):
    """kalman: the noise of the motion model."""

    position_noise: Annotated[
        float, constant("sides per tick", "random walk of the position, and measurement noise", LITERATURE)
    ] = 1 / 20
    speed_noise: Annotated[
        float, constant("sides per tick", "random walk of the speed (both: ByteTrack's values)", LITERATURE)
    ] = 1 / 160


class TrackSettings(StageSettings, frozen=True):
    """track: association and life of tracks."""

    max_step_s: Annotated[float, constant("s", "a longer gap between frames is predicted over as this one", BOUND)] = (
        1.0
    )
    small_side: Annotated[
        float, constant("px", "faces up to this side are compared with all of tracker.box_buffer", GUESS, 1)
    ] = 20.0
    large_side: Annotated[float, constant("px", "faces from this side on are compared without a buffer", GUESS, 2)] = (
        80.0
    )
    min_near_score: Annotated[
        float, constant("score", "from which a box that only lies near a track continues it", MEASURED)
    ] = 0.35
    touching_iou: Annotated[float, constant("IoU", "above which two detections touch: more than rounding", BOUND)] = (
        0.01
    )
    after_cut_s: Annotated[float, constant("s", "after a cut in which one detection confirms a face", GUESS)] = 0.25
    max_coast_growth: Annotated[
        float, constant("share", "a coasted box grows by its uncertainty, at most by this", GUESS)
    ] = 0.5
    max_prediction_growth: Annotated[
        float, constant("share", "a predicted box grows by its uncertainty, at most by this", GUESS)
    ] = 1.0


class DetectorHealthSettings(StageSettings, frozen=True):
    """detector_health: when the detector's silence is a fault."""

    min_mean_faces: Annotated[
        float,
        constant("faces", "if the recent mean count is this and drops to zero, the detector failed", GUESS),
    ] = 1.5
    mean_decay: Annotated[float, constant("factor per detection", "of the running mean", GUESS)] = 0.9
    lost_decay: Annotated[
        float,
        constant("factor per detection", "while all are lost: two faces are held for about 2 s, five for 8 s", GUESS),
    ] = 0.995
    coast_s: Annotated[
        float, constant("s", "faces keep moving when the detector fails, before they are held in place", MEASURED)
    ] = 0.4
    coast_share: Annotated[
        float, constant("share of tracker.coast_s", "the same at most, so that none is dropped before", BOUND)
    ] = 0.6


class TemplateMatchSettings(StageSettings, frozen=True):
    """template_match: finding a face again by its pixels."""

    side: Annotated[int, constant("px", "a face is shrunk to this before it is compared", GUESS, 8)] = 32
    min_side: Annotated[int, constant("px of the luma", "smaller faces are not matched", GUESS, 2)] = 6
    search_range: Annotated[
        float, constant("share of the longer side", "a face may have moved by this between two frames", GUESS)
    ] = 0.6
    min_deviation: Annotated[float, constant("luma", "a flatter template is not matched", GUESS)] = 2.0


class TrackThroughSettings(StageSettings, frozen=True):
    """track_through: following a face through buffered frames."""

    lost_growth: Annotated[float, constant("share per frame", "a box grows while the face is not matched", GUESS)] = (
        0.04
    )
    matched_growth: Annotated[float, constant("share per frame", "a box grows while the face is matched", GUESS)] = (
        0.015
    )
    min_correlation: Annotated[float, constant("correlation", "from which two patches show the same face", GUESS)] = 0.5
    grace_frames: Annotated[int, constant("frames", "covered on after the match was lost", GUESS)] = 3
    max_inward: Annotated[
        float, constant("share of a side", "a truncated face may seem to move inward, going back in time", MEASURED)
    ] = 0.1


class BackfillSettings(StageSettings, frozen=True):
    """backfill: covers before a track's first detection."""

    onset_detections: Annotated[
        int, constant("detections", "from which the motion before the first one is judged", GUESS, 3)
    ] = 6
    max_frames: Annotated[int, constant("frames", "followed back at most", GUESS)] = 60
    max_extrapolated: Annotated[int, constant("frames", "extrapolated back without a match at most", GUESS)] = 15


class GapSettings(StageSettings, frozen=True):
    """fill_gaps: covers between two detections, and after the last one."""

    short_gap: Annotated[
        int, constant("frames", "to the next detection up to which a straight line is enough", MEASURED)
    ] = 4
    short_growth: Annotated[float, constant("share", "boxes on that line grow by this", MEASURED)] = 0.05
    merge_iou: Annotated[float, constant("IoU", "from which two places of a track are covered by one box", GUESS)] = 0.1
    max_followed: Annotated[int, constant("frames", "followed by template matching at most", GUESS)] = 15


class LookaheadSettings(StageSettings, frozen=True):
    """lookahead: the delay line."""

    confirm_frames: Annotated[
        int, constant("frames", "within which a track's detections must confirm it", MEASURED, 1)
    ] = 30
    max_tracks: Annotated[int, constant("tracks", "about which something is remembered", BOUND, 1)] = 4096


class SmoothSettings(StageSettings, frozen=True):
    """smooth: the box that leaves."""

    statistics_frames: Annotated[
        int, constant("frames", "on either side for a track's usual size and score: the look-ahead", BOUND, 1)
    ] = 15
    percentile: Annotated[float, constant("share", "quantile of a track's sizes; of its scores from above", GUESS)] = (
        0.7
    )
    path_frames: Annotated[int, constant("frames", "on either side over which the path is averaged", GUESS)] = 5
    path_sigma: Annotated[
        float, constant("frames", "standard deviation of the average's Gaussian weights", GUESS, 0.1)
    ] = 2.5
    clear_score: Annotated[float, constant("score", "below which a box is placed badly and grows", MEASURED)] = 0.95
    dim_score: Annotated[float, constant("score", "at which it grows by all of it", MEASURED)] = 0.85
    max_growth: Annotated[float, constant("share", "that it grows by at most", MEASURED)] = 0.2


class AnonymiseSettings(StageSettings, frozen=True):
    """anonymise: the covers."""

    min_cell: Annotated[
        int, constant("px", "pixelate: smallest square, so that tiny faces become a few flat squares", GUESS, 2)
    ] = 4
    blur_side: Annotated[int, constant("px", "blur: a face is shrunk to this before it is smoothed", GUESS, 2)] = 12
    blur_sigma: Annotated[float, constant("px", "blur: of the Gaussian on the shrunk face", GUESS, 0.1)] = 1.2


class FailClosedSettings(StageSettings, frozen=True):
    """fail_closed: how long a live frame may wait."""

    min_slack_s: Annotated[
        float, constant("s", "a frame may wait this much longer than the look-ahead takes", GUESS)
    ] = 0.1
    slack_frames: Annotated[
        float, constant("frames", "or this many frame intervals longer, since cameras are not regular", GUESS)
    ] = 2.0
    max_interval_s: Annotated[
        float, constant("s", "longer frame intervals count as this long: slow cameras would be minutes late", GUESS)
    ] = 0.2
    interval_window: Annotated[int, constant("frames", "over which the frame interval is judged", GUESS, 1)] = 31
    min_intervals: Annotated[int, constant("frames", "with fewer the frame interval is not known", GUESS, 1)] = 5


class TwoPassSettings(StageSettings, frozen=True):
    """two_pass: the first pass over a file."""

    lookahead: Annotated[int, constant("frames", "the first pass looks ahead, without pixels", GUESS, 1)] = 120
    bridge_s: Annotated[float, constant("s", "a face that was gone for this long is covered in between", GUESS)] = 2.0


class Heuristics(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The constants of all stages: a table `[advanced.STAGE]` of the settings each."""

    analyse: AnalyserSettings = AnalyserSettings()
    scene_cuts: SceneCutSettings = SceneCutSettings()
    camera_motion: CameraMotionSettings = CameraMotionSettings()
    exposure: ExposureSettings = ExposureSettings()
    policy: PolicySettings = PolicySettings()
    crop_mosaic: CropMosaicSettings = CropMosaicSettings()
    truncated_faces: TruncatedFaceSettings = TruncatedFaceSettings()
    kalman: KalmanSettings = KalmanSettings()
    track: TrackSettings = TrackSettings()
    detector_health: DetectorHealthSettings = DetectorHealthSettings()
    template_match: TemplateMatchSettings = TemplateMatchSettings()
    track_through: TrackThroughSettings = TrackThroughSettings()
    backfill: BackfillSettings = BackfillSettings()
    fill_gaps: GapSettings = GapSettings()
    lookahead: LookaheadSettings = LookaheadSettings()
    smooth: SmoothSettings = SmoothSettings()
    anonymise: AnonymiseSettings = AnonymiseSettings()
    fail_closed: FailClosedSettings = FailClosedSettings()
    two_pass: TwoPassSettings = TwoPassSettings()

    def every(self) -> dict[str, dict[str, Any]]:
        """All constants, by stage and name, those with their default value as well."""
        return {
            name: {key: to_builtins(value) for key, value in asdict(part).items()}
            for name, part in asdict(self).items()
        }


DEFAULTS = Heuristics()
