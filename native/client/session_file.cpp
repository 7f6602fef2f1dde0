// The session file: where it is looked for, when it is trusted, what it must say.
// SPDX-License-Identifier: Apache-2.0
#include "client/session_file.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/fds.hpp"
#include "base/sha256.hpp"
#include "client/json.hpp"
#include "transport/tcp.hpp"

namespace outboard::client {
namespace {

constexpr size_t max_file_bytes = 64u << 10;
constexpr int ticket_timeout_ms = 10'000;

std::string error_text(int code) {
  char text[128];
  return ::strerror_r(code, text, sizeof text);
}

bool read_nodes(const Json& list, std::vector<SessionNode>* nodes) {
  for (const Json& entry : list) {
    SessionNode node;
    if (!entry.is_object() || !json_string(entry, "address", &node.address)) return false;
    if (!json_string(entry, "name", &node.name)) node.name = node.address;
    if (!json_string(entry, "tls", &node.tls)) node.tls = "none";
    nodes->push_back(std::move(node));
  }
  return !nodes->empty() && nodes->size() <= 64;
}

bool read_devices(const Json& list, size_t nodes, std::vector<SessionDevice>* devices) {
  for (const Json& entry : list) {
    SessionDevice device;
    uint64_t node = 0, index = 0;
    if (!entry.is_object() || !json_unsigned(entry, "node", &node) || node >= nodes ||
        !json_unsigned(entry, "index", &index) || index >= 4096) {
      return false;
    }
    device.node = static_cast<uint32_t>(node);
    device.index = static_cast<uint32_t>(index);
    json_string(entry, "uuid", &device.uuid);
    json_string(entry, "name", &device.name);
    json_unsigned(entry, "share_bytes", &device.share_bytes);
    devices->push_back(std::move(device));
  }
  return devices->size() <= 256;
}

// One request, one line back; the service knows who asks by SO_PEERCRED.
bool ask_socket(const std::string& path, std::string* line, std::string* reason) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    *reason = "its socket's path is too long";
    return false;
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd || ::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    *reason = "nobody answers on " + path + " (" + error_text(errno) +
              "); see whether the client service runs: systemctl status 'outboard@*'";
    return false;
  }
  char request[] = "{\"version\":1,\"want\":\"ticket\"}\n";
  iovec part{request, sizeof request - 1};
  if (transport::send_all(fd.get(), {&part, 1}) != transport::Status::ok) {
    *reason = "the client service closed the connection";
    return false;
  }
  char piece[4096];
  while (line->find('\n') == std::string::npos && line->size() < max_file_bytes) {
    size_t count = 0;
    if (transport::receive_some(fd.get(), std::as_writable_bytes(std::span(piece)), &count,
                                ticket_timeout_ms) != transport::Status::ok) {
      *reason = "the client service on " + path + " gave no ticket";
      return false;
    }
    line->append(piece, count);
  }
  line->resize(line->find('\n') == std::string::npos ? 0 : line->find('\n'));
  return !line->empty();
}

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

std::string find_path(std::string* reason) {
  if (const char* named = ::secure_getenv("OUTBOARD_SESSION"); named != nullptr && *named != 0) {
    if (!exists(named)) {
      *reason =
          std::string("OUTBOARD_SESSION names ") + named +
          ", which is not there (the session has ended); start again with: outboard run -- COMMAND";
      return {};
    }
    return named;
  }
  const std::string user = "/run/user/" + std::to_string(::geteuid()) + "/outboard/session.json";
  if (exists(user)) return user;
  const std::string machine = "/run/outboard/default/session.json";
  if (exists(machine)) return machine;
  *reason = "no GPU session here; start the program with: outboard run -- COMMAND";
  return {};
}

}  // namespace

bool read_checked_file(const std::string& path, uint64_t uid, std::string* text, bool* private_file,
                       std::string* reason) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  struct stat info;
  if (!fd || ::fstat(fd.get(), &info) != 0) {
    *reason = "cannot read " + path + " (" + error_text(errno) + ")";
    return false;
  }
  if (!S_ISREG(info.st_mode)) {
    *reason = path + " is not a regular file";
    return false;
  }
  if (info.st_uid != 0 && info.st_uid != uid) {
    *reason = path + " belongs to another user; it is not followed";
    return false;
  }
  if ((info.st_mode & 022) != 0) {
    *reason = path + " may be written by others; make it safe with: chmod go-w " + path;
    return false;
  }
  if (info.st_size > static_cast<off_t>(max_file_bytes)) {
    *reason = path + " is longer than 64 KiB";
    return false;
  }
  *private_file = (info.st_mode & 044) == 0;
  text->resize(max_file_bytes + 1);
  size_t used = 0;
  for (;;) {
    const ssize_t count = ::read(fd.get(), text->data() + used, text->size() - used);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0 || used + static_cast<size_t>(count) > max_file_bytes) break;
    used += static_cast<size_t>(count);
  }
  text->resize(used);
  return true;
}

bool parse_session(const std::string& text, bool private_file, Session* session,
                   std::string* socket, std::string* reason) {
  const Json document = Json::parse(text, nullptr, false);
  uint64_t version = 0;
  std::string form;
  if (!document.is_object() || !json_unsigned(document, "version", &version)) {
    *reason = "it is not a session file";
    return false;
  }
  if (version != 1) {
    *reason = "it is of version " + std::to_string(version) +
              ", this library reads version 1; install the same release on both sides";
    return false;
  }
  json_string(document, "session", &session->name);
  if (!json_string(document, "form", &form)) form = "inline";
  if (form == "socket") {
    if (json_string(document, "socket", socket) && !socket->empty()) return true;
    *reason = "its form is `socket`, but it names none";
    return false;
  }
  std::string key;
  if (form != "inline" || !json_string(document, "grant", &session->grant) ||
      !json_string(document, "key", &key) || !from_hex(key, session->key)) {
    *reason = "it has no grant and key";
    return false;
  }
  if (!private_file) {
    *reason = "it holds a key that others may read; make it private with: chmod 600";
    return false;
  }
  if (!document.contains("nodes") || !read_nodes(document["nodes"], &session->nodes) ||
      !document.contains("devices") ||
      !read_devices(document["devices"], session->nodes.size(), &session->devices)) {
    *reason = "its nodes or devices are malformed";
    return false;
  }
  return true;
}

bool read_session(Session* session, SessionError* error) {
  const std::string path = find_path(&error->reason);
  if (path.empty()) return false;
  session->path = path;
  std::string text, socket, reason;
  bool private_file = false;
  if (!read_checked_file(path, ::geteuid(), &text, &private_file, &reason)) {
    error->reason = "no GPUs: " + reason;
    return false;
  }
  if (!parse_session(text, private_file, session, &socket, &reason)) {
    error->reason = "no GPUs: the session file " + path + " cannot be used: " + reason;
    return false;
  }
  if (socket.empty()) return true;
  std::string line;
  if (!ask_socket(socket, &line, &reason)) {
    error->reason = "no GPUs: " + reason;
    return false;
  }
  const Json answer = Json::parse(line, nullptr, false);
  if (answer.is_object() && answer.contains("error")) {
    std::string message, hint;
    json_string(answer, "message", &message);
    json_string(answer, "hint", &hint);
    error->reason = "no GPUs: " + message + (hint.empty() ? "" : "; " + hint);
    return false;
  }
  // What came over the socket was readable by nobody else.
  std::string again;
  if (!parse_session(line, true, session, &again, &reason) || !again.empty()) {
    error->reason = "no GPUs: the client service's answer cannot be used: " + reason;
    return false;
  }
  return true;
}

}  // namespace outboard::client
