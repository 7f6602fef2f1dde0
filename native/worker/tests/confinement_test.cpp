// What a confined worker can no longer do, each tried in a process of its own.
// SPDX-License-Identifier: Apache-2.0
#include "worker/confinement.hpp"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <string>
#include <thread>

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
namespace outboard::worker {
namespace {

// The errno that `attempt` leaves inside; 0 where it succeeds.
int inside(const Confinement& wanted, const std::function<bool()>& attempt) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    confine(wanted);
    errno = 0;
    ::_exit(attempt() ? 0 : errno == 0 ? 255 : errno);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

Confinement own_files() {
  Confinement wanted;
  wanted.own_files = true;
  return wanted;
}

bool opens(const char* path, int flags) {
  const int fd = ::open(path, flags | O_CLOEXEC, 0600);
  return fd >= 0 && ::close(fd) == 0;
}

bool has_landlock(long version) {
  return ::syscall(SYS_landlock_create_ruleset, nullptr, 0, 1u) >= version;
}

}  // namespace

TEST_CASE("a confined worker computes: threads, memory, files in memory, sockets in pairs") {
  const int result = inside(own_files(), [] {
    int answer = 0;
    std::thread([&] { answer = 42; }).join();
    int pair[2];
    const int file = ::memfd_create("test", MFD_CLOEXEC);
    void* memory = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return answer == 42 && ::socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0 && file >= 0 &&
           ::ftruncate(file, 4096) == 0 && memory != MAP_FAILED && ::kill(::getpid(), 0) == 0;
  });
  CHECK(result == 0);
}

TEST_CASE("a confined worker leaves other processes alone") {
  const pid_t other = ::getpid();
  CHECK(inside(Confinement(), [&] { return ::kill(other, 0) == 0; }) == EPERM);
  CHECK(inside(Confinement(), [&] { return ::kill(-1, 0) == 0; }) == EPERM);
  CHECK(inside(Confinement(), [&] { return ::syscall(SYS_tgkill, other, other, 0) == 0; }) ==
        EPERM);
  CHECK(inside(own_files(),
               [&] { return ::ptrace(PTRACE_ATTACH, other, nullptr, nullptr) == 0; }) == EPERM);
  CHECK(inside(own_files(), [&] {
          char byte = 0;
          iovec local{&byte, 1};
          iovec remote{&byte, 1};
          return ::process_vm_readv(other, &local, 1, &remote, 1, 0) == 1;
        }) == EPERM);
  CHECK(inside(own_files(), [] { return ::fork() >= 0; }) == EPERM);
  CHECK(inside(own_files(), [] { return ::execl("/bin/true", "true", nullptr) == 0; }) == EPERM);
}

TEST_CASE("a confined worker makes no network connection") {
  CHECK(inside(own_files(), [] { return ::socket(AF_INET, SOCK_STREAM, 0) >= 0; }) == EAFNOSUPPORT);
  CHECK(inside(own_files(), [] { return ::socket(AF_INET6, SOCK_DGRAM, 0) >= 0; }) == EAFNOSUPPORT);
  CHECK(inside(own_files(), [] { return ::socket(AF_NETLINK, SOCK_RAW, 0) >= 0; }) == EAFNOSUPPORT);
  CHECK(inside(own_files(), [] { return ::socket(AF_UNIX, SOCK_STREAM, 0) >= 0; }) == 0);
  CHECK(inside(own_files(), [] { return ::syscall(SYS_io_uring_setup, 1, nullptr) >= 0; }) ==
        EPERM);
}

TEST_CASE("a confined worker does not turn its client's connection elsewhere") {
  if (!has_landlock(4)) return;  // Linux before 6.7 has no rule for that
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  REQUIRE(::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(::listen(listener, 8) == 0);
  REQUIRE(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  const int client = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(::connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  CHECK(inside(own_files(), [&] {
          sockaddr none{};
          none.sa_family = AF_UNSPEC;
          return ::connect(client, &none, sizeof none) == 0 &&
                 ::connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
        }) == EACCES);
  ::close(client);
  ::close(listener);
}

TEST_CASE("a confined worker changes nothing of the machine") {
  CHECK(inside(own_files(), [] { return ::unshare(CLONE_NEWUSER) == 0; }) == EPERM);
  CHECK(inside(own_files(), [] { return ::chroot("/") == 0; }) == EPERM);
  CHECK(inside(own_files(), [] { return ::syscall(SYS_bpf, 0, nullptr, 0) >= 0; }) == EPERM);
  CHECK(inside(own_files(), [] { return ::syscall(SYS_keyctl, 0, 0, 0, 0, 0) >= 0; }) == EPERM);
  CHECK(inside(own_files(), [] { return ::syscall(SYS_userfaultfd, 0) >= 0; }) == EPERM);
  CHECK(inside(own_files(),
               [] { return ::syscall(SYS_perf_event_open, nullptr, 0, -1, -1, 0) >= 0; }) == EPERM);
}

TEST_CASE("a worker without a file system of its own reaches libraries and devices alone") {
  if (!has_landlock(1)) return;
  const Confinement wanted;
  CHECK(inside(wanted, [] { return opens("/etc/passwd", O_RDONLY); }) == EACCES);
  CHECK(inside(wanted, [] { return opens("/", O_RDONLY); }) == EACCES);
  CHECK(inside(wanted, [] { return opens("/tmp", O_RDONLY); }) == EACCES);
  CHECK(inside(wanted, [] { return opens("/tmp/outboard-test", O_WRONLY | O_CREAT); }) == EACCES);
  CHECK(inside(wanted, [] { return opens("/etc/ld.so.cache", O_RDONLY); }) == 0);
  CHECK(inside(wanted, [] { return opens("/dev/null", O_RDWR); }) == 0);
  CHECK(inside(wanted, [] {
          const int socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
          sockaddr_un address{};
          address.sun_family = AF_UNIX;
          return ::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
        }) == EPERM);
  Confinement with_folder;
  with_folder.reads = {"/tmp"};
  CHECK(inside(with_folder, [] { return opens("/tmp", O_RDONLY); }) == 0);
}

TEST_CASE("a worker that is not to be confined is not") {
  Confinement wanted;
  wanted.on = false;
  CHECK(inside(wanted, [] { return ::socket(AF_INET, SOCK_STREAM, 0) >= 0; }) == 0);
}

}  // namespace outboard::worker
#endif
