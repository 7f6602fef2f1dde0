// Streams: creating, ending, synchronising; values and host functions in their order.
// SPDX-License-Identifier: Apache-2.0
#include "worker/streams.hpp"

#include <algorithm>

#include "worker/graph_nodes.hpp"
#include "worker/worker.hpp"

namespace outboard::worker {

std::shared_ptr<Stream> Worker::make_stream(const std::shared_ptr<Context>& context,
                                            StreamKind kind, unsigned flags, int priority,
                                            CUresult* result,
                                            const std::shared_ptr<GreenContext>& green) {
  auto stream = std::make_shared<Stream>(context.get(), kind, green);
  auto words = context->staging.take_words();
  if (!words) {
    *result = CUDA_ERROR_OUT_OF_MEMORY;
    return nullptr;
  }
  if (kind == StreamKind::legacy) {
    stream->handle = CU_STREAM_LEGACY;
  } else {
    make_current(*stream);
    *result = driver_.cuStreamCreateWithPriority(&stream->handle, flags, priority);
    if (*result != CUDA_SUCCESS) {
      context->staging.give_words(std::move(*words));
      return nullptr;
    }
  }
  stream->words = std::move(*words);
  context->streams.push_back(stream);
  return stream;
}

void Worker::retire(const std::shared_ptr<Stream>& stream) {
  stream->destroyed = true;
  const Action drop = [this, stream](CUresult) { drop_stream(*stream); };
  if (stream->queue.empty()) {
    completion.when_done(*stream, drop);
  } else {
    keep_mark(*stream, drop);
  }
}

void Worker::drop_stream(Stream& stream) {
  if (std::exchange(stream.gone, true)) return;
  const std::shared_ptr<Stream> self = stream.shared_from_this();
  Context& context = *stream.context;
  // A call that waits for the whole context (a free, a synchronisation) may have come after the
  // stream's end was asked for, and waits for the same work.
  std::vector<Action> waiting = completion.forget(stream);
  for (auto& entry : context.backlog.clear(stream.queue)) {
    backlog_bytes_ -= entry.item.command.size();
    if (entry.item.mark) waiting.push_back(std::move(entry.item.mark));
  }
  std::erase(pumping_, self);
  // A ring into which bytes are still to come stays as it is, with its words, until the session
  // ends.
  bool words_free = true;
  if (stream.upload) {
    if (bulk.close(stream.upload)) {
      context.staging.give(stream.upload->buffer);
    } else {
      words_free = false;
    }
  }
  if (stream.download) {
    if (bulk.close(stream.download)) {
      context.staging.give(stream.download->buffer);
    } else {
      words_free = false;
    }
  }
  if (stream.staging) context.staging.give(stream.staging->buffer());
  if (words_free) context.staging.give_words(std::move(stream.words));
  if (stream.kind != StreamKind::legacy && context.alive) {
    make_current(stream);
    driver_.cuStreamDestroy_v2(stream.handle);
  }
  std::erase(context.streams, self);
  const CUresult result = context.fatal;
  for (const Action& action : waiting) action(result);
}

CUresult execute(Worker& worker, const wire::command::StreamCreate& command) {
  if (!worker.accept_create(worker.tables.streams.may_insert(command.stream)) ||
      !worker.current()) {
    return CUDA_ERROR_INVALID_CONTEXT;
  }
  const auto context = worker.tables.contexts.share(worker.current()->id);
  const StreamKind kind = (command.flags & CU_STREAM_NON_BLOCKING) != 0 ? StreamKind::independent
                                                                        : StreamKind::blocking;
  const auto green = worker.tables.greens.share(command.green);
  if (command.green != 0 && (!green || green->context != context.get())) {
    return CUDA_ERROR_INVALID_CONTEXT;
  }
  CUresult result = CUDA_SUCCESS;
  auto stream = worker.make_stream(context, kind, command.flags, command.priority, &result, green);
  if (!stream) return result;
  stream->id = command.stream;
  worker.tables.streams.insert(command.stream, std::move(stream));
  return CUDA_SUCCESS;
}

CUresult execute(Worker& worker, const wire::command::StreamDestroy& command) {
  const Stream* found = worker.tables.streams.find(command.stream);
  if (!found || found->kind == StreamKind::legacy) return CUDA_ERROR_INVALID_HANDLE;
  worker.retire(worker.tables.streams.remove(command.stream));
  return CUDA_SUCCESS;
}

void execute(Worker& worker, const Request& request,
             const wire::command::StreamSynchronize& command) {
  const std::shared_ptr<Stream> stream = worker.issuing().shared_from_this();
  worker.completion.when_done(*stream, [&worker, request, stream](CUresult result) {
    if (result == CUDA_SUCCESS) worker.send_text(*stream->context, stream.get());
    worker.answer(request, result);
  });
}

CUresult execute(Worker& worker, const wire::command::StreamQuery& command,
                 wire::command::StreamQuery::Reply&) {
  Stream* stream = worker.tables.streams.find(command.stream);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->context->fatal != CUDA_SUCCESS) return stream->context->fatal;
  if (!stream->queue.empty()) return CUDA_ERROR_NOT_READY;
  CUresult outcome = CUDA_ERROR_NOT_READY;
  const auto is_done = [&] {
    return stream->completed == stream->issued && stream->markers.empty();
  };
  if (stream->capture) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (const CUresult result = worker.completion.mark(*stream); result != CUDA_SUCCESS) {
    return result;
  }
  worker.completion.poll(*stream);
  if (is_done()) {
    outcome = CUDA_SUCCESS;
  } else {
    // Not for its answer, which the words give, but so that a fault is told.
    worker.make_current(*stream);
    const CUresult result =
        worker.checked(*stream->context, worker.driver().cuStreamQuery(stream->handle));
    if (result != CUDA_SUCCESS) return result;
    worker.completion.poll(*stream);
    if (is_done()) outcome = CUDA_SUCCESS;
  }
  return outcome;
}

CUresult execute(Worker& worker, const wire::command::StreamWaitValue& command) {
  if (command.width != 4 && command.width != 8) return CUDA_ERROR_INVALID_VALUE;
  if (!worker.memory.contains(command.address, command.width)) return CUDA_ERROR_INVALID_VALUE;
  const Driver& driver = worker.driver();
  const CUstream stream = worker.issuing().handle;
  return command.width == 4
             ? driver.cuStreamWaitValue32_v2(stream, command.address,
                                             static_cast<cuuint32_t>(command.value), command.flags)
             : driver.cuStreamWaitValue64_v2(stream, command.address, command.value, command.flags);
}

CUresult execute(Worker& worker, const wire::command::StreamWriteValue& command) {
  if (command.width != 4 && command.width != 8) return CUDA_ERROR_INVALID_VALUE;
  if (!worker.memory.contains(command.address, command.width)) return CUDA_ERROR_INVALID_VALUE;
  const Driver& driver = worker.driver();
  const CUstream stream = worker.issuing().handle;
  return command.width == 4
             ? driver.cuStreamWriteValue32_v2(stream, command.address,
                                              static_cast<cuuint32_t>(command.value), command.flags)
             : driver.cuStreamWriteValue64_v2(stream, command.address, command.value,
                                              command.flags);
}

CUresult execute(Worker& worker, const wire::command::StreamMemoryOperations& command) {
  std::vector<CUstreamBatchMemOpParams> operations(command.operations.size() /
                                                   sizeof(CUstreamBatchMemOpParams));
  if (operations.empty() ||
      command.operations.size() != operations.size() * sizeof(CUstreamBatchMemOpParams)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  std::memcpy(operations.data(), command.operations.data(), command.operations.size());
  if (!are_valid_operations(worker, operations)) return CUDA_ERROR_INVALID_VALUE;
  return worker.driver().cuStreamBatchMemOp_v2(worker.issuing().handle,
                                               static_cast<unsigned>(operations.size()),
                                               operations.data(), command.flags);
}

namespace {

// In a graph the function is a node of the driver's, whose thread waits for the client.
CUresult capture_host_function(Worker& worker, Stream& stream, uint64_t function) {
  auto object = std::make_shared<ClientObject>(worker.host_calls, stream.context, function);
  const CUresult result =
      worker.driver().cuLaunchHostFunc(stream.handle, ClientObject::run, object.get());
  if (result == CUDA_SUCCESS && stream.capture->graph) {
    stream.capture->graph->holdings.functions.push_back(std::move(object));
  }
  return result;
}

}  // namespace

// The client is told when the stream is here and all that it copied to the host before was sent.
// The stream waits on a word, so that no thread of the driver has to.
CUresult execute(Worker& worker, const wire::command::HostFunction& command) {
  const std::shared_ptr<Stream> stream = worker.issuing().shared_from_this();
  if (stream->capture) return capture_host_function(worker, *stream, command.function);
  if (worker.host_functions().contains(command.function)) {
    worker.broken("a host function's number is in use");
    return CUDA_ERROR_INVALID_VALUE;
  }
  const uint32_t number = stream->host_functions + 1;
  stream->before_command = true;
  CUresult result = worker.completion.mark(*stream);
  const uint32_t marker = stream->last_marker;
  if (result == CUDA_SUCCESS) {
    result = worker.driver().cuStreamWaitValue32_v2(
        stream->handle, stream->words.device(Words::release), number, CU_STREAM_WAIT_VALUE_GEQ);
  }
  stream->before_command = false;
  if (result != CUDA_SUCCESS) return result;
  stream->dirty = true;
  stream->host_functions = number;
  stream->operations += 1;
  worker.host_functions().emplace(command.function, Worker::HostFunctionPlace{stream, number});
  const uint64_t function = command.function;
  const Action tell = [&worker, function, stream](CUresult outcome) {
    if (outcome != CUDA_SUCCESS) return;
    const auto ring = stream->download;
    const uint64_t issued = ring ? ring->issued : 0;
    const auto all_sent = [ring, issued] {
      if (!ring || ring->sent.load(std::memory_order_acquire) >= issued) return true;
      ring->wanted.store(true);
      return false;
    };
    worker.completion.when(all_sent, [&worker, function](CUresult) {
      if (!worker.host_functions().contains(function)) return;  // its context died
      worker.outbox.message(wire::MessageKind::host_function, function, CUDA_SUCCESS);
    });
  };
  worker.completion.when_reached(*stream, marker, tell);
  return CUDA_SUCCESS;
}

CUresult execute(Worker& worker, const wire::command::HostFunctionDone& command) {
  if (worker.host_calls.done(command.function)) return CUDA_SUCCESS;
  const auto found = worker.host_functions().find(command.function);
  // One whose context died meanwhile is not there any more, and nobody waits for it.
  if (found == worker.host_functions().end()) return CUDA_SUCCESS;
  const Worker::HostFunctionPlace& place = found->second;
  place.stream->words.store(Words::release, place.number);
  worker.host_functions().erase(found);
  return CUDA_SUCCESS;
}

}  // namespace outboard::worker
