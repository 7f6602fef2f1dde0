// The null driver's modules: any bytes load, any kernel is found.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cctype>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "api.hpp"

namespace {

struct Parameter {
  size_t offset;
  size_t bytes;
};

struct Kernel {
  std::string name;
  std::vector<Parameter> parameters;
};

struct NullModule {
  std::map<std::string, std::unique_ptr<Kernel>, std::less<>> kernels;
  std::vector<Kernel*> in_order;
};

std::mutex mutex;  // guards every module

size_t type_bytes(std::string_view word) {
  if (word.size() < 3 || word[0] != '.' || !std::strchr("bsuf", word[1])) return 0;
  size_t bits = 0;
  for (char c : word.substr(2)) {
    if (!std::isdigit(static_cast<unsigned char>(c))) return 0;
    bits = bits * 10 + static_cast<size_t>(c - '0');
  }
  return bits / 8;
}

/// The bytes that one ".param" of an entry's list takes: ".param .align 8 .b8 name[16]".
Parameter parameter(std::string_view text, size_t at) {
  size_t bytes = 8, alignment = 0;
  for (size_t i = 0; i < text.size();) {
    size_t end = std::min(text.find_first_of(" \t\n\r", i), text.size());
    std::string_view word = text.substr(i, end - i);
    if (word == ".align") {
      alignment = static_cast<size_t>(std::atoi(std::string(text.substr(end)).c_str()));
    } else if (size_t b = type_bytes(word)) {
      bytes = b;
    }
    i = text.find_first_not_of(" \t\n\r", end);
    if (i == std::string_view::npos) break;
  }
  if (alignment == 0) alignment = bytes;
  size_t bracket = text.find('[');
  if (bracket != std::string_view::npos) {
    bytes *= static_cast<size_t>(std::atoi(std::string(text.substr(bracket + 1)).c_str()));
  }
  return {(at + alignment - 1) / alignment * alignment, bytes};
}

Kernel* add(NullModule& module, std::string_view name) {
  auto [it, fresh] = module.kernels.try_emplace(std::string(name));
  if (fresh) {
    it->second = std::make_unique<Kernel>();
    it->second->name = name;
    module.in_order.push_back(it->second.get());
  }
  return it->second.get();
}

void read_text(NullModule& module, std::string_view text) {
  for (size_t at = text.find(".entry"); at != std::string_view::npos;
       at = text.find(".entry", at)) {
    at = text.find_first_not_of(" \t\n\r", at + 6);
    if (at == std::string_view::npos) return;
    size_t end = std::min(text.find_first_of(" \t\n\r({", at), text.size());
    Kernel* kernel = add(module, text.substr(at, end - at));
    size_t open = text.find_first_not_of(" \t\n\r", end);
    if (open == std::string_view::npos || text[open] != '(') continue;
    size_t close = std::min(text.find(')', open), text.size());
    std::string_view list = text.substr(open + 1, close - open - 1);
    kernel->parameters.clear();
    for (size_t i = list.find(".param"); i != std::string_view::npos; i = list.find(".param", i)) {
      size_t stop = std::min(list.find(',', i), list.size());
      const auto& known = kernel->parameters;
      size_t offset = known.empty() ? 0 : known.back().offset + known.back().bytes;
      kernel->parameters.push_back(parameter(list.substr(i, stop - i), offset));
      i = stop;
    }
    at = close;
  }
}

NullModule* load(const void* image) {
  auto* module = new NullModule;
  const char* text = static_cast<const char*>(image);
  // A text begins with a printable character; cubins and fat binaries are not looked into.
  bool printable =
      text[0] == '.' || text[0] == '/' || std::isspace(static_cast<unsigned char>(text[0]));
  if (printable) read_text(*module, text);
  return module;
}

NullModule* module_of(void* handle) { return static_cast<NullModule*>(handle); }

template <class Handle>
CUresult open(Handle* out, const void* image) {
  if (out == nullptr || image == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = reinterpret_cast<Handle>(load(image));
  return CUDA_SUCCESS;
}

template <class Handle>
CUresult find(Handle* out, void* module, const char* name) {
  if (out == nullptr || module == nullptr || name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard lock(mutex);
  *out = reinterpret_cast<Handle>(add(*module_of(module), name));
  return CUDA_SUCCESS;
}

template <class Handle>
CUresult list(Handle* out, unsigned count, void* module) {
  if (out == nullptr || module == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard lock(mutex);
  const auto& kernels = module_of(module)->in_order;
  for (size_t i = 0; i < std::min<size_t>(count, kernels.size()); ++i) {
    out[i] = reinterpret_cast<Handle>(kernels[i]);
  }
  return CUDA_SUCCESS;
}

CUresult count(unsigned* out, void* module) {
  if (out == nullptr || module == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard lock(mutex);
  *out = static_cast<unsigned>(module_of(module)->in_order.size());
  return CUDA_SUCCESS;
}

CUresult layout(const void* kernel, size_t index, size_t* offset, size_t* bytes) {
  const auto& parameters = static_cast<const Kernel*>(kernel)->parameters;
  if (offset == nullptr || index >= parameters.size()) return CUDA_ERROR_INVALID_VALUE;
  *offset = parameters[index].offset;
  if (bytes != nullptr) *bytes = parameters[index].bytes;
  return CUDA_SUCCESS;
}

CUresult attribute(int* out, CUfunction_attribute a) {
  if (out == nullptr || a < 0 || a >= CU_FUNC_ATTRIBUTE_MAX) return CUDA_ERROR_INVALID_VALUE;
  *out = 0;
  if (a == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK) *out = 1024;
  if (a == CU_FUNC_ATTRIBUTE_NUM_REGS) *out = 32;
  if (a == CU_FUNC_ATTRIBUTE_PTX_VERSION || a == CU_FUNC_ATTRIBUTE_BINARY_VERSION) *out = 80;
  if (a == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) *out = 48 << 10;
  return CUDA_SUCCESS;
}

// Global variables all lie at one address: nothing reads or writes it.
CUresult global(CUdeviceptr* out, size_t* bytes) {
  if (out != nullptr) *out = 0x2'ff00'0000'00ull;
  if (bytes != nullptr) *bytes = 4096;
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" {

CUresult cuModuleLoadData(CUmodule* out, const void* image) { return open(out, image); }
CUresult cuModuleLoadFatBinary(CUmodule* out, const void* image) { return open(out, image); }
CUresult cuModuleLoadDataEx(CUmodule* out, const void* image, unsigned int, CUjit_option*, void**) {
  return open(out, image);
}
CUresult cuModuleUnload(CUmodule module) {
  delete module_of(module);
  return CUDA_SUCCESS;
}
CUresult cuModuleGetLoadingMode(CUmoduleLoadingMode* out) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = CU_MODULE_LAZY_LOADING;
  return CUDA_SUCCESS;
}
CUresult cuModuleGetFunction(CUfunction* out, CUmodule module, const char* name) {
  return find(out, module, name);
}
CUresult cuModuleGetFunctionCount(unsigned int* out, CUmodule module) { return count(out, module); }
CUresult cuModuleEnumerateFunctions(CUfunction* out, unsigned int n, CUmodule module) {
  return list(out, n, module);
}
CUresult cuModuleGetGlobal_v2(CUdeviceptr* out, size_t* bytes, CUmodule, const char*) {
  return global(out, bytes);
}

CUresult cuLibraryLoadData(CUlibrary* out, const void* code, CUjit_option*, void**, unsigned int,
                           CUlibraryOption*, void**, unsigned int) {
  return open(out, code);
}
CUresult cuLibraryUnload(CUlibrary library) {
  delete module_of(library);
  return CUDA_SUCCESS;
}
CUresult cuLibraryGetKernel(CUkernel* out, CUlibrary library, const char* name) {
  return find(out, library, name);
}
CUresult cuLibraryGetKernelCount(unsigned int* out, CUlibrary library) {
  return count(out, library);
}
CUresult cuLibraryEnumerateKernels(CUkernel* out, unsigned int n, CUlibrary library) {
  return list(out, n, library);
}
CUresult cuLibraryGetGlobal(CUdeviceptr* out, size_t* bytes, CUlibrary, const char*) {
  return global(out, bytes);
}
CUresult cuLibraryGetModule(CUmodule* out, CUlibrary library) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = reinterpret_cast<CUmodule>(library);
  return CUDA_SUCCESS;
}
CUresult cuKernelGetFunction(CUfunction* out, CUkernel kernel) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = reinterpret_cast<CUfunction>(kernel);
  return CUDA_SUCCESS;
}
CUresult cuKernelGetName(const char** out, CUkernel kernel) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = reinterpret_cast<const Kernel*>(kernel)->name.c_str();
  return CUDA_SUCCESS;
}
CUresult cuFuncGetName(const char** out, CUfunction function) {
  return cuKernelGetName(out, reinterpret_cast<CUkernel>(function));
}
CUresult cuFuncGetParamInfo(CUfunction f, size_t index, size_t* offset, size_t* bytes) {
  return layout(f, index, offset, bytes);
}
CUresult cuKernelGetParamInfo(CUkernel k, size_t index, size_t* offset, size_t* bytes) {
  return layout(k, index, offset, bytes);
}
CUresult cuFuncGetAttribute(int* out, CUfunction_attribute a, CUfunction) {
  return attribute(out, a);
}
CUresult cuKernelGetAttribute(int* out, CUfunction_attribute a, CUkernel, CUdevice) {
  return attribute(out, a);
}
CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute, int) { return CUDA_SUCCESS; }
CUresult cuKernelSetAttribute(CUfunction_attribute, int, CUkernel, CUdevice) {
  return CUDA_SUCCESS;
}
CUresult cuFuncSetCacheConfig(CUfunction, CUfunc_cache) { return CUDA_SUCCESS; }
CUresult cuFuncLoad(CUfunction) { return CUDA_SUCCESS; }
CUresult cuFuncIsLoaded(CUfunctionLoadingState* out, CUfunction) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = CU_FUNCTION_LOADING_STATE_LOADED;
  return CUDA_SUCCESS;
}
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* out, CUfunction, int, size_t,
                                                              unsigned int) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = 2;
  return CUDA_SUCCESS;
}
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* out, CUfunction f, int block,
                                                     size_t shared) {
  return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(out, f, block, shared, 0);
}
CUresult cuOccupancyAvailableDynamicSMemPerBlock(size_t* out, CUfunction, int, int) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = 48 << 10;
  return CUDA_SUCCESS;
}
CUresult cuOccupancyMaxPotentialBlockSizeWithFlags(int* grid, int* block, CUfunction,
                                                   CUoccupancyB2DSize, size_t, int, unsigned int) {
  if (grid == nullptr || block == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *grid = 108;
  *block = 1024;
  return CUDA_SUCCESS;
}
CUresult cuOccupancyMaxActiveClusters(int* out, CUfunction, const CUlaunchConfig*) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = 16;
  return CUDA_SUCCESS;
}
CUresult cuOccupancyMaxPotentialClusterSize(int* out, CUfunction, const CUlaunchConfig*) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = 8;
  return CUDA_SUCCESS;
}

}  // extern "C"
