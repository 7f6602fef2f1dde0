// The values by which graphs decide what runs next; kernels set them.
// SPDX-License-Identifier: Apache-2.0
#include "conditions.hpp"

namespace softgpu {

Conditions& Conditions::get() {
  static auto& all = *new Conditions;
  return all;
}

uint64_t Conditions::create() {
  const std::lock_guard lock(mutex_);
  values_[++last_] = 0;
  return last_;
}

void Conditions::destroy(uint64_t handle) {
  const std::lock_guard lock(mutex_);
  values_.erase(handle);
}

bool Conditions::set(uint64_t handle, uint32_t value) {
  const std::lock_guard lock(mutex_);
  const auto found = values_.find(handle);
  if (found == values_.end()) return false;
  found->second = value;
  return true;
}

uint32_t Conditions::value(uint64_t handle) {
  const std::lock_guard lock(mutex_);
  const auto found = values_.find(handle);
  return found == values_.end() ? 0 : found->second;
}

}  // namespace softgpu
