// Session and connections of a program that asks NVML.
// SPDX-License-Identifier: Apache-2.0
#include "shim/nvml/devices.hpp"

#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <vector>

#include "base/log.hpp"
#include "base/sha256.hpp"
#include "client/process.hpp"
#include "client/session_file.hpp"

namespace outboard::nvml {
namespace {

constexpr int newest_version = 13000;
constexpr unsigned max_devices = 256;

// No objects live on these connections, so nothing but answers ever comes.
class Silent final : public client::Owner {
 public:
  client::StreamProgress* stream(uint64_t) override { return nullptr; }
  void host_function(uint64_t) override {}
  void graph_function(client::Server*, uint64_t, uint64_t) override {}
  void released(uint64_t) override {}
  void refused(wire::Op, client::Result, uint64_t) override {}
  void fatal(client::Result, uint64_t) override {}
  void lost() override {}
};

struct State {
  pid_t pid = 0;  // of the process that opened it: a child opens its own
  client::Session session;
  std::vector<Device> devices;
  std::vector<client::Server*> servers;
};

constinit std::mutex mutex;
State& state() {
  static auto* const instance = new State;
  return *instance;
}
char handles[max_devices];  // the address is the handle

std::string uuid_text(const client::DeviceSnapshot& snapshot) {
  const std::string digits = hex(snapshot.uuid);
  return "GPU-" + digits.substr(0, 8) + "-" + digits.substr(8, 4) + "-" + digits.substr(12, 4) +
         "-" + digits.substr(16, 4) + "-" + digits.substr(20);
}

nvmlReturn_t result_of(client::Result result) {
  if (result == client::result::lost) return NVML_ERROR_GPU_IS_LOST;
  return result == client::result::out_of_memory ? NVML_ERROR_INSUFFICIENT_RESOURCES
                                                 : NVML_ERROR_DRIVER_NOT_LOADED;
}

// With the mutex held.
nvmlReturn_t connect(uint32_t node) {
  State& self = state();
  if (self.servers[node] != nullptr) {
    return self.servers[node]->connection().is_lost() ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS;
  }
  static auto* const owner = new Silent;
  const auto count = static_cast<uint32_t>(
      std::count_if(self.devices.begin(), self.devices.end(),
                    [node](const Device& device) { return device.node == node; }));
  if (self.session.from_service) {
    // Its ticket is of a minute only, and the service may have been in standby when it gave it.
    client::Session fresh;
    client::SessionError error;
    if (client::read_session(&fresh, &error, client::Want::inventory) &&
        fresh.devices.size() == self.devices.size() &&
        fresh.nodes.size() == self.session.nodes.size()) {
      self.session = std::move(fresh);
    }
  }
  client::Result result = client::result::success;
  std::string reason;
  client::Server* server = client::Server::open(self.session, node, count, owner, &result, &reason);
  if (server == nullptr) {
    static const char said[] = "connect";
    say_once(said, "no GPUs: %s", reason.c_str());
    return result_of(result);
  }
  if (!client::running()) client::mark_running();
  self.servers[node] = server;
  for (Device& device : self.devices) {
    if (device.node != node) continue;
    const client::DeviceSnapshot& snapshot = server->welcome().devices[device.index];
    device.server = server;
    device.name = snapshot.name;
    device.uuid = uuid_text(snapshot);
    device.share_bytes = snapshot.total_bytes;
  }
  return NVML_SUCCESS;
}

}  // namespace

int Device::attribute(int which) const {
  for (const auto& [attribute, value] : server->welcome().devices[index].attributes) {
    if (attribute == which) return value;
  }
  return 0;
}

int Device::peer_attribute(const Device& peer, int which) const {
  if (server != peer.server) return 0;
  return server->welcome().devices[index].peer_attribute(peer.index, which);
}

nvmlReturn_t open_session() {
  const std::lock_guard guard(mutex);
  State& self = state();
  if (self.pid == ::getpid()) return NVML_SUCCESS;
  client::Session session;
  client::SessionError error;
  if (!client::read_session(&session, &error, client::Want::inventory)) {
    static const char said[] = "session";
    say_once(said, "%s", error.reason.c_str());
    return NVML_ERROR_DRIVER_NOT_LOADED;
  }
  self.session = std::move(session);
  self.servers.assign(self.session.nodes.size(), nullptr);
  self.devices.clear();
  std::vector<uint32_t> count(self.session.nodes.size());
  for (const client::SessionDevice& entry : self.session.devices) {
    if (self.devices.size() == max_devices) break;
    Device device;
    device.node = entry.node;
    device.index = count[entry.node]++;
    device.name = entry.name;
    device.uuid = entry.uuid;
    device.share_bytes = entry.share_bytes;
    self.devices.push_back(std::move(device));
  }
  self.pid = ::getpid();
  return NVML_SUCCESS;
}

unsigned device_count() {
  const std::lock_guard guard(mutex);
  return static_cast<unsigned>(state().devices.size());
}

nvmlDevice_t handle_of(unsigned index) { return reinterpret_cast<nvmlDevice_t>(&handles[index]); }

int index_of(nvmlDevice_t handle) {
  const auto offset = reinterpret_cast<const char*>(handle) - handles;
  const std::lock_guard guard(mutex);
  return offset >= 0 && static_cast<size_t>(offset) < state().devices.size()
             ? static_cast<int>(offset)
             : -1;
}

nvmlReturn_t find_device(nvmlDevice_t handle, const Device** device) {
  const int index = index_of(handle);
  if (index < 0) return NVML_ERROR_INVALID_ARGUMENT;
  const std::lock_guard guard(mutex);
  Device& found = state().devices[static_cast<size_t>(index)];
  const nvmlReturn_t result = connect(found.node);
  *device = &found;
  return result;
}

nvmlReturn_t memory(const Device& device, uint64_t* used_bytes, uint64_t* total_bytes) {
  client::Answer<wire::command::MemoryGetInfo> answer;
  device.server->connection().call(wire::command::MemoryGetInfo{.device = device.index}, 0,
                                   &answer);
  if (answer.result != client::result::success) return result_of(answer.result);
  *total_bytes = answer.reply.total_bytes;
  *used_bytes =
      answer.reply.total_bytes - std::min(answer.reply.total_bytes, answer.reply.free_bytes);
  return NVML_SUCCESS;
}

nvmlReturn_t ask(const Device& device, wire::ManagementQuestion question, unsigned first,
                 unsigned second, uint64_t* out, unsigned* type) {
  client::Answer<wire::command::ManagementNumber> answer;
  const wire::command::ManagementNumber command{.device = device.index,
                                                .question = static_cast<uint32_t>(question),
                                                .first = first,
                                                .second = second};
  device.server->connection().call(command, 0, &answer);
  if (answer.result != client::result::success) return result_of(answer.result);
  if (answer.reply.status == NVML_SUCCESS) *out = answer.reply.value;
  if (type != nullptr) *type = answer.reply.type;
  return static_cast<nvmlReturn_t>(answer.reply.status);
}

nvmlReturn_t cuda_version(int* version) {
  const std::lock_guard guard(mutex);
  *version = newest_version;
  for (uint32_t node = 0; node < state().servers.size(); ++node) {
    if (const nvmlReturn_t result = connect(node); result != NVML_SUCCESS) return result;
    *version = std::min(*version, state().servers[node]->welcome().driver_version);
  }
  return NVML_SUCCESS;
}

}  // namespace outboard::nvml
