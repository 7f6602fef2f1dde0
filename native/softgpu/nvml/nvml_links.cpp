// Links between devices: each has one to each other, in their order.
// SPDX-License-Identifier: Apache-2.0
#include "nvml_api.hpp"

using namespace softgpu;

namespace {

// The device at the other end of a link.
template <class Call>
nvmlReturn_t with_link(nvmlDevice_t device, unsigned int link, const void* out, Call&& call) {
  return with_device(device, [&](int index) {
    if (out == nullptr || link + 1 >= static_cast<unsigned>(config().devices)) {
      return NVML_ERROR_INVALID_ARGUMENT;
    }
    const int other = static_cast<int>(link);
    return call(device_handle(other < index ? other : other + 1));
  });
}

template <class T, class V>
nvmlReturn_t put_link(nvmlDevice_t device, unsigned int link, T* out, V value) {
  return with_link(device, link, out, [&](nvmlDevice_t) {
    *out = static_cast<T>(value);
    return NVML_SUCCESS;
  });
}

}  // namespace

extern "C" {

nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned int link,
                                      nvmlEnableState_t* out) {
  return put_link(device, link, out, NVML_FEATURE_ENABLED);
}
nvmlReturn_t nvmlDeviceGetNvLinkVersion(nvmlDevice_t device, unsigned int link, unsigned int* out) {
  return put_link(device, link, out, 4);
}
nvmlReturn_t nvmlDeviceGetNvLinkCapability(nvmlDevice_t device, unsigned int link,
                                           nvmlNvLinkCapability_t capability, unsigned int* out) {
  return put_link(device, link, out, capability <= NVML_NVLINK_CAP_P2P_ATOMICS);
}
nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t device, unsigned int link,
                                                 nvmlIntNvLinkDeviceType_t* out) {
  return put_link(device, link, out, NVML_NVLINK_DEVICE_TYPE_GPU);
}
nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t device, unsigned int link,
                                                 nvmlPciInfo_t* out) {
  return with_link(device, link, out,
                   [&](nvmlDevice_t other) { return nvmlDeviceGetPciInfo_v3(other, out); });
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t* values) {
  return with_device(device, [&](int) {
    for (int i = 0; i < count; ++i) {
      values[i].valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
      nvmlEnableState_t state = NVML_FEATURE_DISABLED;
      values[i].nvmlReturn = values[i].fieldId == NVML_FI_DEV_NVLINK_GET_STATE
                                 ? nvmlDeviceGetNvLinkState(device, values[i].scopeId, &state)
                                 : NVML_ERROR_NOT_SUPPORTED;
      values[i].value.uiVal = state;
    }
    return NVML_SUCCESS;
  });
}

}  // extern "C"
