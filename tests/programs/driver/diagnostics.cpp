// What a process is told of its own failures: the log of refused calls, settings of core dumps,
// and who is to be told of memory over budget. SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <algorithm>
#include <string>

#include "driver.hpp"

// Of cudaProfiler.h, which not every toolkit has.
extern "C" CUresult cuProfilerInitialize(const char* configuration, const char* output, int mode);

namespace {

std::vector<std::string> told;

void CUDA_CB listen(void* data, CUlogLevel level, char* message, size_t length) {
  if (data == &told && level == CU_LOG_LEVEL_ERROR) told.emplace_back(message, length);
}

bool heard(const std::string& what) {
  for (const std::string& message : told) {
    if (message == what) return true;
  }
  return false;
}

std::string logged(CUlogIterator* from) {
  std::string text(30000, '?');
  size_t bytes = text.size();
  CHECK(cuLogsDumpToMemory(from, text.data(), &bytes, 0));
  if (text[bytes] != '\0') return "no end";
  text.resize(bytes);
  return text;
}

void log(Program& program) {
  const std::string freed = "Returning 1 (CUDA_ERROR_INVALID_VALUE) from cuMemFree_v2";
  CUlogIterator from = 0;
  CHECK(cuLogsCurrent(&from, 0));
  CUlogsCallbackHandle listener = nullptr;
  CHECK(cuLogsRegisterCallback(listen, &told, &listener));
  program.expect(cuMemFree(0x1234) == CUDA_ERROR_INVALID_VALUE, "no memory to free");
  CHECK(cuCtxSetCurrent(nullptr));
  CUdeviceptr memory = 0;
  program.expect(cuMemAlloc(&memory, 4) == CUDA_ERROR_INVALID_CONTEXT, "no context");
  program.expect(
      heard(freed) && heard("Returning 201 (CUDA_ERROR_INVALID_CONTEXT) from cuMemAlloc_v2"),
      "who listens is told of what failed");
  const size_t before = told.size();
  CHECK(cuLogsUnregisterCallback(listener));
  program.expect(cuMemFree(0x1234) != CUDA_SUCCESS && told.size() == before, "no more listeners");

  const CUlogIterator start = from;
  const std::string text = logged(&from);
  const size_t at = text.find(freed + "\n");
  program.expect(text.starts_with("[") && text.find("][CUDA][E] ") != std::string::npos &&
                     at != std::string::npos && text.ends_with("\n"),
                 "the log has lines");
  program.expect(logged(nullptr).ends_with(text), "the log begins with what came first");
  CUlogIterator again = start;
  char small[16];
  size_t bytes = sizeof small;
  program.expect(
      cuLogsDumpToMemory(&again, small, &bytes, 0) == CUDA_ERROR_INVALID_VALUE && bytes == 0,
      "a line needs its room");
  std::string part(text.size() + 20, '?');
  bytes = text.size() / 2 + 100;
  again = start;
  CHECK(cuLogsDumpToMemory(&again, part.data(), &bytes, 0));
  program.expect(part.starts_with("The provided buffer is not large enough"),
                 "what is not all of it says so");
  again = 99999;
  bytes = part.size();
  program.expect(
      cuLogsDumpToMemory(&again, part.data(), &bytes, 0) == CUDA_ERROR_INVALID_VALUE &&
          cuLogsCurrent(nullptr, 0) == CUDA_ERROR_INVALID_VALUE &&
          cuLogsRegisterCallback(nullptr, nullptr, nullptr) == CUDA_ERROR_INVALID_VALUE &&
          cuLogsDumpToFile(nullptr, nullptr, 0) == CUDA_ERROR_INVALID_VALUE &&
          cuLogsDumpToFile(nullptr, "/nowhere/log", 0) == CUDA_ERROR_INVALID_VALUE,
      "what cannot be is refused");

  char path[] = "/tmp/diagnosticsXXXXXX";
  const int file = ::mkstemp(path);
  CHECK(cuLogsDumpToFile(nullptr, path, 0));
  std::string content(50000, '\0');
  content.resize(static_cast<size_t>(std::max<ssize_t>(::read(file, content.data(), 50000), 0)));
  program.expect(content.find(freed) != std::string::npos, "the log goes to a file");
  ::close(file);
  ::unlink(path);
}

bool flag(CUcoredumpSettings what, bool global) {
  bool value = false;
  size_t bytes = sizeof value;
  CHECK(global ? cuCoredumpGetAttributeGlobal(what, &value, &bytes)
               : cuCoredumpGetAttribute(what, &value, &bytes));
  return value;
}

void core_dumps(Program& program) {
  bool yes = true;
  int generation = CU_COREDUMP_SKIP_GLOBAL_MEMORY;
  size_t one = 1, four = 4, bytes = 0;
  char path[] = "/tmp/core.%h.%p";
  char back[1024] = {};
  size_t path_bytes = sizeof path;
  program.expect(!flag(CU_COREDUMP_ENABLE_ON_EXCEPTION, false) &&
                     flag(CU_COREDUMP_TRIGGER_HOST, true) && !flag(CU_COREDUMP_LIGHTWEIGHT, true),
                 "dumps are off");
  CHECK(cuCoredumpGetAttribute(CU_COREDUMP_FILE, nullptr, &bytes));
  program.expect(bytes == sizeof back, "a path has 1024 bytes");
  CHECK(cuCoredumpSetAttribute(CU_COREDUMP_ENABLE_ON_EXCEPTION, &yes, &one));
  CHECK(cuCoredumpSetAttribute(CU_COREDUMP_FILE, path, &path_bytes));
  CHECK(cuCoredumpSetAttribute(CU_COREDUMP_GENERATION_FLAGS, &generation, &four));
  CHECK(cuCoredumpSetAttributeGlobal(CU_COREDUMP_ENABLE_USER_TRIGGER, &yes, &one));
  CHECK(cuCoredumpSetAttributeGlobal(CU_COREDUMP_FILE, path, &path_bytes));
  program.expect(
      flag(CU_COREDUMP_ENABLE_ON_EXCEPTION, false) && flag(CU_COREDUMP_ENABLE_USER_TRIGGER, true),
      "settings are kept");
  bytes = sizeof back;
  CHECK(cuCoredumpGetAttribute(CU_COREDUMP_FILE, back, &bytes));
  program.expect(std::string(back) == path, "a context's path is as it was set");
  CHECK(cuCoredumpGetAttributeGlobal(CU_COREDUMP_FILE, back, &bytes));
  program.expect(std::string(back).ends_with("." + std::to_string(::getpid())),
                 "the process's has its number");
  generation = 0;
  CHECK(cuCoredumpGetAttribute(CU_COREDUMP_GENERATION_FLAGS, &generation, &four));
  program.expect(generation == CU_COREDUMP_SKIP_GLOBAL_MEMORY, "flags are kept");
  program.expect(
      cuCoredumpSetAttribute(CU_COREDUMP_ENABLE_USER_TRIGGER, &yes, &one) ==
              CUDA_ERROR_INVALID_VALUE &&
          cuCoredumpSetAttribute(CU_COREDUMP_PIPE, path, &path_bytes) == CUDA_ERROR_INVALID_VALUE &&
          cuCoredumpSetAttributeGlobal(CU_COREDUMP_PIPE, path, &path_bytes) ==
              CUDA_ERROR_NOT_SUPPORTED &&
          cuCoredumpSetAttributeGlobal(CU_COREDUMP_GENERATION_FLAGS, &generation, &one) ==
              CUDA_ERROR_INVALID_VALUE &&
          cuCoredumpSetAttributeGlobal(CU_COREDUMP_MAX, &yes, &one) == CUDA_ERROR_INVALID_VALUE &&
          cuCoredumpGetAttribute(CU_COREDUMP_ENABLE_ON_EXCEPTION, &yes, &four) ==
              CUDA_ERROR_INVALID_VALUE,
      "what cannot be is refused");
}

void notifications(Program& program, CUdevice device) {
  const auto ignore = [](CUasyncNotificationInfo*, void*, CUasyncCallbackHandle) {};
  CUasyncCallbackHandle handle = nullptr;
  CHECK(cuDeviceRegisterAsyncNotification(device, ignore, nullptr, &handle));
  program.expect(handle != nullptr, "a notification has a handle");
  program.expect(cuDeviceRegisterAsyncNotification(device, nullptr, nullptr, &handle) ==
                     CUDA_ERROR_INVALID_VALUE,
                 "nobody cannot be told");
  CHECK(cuDeviceUnregisterAsyncNotification(device, handle));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("diagnostics", argc, argv);
  const Device device;
  log(program);
  CHECK(cuCtxSetCurrent(device.context()));
  core_dumps(program);
  notifications(program, device.device());
  program.expect(cuProfilerInitialize("configuration", "output", 1) == CUDA_ERROR_NOT_SUPPORTED,
                 "nobody initialises a profiler so any more");
  return program.finish();
}
