// A second process of the same program, in step with the first over a pair of sockets.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

extern char** environ;

// One end of the pair. What is sent is received whole, in order; whoever is left alone ends.
class Partner {
 public:
  explicit Partner(int socket) : socket_(socket) {}
  Partner(const Partner&) = delete;
  Partner& operator=(const Partner&) = delete;

  // Starts this program again with `--role ROLE --partner FD`.
  Partner(const char* program, const char* role) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) != 0) fail("no pair of sockets");
    socket_ = ends[0];
    const std::string number = std::to_string(ends[1]);
    std::string words[] = {program, "--role", role, "--partner", number};
    char* arguments[] = {words[0].data(), words[1].data(), words[2].data(),
                         words[3].data(), words[4].data(), nullptr};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    if (posix_spawn(&process_, "/proc/self/exe", &actions, nullptr, arguments, environ) != 0) {
      fail("the program cannot be started again");
    }
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
  }

  template <typename T>
  void send(const T& value, int descriptor = -1) const {
    iovec part{const_cast<T*>(&value), sizeof value};
    alignas(cmsghdr) char rights[CMSG_SPACE(sizeof descriptor)] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (descriptor >= 0) {
      message.msg_control = rights;
      message.msg_controllen = sizeof rights;
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof descriptor);
      std::memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
    }
    if (sendmsg(socket_, &message, MSG_NOSIGNAL) != sizeof value) fail("the partner is gone");
  }

  template <typename T>
  T receive(int* descriptor = nullptr) const {
    T value{};
    iovec part{&value, sizeof value};
    alignas(cmsghdr) char rights[CMSG_SPACE(sizeof *descriptor)];
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = rights;
    message.msg_controllen = sizeof rights;
    if (recvmsg(socket_, &message, 0) != sizeof value) fail("the partner is gone");
    const cmsghdr* header = CMSG_FIRSTHDR(&message);
    if (descriptor != nullptr && header != nullptr) {
      std::memcpy(descriptor, CMSG_DATA(header), sizeof *descriptor);
    }
    return value;
  }

  void step() const { send('.'); }
  void await_step() const { receive<char>(); }

  // Of the process that was started: how it ended; 0 is well.
  int wait() const {
    int status = 0;
    return waitpid(process_, &status, 0) == process_ && WIFEXITED(status) ? WEXITSTATUS(status)
                                                                          : -1;
  }

 private:
  [[noreturn]] static void fail(const char* why) {
    std::fprintf(stderr, "%s\n", why);
    std::exit(1);
  }

  int socket_ = -1;
  pid_t process_ = 0;
};
