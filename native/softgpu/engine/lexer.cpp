// Cuts PTX text into tokens.
// SPDX-License-Identifier: Apache-2.0
#include "lexer.hpp"

#include <bit>
#include <cstdlib>
#include <cstring>
#include <string>

namespace softgpu::ptx {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_follow(char c) { return is_letter(c) || is_digit(c) || c == '_' || c == '$'; }
bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

}  // namespace

void Lexer::skip_space() {
  while (at_ < end_) {
    char c = *at_;
    if (c == '\n') {
      ++line_;
      ++at_;
    } else if (c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v' || c == '\0') {
      ++at_;  // a NUL ends nothing: images are padded with them
    } else if (c == '/' && at_ + 1 < end_ && at_[1] == '/') {
      while (at_ < end_ && *at_ != '\n') ++at_;
    } else if (c == '/' && at_ + 1 < end_ && at_[1] == '*') {
      at_ += 2;
      while (at_ < end_ && !(*at_ == '*' && at_ + 1 < end_ && at_[1] == '/')) {
        if (*at_ == '\n') ++line_;
        ++at_;
      }
      at_ = at_ + 2 <= end_ ? at_ + 2 : end_;
    } else {
      return;
    }
  }
}

void Lexer::number() {
  const char* start = at_;
  auto left = static_cast<size_t>(end_ - at_);
  if (left > 2 && at_[0] == '0' &&
      (at_[1] == 'f' || at_[1] == 'F' || at_[1] == 'd' || at_[1] == 'D')) {
    bool single = at_[1] == 'f' || at_[1] == 'F';
    at_ += 2;
    uint64_t bits = 0;
    while (at_ < end_ && is_hex(*at_)) {
      char c = *at_++;
      bits = bits * 16 + static_cast<uint64_t>(is_digit(c) ? c - '0' : (c | 32) - 'a' + 10);
    }
    token_.kind = single ? TokenKind::f32 : TokenKind::f64;
    token_.bits = bits;
    return;
  }
  bool hex = left > 2 && at_[0] == '0' && (at_[1] == 'x' || at_[1] == 'X');
  const char* scan = hex ? at_ + 2 : at_;
  while (scan < end_ && (hex ? is_hex(*scan) : is_digit(*scan))) ++scan;
  bool fraction = !hex && scan + 1 < end_ && *scan == '.' && is_digit(scan[1]);
  fraction =
      fraction || (!hex && scan < end_ && *scan == '.' && scan + 1 < end_ && !is_letter(scan[1]));
  bool exponent = !hex && scan < end_ && (*scan == 'e' || *scan == 'E');
  if (fraction || exponent) {
    if (*scan == '.') ++scan;
    while (scan < end_ && (is_digit(*scan) || (*scan | 32) == 'e' ||
                           ((*scan == '+' || *scan == '-') && (scan[-1] | 32) == 'e'))) {
      ++scan;
    }
    token_.kind = TokenKind::f64;
    token_.bits = std::bit_cast<uint64_t>(std::strtod(std::string(start, scan).c_str(), nullptr));
    at_ = scan;
    return;
  }
  std::string digits(hex ? start + 2 : start, scan);
  int base = hex ? 16 : (digits.size() > 1 && digits[0] == '0' ? 8 : 10);
  if (digits == "0" && scan < end_ && (*scan | 32) == 'b') {  // 0b101
    const char* binary = scan + 1;
    digits.clear();
    while (binary < end_ && (*binary == '0' || *binary == '1')) digits += *binary++;
    scan = binary;
    base = 2;
  }
  token_.kind = TokenKind::integer;
  token_.bits = std::strtoull(digits.c_str(), nullptr, base);
  at_ = scan;
  if (at_ < end_ && *at_ == 'U') ++at_;
}

void Lexer::advance() {
  last_end_ = at_;
  skip_space();
  token_ = Token{};
  token_.line = line_;
  token_begin_ = at_;
  if (at_ >= end_) return;
  char c = *at_;
  if (is_digit(c)) {
    number();
  } else if (c == '.' && at_ + 1 < end_ &&
             (is_letter(at_[1]) || is_digit(at_[1]) || at_[1] == '_')) {
    ++at_;
    while (at_ < end_ && (is_follow(*at_) || (*at_ == ':' && at_ + 1 < end_ && at_[1] == ':'))) {
      at_ += *at_ == ':' ? 2 : 1;
    }
    token_.kind = TokenKind::dotted;
    token_.text = {token_begin_ + 1, static_cast<size_t>(at_ - token_begin_ - 1)};
    return;
  } else if (is_letter(c) || c == '_' || c == '$' || (c == '%' && at_ + 1 < end_)) {
    ++at_;
    while (at_ < end_ && is_follow(*at_)) ++at_;
    token_.kind = TokenKind::word;
  } else if (c == '"') {
    ++at_;
    while (at_ < end_ && *at_ != '"') at_ += *at_ == '\\' && at_ + 1 < end_ ? 2 : 1;
    token_.kind = TokenKind::string;
    token_.text = {token_begin_ + 1, static_cast<size_t>(at_ - token_begin_ - 1)};
    if (at_ < end_) ++at_;
    return;
  } else {
    ++at_;
    token_.kind =
        std::strchr("{}()[],;:=<>+-*/!|@&^~%", c) ? TokenKind::punctuation : TokenKind::bad;
  }
  token_.text = {token_begin_, static_cast<size_t>(at_ - token_begin_)};
}

bool Lexer::skip_braces(std::string_view* inside, uint32_t* inside_line) {
  if (!token_.is('{')) return false;
  const char* start = at_;
  *inside_line = line_;
  int depth = 1;
  while (at_ < end_) {
    char c = *at_;
    if (c == '\n') {
      ++line_;
    } else if (c == '{') {
      ++depth;
    } else if (c == '}') {
      if (--depth == 0) {
        *inside = {start, static_cast<size_t>(at_ - start)};
        ++at_;
        advance();
        return true;
      }
    } else if (c == '"') {
      ++at_;
      while (at_ < end_ && *at_ != '"') at_ += *at_ == '\\' && at_ + 1 < end_ ? 2 : 1;
    } else if (c == '/' && at_ + 1 < end_ && (at_[1] == '/' || at_[1] == '*')) {
      skip_space();
      continue;
    }
    ++at_;
  }
  return false;
}

void Lexer::skip_line() {
  uint32_t line = token_.line;
  while (token_.kind != TokenKind::end && token_.line == line) advance();
}

}  // namespace softgpu::ptx
