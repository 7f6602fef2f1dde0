// A conversation that a client could have, with every kind of command, as the bytes it sends.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

namespace outboard::fuzz {

using Bytes = std::vector<std::byte>;

/// Frames from the hello on. The addresses in it are those that the null driver's worker gives.
Bytes make_conversation();

}  // namespace outboard::fuzz
