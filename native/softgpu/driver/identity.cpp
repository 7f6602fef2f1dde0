// Names the software GPUs of this machine.
// SPDX-License-Identifier: Apache-2.0
#include "identity.hpp"

#include <cstring>
#include <fstream>
#include <string>

namespace softgpu {
namespace {

uint64_t fnv(const std::string& text, uint64_t seed) {
  uint64_t hash = 0xcbf29ce484222325ull ^ seed;
  for (char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  return hash;
}

}  // namespace

Identity identity(int ordinal) {
  std::ifstream file("/etc/machine-id");
  std::string machine;
  std::getline(file, machine);
  machine += "/softgpu/" + std::to_string(ordinal);
  uint64_t words[2] = {fnv(machine, 1), fnv(machine, 0x9e3779b97f4a7c15ull)};
  Identity id{};
  std::memcpy(id.uuid, words, sizeof words);
  id.uuid[6] = static_cast<unsigned char>((id.uuid[6] & 0x0f) | 0x80);  // version 8: custom
  id.uuid[8] = static_cast<unsigned char>((id.uuid[8] & 0x3f) | 0x80);
  id.pci_bus = 1 + ordinal;
  return id;
}

}  // namespace softgpu
