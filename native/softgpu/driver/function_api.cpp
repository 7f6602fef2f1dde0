// Entry points about functions and kernels.
// SPDX-License-Identifier: Apache-2.0
#include "function.hpp"
#include "guard.hpp"

using namespace softgpu;

namespace {

/// `call(Function&)` for a CUfunction, or a CUkernel in its place.
template <class Call>
CUresult with_function(CUfunction handle, Call&& call) noexcept {
  return with_context([&](Context& context) -> CUresult {
    std::shared_ptr<Function> function;
    if (CUresult r = find_function(handle, context, &function); r != CUDA_SUCCESS) return r;
    return call(*function);
  });
}

/// `call(Function&)` for a CUkernel on a device: in the current context if it is that device's,
/// else in its primary context.
template <class Call>
CUresult with_kernel(CUkernel handle, CUdevice ordinal, Call&& call) noexcept {
  return with_driver([&]() -> CUresult {
    Device* device = Driver::get().device(ordinal);
    if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    std::shared_ptr<Context> context = find_context(ContextStack::current());
    if (!context || &context->device != device) context = primary_context(*device);
    if (!context) return CUDA_ERROR_OUT_OF_MEMORY;
    std::shared_ptr<Function> function;
    if (CUresult r = kernel_function(handle, *context, &function); r != CUDA_SUCCESS) return r;
    return call(*function);
  });
}

CUresult parameter(const KernelInfo& info, size_t index, size_t* offset, size_t* size) {
  if (offset == nullptr || index >= info.params.size()) return CUDA_ERROR_INVALID_VALUE;
  *offset = info.params[index].offset;
  if (size != nullptr) *size = info.params[index].size;
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" CUresult cuFuncGetAttribute(int* out, CUfunction_attribute attribute, CUfunction f) {
  return with_function(f, [&](Function& function) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    return function.get_attribute(attribute, out);
  });
}
extern "C" CUresult cuFuncSetAttribute(CUfunction f, CUfunction_attribute attribute, int value) {
  return with_function(
      f, [&](Function& function) { return function.set_attribute(attribute, value); });
}
extern "C" CUresult cuFuncSetCacheConfig(CUfunction f, CUfunc_cache) {
  return with_function(f, [](Function&) { return CUDA_SUCCESS; });
}
extern "C" CUresult cuFuncSetSharedMemConfig(CUfunction f, CUsharedconfig) {
  return with_function(f, [](Function&) { return CUDA_SUCCESS; });
}
extern "C" CUresult cuFuncGetModule(CUmodule* out, CUfunction f) {
  return with_function(f, [&](Function& function) {
    auto module = function.module.lock();
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (!module) return CUDA_ERROR_INVALID_HANDLE;
    *out = module->handle;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuFuncGetName(const char** out, CUfunction f) {
  return with_function(f, [&](Function& function) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = function.info().name.c_str();
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuFuncGetParamInfo(CUfunction f, size_t index, size_t* offset, size_t* size) {
  return with_function(
      f, [&](Function& function) { return parameter(function.info(), index, offset, size); });
}
extern "C" CUresult cuFuncIsLoaded(CUfunctionLoadingState* out, CUfunction f) {
  return with_function(f, [&](Function&) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = CU_FUNCTION_LOADING_STATE_LOADED;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuFuncLoad(CUfunction f) {
  return with_function(f, [](Function&) { return CUDA_SUCCESS; });
}

extern "C" CUresult cuKernelGetFunction(CUfunction* out, CUkernel handle) {
  return with_context([&](Context& context) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    std::shared_ptr<Function> function;
    CUresult r = kernel_function(handle, context, &function);
    if (r == CUDA_SUCCESS) *out = function->handle;
    return r;
  });
}
extern "C" CUresult cuKernelGetLibrary(CUlibrary* out, CUkernel handle) {
  return with_driver([&] {
    auto kernel = kernels().find(handle);
    auto library = kernel ? kernel->library.lock() : nullptr;
    if (!library) return CUDA_ERROR_INVALID_HANDLE;
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = library->handle;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuKernelGetName(const char** out, CUkernel handle) {
  return with_driver([&] {
    auto kernel = kernels().find(handle);
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (!kernel) return cuFuncGetName(out, reinterpret_cast<CUfunction>(handle));
    *out = kernel->name.c_str();
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuKernelGetAttribute(int* out, CUfunction_attribute attribute, CUkernel handle,
                                         CUdevice device) {
  return with_kernel(handle, device, [&](Function& function) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    return function.get_attribute(attribute, out);
  });
}
extern "C" CUresult cuKernelSetAttribute(CUfunction_attribute attribute, int value, CUkernel handle,
                                         CUdevice device) {
  return with_kernel(handle, device,
                     [&](Function& function) { return function.set_attribute(attribute, value); });
}
extern "C" CUresult cuKernelSetCacheConfig(CUkernel handle, CUfunc_cache, CUdevice device) {
  return with_kernel(handle, device, [](Function&) { return CUDA_SUCCESS; });
}
extern "C" CUresult cuKernelGetParamInfo(CUkernel handle, size_t index, size_t* offset,
                                         size_t* size) {
  return with_driver([&] {
    auto kernel = kernels().find(handle);
    auto library = kernel ? kernel->library.lock() : nullptr;
    if (!library) return CUDA_ERROR_INVALID_HANDLE;
    std::shared_ptr<LoadedModule> module;
    if (CUresult r = library->any_module(&module); r != CUDA_SUCCESS) return r;
    std::shared_ptr<Function> function;
    if (CUresult r = module->function(kernel->name, &function); r != CUDA_SUCCESS) return r;
    return parameter(function->info(), index, offset, size);
  });
}
