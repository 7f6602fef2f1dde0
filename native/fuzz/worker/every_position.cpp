// Runs the decoder target over a conversation damaged at every position, and at many at once.
// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "fuzz/worker/conversation.hpp"
#include "fuzz/worker/decoder.hpp"
#include "fuzz/worker/mutation.hpp"

namespace outboard::fuzz {
namespace {

constexpr uint32_t random_samples = 2000;

int run(const char* driver_path, size_t stride) {
  std::string error;
  auto driver = worker::open_driver(driver_path, &error);
  if (!driver || driver->cuInit(0) != CUDA_SUCCESS) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  use_driver(*driver.release());
  const Bytes conversation = make_conversation();
  if (feed(conversation) != 0) {
    std::fprintf(stderr, "the conversation itself is refused\n");
    return 1;
  }
  std::map<int, size_t> codes;
  const auto check = [&](const Bytes& bytes, const std::string& what) {
    std::fflush(stdout);
    const int code = feed(bytes);
    ++codes[code];
    if (code >= 0 && code <= 2) return true;
    std::printf("%s: exit code %d\n", what.c_str(), code);
    return false;
  };
  for (size_t position = 0; position < conversation.size(); position += stride) {
    for (int kind = 0; kind < static_cast<int>(Mutation::count); ++kind) {
      const auto mutation = static_cast<Mutation>(kind);
      const auto choice = static_cast<uint32_t>(position * 2654435761u >> 7);
      if (!check(mutate(conversation, mutation, position, choice),
                 "mutation " + std::to_string(kind) + " at " + std::to_string(position))) {
        return 1;
      }
    }
  }
  for (uint32_t seed = 1; seed <= random_samples; ++seed) {
    std::string description;
    const Bytes bytes = mutate_randomly(conversation, seed, &description);
    if (!check(bytes, "seed " + std::to_string(seed) + ": " + description)) return 1;
  }
  std::printf("%zu bytes;", conversation.size());
  for (const auto& [code, count] : codes) std::printf(" %zu runs ended with %d;", count, code);
  std::printf(" none with a signal\n");
  return 0;
}

}  // namespace
}  // namespace outboard::fuzz

// worker_decoder_fuzz NULLDRIVER [STRIDE]
int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s NULLDRIVER [STRIDE]\n", argv[0]);
    return 2;
  }
  const size_t stride = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 1;
  return outboard::fuzz::run(argv[1], stride == 0 ? 1 : stride);
}
