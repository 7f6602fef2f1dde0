// Preface, hello, welcome.
// SPDX-License-Identifier: Apache-2.0
#include "client/handshake.hpp"

#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "base/sha256.hpp"
#include "client/json.hpp"
#include "client/recorder.hpp"
#include "generated/protocol.hpp"
#include "transport/local.hpp"
#include "transport/tcp.hpp"

namespace outboard::client {
namespace {

constexpr int connect_timeout_ms = 10'000;
constexpr int welcome_timeout_ms = 60'000;  // a cold worker starts a driver and makes a context
constexpr uint32_t max_welcome_bytes = 4u << 20;
constexpr const char* release = "0.1.0";

// What a driver reads from the environment when it starts or compiles.
constexpr const char* forwarded[] = {"CUDA_DEVICE_MAX_CONNECTIONS",
                                     "CUDA_MODULE_LOADING",
                                     "CUDA_FORCE_PTX_JIT",
                                     "CUDA_DISABLE_PTX_JIT",
                                     "CUDA_MODULE_DATA_LOADING",
                                     "CUDA_FORCE_JIT",
                                     "CUDA_DISABLE_JIT"};

std::string read_text(const char* path) {
  std::string text;
  if (FILE* file = std::fopen(path, "re")) {
    char piece[1024];
    while (const size_t count = std::fread(piece, 1, sizeof piece, file)) text.append(piece, count);
    std::fclose(file);
  }
  while (!text.empty() && (text.back() == '\n' || text.back() == 0)) text.pop_back();
  return text;
}

// Field 22 of /proc/self/stat: with the pid it names a process for good. Names may hold blanks and
// parentheses, so fields are counted from the last ')'.
uint64_t start_time() {
  const std::string text = read_text("/proc/self/stat");
  size_t at = text.rfind(')');
  for (int field = 2; at != std::string::npos && field < 22; ++field) at = text.find(' ', at + 1);
  return at == std::string::npos ? 0 : std::strtoull(text.c_str() + at + 1, nullptr, 10);
}

uint64_t pid_namespace() {
  struct stat info;
  return ::stat("/proc/self/ns/pid", &info) == 0 ? info.st_ino : 0;
}

template <size_t n>
void read_hex(const Json& object, const char* name, std::array<uint8_t, n>* out) {
  std::string text;
  if (json_string(object, name, &text)) from_hex(text, *out);
}

bool read_device(const Json& entry, DeviceSnapshot* device) {
  if (!entry.is_object() || !json_string(entry, "name", &device->name)) return false;
  read_hex(entry, "uuid", &device->uuid);
  read_hex(entry, "luid", &device->luid);
  uint64_t flags = 0;
  json_unsigned(entry, "primary_flags", &flags);
  device->primary_flags = static_cast<uint32_t>(flags);
  if (!json_unsigned(entry, "total_bytes", &device->total_bytes)) return false;
  if (!json_unsigned(entry, "physical_bytes", &device->physical_bytes)) {
    device->physical_bytes = device->total_bytes;
  }
  const auto attributes = entry.find("attributes");
  if (attributes == entry.end() || !attributes->is_array()) return false;
  for (const Json& pair : *attributes) {
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_number_integer() ||
        !pair[1].is_number_integer()) {
      return false;
    }
    device->attributes.emplace_back(pair[0].get<int32_t>(), pair[1].get<int32_t>());
  }
  const auto p2p = entry.find("p2p");
  if (p2p == entry.end() || !p2p->is_array()) return true;
  for (const Json& row : *p2p) {
    auto& values = device->p2p.emplace_back();
    if (!row.is_array()) continue;
    for (const Json& value : row)
      values.push_back(value.is_number_integer() ? value.get<int32_t>() : 0);
  }
  return true;
}

bool read_granted(const Json& document, Welcome* welcome) {
  int64_t driver_version = 0, pid = 0;
  if (!json_string(document, "worker", &welcome->worker) ||
      !json_integer(document, "driver_version", &driver_version)) {
    return false;
  }
  json_string(document, "release", &welcome->release);
  json_string(document, "memory_socket", &welcome->memory_socket);
  json_integer(document, "pid", &pid);
  welcome->driver_version = static_cast<int32_t>(driver_version);
  welcome->pid = static_cast<int32_t>(pid);
  const auto software = document.find("software");
  welcome->software = software != document.end() && software->is_boolean() && software->get<bool>();
  const auto devices = document.find("devices");
  if (devices == document.end() || !devices->is_array()) return false;
  for (const Json& entry : *devices) {
    if (!read_device(entry, &welcome->devices.emplace_back())) return false;
  }
  return true;
}

// A refusal comes in the clear, in place of TLS's first answer.
bool protect(const SessionNode& node, transport::Connected* connection, std::string* reason) {
  const int fd = connection->fd.get();
  connection->tls = transport::Tls::handshake(fd, transport::Tls::Side::client, node.key,
                                              welcome_timeout_ms, reason);
  if (connection->tls) return true;
  std::byte head[8];
  if (::recv(fd, head, sizeof head, MSG_DONTWAIT) == sizeof head &&
      std::memcmp(head, "OUTE", 4) == 0) {
    *reason = read_refusal(fd, head);
    return false;
  }
  *reason = "no protected connection to " + node.name + " (" + node.address + "): " + *reason;
  return false;
}

std::string random_hex(size_t bytes) {
  std::array<uint8_t, 32> random{};
  if (::getrandom(random.data(), bytes, 0) != static_cast<ssize_t>(bytes)) {
    // Only before the kernel's pool is ready; the time and the process make the nonce unlike
    // others.
    timespec now;
    ::clock_gettime(CLOCK_REALTIME, &now);
    const uint64_t words[2] = {
        static_cast<uint64_t>(now.tv_nsec) ^ static_cast<uint64_t>(now.tv_sec),
        static_cast<uint64_t>(::getpid())};
    std::memcpy(random.data(), words, sizeof words);
  }
  return hex(std::span(random).first(bytes));
}

bool send_preface(const UniqueFd& fd, const SessionNode& node, const char* purpose,
                  const std::string& worker, std::string* reason) {
  std::string preface =
      make_preface(node, purpose, worker, random_hex(16), static_cast<uint64_t>(::time(nullptr)));
  if (preface.size() > 4096) {
    *reason = "the session's grant is too long";
    return false;
  }
  iovec part{preface.data(), preface.size()};
  if (transport::send_all(fd.get(), {&part, 1}) == transport::Status::ok) return true;
  *reason = "the node at " + node.address + " closed the connection";
  return false;
}

}  // namespace

std::string make_preface(const SessionNode& node, const char* purpose, const std::string& worker,
                         const std::string& nonce, uint64_t time) {
  const std::string signed_text = "outboard preface 1\n" + std::string(purpose) + "\n" +
                                  node.grant + "\n" + nonce + "\n" + std::to_string(time) + "\n" +
                                  worker;
  const Json document = {{"purpose", purpose},
                         {"release", release},
                         {"protocol", std::string(wire::protocol_hash_text)},
                         {"grant", node.grant},
                         {"nonce", nonce},
                         {"time", time},
                         {"worker", worker},
                         {"proof", hex(hmac_sha256(node.key, signed_text))}};
  const std::string text = document.dump(-1, ' ', false, Json::error_handler_t::replace);
  const uint16_t numbers[2] = {1, static_cast<uint16_t>(text.size())};
  std::string preface = "OUTB";
  preface.append(reinterpret_cast<const char*>(numbers), sizeof numbers);
  return preface + text;
}

transport::Connected open_connection(const SessionNode& node, const char* purpose,
                                     const std::string& worker, std::string* reason) {
  if (node.tls != "none" && node.tls != "psk") {
    *reason = "the node " + node.name + " asks for " + node.tls +
              ", which this release does not speak; install the same release on both sides";
    return {};
  }
  transport::Connected connection;
  connection.fd = transport::connect(node.address, connect_timeout_ms, reason);
  if (!connection.fd) {
    *reason += "; see whether the pool runs: outboard pool status";
    return {};
  }
  if (!send_preface(connection.fd, node, purpose, worker, reason)) return {};
  if (Recorder::on() && worker.empty()) {
    // Never a secret in a recording: whoever replays it has a driver, not this session.
    SessionNode blank;
    const std::string shown = make_preface(blank, purpose, worker, std::string(32, '0'), 0);
    Recorder::bytes(Direction::preface, std::as_bytes(std::span(shown)));
  }
  if (node.tls == "psk" && !protect(node, &connection, reason)) return {};
  return connection;
}

UniqueFd open_memory_connection(const SessionNode& node, const Welcome& welcome,
                                std::string* reason) {
  *reason = "the server is elsewhere";
  if (welcome.memory_socket.empty()) return {};
  UniqueFd fd = transport::connect_local(welcome.memory_socket, connect_timeout_ms);
  if (!fd) *reason = "nobody listens in this network namespace";
  if (!fd || !send_preface(fd, node, "memory", welcome.worker, reason)) return {};
  std::byte head[8];
  if (transport::receive_all(fd.get(), head, sizeof head, connect_timeout_ms) !=
      transport::Status::ok) {
    *reason = "the server gave no answer";
    return {};
  }
  if (std::memcmp(head, wire::memory_ready, sizeof head) == 0) return fd;
  *reason = read_refusal(fd.get(), head);
  return {};
}

std::string make_hello(const std::vector<Window>& windows) {
  Json document = {{"pid", ::getpid()},
                   {"start_time", start_time()},
                   {"boot_id", read_text("/proc/sys/kernel/random/boot_id")},
                   {"pid_namespace", pid_namespace()},
                   {"uid", ::getuid()},
                   {"program", read_text("/proc/self/comm")}};
  Json list = Json::array();
  for (const Window& window : windows)
    list.push_back({{"base", window.base}, {"size", window.bytes}});
  document["windows"] = std::move(list);
  Json environment = Json::object();
  for (const char* name : forwarded) {
    if (const char* value = ::getenv(name)) environment[name] = value;
  }
  document["environment"] = std::move(environment);
  return document.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string read_refusal(transport::Channel channel, const std::byte (&head)[8]) {
  uint16_t length = 0;
  std::memcpy(&length, head + 6, sizeof length);
  std::string text(length, 0);
  if (transport::receive_all(channel, text.data(), length, 2'000) != transport::Status::ok) {
    return "the node refused the session";
  }
  const Json document = Json::parse(text, nullptr, false);
  std::string code, message, hint;
  if (document.is_object()) {
    json_string(document, "code", &code);
    json_string(document, "message", &message);
    json_string(document, "hint", &hint);
  }
  if (message.empty()) message = "the node refused the session (" + code + ")";
  return hint.empty() ? message : message + "; " + hint;
}

WelcomeKind read_welcome(transport::Channel channel, Welcome* welcome, uint32_t* device,
                         std::string* reason) {
  std::byte head[8];
  if (transport::receive_all(channel, head, sizeof head, welcome_timeout_ms) !=
      transport::Status::ok) {
    *reason = "the server gave no answer; see its agent's log";
    return WelcomeKind::refused;
  }
  if (std::memcmp(head, "OUTE", 4) == 0) {
    *reason = read_refusal(channel, head);
    return WelcomeKind::refused;
  }
  uint32_t length = 0;
  uint16_t version = 0;
  std::memcpy(&version, head + 4, sizeof version);
  *reason = "the server's welcome cannot be read; install the same release on both sides";
  if (std::memcmp(head, "OUTW", 4) != 0 || version != 1 ||
      transport::receive_all(channel, &length, sizeof length, welcome_timeout_ms) !=
          transport::Status::ok ||
      length > max_welcome_bytes) {
    return WelcomeKind::refused;
  }
  std::string text(length, 0);
  if (transport::receive_all(channel, text.data(), length, welcome_timeout_ms) !=
      transport::Status::ok) {
    return WelcomeKind::refused;
  }
  if (Recorder::on()) {
    std::string whole(reinterpret_cast<const char*>(head), sizeof head);
    whole.append(reinterpret_cast<const char*>(&length), sizeof length);
    Recorder::bytes(Direction::welcome, std::as_bytes(std::span(whole += text)));
  }
  const Json document = Json::parse(text, nullptr, false);
  std::string window;
  if (!document.is_object() || !json_string(document, "window", &window)) {
    return WelcomeKind::refused;
  }
  uint64_t taken = 0;
  if (window == "taken" && json_unsigned(document, "device", &taken)) {
    *device = static_cast<uint32_t>(taken);
    return WelcomeKind::window_taken;
  }
  return window == "granted" && read_granted(document, welcome) ? WelcomeKind::granted
                                                                : WelcomeKind::refused;
}

}  // namespace outboard::client
