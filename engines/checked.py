"""Validates values from files and options against types with msgspec, with readable errors."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
NAMES = {
    "int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "array": "a list",
    "object": "a table", "null": "nothing",
}  # fmt: skip
LIMITS = {">=": "of at least", ">": "over", "<=": "of at most", "<": "under"}


class Wrong(ValueError):
    """An invalid value. A type's own __post_init__ raises it too, with the field as key.

    key: dotted path of the value (`cover.masks.0`), empty for the whole. why: what is allowed. known: the existing
    fields, if the key is not one of them.
    """

    def __init__(self, key: str, why: str, known: tuple[str, ...] = ()) -> None:
        super().__init__(f"{key}: {why}")
        self.key = key
        self.why = why
        self.known = known


def checked(value: Any, kind: type[T], strict: bool = True) -> T:
    """A dict, as JSON and TOML give it, as one of these structs. strict: a text is no number. Raises Wrong."""
    try:
        return msgspec.convert(value, kind, strict=strict, from_attributes=True)
    except msgspec.ValidationError as e:
        raise _wrong(e, kind) from None


def at(value: Any, key: str) -> Any:
    """What stands at a key of Wrong in a value that was checked."""
    for part in key.split(".") if key else ():
        value = value[int(part)] if isinstance(value, (list, tuple)) else value[part]
    return value


def _wrong(error: msgspec.ValidationError, kind: Any) -> Wrong:
    text, _, path = str(error).partition(" - at `$")
    parts = re.findall(r"\w+", path)
    if isinstance(error.__cause__, Wrong):
        return Wrong(".".join([*parts, error.__cause__.key]), error.__cause__.why)
    if match := re.fullmatch(r"Object contains unknown field `(.*)`", text):
        return Wrong(".".join([*parts, match[1]]), "unknown key", tuple(f.name for f in _type_at(kind, parts).fields))
    if match := re.fullmatch(r"Object missing required field `(.*)`", text):
        return Wrong(".".join([*parts, match[1]]), "is missing")
    return Wrong(".".join(parts), _requirement(text, kind, parts))


def _requirement(text: str, kind: Any, parts: list[str]) -> str:
    """msgspec's message as what the value must be."""
    if text.startswith("Invalid enum value"):
        allowed = _type_at(kind, parts)
        values = [member.value for member in allowed.cls] if hasattr(allowed, "cls") else allowed.values
        return "must be one of " + ", ".join(str(value) for value in values)
    match = re.match(r"Expected `([^`]*)`(?: (>=|>|<=|<) (\S+)| of length (\d+))?", text)
    if match is None:
        return text
    text = "must be " + " or ".join(NAMES.get(name, name) for name in match[1].split(" | "))
    if match[2]:
        text += f" {LIMITS[match[2]]} {float(match[3]):g}"
    return text + (f" of {match[4]}" if match[4] else "")


def _type_at(kind: Any, parts: list[str]) -> Any:
    """What msgspec.inspect says of the type there."""
    from msgspec import inspect

    info: Any = inspect.type_info(kind)
    for part in parts:
        if isinstance(info, (inspect.StructType, inspect.DataclassType)):
            info = next(field.type for field in info.fields if field.name == part)
        elif isinstance(info, inspect.TupleType):
            info = info.item_types[int(part)]
        else:
            info = getattr(info, "item_type", info)
        if isinstance(info, inspect.UnionType):  # of a type and nothing
            info = next(one for one in info.types if not isinstance(one, inspect.NoneType))
    return info
