// Late errors, and what else comes unasked.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/program.hpp"

#include "base/log.hpp"
#include "generated/protocol.hpp"
#include "generated/shim_api.hpp"
#include "shim/cuda/device_view.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/host_functions.hpp"

namespace outboard::shim {
namespace {

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
  void host_function(uint64_t function) override { host_function_due(function); }
  void graph_function(client::Server* server, uint64_t call, uint64_t function) override {
    graph_function_due(server, call, function);
  }
  void released(uint64_t object) override { released_by_graph(object); }
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
    if (to_cuda(result) == CUDA_ERROR_ILLEGAL_ADDRESS && leftovers_seen.load()) {
      static const char said[] = "leftovers";
      say_once(said,
               "a kernel reached memory that it must not (700), and what could be the address of "
               "pinned memory stood inside a structure that a kernel was given, or was copied to "
               "a device; if it is one, set OUTBOARD_PINNED_IN_STRUCTURES=1 (in a structure it is "
               "enough to ask cudaHostGetDevicePointer for it)");
    }
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
