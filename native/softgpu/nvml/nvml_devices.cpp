// What NVML tells about a device. What a CPU cannot know of itself (temperature, power, fans,
// utilization) is NOT_SUPPORTED, and never a made-up number, but where a test says what it is.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "nvml_api.hpp"

using namespace softgpu;

namespace {

/// No process is listed: the software GPU lives in the process that uses it.
nvmlReturn_t no_processes(nvmlDevice_t device, unsigned int* count) {
  return put(device, count, 0);
}

nvmlReturn_t pci_info(nvmlDevice_t device, nvmlPciInfo_t* out) {
  return with_device(device, [&](int index) {
    if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
    Identity id = identity(index);
    *out = {};
    std::snprintf(out->busIdLegacy, sizeof out->busIdLegacy, "%04X:%02X:%02X.0",
                  static_cast<unsigned>(id.pci_domain) & 0xffff,
                  static_cast<unsigned>(id.pci_bus) & 0xff,
                  static_cast<unsigned>(id.pci_device) & 0xff);
    std::snprintf(out->busId, sizeof out->busId, "%08X:%02X:%02X.0",
                  static_cast<unsigned>(id.pci_domain), static_cast<unsigned>(id.pci_bus) & 0xff,
                  static_cast<unsigned>(id.pci_device) & 0xff);
    out->domain = static_cast<unsigned>(id.pci_domain);
    out->bus = static_cast<unsigned>(id.pci_bus);
    out->device = static_cast<unsigned>(id.pci_device);
    return NVML_SUCCESS;
  });
}

/// What a test says, or NOT_SUPPORTED.
template <class T>
nvmlReturn_t told(nvmlDevice_t device, const char* name, T* out) {
  return with_device(device, [&](int index) {
    uint64_t value = 0;
    if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
    if (!nvml_fault(index, name, &value)) return NVML_ERROR_NOT_SUPPORTED;
    *out = static_cast<T>(value);
    return NVML_SUCCESS;
  });
}

/// In MHz, as the driver's attributes say.
nvmlReturn_t clock_of(nvmlDevice_t device, nvmlClockType_t type, unsigned int* out) {
  switch (type) {
    case NVML_CLOCK_GRAPHICS:
    case NVML_CLOCK_SM:
      return put(device, out, 1410);
    case NVML_CLOCK_MEM:
      return put(device, out, 1215);
    default:
      return NVML_ERROR_NOT_SUPPORTED;
  }
}

}  // namespace

extern "C" {

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char* out, unsigned int length) {
  return with_device(device, [&](int) { return put_text(out, length, kDeviceName); });
}
nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char* out, unsigned int length) {
  return with_device(device, [&](int index) {
    Identity id = identity(index);
    char text[64] = "GPU-";
    char* at = text + 4;
    for (int i = 0; i < 16; ++i) {
      if (i == 4 || i == 6 || i == 8 || i == 10) *at++ = '-';
      at += std::snprintf(at, 3, "%02x", id.uuid[i]);
    }
    return put_text(out, length, text);
  });
}
nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int* out) {
  return put(device, out, device_index(device));
}
nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int* out) {
  return put(device, out, device_index(device));
}
nvmlReturn_t nvmlDeviceGetBrand(nvmlDevice_t device, nvmlBrandType_t* out) {
  return put(device, out, NVML_BRAND_UNKNOWN);
}
nvmlReturn_t nvmlDeviceGetBoardId(nvmlDevice_t device, unsigned int* out) {
  return put(device, out, 0x100 * (1 + device_index(device)));
}
nvmlReturn_t nvmlDeviceGetMultiGpuBoard(nvmlDevice_t device, unsigned int* out) {
  return put(device, out, 0);
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t* out) {
  return pci_info(device, out);
}
nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, nvmlPciInfo_t* out) {
  nvmlPciInfo_t info;  // the older structure ends before the long bus id
  nvmlReturn_t r = pci_info(device, &info);
  if (r == NVML_SUCCESS) std::memcpy(out, &info, offsetof(nvmlPciInfo_t, busId));
  return r;
}
nvmlReturn_t nvmlDeviceGetPciInfo(nvmlDevice_t device, nvmlPciInfo_t* out) {
  return nvmlDeviceGetPciInfo_v2(device, out);
}

// A link as a GPU of this kind has it.
nvmlReturn_t nvmlDeviceGetMaxPcieLinkGeneration(nvmlDevice_t device, unsigned int* out) {
  return put(device, out, 4);
}
nvmlReturn_t nvmlDeviceGetMaxPcieLinkWidth(nvmlDevice_t device, unsigned int* out) {
  return put(device, out, 16);
}
nvmlReturn_t nvmlDeviceGetCurrPcieLinkGeneration(nvmlDevice_t device, unsigned int* out) {
  return put(device, out, 4);
}
nvmlReturn_t nvmlDeviceGetCurrPcieLinkWidth(nvmlDevice_t device, unsigned int* out) {
  return put(device, out, 8);
}
nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t device, nvmlPcieUtilCounter_t counter,
                                         unsigned int* out) {
  if (counter != NVML_PCIE_UTIL_TX_BYTES && counter != NVML_PCIE_UTIL_RX_BYTES) {
    return NVML_ERROR_INVALID_ARGUMENT;
  }
  return put(device, out, 0);
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t* out) {
  return with_device(device, [&](int) {
    if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
    *out = {config().memory_bytes, config().memory_bytes, 0};
    return NVML_SUCCESS;
  });
}
nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t* out) {
  return with_device(device, [&](int) {
    if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
    if (out->version != nvmlMemory_v2) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    out->total = config().memory_bytes;
    out->free = config().memory_bytes;
    out->used = 0;
    out->reserved = 0;
    return NVML_SUCCESS;
  });
}
nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t* out) {
  return with_device(device, [&](int) {
    if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
    *out = {config().memory_bytes, config().memory_bytes, 0};
    return NVML_SUCCESS;
  });
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t,
                                      unsigned int* out) {
  return told(device, "temperature", out);
}
nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int* out) {
  return told(device, "power", out);
}
nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t* out) {
  unsigned int busy = 0;
  const nvmlReturn_t r = out ? told(device, "utilization", &busy) : NVML_ERROR_INVALID_ARGUMENT;
  if (r == NVML_SUCCESS) *out = {busy, busy};
  return r;
}
nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, nvmlMemoryErrorType_t type,
                                         nvmlEccCounterType_t, unsigned long long* out) {
  if (type != NVML_MEMORY_ERROR_TYPE_UNCORRECTED) return NVML_ERROR_NOT_SUPPORTED;
  return told(device, "ecc", out);
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int* major, int* minor) {
  return with_device(device, [&](int) {
    if (major == nullptr || minor == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
    *major = config().compute_capability / 10;
    *minor = config().compute_capability % 10;
    return NVML_SUCCESS;
  });
}
nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t device, nvmlDeviceArchitecture_t* out) {
  return put(device, out, NVML_DEVICE_ARCH_UNKNOWN);
}
nvmlReturn_t nvmlDeviceGetNumGpuCores(nvmlDevice_t device, unsigned int* out) {
  return put(device, out, kSmCount * 64);
}
nvmlReturn_t nvmlDeviceGetMemoryBusWidth(nvmlDevice_t device, unsigned int* out) {
  return put(device, out, 5120);
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned int* out) {
  return clock_of(device, type, out);
}
nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, nvmlClockType_t type,
                                       unsigned int* out) {
  return clock_of(device, type, out);
}
nvmlReturn_t nvmlDeviceGetPerformanceState(nvmlDevice_t device, nvmlPstates_t* out) {
  return put(device, out, NVML_PSTATE_0);
}
nvmlReturn_t nvmlDeviceGetComputeMode(nvmlDevice_t device, nvmlComputeMode_t* out) {
  return put(device, out, NVML_COMPUTEMODE_DEFAULT);
}
nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, nvmlEnableState_t* out) {
  return put(device, out, NVML_FEATURE_ENABLED);
}
nvmlReturn_t nvmlDeviceGetDisplayMode(nvmlDevice_t device, nvmlEnableState_t* out) {
  return put(device, out, NVML_FEATURE_DISABLED);
}
nvmlReturn_t nvmlDeviceGetDisplayActive(nvmlDevice_t device, nvmlEnableState_t* out) {
  return put(device, out, NVML_FEATURE_DISABLED);
}
nvmlReturn_t nvmlDeviceGetVirtualizationMode(nvmlDevice_t device,
                                             nvmlGpuVirtualizationMode_t* out) {
  return put(device, out, NVML_GPU_VIRTUALIZATION_MODE_NONE);
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int* current,
                                  unsigned int* pending) {
  return with_device(device, [&](int) {
    if (current == nullptr || pending == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
    *current = *pending = NVML_DEVICE_MIG_DISABLE;
    return NVML_SUCCESS;
  });
}
nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int* out) {
  return put(device, out, 0);
}
nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int* out) {
  return put(device, out, 0);
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t d, unsigned int* count,
                                                  nvmlProcessInfo_v1_t*) {
  return no_processes(d, count);
}
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t d, unsigned int* count,
                                                     nvmlProcessInfo_v2_t*) {
  return no_processes(d, count);
}
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t d, unsigned int* count,
                                                     nvmlProcessInfo_t*) {
  return no_processes(d, count);
}
nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses(nvmlDevice_t d, unsigned int* count,
                                                   nvmlProcessInfo_v1_t*) {
  return no_processes(d, count);
}
nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v2(nvmlDevice_t d, unsigned int* count,
                                                      nvmlProcessInfo_v2_t*) {
  return no_processes(d, count);
}
nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t d, unsigned int* count,
                                                      nvmlProcessInfo_t*) {
  return no_processes(d, count);
}
nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses(nvmlDevice_t d, unsigned int* count,
                                                     nvmlProcessInfo_v1_t*) {
  return no_processes(d, count);
}
nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v2(nvmlDevice_t d, unsigned int* count,
                                                        nvmlProcessInfo_v2_t*) {
  return no_processes(d, count);
}
nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v3(nvmlDevice_t d, unsigned int* count,
                                                        nvmlProcessInfo_t*) {
  return no_processes(d, count);
}

nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t a, nvmlDevice_t b, nvmlGpuP2PCapsIndex_t,
                                    nvmlGpuP2PStatus_t* out) {
  if (device_index(b) < 0) return NVML_ERROR_INVALID_ARGUMENT;
  return put(a, out, NVML_P2P_STATUS_OK);
}
nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t a, nvmlDevice_t b,
                                                 nvmlGpuTopologyLevel_t* out) {
  if (device_index(b) < 0) return NVML_ERROR_INVALID_ARGUMENT;
  return put(a, out, NVML_TOPOLOGY_SINGLE);
}

}  // extern "C"
