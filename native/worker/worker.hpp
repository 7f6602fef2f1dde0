// One client process's device state, and the execution of its commands.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "generated/execute.hpp"
#include "generated/protocol.hpp"
#include "worker/arrays.hpp"
#include "worker/bulk.hpp"
#include "worker/completion.hpp"
#include "worker/contexts.hpp"
#include "worker/copies.hpp"
#include "worker/driver.hpp"
#include "worker/events.hpp"
#include "worker/graphs.hpp"
#include "worker/green_contexts.hpp"
#include "worker/host_memory.hpp"
#include "worker/ipc.hpp"
#include "worker/memory.hpp"
#include "worker/modules.hpp"
#include "worker/objects.hpp"
#include "worker/outbox.hpp"
#include "worker/printf.hpp"
#include "worker/share.hpp"
#include "worker/side_thread.hpp"
#include "worker/streams.hpp"
#include "worker/usage.hpp"
#include "worker/virtual_memory.hpp"

namespace outboard::worker {

/// What an answer needs to know of its command.
struct Request {
  uint32_t number = 0;   ///< 0: no answer wanted
  uint32_t context = 0;  ///< index of the context that was current in the client
  wire::Op op = wire::Op::count;
};

/// A device of the session.
struct Device {
  CUdevice handle = 0;
  uint64_t share_bytes = 0;
  uint64_t context_bytes = 0;  ///< what a context of the driver takes, counted against the share
};

struct Tables {
  ObjectTable<Context> contexts;
  ObjectTable<GreenContext> greens;
  ObjectTable<Stream> streams;
  ObjectTable<Event> events;
  ObjectTable<Module> modules;
  ObjectTable<Function> functions;
  ObjectTable<Graph> graphs;
  ObjectTable<ExecutableGraph> executables;
  ObjectTable<Array> arrays;
  ObjectTable<MipmappedArray> mipmaps;
  ObjectTable<TextureReference> references;
  ContextObjects textures;
  ContextObjects surfaces;
};

class Worker {
 public:
  /// `seal` sends the payload of a batch of messages; `wake_fd` is an eventfd that ends the loop's
  /// wait.
  Worker(const Driver& driver, std::vector<Device> devices, Share& share, DeviceText* text,
         std::function<void(std::span<const std::byte>)> seal, int wake_fd);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // ---- the loop's side

  /// Takes one command of a batch: issues it, or keeps it until its turn.
  /// `in_turn`: it waited already for what came before it.
  void command(const wire::CommandHeader& header, std::span<const std::byte> payload,
               bool in_turn = false);
  /// Moves everything along that does not need the client. True if anything moved.
  bool poll();
  /// Whether something is under way that no descriptor announces.
  bool waiting() const { return completion.waiting() || !pumping_.empty(); }
  /// Notices which devices have no work any more; `quiet_since` is when anything moved last,
  /// `may_ask` whether the driver may be asked. True if work is out of which nobody waits for the
  /// end: then it is worth asking again.
  bool settle(std::chrono::steady_clock::time_point quiet_since, bool may_ask);
  /// What the client did wrong; empty while it did nothing wrong.
  const std::string& broken() const { return broken_; }
  void broken(std::string how) {
    if (broken_.empty()) broken_ = std::move(how);
  }
  size_t backlog_bytes() const { return backlog_bytes_; }
  bool host_functions_pending() const { return !host_functions_.empty(); }

  // ---- for execute()

  const Driver& driver() const { return driver_; }
  template <typename Reply>
  void reply(const Request& request, CUresult result, const Reply& reply) {
    if (before_reply(request, &result)) outbox.reply(request.number, result, reply);
  }
  /// Answers without content, as every answer of an error may.
  void answer(const Request& request, CUresult result);
  void refused(const Request& request, wire::Op op, CUresult result);
  /// The bytes of an async copy to the host will not come, or not all of them.
  void no_bytes(uint64_t copy, CUresult result);

  /// Makes the driver's current context this one, or what a command on this stream needs: handles
  /// of default streams mean the current context's.
  void make_current(const Context& context) { make_current(context.handle); }
  void make_current(const Stream& stream);
  /// The current context is no longer known, as after another one was destroyed.
  void forget_current() { current_handle_ = nullptr; }
  /// The context that the command being executed names; null where there is none alive.
  Context* current() const { return current_; }
  /// The stream of the command being issued.
  Stream& issuing() const { return *issuing_; }
  const std::shared_ptr<Record>& issuing_record() const { return issuing_record_; }
  const std::shared_ptr<GraphRun>& issuing_run() const { return issuing_run_; }
  const std::vector<std::shared_ptr<PhysicalMemory>>& issuing_memories() const {
    return issuing_memories_;
  }

  /// Notices results that kill the context; returns the result.
  CUresult checked(Context& context, CUresult result);
  void fail(Context& context, CUresult result);
  /// Sends what kernels printed, before the answer to a synchronisation of the stream or context.
  void send_text(Context& context, Stream* stream);

  /// Has `action` wait behind what the stream's backlog holds now.
  void keep_mark(Stream& stream, Action action);
  /// A new stream of the context, or null with the driver's error.
  std::shared_ptr<Stream> make_stream(const std::shared_ptr<Context>& context, StreamKind kind,
                                      unsigned flags, int priority, CUresult* result,
                                      const std::shared_ptr<GreenContext>& green = nullptr);
  /// Ends a stream once its work is done.
  void retire(const std::shared_ptr<Stream>& stream);
  /// Takes a stream out of everything; its context is going, or its work is done.
  void drop_stream(Stream& stream);
  /// A stream's bulk copy, begun; the rest is issued as room comes.
  CUresult begin_bulk(Stream& stream, std::unique_ptr<BulkCopy> copy);
  bool accept_create(Insert verdict);

  struct HostFunctionPlace {
    std::shared_ptr<Stream> stream;
    uint32_t number;
  };
  std::unordered_map<uint64_t, HostFunctionPlace>& host_functions() { return host_functions_; }

  /// A graph of the client's table, or one inside a node; null where there is none.
  std::shared_ptr<Graph> graph(uint64_t id) const;

  // What generated bodies look up; id 0 is the null handle.
  CUresult find(uint64_t id, CUcontext* handle) const;
  CUresult find(uint64_t id, CUstream* handle) const;
  CUresult find(uint64_t id, CUevent* handle) const;
  CUresult find(uint64_t id, CUmodule* handle) const;
  CUresult find(uint64_t id, CUlibrary* handle) const;
  CUresult find(uint64_t id, CUfunction* handle) const;
  CUresult find(uint64_t id, CUkernel* handle) const;
  CUresult find(uint64_t id, CUgraph* handle) const;
  CUresult find(uint64_t id, CUgraphExec* handle) const;
  CUresult find(uint64_t id, CUmemoryPool* handle) const;
  CUresult find(uint64_t id, CUarray* handle) const;
  CUresult find(uint64_t id, CUmipmappedArray* handle) const;
  CUresult find(uint64_t id, CUtexref* handle) const;
  CUresult find(uint64_t id, CUsurfref* handle) const;
  CUresult find_device(uint32_t index, CUdevice* device) const;

 private:
  const Driver& driver_;

 public:
  std::vector<Device> devices;
  Share& share;
  Usage usage;
  Outbox outbox;
  HostCalls host_calls;
  Tables tables;
  GraphNames graph_names;
  Completion completion;
  Interprocess interprocess;  ///< hears of the end of memory, and so outlives it
  Memory memory;
  VirtualMemory virtual_memory;
  DeviceResources device_resources;
  HostMemory host_memory;
  Images images;
  SideThread side;
  Bulk bulk;
  DeviceText* text;  ///< null where nobody captures the worker's stdout

 private:
  void make_current(CUcontext handle);
  uint32_t devices_at_work(bool may_ask, bool* asked);
  bool before_reply(const Request& request, CUresult* result);
  /// Takes the command again once all that came for its context's streams before is issued.
  void after_backlog(const wire::CommandHeader& header, std::span<const std::byte> payload);
  void ordered(const Request& request, const wire::CommandHeader& header,
               std::span<const std::byte> payload, uint64_t stream_id);
  void arrive(Stream& stream, wire::Op op, std::span<const std::byte> payload, Item* item);
  bool may_issue(Stream& stream, uint64_t sequence, const Item& item, wire::Op op);
  void issue(Stream& stream, const Request& request, std::span<const std::byte> payload,
             const Item& item);
  void keep(Stream& stream, uint64_t sequence, Item item);
  bool pump(Stream& stream);
  bool pump_head(Stream& stream);
  bool room_for_piece(Stream& stream);
  void issue_pieces(Stream& stream);
  CUresult issue_upload_piece(Stream& stream, BulkCopy& copy);
  CUresult issue_download_piece(Stream& stream, BulkCopy& copy);
  bool has_room(Stream& stream);
  void reject_ordered(const Request& request, std::span<const std::byte> payload, uint64_t stream,
                      CUresult result);

  std::string broken_;
  Context* current_ = nullptr;
  CUcontext current_handle_ = nullptr;
  Stream* issuing_ = nullptr;
  std::shared_ptr<Record> issuing_record_;
  std::shared_ptr<GraphRun> issuing_run_;
  std::vector<std::shared_ptr<PhysicalMemory>> issuing_memories_;
  bool was_refused_ = false;
  uint64_t sequence_ = 0;
  size_t backlog_bytes_ = 0;
  std::vector<std::shared_ptr<Stream>> pumping_;  ///< with a backlog
  std::unordered_map<uint64_t, HostFunctionPlace> host_functions_;
};

}  // namespace outboard::worker
