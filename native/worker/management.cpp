// What the NVML beside the driver says of a device, asked beside the loop: it may take its time.
// SPDX-License-Identifier: Apache-2.0
#include "wire/management.hpp"

#include <dlfcn.h>

#include <array>
#include <string>

#include "base/log.hpp"
#include "worker/devices.hpp"
#include "worker/worker.hpp"

namespace outboard::worker {
namespace {

constexpr uint32_t not_supported = 3;  // NVML's

// How a function of NVML takes what goes with the question and gives what it says.
enum class Form { number, one_argument, two_arguments, field, pci };

struct Question {
  const char* function;
  Form form;
};
constexpr std::array<Question, static_cast<size_t>(wire::ManagementQuestion::count)> questions = {{
    {"nvmlDeviceGetMaxPcieLinkGeneration", Form::number},
    {"nvmlDeviceGetMaxPcieLinkWidth", Form::number},
    {"nvmlDeviceGetCurrPcieLinkGeneration", Form::number},
    {"nvmlDeviceGetCurrPcieLinkWidth", Form::number},
    {"nvmlDeviceGetPcieThroughput", Form::one_argument},
    {"nvmlDeviceGetNvLinkState", Form::one_argument},
    {"nvmlDeviceGetNvLinkVersion", Form::one_argument},
    {"nvmlDeviceGetNvLinkCapability", Form::two_arguments},
    {"nvmlDeviceGetNvLinkRemoteDeviceType", Form::one_argument},
    {"nvmlDeviceGetFieldValues", Form::field},
    {"nvmlDeviceGetNvLinkRemotePciInfo_v2", Form::pci},
}};

struct Answer {
  uint32_t status = not_supported;
  uint64_t value = 0;
  uint32_t type = 0;
};

// nvmlFieldValue_t.
struct Field {
  uint32_t id, scope;
  int64_t timestamp, latency_us;
  uint32_t type, status;
  uint64_t value;
};

// nvmlPciInfo_t of driver 580.
struct Pci {
  char legacy_id[16];
  uint32_t domain, bus, device, device_id, subsystem_id;
  char id[32];
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
  if (!library) {
    say("worker: programs get nothing from NVML: %s", ::dlerror());
    return nullptr;
  }
  const auto start = symbol<int (*)()>(library, "nvmlInit_v2");
  const int status = start ? start() : -1;
  if (status != 0) say("worker: programs get nothing from NVML: it starts with %d", status);
  return status == 0 ? library : nullptr;
}

Answer ask(const Driver& driver, const std::string& uuid, const Question& question,
           const wire::command::ManagementNumber& asked) {
  static void* const library = open_nvml(driver);
  if (!library) return {};
  const auto find = symbol<uint32_t (*)(const char*, void**)>(library, "nvmlDeviceGetHandleByUUID");
  void* device = nullptr;
  if (!find || find(uuid.c_str(), &device) != 0) return {};
  void* function = ::dlsym(library, question.function);
  if (!function) return {};
  uint32_t status = not_supported;
  uint32_t number = 0;
  Pci pci = {};
  switch (question.form) {
    case Form::number:
      status = reinterpret_cast<uint32_t (*)(void*, uint32_t*)>(function)(device, &number);
      break;
    case Form::one_argument:
      status = reinterpret_cast<uint32_t (*)(void*, uint32_t, uint32_t*)>(function)(
          device, asked.first, &number);
      break;
    case Form::two_arguments:
      status = reinterpret_cast<uint32_t (*)(void*, uint32_t, uint32_t, uint32_t*)>(function)(
          device, asked.first, asked.second, &number);
      break;
    case Form::field: {
      Field field = {};
      field.id = asked.first;
      field.scope = asked.second;
      status = reinterpret_cast<uint32_t (*)(void*, int, Field*)>(function)(device, 1, &field);
      return {status != 0 ? status : field.status, field.value, field.type};
    }
    case Form::pci:
      status = reinterpret_cast<uint32_t (*)(void*, uint32_t, Pci*)>(function)(device, asked.first,
                                                                               &pci);
      return {status, uint64_t{pci.domain} << 16 | pci.bus << 8 | pci.device, 0};
  }
  return {status, number, 0};
}

}  // namespace

void execute(Worker& worker, const Request& request,
             const wire::command::ManagementNumber& command) {
  CUdevice device = 0;
  const CUresult result = worker.find_device(command.device, &device);
  if (result != CUDA_SUCCESS) return worker.answer(request, result);
  if (command.question >= questions.size()) return worker.answer(request, CUDA_ERROR_INVALID_VALUE);
  auto answer = std::make_shared<Answer>();
  worker.side.start([&driver = worker.driver(), uuid = uuid_text(worker.driver(), device), answer,
                     question = questions[command.question],
                     command] { *answer = ask(driver, uuid, question, command); },
                    [&worker, request, answer] {
                      wire::command::ManagementNumber::Reply reply;
                      reply.status = answer->status;
                      reply.type = answer->type;
                      reply.value = answer->value;
                      worker.reply(request, CUDA_SUCCESS, reply);
                    });
}

}  // namespace outboard::worker
