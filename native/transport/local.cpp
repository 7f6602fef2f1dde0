// Abstract names and descriptors.
// SPDX-License-Identifier: Apache-2.0
#include "transport/local.hpp"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>

namespace outboard::transport {
namespace {

// A number with one descriptor; sending and receiving have the same shape.
struct Message {
  explicit Message(uint64_t* number) : part{number, sizeof *number} {
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = rights;
    header.msg_controllen = sizeof rights;
  }
  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;

  iovec part;
  alignas(cmsghdr) char rights[CMSG_SPACE(sizeof(int))] = {};
  msghdr header = {};
};

}  // namespace

UniqueFd connect_local(const std::string& name, int timeout_ms) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (name.empty() || name.size() + 1 > sizeof address.sun_path) return {};
  std::memcpy(address.sun_path + 1, name.data(), name.size());
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const timeval limit{timeout_ms / 1000, timeout_ms % 1000 * 1000};
  // Of connecting too, which waits while the listener's backlog is full.
  if (!fd || ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) != 0 ||
      ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0) {
    return {};
  }
  return raised(std::move(fd));
}

bool send_descriptor(int socket, uint64_t number, int fd) {
  Message message(&number);
  cmsghdr* rights = CMSG_FIRSTHDR(&message.header);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(sizeof fd);
  std::memcpy(CMSG_DATA(rights), &fd, sizeof fd);
  return ::sendmsg(socket, &message.header, MSG_NOSIGNAL) == sizeof number;
}

Status receive_descriptor(int socket, uint64_t* number, UniqueFd* fd) {
  Message message(number);
  const ssize_t count = ::recvmsg(socket, &message.header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return Status::again;
  if (count <= 0) return Status::closed;
  const cmsghdr* rights = CMSG_FIRSTHDR(&message.header);
  if (rights == nullptr || rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS ||
      rights->cmsg_len != CMSG_LEN(sizeof(int))) {
    return Status::failed;
  }
  int received = -1;
  std::memcpy(&received, CMSG_DATA(rights), sizeof received);
  fd->reset(received);
  const bool whole = count == sizeof *number && (message.header.msg_flags & MSG_CTRUNC) == 0;
  return whole ? Status::ok : Status::failed;
}

}  // namespace outboard::transport
