// Running the program's functions in their streams' order, one after another, in a thread of ours.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/host_functions.hpp"

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "client/threads.hpp"
#include "generated/shim_api.hpp"
#include "shim/cuda/device_view.hpp"
#include "shim/cuda/graph_copies.hpp"
#include "shim/cuda/graphs.hpp"
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

/// One call of a graph's function: by which launch.
struct Occasion {
  Stream* stream = nullptr;
  uint64_t stream_id = 0;
  uint64_t before = 0;
  std::shared_ptr<const LaunchPlan> plan;
  size_t place = 0;
};

struct Registered {
  CUhostFn function = nullptr;
  void* data = nullptr;
  std::deque<Occasion> occasions;  // launches that are under way, in their order
};

struct UserObject {
  CUhostFn destroy = nullptr;
  void* data = nullptr;
  uint64_t number = 0;
  uint64_t references = 0;  // the program's, and one for every graph that was given some
};

// The functions that are under way, and the thread that runs them one after another.
class HostFunctions {
 public:
  CUresult add(Stream* stream, HostCall call) {
    std::unique_lock lock(mutex_);
    if (!start()) return CUDA_ERROR_OUT_OF_MEMORY;
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

  uint64_t add_registered(CUhostFn function, void* data) {
    const std::lock_guard guard(mutex_);
    if (!start()) return 0;
    registered_.emplace(++last_, Registered{function, data, {}});
    return last_;
  }

  bool find_registered(uint64_t number, CUDA_HOST_NODE_PARAMS* out) {
    const std::lock_guard guard(mutex_);
    const auto found = registered_.find(number);
    if (found == registered_.end()) return false;
    *out = {found->second.function, found->second.data};
    return true;
  }

  void expect(uint64_t number, Occasion occasion) {
    client::Server* server = occasion.stream->context->server;
    {
      const std::lock_guard guard(mutex_);
      const auto found = registered_.find(number);
      if (found == registered_.end()) return;
      found->second.occasions.push_back(std::move(occasion));
    }
    server->connection().expect(1);
  }

  void add_object(UserObject* object) {
    const std::lock_guard guard(mutex_);
    object->number = ++last_;
    objects_.emplace(object->number, object);
  }

  // `change(UserObject&)` of a living object; false where there is none, or where `change` refuses.
  template <typename Change>
  bool with_object(const void* handle, Change&& change) {
    UserObject* object = nullptr;
    {
      const std::lock_guard guard(mutex_);
      for (const auto& [number, candidate] : objects_) {
        if (candidate == handle) object = candidate;
      }
      if (object == nullptr || !change(*object)) return false;
      if (object->references != 0) return true;
      objects_.erase(object->number);
    }
    object->destroy(object->data);
    delete object;
    return true;
  }

  void run(uint64_t id) { put({id, 0, nullptr}); }
  void run_registered(client::Server* server, uint64_t call, uint64_t number) {
    put({call, number, server});
  }
  void released(uint64_t number) { put({0, number, nullptr}); }

 private:
  // A stream's function (`number` 0), a call of a graph's, or (`id` 0) the end of a graph's hold.
  struct Due {
    uint64_t id = 0;
    uint64_t number = 0;
    client::Server* server = nullptr;
  };

  bool start() {
    if (!started_) {
      started_ = client::start_thread(
          "outboard-host",
          [](void* self) -> void* {
            static_cast<HostFunctions*>(self)->loop();
            return nullptr;
          },
          this);
    }
    return started_;
  }

  void put(Due due) {
    const std::lock_guard guard(mutex_);
    if (!start()) return;
    due_.push_back(due);
    wake_.notify_one();
  }

  void loop() {
    thread_state.in_callback = 1;
    for (;;) {
      Due due;
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [this] { return !due_.empty(); });
        due = due_.front();
        due_.pop_front();
      }
      if (due.id == 0) {
        end_hold(due.number);
      } else if (due.number != 0) {
        call_registered(due);
      } else {
        call_once(due.id);
      }
    }
  }

  void call_once(uint64_t id) {
    HostCall call;
    {
      const std::lock_guard guard(mutex_);
      const auto found = calls_.find(id);
      if (found == calls_.end()) return;
      call = found->second;
      calls_.erase(found);
    }
    settle(call.stream, call.stream_id, call.before);
    fetch_views();
    if (call.function != nullptr) {
      call.function(call.data);
    } else {
      call.callback(call.stream_handle, CUDA_SUCCESS, call.data);
    }
    refresh_views();
    client::Connection& connection = call.server->connection();
    connection.send(wire::command::HostFunctionDone{.function = id}, call.context);
    connection.expect(-1);
  }

  void call_registered(const Due& due) {
    Registered function;
    std::optional<Occasion> occasion;
    {
      const std::lock_guard guard(mutex_);
      const auto found = registered_.find(due.number);
      if (found != registered_.end()) {
        function.function = found->second.function;
        function.data = found->second.data;
        if (!found->second.occasions.empty()) {
          occasion = std::move(found->second.occasions.front());
          found->second.occasions.pop_front();
        }
      }
    }
    client::Connection& connection = due.server->connection();
    if (occasion) {
      settle(occasion->stream, occasion->stream_id, occasion->before);
      if (occasion->plan) occasion->plan->before_function(occasion->stream, occasion->place);
    }
    fetch_views();
    if (function.function != nullptr) function.function(function.data);
    refresh_views();
    if (occasion && occasion->plan) {
      occasion->plan->after_function(occasion->stream, occasion->place);
    }
    connection.send(wire::command::HostFunctionDone{.function = due.id}, 0);
    if (occasion) connection.expect(-1);
  }

  void end_hold(uint64_t number) {
    const void* object = nullptr;
    {
      const std::lock_guard guard(mutex_);
      if (registered_.erase(number) != 0) return;
      const auto found = objects_.find(number);
      if (found != objects_.end()) object = found->second;
    }
    if (object == nullptr) return;
    with_object(object, [](UserObject& held) { return held.references-- > 0; });
  }

  // The bytes of earlier D2H copies may come on another connection than the word that it is time.
  static void settle(Stream* stream, uint64_t id, uint64_t before) {
    if (streams.find_id(id) != stream || stream->progress.copies_pending.load() == 0) return;
    client::Copies& copies = stream->context->server->copies();
    copies.report(&stream->progress, before);
    copies.wait(&stream->progress, before);
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::unordered_map<uint64_t, HostCall> calls_;
  std::unordered_map<uint64_t, Registered> registered_;
  std::map<uint64_t, UserObject*> objects_;
  std::deque<Due> due_;
  uint64_t last_ = 0;
  bool started_ = false;
};

HostFunctions& host_functions() {
  static auto* const instance = new HostFunctions;
  return *instance;
}

}  // namespace

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

uint64_t register_function(CUhostFn function, void* data) {
  return host_functions().add_registered(function, data);
}

bool find_registered(uint64_t number, CUDA_HOST_NODE_PARAMS* out) {
  return host_functions().find_registered(number, out);
}

void expect_call(uint64_t number, Stream* stream, std::shared_ptr<const LaunchPlan> plan,
                 size_t place) {
  host_functions().expect(
      number, {stream, stream->head.id(), stream->progress.issued.load(), std::move(plan), place});
}

void host_function_due(uint64_t function) { host_functions().run(function); }

void graph_function_due(client::Server* server, uint64_t call, uint64_t number) {
  host_functions().run_registered(server, call, number);
}

void released_by_graph(uint64_t number) { host_functions().released(number); }

// ---- user objects
// --------------------------------------------------------------------------------

CUresult cuUserObjectCreate(CUuserObject* object_out, void* ptr, CUhostFn destroy,
                            unsigned int initialRefcount, unsigned int flags) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (object_out == nullptr || destroy == nullptr || initialRefcount == 0 ||
      initialRefcount > INT_MAX || flags != CU_USER_OBJECT_NO_DESTRUCTOR_SYNC) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  auto* object = new UserObject{destroy, ptr, 0, initialRefcount};
  host_functions().add_object(object);
  *object_out = reinterpret_cast<CUuserObject>(object);
  return CUDA_SUCCESS;
}

CUresult cuUserObjectRetain(CUuserObject object, unsigned int count) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (count == 0 || count > INT_MAX) return CUDA_ERROR_INVALID_VALUE;
  const bool known = host_functions().with_object(object, [count](UserObject& found) {
    found.references += count;
    return true;
  });
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuUserObjectRelease(CUuserObject object, unsigned int count) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (count == 0 || count > INT_MAX) return CUDA_ERROR_INVALID_VALUE;
  const bool known = host_functions().with_object(object, [count](UserObject& found) {
    if (found.references < count) return false;
    found.references -= count;
    return true;
  });
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGraphRetainUserObject(CUgraph graph, CUuserObject object, unsigned int count,
                                 unsigned int flags) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Graph* found = find(graph);
  if (found == nullptr || count == 0 || count > INT_MAX ||
      (flags & ~unsigned{CU_GRAPH_USER_OBJECT_MOVE}) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  uint64_t number = 0;
  const bool known = host_functions().with_object(object, [&](UserObject& held) {
    if (flags == CU_GRAPH_USER_OBJECT_MOVE) {
      if (held.references < count) return false;
      held.references -= count;
    }
    ++held.references;  // until the server says that the last graph has let go
    number = held.number;
    return true;
  });
  if (!known) return CUDA_ERROR_INVALID_VALUE;
  return send(found->context,
              wire::command::GraphRetain{.graph = found->id(), .object = number, .count = count});
}

CUresult cuGraphReleaseUserObject(CUgraph graph, CUuserObject object, unsigned int count) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Graph* found = find(graph);
  if (found == nullptr || count == 0 || count > INT_MAX) return CUDA_ERROR_INVALID_VALUE;
  uint64_t number = 0;
  const bool known = host_functions().with_object(object, [&](const UserObject& held) {
    number = held.number;
    return true;
  });
  if (!known) return CUDA_ERROR_INVALID_VALUE;
  return send(found->context,
              wire::command::GraphRelease{.graph = found->id(), .object = number, .count = count});
}

}  // namespace outboard::shim
