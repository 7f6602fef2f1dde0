// What the program manages itself, as a hostile or careless client asks for it: counted against the
// share, and never beyond what it has.
// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>

#include <array>

#include "transport/local.hpp"
#include "wire/changes.hpp"
#include "wire/volume.hpp"
#include "worker/tests/drivers.hpp"
#include "worker/tests/peer.hpp"

namespace outboard::worker {
namespace {

namespace command = wire::command;

constexpr uint64_t place = test_window_base + test_window_bytes + (uint64_t{1} << 30);
constexpr uint64_t granule = 2 << 20;

uint64_t free_bytes(Peer& peer) {
  const auto answer = peer.call(command::MemoryGetInfo{});
  Peer::expect(answer.result);
  return answer.reply.free_bytes;
}

CUresult create(Peer& peer, uint64_t memory, uint64_t bytes) {
  return peer.call(command::PhysicalCreate{.memory = memory, .bytes = bytes}).result;
}

// The error of an async command, which has no answer of its own.
CUresult refusal(Peer& peer, wire::Op op) {
  return static_cast<CUresult>(
      peer.take(wire::MessageKind::refused, static_cast<uint64_t>(op)).header.result);
}

TEST_CASE("physical memory counts against the share from its making to its release") {
  Peer peer(software_gpu());
  peer.start();
  const uint64_t before = free_bytes(peer);
  const uint64_t memory = peer.make_id();
  CHECK(create(peer, memory, 64 * granule) == CUDA_SUCCESS);
  CHECK(free_bytes(peer) == before - 64 * granule);
  CHECK(create(peer, peer.make_id(), before) == CUDA_ERROR_OUT_OF_MEMORY);
  Peer::expect(peer.call(command::AddressReserve{
                             .address = place, .bytes = 64 * granule, .alignment = granule})
                   .result);
  peer.append(command::MemoryMap{.memory = memory, .address = place, .bytes = 64 * granule});
  // While it is mapped it stays.
  peer.append(command::PhysicalRelease{.memory = memory});
  CHECK(free_bytes(peer) == before - 64 * granule);
  CHECK(refusal(peer, wire::Op::PhysicalRelease) == CUDA_ERROR_INVALID_VALUE);
  peer.append(command::MemoryUnmap{.address = place, .bytes = 64 * granule});
  peer.append(command::PhysicalRelease{.memory = memory});
  CHECK(free_bytes(peer) == before);
  CHECK(peer.finish() == 0);
}

TEST_CASE("a mapping lies in its reservation and its memory, and is no allocation") {
  Peer peer(software_gpu());
  peer.start();
  const uint64_t memory = peer.make_id();
  Peer::expect(create(peer, memory, 2 * granule));
  Peer::expect(peer.call(command::AddressReserve{
                             .address = place, .bytes = 4 * granule, .alignment = granule})
                   .result);
  const auto refused = [&](uint64_t address, uint64_t bytes, uint64_t offset) {
    peer.append(
        command::MemoryMap{.memory = memory, .address = address, .bytes = bytes, .offset = offset});
    free_bytes(peer);
    return refusal(peer, wire::Op::MemoryMap);
  };
  CHECK(refused(place + 4 * granule, granule, 0) == CUDA_ERROR_INVALID_VALUE);
  CHECK(refused(place + 3 * granule, 2 * granule, 0) == CUDA_ERROR_INVALID_VALUE);
  CHECK(refused(place, granule, 2 * granule) == CUDA_ERROR_INVALID_VALUE);
  CHECK(refused(place, 0 - granule, 2 * granule) == CUDA_ERROR_INVALID_VALUE);
  peer.append(command::MemoryMap{.memory = memory, .address = place, .bytes = 2 * granule});
  CHECK(peer.call(command::MemoryFree{.address = place}).result == CUDA_ERROR_INVALID_VALUE);
  CHECK(peer.call(command::CopyToHostSync{
                      .stream = peer.legacy, .source = place + 2 * granule - 4, .bytes = 8})
            .result == CUDA_ERROR_INVALID_VALUE);
  CHECK(peer.finish() == 0);
}

TEST_CASE("arrays count against the share until they and their context's work are gone") {
  Peer peer(software_gpu());
  peer.start();
  const uint64_t before = free_bytes(peer);
  CUDA_ARRAY3D_DESCRIPTOR descriptor = {};
  descriptor.Width = 1024;
  descriptor.Height = 1024;
  descriptor.Format = CU_AD_FORMAT_FLOAT;
  descriptor.NumChannels = 4;
  const auto bytes = std::as_bytes(std::span(&descriptor, 1));
  const uint64_t array = peer.make_id();
  Peer::expect(peer.call(command::ArrayCreate{.array = array, .descriptor = bytes}).result);
  CHECK(free_bytes(peer) <= before - (16 << 20));
  Peer::expect(peer.call(command::ArrayDestroy{.array = array}).result);
  CHECK(peer.call(command::ArrayDestroy{.array = array}).result == CUDA_ERROR_INVALID_HANDLE);
  CHECK(free_bytes(peer) == before);
  descriptor.Width = descriptor.Height = 65536;
  CHECK(peer.call(command::ArrayCreate{.array = peer.make_id(), .descriptor = bytes}).result ==
        CUDA_ERROR_OUT_OF_MEMORY);
  CHECK(peer.finish() == 0);
}

TEST_CASE("a copy of a volume stays in its memory") {
  Peer peer(software_gpu());
  peer.start();
  const uint64_t memory = peer.allocate(1000);
  wire::VolumeEnd ends[2];
  for (wire::VolumeEnd& end : ends) {
    end.address = memory;
    end.pitch = 100;
    end.rows = 5;
  }
  const auto copy = [&](uint64_t width, uint64_t height, uint64_t depth) {
    peer.append(command::CopyVolume{.stream = peer.legacy,
                                    .width_bytes = width,
                                    .height = height,
                                    .depth = depth,
                                    .ends = std::as_bytes(std::span(ends))});
    return peer.synchronize(peer.legacy);
  };
  CHECK(copy(100, 5, 2) == CUDA_SUCCESS);
  CHECK(!peer.has(wire::MessageKind::refused));
  for (const auto& [width, height, depth] :
       {std::array<uint64_t, 3>{100, 5, 3}, {101, 5, 2}, {100, 6, 2}, {1, 1, uint64_t{1} << 62}}) {
    copy(width, height, depth);
    CHECK(refusal(peer, wire::Op::CopyVolume) == CUDA_ERROR_INVALID_VALUE);
  }
  CHECK(peer.finish() == 0);
}

TEST_CASE("changes go to memory that was mapped for them, and nowhere else") {
  Peer peer(software_gpu());
  peer.start();
  Peer::expect(peer.call(command::HostMap{.address = place, .bytes = 100}).result);
  CHECK(peer.call(command::HostMap{.address = place, .bytes = 100}).result ==
        CUDA_ERROR_INVALID_VALUE);
  std::vector<std::byte> changes(wire::change_record_bytes);
  changes[0] = std::byte{128};  // beyond the memory
  peer.append(command::HostWrite{.address = place, .changes = changes});
  free_bytes(peer);
  CHECK(refusal(peer, wire::Op::HostWrite) == CUDA_ERROR_INVALID_VALUE);
  changes[0] = {};
  changes[8] = std::byte{1};
  changes[16] = std::byte{77};
  peer.append(command::HostWrite{.address = place, .changes = changes});
  const auto read =
      peer.call(command::CopyToHostSync{.stream = peer.legacy, .source = place, .bytes = 4});
  Peer::expect(read.result);
  CHECK(read.reply.content[0] == std::byte{77});
  // What the client sent is no news to it.
  const auto news = peer.call(command::HostRead{.address = place});
  Peer::expect(news.result);
  CHECK(news.reply.changes.empty());
  CHECK(news.reply.next == 100);
  peer.append(command::HostUnmap{.address = place});
  CHECK(peer.call(command::HostRead{.address = place}).result == CUDA_ERROR_INVALID_VALUE);
  CHECK(peer.finish() == 0);
}

// Memory as a program hands it over, or nearly so.
UniqueFd pages(uint64_t bytes, int seals = F_SEAL_SHRINK | F_SEAL_GROW, bool all_there = true) {
  UniqueFd file(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  const auto size = static_cast<off_t>(bytes);
  REQUIRE(::ftruncate(file.get(), size) == 0);
  if (all_there) REQUIRE(::fallocate(file.get(), 0, 0, size) == 0);
  REQUIRE(::fcntl(file.get(), F_ADD_SEALS, seals) == 0);
  return file;
}

CUresult share(Peer& peer, uint64_t address, uint64_t bytes) {
  return peer.call(command::HostShare{.address = address, .bytes = bytes}).result;
}

TEST_CASE("memory that was handed over is one with the program's") {
  Peer peer(software_gpu());
  peer.start();
  const int socket = peer.open_memory();
  for (const uint64_t bytes : {uint64_t{4096}, uint64_t{16} << 20}) {
    const UniqueFd file = pages(bytes);
    auto* own = static_cast<char*>(
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0));
    REQUIRE(own != MAP_FAILED);
    REQUIRE(transport::send_descriptor(socket, place, file.get()));
    Peer::expect(share(peer, place, bytes));
    own[bytes - 1] = 55;
    const auto read = peer.call(
        command::CopyToHostSync{.stream = peer.legacy, .source = place + bytes - 1, .bytes = 1});
    Peer::expect(read.result);
    CHECK(read.reply.content[0] == std::byte{55});
    peer.append(command::Fill{.stream = peer.legacy,
                              .destination = place,
                              .value = 66,
                              .element_bytes = 1,
                              .width = 10,
                              .height = 1});
    Peer::expect(peer.synchronize(peer.legacy));
    CHECK(own[9] == 66);
    Peer::expect(peer.call(command::HostUnmap{.address = place}).result);
    CHECK(peer.call(command::CopyToHostSync{.stream = peer.legacy, .source = place, .bytes = 1})
              .result == CUDA_ERROR_INVALID_VALUE);
    ::munmap(own, bytes);
  }
  CHECK(peer.finish() == 0);
}

constexpr uint64_t two_pages = 8192;

TEST_CASE("memory is shared that lasts, once, where nothing else lies, and nothing else is") {
  Peer peer(software_gpu());
  peer.start();
  CHECK(share(peer, place, two_pages) == CUDA_ERROR_NOT_SUPPORTED);  // nothing was handed over
  const int socket = peer.open_memory();
  const auto handed = [&](const UniqueFd& file, uint64_t address, uint64_t size = two_pages) {
    REQUIRE(transport::send_descriptor(socket, address, file.get()));
    return share(peer, address, size);
  };
  CHECK(handed(pages(two_pages, F_SEAL_GROW), place) == CUDA_ERROR_INVALID_VALUE);
  CHECK(handed(pages(two_pages, F_SEAL_SHRINK, false), place) == CUDA_ERROR_INVALID_VALUE);
  CHECK(handed(pages(2 * two_pages), place) == CUDA_ERROR_INVALID_VALUE);
  CHECK(handed(UniqueFd(::open("/dev/zero", O_RDWR | O_CLOEXEC)), place) ==
        CUDA_ERROR_INVALID_VALUE);
  CHECK(handed(pages(two_pages), place + 512) == CUDA_ERROR_INVALID_VALUE);
  CHECK(handed(pages(two_pages), UINT64_MAX - 4095) == CUDA_ERROR_INVALID_VALUE);
  CHECK(handed(pages(two_pages), place, 100) == CUDA_ERROR_INVALID_VALUE);
  CHECK(handed(pages(two_pages), test_window_base) != CUDA_SUCCESS);
  CHECK(handed(pages(two_pages), reinterpret_cast<uint64_t>(&place) & ~uint64_t{4095}) !=
        CUDA_SUCCESS);
  CHECK(handed(pages(two_pages), place) == CUDA_SUCCESS);
  CHECK(handed(pages(two_pages), place) == CUDA_ERROR_INVALID_VALUE);
  CHECK(handed(pages(two_pages), place + 4096) == CUDA_ERROR_INVALID_VALUE);
  CHECK(peer.call(command::HostRead{.address = place}).result == CUDA_ERROR_INVALID_VALUE);
  // The worker goes on without the connection.
  ::shutdown(socket, SHUT_RDWR);
  CHECK(share(peer, place + two_pages, two_pages) == CUDA_ERROR_NOT_SUPPORTED);
  CHECK(peer.finish() == 0);
}

TEST_CASE("whatever else comes where memory is handed over ends the session") {
  const UniqueFd file = pages(4096);
  const auto end_after = [&](auto&& send) {
    Peer peer(software_gpu());
    peer.start();
    send(peer, peer.open_memory());
    peer.ask(command::HostShare{.address = place, .bytes = 4096});
    CHECK(peer.join() == exit_protocol);
  };
  end_after([](Peer&, int socket) { ::send(socket, "nonsense", 8, 0); });
  end_after([](Peer&, int socket) { ::send(socket, "short", 5, 0); });
  end_after([&](Peer& peer, int socket) {
    for (uint64_t i = 0; i < 300; ++i) {
      REQUIRE(transport::send_descriptor(socket, i, file.get()));
      // The worker takes them when it needs one.
      if (i % 100 == 99 && i < 200) CHECK(share(peer, place, 4096) == CUDA_ERROR_NOT_SUPPORTED);
    }
  });
}

}  // namespace
}  // namespace outboard::worker
