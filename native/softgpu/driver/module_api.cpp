// Entry points about modules and libraries.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <fstream>
#include <iterator>

#include "config.hpp"
#include "function.hpp"
#include "guard.hpp"
#include "jit_options.hpp"
#include "operation.hpp"
#include "printf_text.hpp"

using namespace softgpu;

namespace {

/// Loads the image and reports to the options' logs.
CUresult load_module_image(Context& context, const void* image, const JitOptions& options,
                           CUmodule* out) {
  if (out == nullptr || image == nullptr || !options.valid()) return CUDA_ERROR_INVALID_VALUE;
  int64_t start = now_ns();
  Image content;
  std::string log;
  CUresult r = read_image(image, config().compute_capability, &content, &log);
  std::shared_ptr<LoadedModule> module;
  if (r == CUDA_SUCCESS) r = LoadedModule::load(context.device, &context, content, &log, &module);
  options.report("", r == CUDA_SUCCESS ? "" : log, static_cast<float>(now_ns() - start) * 1e-6f);
  if (r != CUDA_SUCCESS) return r;
  module->handle = modules().insert(module);
  *out = module->handle;
  return CUDA_SUCCESS;
}

CUresult read_file(const char* path, std::string* out) {
  if (path == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::ifstream file(path, std::ios::binary);
  if (!file) return CUDA_ERROR_FILE_NOT_FOUND;
  out->assign(std::istreambuf_iterator<char>(file), {});
  return CUDA_SUCCESS;
}

template <class Call>
CUresult with_module(CUmodule handle, Call&& call) noexcept {
  return with_context([&](Context& context) -> CUresult {
    std::shared_ptr<LoadedModule> module = modules().find(handle);
    return module ? call(context, *module) : CUDA_ERROR_INVALID_HANDLE;
  });
}

template <class Call>
CUresult with_library(CUlibrary handle, Call&& call) noexcept {
  return with_driver([&]() -> CUresult {
    std::shared_ptr<Library> library = libraries().find(handle);
    return library ? call(*library) : CUDA_ERROR_INVALID_HANDLE;
  });
}

CUresult copy_global(const LoadedModule& module, const char* name, CUdeviceptr* out,
                     size_t* bytes) {
  if (name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const GlobalInfo* global = module.global(name);
  if (global == nullptr) return CUDA_ERROR_NOT_FOUND;
  if (out != nullptr) *out = global->address;
  if (bytes != nullptr) *bytes = global->bytes;
  return CUDA_SUCCESS;
}

CUresult load_library(CUlibrary* out, Image image) {
  auto library = std::make_shared<Library>(std::move(image));
  library->handle = libraries().insert(library);
  *out = library->handle;
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" CUresult cuModuleLoadDataEx(CUmodule* out, const void* image, unsigned int count,
                                       CUjit_option* options, void** values) {
  return with_context_uncaptured([&](Context& context) {
    return load_module_image(context, image, JitOptions(count, options, values), out);
  });
}
extern "C" CUresult cuModuleLoadData(CUmodule* out, const void* image) {
  return cuModuleLoadDataEx(out, image, 0, nullptr, nullptr);
}
extern "C" CUresult cuModuleLoadFatBinary(CUmodule* out, const void* image) {
  return cuModuleLoadDataEx(out, image, 0, nullptr, nullptr);
}
extern "C" CUresult cuModuleLoad(CUmodule* out, const char* path) {
  return with_context_uncaptured([&](Context& context) {
    std::string bytes;
    if (CUresult r = read_file(path, &bytes); r != CUDA_SUCCESS) return r;
    bytes.push_back('\0');
    return load_module_image(context, bytes.data(), JitOptions(), out);
  });
}

extern "C" CUresult cuModuleUnload(CUmodule handle) {
  return with_context_uncaptured([&](Context& context) {
    std::shared_ptr<LoadedModule> module = modules().find(handle);
    if (!module || module->of_library) return CUDA_ERROR_INVALID_HANDLE;
    context.synchronize();  // its globals go away
    PrintfText::flush();
    module->unload();
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuModuleGetLoadingMode(CUmoduleLoadingMode* out) {
  return with_driver([&] {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = CU_MODULE_LAZY_LOADING;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuModuleGetFunction(CUfunction* out, CUmodule handle, const char* name) {
  return with_module(handle, [&](Context&, LoadedModule& module) {
    if (out == nullptr || name == nullptr) return CUDA_ERROR_INVALID_VALUE;
    std::shared_ptr<Function> function;
    if (CUresult r = module.function(name, &function); r != CUDA_SUCCESS) return r;
    *out = function->handle;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuModuleGetFunctionCount(unsigned int* out, CUmodule handle) {
  return with_module(handle, [&](Context&, LoadedModule& module) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = static_cast<unsigned>(module.names().size());
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuModuleEnumerateFunctions(CUfunction* out, unsigned int count,
                                               CUmodule handle) {
  return with_module(handle, [&](Context&, LoadedModule& module) {
    if (out == nullptr || count == 0) return CUDA_ERROR_INVALID_VALUE;
    auto names = module.names();
    for (size_t i = 0; i < std::min<size_t>(count, names.size()); ++i) {
      std::shared_ptr<Function> function;
      if (CUresult r = module.function(names[i], &function); r != CUDA_SUCCESS) return r;
      out[i] = function->handle;
    }
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuModuleGetGlobal_v2(CUdeviceptr* out, size_t* bytes, CUmodule handle,
                                         const char* name) {
  return with_module(handle, [&](Context&, LoadedModule& module) {
    return copy_global(module, name, out, bytes);
  });
}

extern "C" CUresult cuLibraryLoadData(CUlibrary* out, const void* code, CUjit_option* options,
                                      void** values, unsigned int count, CUlibraryOption*, void**,
                                      unsigned int) {
  return with_driver([&] {
    JitOptions jit(count, options, values);
    if (out == nullptr || code == nullptr || !jit.valid()) return CUDA_ERROR_INVALID_VALUE;
    Image image;
    std::string log;
    CUresult r = read_image(code, config().compute_capability, &image, &log);
    // Loading is lazy, but what cannot be read is refused now.
    std::shared_ptr<Context> context = find_context(ContextStack::current());
    if (r == CUDA_SUCCESS) r = load_library(out, std::move(image));
    std::shared_ptr<LoadedModule> module;
    if (r == CUDA_SUCCESS && context) {
      r = libraries().find(*out)->module(*context, &log, &module);
      if (r != CUDA_SUCCESS) libraries().erase(*out);
    }
    jit.report("", r == CUDA_SUCCESS ? "" : log, 0);
    return r;
  });
}

extern "C" CUresult cuLibraryLoadFromFile(CUlibrary* out, const char* path, CUjit_option* options,
                                          void** values, unsigned int count,
                                          CUlibraryOption* library_options, void** library_values,
                                          unsigned int library_count) {
  std::string bytes;
  CUresult r = guarded([&] { return read_file(path, &bytes); });
  if (r != CUDA_SUCCESS) return r;
  bytes.push_back('\0');
  return cuLibraryLoadData(out, bytes.data(), options, values, count, library_options,
                           library_values, library_count);
}

extern "C" CUresult cuLibraryUnload(CUlibrary handle) {
  return with_driver([&] {
    std::shared_ptr<Library> library = libraries().erase(handle);
    if (!library) return CUDA_ERROR_INVALID_HANDLE;
    if (auto context = find_context(ContextStack::current())) context->synchronize();
    library->unload();
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuLibraryGetKernel(CUkernel* out, CUlibrary handle, const char* name) {
  return with_library(handle, [&](Library& library) {
    if (out == nullptr || name == nullptr) return CUDA_ERROR_INVALID_VALUE;
    std::shared_ptr<LibraryKernel> kernel;
    if (CUresult r = library.kernel(name, &kernel); r != CUDA_SUCCESS) return r;
    *out = kernel->handle;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuLibraryGetKernelCount(unsigned int* out, CUlibrary handle) {
  return with_library(handle, [&](Library& library) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    std::shared_ptr<LoadedModule> module;
    if (CUresult r = library.any_module(&module); r != CUDA_SUCCESS) return r;
    *out = static_cast<unsigned>(module->names().size());
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuLibraryEnumerateKernels(CUkernel* out, unsigned int count, CUlibrary handle) {
  return with_library(handle, [&](Library& library) {
    if (out == nullptr || count == 0) return CUDA_ERROR_INVALID_VALUE;
    std::shared_ptr<LoadedModule> module;
    if (CUresult r = library.any_module(&module); r != CUDA_SUCCESS) return r;
    auto names = module->names();
    for (size_t i = 0; i < std::min<size_t>(count, names.size()); ++i) {
      std::shared_ptr<LibraryKernel> kernel;
      if (CUresult r = library.kernel(names[i], &kernel); r != CUDA_SUCCESS) return r;
      out[i] = kernel->handle;
    }
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuLibraryGetModule(CUmodule* out, CUlibrary handle) {
  return with_context([&](Context& context) {
    std::shared_ptr<Library> library = libraries().find(handle);
    if (!library) return CUDA_ERROR_INVALID_HANDLE;
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    std::shared_ptr<LoadedModule> module;
    if (CUresult r = library->module(context, nullptr, &module); r != CUDA_SUCCESS) return r;
    *out = module->handle;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuLibraryGetGlobal(CUdeviceptr* out, size_t* bytes, CUlibrary handle,
                                       const char* name) {
  return with_context([&](Context& context) {
    std::shared_ptr<Library> library = libraries().find(handle);
    if (!library) return CUDA_ERROR_INVALID_HANDLE;
    std::shared_ptr<LoadedModule> module;
    if (CUresult r = library->module(context, nullptr, &module); r != CUDA_SUCCESS) return r;
    return copy_global(*module, name, out, bytes);
  });
}

extern "C" CUresult cuLibraryGetManaged(CUdeviceptr* out, size_t* bytes, CUlibrary handle,
                                        const char* name) {
  return with_library(handle, [&](Library& library) -> CUresult {
    std::shared_ptr<LoadedModule> module;
    if (CUresult r = library.any_module(&module); r != CUDA_SUCCESS) return r;
    const GlobalInfo* global = name != nullptr ? module->global(name) : nullptr;
    if (global == nullptr || !global->managed) return CUDA_ERROR_NOT_FOUND;
    return copy_global(*module, name, out, bytes);
  });
}
extern "C" CUresult cuLibraryGetUnifiedFunction(void**, CUlibrary handle, const char*) {
  return with_library(handle, [](Library&) { return CUDA_ERROR_NOT_FOUND; });
}
