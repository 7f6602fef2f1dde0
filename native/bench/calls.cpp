// Costs of driver calls as a program sees them: one JSON line of figures about the libcuda.so.1 it
// finds. SPDX-License-Identifier: Apache-2.0
//
// Run it with LD_LIBRARY_PATH naming a driver (native), or under `outboard run` (remote):
// bench/calls.py does both in turn and compares. Beside the calls it measures, in the same run,
// what the transport itself costs: a 64-byte ping-pong and a bulk transfer over a TCP loopback
// connection, with the same blocking waits. Times are nanoseconds, rates bytes per second.
#include <cuda.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "base/spin.hpp"

namespace {

using Clock = std::chrono::steady_clock;

double now_ns() {
  return static_cast<double>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch())
          .count());
}

[[noreturn]] void die(const char* what, int code) {
  std::fprintf(stderr, "bench: %s failed: %d\n", what, code);
  std::exit(1);
}

/// The calls that are measured, each through the pointer that cuGetProcAddress gives.
struct Driver {
  decltype(&::cuInit) init;
  decltype(&::cuDeviceGet) device_get;
  decltype(&::cuDeviceGetAttribute) device_attribute;
  decltype(&::cuDevicePrimaryCtxRetain) retain;
  decltype(&::cuDevicePrimaryCtxGetState) state;
  decltype(&::cuCtxSetCurrent) set_current;
  decltype(&::cuCtxGetCurrent) get_current;
  CUresult (*ctx_device)(CUdevice*);
  CUresult (*ctx_synchronize)();
  decltype(&::cuMemAlloc) alloc;
  decltype(&::cuMemFree) free;
  decltype(&::cuMemGetInfo) info;
  decltype(&::cuMemcpyHtoD) h2d;
  decltype(&::cuMemcpyDtoH) d2h;
  decltype(&::cuMemcpyHtoDAsync) h2d_async;
  decltype(&::cuMemcpyDtoDAsync) d2d_async;
  decltype(&::cuMemsetD8Async) memset_async;
  decltype(&::cuMemHostAlloc) host_alloc;
  decltype(&::cuStreamCreate) stream_create;
  decltype(&::cuStreamSynchronize) stream_synchronize;
  decltype(&::cuStreamIsCapturing) is_capturing;
  decltype(&::cuEventCreate) event_create;
  decltype(&::cuEventRecord) event_record;
  decltype(&::cuModuleLoadData) load;
  decltype(&::cuModuleGetFunction) get_function;
  decltype(&::cuLaunchKernel) launch;

  explicit Driver(void* library) {
    using Resolve =
        CUresult (*)(const char*, void**, int, cuuint64_t, CUdriverProcAddressQueryResult*);
    const auto resolve = reinterpret_cast<Resolve>(::dlsym(library, "cuGetProcAddress_v2"));
    if (resolve == nullptr) die("dlsym cuGetProcAddress_v2", 0);
    const auto get = [resolve](const char* name, auto* slot, int version = 12000) {
      void* found = nullptr;
      if (const CUresult rc = resolve(name, &found, version, 0, nullptr); rc != CUDA_SUCCESS) {
        die(name, rc);
      }
      std::memcpy(slot, &found, sizeof found);
    };
    get("cuInit", &init);
    get("cuDeviceGet", &device_get);
    get("cuDeviceGetAttribute", &device_attribute);
    get("cuDevicePrimaryCtxRetain", &retain);
    get("cuDevicePrimaryCtxGetState", &state);
    get("cuCtxSetCurrent", &set_current);
    get("cuCtxGetCurrent", &get_current);
    get("cuCtxGetDevice", &ctx_device);
    get("cuCtxSynchronize", &ctx_synchronize);
    get("cuMemAlloc", &alloc);
    get("cuMemFree", &free);
    get("cuMemGetInfo", &info);
    get("cuMemcpyHtoD", &h2d);
    get("cuMemcpyDtoH", &d2h);
    get("cuMemcpyHtoDAsync", &h2d_async);
    get("cuMemcpyDtoDAsync", &d2d_async);
    get("cuMemsetD8Async", &memset_async);
    get("cuMemHostAlloc", &host_alloc);
    get("cuStreamCreate", &stream_create);
    get("cuStreamSynchronize", &stream_synchronize);
    get("cuStreamIsCapturing", &is_capturing);
    get("cuEventCreate", &event_create);
    get("cuEventRecord", &event_record);
    get("cuModuleLoadData", &load);
    get("cuModuleGetFunction", &get_function);
    get("cuLaunchKernel", &launch);
  }
};

constexpr char ptx[] = R"(
.version 7.0
.target sm_75
.address_size 64
.visible .entry nothing(.param .u64 a, .param .u64 b, .param .u32 n) { ret; }
)";

double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(q * static_cast<double>(values.size() - 1))];
}

/// Median over `rounds` of the mean cost of one call in a burst; `settle` runs untimed after each
/// burst.
template <typename Call, typename Settle>
double burst_p50(int rounds, int calls, Call call, Settle settle) {
  std::vector<double> each;
  for (int round = 0; round < rounds; ++round) {
    const double begin = now_ns();
    for (int i = 0; i < calls; ++i) call();
    each.push_back((now_ns() - begin) / calls);
    settle();
  }
  return quantile(each, 0.5);
}

template <typename Call>
double single_p50(int rounds, Call call) {
  std::vector<double> each;
  for (int round = 0; round < rounds; ++round) {
    const double begin = now_ns();
    call();
    each.push_back(now_ns() - begin);
  }
  return quantile(each, 0.5);
}

/// A connected pair of TCP loopback sockets, the server's end in a child process.
class Loopback {
 public:
  template <typename Serve>
  explicit Loopback(Serve serve) {
    const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (::bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        ::listen(listener, 1) != 0 ||
        ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      die("loopback socket", errno);
    }
    child_ = ::fork();
    if (child_ == 0) {
      const int fd = ::accept(listener, nullptr, nullptr);
      no_delay(fd);
      serve(fd);
      ::_exit(0);
    }
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (::connect(fd_, reinterpret_cast<sockaddr*>(&address), size) != 0) die("connect", errno);
    ::close(listener);
    no_delay(fd_);
  }
  ~Loopback() {
    ::close(fd_);
    ::waitpid(child_, nullptr, 0);
  }
  int fd() const { return fd_; }

 private:
  static void no_delay(int fd) {
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  int fd_ = -1;
  pid_t child_ = -1;
};

bool receive(int fd, char* to, size_t bytes, bool polled = false) {
  while (bytes != 0) {
    const ssize_t count = ::recv(fd, to, bytes, polled ? MSG_DONTWAIT : 0);
    if (polled && count < 0 && errno == EAGAIN) continue;
    if (count <= 0) return false;
    to += count;
    bytes -= static_cast<size_t>(count);
  }
  return true;
}

bool send_whole(int fd, const char* from, size_t bytes) {
  while (bytes != 0) {
    const ssize_t count = ::send(fd, from, bytes, MSG_NOSIGNAL);
    if (count <= 0) return false;
    from += count;
    bytes -= static_cast<size_t>(count);
  }
  return true;
}

// `polled`: both ends look for the message without blocking, as client and worker do for the first
// 50 µs where that pays.
double ping_pong_p50(int rounds, bool polled) {
  Loopback pair([polled](int fd) {
    char message[64];
    while (receive(fd, message, sizeof message, polled) &&
           send_whole(fd, message, sizeof message)) {
    }
  });
  char message[64] = {};
  return single_p50(rounds, [&] {
    send_whole(pair.fd(), message, sizeof message);
    receive(pair.fd(), message, sizeof message, polled);
  });
}

// The peer receives into (or sends out of) a ring of 8 MiB, as a worker's staging does; it answers
// each transfer with one byte.
constexpr size_t ring_bytes = 8u << 20;

double socket_rate(bool to_peer, std::vector<char>& memory, int rounds) {
  const size_t bytes = memory.size();
  Loopback pair([to_peer, bytes](int fd) {
    std::vector<char> ring(ring_bytes);
    char go = 0;
    for (;;) {
      if (!to_peer && !receive(fd, &go, 1)) return;
      for (size_t at = 0; at < bytes; at += ring_bytes) {
        const size_t part = std::min(ring_bytes, bytes - at);
        if (!(to_peer ? receive(fd, ring.data(), part) : send_whole(fd, ring.data(), part))) return;
      }
      if (to_peer && !send_whole(fd, &go, 1)) return;
    }
  });
  char go = 0;
  const double ns = single_p50(rounds, [&] {
    if (to_peer) {
      send_whole(pair.fd(), memory.data(), bytes);
      receive(pair.fd(), &go, 1);
    } else {
      send_whole(pair.fd(), &go, 1);
      receive(pair.fd(), memory.data(), bytes);
    }
  });
  return static_cast<double>(bytes) / ns * 1e9;
}

class Report {
 public:
  void add(const char* name, double value) {
    text_ += text_.empty() ? "{" : ", ";
    char item[96];
    std::snprintf(item, sizeof item, "\"%s\": %.6g", name, value);
    text_ += item;
  }
  void print() const { std::printf("%s}\n", text_.c_str()); }

 private:
  std::string text_;
};

struct Program {
  Driver cu;
  CUcontext context = nullptr;
  CUdevice device = 0;
  CUdeviceptr memory = 0;
  CUstream stream = nullptr;
  CUevent event = nullptr;
  CUfunction function = nullptr;

  explicit Program(void* library, size_t bytes) : cu(library) {
    CUmodule module = nullptr;
    const auto must = [](const char* what, CUresult rc) {
      if (rc != CUDA_SUCCESS) die(what, rc);
    };
    must("cuInit", cu.init(0));
    must("cuDeviceGet", cu.device_get(&device, 0));
    must("cuDevicePrimaryCtxRetain", cu.retain(&context, device));
    must("cuCtxSetCurrent", cu.set_current(context));
    must("cuMemAlloc", cu.alloc(&memory, bytes));
    must("cuStreamCreate", cu.stream_create(&stream, CU_STREAM_NON_BLOCKING));
    must("cuEventCreate", cu.event_create(&event, CU_EVENT_DISABLE_TIMING));
    must("cuModuleLoadData", cu.load(&module, ptx));
    must("cuModuleGetFunction", cu.get_function(&function, module, "nothing"));
  }
  CUresult launch() {
    CUdeviceptr a = memory, b = memory;
    unsigned n = 1;
    void* params[] = {&a, &b, &n};
    return cu.launch(function, 1, 1, 1, 1, 1, 1, 0, stream, params, nullptr);
  }
};

void measure_calls(Program& p, Report& report) {
  const auto none = [] {};
  const auto settle = [&p] { p.cu.stream_synchronize(p.stream); };
  int value = 0;
  unsigned flags = 0;
  CUdevice device = 0;
  CUcontext context = nullptr;
  CUstreamCaptureStatus status{};
  report.add("local_ctx_get_device", burst_p50(101, 2000, [&] { p.cu.ctx_device(&device); }, none));
  report.add("local_ctx_get_current",
             burst_p50(101, 2000, [&] { p.cu.get_current(&context); }, none));
  report.add("local_primary_state",
             burst_p50(101, 2000, [&] { p.cu.state(p.device, &flags, &value); }, none));
  report.add("local_is_capturing",
             burst_p50(101, 2000, [&] { p.cu.is_capturing(p.stream, &status); }, none));
  report.add("local_attribute", burst_p50(
                                    101, 2000,
                                    [&] {
                                      p.cu.device_attribute(
                                          &value, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
                                          p.device);
                                    },
                                    none));
  report.add("async_launch", burst_p50(301, 100, [&] { p.launch(); }, settle));
  report.add("async_event_record",
             burst_p50(301, 100, [&] { p.cu.event_record(p.event, p.stream); }, settle));
  report.add("async_memset",
             burst_p50(301, 100, [&] { p.cu.memset_async(p.memory, 0, 64, p.stream); }, settle));
  report.add(
      "async_copy_on_device",
      burst_p50(
          301, 100, [&] { p.cu.d2d_async(p.memory, p.memory + 4096, 64, p.stream); }, settle));
  size_t free_bytes = 0, total_bytes = 0;
  uint32_t word = 0;
  const bool polled = outboard::Spin().begin() != 0;
  report.add("round_trip_64_blocking", ping_pong_p50(3000, false));
  report.add("round_trip_64", ping_pong_p50(3000, polled));
  report.add("sync_mem_info", single_p50(3000, [&] { p.cu.info(&free_bytes, &total_bytes); }));
  report.add("sync_read_4_bytes",
             single_p50(3000, [&] { p.cu.d2h(&word, p.memory, sizeof word); }));
  report.add("sync_launch_and_wait", single_p50(3000, [&] {
               p.launch();
               p.cu.stream_synchronize(p.stream);
             }));
  report.add("round_trip_64_again", ping_pong_p50(3000, polled));
}

void measure_rates(Program& p, Report& report, size_t bytes, int launches) {
  const double begin = now_ns();
  for (int i = 0; i < launches; ++i) p.launch();
  p.cu.stream_synchronize(p.stream);
  report.add("launches_per_s", launches / (now_ns() - begin) * 1e9);

  std::vector<char> pageable(bytes, 1);
  const auto rate = [bytes](double ns) { return static_cast<double>(bytes) / ns * 1e9; };
  constexpr int rounds = 9;
  report.add("socket_to_peer", socket_rate(true, pageable, rounds));
  report.add("h2d_pageable", rate(single_p50(rounds, [&] {
               p.cu.h2d(p.memory, pageable.data(), bytes);
               p.cu.ctx_synchronize();
             })));
  void* pinned = nullptr;
  if (p.cu.host_alloc(&pinned, bytes, 0) == CUDA_SUCCESS) {
    std::memset(pinned, 1, bytes);
    report.add("h2d_pinned", rate(single_p50(rounds, [&] {
                 p.cu.h2d_async(p.memory, pinned, bytes, p.stream);
                 p.cu.stream_synchronize(p.stream);
               })));
  }
  report.add("socket_to_peer_again", socket_rate(true, pageable, rounds));
  report.add("socket_from_peer", socket_rate(false, pageable, rounds));
  report.add("d2h_pageable",
             rate(single_p50(rounds, [&] { p.cu.d2h(pageable.data(), p.memory, bytes); })));
  report.add("socket_from_peer_again", socket_rate(false, pageable, rounds));
}

}  // namespace

int main(int argc, char** argv) {
  const int launches = argc > 1 ? std::atoi(argv[1]) : 1000000;
  constexpr size_t bytes = 64u << 20;
  void* library = ::dlopen("libcuda.so.1", RTLD_NOW);
  if (library == nullptr) {
    std::fprintf(stderr, "bench: %s\n", ::dlerror());
    return 1;
  }
  Program program(library, bytes);
  Report report;
  measure_calls(program, report);
  measure_rates(program, report, bytes, launches);
  report.print();
  return 0;
}
