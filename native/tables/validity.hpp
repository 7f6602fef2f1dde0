// The answer by which libcudart recognises a driver: a keyed hash over the process and its devices.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace outboard::tables {

// MD2 (RFC 1319): what the validity check hashes with. Of no cryptographic worth today.
class Md2 {
 public:
  void absorb(std::span<const uint8_t> bytes);
  // Pads, takes the checksum in, and returns the digest; the object is spent afterwards.
  std::array<uint8_t, 16> finish();

 private:
  void absorb(uint8_t byte);
  void mix();

  // state_[0..16) is the chain, [16..32) the block, [32..48) their exclusive or.
  std::array<uint8_t, 48> state_{};
  std::array<uint8_t, 16> checksum_{};
  uint8_t last_checksum_ = 0;
  uint8_t position_ = 0;
};

struct DeviceIdentity {
  std::array<uint8_t, 16> uuid;
  int32_t pci_domain;
  int32_t pci_bus;
  int32_t pci_device;
};
static_assert(sizeof(DeviceIdentity) == 28, "hashed as it lies in memory");

// What is hashed before the devices, in this order and without gaps.
struct ValidityRecord {
  uint32_t driver_version;
  uint32_t check_version;
  uint32_t process_id;
  uint32_t thread;  // low half of pthread_self()
  uint64_t interface_table;
  uint64_t validity_table;
  uint64_t validity_function;
  uint64_t unix_seconds;
};
static_assert(sizeof(ValidityRecord) == 48, "hashed as it lies in memory");

using ValidityAnswer = std::array<uint64_t, 2>;

ValidityAnswer validity_answer(const ValidityRecord& record,
                               std::span<const DeviceIdentity> devices);

}  // namespace outboard::tables
