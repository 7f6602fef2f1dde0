// What the NVML beside the driver says of a device, asked beside the loop: it may take its time.
// SPDX-License-Identifier: Apache-2.0
#include "wire/management.hpp"

#include <dlfcn.h>

#include <array>
#include <string>

#include "worker/devices.hpp"
#include "worker/worker.hpp"

namespace outboard::worker {
namespace {

constexpr uint32_t not_supported = 3;  // NVML's

struct Question {
  const char* function;
  int counter = -1;  ///< its second argument, where it has one
};
constexpr std::array<Question, static_cast<size_t>(wire::ManagementQuestion::count)> questions = {{
    {"nvmlDeviceGetMaxPcieLinkGeneration"},
    {"nvmlDeviceGetMaxPcieLinkWidth"},
    {"nvmlDeviceGetCurrPcieLinkGeneration"},
    {"nvmlDeviceGetCurrPcieLinkWidth"},
    {"nvmlDeviceGetPcieThroughput", 0},
    {"nvmlDeviceGetPcieThroughput", 1},
}};

struct Answer {
  uint32_t status = not_supported;
  uint32_t value = 0;
};

template <typename Function>
Function symbol(void* library, const char* name) {
  return reinterpret_cast<Function>(::dlsym(library, name));
}

// Started; null where there is none. It stays until the process ends.
void* open_nvml(const Driver& driver) {
  Dl_info of_driver = {};
  if (::dladdr(reinterpret_cast<void*>(driver.cuInit), &of_driver) == 0) return nullptr;
  const std::string path(of_driver.dli_fname);
  const std::string beside = path.substr(0, path.rfind('/') + 1) + "libnvidia-ml.so.1";
  if (is_shim(beside)) return nullptr;
  void* library = ::dlopen(beside.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) return nullptr;
  const auto start = symbol<int (*)()>(library, "nvmlInit_v2");
  return start && start() == 0 ? library : nullptr;
}

Answer ask(const Driver& driver, const std::string& uuid, const Question& question) {
  static void* const library = open_nvml(driver);
  if (!library) return {};
  const auto find = symbol<uint32_t (*)(const char*, void**)>(library, "nvmlDeviceGetHandleByUUID");
  void* device = nullptr;
  if (!find || find(uuid.c_str(), &device) != 0) return {};
  Answer answer;
  if (question.counter < 0) {
    const auto get = symbol<uint32_t (*)(void*, uint32_t*)>(library, question.function);
    if (get) answer.status = get(device, &answer.value);
  } else {
    const auto get = symbol<uint32_t (*)(void*, int, uint32_t*)>(library, question.function);
    if (get) answer.status = get(device, question.counter, &answer.value);
  }
  return answer;
}

}  // namespace

void execute(Worker& worker, const Request& request,
             const wire::command::ManagementNumber& command) {
  CUdevice device = 0;
  const CUresult result = worker.find_device(command.device, &device);
  if (result != CUDA_SUCCESS) return worker.answer(request, result);
  if (command.question >= questions.size()) return worker.answer(request, CUDA_ERROR_INVALID_VALUE);
  auto answer = std::make_shared<Answer>();
  worker.side.start(
      [&driver = worker.driver(), uuid = uuid_text(worker.driver(), device), answer,
       question = questions[command.question]] { *answer = ask(driver, uuid, question); },
      [&worker, request, answer] {
        wire::command::ManagementNumber::Reply reply;
        reply.status = answer->status;
        reply.value = answer->value;
        worker.reply(request, CUDA_SUCCESS, reply);
      });
}

}  // namespace outboard::worker
