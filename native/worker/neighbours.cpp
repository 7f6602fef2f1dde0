// Sockets between workers of a session.
// SPDX-License-Identifier: Apache-2.0
#include "worker/neighbours.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/sha256.hpp"

namespace outboard::worker {
namespace {

bool send_packet(int socket, const Packet& packet, int fd = -1) {
  Packet copy = packet;
  iovec part{&copy, sizeof copy};
  alignas(cmsghdr) char rights[CMSG_SPACE(sizeof fd)] = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = rights;
    message.msg_controllen = sizeof rights;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  return ::sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof copy;
}

enum class Received { packet, nothing, end };

Received receive_packet(int socket, Packet* packet, UniqueFd* fd) {
  iovec part{packet, sizeof *packet};
  alignas(cmsghdr) char rights[CMSG_SPACE(sizeof(int))];
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = rights;
  message.msg_controllen = sizeof rights;
  const ssize_t count = ::recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return Received::nothing;
  const cmsghdr* header = count > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
  if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
    int received = -1;
    std::memcpy(&received, CMSG_DATA(header), sizeof received);
    fd->reset(received);
  }
  const bool whole = count == sizeof *packet && (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
  return whole ? Received::packet : Received::end;
}

void refuse(const Neighbours::Answer& answer, CUresult result) {
  Packet packet;
  packet.kind = Packet::Kind::refused;
  packet.result = result;
  answer(packet, UniqueFd());
}

}  // namespace

Neighbours::Neighbours(Offer offer)
    : offer_(std::move(offer)), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {}

bool Neighbours::watch(int socket) const {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = socket;
  return ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, socket, &event) == 0;
}

void Neighbours::introduce(const std::string& id, UniqueFd socket) {
  if (id.empty()) {
    if (!socket || !watch(socket.get())) return;
    sinks_.push_back(std::make_unique<Sink>());
    sinks_.back()->socket = std::move(socket);
    return;
  }
  const auto found = sources_.find(id);
  if (found == sources_.end() || found->second.socket) return;
  Source& source = found->second;
  source.socket = std::move(socket);
  if (!source.socket || !watch(source.socket.get())) return lose(id);
  for (const Question& question : source.questions) {
    if (!send_packet(source.socket.get(), question.fetch)) return lose(id);
  }
}

void Neighbours::seek(const std::string& id, Source& source) {
  const Asked asked = ask_ ? ask_(id) : Asked::never;
  source.asked = asked == Asked::yes;
  if (asked == Asked::never) lose(id);
}

void Neighbours::ask_again() {
  std::vector<std::string> unknown;
  for (const auto& [id, source] : sources_) {
    if (!source.socket) unknown.push_back(id);
  }
  for (const std::string& id : unknown) {
    if (const auto found = sources_.find(id); found != sources_.end()) seek(id, found->second);
  }
}

void Neighbours::fetch(const wire::WorkerId& worker, const wire::Token& token, wire::Shared shared,
                       Answer answer) {
  const std::string id = hex(worker);
  Source& source = sources_[id];
  Question question;
  question.fetch.token = token;
  question.fetch.shared = shared;
  question.answer = std::move(answer);
  source.questions.push_back(std::move(question));
  if (source.socket) {
    if (!send_packet(source.socket.get(), source.questions.back().fetch)) lose(id);
  } else if (!source.asked) {
    seek(id, source);
  }
}

void Neighbours::hold(const wire::WorkerId& worker, const wire::Token& token,
                      const std::shared_ptr<Claim>& claim) {
  const std::string id = hex(worker);
  const auto found = sources_.find(id);
  if (found == sources_.end()) return claim->count();  // it ended since it answered
  std::erase_if(found->second.held, [](const auto& other) { return other.expired(); });
  found->second.held.push_back(claim);
  claim->ended = [this, id, token] {
    const auto source = sources_.find(id);
    if (source == sources_.end()) return;
    Packet packet;
    packet.kind = Packet::Kind::closed;
    packet.token = token;
    send_packet(source->second.socket.get(), packet);
  };
}

void Neighbours::lose(const std::string& id) {
  const auto found = sources_.find(id);
  const Source lost = std::move(found->second);
  sources_.erase(found);
  for (const auto& held : lost.held) {
    if (const auto claim = held.lock()) claim->count();
  }
  for (const Question& question : lost.questions) {
    refuse(question.answer, CUDA_ERROR_INVALID_HANDLE);
  }
}

bool Neighbours::serve_source(Source& source) {
  for (;;) {
    Packet packet;
    UniqueFd fd;
    const Received received = receive_packet(source.socket.get(), &packet, &fd);
    if (received == Received::nothing) return true;
    if (received == Received::end || source.questions.empty()) return false;
    const Question question = std::move(source.questions.front());
    source.questions.pop_front();
    const bool expected = packet.shared == question.fetch.shared &&
                          (packet.kind == Packet::Kind::offer ||
                           (packet.kind == Packet::Kind::refused && packet.result != 0));
    if (!expected) {
      refuse(question.answer, CUDA_ERROR_INVALID_HANDLE);
      return false;
    }
    question.answer(packet, std::move(fd));
  }
}

bool Neighbours::serve_sink(Sink& sink) {
  for (;;) {
    Packet packet;
    UniqueFd ignored;
    const Received received = receive_packet(sink.socket.get(), &packet, &ignored);
    if (received == Received::nothing) return true;
    if (received == Received::end) return false;
    if (packet.kind == Packet::Kind::closed) {
      if (const auto lent = sink.lent.find(packet.token); lent != sink.lent.end()) {
        sink.lent.erase(lent);
      }
      continue;
    }
    if (packet.kind != Packet::Kind::fetch) return false;
    std::shared_ptr<Claim> claim;
    const UniqueFd fd = offer_(&packet, &claim);
    // A neighbour that does not read its answers is given up.
    if (!send_packet(sink.socket.get(), packet, fd.get())) return false;
    if (claim) sink.lent.emplace(packet.token, std::move(claim));
  }
}

void Neighbours::serve() {
  epoll_event events[16];
  const int count = ::epoll_wait(epoll_.get(), events, 16, 0);
  for (int i = 0; i < count; ++i) {
    const int socket = events[i].data.fd;
    const auto source = std::find_if(sources_.begin(), sources_.end(), [&](const auto& entry) {
      return entry.second.socket.get() == socket;
    });
    if (source != sources_.end()) {
      const std::string id = source->first;
      if (!serve_source(source->second)) lose(id);
      continue;
    }
    const auto sink = std::find_if(sinks_.begin(), sinks_.end(), [&](const auto& entry) {
      return entry->socket.get() == socket;
    });
    if (sink != sinks_.end() && !serve_sink(**sink)) sinks_.erase(sink);
  }
}

}  // namespace outboard::worker
