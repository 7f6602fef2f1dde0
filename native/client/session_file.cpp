// The session file: where it is looked for, when it is trusted, what it must say.
// SPDX-License-Identifier: Apache-2.0
#include "client/session_file.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/fds.hpp"
#include "base/log.hpp"
#include "base/sha256.hpp"
#include "client/json.hpp"
#include "transport/tcp.hpp"

namespace outboard::client {
namespace {

constexpr size_t max_file_bytes = 64u << 10;
constexpr int ticket_timeout_ms = 10'000;
// The request of the machine's service, which is there for as long as the service is installed.
constexpr const char* installed_service = "/etc/systemd/system/outboard@default.service.d";

std::string error_text(int code) {
  char text[128];
  return ::strerror_r(code, text, sizeof text);
}

bool read_nodes(const Json& list, const Session& session, std::vector<SessionNode>* nodes) {
  for (const Json& entry : list) {
    SessionNode node;
    if (!entry.is_object() || !json_string(entry, "address", &node.address)) return false;
    if (!json_string(entry, "name", &node.name)) node.name = node.address;
    if (!json_string(entry, "tls", &node.tls)) node.tls = "none";
    node.grant = session.grant;
    node.key = session.key;
    std::string key;
    if (entry.contains("grant") && (!json_string(entry, "grant", &node.grant) ||
                                    !json_string(entry, "key", &key) || !from_hex(key, node.key))) {
      return false;
    }
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

constexpr const char* machine_folder = "/run/outboard/";
constexpr const char* not_running =
    "the GPU service of this machine is not running; see why: outboard status";
constexpr const char* not_for_this_user =
    "the GPU service here is for another user; ask who administers this machine";

// What the service says before it answers: one line for people, while it waits for a GPU.
// Returns how long its answer may take from now on.
int show_notice(const Json& line) {
  std::string notice;
  uint64_t wait_s = 0;
  json_string(line, "notice", &notice);
  json_unsigned(line, "wait_s", &wait_s);
  say("%s", notice.c_str());
  return ticket_timeout_ms + static_cast<int>(std::min<uint64_t>(wait_s, 86'400)) * 1000;
}

bool connect_to(const std::string& path, UniqueFd* fd, std::string* reason) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    *reason = "its socket's path is too long";
    return false;
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  *fd = UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (*fd && ::connect(fd->get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) {
    return true;
  }
  *reason = errno == EACCES ? not_for_this_user : not_running;
  return false;
}

// One request; notices, then one line back. The service knows who asks by SO_PEERCRED.
bool ask_socket(const std::string& path, Want want, Json* answer, std::string* reason) {
  UniqueFd fd;
  if (!connect_to(path, &fd, reason)) return false;
  const std::string request = std::string("{\"version\":1,\"want\":\"") +
                              (want == Want::ticket ? "ticket" : "inventory") + "\"}\n";
  iovec part{const_cast<char*>(request.data()), request.size()};
  if (transport::send_all(fd.get(), {&part, 1}) != transport::Status::ok) {
    *reason = "the GPU service closed the connection; see why: outboard status";
    return false;
  }
  std::string text;
  int timeout_ms = ticket_timeout_ms;
  for (;;) {
    const size_t end = text.find('\n');
    if (end == std::string::npos) {
      char piece[4096];
      size_t count = 0;
      if (text.size() >= max_file_bytes ||
          transport::receive_some(fd.get(), std::as_writable_bytes(std::span(piece)), &count,
                                  timeout_ms) != transport::Status::ok) {
        *reason = "the GPU service gave no ticket; see why: outboard status";
        return false;
      }
      text.append(piece, count);
      continue;
    }
    *answer = Json::parse(text.substr(0, end), nullptr, false);
    if (!answer->is_object() || !answer->contains("notice")) return true;
    timeout_ms = show_notice(*answer);
    text.erase(0, end + 1);
  }
}

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

std::string find_path(std::string* reason) {
  if (const char* named = ::secure_getenv("OUTBOARD_SESSION"); named != nullptr && *named != 0) {
    if (exists(named)) return named;
    *reason = std::string(named).starts_with(machine_folder)
                  ? std::string("no GPUs: ") + not_running
                  : std::string("OUTBOARD_SESSION names ") + named +
                        ", which is not there (the session has ended); start again with: outboard "
                        "run -- COMMAND";
    return {};
  }
  const std::string uid = std::to_string(::geteuid());
  // A user's own service, what the machine holds for this user alone, what it holds for everybody.
  for (const std::string& path : {"/run/user/" + uid + "/outboard/session.json",
                                  std::string(machine_folder) + "users/" + uid + ".json",
                                  std::string(machine_folder) + "default/session.json"}) {
    if (exists(path)) return path;
  }
  *reason = exists(installed_service)
                ? std::string("no GPUs: ") + not_running
                : "no GPU session here; start the program with: outboard run -- COMMAND";
  return {};
}

}  // namespace

bool read_checked_file(const std::string& path, uint64_t uid, std::string* text, bool* private_file,
                       std::string* reason) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  struct stat info;
  if (!fd && errno == EACCES && path.starts_with(machine_folder)) {
    *reason = not_for_this_user;
    return false;
  }
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

static bool parse_document(const Json& document, bool private_file, Session* session,
                           std::string* socket, std::string* reason) {
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
  if (!document.contains("nodes") || !read_nodes(document["nodes"], *session, &session->nodes) ||
      !document.contains("devices") ||
      !read_devices(document["devices"], session->nodes.size(), &session->devices)) {
    *reason = "its nodes or devices are malformed";
    return false;
  }
  return true;
}

bool parse_session(const std::string& text, bool private_file, Session* session,
                   std::string* socket, std::string* reason) {
  return parse_document(Json::parse(text, nullptr, false), private_file, session, socket, reason);
}

bool read_session(Session* session, SessionError* error, Want want) {
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
  Json answer;
  if (!ask_socket(socket, want, &answer, &reason)) {
    error->reason = "no GPUs: " + reason;
    return false;
  }
  if (answer.is_object() && answer.contains("error")) {
    std::string message, hint;
    json_string(answer, "message", &message);
    json_string(answer, "hint", &hint);
    error->reason = "no GPUs: " + message + (hint.empty() ? "" : "; " + hint);
    return false;
  }
  // What came over the socket was readable by nobody else.
  std::string again;
  if (!parse_document(answer, true, session, &again, &reason) || !again.empty()) {
    error->reason = "no GPUs: the client service's answer cannot be used: " + reason;
    return false;
  }
  session->from_service = true;
  return true;
}

}  // namespace outboard::client
