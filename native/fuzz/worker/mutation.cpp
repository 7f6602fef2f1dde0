// Mutations.
// SPDX-License-Identifier: Apache-2.0
#include "fuzz/worker/mutation.hpp"

#include <algorithm>
#include <cstring>
#include <random>

namespace outboard::fuzz {

Bytes mutate(const Bytes& conversation, Mutation mutation, size_t position, uint32_t choice) {
  Bytes bytes = conversation;
  if (position >= bytes.size()) return bytes;
  switch (mutation) {
    case Mutation::truncate:
      bytes.resize(position);
      break;
    case Mutation::flip:
      bytes[position] ^= std::byte{1} << (choice % 8);
      break;
    case Mutation::oversize: {
      constexpr uint32_t numbers[] = {0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x00100001, 0x0000FFFF};
      const uint32_t number = numbers[choice % 5];
      std::memcpy(bytes.data() + position, &number,
                  std::min(sizeof number, bytes.size() - position));
      break;
    }
    case Mutation::count:
      break;
  }
  return bytes;
}

Bytes mutate_randomly(const Bytes& conversation, uint32_t seed, std::string* description) {
  static const char* const names[] = {"truncate", "flip", "oversize"};
  std::mt19937 random(seed);
  Bytes bytes = conversation;
  const unsigned changes = 1 + random() % 8;
  for (unsigned i = 0; i < changes && !bytes.empty(); ++i) {
    // Truncating ends the conversation: seldom, or nothing else would be seen.
    const auto mutation = random() % 16 == 0  ? Mutation::truncate
                          : random() % 3 == 0 ? Mutation::oversize
                                              : Mutation::flip;
    const size_t position = random() % bytes.size();
    bytes = mutate(bytes, mutation, position, static_cast<uint32_t>(random()));
    *description +=
        std::string(names[static_cast<int>(mutation)]) + "@" + std::to_string(position) + " ";
  }
  return bytes;
}

}  // namespace outboard::fuzz
