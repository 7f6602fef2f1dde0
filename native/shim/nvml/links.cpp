// How devices reach each other: peers and their links, as the server has them.
// SPDX-License-Identifier: Apache-2.0
#include <cuda.h>

#include <algorithm>
#include <cstring>
#include <span>

#include "shim/nvml/api.hpp"

using namespace outboard::nvml;
using outboard::wire::ManagementQuestion;

namespace {

// Of the fields that NVML knows a device by: what is of its links, and of no other user.
constexpr unsigned link_fields[] = {
    NVML_FI_DEV_NVLINK_LINK_COUNT,   NVML_FI_DEV_NVLINK_SPEED_MBPS_COMMON,
    NVML_FI_DEV_NVLINK_GET_SPEED,    NVML_FI_DEV_NVLINK_GET_STATE,
    NVML_FI_DEV_NVLINK_GET_VERSION,  NVML_FI_DEV_C2C_LINK_COUNT,
    NVML_FI_DEV_C2C_LINK_GET_STATUS, NVML_FI_DEV_C2C_LINK_GET_MAX_BW};

nvmlReturn_t read_field(const Device& device, nvmlFieldValue_t* field) {
  if (std::find(std::begin(link_fields), std::end(link_fields), field->fieldId) ==
      std::end(link_fields)) {
    return NVML_ERROR_NOT_SUPPORTED;
  }
  uint64_t value = 0;
  unsigned type = 0;
  const nvmlReturn_t result =
      ask(device, ManagementQuestion::field, field->fieldId, field->scopeId, &value, &type);
  if (result == NVML_SUCCESS) {
    field->valueType = static_cast<nvmlValueType_t>(type);
    field->value.ullVal = value;
  }
  return result;
}

}  // namespace

extern "C" {

nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t one, nvmlDevice_t other,
                                    nvmlGpuP2PCapsIndex_t index, nvmlGpuP2PStatus_t* status) {
  const Device* peer = nullptr;
  const nvmlReturn_t result = with_device(other, [&](const Device& found) {
    peer = &found;
    return NVML_SUCCESS;
  });
  if (result != NVML_SUCCESS) return result;
  const bool atomics = index == NVML_P2P_CAPS_INDEX_ATOMICS;
  const bool known =
      atomics || index == NVML_P2P_CAPS_INDEX_READ || index == NVML_P2P_CAPS_INDEX_WRITE;
  return put(one, status, [&](const Device& device) {
    const int which = atomics ? CU_DEVICE_P2P_ATTRIBUTE_NATIVE_ATOMIC_SUPPORTED
                              : CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED;
    return known && device.peer_attribute(*peer, which) != 0 ? NVML_P2P_STATUS_OK
                                                             : NVML_P2P_STATUS_NOT_SUPPORTED;
  });
}
nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned int link,
                                      nvmlEnableState_t* active) {
  return ask_server(device, ManagementQuestion::nvlink_state, active, link);
}
nvmlReturn_t nvmlDeviceGetNvLinkVersion(nvmlDevice_t device, unsigned int link,
                                        unsigned int* version) {
  return ask_server(device, ManagementQuestion::nvlink_version, version, link);
}
nvmlReturn_t nvmlDeviceGetNvLinkCapability(nvmlDevice_t device, unsigned int link,
                                           nvmlNvLinkCapability_t capability, unsigned int* value) {
  return ask_server(device, ManagementQuestion::nvlink_capability, value, link, capability);
}
nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t device, unsigned int link,
                                                 nvmlIntNvLinkDeviceType_t* type) {
  return ask_server(device, ManagementQuestion::nvlink_remote_type, type, link);
}
nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t device, unsigned int link,
                                                 nvmlPciInfo_t* pci) {
  uint64_t place = 0;
  if (pci == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  const nvmlReturn_t result = ask_server(device, ManagementQuestion::nvlink_remote, &place, link);
  if (result == NVML_SUCCESS) {
    put_pci(pci, static_cast<int64_t>(place >> 16), place >> 8 & 0xff, place & 0xff);
  }
  return result;
}
nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo(nvmlDevice_t device, unsigned int link,
                                              nvmlPciInfo_t* pci) {
  return nvmlDeviceGetNvLinkRemotePciInfo_v2(device, link, pci);
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t* values) {
  return with_device(device, [&](const Device& found) {
    if (count < 0 || (count != 0 && values == nullptr)) return NVML_ERROR_INVALID_ARGUMENT;
    for (nvmlFieldValue_t& field : std::span(values, static_cast<size_t>(count))) {
      field.timestamp = field.latencyUsec = 0;
      field.nvmlReturn = read_field(found, &field);
    }
    return NVML_SUCCESS;
  });
}
// Domains of links beyond one machine are not forwarded.
nvmlReturn_t nvmlDeviceGetGpuFabricInfo(nvmlDevice_t device, nvmlGpuFabricInfo_t* info) {
  return put(device, info, [](const Device&) { return nvmlGpuFabricInfo_t{}; });
}
nvmlReturn_t nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t device, nvmlGpuFabricInfoV_t* info) {
  return with_device(device, [&](const Device&) {
    if (info == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
    const unsigned version = info->version;
    // The size of the structure that the program knows is in its version.
    std::memset(info, 0, std::min<size_t>(version & 0xffffff, sizeof *info));
    info->version = version;
    return NVML_SUCCESS;
  });
}

}  // extern "C"
