"""When the detector runs, and on what: plans for analysed frames and summaries, without a detector."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
import numpy as np
import pytest
from facestream.pipeline.config import read
from facestream.pipeline.stages.policy import DetectionPolicy, LoadShedding
from facestream.pipeline.stages.settings import DEFAULTS, Heuristics, PolicySettings
from facestream.pipeline.stages.types import (
    AnalysedFrame,
    DetectionPlan,
    Reason,
    Scope,
    TrackSummary,
    no_boxes,
)
from facestream.pipeline.types import Frame

SETTINGS = DEFAULTS.policy
SIZE = (640, 320)
FACE = np.array([[200.0, 100, 232, 132]])
CROWD = np.array([[x, y, x + 40, y + 40] for x in range(0, 640, 80) for y in range(0, 320, 80)], float)
PICTURE = av.VideoFrame(*SIZE, "yuv420p")
LETTERS = {Scope.SKIPPED: "-", Scope.FULL: "F", Scope.REDUCED: "R", Scope.CROPS: "C"}


def analysed(index: int, step: Fraction = Fraction(1, 30), **known: Any) -> AnalysedFrame:
    return AnalysedFrame(Frame(index, index, step, PICTURE), np.zeros((2, 2), np.uint8), **known)


def policy(lookahead: int = 15, **settings: Any) -> DetectionPolicy:
    made = {key: settings.pop(key) for key in ("full_only", "crops", "shedding", "heuristics") if key in settings}
    flags = {"detector.size": SIZE} | {f"detector.{key}": value for key, value in settings.items()}
    return DetectionPolicy(read(None, flags).detector, lookahead, **made)


def letter(plan: DetectionPlan) -> str:
    """F, R, C, n for crops of nobody, or - for none."""
    return "n" if plan.mosaic is not None and not plan.mosaic.placed else LETTERS[plan.scope]


def plans(
    count: int,
    faces: np.ndarray = FACE,
    cut: int = -1,
    changed: int = -1,
    ends: int = -1,
    lost: int = -1,
    speed: float = 0.0,
    step: Fraction = Fraction(1, 30),
    failed: int = -1,
    **settings: Any,
) -> str:
    """The plan of each frame as a letter. changed, lost: the frame after whose detection somebody is new, or lost."""
    made = policy(**settings)
    tracks, out = TrackSummary(lambda: faces), ""
    for index in range(count):
        plan = made.plan(analysed(index, step, cut=index == cut, ends=index == ends), tracks)
        scope = Scope.FAILED if index == failed else plan.scope
        tracks = TrackSummary(
            lambda: faces,
            speed,
            frozenset({1} if index == changed else ()),
            frozenset({2} if index == lost else ()),
            index,
            float(index * step),
            scope,
        )
        out += letter(plan)
    return out


def test_every_nth_frame_is_a_full_one() -> None:
    assert plans(10, every=3) == "F--F--F--F"
    assert plans(4, every=1) == "FFFF"


def test_between_full_frames_crops_around_known_faces_and_halfway_a_reduced_one() -> None:
    assert plans(18) == "F-C-R-C-F-C-R-C-F-"
    assert plans(6, full_frame_interval=3, every="auto", speed=0.5) == "FCRFCR"
    assert plans(6, full_frame_interval=1) == "F-F-F-"


def test_where_crops_would_cost_more_the_full_frame_is_reduced() -> None:
    assert plans(10, CROWD) == "F-R-R-R-F-"
    made = policy()
    made.plan(analysed(0), TrackSummary(lambda: CROWD))
    assert made.plan(analysed(2), TrackSummary(lambda: CROWD, index=0, scope=Scope.FULL)).reason is Reason.CROWD


def test_a_huge_face_gets_no_crop() -> None:
    assert plans(10, np.array([[10.0, 10, 265, 200]])) == "F-C-R-C-F-"
    assert plans(10, np.array([[10.0, 10, 267, 200]])) == "F-R-R-R-F-"


def test_a_detector_that_recompiles_for_new_shapes_gets_no_crops() -> None:
    assert plans(10, crops=False) == "F-R-R-R-F-"
    assert plans(10, no_boxes(), crops=False) == "F-n-R-n-F-"


def test_where_nobody_is_known_there_is_nothing_to_crop() -> None:
    assert plans(10, no_boxes()) == "F-n-R-n-F-"


def test_a_detector_to_which_all_sizes_cost_the_same_gets_full_frames_only() -> None:
    assert plans(8, full_only=True) == "F-F-F-F-"


def test_after_a_cut_full_frames_for_a_while_and_one_at_a_scenes_end() -> None:
    assert SETTINGS.eager_frames == 5
    assert plans(14, cut=5) == "F-C-RFFFFF-C-R"
    assert plans(16, no_boxes(), cut=6, every=4) == "F---F-FFFFF---F-"
    assert plans(10, ends=3) == "F-CF-C-R-C"
    assert plans(10, ends=3, every=1) == "F" * 10
    assert plans(10, ends=5, every=3) == "F--F--F--F"


def test_after_somebody_is_new_or_lost_the_next_frame_is_detected_on_too() -> None:
    assert plans(10, changed=2) == "F-CC-R-C-F"
    assert plans(10, lost=2) == "F-CF-C-R-C"  # not found in its crop: it may be anywhere
    assert plans(10, lost=4) == "F-C-RC-C-F"  # of a full frame: it is gone
    assert plans(9, lost=3, every=3) == "F--F--F--"


def test_a_failed_detection_is_made_up_for_by_a_full_frame() -> None:
    assert plans(10, failed=2) == "F-CF-C-R-C"
    assert plans(12, failed=8) == "F-C-R-C-FF-C"
    assert plans(4, failed=0, every=3) == "FF--"


def test_full_frames_are_at_most_half_of_the_look_ahead_apart() -> None:
    assert plans(9, lookahead=5) == "F-R-F-R-F"
    assert plans(7, lookahead=1) == "F-F-F-F"


def test_frames_that_come_slowly_are_all_detected_on_in_crops_only_where_all_stand() -> None:
    slowly = Fraction(1, 10)
    assert plans(10, step=slowly, speed=0.11) == "FRRRFRRRFR"
    assert plans(10, step=slowly, speed=0.09) == "FCCCFCCCFC"
    assert plans(10, step=slowly, changed=1) == "FCRCFCCCFC"
    assert plans(6, step=slowly, every=3) == "F--F--"
    assert plans(10, speed=0.11) == "F-C-R-C-F-"


@pytest.mark.parametrize(("every", "planned"), [(2, [0, 2, 3, 4, 5, 7]), (4, [0, 4])])
def test_a_frame_that_comes_late_is_detected_on_unless_few_are_to_be(every: int, planned: list[int]) -> None:
    made = policy(every=every)
    times = [0, 1, 2, 4, 6, 8, 9, 10]  # thirtieths of a second
    frames = [replace(analysed(i), frame=Frame(i, t, Fraction(1, 30), PICTURE)) for i, t in enumerate(times)]
    scopes = [made.plan(frame, TrackSummary()).scope for frame in frames]
    assert [i for i, scope in enumerate(scopes) if scope is not Scope.SKIPPED] == planned


@pytest.mark.parametrize(
    ("speed", "lookahead", "step"),
    [(0.0, 15, 2), (0.05, 15, 2), (0.12, 15, 2), (0.5, 15, 1), (0.0, 0, 1), (0.0, 1, 2)],
)
def test_auto_detects_less_often_the_calmer_the_faces_and_never_beyond_the_look_ahead(
    speed: float, lookahead: int, step: int
) -> None:
    shown = plans(12, every="auto", speed=speed, lookahead=lookahead)
    assert {b - a for a, b in pairwise(i for i, c in enumerate(shown) if c != "-")} == {step}


def test_a_fixed_interval_is_not_changed() -> None:
    assert plans(6, every=2, speed=9.0, full_frame_interval=1) == "F-F-F-"


def test_under_load_frames_are_passed_over_but_never_for_long() -> None:
    shedding = LoadShedding(4)
    made = policy(every=1, shedding=shedding)
    tracks, planned = TrackSummary(lambda: FACE), []
    for index in range(40):
        plan = made.plan(analysed(index, backlog=True), tracks)
        if plan.scope is not Scope.SKIPPED:
            planned.append(index)
            tracks = TrackSummary(lambda: FACE, index=index, time_s=index / 30, scope=plan.scope)
        else:
            assert plan.reason is Reason.LOAD
            tracks = TrackSummary(lambda: FACE, index=index, time_s=index / 30, scope=Scope.SKIPPED)
    assert {b - a for a, b in pairwise(planned[3:])} == {4}
    assert made.plan(analysed(52, backlog=True), tracks).scope is not Scope.SKIPPED  # 0.4 s and more after the last


def test_load_is_not_shed_at_a_cut_and_the_frames_after_it() -> None:
    shedding = LoadShedding(4, skip=3)
    made = policy(every=1, shedding=shedding)
    made.plan(analysed(0, backlog=True), TrackSummary(lambda: FACE))
    tracks = TrackSummary(lambda: FACE, index=0, time_s=0.0, scope=Scope.FULL)
    assert made.plan(analysed(1, backlog=True), tracks).reason is Reason.LOAD
    tracks = replace(tracks, scope=Scope.SKIPPED)
    assert made.plan(analysed(2, backlog=True, cut=True), tracks).reason is Reason.CUT
    assert made.plan(analysed(3, backlog=True), replace(tracks, scope=Scope.FULL)).reason is Reason.CUT


def test_load_shedding_recovers_step_by_step() -> None:
    shedding = LoadShedding(4)
    for _ in range(9):
        shedding.report_backlog(True)
    assert shedding.skip == 3
    for _ in range(SETTINGS.recovery_frames - 1):
        shedding.report_backlog(False)
    assert shedding.skip == 3
    shedding.report_backlog(False)
    assert shedding.skip == 2
    for _ in range(3 * SETTINGS.recovery_frames):
        shedding.report_backlog(False)
    assert shedding.skip == 0


def test_without_load_shedding_a_backlog_changes_nothing() -> None:
    made = policy(every=1)
    for index in range(5):
        tracks = TrackSummary(lambda: FACE, index=index - 1, scope=Scope.FULL)
        assert made.plan(analysed(index, backlog=True), tracks).scope is Scope.FULL


def test_a_plan_can_be_printed() -> None:
    made = policy()
    assert str(made.plan(analysed(0), TrackSummary(lambda: FACE))) == "frame 0: full, first"
    tracks = TrackSummary(lambda: FACE, index=0, time_s=0.0, scope=Scope.FULL)
    assert str(made.plan(analysed(1), tracks)) == "frame 1: skipped, interval"
    assert str(made.plan(analysed(2), replace(tracks, scope=Scope.SKIPPED))) == "frame 2: crops (1), interval"


def test_its_constants_can_be_set() -> None:
    heuristics = Heuristics(policy=PolicySettings(eager_frames=2))
    assert plans(12, cut=5, heuristics=heuristics) == "F-C-RFF-C-R-"
