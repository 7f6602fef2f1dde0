// Starting: the session, its servers, the devices that the program may see.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/runtime.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "base/log.hpp"
#include "base/sha256.hpp"
#include "client/recorder.hpp"
#include "client/session_file.hpp"
#include "generated/shim_api.hpp"
#include "generated/unsupported_attributes.hpp"
#include "shim/cuda/program.hpp"

namespace outboard::shim {

constinit Device* devices[max_devices] = {};
constinit int device_count = 0;
constinit bool software_gpu = false;
constinit int advertised_version = 13000;
thread_local constinit ThreadState thread_state;

constinit client::Slab<Context, 2048> contexts;
constinit client::Slab<GreenContext, 1u << 16> green_contexts;
constinit client::Slab<ResourceDescriptor, 1u << 16> resource_descriptors;
constinit client::Slab<Stream, 1u << 17> streams;
constinit client::Slab<Event, 1u << 20> events;
constinit client::Slab<Module, 1u << 17> modules;
constinit client::Slab<Function, 1u << 20> functions;
constinit client::Slab<Graph, 1u << 17> graphs;
constinit client::Slab<Node, 1u << 20> nodes;
constinit client::Slab<GraphExec, 1u << 17> graph_execs;
constinit client::Slab<Pool, 1024> pools;
constinit client::Slab<PhysicalMemory, 1u << 20> physical_memories;
constinit client::Slab<Array, 1u << 20> arrays;
constinit client::Slab<MipmappedArray, 1u << 17> mipmapped_arrays;
constinit client::Slab<TextureReference, 1u << 20> texture_references;

namespace {

// Memory of the program is no memory of a GPU that is elsewhere, whatever the server's own
// attributes say.
constexpr CUdevice_attribute absent[] = {
    CU_DEVICE_ATTRIBUTE_INTEGRATED,
    CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS,
    CU_DEVICE_ATTRIBUTE_DIRECT_MANAGED_MEM_ACCESS_FROM_HOST,
    CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS,
    CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES,
    CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM,
    CU_DEVICE_ATTRIBUTE_HOST_NATIVE_ATOMIC_SUPPORTED,
    CU_DEVICE_ATTRIBUTE_KERNEL_EXEC_TIMEOUT,
};

std::string uuid_text(const client::DeviceSnapshot& snapshot) {
  const std::string digits = hex(snapshot.uuid);
  return "GPU-" + digits.substr(0, 8) + "-" + digits.substr(8, 4) + "-" + digits.substr(12, 4) +
         "-" + digits.substr(16, 4) + "-" + digits.substr(20);
}

Device* make_device(client::Server* server, uint32_t index) {
  auto* device = new Device;
  device->server = server;
  device->index = index;
  device->snapshot = &server->welcome().devices[index];
  for (const auto& [attribute, value] : device->snapshot->attributes) {
    if (attribute > 0 && attribute < attribute_count) device->attributes[attribute] = value;
  }
  for (int attribute = 1; attribute < attribute_count; ++attribute) {
    if (attribute_unsupported(static_cast<CUdevice_attribute>(attribute))) {
      device->attributes[attribute] = 0;
    }
  }
  // Descriptors are all that is shared by.
  device->attributes[CU_DEVICE_ATTRIBUTE_MEMPOOL_SUPPORTED_HANDLE_TYPES] &=
      CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  for (const CUdevice_attribute attribute : absent) device->attributes[attribute] = 0;
  device->attributes[CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY] = 1;
  device->primary_flags = device->snapshot->primary_flags;
  return device;
}

// CUDA's rules: entries up to the first that names no device count; a device named twice means
// none.
std::vector<Device*> visible(std::vector<Device*> all) {
  if (const char* order = std::getenv("CUDA_DEVICE_ORDER");
      order != nullptr && std::string_view(order) == "PCI_BUS_ID") {
    const auto place = [](const Device* device) {
      return std::array{device->attributes[CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID],
                        device->attributes[CU_DEVICE_ATTRIBUTE_PCI_BUS_ID],
                        device->attributes[CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID]};
    };
    std::stable_sort(all.begin(), all.end(), [&](const Device* a, const Device* b) {
      return a->server == b->server && place(a) < place(b);
    });
  }
  const char* text = std::getenv("CUDA_VISIBLE_DEVICES");
  if (text == nullptr) return all;
  std::vector<Device*> chosen;
  for (std::string_view rest(text); !rest.empty();) {
    const size_t comma = std::min(rest.find(','), rest.size());
    std::string_view word = rest.substr(0, comma);
    rest.remove_prefix(std::min(comma + 1, rest.size()));
    while (!word.empty() && word.front() == ' ') word.remove_prefix(1);
    while (!word.empty() && word.back() == ' ') word.remove_suffix(1);
    Device* found = nullptr;
    if (word.starts_with("GPU-")) {
      for (Device* device : all) {
        if (!uuid_text(*device->snapshot).starts_with(word)) continue;
        if (found != nullptr) return chosen;  // the prefix is not unique
        found = device;
      }
    } else if (!word.empty() && word.find_first_not_of("0123456789") == std::string_view::npos) {
      const unsigned long index = std::strtoul(std::string(word).c_str(), nullptr, 10);
      if (index < all.size()) found = all[index];
    }
    if (found == nullptr) break;
    if (std::find(chosen.begin(), chosen.end(), found) != chosen.end()) return {};
    chosen.push_back(found);
  }
  return chosen;
}

CUresult refuse(CUresult result, const std::string& reason) {
  say("%s", reason.c_str());
  return result;
}

CUresult connect(const client::Session& session, std::vector<Device*>* all) {
  std::vector<client::Server*> servers(session.nodes.size());
  std::vector<uint32_t> count(session.nodes.size());
  for (const client::SessionDevice& device : session.devices) ++count[device.node];
  for (uint32_t node = 0; node < servers.size(); ++node) {
    if (count[node] == 0) continue;
    client::Result result = client::result::success;
    std::string reason;
    servers[node] = client::Server::open(session, node, count[node], program(), &result, &reason);
    if (servers[node] == nullptr) return refuse(to_cuda(result), "no GPUs: " + reason);
    const client::Welcome& welcome = servers[node]->welcome();
    advertised_version = std::min(advertised_version, welcome.driver_version);
    software_gpu = software_gpu || welcome.software;
  }
  std::fill(count.begin(), count.end(), 0);
  for (const client::SessionDevice& device : session.devices) {
    all->push_back(make_device(servers[device.node], count[device.node]++));
  }
  return CUDA_SUCCESS;
}

CUresult start_once() {
  if (client::forked_after_start()) return CUDA_ERROR_NOT_INITIALIZED;
  client::Session session;
  client::SessionError error;
  if (!client::read_session(&session, &error)) return refuse(CUDA_ERROR_NO_DEVICE, error.reason);
  if (session.devices.empty()) {
    return refuse(CUDA_ERROR_NO_DEVICE, "no GPUs: the session " + session.name + " has none");
  }
  client::Recorder::open();
  std::vector<Device*> all;
  if (const CUresult result = connect(session, &all); result != CUDA_SUCCESS) return result;
  const std::vector<Device*> chosen = visible(std::move(all));
  for (Device* device : chosen) {
    if (device_count == max_devices) break;
    device->ordinal = device_count;
    devices[device_count++] = device;
  }
  if (device_count == 0) return CUDA_ERROR_NO_DEVICE;  // CUDA_VISIBLE_DEVICES says so, as natively
  if (!client::mark_running()) {
    return refuse(CUDA_ERROR_OUT_OF_MEMORY, "cannot map a page; see ulimit -v");
  }
  if (tracing("calls") || std::getenv("OUTBOARD_TRACE") != nullptr) start_trace();
  return CUDA_SUCCESS;
}

}  // namespace

CUresult start() {
  static constinit std::mutex mutex;
  static constinit std::atomic<int> outcome{-1};
  int known = outcome.load(std::memory_order_acquire);
  if (known == CUDA_SUCCESS && !client::running()) return CUDA_ERROR_NOT_INITIALIZED;  // forked
  if (known >= 0) return static_cast<CUresult>(known);
  const std::lock_guard guard(mutex);
  known = outcome.load(std::memory_order_relaxed);
  if (known >= 0) return static_cast<CUresult>(known);
  const CUresult result = start_once();
  outcome.store(result, std::memory_order_release);
  return result;
}

}  // namespace outboard::shim
