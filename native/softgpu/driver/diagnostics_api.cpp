// Entry points of the log of failed calls, of core dumps and of memory over budget.
// SPDX-License-Identifier: Apache-2.0
#include <string_view>

#include "api.hpp"  // first: it makes the functions of cuda.h visible
#include "core_dumps.hpp"
#include "driver_log.hpp"
#include "guard.hpp"
#include "notifications.hpp"

using namespace softgpu;
using outboard::CoreDumpOwner;
using outboard::DriverLog;

void softgpu::log_failure(const char* function, CUresult result) noexcept {
  // What several entry points share has no name that a program knows.
  if (!std::string_view(function).starts_with("cu")) return;
  const char* name = "?";
  cuGetErrorName(result, &name);
  try {
    DriverLog::get().returned(function, result, name);
  } catch (...) {
    return;  // without memory there is no line
  }
}

extern "C" CUresult cuLogsRegisterCallback(CUlogsCallback function, void* data,
                                           CUlogsCallbackHandle* out) {
  return guarded([&] { return DriverLog::get().add(function, data, out); });
}
extern "C" CUresult cuLogsUnregisterCallback(CUlogsCallbackHandle handle) {
  return guarded([&] { return DriverLog::get().remove(handle); });
}
extern "C" CUresult cuLogsCurrent(CUlogIterator* out, unsigned int) {
  return guarded([&] { return DriverLog::get().current(out); });
}
extern "C" CUresult cuLogsDumpToFile(CUlogIterator* iterator, const char* path, unsigned int) {
  return guarded([&] { return DriverLog::get().dump_to_file(iterator, path); });
}
extern "C" CUresult cuLogsDumpToMemory(CUlogIterator* iterator, char* buffer, size_t* size,
                                       unsigned int) {
  return guarded([&] { return DriverLog::get().dump_to_memory(iterator, buffer, size); });
}

extern "C" CUresult cuCoredumpGetAttribute(CUcoredumpSettings what, void* value, size_t* size) {
  return with_context([&](Context& context) {
    return outboard::get_core_dump({context.id, context.flags.load()}, what, value, size);
  });
}
extern "C" CUresult cuCoredumpGetAttributeGlobal(CUcoredumpSettings what, void* value,
                                                 size_t* size) {
  return with_driver([&] { return outboard::get_core_dump({}, what, value, size); });
}
extern "C" CUresult cuCoredumpSetAttribute(CUcoredumpSettings what, void* value, size_t* size) {
  return with_context([&](Context& context) {
    return outboard::set_core_dump({context.id, context.flags.load()}, what, value, size);
  });
}
extern "C" CUresult cuCoredumpSetAttributeGlobal(CUcoredumpSettings what, void* value,
                                                 size_t* size) {
  return with_driver([&] { return outboard::set_core_dump({}, what, value, size); });
}

extern "C" CUresult cuDeviceRegisterAsyncNotification(CUdevice device, CUasyncCallback function,
                                                      void* data, CUasyncCallbackHandle* out) {
  return with_driver([&] {
    if (Driver::get().device(device) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    return outboard::add_notification(device, function, data, out);
  });
}
extern "C" CUresult cuDeviceUnregisterAsyncNotification(CUdevice device,
                                                        CUasyncCallbackHandle handle) {
  return with_driver([&] {
    if (Driver::get().device(device) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    return outboard::remove_notification(device, handle);
  });
}
