// What this worker shares with other workers of its session: tokens, and what they name.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "wire/interprocess.hpp"
#include "worker/neighbours.hpp"

namespace outboard::worker {

class Worker;

class Interprocess {
 public:
  /// A worker's id and one of its tokens, as a command has them.
  using Name = std::array<uint8_t, 32>;

  explicit Interprocess(Worker& worker);

  /// This worker's id, 32 hexadecimal digits.
  void begin(const std::string& id);
  bool is_own(const Name& name) const;
  /// The name of an object of ours. `token` is where the object keeps it; zeros are filled in.
  CUresult name(wire::Shared shared, uint64_t object, wire::Token* token, Name* name);
  /// Asks the worker that made the name for what it stands for; itself for its own.
  void fetch(const Name& name, wire::Shared shared, Neighbours::Answer answer);
  /// Accounts for what an offer brought; the claim is to be kept with it.
  std::shared_ptr<Claim> claim(const Name& name, const Packet& offer);

  Neighbours neighbours;

 private:
  struct Object {
    wire::Shared shared;
    uint64_t id;  ///< an address, or a table's id
  };

  UniqueFd offer(Packet* packet, std::shared_ptr<Claim>* claim);
  UniqueFd offer(const Object& object, Packet* packet, std::shared_ptr<Claim>* claim);
  wire::Token token_of(const Object& object) const;
  void sweep();

  Worker& worker_;
  wire::WorkerId id_{};
  std::map<wire::Token, Object> objects_;
  size_t sweep_at_ = 1024;
};

}  // namespace outboard::worker
