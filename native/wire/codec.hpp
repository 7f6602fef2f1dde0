// Bounded reading and writing of wire payloads: every length that comes off the wire is checked
// here. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

namespace outboard::wire {

inline constexpr size_t padded(size_t bytes) { return (bytes + 7) & ~size_t{7}; }

/// Bytes that a variable field of `bytes` content takes: u32 length, u32 zero, content, padding
/// to 8.
inline constexpr size_t field_bytes(size_t bytes) { return 8 + padded(bytes); }

/// Writes into a buffer that the caller sized with `encoded_bytes()`; does no checks of its own.
class Writer {
 public:
  explicit Writer(std::byte* out) : begin_(out), at_(out) {}

  void raw(const void* from, size_t bytes) {
    if (bytes != 0) std::memcpy(at_, from, bytes);
    at_ += bytes;
  }
  void zeros(size_t bytes) {
    if (bytes != 0) std::memset(at_, 0, bytes);
    at_ += bytes;
  }
  void field(const void* from, size_t bytes) {
    const uint32_t head[2] = {static_cast<uint32_t>(bytes), 0};
    raw(head, sizeof head);
    raw(from, bytes);
    zeros(padded(bytes) - bytes);
  }
  size_t size() const { return static_cast<size_t>(at_ - begin_); }

 private:
  std::byte* begin_;
  std::byte* at_;
};

/// Reads a payload; every call returns false, and reads nothing, where the payload is too short.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> payload)
      : at_(payload.data()), left_(payload.size()) {}

  bool raw(void* to, size_t bytes) {
    if (bytes > left_) return false;
    if (bytes != 0) std::memcpy(to, at_, bytes);
    skip(bytes);
    return true;
  }
  bool view(size_t bytes, const std::byte** to) {
    if (bytes > left_) return false;
    *to = at_;
    skip(bytes);
    return true;
  }
  /// A variable field of elements of type T; its length must be a multiple of sizeof(T) and its
  /// padding zero.
  template <typename T>
  bool field(std::span<const T>* to) {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= 8);
    uint32_t head[2];
    const std::byte* content = nullptr;
    if (!raw(head, sizeof head) || head[1] != 0 || head[0] % sizeof(T) != 0) return false;
    const size_t whole = padded(head[0]);
    if (!view(whole, &content)) return false;
    for (size_t i = head[0]; i < whole; ++i) {
      if (content[i] != std::byte{0}) return false;
    }
    *to = {reinterpret_cast<const T*>(content), head[0] / sizeof(T)};
    return true;
  }
  bool field(std::string_view* to) {
    std::span<const char> text;
    if (!field(&text)) return false;
    *to = {text.data(), text.size()};
    return true;
  }
  size_t left() const { return left_; }

 private:
  void skip(size_t bytes) {
    at_ += bytes;
    left_ -= bytes;
  }
  const std::byte* at_;
  size_t left_;
};

}  // namespace outboard::wire
