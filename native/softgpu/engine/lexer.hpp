// Cuts PTX text into tokens.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

namespace softgpu::ptx {

enum class TokenKind : uint8_t { end, word, dotted, integer, f32, f64, string, punctuation, bad };

struct Token {
  TokenKind kind = TokenKind::end;
  std::string_view text;  ///< dotted: without the dot; string: without the quotes
  uint64_t bits = 0;      ///< the value of a number; of f32 and f64 its representation
  uint32_t line = 0;

  bool is(char c) const { return kind == TokenKind::punctuation && text[0] == c; }
  bool is_word(std::string_view w) const { return kind == TokenKind::word && text == w; }
  bool is_dotted(std::string_view w) const { return kind == TokenKind::dotted && text == w; }
};

/// A cursor over the text, with one token of look-ahead.
class Lexer {
 public:
  explicit Lexer(std::string_view text, uint32_t line = 1)
      : begin_(text.data()), at_(text.data()), end_(text.data() + text.size()), line_(line) {
    advance();
  }
  const Token& peek() const { return token_; }
  Token take() {
    Token t = token_;
    advance();
    return t;
  }
  bool accept(char c) {
    if (!token_.is(c)) return false;
    advance();
    return true;
  }
  /// Where the current token begins and the last one ended, for quoting the source.
  const char* token_begin() const { return token_begin_; }
  const char* last_end() const { return last_end_; }
  /// The current token is `{`: moves behind the matching `}` and gives what is between.
  /// False when there is none.
  bool skip_braces(std::string_view* inside, uint32_t* inside_line);
  /// Drops the rest of the line that the current token began on.
  void skip_line();

 private:
  void advance();
  void skip_space();
  void number();

  const char* begin_;
  const char* at_;
  const char* end_;
  uint32_t line_;
  Token token_;
  const char* token_begin_ = nullptr;
  const char* last_end_ = nullptr;
};

}  // namespace softgpu::ptx
