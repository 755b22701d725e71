"""Ways in which a manifest goes wrong, or nearly: each changes one place of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

from cases import Manifest

Place = tuple[Any, Any]
"""A container, and the key or position in it."""

_WRONG = [None, True, False, 0, -1, 1, 1.5, 2.0, 2**31, 2**63, 10**30, "", "a", "1", "5s", "é", [], [None], {}, {"name": "a"}]
_BOUNDS = [0, 1, 100, 101, 10000, 10001, 65535, 65536, 2**31 - 1, 2**31]
_LENGTHS = [16, 32, 33, 57, 58, 63, 64, 253, 254]
_MARKS = ["\n", "\x00", "\x7f", "\x85", "\xa0", "\u2028", " ", ".", "..", "-", "/", "%", "A", "\u0660", "\u212a", "\ufffd", "0s"]
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=70)


def damage(draw: st.DrawFn, made: Manifest) -> None:
    """One way, at one place where it means something."""
    spec = made.get("spec")
    places: list[Place] = [(made["metadata"], "name")]
    if isinstance(spec, dict):
        places += [(made, "spec"), *_places(spec)]
    fits, do = draw(st.sampled_from(_WAYS))
    fitting = [place for place in places if fits(*place)]
    if fitting:
        do(draw, *draw(st.sampled_from(fitting)))


def _places(node: Any) -> Iterator[Place]:
    items = list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
    for key, value in items:
        yield node, key
        yield from _places(value)


def _edit(draw: st.DrawFn, node: Any, key: Any) -> None:
    """A value of the same type; often a bound, or past it."""
    value = node[key]
    if isinstance(value, bool) or value is None:
        node[key] = not value
    elif isinstance(value, int | float):
        node[key] = draw(st.sampled_from([value - 1, value + 1, -value, value + 0.5, *_BOUNDS]))
    elif isinstance(value, str):
        node[key] = _edited_text(draw, value)
    elif isinstance(value, list):
        node[key] = draw(st.sampled_from([value[::-1], value[1:], value[:-1], value + copy.deepcopy(value), []]))
    else:
        node[key] = dict(reversed(value.items()))


def _edited_text(draw: st.DrawFn, text: str) -> str:
    mark, length, at = draw(st.sampled_from(_MARKS)), draw(st.sampled_from(_LENGTHS)), draw(st.integers(0, len(text)))
    marked = [text + mark, mark + text, text[:at] + mark + text[at:]]
    resized = [(text or "a") * length, (text or "a")[:1] * length, f"{text}1", text[:-1]]
    return draw(st.sampled_from(marked + resized) | _TEXT)


def _cast(draw: st.DrawFn, node: Any, key: Any) -> None:
    """What a model that coerces would take for the same value."""
    value = node[key]
    same = [int(value), str(value).lower(), "yes"] if isinstance(value, bool) else [str(value), float(value), bool(value)]
    node[key] = draw(st.sampled_from(same))


def _wrong(draw: st.DrawFn, node: Any, key: Any) -> None:
    node[key] = copy.deepcopy(draw(st.sampled_from(_WRONG)))


def _remove(draw: st.DrawFn, node: Any, key: Any) -> None:
    node.pop(key)


def _null(draw: st.DrawFn, node: Any, key: Any) -> None:
    node[key] = None


def _rename(draw: st.DrawFn, node: Any, key: Any) -> None:
    """To snake_case, or to nothing known."""
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in key)
    node[draw(st.sampled_from([snake, key.capitalize()]))] = node.pop(key)


def _unknown(draw: st.DrawFn, node: Any, key: Any) -> None:
    """Another field, known elsewhere or nowhere."""
    name = draw(st.sampled_from(["unknown", "name", "port", "number", "key"]))
    node[key].setdefault(name, draw(st.sampled_from([None, 1, "a", {}])))


def _double(draw: st.DrawFn, node: Any, key: Any) -> None:
    node.insert(draw(st.integers(0, len(node))), copy.deepcopy(node[key]))


def _copy(draw: st.DrawFn, node: Any, key: Any) -> None:
    """One field of one item into another item."""
    field = draw(st.sampled_from(sorted(node[key])))
    node[draw(st.integers(0, len(node) - 1))][field] = copy.deepcopy(node[key][field])


def _anywhere(node: Any, key: Any) -> bool:
    return True


def _in_object(node: Any, key: Any) -> bool:
    return isinstance(node, dict)


def _in_list(node: Any, key: Any) -> bool:
    return isinstance(node, list)


def _among_objects(node: Any, key: Any) -> bool:
    return isinstance(node, list) and len(node) > 1 and all(isinstance(one, dict) and one for one in node)


def _is_number(node: Any, key: Any) -> bool:
    return isinstance(node[key], int | float)


def _is_object(node: Any, key: Any) -> bool:
    return isinstance(node[key], dict)


_Way = tuple[Callable[[Any, Any], bool], Callable[[st.DrawFn, Any, Any], None]]
_WAYS: list[_Way] = [
    (_anywhere, _edit), (_anywhere, _edit), (_anywhere, _edit), (_is_number, _edit), (_is_number, _cast), (_anywhere, _wrong),
    (_in_object, _remove), (_in_object, _null), (_in_object, _rename), (_is_object, _unknown), (_in_list, _double),
    (_among_objects, _copy),
]  # fmt: skip
