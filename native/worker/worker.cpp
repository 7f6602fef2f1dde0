// Taking commands in order: what may be issued is, the rest is kept until its turn.
// SPDX-License-Identifier: Apache-2.0
#include "worker/worker.hpp"

#include <algorithm>
#include <cstring>

#include "base/log.hpp"

namespace outboard::worker {
namespace {

// The driver blocks its caller near 1024 launches on a channel; the loop must never be that caller.
constexpr uint64_t most_outstanding = 512;
// So often a stream says how far it is, although nobody asks: the limit above needs to know.
constexpr uint64_t operations_per_marker = 128;

std::vector<CUdevice> handles(const std::vector<Device>& devices) {
  std::vector<CUdevice> result;
  result.reserve(devices.size());
  for (const Device& device : devices) result.push_back(device.handle);
  return result;
}

uint64_t field_at(std::span<const std::byte> payload, size_t offset) {
  uint64_t value = 0;
  std::memcpy(&value, payload.data() + offset, sizeof value);
  return value;
}

}  // namespace

Worker::Worker(const Driver& driver, std::vector<Device> session_devices, Share& session_share,
               DeviceText* device_text, std::function<void(std::span<const std::byte>)> seal,
               int wake_fd)
    : driver_(driver),
      devices(std::move(session_devices)),
      share(session_share),
      usage(session_share),
      outbox(std::move(seal)),
      host_calls(outbox, wake_fd),
      completion(*this),
      interprocess(*this),
      memory(driver, session_share, handles(devices)),
      virtual_memory(driver, session_share, memory),
      host_memory(driver, memory),
      side(wake_fd),
      bulk(wake_fd),
      text(device_text) {}

// A worker process ends without this; one within a test leaves the driver as it was.
Worker::~Worker() {
  side.stop();
  std::vector<std::shared_ptr<Context>> contexts;
  tables.contexts.each([&](const Context& context) {
    contexts.push_back(tables.contexts.share(context.id));
    for (const auto& stream : context.streams) {
      stream->words.store(Words::release, stream->host_functions);
      if (stream->upload) bulk.release_waits(*stream->upload);
    }
  });
  for (const auto& context : contexts) end_context(*this, context);
}

bool Worker::accept_create(Insert verdict) {
  if (verdict == Insert::ok) return true;
  broken(verdict == Insert::living         ? "an object was created on a living slot"
         : verdict == Insert::beyond_bound ? "an object's index is beyond the table"
                                           : "an object's generation did not rise");
  return false;
}

void Worker::make_current(CUcontext handle) {
  if (current_handle_ == handle) return;
  if (driver_.cuCtxSetCurrent(handle) == CUDA_SUCCESS) current_handle_ = handle;
}

void Worker::make_current(const Stream& stream) {
  make_current(stream.green ? stream.green->current : stream.context->handle);
}

// ---- answers ------------------------------------------------------------------------------------

bool Worker::before_reply(const Request& request, CUresult* result) {
  Context* context = tables.contexts.at(request.context);
  if (context && *result != CUDA_SUCCESS) checked(*context, *result);
  if (request.number == 0) return false;
  completion.report();
  return true;
}

void Worker::answer(const Request& request, CUresult result) {
  if (before_reply(request, &result)) {
    outbox.message(wire::MessageKind::reply, request.number, result);
  }
}

void Worker::refused(const Request& request, wire::Op op, CUresult result) {
  was_refused_ = true;
  Context* context = issuing_ ? issuing_->context : tables.contexts.at(request.context);
  if (context) {
    checked(*context, result);
    if (context->fatal != CUDA_SUCCESS) return;  // the client knows, and the error sticks
  }
  const uint64_t id = context ? context->id : 0;
  outbox.message(wire::MessageKind::refused, static_cast<uint64_t>(op), result,
                 std::as_bytes(std::span(&id, 1)));
}

void Worker::no_bytes(uint64_t copy, CUresult result) {
  outbox.message(wire::MessageKind::copied, copy, result);
}

CUresult Worker::checked(Context& context, CUresult result) {
  if (context.fatal == CUDA_SUCCESS && kills_context(result)) fail(context, result);
  return result;
}

void Worker::send_text(Context& context, Stream* stream) {
  if (!text || !context.prints || !context.launched || !context.alive) return;
  const auto done = [](const auto& one) { return one->completed == one->issued && !one->capture; };
  make_current(context);
  // The driver hands its text out where a program synchronises; with nothing left to do that is at
  // once.
  if (std::all_of(context.streams.begin(), context.streams.end(), done)) {
    driver_.cuCtxSynchronize();
    context.launched = false;
  } else if (stream && stream->kind != StreamKind::legacy && done(stream)) {
    driver_.cuStreamSynchronize(stream->handle);
  }
  outbox.text(wire::TextTo::standard_output, text->take());
}

void Worker::fail(Context& context, CUresult result) {
  if (context.fatal != CUDA_SUCCESS) return;
  context.fatal = result;
  if (text && context.alive) {
    make_current(context);
    // Fails at once, and hands out what the kernels said until then. Of no other context, for whose
    // work it would wait.
    if (current_handle_ == context.handle) driver_.cuCtxSynchronize();
    outbox.text(wire::TextTo::standard_output, text->take());
    outbox.text(wire::TextTo::standard_error, text->take_errors());
  }
  outbox.message(wire::MessageKind::fatal, 0, result, std::as_bytes(std::span(&context.id, 1)));
  std::erase_if(host_functions_,
                [&](const auto& entry) { return entry.second.stream->context == &context; });
  host_calls.release(context);
  const auto streams = context.streams;
  for (const auto& stream : streams) {
    if (stream->upload) bulk.kill(*stream->upload);
    if (stream->download) bulk.kill(*stream->download);
    if (const auto copying = std::move(stream->copying); copying && copying->finished) {
      copying->finished(result);
    }
    for (auto& entry : context.backlog.clear(stream->queue)) {
      backlog_bytes_ -= entry.item.command.size();
      if (entry.item.mark) entry.item.mark(result);
      if (entry.item.record) entry.item.record->issued = true;
      if (entry.item.run) entry.item.run->settle();
      if (entry.item.command.empty()) continue;
      wire::CommandHeader header;
      std::memcpy(&header, entry.item.command.data(), sizeof header);
      if (header.request != 0) {
        outbox.message(wire::MessageKind::reply, header.request, result);
      }
    }
  }
  completion.fail(context, result);
}

// ---- arriving -----------------------------------------------------------------------------------

void Worker::command(const wire::CommandHeader& header, std::span<const std::byte> payload,
                     bool in_turn) {
  if (!wire::is_op(header.op)) return broken("an unknown command " + std::to_string(header.op));
  const auto op = static_cast<wire::Op>(header.op);
  const Request request{header.request, header.context, op};
  const wire::OpInfo& info = wire::op_info(op);
  if (info.stream_offset >= 0) {
    const auto offset = static_cast<size_t>(info.stream_offset);
    if (payload.size() < offset + sizeof(uint64_t)) return broken("a command is too short");
    return ordered(request, header, payload, field_at(payload, offset));
  }
  current_ = tables.contexts.at(header.context);
  if (current_) {
    if (current_->fatal != CUDA_SUCCESS && !info.works_in_dead_context) {
      return info.klass == wire::Class::async ? void() : answer(request, current_->fatal);
    }
    if (info.changes_launches && !in_turn && !current_->backlog.empty()) {
      return after_backlog(header, payload);
    }
    make_current(*current_);
  }
  if (!info.monitoring) usage.call(current_ ? current_->device : 0);
  if (!dispatch(*this, op, request, payload)) {
    broken(std::string("a malformed ") + wire::op_name(op));
  }
}

void Worker::after_backlog(const wire::CommandHeader& header, std::span<const std::byte> payload) {
  const auto context = tables.contexts.share(current_->id);
  std::vector<std::byte> kept(payload.begin(), payload.end());
  completion.when(
      [context, last = sequence_] { return context->backlog.issued(last); },
      [this, header, kept = std::move(kept)](CUresult) { command(header, kept, true); });
}

void Worker::reject_ordered(const Request& request, std::span<const std::byte> payload,
                            uint64_t stream, CUresult result) {
  if (request.op == wire::Op::CopyToDeviceBulk) {
    wire::command::CopyToDeviceBulk command;
    wire::Reader reader(payload);
    if (!command.decode(reader)) return broken("a malformed CopyToDeviceBulk");
    if (command.bytes != 0 && !bulk.announce_dropped(stream, command.copy, command.bytes)) {
      return broken("a copy's number is in use");
    }
  }
  if (request.op == wire::Op::CopyToHost) {
    wire::command::CopyToHost command;
    wire::Reader reader(payload);
    if (!command.decode(reader)) return broken("a malformed CopyToHost");
    no_bytes(command.copy, result);
  }
  if (wire::op_info(request.op).klass != wire::Class::async) return answer(request, result);
  refused(request, request.op, result);
}

void Worker::ordered(const Request& request, const wire::CommandHeader& header,
                     std::span<const std::byte> payload, uint64_t stream_id) {
  const std::shared_ptr<Stream> stream = tables.streams.share(stream_id);
  if (!stream) return reject_ordered(request, payload, stream_id, CUDA_ERROR_INVALID_HANDLE);
  Context& context = *stream->context;
  if (context.fatal != CUDA_SUCCESS) {
    return reject_ordered(request, payload, stream_id, context.fatal);
  }
  usage.call(context.device);
  Item item;
  arrive(*stream, request.op, payload, &item);
  if (!broken_.empty()) return;
  const uint64_t sequence = ++sequence_;
  if (stream->queue.empty() && may_issue(*stream, sequence, item, request.op)) {
    issue(*stream, request, payload, item);
    // What is left of a bulk copy keeps the stream's place in the order.
    if (stream->copying) {
      item.begun = true;
      keep(*stream, sequence, std::move(item));
    }
    return;
  }
  item.command.resize(sizeof header + payload.size());
  std::memcpy(item.command.data(), &header, sizeof header);
  if (!payload.empty()) {
    std::memcpy(item.command.data() + sizeof header, payload.data(), payload.size());
  }
  keep(*stream, sequence, std::move(item));
}

// What has to be settled when a command comes, whenever it is issued.
void Worker::arrive(Stream& stream, wire::Op op, std::span<const std::byte> payload, Item* item) {
  wire::Reader reader(payload);
  if (op == wire::Op::StreamWaitEvent) {
    wire::command::StreamWaitEvent command;
    if (!command.decode(reader)) return broken("a malformed StreamWaitEvent");
    if ((command.flags & CU_EVENT_WAIT_EXTERNAL) != 0) return;
    if (const Event* event = tables.events.find(command.event)) item->record = event->latest;
  } else if (op == wire::Op::EventRecord) {
    wire::command::EventRecord command;
    if (!command.decode(reader)) return broken("a malformed EventRecord");
    if ((command.flags & CU_EVENT_RECORD_EXTERNAL) != 0) return;
    if (Event* event = tables.events.find(command.event)) item->record = next_record(*this, *event);
  } else if (op == wire::Op::GraphLaunch) {
    wire::command::GraphLaunch command;
    if (!command.decode(reader)) return broken("a malformed GraphLaunch");
    item->run = begin_run(*this, command.executable);
  } else if (op == wire::Op::ArrayMap) {
    wire::command::ArrayMap command;
    if (!command.decode(reader)) return broken("a malformed ArrayMap");
    for (const wire::TileMapping& mapping : read_mappings(command.mappings)) {
      item->memories.push_back(virtual_memory.share_memory(mapping.memory));
    }
  } else if (op == wire::Op::CopyToDeviceBulk) {
    wire::command::CopyToDeviceBulk command;
    if (!command.decode(reader)) return broken("a malformed CopyToDeviceBulk");
    if (!announce_upload(*this, stream, command)) broken("a copy's number is in use");
  }
}

bool Worker::has_room(Stream& stream) {
  if (stream.operations - stream.operations_done < most_outstanding) return true;
  completion.poll(stream);
  return stream.operations - stream.operations_done < most_outstanding;
}

bool Worker::may_issue(Stream& stream, uint64_t sequence, const Item& item, wire::Op op) {
  if (!stream.context->backlog.first(stream.queue, sequence)) return false;
  if (op == wire::Op::StreamWaitEvent && item.record && !item.record->issued) return false;
  if (item.run && !item.run->may_issue()) return false;
  if (stream.capture) return true;
  if (!has_room(stream)) return false;
  const bool staged = wire::op_info(op).staged;
  if (!staged || !stream.staging || stream.staging->room(wire::max_inline_bytes)) return true;
  completion.mark(stream);
  completion.poll(stream);
  return stream.staging->room(wire::max_inline_bytes);
}

void Worker::issue(Stream& stream, const Request& request, std::span<const std::byte> payload,
                   const Item& item) {
  Context& context = *stream.context;
  // A marker on the legacy stream waits for the blocking streams and holds them up, so it must lie
  // right behind the work that it covers: before anything goes to a blocking stream.
  Stream& legacy = stream.green ? *stream.green->legacy : *context.legacy;
  if (stream.kind == StreamKind::blocking && legacy.dirty) completion.mark(legacy);
  make_current(stream);
  current_ = &context;
  issuing_ = &stream;
  issuing_record_ = item.record;
  issuing_run_ = item.run;
  issuing_memories_ = item.memories;
  was_refused_ = false;
  const bool was_dirty = stream.dirty;
  ++stream.issued;
  if (!stream.capture && !wire::op_info(request.op).uncounted) {
    stream.dirty = true;
    ++stream.operations;
    usage.working(context.device);
  }
  const bool well_formed = dispatch(*this, request.op, request, payload);
  issuing_ = nullptr;
  issuing_record_.reset();
  issuing_run_.reset();
  issuing_memories_.clear();
  if (item.run) item.run->settle();
  if (!well_formed) return broken(std::string("a malformed ") + wire::op_name(request.op));
  if (context.fatal != CUDA_SUCCESS) return;
  if (was_refused_ && !was_dirty) stream.dirty = false;
  if (!stream.dirty || stream.capture) {
    completion.poll(stream);
  } else if (stream.operations - std::max(stream.operations_marked, stream.operations_done) >=
             operations_per_marker) {
    completion.mark(stream);
  }
}

// ---- the backlog --------------------------------------------------------------------------------

void Worker::keep(Stream& stream, uint64_t sequence, Item item) {
  backlog_bytes_ += item.command.size();
  stream.context->backlog.push(stream.queue, sequence, std::move(item));
  if (!std::exchange(stream.pumping, true)) pumping_.push_back(stream.shared_from_this());
}

void Worker::keep_mark(Stream& stream, Action action) {
  Item item;
  item.mark = std::move(action);
  keep(stream, ++sequence_, std::move(item));
}

// Issues the head of a stream's backlog if it may be. True if the head is gone.
bool Worker::pump_head(Stream& stream) {
  StreamBacklog::Entry& head = stream.queue.head();
  StreamBacklog& backlog = stream.context->backlog;
  if (head.item.begun) {
    issue_pieces(stream);
    if (stream.copying || stream.queue.empty()) return false;
    backlog.pop(stream.queue);
    completion.poll(stream);
    return true;
  }
  if (head.item.mark) {
    const Action action = std::move(head.item.mark);
    backlog.pop(stream.queue);
    completion.when_done(stream, action);
    return true;
  }
  wire::CommandHeader header;
  std::memcpy(&header, head.item.command.data(), sizeof header);
  const auto op = static_cast<wire::Op>(header.op);
  if (!may_issue(stream, head.sequence, head.item, op)) return false;
  const Item item = std::move(head.item);
  const std::span<const std::byte> payload =
      std::span(item.command).subspan(sizeof header, header.payload_bytes);
  backlog_bytes_ -= item.command.size();
  issue(stream, {header.request, header.context, op}, payload, item);
  if (stream.copying) {
    // The entry stays in its place, for what is left of the copy.
    head.item = Item{};
    head.item.begun = true;
    return false;
  }
  if (!stream.queue.empty()) backlog.pop(stream.queue);
  return true;
}

bool Worker::pump(Stream& stream) {
  bool moved = false;
  while (!stream.queue.empty() && pump_head(stream)) moved = true;
  return moved;
}

bool Worker::poll() {
  bool moved = completion.poll();
  moved |= side.poll();
  moved |= host_calls.poll();
  for (size_t i = 0; i < pumping_.size();) {
    const std::shared_ptr<Stream> stream = pumping_[i];
    const uint64_t before = stream->operations;
    moved |= pump(*stream);
    moved |= stream->operations != before;
    if (i >= pumping_.size() || pumping_[i] != stream) continue;  // its context ended
    if (stream->queue.empty()) {
      stream->pumping = false;
      pumping_.erase(pumping_.begin() + static_cast<ptrdiff_t>(i));
    } else {
      ++i;
    }
  }
  return moved;
}

// ---- bulk copies --------------------------------------------------------------------------------

CUresult Worker::begin_bulk(Stream& stream, std::unique_ptr<BulkCopy> copy) {
  stream.copying = std::move(copy);
  issue_pieces(stream);
  return CUDA_SUCCESS;
}

bool Worker::room_for_piece(Stream& stream) {
  if (!has_room(stream) || !stream.copying) return false;
  if (stream.copying->to_device) return true;
  DownloadRing& ring = *stream.download;
  const auto full = [&] { return ring.issued - ring.sent.load() >= DownloadRing::slots; };
  if (!full()) return true;
  ring.wanted.store(true);
  return !full();  // one may have been sent before it could see the wish
}

// Issues pieces while there is room for them; ends the copy when all are issued or one is refused.
void Worker::issue_pieces(Stream& stream) {
  make_current(stream);
  CUresult result = CUDA_SUCCESS;
  while (result == CUDA_SUCCESS && stream.copying->issued_bytes < stream.copying->bytes) {
    // What runs in between may find the context dead, which ends the copy.
    if (!room_for_piece(stream)) return;
    BulkCopy& copy = *stream.copying;
    result = copy.to_device ? issue_upload_piece(stream, copy) : issue_download_piece(stream, copy);
    stream.dirty = true;
    if (stream.operations - stream.operations_marked >= operations_per_marker) {
      completion.mark(stream);
      if (!stream.copying) return;
    }
  }
  const std::unique_ptr<BulkCopy> done = std::move(stream.copying);
  if (result != CUDA_SUCCESS && done->to_device) bulk.discard(*stream.upload, done->id);
  if (done->finished) return done->finished(checked(*stream.context, result));
  if (result == CUDA_SUCCESS) return;
  if (!done->to_device) no_bytes(done->id, result);
  Stream* const before = std::exchange(issuing_, &stream);
  refused({}, done->to_device ? wire::Op::CopyToDeviceBulk : wire::Op::CopyToHost, result);
  issuing_ = before;
  was_refused_ = false;  // some pieces went out: the stream has work
}

CUresult Worker::issue_upload_piece(Stream& stream, BulkCopy& copy) {
  UploadRing& ring = *stream.upload;
  const uint64_t position = copy.place.begin + copy.issued_bytes;
  const uint64_t cut = UploadRing::piece_bytes - position % UploadRing::piece_bytes;
  const uint64_t bytes = std::min(copy.bytes - copy.issued_bytes, cut);
  const auto number =
      static_cast<uint32_t>(copy.place.first_piece + position / UploadRing::piece_bytes -
                            copy.place.begin / UploadRing::piece_bytes);
  CUresult result = CUDA_SUCCESS;
  if (!reached(ring.words.load(Words::upload_arrived), number)) {
    result = driver_.cuStreamWaitValue32_v2(stream.handle, ring.words.device(Words::upload_arrived),
                                            number, CU_STREAM_WAIT_VALUE_GEQ);
  }
  if (result == CUDA_SUCCESS) {
    result = driver_.cuMemcpyHtoDAsync_v2(copy.address + copy.issued_bytes,
                                          ring.buffer->host() + position % UploadRing::ring_bytes,
                                          bytes, stream.handle);
  }
  if (result == CUDA_SUCCESS) {
    result = driver_.cuStreamWriteValue32_v2(stream.handle, ring.words.device(Words::upload_done),
                                             number, CU_STREAM_WRITE_VALUE_DEFAULT);
  }
  copy.issued_bytes += bytes;
  stream.operations += 3;
  return result;
}

CUresult Worker::issue_download_piece(Stream& stream, BulkCopy& copy) {
  DownloadRing& ring = *stream.download;
  const uint64_t bytes = std::min<uint64_t>(copy.bytes - copy.issued_bytes, wire::bulk_piece_bytes);
  const uint64_t slot = ring.issued % DownloadRing::slots;
  CUresult result =
      driver_.cuMemcpyDtoHAsync_v2(ring.buffer->host() + slot * wire::bulk_piece_bytes,
                                   copy.address + copy.issued_bytes, bytes, stream.handle);
  const uint64_t number = ring.issued + 1;
  if (result == CUDA_SUCCESS) {
    result = driver_.cuStreamWriteValue32_v2(stream.handle, ring.words.device(Words::download_done),
                                             static_cast<uint32_t>(number),
                                             CU_STREAM_WRITE_VALUE_DEFAULT);
  }
  if (result == CUDA_SUCCESS) {
    ring.issued = number;
    bulk.add_piece(ring, {copy.id, copy.issued_bytes, bytes, number});
  }
  copy.issued_bytes += bytes;
  stream.operations += 2;
  return result;
}

// ---- look-ups for generated bodies --------------------------------------------------------------

namespace {

template <typename T, typename Handle, typename Member>
CUresult look_up(const ObjectTable<T>& table, uint64_t id, Handle* handle, Member member) {
  *handle = nullptr;
  if (id == 0) return CUDA_SUCCESS;
  const T* object = table.find(id);
  if (!object || !(object->*member)) return CUDA_ERROR_INVALID_HANDLE;
  *handle = object->*member;
  return CUDA_SUCCESS;
}

}  // namespace

CUresult Worker::find(uint64_t id, CUcontext* handle) const {
  return look_up(tables.contexts, id, handle, &Context::handle);
}
CUresult Worker::find(uint64_t id, CUstream* handle) const {
  if (issuing_ && issuing_->id == id) return *handle = issuing_->handle, CUDA_SUCCESS;
  return look_up(tables.streams, id, handle, &Stream::handle);
}
CUresult Worker::find(uint64_t id, CUevent* handle) const {
  *handle = nullptr;
  if (id == 0) return CUDA_SUCCESS;
  const Event* event = tables.events.find(id);
  if (!event) return CUDA_ERROR_INVALID_HANDLE;
  const auto& held = event->latest  ? event->latest->event
                     : event->spare ? event->spare
                                    : event->pinned;
  *handle = held ? held->handle : nullptr;
  return CUDA_SUCCESS;
}
CUresult Worker::find(uint64_t id, CUmodule* handle) const {
  return look_up(tables.modules, id, handle, &Module::module);
}
CUresult Worker::find(uint64_t id, CUlibrary* handle) const {
  return look_up(tables.modules, id, handle, &Module::library);
}
CUresult Worker::find(uint64_t id, CUfunction* handle) const {
  return look_up(tables.functions, id, handle, &Function::handle);
}
CUresult Worker::find(uint64_t id, CUkernel* handle) const {
  return look_up(tables.functions, id, handle, &Function::kernel);
}
std::shared_ptr<Graph> Worker::graph(uint64_t id) const {
  const auto inside = graph_names.inside(id);
  return inside ? inside : tables.graphs.share(id);
}
CUresult Worker::find(uint64_t id, CUgraph* handle) const {
  *handle = nullptr;
  if (id == 0) return CUDA_SUCCESS;
  const auto found = graph(id);
  if (!found) return CUDA_ERROR_INVALID_HANDLE;
  *handle = found->handle;
  return CUDA_SUCCESS;
}
CUresult Worker::find(uint64_t id, CUgraphExec* handle) const {
  return look_up(tables.executables, id, handle, &ExecutableGraph::handle);
}
CUresult Worker::find(uint64_t id, CUmemoryPool* handle) const {
  *handle = nullptr;
  return id == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}
CUresult Worker::find(uint64_t id, CUarray* handle) const {
  return look_up(tables.arrays, id, handle, &Array::handle);
}
CUresult Worker::find(uint64_t id, CUmipmappedArray* handle) const {
  return look_up(tables.mipmaps, id, handle, &MipmappedArray::handle);
}
CUresult Worker::find(uint64_t id, CUtexref* handle) const {
  return look_up(tables.references, id, handle, &TextureReference::texture);
}
CUresult Worker::find(uint64_t id, CUsurfref* handle) const {
  return look_up(tables.references, id, handle, &TextureReference::surface);
}
CUresult Worker::find_device(uint32_t index, CUdevice* device) const {
  if (index >= devices.size()) return CUDA_ERROR_INVALID_DEVICE;
  *device = devices[index].handle;
  return CUDA_SUCCESS;
}

// ---- usage --------------------------------------------------------------------------------------

// A stream that nobody waits for may have no marker: then the driver is asked.
uint32_t Worker::devices_at_work(bool may_ask, bool* asked) {
  uint32_t found = 0;
  tables.contexts.each([&](const Context& context) {
    const uint32_t bit = 1U << context.device;
    if (context.fatal != CUDA_SUCCESS || (usage.busy() & bit) == 0) return;
    const bool capturing = std::any_of(context.streams.begin(), context.streams.end(),
                                       [](const auto& one) { return one->capture != nullptr; });
    for (const auto& stream : context.streams) {
      if ((found & bit) != 0) return;
      if (stream->capture || stream->completed == stream->issued) continue;
      if (may_ask && stream->queue.empty() && stream->markers.empty()) {
        // Asking about the legacy stream would break a capture of a blocking one.
        if (capturing && stream->kind == StreamKind::legacy) continue;
        make_current(*stream);
        *asked = true;
        if (driver_.cuStreamQuery(stream->handle) != CUDA_ERROR_NOT_READY) continue;
      }
      found |= bit;
    }
  });
  return found;
}

bool Worker::settle(std::chrono::steady_clock::time_point quiet_since, bool may_ask) {
  if (usage.busy() == 0) return false;
  bool asked = false;
  const uint32_t busy = devices_at_work(may_ask && !waiting(), &asked);
  usage.settled(busy, asked ? std::chrono::steady_clock::now() : quiet_since);
  return usage.busy() != 0 && !waiting();
}

}  // namespace outboard::worker
