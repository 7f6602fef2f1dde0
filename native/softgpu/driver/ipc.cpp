// The socket on which a process answers for what it shares.
// SPDX-License-Identifier: Apache-2.0
#include "ipc.hpp"

#include <pthread.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

namespace softgpu {
namespace {

using Name = std::array<uint8_t, 16>;

struct Registry {
  std::mutex mutex;
  Name process{};
  int answers = -1;
  std::map<std::pair<SharedKind, uint64_t>, Name> tokens;  // by object
  std::map<std::pair<SharedKind, Name>, Shared> shared;
};

Registry& registry() {
  static auto& value = *new Registry;
  return value;
}

/// An abstract name: it goes with the socket, whatever becomes of the process.
socklen_t address_of(const Name& process, sockaddr_un* address) {
  constexpr char kPrefix[] = "softgpu-";
  *address = {};
  address->sun_family = AF_UNIX;
  char* to = address->sun_path + 1;
  std::memcpy(to, kPrefix, sizeof kPrefix - 1);
  to += sizeof kPrefix - 1;
  for (uint8_t byte : process) {
    *to++ = "0123456789abcdef"[byte >> 4];
    *to++ = "0123456789abcdef"[byte & 15];
  }
  return static_cast<socklen_t>(to - reinterpret_cast<char*>(address));
}

void send_place(int socket, const sockaddr_un& to, socklen_t length, const SharedPlace& place) {
  SharedPlace copy = place;
  sockaddr_un address = to;
  iovec part{&copy, sizeof copy};
  alignas(cmsghdr) char rights[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_name = &address;
  message.msg_namelen = length;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (place.fd >= 0) {
    message.msg_control = rights;
    message.msg_controllen = sizeof rights;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &place.fd, sizeof(int));
  }
  // Whoever does not read must not hold up the others.
  sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

bool receive_place(int socket, SharedPlace* place) {
  iovec part{place, sizeof *place};
  alignas(cmsghdr) char rights[CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = rights;
  message.msg_controllen = sizeof rights;
  ssize_t count = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  place->fd = -1;
  const cmsghdr* header = count > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
  if (header != nullptr && header->cmsg_type == SCM_RIGHTS) {
    std::memcpy(&place->fd, CMSG_DATA(header), sizeof(int));
  }
  return count == sizeof *place && place->fd >= 0;
}

void serve(int socket) {
  for (;;) {
    SharedHandle handle;
    sockaddr_un from{};
    socklen_t length = sizeof from;
    ssize_t count =
        recvfrom(socket, &handle, sizeof handle, 0, reinterpret_cast<sockaddr*>(&from), &length);
    if (count < 0 && errno != EINTR) return;  // the program has closed what it does not know
    if (count != sizeof handle) continue;
    std::lock_guard lock(registry().mutex);
    auto found = registry().shared.find({handle.kind, handle.token});
    std::optional<SharedPlace> place;
    if (found != registry().shared.end()) place = found->second();
    send_place(socket, from, length, place.value_or(SharedPlace{}));
  }
}

/// With the lock held.
bool start(Registry& r) {
  if (r.answers >= 0) return true;
  sockaddr_un address;
  if (getrandom(r.process.data(), r.process.size(), 0) != static_cast<ssize_t>(r.process.size())) {
    return false;
  }
  int answers = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  socklen_t length = address_of(r.process, &address);
  if (answers < 0 || bind(answers, reinterpret_cast<sockaddr*>(&address), length) != 0) {
    if (answers >= 0) close(answers);
    return false;
  }
  r.answers = answers;
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread(serve, answers).detach();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return true;
}

}  // namespace

const Name& own_process() { return registry().process; }

CUresult share(SharedKind kind, uint64_t object, Shared what, SharedHandle* handle) {
  Registry& r = registry();
  std::lock_guard lock(r.mutex);
  if (!start(r)) return CUDA_ERROR_OPERATING_SYSTEM;
  auto [entry, fresh] = r.tokens.try_emplace({kind, object});
  if (fresh) {
    Name& token = entry->second;
    if (getrandom(token.data(), token.size(), 0) != static_cast<ssize_t>(token.size())) {
      r.tokens.erase(entry);
      return CUDA_ERROR_OPERATING_SYSTEM;
    }
    r.shared.emplace(std::pair(kind, token), std::move(what));
  }
  *handle = SharedHandle{};
  handle->process = r.process;
  handle->token = entry->second;
  handle->kind = kind;
  return CUDA_SUCCESS;
}

CUresult obtain(const SharedHandle& handle, SharedPlace* place) {
  sockaddr_un address;
  socklen_t length = address_of(handle.process, &address);
  int question = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (question < 0) return CUDA_ERROR_OPERATING_SYSTEM;
  timeval limit{10, 0};  // for a process that is stopped
  setsockopt(question, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(question, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  // A name of its own, chosen by the system, for the answer. A worker may send, but not connect.
  sockaddr_un own{};
  own.sun_family = AF_UNIX;
  bool obtained = bind(question, reinterpret_cast<sockaddr*>(&own), sizeof own.sun_family) == 0 &&
                  sendto(question, &handle, sizeof handle, MSG_NOSIGNAL,
                         reinterpret_cast<sockaddr*>(&address), length) == sizeof handle &&
                  receive_place(question, place);
  close(question);
  return obtained ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

bool is_handle(const SharedHandle& handle, SharedKind kind) {
  return handle.magic == SharedHandle{}.magic && handle.kind == kind;
}

}  // namespace softgpu
