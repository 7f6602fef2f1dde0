// The private tables' host: how they learn what the driver's own functions would say.
// SPDX-License-Identifier: Apache-2.0
#include "tables.hpp"

#include <mutex>
#include <vector>

#include "generated/shim_api.hpp"
#include "shim/cuda/guard.hpp"

namespace outboard::shim {
namespace {

CUresult primary(CUcontext* out, CUdevice ordinal) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Device* device = find_device(ordinal);
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  Context* context = nullptr;
  const CUresult result = primary_context(device, &context);
  if (result == CUDA_SUCCESS) *out = handle(context);
  return result;
}

CUresult stream_object(CUcontext value, CUstream stream, void** out) {
  Context* context = find(value);
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  Stream* found = resolve(stream, context);
  if (found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  *out = found;
  return CUDA_SUCCESS;
}

CUresult stream_id(CUcontext, void* object, uint64_t* out) {
  const Stream* stream = streams.find(object);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  *out = stream->head.id();
  return CUDA_SUCCESS;
}

// Facts of the physical chip, asked of its own driver once per device.
CUresult tpc_layout(tables::TpcLayout* out) {
  struct Layout {
    bool known = false;
    std::vector<uint8_t> place, gpc;
  };
  static constinit std::mutex mutex;
  static auto* const layouts = new std::vector<Layout>(max_devices);
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  const std::lock_guard guard(mutex);
  Layout& layout = (*layouts)[context->device->ordinal];
  if (!layout.known) {
    client::Answer<wire::command::ProcessPrivateTable> answer;
    const CUresult result = call(
        context, wire::command::ProcessPrivateTable{.kind = 0, .device = context->device->index},
        &answer);
    if (result != CUDA_SUCCESS) return result;
    if (answer.reply.first.size() != answer.reply.second.size()) return CUDA_ERROR_UNKNOWN;
    for (const std::byte byte : answer.reply.first) layout.place.push_back(uint8_t(byte));
    for (const std::byte byte : answer.reply.second) layout.gpc.push_back(uint8_t(byte));
    layout.known = true;
  }
  *out = {layout.place.data(), layout.gpc.data(), layout.place.size()};
  return CUDA_SUCCESS;
}

}  // namespace

CUresult cuGetExportTable(const void** ppExportTable, const CUuuid* pExportTableId) {
  static const bool installed = [] {
    tables::Host host{};
    host.current_context = shim::cuCtxGetCurrent;
    host.primary_context = primary;
    host.driver_version = shim::cuDriverGetVersion;
    host.device_count = shim::cuDeviceGetCount;
    host.device_uuid = shim::cuDeviceGetUuid_v2;
    host.device_attribute = shim::cuDeviceGetAttribute;
    host.context_id = shim::cuCtxGetId;
    host.load_module = shim::cuModuleLoadData;
    host.module_function_count = shim::cuModuleGetFunctionCount;
    host.module_functions = shim::cuModuleEnumerateFunctions;
    host.stream_object = stream_object;
    host.stream_id = stream_id;
    host.tpc_layout = tpc_layout;
    tables::install(host);
    return true;
  }();
  static_cast<void>(installed);
  if (ppExportTable == nullptr || pExportTableId == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return tables::get_export_table(ppExportTable, pExportTableId);
}

}  // namespace outboard::shim
