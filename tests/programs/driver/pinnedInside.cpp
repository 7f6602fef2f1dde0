// Pinned memory whose address lies in a structure that is passed to a kernel by value.
// SPDX-License-Identifier: Apache-2.0
//
// --unasked 1: the kernel writes to large memory whose address lies deep in the structure, and
// which cuMemHostGetDevicePointer was never asked about. A driver on this machine has no trouble
// with it.
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
  program.save(small, kSmall);
  program.save(large, kLarge);
  program.save(asked, kLarge);
  for (int* memory : {small, large, asked, unasked}) CHECK(cuMemFreeHost(memory));
  return program.finish();
}
