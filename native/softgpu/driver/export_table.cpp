// cuGetExportTable: the private tables, with this driver behind them.
// SPDX-License-Identifier: Apache-2.0
// api.hpp makes CUDA's names visible, so it comes before any other header that includes cuda.h.
// clang-format off
#include "api.hpp"
#include "../../tables/tables.hpp"
// clang-format on
#include "config.hpp"
#include "guard.hpp"
#include "stream.hpp"

using namespace softgpu;

namespace {

CUresult current(CUcontext* out) {
  *out = ContextStack::current();
  return CUDA_SUCCESS;
}

CUresult primary(CUcontext* out, CUdevice ordinal) {
  return with_driver([&] {
    Device* device = Driver::get().device(ordinal);
    if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    auto context = primary_context(*device);
    if (!context) return CUDA_ERROR_OUT_OF_MEMORY;
    *out = context->handle;
    return CUDA_SUCCESS;
  });
}

CUresult stream_object(CUcontext handle, CUstream stream, void** out) {
  return with_driver([&] {
    std::shared_ptr<Context> context = find_context(handle);
    if (!context) return CUDA_ERROR_INVALID_CONTEXT;
    std::shared_ptr<Stream> found = find_stream(stream, *context);
    if (!found) return CUDA_ERROR_INVALID_HANDLE;
    *out = found.get();
    return CUDA_SUCCESS;
  });
}

CUresult stream_id(CUcontext handle, void* object, uint64_t* out) {
  return with_driver([&] {
    std::shared_ptr<Context> context = find_context(handle);
    if (!context) return CUDA_ERROR_INVALID_CONTEXT;
    CUresult result = CUDA_ERROR_INVALID_HANDLE;
    context->each_stream([&](Stream& stream) {
      if (&stream != object) return;
      *out = stream.id;
      result = CUDA_SUCCESS;
    });
    return result;
  });
}

/// All multiprocessors in one GPC, two to a TPC.
CUresult tpc_layout(outboard::tables::TpcLayout* out) {
  static constexpr uint8_t kPlace[kSmCount / 2] = {0, 1, 2, 3};
  static constexpr uint8_t kGpc[kSmCount / 2] = {};
  *out = {kPlace, kGpc, kSmCount / 2};
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" CUresult cuGetExportTable(const void** table, const CUuuid* id) {
  if (table == nullptr || id == nullptr) return CUDA_ERROR_INVALID_VALUE;
  [[maybe_unused]] static const bool installed = [] {
    outboard::tables::Host host{};
    host.current_context = current;
    host.primary_context = primary;
    host.driver_version = cuDriverGetVersion;
    host.device_count = cuDeviceGetCount;
    host.device_uuid = cuDeviceGetUuid_v2;
    host.device_attribute = cuDeviceGetAttribute;
    host.context_id = cuCtxGetId;
    host.load_module = cuModuleLoadData;
    host.module_function_count = cuModuleGetFunctionCount;
    host.module_functions = cuModuleEnumerateFunctions;
    host.stream_object = stream_object;
    host.stream_id = stream_id;
    host.tpc_layout = tpc_layout;
    outboard::tables::install(host);
    return true;
  }();
  return outboard::tables::get_export_table(table, id);
}
