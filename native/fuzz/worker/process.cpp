// Feeds damaged conversations to whole worker processes: each must end by itself, never by a
// signal. SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <span>
#include <string>

#include "base/fds.hpp"
#include "fuzz/worker/mutation.hpp"
#include "worker/share.hpp"

namespace outboard::fuzz {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto longest = std::chrono::seconds(5);

struct Settings {
  std::string worker;
  std::string driver;
  uint32_t samples = 200;
  uint32_t seed = 1;
};

struct Sockets {
  UniqueFd ours;
  UniqueFd theirs;
};

Sockets make_sockets(int type) {
  int pair[2];
  if (::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair) != 0) std::abort();
  return {UniqueFd(pair[0]), UniqueFd(pair[1])};
}

pid_t start(const Settings& settings, const Sockets& control) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  ::dup2(control.theirs.get(), 3);
  const int quiet = ::open("/dev/null", O_WRONLY);
  ::dup2(quiet, STDERR_FILENO);
  ::execl(settings.worker.c_str(), settings.worker.c_str(), "--driver", settings.driver.c_str(),
          "--control-fd", "3", "--id", "0123456789abcdef0123456789abcdef", nullptr);
  ::_exit(127);
}

void claim(int control, int command, int page) {
  char text[] =
      R"({"type": "claim", "session": "s-1", "devices": [{"index": 0, "share_bytes": 67108864}], "slot": 0})";
  iovec part{text, sizeof text - 1};
  alignas(cmsghdr) char rights[CMSG_SPACE(2 * sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = rights;
  message.msg_controllen = sizeof rights;
  cmsghdr* head = CMSG_FIRSTHDR(&message);
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(2 * sizeof(int));
  const int fds[2] = {command, page};
  std::memcpy(CMSG_DATA(head), fds, sizeof fds);
  ::sendmsg(control, &message, MSG_NOSIGNAL);
}

// Plays the client until the worker has ended; false where it takes longer than 5 s.
bool play(int fd, const Bytes& bytes, int worker) {
  const auto until = Clock::now() + longest;
  static char ignored[64 << 10];
  size_t sent = 0;
  bool open = true;
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
    if (left <= 0) return false;
    pollfd fds[2] = {
        {worker, POLLIN, 0},
        {open ? fd : -1, static_cast<short>(POLLIN | (sent < bytes.size() ? POLLOUT : 0)), 0}};
    ::poll(fds, 2, static_cast<int>(left));
    if (fds[0].revents != 0) return true;
    if ((fds[1].revents & POLLOUT) != 0) {
      const ssize_t count =
          ::send(fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (count > 0) sent += static_cast<size_t>(count);
      if (sent == bytes.size()) ::shutdown(fd, SHUT_WR);
    }
    if ((fds[1].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
      open = ::recv(fd, ignored, sizeof ignored, MSG_DONTWAIT) > 0;
    }
  }
}

// The worker's wait status; -1 where it had to be killed.
int run_one(const Settings& settings, const Bytes& bytes) {
  Sockets control = make_sockets(SOCK_SEQPACKET);
  Sockets command = make_sockets(SOCK_STREAM);
  const uint64_t limit = uint64_t{64} << 20;
  const UniqueFd page = worker::Share::make(&limit, 1);
  const pid_t child = start(settings, control);
  if (child < 0) std::abort();
  const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  claim(control.ours.get(), command.theirs.get(), page.get());
  command.theirs.reset();
  control.theirs.reset();
  if (bytes.empty()) ::shutdown(command.ours.get(), SHUT_WR);
  const bool ended = play(command.ours.get(), bytes, process.get());
  if (!ended) ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  return ended ? status : -1;
}

int run(const Settings& settings) {
  const Bytes conversation = make_conversation();
  if (const int status = run_one(settings, conversation); status != 0) {
    std::printf("the conversation itself ended the worker with status %d\n", status);
    return 1;
  }
  std::map<int, unsigned> codes;
  for (uint32_t i = 0; i < settings.samples; ++i) {
    std::string description;
    const Bytes bytes = mutate_randomly(conversation, settings.seed + i, &description);
    const int status = run_one(settings, bytes);
    const bool ordinary = status >= 0 && WIFEXITED(status) && WEXITSTATUS(status) <= 2;
    if (!ordinary) {
      std::printf("seed %u (%s): %s %d\n", settings.seed + i, description.c_str(),
                  status == -1 ? "no end within 5 s," : "signal or code,",
                  status == -1          ? 0
                  : WIFSIGNALED(status) ? WTERMSIG(status)
                                        : WEXITSTATUS(status));
      return 1;
    }
    ++codes[WEXITSTATUS(status)];
  }
  std::printf("%u workers, seeds %u and up:", settings.samples, settings.seed);
  for (const auto& [code, count] : codes) std::printf(" %u ended with %d;", count, code);
  std::printf(" none by a signal\n");
  return 0;
}

}  // namespace
}  // namespace outboard::fuzz

// worker_process_fuzz WORKER DRIVER [--samples N] [--seed S]
int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s WORKER DRIVER [--samples N] [--seed S]\n", argv[0]);
    return 2;
  }
  outboard::fuzz::Settings settings;
  settings.worker = argv[1];
  settings.driver = argv[2];
  for (int i = 3; i + 1 < argc; i += 2) {
    const auto value = static_cast<uint32_t>(std::strtoul(argv[i + 1], nullptr, 10));
    if (std::strcmp(argv[i], "--samples") == 0) settings.samples = value;
    if (std::strcmp(argv[i], "--seed") == 0) settings.seed = value;
  }
  return outboard::fuzz::run(settings);
}
