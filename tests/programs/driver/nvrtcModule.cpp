// Compiles a kernel at run time with NVRTC and loads the PTX.
// SPDX-License-Identifier: Apache-2.0
//
// --nvrtc FILE names the library, --builtins FILE the one that it looks for by name alone; they are
// opened at run time, as frameworks do.
#include <dlfcn.h>

#include "driver.hpp"

namespace {

constexpr const char* kSource = R"(
template <typename T> __device__ T cube(T x) { return x * x * x; }
extern "C" __global__ void cubes(int* out, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) out[i] = cube(i) - OFFSET;
}
)";

using NvrtcProgram = void*;

// The functions of NVRTC that are needed, by their published signatures.
struct Nvrtc {
  int (*create)(NvrtcProgram*, const char*, const char*, int, const char* const*,
                const char* const*);
  int (*compile)(NvrtcProgram, int, const char* const*);
  int (*size)(NvrtcProgram, size_t*);
  int (*ptx)(NvrtcProgram, char*);
  int (*log_size)(NvrtcProgram, size_t*);
  int (*log)(NvrtcProgram, char*);
  int (*destroy)(NvrtcProgram*);
};

template <typename Function>
void find(const Program& program, void* library, const char* name, Function*& out) {
  out = reinterpret_cast<Function*>(dlsym(library, name));
  if (out == nullptr) program.die(dlerror());
}

std::string compile(const Program& program) {
  const char* builtins = program.text("builtins", nullptr);
  if (builtins != nullptr && dlopen(builtins, RTLD_NOW) == nullptr) program.die(dlerror());
  void* library = dlopen(program.text("nvrtc", "libnvrtc.so.13"), RTLD_NOW);
  if (library == nullptr) program.die(dlerror());
  Nvrtc nvrtc{};
  find(program, library, "nvrtcCreateProgram", nvrtc.create);
  find(program, library, "nvrtcCompileProgram", nvrtc.compile);
  find(program, library, "nvrtcGetPTXSize", nvrtc.size);
  find(program, library, "nvrtcGetPTX", nvrtc.ptx);
  find(program, library, "nvrtcGetProgramLogSize", nvrtc.log_size);
  find(program, library, "nvrtcGetProgramLog", nvrtc.log);
  find(program, library, "nvrtcDestroyProgram", nvrtc.destroy);

  NvrtcProgram source = nullptr;
  const char* const options[] = {"--gpu-architecture=compute_80", "-DOFFSET=9"};
  if (nvrtc.create(&source, kSource, "cubes.cu", 0, nullptr, nullptr) != 0 ||
      nvrtc.compile(source, 2, options) != 0) {
    size_t size = 0;
    nvrtc.log_size(source, &size);
    std::string log(size, '\0');
    nvrtc.log(source, log.data());
    program.die(("NVRTC does not compile the kernel: " + log).c_str());
  }
  size_t size = 0;
  nvrtc.size(source, &size);
  std::string ptx(size, '\0');
  nvrtc.ptx(source, ptx.data());
  nvrtc.destroy(&source);
  return ptx;
}

}  // namespace

int main(int argc, char** argv) {
  Program program("nvrtcModule", argc, argv);
  const Device device;
  const std::string ptx = compile(program);
  CUmodule module = nullptr;
  CUfunction function = nullptr;
  CHECK(cuModuleLoadData(&module, ptx.c_str()));
  CHECK(cuModuleGetFunction(&function, module, "cubes"));
  program.expect(cuModuleGetFunction(&function, module, "absent") == CUDA_ERROR_NOT_FOUND,
                 "a name that is not in the module is not found");
  CHECK(cuModuleGetFunction(&function, module, "cubes"));
  int count = 1000;
  CUdeviceptr out = allocate(static_cast<size_t>(count) * sizeof(int));
  void* arguments[] = {&out, &count};
  CHECK(cuLaunchKernel(function, 8, 1, 1, 128, 1, 1, 0, nullptr, arguments, nullptr));
  const std::vector<int> cubes = download(out, static_cast<size_t>(count));
  bool right = true;
  for (int i = 0; i < count; ++i) right = right && cubes[i] == i * i * i - 9;
  program.expect(right, "the compiled kernel computes cubes");
  program.save(cubes);
  CHECK(cuMemFree(out));
  CHECK(cuModuleUnload(module));
  return program.finish();
}
