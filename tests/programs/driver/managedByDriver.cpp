// Managed memory by the driver API: where a program may say it should be, variables of modules.
// SPDX-License-Identifier: Apache-2.0
#include "driver.hpp"

namespace {

constexpr const char* kVariable = R"(
.version 7.0
.target sm_70
.address_size 64
.visible .global .attribute(.managed) .align 4 .u32 turns[64] = {7, 8};
.visible .entry turn() {
  .reg .b32 %r<3>;
  .reg .b64 %rd<2>;
  mov.u64 %rd1, turns;
  ld.global.u32 %r1, [%rd1];
  add.s32 %r2, %r1, 10;
  st.global.u32 [%rd1+4], %r2;
  ret;
}
)";

// A module's variable, for each module that is loaded from the same image.
void variables(Program& program) {
  for (int round = 0; round < 3; ++round) {
    CUmodule module = nullptr;
    CUfunction turn = nullptr;
    CUdeviceptr address = 0;
    size_t bytes = 0;
    CHECK(cuModuleLoadData(&module, kVariable));
    CHECK(cuModuleGetFunction(&turn, module, "turn"));
    if (round == 2) {  // asked for when a kernel is on its way
      CHECK(cuLaunchKernel(turn, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr));
      CHECK(cuModuleGetGlobal(&address, &bytes, module, "turns"));
      CHECK(cuCtxSynchronize());
      program.expect(reinterpret_cast<unsigned*>(address)[1] == 17, "what it changes comes");
      CHECK(cuModuleUnload(module));
      continue;
    }
    CHECK(cuModuleGetGlobal(&address, &bytes, module, "turns"));
    auto* turns = reinterpret_cast<unsigned*>(address);
    program.expect(bytes == 256 && turns[0] == 7 && turns[1] == 8 && turns[2] == 0,
                   "a variable begins as its module says");
    turns[0] = 100U + static_cast<unsigned>(round);
    CHECK(cuLaunchKernel(turn, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr));
    CHECK(cuCtxSynchronize());
    program.expect(turns[1] == 110U + static_cast<unsigned>(round), "a kernel takes its turn");
    program.save(turns, bytes);
    CHECK(cuModuleUnload(module));
  }
}

}  // namespace

int main(int argc, char** argv) {
  Program program("managedByDriver", argc, argv);
  const Device device;
  constexpr size_t kBytes = 1 << 20;
  CUdeviceptr memory = 0;
  CHECK(cuMemAllocManaged(&memory, kBytes, CU_MEM_ATTACH_GLOBAL));
  program.expect(cuMemAllocManaged(&memory, 0, CU_MEM_ATTACH_GLOBAL) == CUDA_ERROR_INVALID_VALUE,
                 "memory has a size");
  unsigned managed = 0;
  CHECK(cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, memory + 100));
  program.expect(managed == 1, "a pointer tells");
  CUstream stream = nullptr;
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CHECK(cuStreamAttachMemAsync(stream, memory, 0, CU_MEM_ATTACH_GLOBAL));

  auto* values = reinterpret_cast<int*>(memory);
  const int count = kBytes / sizeof(int);
  std::fill(values, values + count, 2);
  CUmemLocation here = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  CUmemLocation host = {CU_MEM_LOCATION_TYPE_HOST, 0};
  for (const CUmem_advise advice :
       {CU_MEM_ADVISE_SET_READ_MOSTLY, CU_MEM_ADVISE_UNSET_READ_MOSTLY,
        CU_MEM_ADVISE_SET_PREFERRED_LOCATION, CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION,
        CU_MEM_ADVISE_SET_ACCESSED_BY, CU_MEM_ADVISE_UNSET_ACCESSED_BY}) {
    CHECK(cuMemAdvise_v2(memory, kBytes, advice, here));
    CHECK(cuMemAdvise_v2(memory, kBytes / 2, advice, host));
  }
  CHECK(cuMemPrefetchAsync_v2(memory, kBytes, here, 0, stream));
  device.launch_step(memory, count, 3, stream);
  CHECK(cuMemPrefetchAsync_v2(memory, kBytes, host, 0, stream));
  CHECK(cuStreamSynchronize(stream));
  program.expect(values[0] == 7 && values[count - 1] == 7, "a kernel finds and changes it");

  CUdeviceptr parts[] = {memory, memory + kBytes / 2};
  size_t sizes[] = {kBytes / 2, kBytes / 2};
  CUmemLocation places[] = {here, host};
  size_t firsts[] = {0, 1};
  CHECK(cuMemPrefetchBatchAsync(parts, sizes, 2, places, firsts, 2, 0, stream));
  device.launch_step(memory, count, 3, stream);
  CHECK(cuStreamSynchronize(stream));
  program.expect(values[5] == 22 && values[count - 1] == 22, "wherever it was asked to be");
  program.save(values, kBytes);
  CHECK(cuMemDiscardBatchAsync(parts, sizes, 2, 0, stream));
  CHECK(cuMemDiscardAndPrefetchBatchAsync(parts, sizes, 2, places, firsts, 2, 0, stream));
  CHECK(cuMemsetD8(memory, 1, kBytes));
  CHECK(cuCtxSynchronize());
  program.expect(values[0] == 0x01010101 && values[count - 1] == 0x01010101,
                 "what was discarded is written anew");
  CHECK(cuStreamDestroy(stream));
  CHECK(cuMemFree(memory));
  program.expect(cuMemFree(memory) == CUDA_ERROR_INVALID_VALUE, "it is freed once");
  variables(program);
  return program.finish();
}
