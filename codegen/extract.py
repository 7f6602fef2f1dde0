"""Reads NVIDIA's headers with libclang and writes down the facts that the generator needs.

SPDX-License-Identifier: Apache-2.0

Run by hand when the headers change; builds read the committed result and need no libclang. cuda.h
is read with __CUDA_API_VERSION_INTERNAL, which makes it declare every version of a function under
the name that the driver exports. The versions in which each was introduced stand in the names of
the PFN_ types of cudaTypedefs.h.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from clang import cindex

from codegen.errors import SpecError
from codegen.model import Declaration, Facts, Kind, Parameter, Pointee, Variant, per_thread_base

HEADERS = ("cuda", "cudaGL", "cudaEGL", "cudaVDPAU", "cudaProfiler")

# The few types of other projects' headers that NVIDIA's mention, and the headers that its wheels
# leave out. Their functions are only exported, so names and sizes are enough.
FOREIGN: Mapping[str, str] = {
    "GL/gl.h": "typedef unsigned int GLuint; typedef unsigned int GLenum;",
    "EGL/egl.h": "typedef int EGLint; typedef unsigned int EGLBoolean; typedef void *EGLDisplay;",
    "EGL/eglext.h": (
        "typedef void *EGLImageKHR; typedef void *EGLStreamKHR; typedef void *EGLSyncKHR;"
    ),
    "vdpau/vdpau.h": (
        "#include <stdint.h>\n"
        "typedef uint32_t VdpDevice; typedef uint32_t VdpVideoSurface;"
        "typedef uint32_t VdpOutputSurface; typedef int VdpStatus; typedef uint32_t VdpFuncId;"
        "typedef VdpStatus VdpGetProcAddress(VdpDevice, VdpFuncId, void **);"
    ),
    "cudaProfiler.h": (
        "typedef enum CUoutput_mode_enum { CU_OUT_KEY_VALUE_PAIR, CU_OUT_CSV } CUoutput_mode;"
        'extern "C" { CUresult cuProfilerInitialize(const char *configFile,'
        "const char *outputFile, CUoutput_mode outputMode);"
        "CUresult cuProfilerStart(void); CUresult cuProfilerStop(void); }"
    ),
}

# Exported, but in no header; `introduced` is not known, so cuGetProcAddress does not offer them.
UNDECLARED = ("cuEGLApiInit", "cuMemGetAttribute", "cuMemGetAttribute_v2")

PFN = re.compile(r"PFN_(cu\w+?)_v(\d+)(_pt[ds][sz])?")


def extract(include: Path, symbols: Sequence[str]) -> Facts:
    """The facts about `symbols` in the headers of the folder `include`."""
    unit = _parse(include)
    functions: dict[str, cindex.Cursor] = {}
    pointers: list[tuple[str, int, str]] = []
    attributes: dict[str, int] = {}
    for cursor in _top_level(unit.cursor):
        if cursor.kind == cindex.CursorKind.FUNCTION_DECL:
            functions[cursor.spelling] = cursor
        elif cursor.kind == cindex.CursorKind.TYPEDEF_DECL:
            if match := PFN.fullmatch(cursor.spelling):
                pointers.append((match[1], int(match[2]), match[3] or ""))
        elif cursor.spelling == "CUdevice_attribute_enum":
            attributes.update((e.spelling, e.enum_value) for e in cursor.get_children())
    declarations = {name: _declaration(name, functions.get(name)) for name in symbols}
    text = (include / "cuda.h").read_text(encoding="utf-8")
    version = re.search(r"^#define CUDA_VERSION (\d+)$", text, re.MULTILINE)
    if version is None:
        raise SpecError(f"{include}/cuda.h does not define CUDA_VERSION")
    variants = _variants(symbols, pointers)
    return Facts(int(version[1]), declarations, variants, attributes, _renamed(text))


def _parse(include: Path) -> cindex.TranslationUnit:
    if not (include / "cuda.h").exists():
        raise SpecError(f"{include} has no cuda.h; pass --include the folder of CUDA's headers")
    virtual = Path("/outboard-foreign-headers")
    lines = ["#define __CUDA_API_VERSION_INTERNAL", "#include <stddef.h>"]
    # cudaVDPAU.h expects its user to have included this.
    lines.append("#include <vdpau/vdpau.h>")
    lines += [f"#include <{name}{kind}.h>" for kind in ("", "Typedefs") for name in HEADERS]
    files = [(str(virtual / name), f"#pragma once\n{text}") for name, text in FOREIGN.items()]
    files.append(("facts.cpp", "\n".join(lines)))
    arguments = ["-x", "c++", "-std=c++20", f"-I{virtual}", f"-I{include}"]
    arguments += [f"-I{folder}" for folder in _compiler_headers()]
    unit = cindex.Index.create().parse("facts.cpp", args=arguments, unsaved_files=files)
    problems = [str(d) for d in unit.diagnostics if d.severity >= cindex.Diagnostic.Error]
    if problems:
        raise SpecError(f"the headers of {include} do not parse: {problems[0]}")
    return unit


def _compiler_headers() -> list[Path]:
    """Where stddef.h is: libclang's wheel has no headers, so the newest gcc's are taken."""
    folders = sorted(Path("/usr/lib/gcc").glob("*/*/include/stddef.h"))
    return [folders[-1].parent] if folders else []


def _top_level(cursor: cindex.Cursor) -> Iterator[cindex.Cursor]:
    for child in cursor.get_children():
        if child.kind in (cindex.CursorKind.LINKAGE_SPEC, cindex.CursorKind.UNEXPOSED_DECL):
            yield from _top_level(child)
        else:
            yield child


def _renamed(text: str) -> dict[str, str]:
    """The macros by which a program that includes cuda.h gets the newest version of a function."""
    macro = r"^\s*#\s*define (cu[A-Z]\w*)\s+(?:__CUDA_API_PT[DS][SZ]\()?(cu[A-Z]\w*)\)?\s*$"
    pairs = re.findall(macro, text, re.MULTILINE)
    return {name: symbol for name, symbol in pairs if name != symbol}


def _declaration(symbol: str, cursor: cindex.Cursor | None) -> Declaration:
    if cursor is None:
        if symbol in UNDECLARED:
            return Declaration(symbol, "", ())
        raise SpecError(f"{symbol} is exported by the driver but declared in none of {HEADERS}")
    types = list(cursor.type.argument_types())
    parameters = tuple(
        _parameter(argument.spelling or f"argument{index}", kind)
        for index, (argument, kind) in enumerate(zip(cursor.get_arguments(), types, strict=True))
    )
    return Declaration(symbol, Path(cursor.location.file.name).name, parameters)


def _parameter(name: str, kind: cindex.Type) -> Parameter:
    canonical = kind.get_canonical()
    what = _kind(kind)
    pointee = None
    if what == "pointer":
        target = canonical.get_pointee()
        spelled = _spelled_pointee(kind)
        pointee = Pointee(
            spelled.spelling.removeprefix("const "),
            _kind(spelled),
            max(target.get_size(), 0),
            target.is_const_qualified(),
        )
    return Parameter(name, kind.spelling, canonical.spelling, what, pointee)


def _spelled_pointee(kind: cindex.Type) -> cindex.Type:
    """The pointee with its typedef's name, where the pointer is not itself behind a typedef."""
    spelled = kind.get_pointee()
    return (
        spelled if spelled.kind != cindex.TypeKind.INVALID else kind.get_canonical().get_pointee()
    )


def _kind(kind: cindex.Type) -> Kind:
    spelling = kind.spelling.removeprefix("const ")
    canonical = kind.get_canonical()
    if re.fullmatch(r"CUdeviceptr(_v\d)?", spelling):
        return "address"
    if re.fullmatch(r"CUdevice(_v\d)?", spelling):
        return "device"
    if canonical.kind == cindex.TypeKind.POINTER:
        target = canonical.get_pointee()
        if target.kind == cindex.TypeKind.FUNCTIONPROTO:
            return "callback"
        hidden = target.kind == cindex.TypeKind.RECORD and target.get_size() < 0
        return "handle" if hidden and not spelling.endswith("*") else "pointer"
    kinds: Mapping[cindex.TypeKind, Kind] = {
        cindex.TypeKind.VOID: "void",
        cindex.TypeKind.ENUM: "enum",
        cindex.TypeKind.RECORD: "record",
    }
    return kinds.get(canonical.kind, "scalar")


def _variants(
    symbols: Sequence[str], pointers: Sequence[tuple[str, int, str]]
) -> dict[str, tuple[Variant, ...]]:
    """Pairs the versions of each base name with its symbols: both are numbered in one order."""
    versions: dict[str, list[int]] = defaultdict(list)
    for base, version, suffix in pointers:
        if not suffix:
            versions[base].append(version)
    exported = set(symbols)
    variants: dict[str, tuple[Variant, ...]] = {}
    for base, introduced in versions.items():
        spellings = [base, *(f"{base}_v{number}" for number in range(2, 10))]
        names = [name for name in spellings if name in exported]
        if not names:
            continue  # declared for other platforms only
        if len(names) != len(introduced):
            raise SpecError(f"{base}: exported as {names}, but introduced in {sorted(introduced)}")
        variants[base] = tuple(
            Variant(version, name, _per_thread(name, exported))
            for version, name in zip(sorted(introduced), names, strict=True)
        )
    missing = {n for n in exported if per_thread_base(n) is None} - set(UNDECLARED)
    missing -= {variant.symbol for rows in variants.values() for variant in rows}
    if missing:
        raise SpecError(f"no version is known for {sorted(missing)}")
    return variants


def _per_thread(symbol: str, exported: set[str]) -> str | None:
    for suffix in ("_ptsz", "_ptds"):
        if symbol + suffix in exported:
            return symbol + suffix
    return None
