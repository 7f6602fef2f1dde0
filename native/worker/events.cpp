// Events: recording, waiting, asking.
// SPDX-License-Identifier: Apache-2.0
#include "worker/events.hpp"

#include "worker/worker.hpp"

namespace outboard::worker {

DriverEvent::DriverEvent(std::shared_ptr<Context> owner, unsigned flags)
    : context(std::move(owner)) {
  if (context->driver.cuEventCreate(&handle, flags) != CUDA_SUCCESS) handle = nullptr;
}

DriverEvent::~DriverEvent() {
  if (handle && context->alive) context->driver.cuEventDestroy_v2(handle);
}

std::shared_ptr<Event> make_event(std::shared_ptr<Context> context, uint64_t id, unsigned flags,
                                  std::shared_ptr<DriverEvent> made) {
  auto event = std::make_shared<Event>();
  event->id = id;
  event->flags = flags;
  if (event->interprocess()) {
    // There is something to ask about from the start: another process may record it first.
    event->latest = std::make_shared<Record>();
    event->latest->context = context;
    event->latest->event = event->pinned = std::move(made);
    event->latest->issued = event->latest->interprocess = true;
  } else {
    event->spare = std::move(made);
  }
  event->context = std::move(context);
  return event;
}

std::shared_ptr<Record> next_record(Worker& worker, Event& event) {
  if (event.latest && event.latest.use_count() == 1 && event.latest->issued) {
    event.latest->issued = false;
    event.latest->capture.reset();
    return event.latest;
  }
  auto record = std::make_shared<Record>();
  record->context = event.context;
  record->interprocess = event.interprocess();
  record->event = event.pinned ? event.pinned : std::exchange(event.spare, nullptr);
  if (!record->event) {
    worker.make_current(*event.context);
    record->event = std::make_shared<DriverEvent>(event.context, event.flags);
  }
  event.latest = record;
  return record;
}

std::shared_ptr<DriverEvent> pin(Worker& worker, Event& event) {
  if (event.pinned) return event.pinned;
  event.pinned = event.latest ? event.latest->event : event.spare;
  if (!event.pinned) {
    worker.make_current(*event.context);
    event.pinned = std::make_shared<DriverEvent>(event.context, event.flags);
  }
  return event.pinned->handle ? event.pinned : nullptr;
}

CUresult execute(Worker& worker, const wire::command::EventCreate& command) {
  if (!worker.accept_create(worker.tables.events.may_insert(command.event)) || !worker.current()) {
    return CUDA_ERROR_INVALID_CONTEXT;
  }
  const auto context = worker.tables.contexts.share(worker.current()->id);
  auto made = std::make_shared<DriverEvent>(context, command.flags);
  if (!made->handle) return CUDA_ERROR_OUT_OF_MEMORY;
  worker.tables.events.insert(command.event,
                              make_event(context, command.event, command.flags, std::move(made)));
  return CUDA_SUCCESS;
}

CUresult execute(Worker& worker, const wire::command::EventDestroy& command) {
  return worker.tables.events.remove(command.event) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

namespace {

// In a capture "external" makes a node that records or waits for the event at every launch.
CUresult capture_external(Worker& worker, Stream& stream, uint64_t id, bool record) {
  const std::shared_ptr<Event> event = worker.tables.events.share(id);
  if (!event) return CUDA_ERROR_INVALID_HANDLE;
  if (!stream.capture) return CUDA_ERROR_INVALID_VALUE;
  const std::shared_ptr<DriverEvent> pinned = pin(worker, *event);
  if (!pinned) return CUDA_ERROR_OUT_OF_MEMORY;
  const CUresult result = record ? worker.driver().cuEventRecordWithFlags(
                                       pinned->handle, stream.handle, CU_EVENT_RECORD_EXTERNAL)
                                 : worker.driver().cuStreamWaitEvent(stream.handle, pinned->handle,
                                                                     CU_EVENT_WAIT_EXTERNAL);
  if (result == CUDA_SUCCESS && stream.capture->graph) {
    stream.capture->graph->holdings.events.insert_or_assign(pinned->handle,
                                                            std::pair(pinned, event));
  }
  return result;
}

}  // namespace

CUresult execute(Worker& worker, const wire::command::EventRecord& command) {
  if ((command.flags & CU_EVENT_RECORD_EXTERNAL) != 0) {
    return capture_external(worker, worker.issuing(), command.event, true);
  }
  const std::shared_ptr<Record>& record = worker.issuing_record();
  if (!record) return CUDA_ERROR_INVALID_HANDLE;
  record->issued = true;  // also where it is refused: whoever waits for it must not wait for ever
  if (!record->handle()) return CUDA_ERROR_OUT_OF_MEMORY;
  Stream& stream = worker.issuing();
  const CUresult result = worker.driver().cuEventRecord(record->handle(), stream.handle);
  record->stream = stream.weak_from_this();
  record->position = stream.position();
  record->capture = stream.capture;
  // How far the stream is, the event cannot say for sure: another process may record it again.
  if (record->interprocess && !stream.capture) worker.completion.mark(stream);
  return result;
}

CUresult execute(Worker& worker, const wire::command::StreamWaitEvent& command) {
  if ((command.flags & CU_EVENT_WAIT_EXTERNAL) != 0) {
    return capture_external(worker, worker.issuing(), command.event, false);
  }
  const std::shared_ptr<Record>& record = worker.issuing_record();
  Stream& stream = worker.issuing();
  // Never recorded, or destroyed since: there is nothing to wait for.
  if (!record) {
    return worker.tables.events.find(command.event) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
  }
  if (record->capture && !stream.capture)
    worker.completion.mark(stream);  // not possible afterwards
  const CUresult result =
      worker.driver().cuStreamWaitEvent(stream.handle, record->handle(), command.flags);
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
  return worker.driver().cuEventElapsedTime(&reply.milliseconds, start->latest->handle(),
                                            end->latest->handle());
}

}  // namespace outboard::worker
