// The log of failed calls, settings of core dumps, and who is told of memory over budget.
// SPDX-License-Identifier: Apache-2.0
#include "base/log.hpp"
#include "core_dumps.hpp"
#include "driver_log.hpp"
#include "generated/shim_api.hpp"
#include "notifications.hpp"
#include "shim/cuda/guard.hpp"

namespace outboard::shim {
namespace {

CUresult owner_of(CoreDumpOwner* owner) {
  Context* context = nullptr;
  const CUresult result = enter_local(&context);
  if (result == CUDA_SUCCESS) *owner = {context->context_id, context->flags};
  return result;
}

CUresult set(CoreDumpOwner owner, CUcoredumpSettings what, const void* value, const size_t* size) {
  const CUresult result = set_core_dump(owner, what, value, size);
  if (result == CUDA_SUCCESS && what == CU_COREDUMP_ENABLE_ON_EXCEPTION) {
    static const char said[] = "core dump";
    say_once(said, "the program asks for core dumps of the GPU; none is written");
  }
  return result;
}

}  // namespace

void returned(ProcId id, CUresult result) {
  const char* name = nullptr;
  if (shim::cuGetErrorName(result, &name) != CUDA_SUCCESS) name = "?";
  DriverLog::get().returned(proc_name(id), result, name);
}

CUresult cuLogsRegisterCallback(CUlogsCallback callbackFunc, void* userData,
                                CUlogsCallbackHandle* callback_out) {
  return DriverLog::get().add(callbackFunc, userData, callback_out);
}

CUresult cuLogsUnregisterCallback(CUlogsCallbackHandle callback) {
  return DriverLog::get().remove(callback);
}

CUresult cuLogsCurrent(CUlogIterator* iterator_out, unsigned int) {
  return DriverLog::get().current(iterator_out);
}

CUresult cuLogsDumpToFile(CUlogIterator* iterator, const char* pathToFile, unsigned int) {
  return DriverLog::get().dump_to_file(iterator, pathToFile);
}

CUresult cuLogsDumpToMemory(CUlogIterator* iterator, char* buffer, size_t* size, unsigned int) {
  return DriverLog::get().dump_to_memory(iterator, buffer, size);
}

CUresult cuCoredumpGetAttribute(CUcoredumpSettings attrib, void* value, size_t* size) {
  CoreDumpOwner owner;
  const CUresult result = owner_of(&owner);
  return result == CUDA_SUCCESS ? get_core_dump(owner, attrib, value, size) : result;
}

CUresult cuCoredumpGetAttributeGlobal(CUcoredumpSettings attrib, void* value, size_t* size) {
  const CUresult result = enter();
  return result == CUDA_SUCCESS ? get_core_dump({}, attrib, value, size) : result;
}

CUresult cuCoredumpSetAttribute(CUcoredumpSettings attrib, void* value, size_t* size) {
  CoreDumpOwner owner;
  const CUresult result = owner_of(&owner);
  return result == CUDA_SUCCESS ? set(owner, attrib, value, size) : result;
}

CUresult cuCoredumpSetAttributeGlobal(CUcoredumpSettings attrib, void* value, size_t* size) {
  const CUresult result = enter();
  return result == CUDA_SUCCESS ? set({}, attrib, value, size) : result;
}

CUresult cuDeviceRegisterAsyncNotification(CUdevice device, CUasyncCallback callbackFunc,
                                           void* userData, CUasyncCallbackHandle* callback) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (find_device(device) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  return add_notification(device, callbackFunc, userData, callback);
}

CUresult cuDeviceUnregisterAsyncNotification(CUdevice device, CUasyncCallbackHandle callback) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (find_device(device) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  return remove_notification(device, callback);
}

}  // namespace outboard::shim
