"""Commands, client bodies and worker bodies of the functions that are generated on both sides.

SPDX-License-Identifier: Apache-2.0

A generated function has a command of its own: what goes in travels in the command, what comes out
in the reply. Scalars, enums, handles and devices go by value, structures and arrays as bytes. What
has to be checked or translated (device addresses, structures with pointers) is written by hand.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from codegen.annotations import EXPRESSION, Function, Rule
from codegen.commands import FIELD_TYPES, Command, Field, Message
from codegen.errors import SpecError
from codegen.model import Parameter

# Longest array that a generated body sends or receives.
MAX_ARRAY_BYTES = 65536

SCALARS = {
    "int": "i32",
    "unsigned int": "u32",
    "long": "i64",
    "long long": "i64",
    "unsigned long": "u64",
    "unsigned long long": "u64",
    "unsigned char": "u8",
    "unsigned short": "u16",
    "float": "f32",
    "double": "f64",
}

# Names that a command already has.
TAKEN = {"op", "klass", "encode", "decode", "fixed_bytes", "encoded_bytes", "class", "register"}


@dataclass(frozen=True)
class Slot:
    """One parameter of a generated function and the fields that carry it."""

    parameter: Parameter
    rule: Rule | None
    name: str  # of the fields

    @property
    def sent(self) -> bool:
        """Whether the command carries it."""
        return self.rule is None or self.rule.direction != "out"

    @property
    def returned(self) -> bool:
        """Whether the reply carries it."""
        return self.rule is not None and self.rule.direction != "in"

    @property
    def element(self) -> str:
        """The C++ type that a pointer points to."""
        assert self.parameter.pointee is not None
        return self.parameter.pointee.type

    @property
    def size_bytes(self) -> int:
        """The size of one element behind a pointer."""
        assert self.parameter.pointee is not None
        return self.parameter.pointee.size_bytes

    @property
    def wire(self) -> str:
        """The type of its field."""
        if self.rule is None:
            return _value_type(self.parameter)
        pointee = self.parameter.pointee
        assert pointee is not None
        if self.rule.length == "address":
            return "addr"
        if self.rule.length == "string":
            return "string"
        if self.rule.length == "one" and pointee.kind == "enum":
            return "u32"
        if self.rule.length == "one" and pointee.kind == "scalar":
            return SCALARS[_canonical(self.parameter)]
        return "bytes"

    @property
    def array(self) -> bool:
        """Whether its length is an expression."""
        return self.rule is not None and self.rule.length in ("count", "bytes")


@dataclass(frozen=True)
class Body:
    """A generated function with its command."""

    function: Function
    command: Command
    slots: tuple[Slot, ...]


def body(function: Function) -> Body:
    """The command and slots of a generated function; refuses what needs a hand-written body."""
    where = f"{function.group}.toml: {function.symbol}"
    slots = tuple(_slot(where, function, p) for p in function.declaration.parameters)
    if function.klass == "local":
        raise SpecError(f"{where}: a local function has no command, so its body is an override")
    if function.klass == "async" and any(slot.returned for slot in slots):
        raise SpecError(f"{where}: an async function returns nothing; make it sync or an override")
    if sum(1 for slot in slots if slot.parameter.kind == "device") > 1:
        raise SpecError(f"{where}: two devices may lie on two servers; write an override")
    names = [slot.name for slot in slots]
    if len(set(names)) != len(names):
        raise SpecError(f"{where}: two parameters have one field name")
    request = Message(tuple(Field(s.name, FIELD_TYPES[s.wire]) for s in slots if s.sent))
    reply = Message(tuple(Field(s.name, FIELD_TYPES[s.wire]) for s in slots if s.returned))
    stream = None
    if function.stream is not None:
        stream = next((s.name for s in slots if s.parameter.name == function.stream), None)
        if stream is None:
            raise SpecError(f"{where}: stream = {function.stream!r} is no parameter")
    name = function.symbol.removeprefix("cu")
    command = Command(name, function.group, function.klass, stream, request, reply, function.traits)
    return Body(function, command, slots)


def _slot(where: str, function: Function, parameter: Parameter) -> Slot:
    place = f"{where}: parameter {parameter.name} ({parameter.type})"
    rule = function.rule(parameter) if parameter.kind == "pointer" else None
    if parameter.kind in ("address", "record", "callback"):
        raise SpecError(f"{place}: a generated body cannot check it; write an override")
    if rule is not None:
        assert parameter.pointee is not None
        if rule.length not in ("one", "count", "bytes", "string", "address"):
            raise SpecError(f"{place}: a generated body cannot carry {rule.length!r}")
        if rule.length != "address" and parameter.pointee.kind in ("handle", "address", "pointer"):
            raise SpecError(f"{place}: a generated body cannot translate it; write an override")
        if rule.optional:
            raise SpecError(f"{place}: a generated body needs every pointer; write an override")
        if rule.length == "string" and rule.direction != "in":
            raise SpecError(f"{place}: a string can only be in")
        if rule.direction == "inout" and rule.length != "one":
            raise SpecError(f"{place}: an inout array needs an override")
    slot = Slot(parameter, rule, field_name(parameter.name))
    if slot.wire not in FIELD_TYPES:
        raise SpecError(f"{place}: it has no type on the wire")
    return slot


def field_name(name: str) -> str:
    """A parameter's name as the commands' fields are written: hStream → h_stream."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return f"{snake}_value" if snake in TAKEN or snake.startswith("reserved_") else snake


def _canonical(parameter: Parameter) -> str:
    return parameter.canonical.removeprefix("const ").removesuffix("*").strip()


def _value_type(parameter: Parameter) -> str:
    if parameter.kind == "handle":
        return "id"
    if parameter.kind in ("enum", "device"):
        return "u32"
    return SCALARS[parameter.canonical]


def _elements(slot: Slot, values: dict[str, str]) -> str:
    """The number of elements of an array, as a C++ expression over `values`."""
    assert slot.rule is not None
    if slot.rule.expression.isdigit():
        return f"array_elements({slot.rule.expression}, 0, {slot.size_bytes or 1})"
    match = EXPRESSION.fullmatch(slot.rule.expression)
    assert match is not None
    value = values[match[2]]
    if match[1]:
        value = f"*{value}"
    return f"array_elements({value}, {match[3] or 0}, {slot.size_bytes or 1})"


def client_body(one: Body) -> list[str]:
    """The statements of the client's function."""
    lines = ["Target target;"]
    device = next((s for s in one.slots if s.parameter.kind == "device"), None)
    if device is None:
        lines += _return_unless("enter(&target)")
    else:
        lines.append("uint32_t device_index = 0;")
        lines += _return_unless(f"enter(&target, {device.parameter.name}, &device_index)")
    lines.append(f"wire::command::{one.command.name} command;")
    values = {s.parameter.name: s.parameter.name for s in one.slots}
    for slot in one.slots:
        lines += _client_in(slot, values)
    if not one.command.answered:
        return [*lines, "return send(target, command);"]
    lines.append("const auto answer = call(target, command);")
    lines.append("if (answer.result != CUDA_SUCCESS) return answer.result;")
    for slot in one.slots:
        if slot.returned:
            lines += _client_out(slot)
    return [*lines, "return CUDA_SUCCESS;"]


def _return_unless(call: str) -> list[str]:
    return [f"if (const CUresult result = {call}; result != CUDA_SUCCESS) return result;"]


def _client_in(slot: Slot, values: dict[str, str]) -> list[str]:
    name, parameter = slot.name, slot.parameter
    if slot.rule is None:
        if parameter.kind == "handle":
            return _return_unless(f"to_wire({parameter.name}, &command.{name})")
        if parameter.kind == "device":
            return [f"command.{name} = device_index;"]
        if parameter.kind == "enum":
            return [f"command.{name} = static_cast<uint32_t>({parameter.name});"]
        return [f"command.{name} = {parameter.name};"]
    if slot.rule.length == "address":
        return [f"command.{name} = reinterpret_cast<uintptr_t>({parameter.name});"]
    lines = []
    if slot.array:
        lines += [
            f"const size_t {name}_elements = {_elements(slot, values)};",
            f"if ({name}_elements == too_long ||",
            f"    ({name}_elements != 0 && {parameter.name} == nullptr)) {{",
            "  return CUDA_ERROR_INVALID_VALUE;",
            "}",
        ]
    else:
        lines.append(f"if ({parameter.name} == nullptr) return CUDA_ERROR_INVALID_VALUE;")
    if not slot.sent:
        return lines
    if slot.array:
        size = f"{name}_elements * {slot.size_bytes}" if slot.size_bytes > 1 else f"{name}_elements"
        return [*lines, f"command.{name} = bytes_of({parameter.name}, {size});"]
    if slot.wire == "bytes":
        return [*lines, f"command.{name} = bytes_of({parameter.name}, sizeof *{parameter.name});"]
    if slot.wire == "string":
        return [*lines, f"command.{name} = {parameter.name};"]
    return [*lines, f"command.{name} = {_to_field(slot, '*' + parameter.name)};"]


def _to_field(slot: Slot, value: str) -> str:
    assert slot.parameter.pointee is not None
    return f"static_cast<uint32_t>({value})" if slot.parameter.pointee.kind == "enum" else value


def _client_out(slot: Slot) -> list[str]:
    name, parameter = slot.name, slot.parameter
    if slot.wire != "bytes":
        return [f"*{parameter.name} = static_cast<{slot.element}>(answer.reply.{name});"]
    size = f"sizeof *{parameter.name}"
    if slot.array:
        size = f"{name}_elements * {max(slot.size_bytes, 1)}"
    # The size is the client's own: what a server says never decides how much is written.
    return [
        f"if (!copy_exactly({parameter.name}, {size}, answer.reply.{name}))",
        "  return CUDA_ERROR_UNKNOWN;",
    ]


def worker_body(one: Body) -> list[str]:
    """The statements of the worker's function."""
    lines: list[str] = []
    arguments: list[str] = []
    after: list[str] = []
    values = {s.parameter.name: f"command.{s.name}" for s in one.slots if s.rule is None}
    for slot in one.slots:
        before, argument, later = _worker_slot(slot, values)
        lines += before
        arguments.append(argument)
        after += later
    call = f"worker.driver().{one.function.symbol}({', '.join(arguments)})"
    if not after:
        return [*lines, f"return {call};"]
    return [*lines, f"const CUresult result = {call};", *after, "return result;"]


def _worker_slot(slot: Slot, values: dict[str, str]) -> tuple[list[str], str, list[str]]:
    """What comes before the driver's call, its argument, and what comes after."""
    name, parameter = slot.name, slot.parameter
    field = f"command.{name}"
    if slot.rule is None:
        if parameter.kind in ("handle", "device"):
            find = "find" if parameter.kind == "handle" else "find_device"
            declared = f"{parameter.type} {name}{{}};"
            return [declared, *_return_unless(f"worker.{find}({field}, &{name})")], name, []
        return [], f"static_cast<{parameter.type}>({field})", []
    if slot.rule.length == "address":
        return [], f"reinterpret_cast<void*>({field})", []
    if slot.rule.length == "string":
        return [f"const std::string {name}({field});"], f"{name}.c_str()", []
    if slot.array:
        return _worker_array(slot, values)
    if slot.wire != "bytes":
        before = [f"{slot.element} {name}{{}};"]
        if slot.sent:
            before = [f"{slot.element} {name} = static_cast<{slot.element}>({field});"]
        after = [f"reply.{name} = {_to_field(slot, name)};"] if slot.returned else []
        return before, f"&{name}", after
    # The reply points at it until it is sent, after this function has returned.
    before = [f"static thread_local {slot.element} {name};"]
    if slot.sent:
        before += [
            f"if ({field}.size() != sizeof {name}) return CUDA_ERROR_INVALID_VALUE;",
            f"std::memcpy(&{name}, {field}.data(), sizeof {name});",
        ]
    else:
        before.append(f"{name} = {{}};")
    after = [f"reply.{name} = bytes_of(&{name}, sizeof {name});"] if slot.returned else []
    return before, f"&{name}", after


def _worker_array(slot: Slot, values: dict[str, str]) -> tuple[list[str], str, list[str]]:
    name = slot.name
    element = slot.element if slot.size_bytes else "std::byte"
    size = f"{name}_elements * sizeof({element})"
    before = [
        f"const size_t {name}_elements = {_elements(slot, values)};",
        f"if ({name}_elements == too_long) return CUDA_ERROR_INVALID_VALUE;",
    ]
    if slot.sent:
        before.append(f"if (command.{name}.size() != {size}) return CUDA_ERROR_INVALID_VALUE;")
        content = f"reinterpret_cast<const {element}*>(command.{name}.data())"
        assert slot.parameter.pointee is not None
        if not slot.parameter.pointee.const:
            content = f"const_cast<{element}*>({content})"
        return before, content, []
    before += [
        f"static thread_local std::vector<{element}> {name};",
        f"{name}.assign({name}_elements, {{}});",
    ]
    return before, f"{name}.data()", [f"reply.{name} = bytes_of({name}.data(), {size});"]
