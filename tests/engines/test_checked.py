from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from facestream.engines.checked import Wrong, at, checked
from msgspec import Meta, Struct


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Inner(Struct, frozen=True, forbid_unknown_fields=True):
    share: Annotated[float, Meta(gt=0, le=1)] = 0.5
    kind: Literal["near", "far"] = "near"
    colour: Colour | None = None
    places: tuple[tuple[int, int], ...] = ()
    pair: tuple[Literal["a", "b"], int] = ("a", 1)

    def __post_init__(self) -> None:
        if self.share == 0.25:
            raise Wrong("share", "must be no quarter")


class Outer(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    inner: Inner = Inner()


def test_a_table_becomes_a_struct() -> None:
    made = checked({"name": "x", "inner": {"share": 1, "places": [[1, 2]], "colour": "red"}}, Outer)
    assert made == Outer("x", Inner(1.0, "near", Colour.RED, ((1, 2),)))
    assert isinstance(made.inner.share, float)
    assert checked({"name": "x", "inner": {"share": "0.75"}}, Outer, strict=False).inner.share == 0.75


@pytest.mark.parametrize(
    ("table", "key", "why"),
    [
        ({}, "name", "is missing"),
        ({"name": 3}, "name", "must be text"),
        ({"name": "x", "inner": 3}, "inner", "must be a table"),
        ({"name": "x", "inner": {"share": "0.75"}}, "inner.share", "must be a number"),
        ({"name": "x", "inner": {"share": 0}}, "inner.share", "must be a number over 0"),
        ({"name": "x", "inner": {"share": 2}}, "inner.share", "must be a number of at most 1"),
        ({"name": "x", "inner": {"share": float("nan")}}, "inner.share", "must be a number over 0"),
        ({"name": "x", "inner": {"share": 0.25}}, "inner.share", "must be no quarter"),
        ({"name": "x", "inner": {"kind": "there"}}, "inner.kind", "must be one of far, near"),
        ({"name": "x", "inner": {"colour": "green"}}, "inner.colour", "must be one of red, blue"),
        ({"name": "x", "inner": {"places": [[1, 2], [3]]}}, "inner.places.1", "must be a list of 2"),
        ({"name": "x", "inner": {"places": [[1, True]]}}, "inner.places.0.1", "must be a whole number"),
        ({"name": "x", "inner": {"pair": ["c", 1]}}, "inner.pair.0", "must be one of a, b"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(table: dict[str, Any], key: str, why: str) -> None:
    with pytest.raises(Wrong) as caught:
        checked(table, Outer)
    assert (caught.value.key, caught.value.why, caught.value.known) == (key, why, ())


def test_an_unknown_key_comes_with_those_that_there_are() -> None:
    with pytest.raises(Wrong) as caught:
        checked({"name": "x", "inner": {"shore": 1}}, Outer)
    assert caught.value.key == "inner.shore"
    assert caught.value.known == ("share", "kind", "colour", "places", "pair")
    with pytest.raises(Wrong) as caught:
        checked({"name": "x", "outer": 1}, Outer)
    assert (caught.value.key, caught.value.known) == ("outer", ("name", "inner"))


def test_what_stands_at_a_key() -> None:
    table = {"inner": {"places": [[1, 2], [3]]}}
    assert at(table, "inner.places.1") == [3]
    assert at(table, "") is table
