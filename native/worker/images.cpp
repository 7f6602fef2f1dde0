// Images by their hash: assembling, keeping within a bound.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "worker/modules.hpp"

namespace outboard::worker {

void Images::make_room(uint64_t bytes) {
  while (held_bytes_ + bytes > most_bytes) {
    auto oldest = images_.end();
    for (auto image = images_.begin(); image != images_.end(); ++image) {
      if (oldest == images_.end() || image->second.used < oldest->second.used) oldest = image;
    }
    if (oldest == images_.end()) return;
    held_bytes_ -= oldest->second.content->size();
    images_.erase(oldest);
  }
}

bool Images::add(const Digest& hash, uint64_t total_bytes, uint64_t offset,
                 std::span<const std::byte> content) {
  if (total_bytes == 0 || total_bytes > most_bytes) return false;
  if (offset == 0) drop(hash);
  auto found = images_.find(hash);
  if (found == images_.end()) {
    if (offset != 0) return false;
    found = images_.try_emplace(hash).first;
    found->second.total_bytes = total_bytes;
    found->second.content = std::make_shared<Bytes>();
  }
  const uint64_t have = found->second.content->size();
  if (found->second.total_bytes != total_bytes || have != offset ||
      content.size() > total_bytes - have) {
    return false;
  }
  found->second.used = ++clock_;
  make_room(content.size());
  found = images_.find(hash);
  if (found == images_.end()) return false;  // it alone is more than there is room for
  found->second.content->insert(found->second.content->end(), content.begin(), content.end());
  held_bytes_ += content.size();
  return true;
}

std::shared_ptr<const Bytes> Images::find(const Digest& hash) {
  const auto found = images_.find(hash);
  if (found == images_.end() || found->second.content->size() != found->second.total_bytes) {
    return nullptr;
  }
  found->second.used = ++clock_;
  return found->second.content;
}

bool Images::verified(const Digest& hash) const {
  const auto found = images_.find(hash);
  return found != images_.end() && found->second.verified;
}

void Images::set_verified(const Digest& hash) {
  const auto found = images_.find(hash);
  if (found != images_.end()) found->second.verified = true;
}

void Images::drop(const Digest& hash) {
  const auto found = images_.find(hash);
  if (found == images_.end()) return;
  held_bytes_ -= found->second.content->size();
  images_.erase(found);
}

}  // namespace outboard::worker
