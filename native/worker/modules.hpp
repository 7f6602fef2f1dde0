// Images by their hash, modules and libraries, and the functions of them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/sha256.hpp"

namespace outboard::worker {

struct Context;

using Bytes = std::vector<std::byte>;

/// Images that the client sent, kept for the next load of the same.
class Images {
 public:
  static constexpr uint64_t most_bytes = uint64_t{2} << 30;

  /// Takes the next piece of an image; false where it does not continue what is there.
  bool add(const Digest& hash, uint64_t total_bytes, uint64_t offset,
           std::span<const std::byte> content);
  /// The image if all of it is there; whether it is what its hash says is for verified().
  std::shared_ptr<const Bytes> find(const Digest& hash);
  bool verified(const Digest& hash) const;
  void set_verified(const Digest& hash);
  void drop(const Digest& hash);

 private:
  struct Image {
    uint64_t total_bytes = 0;
    std::shared_ptr<Bytes> content;
    bool verified = false;
    uint64_t used = 0;  ///< when, for dropping the one that was not used for longest
  };
  void make_room(uint64_t bytes);

  std::map<Digest, Image> images_;
  uint64_t held_bytes_ = 0;
  uint64_t clock_ = 0;
};

struct Module {
  std::shared_ptr<Context> context;
  CUmodule module = nullptr;  ///< one of the two
  CUlibrary library = nullptr;
};

struct Function {
  std::shared_ptr<Context> context;
  const Module* module = nullptr;
  CUfunction handle = nullptr;   ///< in the module's context
  CUkernel kernel = nullptr;     ///< set for a library's
  uint64_t params_bytes = 0;     ///< where the last parameter ends
  std::vector<uint32_t> layout;  ///< offset and size of each
};

}  // namespace outboard::worker
