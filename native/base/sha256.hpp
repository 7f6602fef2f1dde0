// SHA-256 and HMAC-SHA-256 over OpenSSL's block function, without initialising OpenSSL in the
// user's program. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace outboard {

using Digest = std::array<uint8_t, 32>;

Digest sha256(std::span<const std::byte> content);
Digest hmac_sha256(std::span<const uint8_t> key, std::string_view message);

std::string hex(std::span<const uint8_t> bytes);
/// False where `text` is not exactly two hexadecimal digits for each byte of `out`.
bool from_hex(std::string_view text, std::span<uint8_t> out);

}  // namespace outboard
