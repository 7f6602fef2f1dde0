// The private tables that CUDA's own libraries ask a libcuda.so.1 for, behind one function.
// SPDX-License-Identifier: Apache-2.0
//
// A libcuda.so.1 that only exports what cuda.h declares fails at a program's first runtime call:
// libcudart, cuBLAS, cuFFT and others also call cuGetExportTable and jump through what it returns.
// This library has those tables. It knows nothing of devices or connections; the driver that links
// it (the shim, the software GPU) installs a Host, whose members mostly have the signature of the
// public driver function that answers the same question, so that those functions can be installed
// directly.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>

namespace outboard::tables {

// Where each TPC of the current device lies: gpc[i] is the GPC that TPC i belongs to, place[i] its
// place within that GPC. The arrays belong to the host and are copied at once.
struct TpcLayout {
  const uint8_t* place = nullptr;
  const uint8_t* gpc = nullptr;
  size_t count = 0;
};

// What the tables ask the driver that owns them. Every member is called from the program's threads,
// at any time after cuInit and from several threads at once; none is called with a lock held.
// A member that may be null says so.
struct Host {
  CUresult (*current_context)(CUcontext* out);                   // as cuCtxGetCurrent
  CUresult (*primary_context)(CUcontext* out, CUdevice device);  // may create it; neither retains
                                                                 // it nor makes it current
  CUresult (*driver_version)(int* out);                          // as cuDriverGetVersion
  CUresult (*device_count)(int* out);                            // as cuDeviceGetCount
  CUresult (*device_uuid)(CUuuid* out, CUdevice device);         // as cuDeviceGetUuid_v2
  CUresult (*device_attribute)(int* out, CUdevice_attribute attribute, CUdevice device);
  CUresult (*context_id)(CUcontext context, unsigned long long* out);  // as cuCtxGetId
  // As cuModuleLoadData; `image` is a fat binary's wrapper or its header.
  CUresult (*load_module)(CUmodule* out, const void* image);
  // As cuModuleGetFunctionCount and cuModuleEnumerateFunctions.
  CUresult (*module_function_count)(unsigned int* count, CUmodule module);
  CUresult (*module_functions)(CUfunction* out, unsigned int count, CUmodule module);
  // An opaque pointer that stands for a stream (never null, also for stream 0), and its id (as
  // cuStreamGetId). A context is never null here.
  CUresult (*stream_object)(CUcontext context, CUstream stream, void** out);
  CUresult (*stream_id)(CUcontext context, void* object, uint64_t* out);
  // May be null, or return an error or no TPC: then the table that needs it is refused.
  CUresult (*tpc_layout)(TpcLayout* out);
};

// Copies the host's functions. Call it once, before the first get_export_table (a function-local
// static in cuGetExportTable is a good place); later calls are ignored.
void install(const Host& host);

// cuGetExportTable. A table that is not known is refused with CUDA_ERROR_NOT_FOUND and a null
// table.
CUresult get_export_table(const void** table, const CUuuid* id);

// Forgets what libraries stored for this context and runs their destructors. Call it when a context
// is destroyed, or a primary context is reset or given up, while its handle is still valid.
void context_destroyed(CUcontext context);

}  // namespace outboard::tables
