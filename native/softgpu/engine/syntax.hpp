// What a PTX text says, as the parser leaves it: variables, functions, instructions.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace softgpu::ptx {

enum class Space : uint8_t { generic, reg, global, constant, shared, local, param };
/// What kernels of before CUDA 5 read and write through.
enum class Reference : uint8_t { none, texture, surface };
enum class Linkage : uint8_t { internal, visible, external, weak, common };

/// Bits of a PTX type such as "u32", "f16x2" or "pred" (1); 0 when the word is not a type.
unsigned type_bits(std::string_view type);

/// One item of an initialiser: a number, or the address of a symbol.
struct InitItem {
  uint64_t offset = 0;  ///< in bytes from the start of the variable
  uint32_t bytes = 0;
  uint64_t value = 0;       ///< the number, or what is added to the symbol's address
  std::string_view symbol;  ///< empty for a number
  uint64_t mask = 0;        ///< nonzero: the item is this part of the address, shifted down
};

/// A variable of a state space, at module level or in a function.
struct Variable {
  std::string_view name;
  Space space = Space::global;
  Linkage linkage = Linkage::internal;
  Reference reference = Reference::none;
  uint32_t elem_bits = 0;
  uint32_t align = 1;
  uint64_t bytes = 0;  ///< 0: an incomplete array
  bool managed = false;
  std::vector<InitItem> init;
  uint32_t line = 0;
  uint64_t address = 0;  ///< global and constant: where it lives. local, param: offset in the frame
  const Variable* definition = nullptr;  ///< for an external one, after linking
};

struct Operand {
  enum class Kind : uint8_t {
    none,
    reg,      ///< `reg`; `negated` for !p
    integer,  ///< `bits`
    f32,      ///< `bits` holds the float's bits
    f64,      ///< `bits` holds the double's bits
    symbol,   ///< `name`, `variable` when it is the function's own; `offset` is added
    special,  ///< `name` with its component, such as "%tid.x"
    address,  ///< items[0] + offset
    vector,   ///< items
    list,     ///< items, of a call
    pair,     ///< items[0] | items[1]
    label,    ///< `reg` is the label's number
    sink,     ///< _
  };
  Kind kind = Kind::none;
  bool negated = false;
  int reg = -1;
  uint64_t bits = 0;
  int64_t offset = 0;
  std::string_view name;
  Variable* variable = nullptr;
  std::vector<Operand> items;
};

struct Instruction {
  std::string_view text;                ///< the whole statement, for messages
  std::vector<std::string_view> words;  ///< opcode, then modifiers without dots
  std::vector<Operand> operands;
  int predicate = -1;
  bool predicate_negated = false;
  int label = -1;  ///< not an instruction but the place of this label
  uint32_t line = 0;
};

struct Prototype {
  std::vector<Variable> results;
  std::vector<Variable> params;
};

struct Register {
  uint32_t bits = 0;
  std::string_view name;
};

/// The parsed body of a function.
struct Body {
  std::vector<Register> registers;
  std::vector<std::unique_ptr<Variable>> variables;
  std::vector<Instruction> code;
  int label_count = 0;
  std::unordered_map<std::string_view, std::vector<int>> branch_targets;
  std::unordered_map<std::string_view, Prototype> prototypes;
};

struct Function {
  std::string_view name;
  bool entry = false;
  bool has_body = false;
  Linkage linkage = Linkage::internal;
  std::vector<std::unique_ptr<Variable>> results;
  std::vector<std::unique_ptr<Variable>> params;
  std::string_view body;  ///< text between its braces
  uint32_t line = 0;
  uint32_t body_line = 0;
  uint32_t max_threads = 0;  ///< .maxntid / .reqntid, 0: none
  uint32_t max_registers = 0;
  int text = 0;         ///< which of a module's texts
  uint32_t number = 0;  ///< among all functions of the module; makes its address
};

/// The index of one text: everything but the bodies.
struct Unit {
  std::vector<std::unique_ptr<Variable>> variables;
  std::vector<std::unique_ptr<Function>> functions;
  std::unordered_map<std::string_view, Variable*> variable_names;
  std::unordered_map<std::string_view, Function*> function_names;
  std::unordered_map<std::string_view, std::string_view> aliases;
  int target_sm = 0;
};

struct ParseError {
  std::string message;  ///< empty: none
  uint32_t line = 0;
  explicit operator bool() const { return !message.empty(); }
};

/// Reads declarations and skips over bodies. The text must outlive the result.
ParseError parse_unit(std::string_view text, Unit* unit);
/// Parses one function's body.
ParseError parse_body(const Function& function, Body* body);

}  // namespace softgpu::ptx
