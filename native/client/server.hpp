// One GPU server of the session: its connections, its devices, their windows.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "client/bulk.hpp"
#include "client/connection.hpp"
#include "client/copies.hpp"
#include "client/handshake.hpp"
#include "client/host_memory.hpp"
#include "client/session_file.hpp"
#include "client/windows.hpp"

namespace outboard::client {

class Server;

/// What the owner of a server's objects (a shim) answers to its connection.
class Owner {
 public:
  virtual StreamProgress* stream(uint64_t id) = 0;  ///< null: gone
  virtual void host_function(uint64_t function) = 0;
  virtual void graph_function(Server* server, uint64_t call, uint64_t function) = 0;
  virtual void released(uint64_t object) = 0;
  virtual void refused(wire::Op op, Result result, uint64_t context) = 0;
  virtual void fatal(Result result, uint64_t context) = 0;
  virtual void lost() = 0;

 protected:
  ~Owner() = default;
};

/// Lives until the process ends.
class Server final : public Listener {
 public:
  /// Connects to the session's node and shakes hands, with a window for each of `devices`, its
  /// devices. null on failure: `result` is for the caller, `reason` one line for people.
  static Server* open(const Session& session, uint32_t node, uint32_t devices, Owner* owner,
                      Result* result, std::string* reason);

  Connection& connection() { return *connection_; }
  Copies& copies() { return copies_; }
  Bulk& bulk() { return *bulk_; }
  HostMemory& host_memory() { return host_memory_; }
  const Welcome& welcome() const { return welcome_; }
  const Window& window(uint32_t device) const { return windows_[device]; }

 private:
  explicit Server(Owner* owner)
      : owner_(owner), host_memory_([this] { return open_host_memory(); }) {}
  UniqueFd open_host_memory() const;
  bool shake_hands(Result* result, std::string* reason);

  void progress(const wire::Progress& progress) override;
  bool copied(uint64_t copy, std::span<const std::byte> content) override;
  void host_function(uint64_t function) override;
  void graph_function(uint64_t call, uint64_t function) override;
  void released(uint64_t object) override;
  void copy_failed(uint64_t copy) override;
  void refused(wire::Op op, Result result, uint64_t context) override;
  void fatal(Result result, uint64_t context) override;
  void lost() override;

  Owner* owner_;
  Session session_;
  uint32_t node_ = 0;
  std::vector<Window> windows_;
  Welcome welcome_;
  Copies copies_;
  std::unique_ptr<Connection> connection_;
  std::unique_ptr<Bulk> bulk_;
  HostMemory host_memory_;
};

}  // namespace outboard::client
