// The session file is followed only where it is safe, and every refusal says what to do.
// SPDX-License-Identifier: Apache-2.0
#include "client/session_file.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

using outboard::client::parse_session;
using outboard::client::read_checked_file;
using outboard::client::Session;

namespace {

const std::string key(64, 'a');
const std::string good =
    R"({"version": 1, "session": "s-1", "form": "inline", "nodes": [{"name": "gpu1", "address": "h:1"}],)"
    R"( "grant": "g", "key": ")" +
    key + R"(", "devices": [{"node": 0, "index": 3, "share_bytes": 5}]})";

struct File {
  explicit File(const std::string& text, mode_t mode) {
    const int fd = ::mkstemp(path);
    REQUIRE(fd >= 0);
    REQUIRE(::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    ::fchmod(fd, mode);
    ::close(fd);
  }
  ~File() { ::unlink(path); }
  char path[32] = "/tmp/outboard-test-XXXXXX";
};

struct Checked {
  bool ok = false, is_private = false;
  std::string text, reason;
};

Checked check(const File& file, uint64_t uid = ::geteuid()) {
  Checked checked;
  checked.ok =
      read_checked_file(file.path, uid, &checked.text, &checked.is_private, &checked.reason);
  return checked;
}

struct Parsed {
  bool ok = false;
  Session session;
  std::string socket, reason;
};

Parsed parse(const std::string& text, bool is_private = true) {
  Parsed parsed;
  parsed.ok = parse_session(text, is_private, &parsed.session, &parsed.socket, &parsed.reason);
  return parsed;
}

}  // namespace

TEST_CASE("a private file of the caller's is read") {
  const Checked checked = check(File(good, 0600));
  CHECK(checked.ok);
  CHECK(checked.is_private);
  CHECK(checked.text == good);
}

TEST_CASE("a file that others may write is refused with the command that mends it") {
  const Checked checked = check(File(good, 0622));
  CHECK_FALSE(checked.ok);
  CHECK(checked.reason.find("chmod go-w") != std::string::npos);
}

TEST_CASE("a file of another user is not followed") {
  const File file(good, 0600);
  REQUIRE(::chown(file.path, 12345, static_cast<gid_t>(-1)) == 0);
  CHECK_FALSE(check(file).ok);
}

TEST_CASE("a file longer than 64 KiB is refused") {
  CHECK_FALSE(check(File(std::string((64 << 10) + 1, ' '), 0600)).ok);
}

TEST_CASE("the inline form is understood") {
  const Parsed parsed = parse(good);
  REQUIRE(parsed.ok);
  CHECK(parsed.session.name == "s-1");
  CHECK(parsed.session.nodes.at(0).address == "h:1");
  CHECK(parsed.session.nodes.at(0).tls == "none");
  CHECK(parsed.session.devices.at(0).index == 3);
  CHECK(parsed.session.key[0] == 0xaa);
}

TEST_CASE("a key that others may read is refused") { CHECK_FALSE(parse(good, false).ok); }

TEST_CASE("the socket form names its socket and needs no key") {
  const Parsed parsed = parse(R"({"version": 1, "form": "socket", "socket": "/run/x"})", false);
  CHECK(parsed.ok);
  CHECK(parsed.socket == "/run/x");
}

TEST_CASE("another version is refused naming both") {
  const Parsed parsed = parse(R"({"version": 2})");
  CHECK_FALSE(parsed.ok);
  CHECK(parsed.reason.find("version 2") != std::string::npos);
  CHECK(parsed.reason.find("version 1") != std::string::npos);
}

TEST_CASE("no text makes the parser fall over") {
  for (size_t cut = 0; cut < good.size(); ++cut) CHECK_FALSE(parse(good.substr(0, cut)).ok);
  for (const char* text :
       {"", "[]", "3", "\"x\"", "{}", R"({"version": "1"})", R"({"version": 1, "form": 3})",
        R"({"version": 1, "grant": [], "key": {}, "nodes": 1, "devices": 2})"}) {
    CHECK_FALSE(parse(text).ok);
  }
  std::string odd = good;
  odd.replace(odd.find("\"node\": 0"), 9, "\"node\": 9");
  CHECK_FALSE(parse(odd).ok);
}
