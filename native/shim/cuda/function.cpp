// Kernels and functions: attributes and layouts, known since the first Get.
// SPDX-License-Identifier: Apache-2.0
#include "generated/shim_api.hpp"
#include "shim/cuda/guard.hpp"

namespace outboard::shim {
namespace {

template <typename Handle>
CUresult find_function(Handle value, Function** function) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  *function = find(value);
  return *function != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

// The kernel on a device: in the current context if it is that device's, else in its primary one.
CUresult kernel_on(CUkernel kernel, CUdevice ordinal, Function** out) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Device* device = find_device(ordinal);
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  Context* context = thread_state.current;
  if (context == nullptr || context->device != device || context->destroyed.load()) {
    const CUresult result = primary_context(device, &context);
    if (result != CUDA_SUCCESS) return result;
  }
  *out = function_in(kernel, context);
  return *out != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult get_attribute(const Function* function, CUfunction_attribute attribute, int* out) {
  if (out == nullptr || attribute < 0 || attribute >= function_attribute_count) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  *out = function->attributes[attribute].load(std::memory_order_relaxed);
  return CUDA_SUCCESS;
}

// What the driver would refuse at the call.
CUresult check_attribute(const Function* function, const Device* device,
                         CUfunction_attribute attribute, int value) {
  switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: {
      const int most = device->attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
      const int fixed = function->attributes[CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES].load();
      return value < 0 || (most != 0 && value > most - fixed) ? CUDA_ERROR_INVALID_VALUE
                                                              : CUDA_SUCCESS;
    }
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
      return value < -1 || value > 100 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH:
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_HEIGHT:
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_DEPTH:
    case CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
    case CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult set_attribute(Function* function, CUfunction_attribute attribute, int value) {
  const Context* context = function->module->home;
  const CUresult refused = check_attribute(function, context->device, attribute, value);
  if (refused != CUDA_SUCCESS) return refused;
  {
    const std::lock_guard guard(function->mutex);
    function->occupancy.clear();
  }
  function->attributes[attribute].store(value, std::memory_order_relaxed);
  return to_cuda(function->module->server->connection().send(
      wire::command::FunctionSetAttribute{.function = function->head.id(),
                                          .attribute = static_cast<uint32_t>(attribute),
                                          .value = value},
      context->head.index));
}

CUresult set_cache_config(Function* function, CUfunc_cache config) {
  if (config < CU_FUNC_CACHE_PREFER_NONE || config > CU_FUNC_CACHE_PREFER_EQUAL) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return to_cuda(function->module->server->connection().send(
      wire::command::FunctionSetCacheConfig{.function = function->head.id(),
                                            .config = static_cast<uint32_t>(config)},
      function->module->home->head.index));
}

CUresult parameter_info(const Function* function, size_t index, size_t* offset, size_t* bytes) {
  if (offset == nullptr || index >= function->parameter_count) return CUDA_ERROR_INVALID_VALUE;
  *offset = function->parameters[index].offset;
  if (bytes != nullptr) *bytes = function->parameters[index].bytes;
  return CUDA_SUCCESS;
}

}  // namespace

CUresult cuFuncGetAttribute(int* pi, CUfunction_attribute attrib, CUfunction hfunc) {
  Function* function = nullptr;
  if (const CUresult result = find_function(hfunc, &function); result != CUDA_SUCCESS)
    return result;
  return get_attribute(function, attrib, pi);
}

CUresult cuFuncSetAttribute(CUfunction hfunc, CUfunction_attribute attrib, int value) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  Function* function = find(hfunc);
  if (function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  return set_attribute(function, attrib, value);
}

CUresult cuFuncSetCacheConfig(CUfunction hfunc, CUfunc_cache config) {
  Function* function = nullptr;
  if (const CUresult result = find_function(hfunc, &function); result != CUDA_SUCCESS)
    return result;
  return set_cache_config(function, config);
}

CUresult cuFuncGetModule(CUmodule* hmod, CUfunction hfunc) {
  Function* function = nullptr;
  if (const CUresult result = find_function(hfunc, &function); result != CUDA_SUCCESS)
    return result;
  if (hmod == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *hmod = reinterpret_cast<CUmodule>(function->module);
  return CUDA_SUCCESS;
}

CUresult cuFuncGetName(const char** name, CUfunction hfunc) {
  Function* function = nullptr;
  if (const CUresult result = find_function(hfunc, &function); result != CUDA_SUCCESS)
    return result;
  if (name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *name = function->name.c_str();
  return CUDA_SUCCESS;
}

CUresult cuFuncGetParamInfo(CUfunction func, size_t paramIndex, size_t* paramOffset,
                            size_t* paramSize) {
  Function* function = nullptr;
  if (const CUresult result = find_function(func, &function); result != CUDA_SUCCESS) return result;
  return parameter_info(function, paramIndex, paramOffset, paramSize);
}

// ---- kernels: functions of a library, the same object here
// -------------------------------------------

CUresult cuKernelGetFunction(CUfunction* pFunc, CUkernel kernel) {
  Function* function = nullptr;
  if (const CUresult result = find_function(kernel, &function); result != CUDA_SUCCESS)
    return result;
  if (pFunc == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (thread_state.current == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  *pFunc = reinterpret_cast<CUfunction>(function);
  return CUDA_SUCCESS;
}

CUresult cuKernelGetLibrary(CUlibrary* pLib, CUkernel kernel) {
  Function* function = nullptr;
  if (const CUresult result = find_function(kernel, &function); result != CUDA_SUCCESS)
    return result;
  if (pLib == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Module* library = function->module->library;
  *pLib = reinterpret_cast<CUlibrary>(library != nullptr ? library : function->module);
  return CUDA_SUCCESS;
}

CUresult cuKernelGetAttribute(int* pi, CUfunction_attribute attrib, CUkernel kernel, CUdevice dev) {
  Function* function = nullptr;
  const CUresult result = kernel_on(kernel, dev, &function);
  return result == CUDA_SUCCESS ? get_attribute(function, attrib, pi) : result;
}

CUresult cuKernelSetAttribute(CUfunction_attribute attrib, int val, CUkernel kernel, CUdevice dev) {
  Function* function = nullptr;
  const CUresult result = kernel_on(kernel, dev, &function);
  return result == CUDA_SUCCESS ? set_attribute(function, attrib, val) : result;
}

CUresult cuKernelSetCacheConfig(CUkernel kernel, CUfunc_cache config, CUdevice dev) {
  Function* function = nullptr;
  const CUresult result = kernel_on(kernel, dev, &function);
  return result == CUDA_SUCCESS ? set_cache_config(function, config) : result;
}

CUresult cuKernelGetName(const char** name, CUkernel hfunc) {
  Function* function = nullptr;
  if (const CUresult result = find_function(hfunc, &function); result != CUDA_SUCCESS)
    return result;
  if (name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *name = function->name.c_str();
  return CUDA_SUCCESS;
}

CUresult cuKernelGetParamInfo(CUkernel kernel, size_t paramIndex, size_t* paramOffset,
                              size_t* paramSize) {
  Function* function = nullptr;
  if (const CUresult result = find_function(kernel, &function); result != CUDA_SUCCESS)
    return result;
  return parameter_info(function, paramIndex, paramOffset, paramSize);
}

}  // namespace outboard::shim
