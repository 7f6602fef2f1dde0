// TCP: connecting, whole sends and receives with deadlines.
// SPDX-License-Identifier: Apache-2.0
#include "transport/tcp.hpp"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>

#include "transport/waiting.hpp"

namespace outboard::transport {

Status wait_for(int fd, short events, int timeout_ms) {
  const Deadline deadline(timeout_ms);
  for (;;) {
    pollfd item{fd, events, 0};
    const int count = ::poll(&item, 1, deadline.left_ms());
    if (count > 0) return Status::ok;
    if (count == 0) return Status::again;
    if (errno != EINTR) return Status::failed;
  }
}

Status status_of_errno() {
  switch (errno) {
    case EAGAIN:
      return Status::again;
    case EPIPE:
    case ECONNRESET:
    case ECONNABORTED:
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case ENETUNREACH:
      return Status::closed;
    default:
      return Status::failed;
  }
}

namespace {

bool split_address(const std::string& address, std::string* host, std::string* port) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon + 1 == address.size()) return false;
  *host = address.substr(0, colon);
  *port = address.substr(colon + 1);
  if (host->size() >= 2 && host->front() == '[' && host->back() == ']') {
    *host = host->substr(1, host->size() - 2);
  }
  return !host->empty();
}

UniqueFd connect_one(const addrinfo& target, int timeout_ms, int* error) {
  UniqueFd fd(::socket(target.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) {
    *error = errno;
    return {};
  }
  if (::connect(fd.get(), target.ai_addr, target.ai_addrlen) != 0) {
    *error = errno;
    if (errno != EINPROGRESS) return {};
    if (wait_for(fd.get(), POLLOUT, timeout_ms) != Status::ok) {
      *error = ETIMEDOUT;
      return {};
    }
    socklen_t size = sizeof *error;
    ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, error, &size);
    if (*error != 0) return {};
  }
  const int flags = ::fcntl(fd.get(), F_GETFL);
  ::fcntl(fd.get(), F_SETFL, flags & ~O_NONBLOCK);
  *error = 0;
  return raised(std::move(fd));
}

// A frame's header is not worth a record of its own.
constexpr size_t gathered_bytes = 16 << 10;

Status send_protected(Channel channel, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    size_t taken = 0;
    const Status status = channel.tls->send(bytes, true, &taken);
    bytes = bytes.subspan(taken);
    if (status == Status::ok) continue;
    if (status != Status::again) return status;
    if (wait_for(channel.fd, POLLOUT, -1) != Status::ok) return Status::failed;
  }
  return Status::ok;
}

Status send_all_protected(Channel channel, std::span<iovec> parts) {
  std::array<std::byte, gathered_bytes> gathered;
  size_t size = 0;
  for (const iovec& part : parts) {
    const std::span bytes(static_cast<const std::byte*>(part.iov_base), part.iov_len);
    if (bytes.size() <= gathered.size() - size) {
      if (!bytes.empty()) std::memcpy(gathered.data() + size, bytes.data(), bytes.size());
      size += bytes.size();
      continue;
    }
    Status status = send_protected(channel, std::span(gathered).first(size));
    if (status == Status::ok) status = send_protected(channel, bytes);
    if (status != Status::ok) return status;
    size = 0;
  }
  if (const Status status = send_protected(channel, std::span(gathered).first(size));
      status != Status::ok) {
    return status;
  }
  for (;;) {
    const Status status = channel.tls->flush();
    if (status != Status::again) return status;
    if (wait_for(channel.fd, POLLOUT, -1) != Status::ok) return Status::failed;
  }
}

Status receive_protected(Channel channel, std::span<std::byte> to, size_t* received,
                         int timeout_ms) {
  const Deadline deadline(timeout_ms);
  for (;;) {
    const Status status = channel.tls->receive(to, received);
    if (status != Status::again) return status;
    const int left_ms = deadline.left_ms();
    if (left_ms == 0) return Status::again;
    if (const Status ready = wait_for(channel.fd, POLLIN, left_ms); ready != Status::ok) {
      return ready;
    }
  }
}

}  // namespace

void set_options(int fd) {
  const int on = 1;
  const int idle_s = 20, interval_s = 5, probes = 4;
  const unsigned unacknowledged_ms = 40'000;  // as long as keep-alive takes to find a dead peer
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
  ::setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacknowledged_ms, sizeof unacknowledged_ms);
}

UniqueFd connect(const std::string& address, int timeout_ms, std::string* error) {
  std::string host, port;
  if (!split_address(address, &host, &port)) {
    *error = "the address " + address + " is not HOST:PORT";
    return {};
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (const int rc = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found); rc != 0) {
    *error = "cannot resolve " + host + ": " + ::gai_strerror(rc);
    return {};
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> list(found, &::freeaddrinfo);
  int code = 0;
  for (const addrinfo* at = list.get(); at != nullptr; at = at->ai_next) {
    if (UniqueFd fd = connect_one(*at, timeout_ms, &code)) {
      set_options(fd.get());
      return fd;
    }
  }
  char text[128];
  *error = "cannot connect to " + address + ": " + ::strerror_r(code, text, sizeof text);
  return {};
}

Status send_all(Channel channel, std::span<iovec> parts) {
  if (channel.tls != nullptr) return send_all_protected(channel, parts);
  const int fd = channel.fd;
  while (!parts.empty()) {
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    const ssize_t count = ::sendmsg(fd, &message, MSG_NOSIGNAL);
    if (count < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) return status_of_errno();
      if (const Status status = wait_for(fd, POLLOUT, -1); status != Status::ok) return status;
      continue;
    }
    auto left = static_cast<size_t>(count);
    while (!parts.empty() && left >= parts.front().iov_len) {
      left -= parts.front().iov_len;
      parts = parts.subspan(1);
    }
    if (!parts.empty()) {
      parts.front().iov_base = static_cast<char*>(parts.front().iov_base) + left;
      parts.front().iov_len -= left;
    }
  }
  return Status::ok;
}

Status send_some(Channel channel, std::span<const std::byte> bytes, size_t* sent) {
  *sent = 0;
  const int fd = channel.fd;
  if (channel.tls != nullptr) {
    while (!bytes.empty()) {
      size_t taken = 0;
      const Status status = channel.tls->send(bytes, false, &taken);
      *sent += taken;
      bytes = bytes.subspan(taken);
      if (status != Status::ok) return status;
    }
    return channel.tls->flush();
  }
  for (;;) {
    const ssize_t count = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count >= 0) {
      *sent = static_cast<size_t>(count);
      return Status::ok;
    }
    if (errno != EINTR) return status_of_errno();
  }
}

Status receive_some(Channel channel, std::span<std::byte> to, size_t* received, int timeout_ms) {
  *received = 0;
  const int fd = channel.fd;
  if (channel.tls != nullptr) return receive_protected(channel, to, received, timeout_ms);
  const int flags = timeout_ms < 0 ? 0 : MSG_DONTWAIT;
  const Deadline deadline(timeout_ms);
  for (;;) {
    const ssize_t count = ::recv(fd, to.data(), to.size(), flags);
    if (count > 0) {
      *received = static_cast<size_t>(count);
      return Status::ok;
    }
    if (count == 0) return Status::closed;
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return status_of_errno();
    const int left_ms = deadline.left_ms();
    if (left_ms == 0) return Status::again;
    if (const Status status = wait_for(fd, POLLIN, left_ms); status != Status::ok) return status;
  }
}

Status receive_all(Channel channel, void* to, size_t bytes, int timeout_ms) {
  const Deadline deadline(timeout_ms);
  auto* at = static_cast<std::byte*>(to);
  while (bytes != 0) {
    size_t count = 0;
    const Status status = receive_some(channel, {at, bytes}, &count, deadline.left_ms());
    if (status == Status::again) {
      if (deadline.left_ms() == 0) return Status::timeout;
      continue;
    }
    if (status != Status::ok) return status;
    at += count;
    bytes -= count;
  }
  return Status::ok;
}

}  // namespace outboard::transport
