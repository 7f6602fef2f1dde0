// Reading JSON whose writer is not trusted: nothing throws, and a missing or odd field is just
// false. SPDX-License-Identifier: Apache-2.0
#pragma once

#ifndef JSON_NOEXCEPTION
#define JSON_NOEXCEPTION
#endif
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

namespace outboard::client {

using Json = nlohmann::json;

inline bool json_string(const Json& object, const char* name, std::string* out) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_string()) return false;
  *out = *found->get_ptr<const std::string*>();
  return true;
}

inline bool json_unsigned(const Json& object, const char* name, uint64_t* out) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_number_unsigned()) return false;
  *out = found->get<uint64_t>();
  return true;
}

inline bool json_integer(const Json& object, const char* name, int64_t* out) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_number_integer()) return false;
  *out = found->get<int64_t>();
  return true;
}

}  // namespace outboard::client
