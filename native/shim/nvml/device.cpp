// What NVML says of one device. What is not known of a share of a GPU is NOT_SUPPORTED, never 0.
// SPDX-License-Identifier: Apache-2.0
#include <cuda.h>

#include <cstdio>

#include "shim/nvml/api.hpp"

using namespace outboard::nvml;
using outboard::wire::ManagementQuestion;

namespace {

nvmlReturn_t no_processes(nvmlDevice_t device, unsigned int* count) {
  // Other sessions' processes are nobody's business, and this session's run on other machines.
  return put(device, count, [](const Device&) { return 0; });
}

nvmlReturn_t clock_of(nvmlDevice_t device, nvmlClockType_t type, unsigned int* out) {
  if (type != NVML_CLOCK_GRAPHICS && type != NVML_CLOCK_SM && type != NVML_CLOCK_MEM) {
    return NVML_ERROR_NOT_SUPPORTED;
  }
  return put(device, out, [type](const Device& found) {
    return found.attribute(type == NVML_CLOCK_MEM ? CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE
                                                  : CU_DEVICE_ATTRIBUTE_CLOCK_RATE) /
           1000;  // kHz to MHz
  });
}

nvmlDeviceArchitecture_t architecture(int major, int minor) {
  switch (major) {
    case 5:
      return NVML_DEVICE_ARCH_MAXWELL;
    case 6:
      return NVML_DEVICE_ARCH_PASCAL;
    case 7:
      return minor == 5 ? NVML_DEVICE_ARCH_TURING : NVML_DEVICE_ARCH_VOLTA;
    case 8:
      return minor == 9 ? NVML_DEVICE_ARCH_ADA : NVML_DEVICE_ARCH_AMPERE;
    case 9:
      return NVML_DEVICE_ARCH_HOPPER;
    default:
      return NVML_DEVICE_ARCH_UNKNOWN;
  }
}

}  // namespace

namespace outboard::nvml {

void put_pci(nvmlPciInfo_t* pci, int64_t domain, int64_t bus, int64_t device) {
  *pci = {};
  pci->domain = static_cast<unsigned>(domain);
  pci->bus = static_cast<unsigned>(bus) & 0xff;
  pci->device = static_cast<unsigned>(device) & 0xff;
  std::snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.0", pci->domain & 0xffff,
                pci->bus, pci->device);
  std::snprintf(pci->busId, sizeof pci->busId, "%08X:%02X:%02X.0", pci->domain, pci->bus,
                pci->device);
}

}  // namespace outboard::nvml

extern "C" {

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char* name, unsigned int length) {
  return with_device(device,
                     [&](const Device& found) { return put_text(name, length, found.name); });
}
nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char* uuid, unsigned int length) {
  return with_device(device,
                     [&](const Device& found) { return put_text(uuid, length, found.uuid); });
}
nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int* index) {
  return put(device, index, [device](const Device&) { return index_of(device); });
}
nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int* number) {
  return nvmlDeviceGetIndex(device, number);
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t* pci) {
  return with_device(device, [&](const Device& found) {
    if (pci == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
    put_pci(pci, found.attribute(CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID),
            found.attribute(CU_DEVICE_ATTRIBUTE_PCI_BUS_ID),
            found.attribute(CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID));
    return NVML_SUCCESS;
  });
}
nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, nvmlPciInfo_t* pci) {
  return nvmlDeviceGetPciInfo_v3(device, pci);
}

nvmlReturn_t nvmlDeviceGetMaxPcieLinkGeneration(nvmlDevice_t device, unsigned int* generation) {
  return ask_server(device, ManagementQuestion::max_pcie_generation, generation);
}
nvmlReturn_t nvmlDeviceGetMaxPcieLinkWidth(nvmlDevice_t device, unsigned int* width) {
  return ask_server(device, ManagementQuestion::max_pcie_width, width);
}
nvmlReturn_t nvmlDeviceGetCurrPcieLinkGeneration(nvmlDevice_t device, unsigned int* generation) {
  return ask_server(device, ManagementQuestion::pcie_generation, generation);
}
nvmlReturn_t nvmlDeviceGetCurrPcieLinkWidth(nvmlDevice_t device, unsigned int* width) {
  return ask_server(device, ManagementQuestion::pcie_width, width);
}
nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t device, nvmlPcieUtilCounter_t counter,
                                         unsigned int* value) {
  if (counter != NVML_PCIE_UTIL_TX_BYTES && counter != NVML_PCIE_UTIL_RX_BYTES) {
    return NVML_ERROR_INVALID_ARGUMENT;
  }
  return ask_server(device, ManagementQuestion::pcie_throughput, value, counter);
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t* out) {
  return with_device(device, [&](const Device& found) {
    uint64_t used = 0, total = 0;
    if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
    const nvmlReturn_t result = memory(found, &used, &total);
    if (result == NVML_SUCCESS) *out = {total, total - used, used};
    return result;
  });
}
nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t* out) {
  return with_device(device, [&](const Device& found) {
    uint64_t used = 0, total = 0;
    if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
    if (out->version != nvmlMemory_v2) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    const nvmlReturn_t result = memory(found, &used, &total);
    if (result != NVML_SUCCESS) return result;
    out->total = total;
    out->reserved = 0;
    out->free = total - used;
    out->used = used;
    return NVML_SUCCESS;
  });
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int* major, int* minor) {
  return with_device(device, [&](const Device& found) {
    if (major == nullptr || minor == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
    *major = found.attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
    *minor = found.attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    return NVML_SUCCESS;
  });
}
nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t device, nvmlDeviceArchitecture_t* out) {
  return put(device, out, [](const Device& found) {
    return architecture(found.attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
                        found.attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR));
  });
}
nvmlReturn_t nvmlDeviceGetMemoryBusWidth(nvmlDevice_t device, unsigned int* width) {
  return put(device, width, [](const Device& found) {
    return found.attribute(CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH);
  });
}
nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, nvmlClockType_t type,
                                    unsigned int* clock) {
  return clock_of(device, type, clock);
}
nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, nvmlClockType_t type,
                                       unsigned int* clock) {
  return clock_of(device, type, clock);
}
nvmlReturn_t nvmlDeviceGetComputeMode(nvmlDevice_t device, nvmlComputeMode_t* mode) {
  return put(device, mode, [](const Device&) { return NVML_COMPUTEMODE_DEFAULT; });
}
nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, nvmlEnableState_t* mode) {
  return put(device, mode, [](const Device&) { return NVML_FEATURE_ENABLED; });
}
nvmlReturn_t nvmlDeviceGetDisplayMode(nvmlDevice_t device, nvmlEnableState_t* mode) {
  return put(device, mode, [](const Device&) { return NVML_FEATURE_DISABLED; });
}
nvmlReturn_t nvmlDeviceGetDisplayActive(nvmlDevice_t device, nvmlEnableState_t* mode) {
  return put(device, mode, [](const Device&) { return NVML_FEATURE_DISABLED; });
}
nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int* is) {
  return put(device, is, [](const Device&) { return 0; });
}
nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int* count) {
  return put(device, count, [](const Device&) { return 0; });
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t device, unsigned int* count,
                                                  nvmlProcessInfo_v1_t*) {
  return no_processes(device, count);
}
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned int* count,
                                                     nvmlProcessInfo_v2_t*) {
  return no_processes(device, count);
}
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int* count,
                                                     nvmlProcessInfo_t*) {
  return no_processes(device, count);
}
nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses(nvmlDevice_t device, unsigned int* count,
                                                   nvmlProcessInfo_v1_t*) {
  return no_processes(device, count);
}
nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v2(nvmlDevice_t device, unsigned int* count,
                                                      nvmlProcessInfo_v2_t*) {
  return no_processes(device, count);
}
nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned int* count,
                                                      nvmlProcessInfo_t*) {
  return no_processes(device, count);
}

}  // extern "C"
