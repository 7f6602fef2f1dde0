// The names through which cuda-gdb looks into a driver: present, and saying that nothing is there.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>

#define EXPORTED __attribute__((visibility("default")))

extern "C" {

// Functions. A debugger calls them or sets breakpoints on them.
EXPORTED int cudbgApiInit(uint32_t) { return 0; }
EXPORTED void cudbgApiAttach() {}
EXPORTED void cudbgApiDetach() {}
EXPORTED int cudbgMain() { return 0; }
EXPORTED int cudbgGetAPI(uint32_t, uint32_t, uint32_t, const void** api) {
  if (api != nullptr) *api = nullptr;
  return 1;  // CUDBG_ERROR_UNKNOWN
}
EXPORTED int cudbgGetAPIVersion(uint32_t* major, uint32_t* minor, uint32_t* revision) {
  if (major != nullptr) *major = 0;
  if (minor != nullptr) *minor = 0;
  if (revision != nullptr) *revision = 0;
  return 1;
}
EXPORTED void cudbgReportDriverApiError() {}
EXPORTED void cudbgReportDriverInternalError() {}

// Data. A debugger reads and writes these words.
EXPORTED uint32_t cudbgApiClientPid = 0;
EXPORTED uint32_t cudbgApiClientRevision = 0;
EXPORTED uint32_t cudbgAttachHandlerAvailable = 0;
EXPORTED uint32_t cudbgDebuggerCapabilities = 0;
EXPORTED uint32_t cudbgDebuggerInitialized = 0;
EXPORTED uint32_t cudbgDetachSuspendedDevicesMask = 0;
EXPORTED uint32_t cudbgEnableIntegratedMemcheck = 0;
EXPORTED uint32_t cudbgEnableLaunchBlocking = 0;
EXPORTED uint32_t cudbgEnablePreemptionDebugging = 0;
EXPORTED char cudbgInjectionPath[4096] = {};
EXPORTED uint32_t cudbgIpcFlag = 0;
EXPORTED uint32_t cudbgReportDriverApiErrorFlags = 0;
EXPORTED uint64_t cudbgReportedDriverApiErrorCode = 0;
EXPORTED uint64_t cudbgReportedDriverApiErrorFuncNameAddr = 0;
EXPORTED uint64_t cudbgReportedDriverApiErrorFuncNameSize = 0;
EXPORTED uint64_t cudbgReportedDriverApiErrorNameAddr = 0;
EXPORTED uint64_t cudbgReportedDriverApiErrorNameSize = 0;
EXPORTED uint64_t cudbgReportedDriverApiErrorSource = 0;
EXPORTED uint64_t cudbgReportedDriverApiErrorStringAddr = 0;
EXPORTED uint64_t cudbgReportedDriverApiErrorStringSize = 0;
EXPORTED uint64_t cudbgReportedDriverInternalErrorCode = 0;
EXPORTED uint32_t cudbgResumeForAttachDetach = 0;
EXPORTED uint32_t cudbgRpcEnabled = 0;
EXPORTED uint32_t cudbgSessionId = 0;
EXPORTED uint32_t cudbgUseExternalDebugger = 0;

}  // extern "C"
