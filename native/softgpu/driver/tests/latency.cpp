// Prints what calls cost on the software GPU: queuing a tiny kernel, running it, small copies.
// SPDX-License-Identifier: Apache-2.0
#include <cuda.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

namespace {

const char kTiny[] =
    ".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry tiny(.param .u64 p)\n{ ret; "
    "}\n";

void check(CUresult result) {
  if (result == CUDA_SUCCESS) return;
  std::fprintf(stderr, "call failed: %d\n", result);
  std::exit(1);
}

template <class Call>
void measure(const char* what, int count, Call&& call) {
  auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < count; ++i) call();
  check(cuCtxSynchronize());
  std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
  std::printf("%-32s %8.2f us\n", what, took.count() / count);
}

}  // namespace

int main() {
  CUcontext context;
  CUmodule module;
  CUfunction tiny;
  CUdeviceptr p;
  CUevent event;
  check(cuInit(0));
  check(cuCtxCreate(&context, nullptr, 0, 0));
  check(cuModuleLoadData(&module, kTiny));
  check(cuModuleGetFunction(&tiny, module, "tiny"));
  check(cuMemAlloc(&p, 4096));
  check(cuEventCreate(&event, 0));
  void* parameters[] = {&p};
  auto launch = [&] {
    check(cuLaunchKernel(tiny, 1, 1, 1, 1, 1, 1, 0, nullptr, parameters, nullptr));
  };
  char bytes[64];
  for (int i = 0; i < 100; ++i) launch();
  measure("launches in a row, each", 20000, launch);
  measure("launch and synchronise", 5000, [&] {
    launch();
    check(cuStreamSynchronize(nullptr));
  });
  measure("copy of 64 bytes to the host", 20000, [&] { check(cuMemcpyDtoH(bytes, p, 64)); });
  measure("memset of 4 KiB", 20000, [&] { check(cuMemsetD8(p, 1, 4096)); });
  measure("event record", 20000, [&] { check(cuEventRecord(event, nullptr)); });
  return 0;
}
