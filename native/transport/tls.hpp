// TLS 1.3 with a pre-shared key over a connected socket, for threads that send and receive at once.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/fds.hpp"
#include "transport/status.hpp"

namespace outboard::transport {

/// One protected connection; the socket stays its owner's. Nothing here waits but the handshake:
/// waiting is the caller's, on the socket and without the lock, so that one thread can send while
/// another receives.
class Tls {
 public:
  enum class Side { client, server };

  /// Both sides prove that they know the data plane's key (32 bytes) of the session. Null, with a
  /// reason in `error`, where the other side does not or `timeout_ms` is over. Of what is no TLS
  /// nothing has been read then.
  static std::unique_ptr<Tls> handshake(int fd, Side side, std::span<const uint8_t, 32> key,
                                        int timeout_ms, std::string* error);
  ~Tls();
  Tls(const Tls&) = delete;
  Tls& operator=(const Tls&) = delete;

  /// Protects up to 64 KiB and sends what the socket takes; the rest is kept (`unsent`). `again`
  /// where what was kept before has not left yet: then nothing is taken. `more` follows at once: it
  /// may go together with it.
  Status send(std::span<const std::byte> bytes, bool more, size_t* taken);
  /// Sends what was kept; `again` while some is left.
  Status flush();
  size_t unsent() const;
  /// Takes what is there, or `again`.
  Status receive(std::span<std::byte> to, size_t* received);

 private:
  class Session;
  explicit Tls(std::unique_ptr<Session> session);
  std::unique_ptr<Session> session_;
};

/// A socket and, where it is protected, its Tls; owns neither.
struct Channel {
  Channel(int socket, Tls* protection = nullptr) : fd(socket), tls(protection) {}  // NOLINT
  int fd;
  Tls* tls;
};

/// A connection that somebody owns.
struct Connected {
  Connected() = default;
  Connected(UniqueFd socket, std::unique_ptr<Tls> protection = nullptr)  // NOLINT
      : fd(std::move(socket)), tls(std::move(protection)) {}

  UniqueFd fd;
  std::unique_ptr<Tls> tls;

  Channel channel() const { return {fd.get(), tls.get()}; }
  explicit operator bool() const { return static_cast<bool>(fd); }
};

}  // namespace outboard::transport
