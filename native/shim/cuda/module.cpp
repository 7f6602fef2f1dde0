// Modules and libraries.
// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "generated/shim_api.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/loading.hpp"

namespace outboard::shim {
namespace {

CUmodule module_handle(Module* module) { return reinterpret_cast<CUmodule>(module); }
CUlibrary library_handle(Module* module) { return reinterpret_cast<CUlibrary>(module); }
CUfunction function_handle(Function* function) { return reinterpret_cast<CUfunction>(function); }
CUkernel kernel_handle(Function* function) { return reinterpret_cast<CUkernel>(function); }

CUresult load_module(CUmodule* out, const void* image, const JitOptions& options) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  if (out == nullptr || image == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Module* module = nullptr;
  const CUresult result = load_image(load_target(false), image, options, &module);
  if (result == CUDA_SUCCESS) *out = module_handle(module);
  return result;
}

CUresult read_library_options(unsigned count, const CUlibraryOption* options, LoadTarget* target) {
  if (count != 0 && options == nullptr) return CUDA_ERROR_INVALID_VALUE;
  for (unsigned i = 0; i < count; ++i) {
    if (options[i] != CU_LIBRARY_BINARY_IS_PRESERVED) return CUDA_ERROR_NOT_SUPPORTED;
    target->image_is_kept = true;
  }
  return CUDA_SUCCESS;
}

template <typename Handle>
CUresult find_module(Handle value, Module** out) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  *out = find(value);
  return *out != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

// Handles of `owner`'s kernels: `listed`, or the library that it is an instance of.
template <typename Handle>
CUresult enumerate(Module* listed, Module* owner, Handle* out, unsigned count) {
  std::vector<std::string> names;
  if (const CUresult result = list_functions(listed, &names); result != CUDA_SUCCESS) return result;
  for (unsigned i = 0; i < count && i < names.size(); ++i) {
    Function* function = nullptr;
    const CUresult result = name_function(owner, names[i], &function);
    if (result != CUDA_SUCCESS) return result;
    out[i] = reinterpret_cast<Handle>(function);
  }
  return CUDA_SUCCESS;
}

CUresult put_global(Module* module, const char* name, bool managed, CUdeviceptr* address,
                    size_t* bytes) {
  Global global;
  const CUresult result = get_global(module, name, managed, &global);
  if (result != CUDA_SUCCESS) return result;
  if (managed && !global.managed) return CUDA_ERROR_NOT_FOUND;
  if (address != nullptr) *address = global.address;
  if (bytes != nullptr) *bytes = global.bytes;
  return CUDA_SUCCESS;
}

}  // namespace

CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  return load_module(module, image, {});
}

CUresult cuModuleLoadFatBinary(CUmodule* module, const void* fatCubin) {
  return load_module(module, fatCubin, {});
}

CUresult cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned int numOptions,
                            CUjit_option* options, void** optionValues) {
  JitOptions read;
  const CUresult result = read.read(numOptions, options, optionValues);
  return result == CUDA_SUCCESS ? load_module(module, image, read) : result;
}

CUresult cuModuleLoad(CUmodule* module, const char* fname) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  if (module == nullptr || fname == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Module* loaded = nullptr;
  const CUresult result = load_file(load_target(false), fname, {}, &loaded);
  if (result == CUDA_SUCCESS) *module = module_handle(loaded);
  return result;
}

CUresult cuModuleUnload(CUmodule hmod) {
  Module* module = nullptr;
  if (const CUresult result = find_module(hmod, &module); result != CUDA_SUCCESS) return result;
  if (module->context == nullptr || module->library != nullptr) return CUDA_ERROR_INVALID_HANDLE;
  return unload(module);
}

CUresult cuModuleGetFunction(CUfunction* hfunc, CUmodule hmod, const char* name) {
  Module* module = nullptr;
  if (const CUresult result = find_module(hmod, &module); result != CUDA_SUCCESS) return result;
  if (hfunc == nullptr || name == nullptr || *name == 0) return CUDA_ERROR_INVALID_VALUE;
  Function* function = nullptr;
  const CUresult result = get_function(module, name, &function);
  if (result == CUDA_SUCCESS) *hfunc = function_handle(function);
  return result;
}

CUresult cuModuleGetGlobal_v2(CUdeviceptr* dptr, size_t* bytes, CUmodule hmod, const char* name) {
  Module* module = nullptr;
  if (const CUresult result = find_module(hmod, &module); result != CUDA_SUCCESS) return result;
  if (name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return put_global(module, name, false, dptr, bytes);
}

CUresult cuModuleGetLoadingMode(CUmoduleLoadingMode* mode) {
  if (mode == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const char* wanted = std::getenv("CUDA_MODULE_LOADING");
  *mode = wanted != nullptr && std::strcmp(wanted, "EAGER") == 0 ? CU_MODULE_EAGER_LOADING
                                                                 : CU_MODULE_LAZY_LOADING;
  return CUDA_SUCCESS;
}

CUresult cuModuleGetFunctionCount(unsigned int* count, CUmodule mod) {
  Module* module = nullptr;
  if (const CUresult result = find_module(mod, &module); result != CUDA_SUCCESS) return result;
  if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::vector<std::string> names;
  const CUresult result = list_functions(module, &names);
  if (result == CUDA_SUCCESS) *count = static_cast<unsigned>(names.size());
  return result;
}

CUresult cuModuleEnumerateFunctions(CUfunction* functions, unsigned int numFunctions,
                                    CUmodule mod) {
  Module* module = nullptr;
  if (const CUresult result = find_module(mod, &module); result != CUDA_SUCCESS) return result;
  if (functions == nullptr || numFunctions == 0) return CUDA_ERROR_INVALID_VALUE;
  return enumerate(module, module, functions, numFunctions);
}

// ---- libraries
// -------------------------------------------------------------------------------------

CUresult cuLibraryLoadData(CUlibrary* library, const void* code, CUjit_option* jitOptions,
                           void** jitOptionsValues, unsigned int numJitOptions,
                           CUlibraryOption* libraryOptions, void** libraryOptionValues,
                           unsigned int numLibraryOptions) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (library == nullptr || code == nullptr) return CUDA_ERROR_INVALID_VALUE;
  JitOptions options;
  CUresult result = options.read(numJitOptions, jitOptions, jitOptionsValues);
  LoadTarget target = load_target(true);
  if (result == CUDA_SUCCESS) {
    result = read_library_options(numLibraryOptions, libraryOptions, &target);
  }
  if (result != CUDA_SUCCESS) return result;
  Module* module = nullptr;
  result = load_image(target, code, options, &module);
  if (result == CUDA_SUCCESS) *library = library_handle(module);
  return result;
}

CUresult cuLibraryLoadFromFile(CUlibrary* library, const char* fileName, CUjit_option* jitOptions,
                               void** jitOptionsValues, unsigned int numJitOptions,
                               CUlibraryOption* libraryOptions, void** libraryOptionValues,
                               unsigned int numLibraryOptions) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (library == nullptr || fileName == nullptr) return CUDA_ERROR_INVALID_VALUE;
  JitOptions options;
  CUresult result = options.read(numJitOptions, jitOptions, jitOptionsValues);
  LoadTarget target = load_target(true);
  if (result == CUDA_SUCCESS) {
    result = read_library_options(numLibraryOptions, libraryOptions, &target);
  }
  if (result != CUDA_SUCCESS) return result;
  Module* module = nullptr;
  result = load_file(target, fileName, options, &module);
  if (result == CUDA_SUCCESS) *library = library_handle(module);
  return result;
}

CUresult cuLibraryUnload(CUlibrary library) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Module* module = find_library(library);
  return module != nullptr ? unload(module) : CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuLibraryGetKernel(CUkernel* pKernel, CUlibrary library, const char* name) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Module* module = find_library(library);
  if (module == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (pKernel == nullptr || name == nullptr || *name == 0) return CUDA_ERROR_INVALID_VALUE;
  Function* function = nullptr;
  const CUresult result = get_kernel(module, name, &function);
  if (result == CUDA_SUCCESS) *pKernel = kernel_handle(function);
  return result;
}

CUresult cuLibraryGetModule(CUmodule* pMod, CUlibrary library) {
  Context* context = nullptr;
  if (const CUresult result = enter_local(&context); result != CUDA_SUCCESS) return result;
  Module* module = find(library);
  if (module == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (pMod == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *pMod = module_handle(module);
  return CUDA_SUCCESS;
}

CUresult cuLibraryGetGlobal(CUdeviceptr* dptr, size_t* bytes, CUlibrary library, const char* name) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  Module* module = find(library);
  if (module == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return put_global(module, name, false, dptr, bytes);
}

CUresult cuLibraryGetManaged(CUdeviceptr* dptr, size_t* bytes, CUlibrary library,
                             const char* name) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  // It needs no current context: the runtime asks before it has made one.
  Module* module = module_in(library, load_target(true).context);
  if (module == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return put_global(module, name, true, dptr, bytes);
}

CUresult cuLibraryGetUnifiedFunction(void** fptr, CUlibrary library, const char* symbol) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  const Module* module = find(library);
  if (module == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (fptr == nullptr || symbol == nullptr) return CUDA_ERROR_INVALID_VALUE;
  client::Answer<wire::command::LibraryGetUnifiedFunction> answer;
  const CUresult result =
      call(context,
           wire::command::LibraryGetUnifiedFunction{.module = module->head.id(), .name = symbol},
           &answer);
  if (result == CUDA_SUCCESS) *fptr = reinterpret_cast<void*>(answer.reply.address);
  return result;
}

CUresult cuLibraryGetKernelCount(unsigned int* count, CUlibrary lib) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  const Module* module = find_library(lib);
  if (module == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *count = module->kernels;
  return CUDA_SUCCESS;
}

CUresult cuLibraryEnumerateKernels(CUkernel* kernels, unsigned int numKernels, CUlibrary lib) {
  Module* here = nullptr;
  if (const CUresult result = find_module(lib, &here); result != CUDA_SUCCESS) return result;
  if (kernels == nullptr || numKernels == 0) return CUDA_ERROR_INVALID_VALUE;
  return enumerate(here, find_library(lib), kernels, numKernels);
}

}  // namespace outboard::shim
