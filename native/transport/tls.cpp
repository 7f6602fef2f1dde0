// TLS 1.3 with a pre-shared key, by OpenSSL.
// SPDX-License-Identifier: Apache-2.0
#include "transport/tls.hpp"

#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <string_view>
#include <vector>

#include "transport/waiting.hpp"

namespace outboard::transport {
namespace {

constexpr std::string_view identity = "outboard data plane 1";
constexpr std::string_view key_purpose = "outboard tls 1";
constexpr unsigned char cipher_id[2] = {0x13, 0x01};  // TLS_AES_128_GCM_SHA256
constexpr size_t most_taken_bytes = 64 << 10;
constexpr size_t ahead_bytes = 64 << 10;
constexpr unsigned char first_record_kind = 20;  // change_cipher_spec
constexpr unsigned char last_record_kind = 23;   // application_data

// One key for one purpose: the preface's proof is made with the data plane's key itself.
std::array<uint8_t, 32> derive(std::span<const uint8_t, 32> key) {
  std::array<uint8_t, 32> derived{};
  unsigned size = derived.size();
  ::HMAC(::EVP_sha256(), key.data(), static_cast<int>(key.size()),
         reinterpret_cast<const unsigned char*>(key_purpose.data()), key_purpose.size(),
         derived.data(), &size);
  return derived;
}

std::string last_error() {
  char text[160] = "no reason given";
  if (const unsigned long code = ::ERR_get_error(); code != 0) {
    ::ERR_error_string_n(code, text, sizeof text);
  }
  ::ERR_clear_error();
  return text;
}

struct Free {
  void operator()(SSL* ssl) const { ::SSL_free(ssl); }
};

}  // namespace

// The lock covers the protocol's state and the buffers. Records go through buffers of our own and
// not through the socket, so that nothing in OpenSSL ever waits or sees a signal.
class Tls::Session {
 public:
  Session(int fd, Side side, const std::array<uint8_t, 32>& key) : fd_(fd), key_(key) {
    SSL_CTX* context = context_of(side);
    BIO_METHOD* method = buffers();
    BIO* bio = context != nullptr && method != nullptr ? ::BIO_new(method) : nullptr;
    if (bio == nullptr) return;
    ::BIO_set_data(bio, this);
    ::BIO_set_init(bio, 1);
    ssl_.reset(::SSL_new(context));
    if (!ssl_) {
      ::BIO_free(bio);
      return;
    }
    ::SSL_set_bio(ssl_.get(), bio, bio);
    SSL_set_app_data(ssl_.get(), this);
    if (side == Side::client) {
      ::SSL_set_connect_state(ssl_.get());
    } else {
      ::SSL_set_accept_state(ssl_.get());
    }
  }

  bool shake_hands(int timeout_ms, std::string* error) {
    const Deadline deadline(timeout_ms);
    while (ssl_) {
      ::ERR_clear_error();
      const int result = ::SSL_do_handshake(ssl_.get());
      const int why = ::SSL_get_error(ssl_.get(), result);
      // Also what is left to say after a failure: the alert tells the other side why.
      while (flush() == Status::again) {
        if (wait_for(fd_, POLLOUT, deadline.left_ms()) != Status::ok) break;
      }
      if (result == 1) return agreed(error);
      if (why != SSL_ERROR_WANT_READ) {
        *error = why == SSL_ERROR_SSL ? last_error() : "the other side closed the connection";
        return false;
      }
      if (wait_for(fd_, POLLIN, deadline.left_ms()) != Status::ok) {
        *error = "no answer in time";
        return false;
      }
    }
    *error = "OpenSSL cannot be used: " + last_error();
    return false;
  }

  Status send(std::span<const std::byte> bytes, bool more, size_t* taken) {
    *taken = 0;
    const std::lock_guard guard(lock_);
    if (!more || out_.size() - out_begin_ > most_taken_bytes) {
      const Status status = drain();
      if (status != Status::ok) return status;
    }
    const size_t size = std::min(bytes.size(), most_taken_bytes);
    ::ERR_clear_error();
    if (size != 0 && ::SSL_write(ssl_.get(), bytes.data(), static_cast<int>(size)) <= 0) {
      return Status::failed;
    }
    *taken = size;
    if (more) return Status::ok;
    const Status status = drain();
    return status == Status::again ? Status::ok : status;
  }

  Status flush() {
    const std::lock_guard guard(lock_);
    return drain();
  }

  size_t unsent() {
    const std::lock_guard guard(lock_);
    return out_.size() - out_begin_;
  }

  // Empties what OpenSSL has decrypted or read ahead, as far as there is room: a poll on the socket
  // does not tell of it.
  Status receive(std::span<std::byte> to, size_t* received) {
    *received = 0;
    const std::lock_guard guard(lock_);
    while (!to.empty()) {
      ::ERR_clear_error();
      const int size = static_cast<int>(std::min(to.size(), size_t{1} << 30));
      const int count = ::SSL_read(ssl_.get(), to.data(), size);
      if (count <= 0) {
        const int why = ::SSL_get_error(ssl_.get(), count);
        if (*received != 0) return Status::ok;  // the next call meets the same
        if (why == SSL_ERROR_WANT_READ) return Status::again;
        return why == SSL_ERROR_SSL && !ended_ ? Status::failed : Status::closed;
      }
      *received += static_cast<size_t>(count);
      to = to.subspan(static_cast<size_t>(count));
      if (::SSL_pending(ssl_.get()) == 0 && ahead_begin_ == ahead_end_) break;
    }
    return Status::ok;
  }

 private:
  bool agreed(std::string* error) {
    // No certificate is ever asked for: who answers without the key has not been agreed with.
    if (::SSL_session_reused(ssl_.get()) == 1) return true;
    *error = "the other side does not know the session's key";
    return false;
  }

  Status drain() {
    while (out_begin_ != out_.size()) {
      const ssize_t count = ::send(fd_, out_.data() + out_begin_, out_.size() - out_begin_,
                                   MSG_NOSIGNAL | MSG_DONTWAIT);
      if (count < 0) {
        if (errno == EINTR) continue;
        return status_of_errno();
      }
      out_begin_ += static_cast<size_t>(count);
    }
    out_.clear();
    out_begin_ = 0;
    return Status::ok;
  }

  // 1 where the first bytes are TLS's; they stay in the socket, as they may be somebody else's.
  int look() {
    unsigned char kind = 0;
    const ssize_t count = ::recv(fd_, &kind, 1, MSG_PEEK | MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return -1;
    ended_ = count != 1 || kind < first_record_kind || kind > last_record_kind;
    return ended_ ? 0 : 1;
  }

  int read_records(char* to, int size) {
    if (ahead_begin_ == ahead_end_) {
      if (ahead_.empty()) {
        if (const int count = look(); count != 1) return count;
        ahead_.resize(ahead_bytes);
      }
      ssize_t count = 0;
      do {
        count = ::recv(fd_, ahead_.data(), ahead_.size(), MSG_DONTWAIT);
      } while (count < 0 && errno == EINTR);
      if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return -1;
      ended_ = count <= 0;
      if (ended_) return 0;
      ahead_begin_ = 0;
      ahead_end_ = static_cast<size_t>(count);
    }
    const size_t count = std::min(static_cast<size_t>(size), ahead_end_ - ahead_begin_);
    std::memcpy(to, ahead_.data() + ahead_begin_, count);
    ahead_begin_ += count;
    return static_cast<int>(count);
  }

  static Session* of(BIO* bio) { return static_cast<Session*>(::BIO_get_data(bio)); }

  static BIO_METHOD* buffers() {
    static BIO_METHOD* const method = [] {
      BIO_METHOD* made = ::BIO_meth_new(::BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "outboard");
      if (made == nullptr) return made;
      ::BIO_meth_set_write(made, [](BIO* bio, const char* from, int size) {
        auto& out = of(bio)->out_;
        out.insert(out.end(), from, from + size);
        return size;
      });
      ::BIO_meth_set_read(made, [](BIO* bio, char* to, int size) {
        ::BIO_clear_retry_flags(bio);
        const int count = of(bio)->read_records(to, size);
        if (count < 0) ::BIO_set_retry_read(bio);
        return count;
      });
      ::BIO_meth_set_ctrl(made, [](BIO*, int command, long, void*) -> long {
        return command == BIO_CTRL_FLUSH || command == BIO_CTRL_DUP ? 1 : 0;
      });
      return made;
    }();
    return method;
  }

  static SSL_SESSION* known_session(SSL* ssl) {
    const auto* self = static_cast<const Session*>(SSL_get_app_data(ssl));
    const SSL_CIPHER* cipher = ::SSL_CIPHER_find(ssl, cipher_id);
    SSL_SESSION* session = cipher != nullptr ? ::SSL_SESSION_new() : nullptr;
    if (session != nullptr &&
        (::SSL_SESSION_set1_master_key(session, self->key_.data(), self->key_.size()) != 1 ||
         ::SSL_SESSION_set_cipher(session, cipher) != 1 ||
         ::SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) != 1)) {
      ::SSL_SESSION_free(session);
      session = nullptr;
    }
    return session;
  }

  static int use_session(SSL* ssl, const EVP_MD*, const unsigned char** id, size_t* size,
                         SSL_SESSION** session) {
    *id = reinterpret_cast<const unsigned char*>(identity.data());
    *size = identity.size();
    *session = known_session(ssl);
    return *session != nullptr ? 1 : 0;
  }

  static int find_session(SSL* ssl, const unsigned char* id, size_t size, SSL_SESSION** session) {
    const std::string_view named(reinterpret_cast<const char*>(id), size);
    *session = named == identity ? known_session(ssl) : nullptr;
    return 1;
  }

  static SSL_CTX* make_context(Side side) {
    // Neither the machine's OpenSSL configuration nor a handler at the program's exit.
    constexpr uint64_t quiet = OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT;
    if (::OPENSSL_init_ssl(quiet, nullptr) != 1) return nullptr;
    SSL_CTX* context =
        ::SSL_CTX_new(side == Side::client ? ::TLS_client_method() : ::TLS_server_method());
    if (context == nullptr) return nullptr;
    ::SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    ::SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256");
    ::SSL_CTX_set1_groups_list(context, "X25519:P-256");
    ::SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
    ::SSL_CTX_set_num_tickets(context, 0);
    ::SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    if (side == Side::client) {
      // No authority is trusted, so that nothing but the key can authenticate a server.
      ::SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
      ::SSL_CTX_set_psk_use_session_callback(context, use_session);
    } else {
      ::SSL_CTX_set_psk_find_session_callback(context, find_session);
    }
    return context;
  }

  static SSL_CTX* context_of(Side side) {
    if (side == Side::client) {
      static SSL_CTX* const client = make_context(Side::client);
      return client;
    }
    static SSL_CTX* const server = make_context(Side::server);
    return server;
  }

  int fd_;
  std::array<uint8_t, 32> key_;
  std::unique_ptr<SSL, Free> ssl_;
  std::mutex lock_;
  std::vector<char> out_;  ///< records that the socket has not taken, from out_begin_
  size_t out_begin_ = 0;
  std::vector<char> ahead_;  ///< records that OpenSSL has not asked for yet
  size_t ahead_begin_ = 0;
  size_t ahead_end_ = 0;
  bool ended_ = false;
};

Tls::Tls(std::unique_ptr<Session> session) : session_(std::move(session)) {}
Tls::~Tls() = default;

std::unique_ptr<Tls> Tls::handshake(int fd, Side side, std::span<const uint8_t, 32> key,
                                    int timeout_ms, std::string* error) {
  auto session = std::make_unique<Session>(fd, side, derive(key));
  if (!session->shake_hands(timeout_ms, error)) return nullptr;
  return std::unique_ptr<Tls>(new Tls(std::move(session)));
}

Status Tls::send(std::span<const std::byte> bytes, bool more, size_t* taken) {
  return session_->send(bytes, more, taken);
}

Status Tls::flush() { return session_->flush(); }

size_t Tls::unsent() const { return session_->unsent(); }

Status Tls::receive(std::span<std::byte> to, size_t* received) {
  return session_->receive(to, received);
}

}  // namespace outboard::transport
