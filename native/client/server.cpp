// Opening a server and routing what it says.
// SPDX-License-Identifier: Apache-2.0
#include "client/server.hpp"

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/log.hpp"
#include "client/recorder.hpp"

namespace outboard::client {

Server* Server::open(const Session& session, uint32_t node, uint32_t devices, Owner* owner,
                     Result* result, std::string* reason) {
  auto* server = new Server(owner);
  server->session_ = session;
  server->node_ = node;
  *result = result::out_of_memory;
  for (uint32_t device = 0; device < devices; ++device) {
    Window window;
    if (!reserve_window(&window)) {
      *reason = "cannot reserve addresses for the GPUs (" + std::string(std::strerror(errno)) +
                "); allow more address space: ulimit -v unlimited";
      return nullptr;
    }
    server->windows_.push_back(window);
  }
  *result = result::no_device;
  transport::Connected opened = open_connection(session.nodes[node], "command", "", reason);
  if (!opened) return nullptr;
  server->connection_ =
      std::make_unique<Connection>(std::move(opened), session.nodes[node].name, server);
  if (!server->shake_hands(result, reason)) return nullptr;
  server->bulk_ = std::make_unique<Bulk>(
      server->connection_.get(), &server->copies_, [server](std::string* why) {
        return open_connection(server->session_.nodes[server->node_], "bulk",
                               server->welcome_.worker, why);
      });
  if (!server->connection_->start()) {
    *result = result::out_of_memory;
    *reason = "cannot start a thread; see ulimit -u";
    return nullptr;
  }
  return server;
}

// What goes through shared memory is in no recording.
UniqueFd Server::open_host_memory() const {
  const char* wanted = std::getenv("OUTBOARD_SHARED_MEMORY");
  if (Recorder::on() || (wanted != nullptr && std::strcmp(wanted, "0") == 0)) return {};
  std::string reason;
  UniqueFd fd = open_memory_connection(session_.nodes[node_], welcome_, &reason);
  if (!fd && tracing("memory")) say("pinned memory is copied: %s", reason.c_str());
  return fd;
}

bool Server::shake_hands(Result* result, std::string* reason) {
  constexpr int attempts = 16;
  for (int attempt = 0; attempt < attempts; ++attempt) {
    if (connection_->send_hello(make_hello(windows_)) != link::Status::ok) {
      // A refusal may be waiting to be read although the other side has closed.
      uint32_t ignored = 0;
      read_welcome(connection_->channel(), &welcome_, &ignored, reason);
      return false;
    }
    uint32_t device = 0;
    switch (read_welcome(connection_->channel(), &welcome_, &device, reason)) {
      case WelcomeKind::granted:
        if (welcome_.devices.size() == windows_.size()) return true;
        *reason = "the server " + session_.nodes[node_].name + " offers " +
                  std::to_string(welcome_.devices.size()) + " GPUs, the session has " +
                  std::to_string(windows_.size()) + " there";
        return false;
      case WelcomeKind::refused:
        return false;
      case WelcomeKind::window_taken:
        if (device >= windows_.size()) return false;
        release_window(windows_[device]);
        if (reserve_window(&windows_[device])) break;
        *result = result::out_of_memory;
        *reason = "cannot reserve addresses for the GPUs; allow more: ulimit -v unlimited";
        return false;
    }
  }
  *result = result::out_of_memory;
  *reason = "client and server found no range of addresses that is free on both";
  return false;
}

void Server::progress(const wire::Progress& progress) {
  if (StreamProgress* stream = owner_->stream(progress.stream)) {
    copies_.report(stream, progress.completed);
  }
}

bool Server::copied(uint64_t copy, std::span<const std::byte> content) {
  return copies_.deliver(copy, content);
}

void Server::host_function(uint64_t function) { owner_->host_function(function); }

void Server::graph_function(uint64_t call, uint64_t function) {
  owner_->graph_function(this, call, function);
}

void Server::released(uint64_t object) { owner_->released(object); }

void Server::copy_failed(uint64_t copy) { copies_.cancel(copy); }

void Server::refused(wire::Op op, Result result, uint64_t context) {
  owner_->refused(op, result, context);
}

void Server::fatal(Result result, uint64_t context) { owner_->fatal(result, context); }

void Server::lost() {
  copies_.lose();
  if (bulk_) bulk_->lose();
  owner_->lost();
}

}  // namespace outboard::client
