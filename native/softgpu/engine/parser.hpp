// Recursive-descent parsing of declarations, shared by the index pass and the parser of bodies.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "lexer.hpp"
#include "syntax.hpp"

namespace softgpu::ptx {

/// What both passes need: a lexer and the first error.
class ParserBase {
 protected:
  ParserBase(std::string_view text, uint32_t line) : lex_(text, line) {}

  bool fail(std::string message);
  bool expect(char c);
  bool failed() const { return static_cast<bool>(error_); }
  /// After the state space: `.align 4 .b8 name[16] = {...}` of one or several variables, up to `;`.
  /// `add` gets each.
  template <class Add>
  bool variables(Space space, Linkage linkage, Add add) {
    Variable shape;
    shape.space = space;
    shape.linkage = linkage;
    if (!variable_shape(&shape)) return false;
    do {
      Variable one = shape;
      if (!variable_name(&one)) return false;
      add(std::move(one));
    } while (lex_.accept(','));
    return expect(';');
  }
  /// `(.param .u64 .ptr .global .align 8 p0, ...)`; the cursor is at the parenthesis.
  bool parameter_list(std::vector<std::unique_ptr<Variable>>* out);

  Lexer lex_;
  ParseError error_;

 private:
  bool variable_shape(Variable* v);
  bool variable_name(Variable* v);
  bool initialiser(Variable* v, uint64_t* offset, unsigned depth);
  bool init_item(Variable* v, uint64_t* offset);
};

/// The state space that a directive such as ".shared" names; false for others.
bool space_of(std::string_view word, Space* space);

}  // namespace softgpu::ptx
