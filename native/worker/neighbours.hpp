// Other workers of the session: sockets that the agent makes between two, and the packets on them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/fds.hpp"
#include "wire/interprocess.hpp"
#include "worker/share.hpp"

namespace outboard::worker {

/// What is said between two workers (docs/internals/ipc.md §2). A descriptor may come with it.
struct Packet {
  enum class Kind : uint32_t { fetch = 1, offer, refused, closed };

  Kind kind = Kind::fetch;
  wire::Shared shared = wire::Shared::memory;
  uint8_t reserved[3] = {};
  wire::Token token{};
  uint32_t device = 0;       ///< of the session's devices
  uint32_t result = 0;       ///< of `refused`
  uint64_t chunk_bytes = 0;  ///< of what the descriptor stands for
  uint64_t offset = 0;       ///< where in it the memory lies
  uint64_t bytes = 0;
  CUipcEventHandle event{};
};
static_assert(sizeof(Packet) == 120);

class Neighbours {
 public:
  /// Makes of a fetch the answer to it; the claim is kept until the neighbour closes it.
  using Offer = std::function<UniqueFd(Packet*, std::shared_ptr<Claim>*)>;
  /// The answer to a fetch: an offer, or why there is none.
  using Answer = std::function<void(const Packet&, UniqueFd)>;
  /// Asks the agent for the way to a worker.
  enum class Asked { yes, later, never };
  using Ask = std::function<Asked(const std::string&)>;

  explicit Neighbours(Offer offer);
  Neighbours(const Neighbours&) = delete;
  Neighbours& operator=(const Neighbours&) = delete;

  void set_ask(Ask ask) { ask_ = std::move(ask); }
  /// Readable when serve() has something to do.
  int fd() const { return epoll_.get(); }
  void serve();

  /// The agent sends a socket: of a neighbour that asks (`id` empty), or of one that was asked for;
  /// none where there is no such worker.
  void introduce(const std::string& id, UniqueFd socket);
  /// An agent is there again: what was not answered is asked anew.
  void ask_again();
  /// `answer` is called once, maybe at once.
  void fetch(const wire::WorkerId& worker, const wire::Token& token, wire::Shared shared,
             Answer answer);
  /// What was fetched is held until the claim goes; if its owner goes first, the claim counts.
  void hold(const wire::WorkerId& worker, const wire::Token& token,
            const std::shared_ptr<Claim>& claim);

 private:
  struct Question {
    Packet fetch;
    Answer answer;
  };
  /// A worker that this one imports from.
  struct Source {
    UniqueFd socket;
    bool asked = false;  ///< the agent was asked for it
    std::deque<Question> questions;
    std::vector<std::weak_ptr<Claim>> held;
  };
  /// A worker that imports from this one.
  struct Sink {
    UniqueFd socket;
    std::multimap<wire::Token, std::shared_ptr<Claim>> lent;
  };

  bool watch(int socket) const;
  void seek(const std::string& id, Source& source);
  void lose(const std::string& id);
  /// What has come; false once the socket is of no use any more.
  bool serve_source(Source& source);
  bool serve_sink(Sink& sink);

  Offer offer_;
  Ask ask_;
  UniqueFd epoll_;
  std::map<std::string, Source> sources_;  ///< by the worker's id
  std::vector<std::unique_ptr<Sink>> sinks_;
};

}  // namespace outboard::worker
