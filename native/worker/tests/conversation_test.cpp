// Whole conversations with a worker on the software GPU.
// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <random>

#include "worker/tests/drivers.hpp"
#include "worker/tests/kernels.hpp"
#include "worker/tests/peer.hpp"

namespace outboard::worker {
namespace {

namespace command = wire::command;

template <typename T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

template <typename T>
void upload(Peer& peer, uint64_t stream, uint64_t address, const std::vector<T>& values) {
  command::CopyToDevice copy;
  copy.stream = stream;
  copy.destination = address;
  copy.content = bytes_of(values);
  peer.append(copy);
}

template <typename T>
std::vector<T> download(Peer& peer, uint64_t stream, uint64_t address, size_t count) {
  command::CopyToHostSync copy;
  copy.stream = stream;
  copy.source = address;
  copy.bytes = count * sizeof(T);
  const auto answer = peer.call(copy);
  Peer::expect(answer.result);
  REQUIRE(answer.reply.content.size() == count * sizeof(T));
  std::vector<T> values(count);
  std::memcpy(values.data(), answer.reply.content.data(), count * sizeof(T));
  return values;
}

void launch(Peer& peer, uint64_t stream, uint64_t function, unsigned blocks, unsigned threads,
            std::span<const std::byte> params) {
  command::Launch launch;
  launch.stream = stream;
  launch.function = function;
  launch.grid_x = blocks;
  launch.grid_y = launch.grid_z = 1;
  launch.block_x = threads;
  launch.block_y = launch.block_z = 1;
  launch.params = params;
  peer.append(launch);
}

void bump(Peer& peer, uint64_t stream, uint64_t function, uint64_t address) {
  launch(peer, stream, function, 1, 1, std::as_bytes(std::span(&address, 1)));
}

uint64_t host_function(Peer& peer, uint64_t stream, uint64_t number) {
  command::HostFunction host;
  host.stream = stream;
  host.function = number;
  peer.append(host);
  return number;
}

void host_function_done(Peer& peer, uint64_t number) {
  command::HostFunctionDone done;
  done.function = number;
  peer.send(done);
}

void record(Peer& peer, uint64_t stream, uint64_t event) {
  command::EventRecord record;
  record.stream = stream;
  record.event = event;
  peer.append(record);
}

void wait_event(Peer& peer, uint64_t stream, uint64_t event) {
  command::StreamWaitEvent wait;
  wait.stream = stream;
  wait.event = event;
  peer.append(wait);
}

TEST_CASE("vectors are added") {
  Peer peer(software_gpu());
  peer.start();
  constexpr uint32_t n = 10000;
  std::vector<float> a(n);
  std::vector<float> b(n);
  std::iota(a.begin(), a.end(), 0.0f);
  std::iota(b.begin(), b.end(), 0.5f);
  const uint64_t at[3] = {peer.allocate(n * 4), peer.allocate(n * 4), peer.allocate(n * 4)};
  CHECK(at[0] >= test_window_base);
  CHECK(at[2] + n * 4 <= test_window_base + test_window_bytes);
  const uint64_t add = peer.function(peer.load(test_kernels), "add");
  upload(peer, peer.legacy, at[0], a);
  upload(peer, peer.legacy, at[1], b);
  struct {
    uint64_t a, b, c;
    uint32_t n, zero;
  } params{at[0], at[1], at[2], n, 0};
  launch(peer, peer.legacy, add, (n + 255) / 256, 256,
         std::as_bytes(std::span(&params, 1)).first(28));
  const auto sum = download<float>(peer, peer.legacy, at[2], n);
  for (uint32_t i = 0; i < n; ++i) REQUIRE(sum[i] == a[i] + b[i]);
  // Two copies, a launch and a copy were ordered on the stream, and the answer says that all are
  // done.
  CHECK(peer.completed[peer.legacy] == 4);
  CHECK(peer.synchronize(peer.legacy) == CUDA_SUCCESS);
  CHECK(peer.completed[peer.legacy] == 5);
  CHECK(peer.finish() == 0);
}

TEST_CASE("a refused launch is told once and leaves the context usable") {
  Peer peer(software_gpu());
  peer.start();
  const uint64_t word = peer.allocate(4);
  const uint64_t function = peer.function(peer.load(test_kernels), "bump");
  upload(peer, peer.legacy, word, std::vector<uint32_t>{5});
  launch(peer, peer.legacy, function, 1, 4096, std::as_bytes(std::span(&word, 1)));
  launch(peer, peer.legacy, function, 1, 1, {});
  bump(peer, peer.legacy, function, word);
  CHECK(download<uint32_t>(peer, peer.legacy, word, 1)[0] == 6);
  CHECK(peer.take(wire::MessageKind::refused, static_cast<uint64_t>(wire::Op::Launch))
            .header.result != 0);
  CHECK(peer.take(wire::MessageKind::refused, static_cast<uint64_t>(wire::Op::Launch))
            .header.result == CUDA_ERROR_INVALID_VALUE);
  CHECK(!peer.has(wire::MessageKind::fatal));
}

TEST_CASE("a wild store kills its context, and only that") {
  Peer peer(software_gpu());
  peer.start();
  const uint64_t wild = peer.function(peer.load(test_kernels), "wild");
  const uint64_t stream = peer.stream();
  launch(peer, stream, wild, 1, 1, {});
  CHECK(peer.synchronize(stream) == CUDA_ERROR_ILLEGAL_ADDRESS);
  CHECK(peer.take(wire::MessageKind::fatal, 0).header.result == CUDA_ERROR_ILLEGAL_ADDRESS);
  CHECK(peer.synchronize(peer.legacy) == CUDA_ERROR_ILLEGAL_ADDRESS);
  command::MemoryAllocate allocate;
  allocate.bytes = 4;
  CHECK(peer.call(allocate).result == CUDA_ERROR_ILLEGAL_ADDRESS);
  command::ContextDestroy destroy;
  destroy.context = peer.context;
  destroy.reset = 1;
  CHECK(peer.call(destroy).result == CUDA_SUCCESS);
  command::ContextRetainPrimary retain;
  retain.context = peer.context = peer.make_id();
  retain.legacy_stream = peer.legacy = peer.make_id();
  CHECK(peer.call(retain).result == CUDA_SUCCESS);
  const uint64_t word = peer.allocate(4);
  upload(peer, peer.legacy, word, std::vector<uint32_t>{9});
  CHECK(download<uint32_t>(peer, peer.legacy, word, 1)[0] == 9);
}

TEST_CASE("an array that is destroyed in a dead context leaves its slot to another context") {
  Peer peer(software_gpu());
  peer.start();
  CUDA_ARRAY3D_DESCRIPTOR descriptor{};
  descriptor.Width = 16;
  descriptor.Height = 16;
  descriptor.Format = CU_AD_FORMAT_FLOAT;
  descriptor.NumChannels = 1;
  command::ArrayCreate array;
  array.array = peer.make_id();
  array.descriptor = std::as_bytes(std::span(&descriptor, 1));
  command::MipmappedArrayCreate mipmap;
  mipmap.mipmap = peer.make_id();
  mipmap.levels = 1;
  mipmap.descriptor = array.descriptor;
  REQUIRE(peer.call(array).result == CUDA_SUCCESS);
  REQUIRE(peer.call(mipmap).result == CUDA_SUCCESS);
  launch(peer, peer.legacy, peer.function(peer.load(test_kernels), "wild"), 1, 1, {});
  CHECK(peer.synchronize(peer.legacy) == CUDA_ERROR_ILLEGAL_ADDRESS);
  CHECK(peer.call(command::ArrayDestroy{.array = array.array}).result ==
        CUDA_ERROR_ILLEGAL_ADDRESS);
  CHECK(peer.call(command::MipmappedArrayDestroy{.mipmap = mipmap.mipmap}).result ==
        CUDA_ERROR_ILLEGAL_ADDRESS);

  command::ContextCreate other;
  other.context = peer.context = peer.make_id();
  other.legacy_stream = peer.legacy = peer.make_id();
  REQUIRE(peer.call(other).result == CUDA_SUCCESS);
  constexpr uint64_t next_generation = 1ULL << 32;
  array.array += next_generation;
  mipmap.mipmap += next_generation;
  CHECK(peer.call(array).result == CUDA_SUCCESS);
  CHECK(peer.call(mipmap).result == CUDA_SUCCESS);
  CHECK(peer.finish() == 0);
}

TEST_CASE("a fault that nobody is told of by a call is noticed by those who wait") {
  Peer peer(software_gpu());
  peer.start();
  const uint64_t wild = peer.function(peer.load(test_kernels), "wild");
  const uint64_t stream = peer.stream();
  const uint64_t event = peer.event();
  launch(peer, stream, wild, 1, 1, {});
  record(peer, stream, event);
  command::EventSynchronize wait;
  wait.event = event;
  CHECK(peer.call(wait).result == CUDA_ERROR_ILLEGAL_ADDRESS);
}

TEST_CASE("memory is counted against the share and given back") {
  constexpr uint64_t mib = 1 << 20;
  Peer peer(software_gpu(), 64 * mib);
  peer.start();
  const auto info = [&] { return peer.call(command::MemoryGetInfo()).reply; };
  CHECK(info().total_bytes == 64 * mib);
  const uint64_t before = info().free_bytes;
  CHECK(before < 64 * mib);
  CHECK(before > 32 * mib);
  const uint64_t address = peer.allocate(16 * mib);
  CHECK(info().free_bytes == before - 16 * mib);
  command::MemoryAllocate too_much;
  too_much.bytes = 60 * mib;
  CHECK(peer.call(too_much).result == CUDA_ERROR_OUT_OF_MEMORY);
  const uint64_t small[2] = {peer.allocate(100), peer.allocate(100)};
  CHECK(small[1] - small[0] == 512);
  CHECK(info().free_bytes == before - 18 * mib);
  command::MemoryFree release;
  for (const uint64_t one : {address, small[0], small[1]}) {
    release.address = one;
    CHECK(peer.call(release).result == CUDA_SUCCESS);
    CHECK(peer.call(release).result == CUDA_ERROR_INVALID_VALUE);
  }
  CHECK(info().free_bytes == before);
}

TEST_CASE("addresses that are not the client's never reach the driver") {
  Peer peer(software_gpu());
  peer.start();
  const uint64_t address = peer.allocate(1000);
  command::CopyToHostSync copy;
  copy.stream = peer.legacy;
  copy.source = address;
  copy.bytes = 1001;
  CHECK(peer.call(copy).result == CUDA_ERROR_INVALID_VALUE);
  copy.source = reinterpret_cast<uint64_t>(&copy);
  copy.bytes = 8;
  CHECK(peer.call(copy).result == CUDA_ERROR_INVALID_VALUE);
  copy.source = UINT64_MAX;
  CHECK(peer.call(copy).result == CUDA_ERROR_INVALID_VALUE);
  command::Fill fill;
  fill.stream = peer.legacy;
  fill.destination = address;
  fill.element_bytes = 4;
  fill.width = UINT64_MAX / 2;
  fill.height = 1;
  peer.send(fill);
  CHECK(
      peer.take(wire::MessageKind::refused, static_cast<uint64_t>(wire::Op::Fill)).header.result ==
      CUDA_ERROR_INVALID_VALUE);
  copy.stream = peer.make_id();
  CHECK(peer.call(copy).result == CUDA_ERROR_INVALID_HANDLE);
}

TEST_CASE(
    "a stream that waits for its host function holds up no other, with 5,000 launches behind it") {
  Peer peer(software_gpu());
  peer.start();
  const uint64_t word = peer.allocate(4);
  const uint64_t other_word = peer.allocate(4);
  const uint64_t function = peer.function(peer.load(test_kernels), "bump");
  const uint64_t stream = peer.stream();
  const uint64_t other = peer.stream();
  upload(peer, stream, word, std::vector<uint32_t>{0});
  upload(peer, other, other_word, std::vector<uint32_t>{0});
  host_function(peer, stream, 77);
  for (int i = 0; i < 5000; ++i) bump(peer, stream, function, word);
  const uint32_t request = peer.ask([&] {
    command::StreamSynchronize synchronize;
    synchronize.stream = stream;
    return synchronize;
  }());
  for (int i = 0; i < 20; ++i) bump(peer, other, function, other_word);
  CHECK(download<uint32_t>(peer, other, other_word, 1)[0] == 20);
  CHECK(peer.take(wire::MessageKind::host_function, 77).header.subject == 77);
  CHECK(peer.completed[stream] <= 1);
  command::StreamQuery query;
  query.stream = stream;
  CHECK(peer.call(query).result == CUDA_ERROR_NOT_READY);
  host_function_done(peer, 77);
  CHECK(peer.answer<command::StreamSynchronize>(request).result == CUDA_SUCCESS);
  CHECK(peer.completed[stream] == 5003);
  CHECK(download<uint32_t>(peer, stream, word, 1)[0] == 5000);
}

TEST_CASE("a wait for an event that is recorded behind a backlog holds until then") {
  Peer peer(software_gpu());
  peer.start();
  const uint64_t word = peer.allocate(4);
  const uint64_t function = peer.function(peer.load(test_kernels), "bump");
  const uint64_t first = peer.stream();
  const uint64_t second = peer.stream();
  const uint64_t event = peer.event();
  upload(peer, first, word, std::vector<uint32_t>{0});
  host_function(peer, first, 1);
  for (int i = 0; i < 600; ++i) bump(peer, first, function, word);
  record(peer, first, event);
  wait_event(peer, second, event);
  // Recorded again at once: the wait above means the first record.
  record(peer, first, event);
  command::EventQuery query;
  query.event = event;
  CHECK(peer.call(query).result == CUDA_ERROR_NOT_READY);
  for (int i = 0; i < 10; ++i) bump(peer, second, function, word);
  command::EventDestroy destroy;
  destroy.event = event;
  peer.append(destroy);
  peer.flush();
  CHECK(peer.take(wire::MessageKind::host_function, 1).header.subject == 1);
  host_function_done(peer, 1);
  CHECK(download<uint32_t>(peer, second, word, 1)[0] == 610);
}

TEST_CASE("the legacy stream waits for blocking streams, and they for it, also when kept") {
  Peer peer(software_gpu());
  peer.start();
  const uint64_t word = peer.allocate(4);
  const uint64_t function = peer.function(peer.load(test_kernels), "bump");
  const uint64_t blocking = peer.stream(CU_STREAM_DEFAULT);
  const auto set = [&](uint64_t stream, uint32_t value) {
    command::Fill fill;
    fill.stream = stream;
    fill.destination = word;
    fill.element_bytes = 4;
    fill.width = 1;
    fill.height = 1;
    fill.value = value;
    peer.append(fill);
  };
  set(peer.legacy, 0);
  host_function(peer, blocking, 5);
  for (int i = 0; i < 700; ++i) bump(peer, blocking, function, word);
  set(peer.legacy, 100);
  bump(peer, blocking, function, word);
  set(peer.legacy, 1000);
  for (int i = 0; i < 3; ++i) bump(peer, blocking, function, word);
  peer.flush();
  CHECK(peer.take(wire::MessageKind::host_function, 5).header.subject == 5);
  host_function_done(peer, 5);
  CHECK(download<uint32_t>(peer, blocking, word, 1)[0] == 1003);
  CHECK(download<uint32_t>(peer, peer.legacy, word, 1)[0] == 1003);
}

TEST_CASE("a free waits for the work before it") {
  Peer peer(software_gpu());
  peer.start();
  constexpr uint64_t bytes = 4 << 20;
  const uint64_t address = peer.allocate(bytes);
  const uint64_t stream = peer.stream();
  const uint64_t function = peer.function(peer.load(test_kernels), "bump");
  host_function(peer, stream, 3);
  for (int i = 0; i < 600; ++i) bump(peer, stream, function, address);
  command::MemoryFree release;
  release.address = address;
  const uint32_t request = peer.ask(release);
  CHECK(peer.take(wire::MessageKind::host_function, 3).header.subject == 3);
  CHECK(!peer.has(wire::MessageKind::reply));
  host_function_done(peer, 3);
  CHECK(peer.answer<command::MemoryFree>(request).result == CUDA_SUCCESS);
  CHECK(peer.synchronize(stream) == CUDA_SUCCESS);
  CHECK(!peer.has(wire::MessageKind::fatal));
}

TEST_CASE("a free, and all else that waits for a context, is answered although a stream is going") {
  for (const int launches : {1, 600}) {  // in the driver; behind a backlog
    Peer peer(software_gpu());
    peer.start();
    const uint64_t address = peer.allocate(4096);
    const uint64_t stream = peer.stream();
    const uint64_t function = peer.function(peer.load(test_kernels), "bump");
    host_function(peer, stream, 3);
    for (int i = 0; i < launches; ++i) bump(peer, stream, function, address);
    command::StreamDestroy destroy;
    destroy.stream = stream;
    peer.append(destroy);
    command::MemoryFree release;
    release.address = address;
    const uint32_t freeing = peer.ask(release);
    const uint32_t synchronizing = peer.ask(command::ContextSynchronize());
    CHECK(peer.take(wire::MessageKind::host_function, 3).header.subject == 3);
    CHECK(!peer.has(wire::MessageKind::reply));
    host_function_done(peer, 3);
    CHECK(peer.answer<command::MemoryFree>(freeing).result == CUDA_SUCCESS);
    CHECK(peer.answer<command::ContextSynchronize>(synchronizing).result == CUDA_SUCCESS);
  }
}

TEST_CASE("many small copies both ways keep their order and their bytes") {
  Peer peer(software_gpu());
  peer.start();
  constexpr size_t count = 15000;
  const uint64_t address = peer.allocate(count * 4);
  const uint64_t stream = peer.stream();
  std::vector<uint32_t> values(count);
  for (uint32_t round = 0; round < 40; ++round) {
    std::fill(values.begin(), values.end(), round);
    upload(peer, stream, address, values);
    command::CopyToHost copy;
    copy.stream = stream;
    copy.copy = 1000 + round;
    copy.source = address;
    copy.bytes = count * 4;
    peer.append(copy);
  }
  CHECK(peer.synchronize(stream) == CUDA_SUCCESS);
  for (uint32_t round = 0; round < 40; ++round) {
    const auto copied = peer.take(wire::MessageKind::copied, 1000 + round);
    REQUIRE(copied.payload.size() == count * 4);
    for (const size_t at : {size_t{0}, count / 2, count - 1}) {
      uint32_t value = 0;
      std::memcpy(&value, copied.payload.data() + 4 * at, 4);
      CHECK(value == round);
    }
  }
}

// How often the driver was asked about streams.
std::atomic<unsigned> stream_queries{0};

TEST_CASE("a stream is captured while others are waited for") {
  Driver driver = software_gpu();
  driver.cuStreamQuery = [](CUstream stream) {
    ++stream_queries;
    return software_gpu().cuStreamQuery(stream);
  };
  Peer peer(driver);
  peer.start();
  const uint64_t word = peer.allocate(4);
  const uint64_t function = peer.function(peer.load(test_kernels), "bump");
  const uint64_t captured = peer.stream();
  const uint64_t other = peer.stream();
  host_function(peer, captured, 1);  // its work before the capture is not done
  host_function(peer, other, 2);
  command::StreamSynchronize synchronize;
  synchronize.stream = other;
  const uint32_t request = peer.ask(synchronize);
  command::CaptureBegin begin;
  begin.stream = captured;
  begin.graph = peer.make_id();
  CHECK(peer.call(begin).result == CUDA_SUCCESS);
  const unsigned before = stream_queries;
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (stream_queries < before + 4 && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  REQUIRE(stream_queries >= before + 4);
  bump(peer, captured, function, word);
  command::CaptureEnd end;
  end.stream = captured;
  end.graph = begin.graph;
  CHECK(peer.call(end).result == CUDA_SUCCESS);
  host_function_done(peer, 1);
  host_function_done(peer, 2);
  CHECK(peer.answer<command::StreamSynchronize>(request).result == CUDA_SUCCESS);
}

TEST_CASE("a captured stream becomes a graph that can be launched") {
  Peer peer(software_gpu());
  peer.start();
  const uint64_t word = peer.allocate(4);
  const uint64_t function = peer.function(peer.load(test_kernels), "bump");
  const uint64_t stream = peer.stream();
  upload(peer, stream, word, std::vector<uint32_t>{0});
  command::CaptureBegin begin;
  begin.stream = stream;
  begin.graph = peer.make_id();
  CHECK(peer.call(begin).result == CUDA_SUCCESS);
  for (int i = 0; i < 10; ++i) bump(peer, stream, function, word);
  // What others do meanwhile is not part of it.
  const uint64_t other = peer.allocate(1 << 22);
  CHECK(other != 0);
  command::CaptureEnd end;
  end.stream = stream;
  end.graph = begin.graph;
  CHECK(peer.call(end).result == CUDA_SUCCESS);
  command::GraphDescribe describe;
  describe.graph = begin.graph;
  const auto described = peer.call(describe);
  CHECK(described.result == CUDA_SUCCESS);
  CHECK(described.reply.nodes.size() == 10);
  CHECK(described.reply.from.size() == 9);
  command::GraphInstantiate instantiate;
  instantiate.graph = end.graph;
  instantiate.executable = peer.make_id();
  CHECK(peer.call(instantiate).result == CUDA_SUCCESS);
  command::GraphLaunch launch;
  launch.stream = stream;
  launch.executable = instantiate.executable;
  for (int i = 0; i < 3; ++i) peer.append(launch);
  command::GraphExecutableDestroy destroy;
  destroy.executable = instantiate.executable;
  peer.append(destroy);
  CHECK(download<uint32_t>(peer, stream, word, 1)[0] == 30);
}

TEST_CASE("globals have an address, may be copied to, and go with their module") {
  Peer peer(software_gpu());
  peer.start();
  const uint64_t module = peer.load(test_kernels);
  command::ModuleGetGlobal get;
  get.module = module;
  get.name = "counter";
  const auto global = peer.call(get);
  CHECK(global.result == CUDA_SUCCESS);
  CHECK(global.reply.bytes == 4);
  CHECK(download<uint32_t>(peer, peer.legacy, global.reply.address, 1)[0] == 7);
  command::ModuleUnload unload;
  unload.module = module;
  CHECK(peer.call(unload).result == CUDA_SUCCESS);
  command::CopyToHostSync copy;
  copy.stream = peer.legacy;
  copy.source = global.reply.address;
  copy.bytes = 4;
  CHECK(peer.call(copy).result == CUDA_ERROR_INVALID_VALUE);
  CHECK(peer.call(get).result == CUDA_ERROR_INVALID_HANDLE);
}

TEST_CASE("an image is loaded by its hash, and one that is not what its hash says is not") {
  Peer peer(software_gpu());
  peer.start();
  const std::string image(test_kernels);
  command::ModuleLoad load;
  load.module = peer.make_id();
  load.hash = sha256(std::as_bytes(std::span(image.c_str(), image.size() + 1)));
  CHECK(peer.call(load).result == CUDA_ERROR_FILE_NOT_FOUND);
  command::ModuleImage piece;
  piece.hash = load.hash;
  piece.total_bytes = image.size() + 1;
  std::string wrong = image;
  wrong[wrong.size() / 2] ^= 1;
  piece.content = std::as_bytes(std::span(wrong.c_str(), wrong.size() + 1));
  peer.append(piece);
  CHECK(peer.call(load).result == CUDA_ERROR_FILE_NOT_FOUND);
  for (const size_t offset : {size_t{0}, size_t{100}}) {
    const size_t end = offset == 0 ? 100 : image.size() + 1;
    piece.offset = offset;
    piece.content = std::as_bytes(std::span(image.c_str() + offset, end - offset));
    peer.append(piece);
  }
  const auto loaded = peer.call(load);
  CHECK(loaded.result == CUDA_SUCCESS);
  CHECK(loaded.reply.kernels == 3);
  load.module = peer.make_id();
  load.library = 1;
  CHECK(peer.call(load).result == CUDA_SUCCESS);
  const uint64_t function = peer.function(load.module, "bump");
  const uint64_t word = peer.allocate(4);
  upload(peer, peer.legacy, word, std::vector<uint32_t>{1});
  bump(peer, peer.legacy, function, word);
  CHECK(download<uint32_t>(peer, peer.legacy, word, 1)[0] == 2);
}

TEST_CASE("streams come and go while they work") {
  Peer peer(software_gpu());
  peer.start();
  const uint64_t word = peer.allocate(4);
  const uint64_t function = peer.function(peer.load(test_kernels), "bump");
  upload(peer, peer.legacy, word, std::vector<uint32_t>{0});
  CHECK(peer.synchronize(peer.legacy) == CUDA_SUCCESS);
  for (int round = 0; round < 200; ++round) {
    const uint64_t stream = peer.stream(CU_STREAM_DEFAULT);
    bump(peer, stream, function, word);
    command::StreamDestroy destroy;
    destroy.stream = stream;
    peer.append(destroy);
    bump(peer, peer.legacy, function, word);
  }
  CHECK(download<uint32_t>(peer, peer.legacy, word, 1)[0] == 400);
  CHECK(peer.call(command::ContextSynchronize()).result == CUDA_SUCCESS);
}

TEST_CASE("a client that breaks the protocol is told and given up") {
  const auto broken_by = [](auto act) {
    Peer peer(software_gpu());
    peer.start();
    act(peer);
    CHECK_THROWS(peer.read_frame(20'000));
    return peer.join();
  };
  CHECK(broken_by([](Peer& peer) {
          const std::byte junk[16] = {};
          peer.sender().send(wire::FrameKind::batch, junk, 0);
        }) == exit_protocol);
  CHECK(broken_by([](Peer& peer) { peer.sender().send(wire::FrameKind::hello, {}, 0); }) ==
        exit_protocol);
  CHECK(broken_by([](Peer& peer) {
          command::EventCreate create;
          create.event = peer.context;  // of another table: fine
          peer.append(create);
          peer.append(create);
          peer.flush();
        }) == exit_protocol);
}

}  // namespace
}  // namespace outboard::worker
