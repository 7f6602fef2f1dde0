// Modules, libraries, kernels and functions: loaded in every way, asked about, set, measured.
// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "driver.hpp"

namespace {

constexpr const char* kWithGlobal = R"(
.version 7.0
.target sm_70
.address_size 64
.visible .global .align 8 .b8 table[24];
.visible .entry touch(.param .u64 at, .param .u32 value) {
  .reg .b32 %r<2>;
  .reg .b64 %rd<2>;
  ld.param.u64 %rd1, [at];
  ld.param.u32 %r1, [value];
  st.global.u32 [%rd1], %r1;
  ret;
}
.visible .entry nothing() { ret; }
)";

std::string written_file() {
  const std::string path = "/tmp/module-" + std::to_string(getpid()) + ".ptx";
  std::ofstream(path) << kWithGlobal;
  return path;
}

void functions(Program& program, CUmodule module) {
  CUfunction function = nullptr;
  CHECK(cuModuleGetFunction(&function, module, "touch"));
  CUmodule of = nullptr;
  CHECK(cuFuncGetModule(&of, function));
  program.expect(of == module, "a function knows its module");
  const char* name = nullptr;
  CHECK(cuFuncGetName(&name, function));
  program.expect(std::strcmp(name, "touch") == 0, "and its name");
  size_t offset = 9, bytes = 9;
  CHECK(cuFuncGetParamInfo(function, 1, &offset, &bytes));
  program.expect(offset == 8 && bytes == 4, "and its parameters");
  program.expect(cuFuncGetParamInfo(function, 2, &offset, &bytes) == CUDA_ERROR_INVALID_VALUE,
                 "of which there are two");
  CUfunctionLoadingState state = CU_FUNCTION_LOADING_STATE_MAX;
  CHECK(cuFuncLoad(function));
  CHECK(cuFuncIsLoaded(&state, function));
  program.expect(state == CU_FUNCTION_LOADING_STATE_LOADED, "it is loaded when it is asked to be");
  CHECK(cuFuncSetCacheConfig(function, CU_FUNC_CACHE_PREFER_L1));
  CHECK(cuFuncSetSharedMemConfig(function, CU_SHARED_MEM_CONFIG_DEFAULT_BANK_SIZE));
  CHECK(cuFuncSetAttribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 4096));
  int value = 0;
  CHECK(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, function));
  program.expect(value == 4096, "attributes are kept");
}

void occupancy(Program& program, CUfunction function) {
  int blocks = 0, with_flags = 0, grid = 0, block = 0, grid_flags = 0, block_flags = 0;
  size_t bytes = 0;
  CHECK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, function, 128, 0));
  CHECK(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(&with_flags, function, 128, 0,
                                                             CU_OCCUPANCY_DEFAULT));
  program.expect(blocks > 0 && blocks == with_flags, "how many blocks fit");
  CHECK(cuOccupancyMaxPotentialBlockSize(&grid, &block, function, nullptr, 0, 0));
  CHECK(cuOccupancyMaxPotentialBlockSizeWithFlags(&grid_flags, &block_flags, function, nullptr, 0,
                                                  0, CU_OCCUPANCY_DEFAULT));
  program.expect(grid == grid_flags && block == block_flags && block > 0, "the best block");
  CHECK(cuOccupancyAvailableDynamicSMemPerBlock(&bytes, function, 1, 128));
  const int answers[] = {blocks, grid, block, static_cast<int>(bytes)};
  program.save(answers, sizeof answers);
}

void modules(Program& program) {
  const std::string path = written_file();
  CUmodule from_file = nullptr, from_text = nullptr;
  CHECK(cuModuleLoad(&from_file, path.c_str()));
  CHECK(cuModuleLoadData(&from_text, kWithGlobal));
  CUmoduleLoadingMode mode = static_cast<CUmoduleLoadingMode>(0);
  CHECK(cuModuleGetLoadingMode(&mode));
  program.expect(mode == CU_MODULE_LAZY_LOADING || mode == CU_MODULE_EAGER_LOADING, "a mode");
  unsigned count = 0;
  CHECK(cuModuleGetFunctionCount(&count, from_file));
  program.expect(count == 2, "a module says how many functions it has");
  CUfunction both[2] = {};
  CHECK(cuModuleEnumerateFunctions(both, 2, from_file));
  CUfunction touch = nullptr;
  CHECK(cuModuleGetFunction(&touch, from_file, "touch"));
  program.expect(std::count(both, both + 2, touch) == 1, "and which");
  CUdeviceptr first = 0, second = 0;
  size_t bytes = 0;
  CHECK(cuModuleGetGlobal(&first, &bytes, from_file, "table"));
  program.expect(bytes == 24, "a variable has a size");
  CHECK(cuModuleGetGlobal(&second, nullptr, from_text, "table"));
  program.expect(first != second, "and in every module a place of its own");
  program.expect(cuModuleGetGlobal(&second, nullptr, from_text, "absent") == CUDA_ERROR_NOT_FOUND,
                 "what is not there is not found (500)");
  functions(program, from_text);
  occupancy(program, touch);
  int value = 5;
  void* arguments[] = {&first, &value};
  CHECK(cuLaunchKernel(touch, 1, 1, 1, 1, 1, 1, 0, nullptr, arguments, nullptr));
  program.expect(download(first, 1)[0] == 5, "kernels write a module's variables");
  CUmodule binary = nullptr;
  program.expect(cuModuleLoadFatBinary(&binary, "no image at all, but text") != CUDA_SUCCESS,
                 "what is no image is refused");
  CHECK(cuModuleUnload(from_file));
  CHECK(cuModuleUnload(from_text));
  std::remove(path.c_str());
}

void libraries(Program& program, CUdevice device) {
  const std::string path = written_file();
  CUlibrary library = nullptr;
  CHECK(cuLibraryLoadFromFile(&library, path.c_str(), nullptr, nullptr, 0, nullptr, nullptr, 0));
  std::remove(path.c_str());
  unsigned count = 0;
  CHECK(cuLibraryGetKernelCount(&count, library));
  program.expect(count == 2, "a library says how many kernels it has");
  CUkernel both[2] = {}, kernel = nullptr;
  CHECK(cuLibraryEnumerateKernels(both, 2, library));
  CHECK(cuLibraryGetKernel(&kernel, library, "touch"));
  program.expect(std::count(both, both + 2, kernel) == 1, "and which");
  CUlibrary of = nullptr;
  CHECK(cuKernelGetLibrary(&of, kernel));
  program.expect(of == library, "a kernel knows its library");
  const char* name = nullptr;
  CHECK(cuKernelGetName(&name, kernel));
  program.expect(std::strcmp(name, "touch") == 0, "and its name");
  size_t offset = 0, bytes = 0;
  CHECK(cuKernelGetParamInfo(kernel, 1, &offset, &bytes));
  program.expect(offset == 8 && bytes == 4, "and its parameters");
  CHECK(
      cuKernelSetAttribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 2048, kernel, device));
  int value = 0;
  CHECK(cuKernelGetAttribute(&value, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, kernel,
                             device));
  program.expect(value == 2048, "attributes are kept");
  CHECK(cuKernelSetCacheConfig(kernel, CU_FUNC_CACHE_PREFER_SHARED, device));
  CUdeviceptr table = 0;
  CHECK(cuLibraryGetGlobal(&table, &bytes, library, "table"));
  program.expect(bytes == 24, "a library has variables");
  CUmodule module = nullptr;
  CHECK(cuLibraryGetModule(&module, library));
  CUfunction function = nullptr;
  CHECK(cuKernelGetFunction(&function, kernel));
  int written = 8;
  void* arguments[] = {&table, &written};
  CHECK(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, nullptr, arguments, nullptr));
  CHECK(cuLaunchCooperativeKernel(function, 1, 1, 1, 1, 1, 1, 0, nullptr, arguments));
  const std::vector<int> out = download(table, 1);
  program.expect(out[0] == 8, "its kernels run");
  program.save(out);
  CHECK(cuLibraryUnload(library));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("moduleContents", argc, argv);
  const Device device;
  modules(program);
  libraries(program, device.device());
  return program.finish();
}
