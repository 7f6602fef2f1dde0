// Late errors and host functions.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/program.hpp"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <unordered_map>

#include "base/log.hpp"
#include "client/threads.hpp"
#include "generated/protocol.hpp"
#include "generated/shim_api.hpp"
#include "shim/cuda/device_view.hpp"
#include "shim/cuda/guard.hpp"

namespace outboard::shim {
namespace {

struct HostCall {
  CUhostFn function = nullptr;
  CUstreamCallback callback = nullptr;
  void* data = nullptr;
  Stream* stream = nullptr;
  uint64_t stream_id = 0;
  CUstream stream_handle = nullptr;
  uint64_t before = 0;  // commands of the stream that must be in place first
  client::Server* server = nullptr;
  uint32_t context = 0;
};

// The functions that are under way, and the thread that runs them one after another.
class HostFunctions {
 public:
  CUresult add(Stream* stream, HostCall call) {
    std::unique_lock lock(mutex_);
    if (!started_) {
      started_ = client::start_thread(
          "outboard-host",
          [](void* self) -> void* {
            static_cast<HostFunctions*>(self)->loop();
            return nullptr;
          },
          this);
      if (!started_) return CUDA_ERROR_OUT_OF_MEMORY;
    }
    const uint64_t id = ++last_;
    call.stream = stream;
    call.stream_id = stream->head.id();
    call.server = stream->context->server;
    call.context = stream->context->head.index;
    const auto found = calls_.emplace(id, call).first;
    uint64_t count = 0;
    const CUresult result =
        send(stream, wire::command::HostFunction{.stream = call.stream_id, .function = id}, &count);
    if (result != CUDA_SUCCESS) {
      calls_.erase(found);
      return result;
    }
    found->second.before = count - 1;
    lock.unlock();
    call.server->connection().expect(1);
    return CUDA_SUCCESS;
  }

  void run(uint64_t id) {
    const std::lock_guard guard(mutex_);
    due_.push_back(id);
    wake_.notify_one();
  }

 private:
  void loop() {
    thread_state.in_callback = 1;
    for (;;) {
      HostCall call;
      uint64_t id = 0;
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [this] { return !due_.empty(); });
        id = due_.front();
        due_.pop_front();
        const auto found = calls_.find(id);
        if (found == calls_.end()) continue;
        call = found->second;
        calls_.erase(found);
      }
      execute(call);
      client::Connection& connection = call.server->connection();
      connection.send(wire::command::HostFunctionDone{.function = id}, call.context);
      connection.expect(-1);
    }
  }

  static void execute(const HostCall& call) {
    // The bytes of earlier D2H copies may come on another connection than the word that it is time.
    if (streams.find_id(call.stream_id) == call.stream &&
        call.stream->progress.copies_pending.load() != 0) {
      call.server->copies().report(&call.stream->progress, call.before);
      call.server->copies().wait(&call.stream->progress, call.before);
    }
    fetch_views();
    if (call.function != nullptr) {
      call.function(call.data);
    } else {
      call.callback(call.stream_handle, CUDA_SUCCESS, call.data);
    }
    refresh_views();
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::unordered_map<uint64_t, HostCall> calls_;
  std::deque<uint64_t> due_;
  uint64_t last_ = 0;
  bool started_ = false;
};

HostFunctions& host_functions() {
  static auto* const instance = new HostFunctions;
  return *instance;
}

const char* name_of(client::Result result) {
  const char* name = nullptr;
  return shim::cuGetErrorName(to_cuda(result), &name) == CUDA_SUCCESS ? name : "an unknown error";
}

class Program final : public client::Owner {
 public:
  client::StreamProgress* stream(uint64_t id) override {
    Stream* stream = streams.find_id(id);
    return stream != nullptr ? &stream->progress : nullptr;
  }
  void host_function(uint64_t function) override { host_functions().run(function); }
  void refused(wire::Op op, client::Result result, uint64_t id) override {
    say("the server's driver refused a %s that the program had queued: %s; the next call returns "
        "it",
        wire::op_name(op), name_of(result));
    Context* context = contexts.find_id(id);
    if (context == nullptr) return;
    int none = 0;
    context->pending.compare_exchange_strong(none, result);
    context->trouble.store(1, std::memory_order_release);
  }
  void fatal(client::Result result, uint64_t id) override {
    Context* context = contexts.find_id(id);
    if (context == nullptr) return;
    int none = 0;
    context->sticky.compare_exchange_strong(none, result);
    context->trouble.store(1, std::memory_order_release);
    drop_copies(context);
  }
  void lost() override {
    contexts.for_each([](Context* context) {
      if (!context->server->connection().is_lost()) return;
      context->sticky.store(client::result::lost);
      context->trouble.store(1, std::memory_order_release);
    });
  }
};

}  // namespace

client::Owner* program() {
  static auto* const instance = new Program;
  return instance;
}

void drop_copies(Context* context) {
  streams.for_each([context](Stream* stream) {
    if (stream->context != context) return;
    context->server->copies().cancel_stream(&stream->progress);
    context->server->bulk().drop(stream->head.id());
  });
}

CUresult add_host_function(Stream* stream, CUhostFn function, void* data) {
  HostCall call;
  call.function = function;
  call.data = data;
  return host_functions().add(stream, call);
}

CUresult add_callback(Stream* stream, CUstreamCallback function, void* data) {
  HostCall call;
  call.callback = function;
  call.data = data;
  call.stream_handle = stream->legacy       ? nullptr
                       : stream->per_thread ? CU_STREAM_PER_THREAD
                                            : handle(stream);
  return host_functions().add(stream, call);
}

CUresult not_running() { return CUDA_ERROR_NOT_INITIALIZED; }

CUresult report(Context* context) {
  if (context->destroyed.load()) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  if (const int sticky = context->sticky.load(); sticky != 0) return static_cast<CUresult>(sticky);
  const int pending = context->pending.exchange(0);
  context->trouble.store(0);
  if (context->sticky.load() != 0 || context->pending.load() != 0 || context->destroyed.load()) {
    context->trouble.store(1);
  }
  return static_cast<CUresult>(pending);
}

}  // namespace outboard::shim
