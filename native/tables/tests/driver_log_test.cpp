// The log of failed calls: bounded, read by iterators, told to listeners.
// SPDX-License-Identifier: Apache-2.0
#include "driver_log.hpp"

#include <doctest/doctest.h>

#include <string>

using outboard::DriverLog;

namespace {

std::string dumped(CUlogIterator* from, size_t room = 1 << 16) {
  std::string text(room, '?');
  size_t bytes = room;
  REQUIRE(DriverLog::get().dump_to_memory(from, text.data(), &bytes) == CUDA_SUCCESS);
  REQUIRE(bytes < room);
  CHECK(text[bytes] == '\0');
  text.resize(bytes);
  return text;
}

size_t count(const std::string& text, const std::string& what) {
  size_t found = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
  return found;
}

}  // namespace

TEST_CASE("the oldest lines are forgotten, and who reads on is told so") {
  DriverLog& log = DriverLog::get();
  CUlogIterator from = 0;
  REQUIRE(log.current(&from) == CUDA_SUCCESS);
  for (int i = 0; i < 2000; ++i) log.returned("cuForgotten", CUDA_ERROR_INVALID_VALUE, "E");
  log.say("the newest");
  const std::string text = dumped(&from);
  CHECK(text.size() < 26000);
  CHECK(text.find("are missing\n") < text.find("cuForgotten"));
  CHECK(text.ends_with("the newest\n"));
  CHECK(count(text, "Returning 1 (E) from cuForgotten\n") > 100);
  CHECK(dumped(&from).empty());
}

TEST_CASE("a small buffer gets the newest lines that it has room for, and never a byte more") {
  DriverLog& log = DriverLog::get();
  CUlogIterator from = 0;
  REQUIRE(log.current(&from) == CUDA_SUCCESS);
  for (int i = 0; i < 5; ++i) log.say("line " + std::to_string(i));
  const CUlogIterator start = from;
  const size_t whole = dumped(&from).size();
  for (size_t room = 0; room <= whole + 1; ++room) {
    CUlogIterator again = start;
    std::string text(room + 8, '?');
    size_t bytes = room;
    const CUresult result = log.dump_to_memory(&again, text.data(), &bytes);
    CHECK(text.substr(room) == "????????");
    if (result != CUDA_SUCCESS) {
      CHECK(bytes == 0);
      REQUIRE(log.current(&again) == CUDA_SUCCESS);  // the refusal is a line itself
    } else {
      REQUIRE(bytes < room);
      CHECK(text[bytes] == '\0');
    }
  }
}

TEST_CASE("a listener whose own call fails is not told of it") {
  DriverLog& log = DriverLog::get();
  struct Heard {
    int times = 0;
  } heard;
  const auto listen = [](void* data, CUlogLevel, char*, size_t) {
    ++static_cast<Heard*>(data)->times;
    DriverLog::get().say("from inside");
  };
  CUlogsCallbackHandle handle = nullptr;
  REQUIRE(log.add(listen, &heard, &handle) == CUDA_SUCCESS);
  log.say("once");
  CHECK(heard.times == 1);
  CHECK(log.remove(handle) == CUDA_SUCCESS);
  CHECK(log.remove(handle) == CUDA_ERROR_INVALID_VALUE);
  log.say("again");
  CHECK(heard.times == 1);
}
