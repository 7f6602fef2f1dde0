// Decompression: what the driver is asked, and what it is not.
// SPDX-License-Identifier: Apache-2.0
#include "wire/decompression.hpp"

#include <doctest/doctest.h>

#include <vector>

#include "worker/tests/drivers.hpp"
#include "worker/tests/peer.hpp"

namespace outboard::worker {
namespace {

std::vector<CUmemDecompressParams>& asked() {
  static auto* const operations = new std::vector<CUmemDecompressParams>;
  return *operations;
}

CUresult note(CUmemDecompressParams* operations, size_t count, unsigned, size_t*, CUstream) {
  asked().assign(operations, operations + count);
  return CUDA_SUCCESS;
}

wire::command::MemoryDecompress batch(uint64_t stream,
                                      const std::vector<wire::Decompression>& operations) {
  wire::command::MemoryDecompress command;
  command.stream = stream;
  command.operations = std::as_bytes(std::span(operations));
  return command;
}

TEST_CASE("the driver decompresses what lies in memory, and nothing else") {
  Driver driver = null_driver();
  driver.cuMemBatchDecompressAsync = &note;
  Peer peer(driver);
  peer.start();
  const uint64_t memory = peer.allocate(1 << 20);
  const wire::Decompression good{memory, 1000, memory + 4096, 5000, memory + 65536, 4};
  peer.send(batch(peer.legacy, {good, {memory + 8, 16, memory + 8192, 0, memory + 65540, 1}}));
  Peer::expect(peer.call(wire::command::ContextSynchronize{}).result);
  REQUIRE(asked().size() == 2);
  const CUmemDecompressParams& first = asked()[0];
  CHECK(reinterpret_cast<uint64_t>(first.src) == memory);
  CHECK(first.srcNumBytes == 1000);
  CHECK(reinterpret_cast<uint64_t>(first.dst) == memory + 4096);
  CHECK(first.dstNumBytes == 5000);
  CHECK(reinterpret_cast<uint64_t>(first.dstActBytes) == memory + 65536);
  CHECK(first.algo == CU_MEM_DECOMPRESS_ALGORITHM_LZ4);
  CHECK(asked()[1].algo == CU_MEM_DECOMPRESS_ALGORITHM_DEFLATE);
  asked().clear();
  for (uint64_t wire::Decompression::* const address :
       {&wire::Decompression::source, &wire::Decompression::destination,
        &wire::Decompression::written}) {
    wire::Decompression beyond = good;
    beyond.*address = memory + (1 << 20) - 2;
    peer.send(batch(peer.legacy, {beyond}));
    const auto refused = peer.take(wire::MessageKind::refused, 0, true);
    CHECK(refused.header.result == CUDA_ERROR_INVALID_VALUE);
  }
  CHECK(asked().empty());
}

}  // namespace
}  // namespace outboard::worker
