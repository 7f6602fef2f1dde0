// Events: recording, waiting, asking.
// SPDX-License-Identifier: Apache-2.0
#include "worker/events.hpp"

#include "worker/worker.hpp"

namespace outboard::worker {

Record::~Record() {
  if (handle && context->alive) context->driver.cuEventDestroy_v2(handle);
}

Event::~Event() {
  if (spare && context->alive) context->driver.cuEventDestroy_v2(spare);
}

std::shared_ptr<Record> next_record(Worker& worker, Event& event) {
  if (event.latest && event.latest.use_count() == 1 && event.latest->issued) {
    event.latest->issued = false;
    event.latest->capture.reset();
    return event.latest;
  }
  auto record = std::make_shared<Record>();
  record->context = event.context;
  record->handle = std::exchange(event.spare, nullptr);
  if (!record->handle) {
    worker.make_current(*event.context);
    worker.driver().cuEventCreate(&record->handle, event.flags);
  }
  event.latest = record;
  return record;
}

CUresult execute(Worker& worker, const wire::command::EventCreate& command) {
  if (!worker.accept_create(worker.tables.events.may_insert(command.event)) || !worker.current()) {
    return CUDA_ERROR_INVALID_CONTEXT;
  }
  if ((command.flags & CU_EVENT_INTERPROCESS) != 0) return CUDA_ERROR_NOT_SUPPORTED;
  auto event = std::make_shared<Event>();
  event->context = worker.tables.contexts.share(worker.current()->id);
  event->flags = command.flags;
  const CUresult result = worker.driver().cuEventCreate(&event->spare, command.flags);
  if (result != CUDA_SUCCESS) return result;
  worker.tables.events.insert(command.event, std::move(event));
  return CUDA_SUCCESS;
}

CUresult execute(Worker& worker, const wire::command::EventDestroy& command) {
  return worker.tables.events.remove(command.event) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult execute(Worker& worker, const wire::command::EventRecord& command) {
  const std::shared_ptr<Record>& record = worker.issuing_record();
  if (!record) return CUDA_ERROR_INVALID_HANDLE;
  record->issued = true;  // also where it is refused: whoever waits for it must not wait for ever
  if (!record->handle) return CUDA_ERROR_OUT_OF_MEMORY;
  Stream& stream = worker.issuing();
  const CUresult result =
      command.flags == 0
          ? worker.driver().cuEventRecord(record->handle, stream.handle)
          : worker.driver().cuEventRecordWithFlags(record->handle, stream.handle, command.flags);
  record->stream = stream.weak_from_this();
  record->position = stream.position();
  record->capture = stream.capture;
  return result;
}

CUresult execute(Worker& worker, const wire::command::StreamWaitEvent& command) {
  const std::shared_ptr<Record>& record = worker.issuing_record();
  Stream& stream = worker.issuing();
  // Never recorded, or destroyed since: there is nothing to wait for.
  if (!record) {
    return worker.tables.events.find(command.event) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
  }
  if (record->capture && !stream.capture)
    worker.completion.mark(stream);  // not possible afterwards
  const CUresult result =
      worker.driver().cuStreamWaitEvent(stream.handle, record->handle, command.flags);
  if (result == CUDA_SUCCESS && record->capture) {
    stream.capture = record->capture;
    stream.dirty = false;
  }
  return result;
}

void execute(Worker& worker, const Request& request,
             const wire::command::EventSynchronize& command) {
  const Event* event = worker.tables.events.find(command.event);
  if (!event) return worker.answer(request, CUDA_ERROR_INVALID_HANDLE);
  if (!event->latest) return worker.answer(request, CUDA_SUCCESS);
  const std::shared_ptr<Record> record = event->latest;
  worker.completion.when_recorded(record, [&worker, request, record](CUresult result) {
    const auto stream = record->stream.lock();
    if (result == CUDA_SUCCESS && stream && !stream->gone) {
      worker.send_text(*stream->context, stream.get());
    }
    worker.answer(request, result);
  });
}

CUresult execute(Worker& worker, const wire::command::EventQuery& command,
                 wire::command::EventQuery::Reply&) {
  const Event* event = worker.tables.events.find(command.event);
  if (!event) return CUDA_ERROR_INVALID_HANDLE;
  if (!event->latest) return CUDA_SUCCESS;
  return worker.completion.query(*event->latest);
}

CUresult execute(Worker& worker, const wire::command::EventElapsedTime& command,
                 wire::command::EventElapsedTime::Reply& reply) {
  const Event* start = worker.tables.events.find(command.start);
  const Event* end = worker.tables.events.find(command.end);
  if (!start || !end || !start->latest || !end->latest) return CUDA_ERROR_INVALID_HANDLE;
  if (!start->latest->issued || !end->latest->issued) return CUDA_ERROR_NOT_READY;
  return worker.driver().cuEventElapsedTime(&reply.milliseconds, start->latest->handle,
                                            end->latest->handle);
}

}  // namespace outboard::worker
