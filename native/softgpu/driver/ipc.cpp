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
  int listener = -1;
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

bool send_place(int socket, const SharedPlace& place) {
  SharedPlace copy = place;
  iovec part{&copy, sizeof copy};
  alignas(cmsghdr) char rights[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
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
  return sendmsg(socket, &message, MSG_NOSIGNAL) == sizeof copy;
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

/// A process that stops in the middle must not hold up the other.
void set_limit(int socket) {
  timeval limit{10, 0};
  setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

void answer(int socket) {
  SharedHandle handle;
  if (recv(socket, &handle, sizeof handle, 0) != sizeof handle) return;
  std::lock_guard lock(registry().mutex);
  auto found = registry().shared.find({handle.kind, handle.token});
  std::optional<SharedPlace> place;
  if (found != registry().shared.end()) place = found->second();
  send_place(socket, place.value_or(SharedPlace{}));
}

void serve(int listener) {
  for (;;) {
    int socket = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0) continue;
    set_limit(socket);
    answer(socket);
    close(socket);
  }
}

/// With the lock held.
bool start(Registry& r) {
  if (r.listener >= 0) return true;
  sockaddr_un address;
  if (getrandom(r.process.data(), r.process.size(), 0) != static_cast<ssize_t>(r.process.size())) {
    return false;
  }
  int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  socklen_t length = address_of(r.process, &address);
  if (listener < 0 || bind(listener, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      listen(listener, 64) != 0) {
    if (listener >= 0) close(listener);
    return false;
  }
  r.listener = listener;
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread(serve, listener).detach();
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
  int connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (connection < 0) return CUDA_ERROR_OPERATING_SYSTEM;
  set_limit(connection);
  bool obtained = connect(connection, reinterpret_cast<sockaddr*>(&address), length) == 0 &&
                  send(connection, &handle, sizeof handle, MSG_NOSIGNAL) == sizeof handle &&
                  receive_place(connection, place);
  close(connection);
  return obtained ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

bool is_handle(const SharedHandle& handle, SharedKind kind) {
  return handle.magic == SharedHandle{}.magic && handle.kind == kind;
}

}  // namespace softgpu
