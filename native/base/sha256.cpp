// SHA-256 and HMAC by OpenSSL's low-level functions.
// SPDX-License-Identifier: Apache-2.0
// The EVP interface would initialise OpenSSL, read its configuration and register an exit handler
// inside a program that knows nothing of it; the low-level functions do none of that.
#define OPENSSL_SUPPRESS_DEPRECATED
#include "base/sha256.hpp"

#include <openssl/sha.h>

#include <cstring>

namespace outboard {

Digest sha256(std::span<const std::byte> content) {
  Digest digest;
  SHA256_CTX state;
  SHA256_Init(&state);
  SHA256_Update(&state, content.data(), content.size());
  SHA256_Final(digest.data(), &state);
  return digest;
}

Digest hmac_sha256(std::span<const uint8_t> key, std::string_view message) {
  std::array<uint8_t, SHA256_CBLOCK> block{};
  if (key.size() > block.size()) {
    const Digest short_key = sha256(std::as_bytes(key));
    std::memcpy(block.data(), short_key.data(), short_key.size());
  } else {
    std::memcpy(block.data(), key.data(), key.size());
  }
  const auto pass = [&block](uint8_t mask, const void* text, size_t bytes) {
    std::array<uint8_t, SHA256_CBLOCK> padded_key;
    for (size_t i = 0; i < block.size(); ++i) padded_key[i] = block[i] ^ mask;
    Digest digest;
    SHA256_CTX state;
    SHA256_Init(&state);
    SHA256_Update(&state, padded_key.data(), padded_key.size());
    SHA256_Update(&state, text, bytes);
    SHA256_Final(digest.data(), &state);
    return digest;
  };
  const Digest inner = pass(0x36, message.data(), message.size());
  return pass(0x5c, inner.data(), inner.size());
}

std::string hex(std::span<const uint8_t> bytes) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes.size());
  for (const uint8_t byte : bytes) {
    text.push_back(digits[byte >> 4]);
    text.push_back(digits[byte & 15]);
  }
  return text;
}

bool from_hex(std::string_view text, std::span<uint8_t> out) {
  if (text.size() != 2 * out.size()) return false;
  const auto value = [](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  for (size_t i = 0; i < out.size(); ++i) {
    const int high = value(text[2 * i]);
    const int low = value(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    out[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return true;
}

}  // namespace outboard
