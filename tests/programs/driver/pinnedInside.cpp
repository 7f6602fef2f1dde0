// Pinned memory whose address lies in a structure that is passed to a kernel by value, or in device
// memory.
// SPDX-License-Identifier: Apache-2.0
//
// --unasked 1: the kernel writes to large memory whose address lies deep in the structure, and
// which cuMemHostGetDevicePointer was never asked about. A driver on this machine has no trouble
// with it.
#include <vector>

#include "driver.hpp"

namespace {

// put({first, inner, value, which}): *(which ? inner : first) = value
constexpr const char* kPut = R"(
.version 7.0
.target sm_70
.address_size 64
.visible .entry put(.param .align 8 .b8 given[24]) {
  .reg .pred %p<2>;
  .reg .b32 %r<3>;
  .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [given];
  ld.param.u64 %rd2, [given+8];
  ld.param.u32 %r1, [given+16];
  ld.param.u32 %r2, [given+20];
  setp.eq.s32 %p1, %r2, 0;
  selp.b64 %rd3, %rd1, %rd2, %p1;
  st.global.u32 [%rd3], %r1;
  ret;
}

// follow(table, entry): *table[entry] += 1, by way of what stands there
.visible .entry follow(.param .u64 table, .param .u64 entry) {
  .reg .b32 %r<2>;
  .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [table];
  ld.param.u64 %rd2, [entry];
  mad.lo.u64 %rd3, %rd2, 8, %rd1;
  ld.global.u64 %rd3, [%rd3];
  ld.global.u32 %r1, [%rd3];
  add.u32 %r1, %r1, 1;
  st.global.u32 [%rd3], %r1;
  ret;
}
)";

struct Given {
  CUdeviceptr first = 0;
  CUdeviceptr inner = 0;
  int value = 0;
  int which = 0;
};

int* pinned(size_t bytes) {
  void* memory = nullptr;
  CHECK(cuMemHostAlloc(&memory, bytes, 0));
  return static_cast<int*>(memory);
}

CUdeviceptr address_of(int* memory) { return reinterpret_cast<CUdeviceptr>(memory); }

// Four ways in which an address comes into device memory, each of a memory of its own.
void follow_stored(Program& program, CUmodule module) {
  CUfunction follow;
  CHECK(cuModuleGetFunction(&follow, module, "follow"));
  constexpr size_t kEntries = 1024, kBytes = kEntries * sizeof(CUdeviceptr);
  const CUdeviceptr table = allocate(kBytes);
  // Some memory at least is not the server's own, wherever that is.
  int registered[16] = {};
  CUdeviceptr of_registered = 0;
  CHECK(cuMemHostRegister(registered, sizeof registered, CU_MEMHOSTREGISTER_DEVICEMAP));
  CHECK(cuMemHostGetDevicePointer(&of_registered, registered, 0));
  int* memory[4];
  std::vector<CUdeviceptr> entries(kEntries);
  for (size_t i = 0; i < 4; ++i) {
    memory[i] = pinned(64);
    memory[i][i] = static_cast<int>(100 * i);
    entries[i * 300] = address_of(memory[i] + i);
  }
  // What the program writes after the copy counts, too, and at each launch anew.
  const auto run = [&](size_t i, const char* what) {
    CUdeviceptr at = table;
    uint64_t entry = i * 300;
    void* arguments[] = {&at, &entry};
    for (int round = 0; round < 2; ++round) {
      memory[i][i] += 10;
      CHECK(cuLaunchKernel(follow, 1, 1, 1, 1, 1, 1, 0, nullptr, arguments, nullptr));
      CHECK(cuCtxSynchronize());
    }
    program.expect(memory[i][i] == static_cast<int>(100 * i) + 22, what);
    program.save(memory[i], 64);
  };
  const auto part = [&](size_t i) { return table + i * 300 * sizeof(CUdeviceptr); };
  CHECK(cuMemcpyHtoD(table, entries.data(), 16));
  run(0, "an address that a plain copy stored");
  CHECK(cuMemcpyHtoDAsync(part(1), &entries[300], 8, nullptr));
  run(1, "an address that an asynchronous copy stored");
  CUDA_MEMCPY2D rows{};
  rows.srcMemoryType = CU_MEMORYTYPE_HOST;
  rows.srcHost = &entries[600];
  rows.srcPitch = 32;
  rows.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  rows.dstDevice = part(2);
  rows.dstPitch = 64;
  rows.WidthInBytes = 16;
  rows.Height = 3;
  CHECK(cuMemcpy2D(&rows));
  run(2, "an address that a copy of rows stored");
  CUstream stream;
  CUgraph graph;
  CUgraphExec executable;
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CHECK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  CHECK(cuMemcpyHtoDAsync(part(3), &entries[900], 8, stream));
  CHECK(cuStreamEndCapture(stream, &graph));
  CHECK(cuGraphInstantiate(&executable, graph, 0));
  CHECK(cuGraphLaunch(executable, stream));
  CHECK(cuStreamSynchronize(stream));
  run(3, "an address that a graph stored");
  CHECK(cuGraphExecDestroy(executable));
  CHECK(cuGraphDestroy(graph));
  CHECK(cuStreamDestroy(stream));
  for (int* one : memory) CHECK(cuMemFreeHost(one));
  CHECK(cuMemHostUnregister(registered));
  CHECK(cuMemFree(table));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("pinnedInside", argc, argv);
  const Device device;
  CUmodule module;
  CUfunction put;
  CHECK(cuModuleLoadData(&module, kPut));
  CHECK(cuModuleGetFunction(&put, module, "put"));
  const CUdeviceptr elsewhere = allocate(4);
  const auto run = [&](Given given) {
    void* arguments[] = {&given};
    CHECK(cuLaunchKernel(put, 1, 1, 1, 1, 1, 1, 0, nullptr, arguments, nullptr));
    size_t bytes = sizeof given;
    void* packed[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &given, CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes,
                      CU_LAUNCH_PARAM_END};
    CHECK(cuLaunchKernel(put, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, packed));
    CHECK(cuCtxSynchronize());
  };
  constexpr size_t kSmall = 4096, kLarge = 4 << 20;
  int* const small = pinned(kSmall);
  int* const large = pinned(kLarge);
  int* const asked = pinned(kLarge);
  int* const unasked = pinned(kLarge);
  CUdeviceptr of_asked = 0;
  CHECK(cuMemHostGetDevicePointer(&of_asked, asked, 0));

  run({elsewhere, address_of(small + 5), 11, 1});
  program.expect(small[5] == 11, "small memory is reached from anywhere in a structure");
  run({address_of(large + 6), elsewhere, 12, 0});
  program.expect(large[6] == 12, "large memory is reached from the beginning of one");
  run({elsewhere, of_asked + 28, 13, 1});
  program.expect(asked[7] == 13, "and from anywhere if its address was asked for");
  run({elsewhere, address_of(large + 8), 14, 1});
  program.expect(large[8] == 14, "or if a kernel has reached it before");
  run({elsewhere, address_of(unasked), 15, 0});
  if (program.number("unasked", 0) != 0) {
    run({elsewhere, address_of(unasked + 9), 16, 1});
    program.expect(unasked[9] == 16, "memory that was not asked for");
  }
  follow_stored(program, module);
  program.save(small, kSmall);
  program.save(large, kLarge);
  program.save(asked, kLarge);
  for (int* memory : {small, large, asked, unasked}) CHECK(cuMemFreeHost(memory));
  return program.finish();
}
