// The validity check's hash against RFC 1319's test suite and an HMAC put together another way.
// SPDX-License-Identifier: Apache-2.0
#include "validity.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <vector>

using outboard::tables::DeviceIdentity;
using outboard::tables::Md2;
using outboard::tables::validity_answer;
using outboard::tables::ValidityAnswer;
using outboard::tables::ValidityRecord;

namespace {

using Digest = std::array<uint8_t, 16>;

Digest md2(const std::vector<uint8_t>& bytes) {
  Md2 hash;
  hash.absorb(bytes);
  return hash.finish();
}

std::string hex(const Digest& digest) {
  std::string out;
  for (const uint8_t byte : digest) {
    out += "0123456789abcdef"[byte / 16];
    out += "0123456789abcdef"[byte % 16];
  }
  return out;
}

std::string md2_hex(const std::string& text) { return hex(md2({text.begin(), text.end()})); }

void append(std::vector<uint8_t>& out, const void* data, size_t size) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  out.insert(out.end(), bytes, bytes + size);
}

const DeviceIdentity kDevice = {
    .uuid = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
    .pci_domain = 0,
    .pci_bus = 1,
    .pci_device = 0,
};

ValidityRecord record_of(uint32_t version) {
  return {.driver_version = 13000,
          .check_version = version,
          .process_id = 4711,
          .thread = 0x12345678,
          .interface_table = 0x7f0000001000,
          .validity_table = 0x7f0000002000,
          .validity_function = 0x7f0000003000,
          .unix_seconds = 1760000000};
}

}  // namespace

TEST_CASE("the hash is RFC 1319's MD2") {
  CHECK(md2_hex("") == "8350e5a3e24c153df2275c9f80692773");
  CHECK(md2_hex("a") == "32ec01ec4a6dac72c0ab96fb34c0b5d1");
  CHECK(md2_hex("abc") == "da853b0d3f88d99b30283a69e6ded6bb");
  CHECK(md2_hex("message digest") == "ab4f496bfb2a530b219ff33031fe06b0");
  CHECK(md2_hex("abcdefghijklmnopqrstuvwxyz") == "4e8ddff3650292ab5a4108c3aa47940b");
}

TEST_CASE("versions that end in 0 and 1 have fixed answers") {
  CHECK(validity_answer(record_of(13000), {}) ==
        ValidityAnswer{0x3341181C03CB675C, 0x8ED383AA1F4CD1E8});
  CHECK(validity_answer(record_of(13001), {}) ==
        ValidityAnswer{0x1841181C03CB675C, 0x8ED383AA1F4CD1E8});
}

TEST_CASE("other versions get the keyed hash of the record and the devices") {
  const uint8_t key[16] = {0x14, 0x6A, 0xDD, 0xAE, 0x53, 0xA9, 0xA7, 0x52,
                           0xAA, 0x08, 0x41, 0x36, 0x0B, 0xF5, 0x5A, 0x9F};
  const ValidityRecord record = record_of(13003);
  std::vector<uint8_t> inner;
  std::vector<uint8_t> outer;
  for (const uint8_t byte : key) inner.push_back(byte ^ 0x36);
  for (const uint8_t byte : key) outer.push_back(byte ^ 0x5C);
  append(inner, &record, sizeof(record));
  const DeviceIdentity devices[] = {kDevice, kDevice};
  append(inner, devices, sizeof(devices));
  const Digest inner_digest = md2(inner);
  append(outer, inner_digest.data(), inner_digest.size());
  const Digest digest = md2(outer);
  ValidityAnswer expected;
  std::memcpy(expected.data(), digest.data(), sizeof(expected));

  CHECK(validity_answer(record, devices) == expected);
  CHECK(validity_answer(record, {devices, 1}) != expected);
  CHECK(validity_answer(record_of(13004), devices) != expected);
}
