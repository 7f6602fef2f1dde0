// The validity check's hash: MD2 in the HMAC construction, and the two answers that need none.
// SPDX-License-Identifier: Apache-2.0
#include "validity.hpp"

#include <bit>
#include <cstring>

namespace outboard::tables {
namespace {

// The records above are hashed as they lie in memory.
static_assert(std::endian::native == std::endian::little);

// RFC 1319's permutation of 0..255, made from the digits of pi.
constexpr std::array<uint8_t, 256> kPi = {
    41,  46,  67,  201, 162, 216, 124, 1,   61,  54,  84,  161, 236, 240, 6,   19,  98,  167, 5,
    243, 192, 199, 115, 140, 152, 147, 43,  217, 188, 76,  130, 202, 30,  155, 87,  60,  253, 212,
    224, 22,  103, 66,  111, 24,  138, 23,  229, 18,  190, 78,  196, 214, 218, 158, 222, 73,  160,
    251, 245, 142, 187, 47,  238, 122, 169, 104, 121, 145, 21,  178, 7,   63,  148, 194, 16,  137,
    11,  34,  95,  33,  128, 127, 93,  154, 90,  144, 50,  39,  53,  62,  204, 231, 191, 247, 151,
    3,   255, 25,  48,  179, 72,  165, 181, 209, 215, 94,  146, 42,  172, 86,  170, 198, 79,  184,
    56,  210, 150, 164, 125, 182, 118, 252, 107, 226, 156, 116, 4,   241, 69,  157, 112, 89,  100,
    113, 135, 32,  134, 91,  207, 101, 230, 45,  168, 2,   27,  96,  37,  173, 174, 176, 185, 246,
    28,  70,  97,  105, 52,  64,  126, 15,  85,  71,  163, 35,  221, 81,  175, 58,  195, 92,  249,
    206, 186, 197, 234, 38,  44,  83,  13,  110, 133, 40,  132, 9,   211, 223, 205, 244, 65,  129,
    77,  82,  106, 220, 55,  200, 108, 193, 171, 250, 36,  225, 123, 8,   12,  189, 177, 74,  120,
    136, 149, 139, 227, 99,  232, 109, 233, 203, 213, 254, 59,  0,   29,  57,  242, 239, 183, 14,
    102, 88,  208, 228, 166, 119, 114, 248, 235, 117, 75,  10,  49,  68,  80,  180, 143, 237, 31,
    26,  219, 153, 141, 51,  159, 17,  131, 20};

constexpr std::array<uint8_t, 16> kKey = {0x14, 0x6A, 0xDD, 0xAE, 0x53, 0xA9, 0xA7, 0x52,
                                          0xAA, 0x08, 0x41, 0x36, 0x0B, 0xF5, 0x5A, 0x9F};
constexpr uint8_t kInnerPad = 0x36;
constexpr uint8_t kOuterPad = 0x5C;
constexpr int kRounds = 18;

std::array<uint8_t, 16> padded_key(uint8_t pad) {
  std::array<uint8_t, 16> out;
  for (size_t i = 0; i < out.size(); ++i) out[i] = kKey[i] ^ pad;
  return out;
}

std::span<const uint8_t> bytes_of(const void* data, size_t size) {
  return {static_cast<const uint8_t*>(data), size};
}

}  // namespace

void Md2::absorb(std::span<const uint8_t> bytes) {
  for (const uint8_t byte : bytes) absorb(byte);
}

void Md2::absorb(uint8_t byte) {
  state_[16 + position_] = byte;
  state_[32 + position_] = state_[position_] ^ byte;
  checksum_[position_] ^= kPi[byte ^ last_checksum_];
  last_checksum_ = checksum_[position_];
  if (++position_ == 16) {
    position_ = 0;
    mix();
  }
}

void Md2::mix() {
  uint8_t t = 0;
  for (int round = 0; round < kRounds; ++round) {
    for (uint8_t& byte : state_) t = byte ^= kPi[t];
    t = static_cast<uint8_t>(t + round);
  }
}

std::array<uint8_t, 16> Md2::finish() {
  const auto padding = static_cast<uint8_t>(16 - position_);
  for (int i = 0; i < padding; ++i) absorb(padding);
  const std::array<uint8_t, 16> checksum = checksum_;  // absorbing changes it
  absorb(checksum);
  std::array<uint8_t, 16> digest;
  std::memcpy(digest.data(), state_.data(), digest.size());
  return digest;
}

ValidityAnswer validity_answer(const ValidityRecord& record,
                               std::span<const DeviceIdentity> devices) {
  constexpr uint64_t kSecondWord = 0x8ED383AA1F4CD1E8;
  if (record.check_version % 10 == 0) return {0x3341181C03CB675C, kSecondWord};
  if (record.check_version % 10 == 1) return {0x1841181C03CB675C, kSecondWord};

  Md2 inner;
  inner.absorb(padded_key(kInnerPad));
  inner.absorb(bytes_of(&record, sizeof(record)));
  inner.absorb(bytes_of(devices.data(), devices.size_bytes()));
  const auto inner_digest = inner.finish();

  Md2 outer;
  outer.absorb(padded_key(kOuterPad));
  outer.absorb(inner_digest);
  const auto digest = outer.finish();

  ValidityAnswer answer;
  std::memcpy(answer.data(), digest.data(), sizeof(answer));
  return answer;
}

}  // namespace outboard::tables
