// What is done to a conversation to make it hostile.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "fuzz/worker/conversation.hpp"

namespace outboard::fuzz {

enum class Mutation { truncate, flip, oversize, count };

/// One change at one place; `choice` picks the bit that is flipped or the number that is written.
Bytes mutate(const Bytes& conversation, Mutation mutation, size_t position, uint32_t choice);

/// Several changes at random places; the same for the same seed. `description` says which.
Bytes mutate_randomly(const Bytes& conversation, uint32_t seed, std::string* description);

}  // namespace outboard::fuzz
