// Orders of the agent.
// SPDX-License-Identifier: Apache-2.0
#include "worker/control.hpp"

#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/sha256.hpp"

namespace outboard::worker {
namespace {

using nlohmann::json;

constexpr size_t most_packet_bytes = 32 << 10;
constexpr size_t most_descriptors = 8;

std::vector<UniqueFd> take_descriptors(msghdr& message) {
  std::vector<UniqueFd> descriptors;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
      descriptors.emplace_back(fd);
    }
  }
  return descriptors;
}

bool read_claim(const json& document, Order& order) {
  const auto devices = document.find("devices");
  if (devices == document.end() || !devices->is_array() || order.descriptors.size() < 2) {
    return false;
  }
  for (const json& entry : *devices) {
    if (!entry.is_object() || !entry.contains("index") || !entry["index"].is_number_integer() ||
        !entry.contains("share_bytes") || !entry["share_bytes"].is_number_integer()) {
      return false;
    }
    order.devices.push_back({entry["index"].get<int>(), entry["share_bytes"].get<uint64_t>()});
  }
  const auto slot = document.find("slot");
  if (slot == document.end() || !slot->is_number_unsigned()) return false;
  order.slot = slot->get<unsigned>();
  order.session = document.value("session", "");
  order.memory_socket = document.value("memory_socket", "");
  return !order.devices.empty();
}

void interpret(std::string_view packet, Order& order) {
  const json document = json::parse(packet, nullptr, false);
  order.kind = Order::Kind::unknown;
  if (!document.is_object() || !document.contains("type") || !document["type"].is_string()) return;
  const auto type = document["type"].get<std::string>();
  if (type == "claim" && read_claim(document, order)) order.kind = Order::Kind::claim;
  if (type == "bulk" && order.descriptors.size() == 1) order.kind = Order::Kind::bulk;
  if (type == "memory" && order.descriptors.size() == 1) order.kind = Order::Kind::memory;
  if (const auto key = document.find("key"); key != document.end()) {
    // A key that cannot be read must not turn into a connection without one.
    if (!key->is_string() || !from_hex(key->get<std::string>(), order.key.emplace())) {
      order.kind = Order::Kind::unknown;
    }
  }
  if (type == "neighbour" && order.descriptors.size() <= 1) {
    order.kind = Order::Kind::neighbour;
    const auto worker = document.find("worker");
    if (worker != document.end() && worker->is_string()) order.worker = worker->get<std::string>();
  }
  if (type == "end") {
    order.kind = Order::Kind::end;
    const auto reason = document.find("reason");
    if (reason != document.end() && reason->is_string()) order.reason = reason->get<std::string>();
  }
}

}  // namespace

void Control::send(const std::string& packet) {
  if (socket_) ::send(socket_.get(), packet.data(), packet.size(), MSG_NOSIGNAL);
}

void Control::send_ready(const std::string& protocol, int driver_version) {
  send(json{{"type", "ready"}, {"protocol", protocol}, {"driver_version", driver_version}}.dump());
}

void Control::send_failed(const std::string& message) {
  send(json{{"type", "failed"}, {"message", message}}.dump(-1, ' ', false,
                                                           json::error_handler_t::replace));
}

void Control::send_reach(const std::string& worker) {
  send(json{{"type", "reach"}, {"worker", worker}}.dump());
}

void Control::call() {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (agent_socket_.size() >= sizeof address.sun_path) return;
  std::memcpy(address.sun_path, agent_socket_.c_str(), agent_socket_.size() + 1);
  // Never waits: a full backlog is EAGAIN, and the call is made again.
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket ||
      ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return;
  }
  socket_ = std::move(socket);
  send(json{{"type", "adopt"}, {"id", id_}}.dump());
}

Order Control::receive() {
  Order order;
  std::vector<char> packet(most_packet_bytes);
  alignas(cmsghdr) char rights[CMSG_SPACE(most_descriptors * sizeof(int))];
  iovec part{packet.data(), packet.size()};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = rights;
  message.msg_controllen = sizeof rights;
  const ssize_t count = ::recvmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return order;
  if (count <= 0) {
    order.kind = Order::Kind::closed;
    return order;
  }
  order.descriptors = take_descriptors(message);
  interpret({packet.data(), static_cast<size_t>(count)}, order);
  return order;
}

}  // namespace outboard::worker
