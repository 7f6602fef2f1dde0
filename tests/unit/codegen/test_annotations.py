"""Annotations: a mistake stops the generator with its place and with what to write.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from codegen.annotations import Spec
from codegen.emit import outputs
from codegen.errors import SpecError
from codegen.verify import load_spec

Edit = Callable[[str, str, str], None]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (', params = { phStream = "out" } }', " }", "(CUstream *): its direction is not known"),
        ('phStream = "out"', 'phStream = "outwards"', "names no direction"),
        ('phStream = "out"', 'phStream = "out length=3"', "is not understood"),
        ('phStream = "out"', 'phStream = "out count=n"', "'n' is no parameter"),
        ('phStream = "out"', 'phStream = "out count=Flags bytes=Flags"', "more than one length"),
        ('phStream = "out"', 'phStream = "out", Flags = "in"', "Flags is passed by value"),
        ('phStream = "out"', 'phStream = "out", other = "in"', "has no parameter other"),
        ('userData = "in opaque"', 'userData = "in"', "(void *): its length is not known"),
        ('param = "in"', 'param = "out"', "points to const"),
        ('cuStreamCreate = { class = "async"', 'cuStreamCreate = { class = "lazy"', "must be"),
        ("cuStreamCreate = {", "cuStreamNoSuch = {", "the driver exports no such function"),
        ("cuStreamCreate = {", "cuStreamQuery_ptsz = {", "derived from cuStreamQuery"),
        ('cuStreamQuery = { class = "sync" }', "", "cuStreamQuery is annotated nowhere"),
        ('alias = "cuStreamDestroy_v2" }', 'alias = "cuStreamCreate" }', "parameters differ"),
        ('alias = "cuStreamDestroy_v2" }', 'alias = "cuStreamNo" }', "no function with a body"),
        ('cuStreamQuery = { class = "sync"', 'cuStreamQuery = { klass = "x"', "key 'klass'"),
        ('cuStreamQuery = { class = "sync"', 'cuStreamQuery = { answer = "no"', "write answer ="),
        (
            'cuStreamQuery = { class = "sync"',
            'cuStreamQuery = { traits = [], class = "sync"',
            "write them in commands.toml",
        ),
    ],
)
def test_a_mistake_stops_the_generator(
    root: Path, edit: Edit, old: str, new: str, message: str
) -> None:
    edit("functions/stream.toml", old, new)
    with pytest.raises(SpecError) as caught:
        load_spec(root)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("trait", "message"),
    [("changes_launch", "unknown trait 'changes_launch'; known: "), ("staged", "on a stream")],
)
def test_a_trait_that_the_worker_would_not_ask_for_is_refused(
    root: Path, edit: Edit, trait: str, message: str
) -> None:
    edit(
        "functions/texture_reference.toml", 'traits = ["changes_launches"]', f'traits = ["{trait}"]'
    )
    with pytest.raises(SpecError) as caught:
        load_spec(root)
    assert "texture_reference.toml: cuTexRefSetArray: " in str(caught.value)
    assert message in str(caught.value)


def test_a_missing_direction_names_file_function_parameter_and_remedy(
    root: Path, edit: Edit
) -> None:
    edit("functions/event.toml", ', params = { phEvent = "out" }', "")
    with pytest.raises(SpecError) as caught:
        load_spec(root)
    text = str(caught.value)
    assert "functions/event.toml: cuEventCreate: parameter phEvent (CUevent *)" in text
    assert 'write params = { phEvent = "in" | "out" | "inout" }' in text


def test_a_function_in_two_files_is_refused(root: Path, edit: Edit) -> None:
    edit("functions/event.toml", "cuEventQuery =", "cuStreamQuery =")
    with pytest.raises(SpecError, match=r"cuStreamQuery is annotated in event\.toml as well"):
        load_spec(root)


def test_a_file_that_does_not_parse_is_named_with_its_line(root: Path, edit: Edit) -> None:
    edit("functions/event.toml", "cuEventQuery = {", "cuEventQuery = ")
    with pytest.raises(SpecError, match=r"event\.toml: .*line"):
        load_spec(root)


def test_a_family_without_reason_is_refused(root: Path, edit: Edit) -> None:
    edit("functions/unsupported.toml", 'reason = "', 'grounds = "')
    with pytest.raises(SpecError, match="a family has name, reason"):
        load_spec(root)


def test_an_unknown_attribute_is_refused(root: Path, edit: Edit) -> None:
    edit(
        "functions/unsupported.toml",
        "CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS",
        "CU_DEVICE_NOTHING",
    )
    with pytest.raises(SpecError, match="no device attribute CU_DEVICE_NOTHING"):
        load_spec(root)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('cuMemFree_v2 = { class = "sync"', "", "a generated body cannot check it"),
        ('cuMemHostGetFlags = { class = "local"', "", "a generated body cannot carry 'opaque'"),
        ('cuMemAlloc_v2 = { class = "sync"', "", "a generated body cannot translate it"),
    ],
)
def test_what_a_generated_body_cannot_do_is_refused(
    root: Path, edit: Edit, old: str, new: str, message: str
) -> None:
    name = old.partition(" ")[0]
    edit(
        "functions/memory.toml",
        old,
        f'{name} = {{ class = "sync", client = "generated", worker = "generated"{new}',
    )
    with pytest.raises(SpecError, match=message):
        outputs(root)


def test_aliases_and_per_thread_variants_resolve_to_their_body(spec: Spec) -> None:
    assert spec.resolve("cuStreamDestroy").symbol == "cuStreamDestroy_v2"
    assert spec.resolve("cuMemcpyHtoD_v2_ptds").symbol == "cuMemcpyHtoD_v2"
    assert spec.resolve("cuStreamWaitValue32_ptsz").symbol == "cuStreamWaitValue32_v2"


def test_every_unsupported_function_has_a_reason(spec: Spec) -> None:
    for function in spec.functions.values():
        if function.klass == "unsupported":
            assert function.family is not None
            assert function.family.reason.endswith(".")
