// Markers, waiters, progress.
// SPDX-License-Identifier: Apache-2.0
#include "worker/completion.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "worker/worker.hpp"

namespace outboard::worker {

namespace {

// Whether work of other streams, which the legacy stream comes after, is not known to be done: then
// a marker on it waits for something, although it has no work of its own.
bool comes_after_others(const Stream& stream) {
  if (stream.kind != StreamKind::legacy) return false;
  const auto& all = stream.context->streams;
  const bool capturing = std::any_of(all.begin(), all.end(),
                                     [](const auto& other) { return other->capture != nullptr; });
  return !capturing && std::any_of(all.begin(), all.end(), [&](const auto& other) {
    return other->kind == StreamKind::blocking && other->green == stream.green &&
           other->completed != other->issued;
  });
}

}  // namespace

CUresult Completion::mark(Stream& stream) {
  if (!stream.dirty && !comes_after_others(stream)) {
    // Refused commands and synchronisations since the last marker are done when it is reached.
    if (!stream.markers.empty()) stream.markers.back().position = stream.position();
    return CUDA_SUCCESS;
  }
  worker_.make_current(stream);
  const uint32_t number = stream.last_marker + 1;
  const CUresult result = worker_.driver().cuStreamWriteValue32_v2(
      stream.handle, stream.words.device(Words::progress), number, CU_STREAM_WRITE_VALUE_DEFAULT);
  if (result != CUDA_SUCCESS) return worker_.checked(*stream.context, result);
  stream.last_marker = number;
  stream.operations_marked = ++stream.operations;
  stream.markers.push_back({number, stream.position(), stream.operations});
  stream.dirty = false;
  activate(stream);
  return CUDA_SUCCESS;
}

void Completion::activate(Stream& stream) {
  if (std::exchange(stream.active, true)) return;
  active_.push_back(&stream);
}

void Completion::when_done(Stream& stream, Action action) {
  Context& context = *stream.context;
  if (context.fatal != CUDA_SUCCESS) return action(context.fatal);
  if (stream.capture) return action(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  if (const CUresult result = mark(stream); result != CUDA_SUCCESS) return action(result);
  when_reached(stream, stream.last_marker, std::move(action));
}

void Completion::when_reached(Stream& stream, uint32_t marker, Action action) {
  poll(stream);
  if (reached(stream.words.load(Words::progress), marker)) return action(CUDA_SUCCESS);
  stream.waiters.push_back({marker, std::move(action)});
  ++waiters_;
}

namespace {

/// Waits for several streams; the first error is the outcome.
struct Join {
  size_t remaining = 1;
  CUresult result = CUDA_SUCCESS;
  Action action;

  void part(CUresult outcome) {
    if (result == CUDA_SUCCESS) result = outcome;
    if (--remaining == 0) action(result);
  }
};

}  // namespace

void Completion::when_done(Context& context, Action action, const GreenContext* only) {
  if (context.fatal != CUDA_SUCCESS) return action(context.fatal);
  auto join = std::make_shared<Join>();
  join->action = std::move(action);
  const auto streams = context.streams;  // an action may end a stream
  for (const auto& stream : streams) {
    if (stream->capture) continue;  // nothing of it runs
    if (only && stream->green.get() != only) continue;
    if (!stream->queue.empty()) {
      ++join->remaining;
      worker_.keep_mark(*stream, [join](CUresult result) { join->part(result); });
      continue;
    }
    poll(*stream);
    if (stream->completed == stream->issued) continue;
    ++join->remaining;
    when_done(*stream, [join](CUresult result) { join->part(result); });
  }
  join->part(CUDA_SUCCESS);
}

CUresult Completion::query(const Record& record) {
  if (!record.issued) return CUDA_ERROR_NOT_READY;
  if (!record.context->alive) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  worker_.make_current(*record.context);
  const CUresult result = worker_.driver().cuEventQuery(record.handle());
  if (result == CUDA_ERROR_NOT_READY) return result;
  if (result != CUDA_SUCCESS) return worker_.checked(*record.context, result);
  if (const auto stream = record.stream.lock(); stream && !record.capture) {
    poll(*stream);  // what was copied to the host before the record goes first
    if (record.interprocess) {
      return stream->completed < record.position ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
    }
    if (record.position > stream->completed) advance(*stream, record.position);
  }
  return result;
}

void Completion::when_recorded(std::shared_ptr<Record> record, Action action) {
  if (record->context->fatal != CUDA_SUCCESS) return action(record->context->fatal);
  const CUresult result = query(*record);
  if (result != CUDA_ERROR_NOT_READY) return action(result);
  records_.push_back({std::move(record), std::move(action)});
}

void Completion::when(std::function<bool()> condition, Action action) {
  if (condition()) return action(CUDA_SUCCESS);
  conditions_.push_back({std::move(condition), std::move(action)});
}

void Completion::advance(Stream& stream, uint64_t completed) {
  if (completed <= stream.completed || stream.gone) return;
  stream.completed = completed;
  ++moves_;
  if (stream.staging) stream.staging->complete(completed);
  if (std::exchange(stream.advanced, true)) return;
  advanced_.push_back(&stream);
}

// Takes the markers up to `up_to` that the word has reached.
void Completion::reach(Stream& stream, uint32_t word, uint32_t up_to) {
  while (!stream.markers.empty() && reached(word, stream.markers.front().number) &&
         reached(up_to, stream.markers.front().number)) {
    const Stream::Marker marker = stream.markers.front();
    stream.markers.pop_front();
    stream.operations_done = marker.operations;
    advance(stream, marker.position);
  }
}

// A waiter runs before anything later is known: what it sends comes before the progress that
// implies it.
void Completion::poll(Stream& stream) {
  const uint32_t word = stream.words.load(Words::progress);
  while (!stream.waiters.empty() && reached(word, stream.waiters.front().number)) {
    Stream::Waiter waiter = std::move(stream.waiters.front());
    stream.waiters.pop_front();
    --waiters_;
    ++moves_;
    reach(stream, word, waiter.number);
    waiter.action(CUDA_SUCCESS);
    if (stream.gone) return;
  }
  reach(stream, word, word);
  if (stream.markers.empty() && !stream.dirty) {
    stream.operations_done = stream.operations;
    advance(stream, stream.position());
  }
}

bool Completion::poll() {
  const uint64_t before = moves_;
  for (size_t i = 0; i < active_.size();) {
    const auto stream = active_[i]->shared_from_this();
    poll(*stream);
    if (i >= active_.size() || active_[i] != stream.get()) continue;  // an action ended it
    if (stream->markers.empty()) {
      stream->active = false;
      active_.erase(active_.begin() + static_cast<ptrdiff_t>(i));
    } else {
      ++i;
    }
  }
  poll_records();
  poll_conditions();
  return moves_ != before;
}

void Completion::poll_records() {
  for (size_t i = 0; i < records_.size();) {
    const CUresult result = query(*records_[i].record);
    if (i >= records_.size()) return;  // the query ended the context and answered them all
    if (result == CUDA_ERROR_NOT_READY) {
      ++i;
      continue;
    }
    const PendingRecord pending = std::move(records_[i]);
    records_.erase(records_.begin() + static_cast<ptrdiff_t>(i));
    ++moves_;
    pending.action(result);
  }
}

void Completion::poll_conditions() {
  for (size_t i = 0; i < conditions_.size();) {
    if (!conditions_[i].holds()) {
      ++i;
      continue;
    }
    const Condition condition = std::move(conditions_[i]);
    conditions_.erase(conditions_.begin() + static_cast<ptrdiff_t>(i));
    ++moves_;
    condition.action(CUDA_SUCCESS);
  }
}

void Completion::check_for_faults() {
  const auto streams = active_;
  for (Stream* stream : streams) {
    if (std::find(active_.begin(), active_.end(), stream) == active_.end()) continue;
    Context& context = *stream->context;
    // Asking about a stream that captures would end its capture, and asking about the legacy stream
    // one of a blocking stream.
    if (stream->capture) continue;
    const bool capturing = std::any_of(context.streams.begin(), context.streams.end(),
                                       [](const auto& other) { return other->capture != nullptr; });
    if (capturing && stream->kind == StreamKind::legacy) continue;
    worker_.make_current(*stream);
    worker_.checked(context, worker_.driver().cuStreamQuery(stream->handle));
  }
}

void Completion::report() {
  if (advanced_.empty()) return;
  std::vector<wire::Progress> progress;
  progress.reserve(advanced_.size());
  for (Stream* stream : advanced_) {
    stream->advanced = false;
    if (stream->completed <= stream->reported || stream->destroyed) continue;
    stream->reported = stream->completed;
    progress.push_back({stream->id, stream->completed});
  }
  advanced_.clear();
  constexpr size_t most_records = 4096;  // 64 KiB
  for (size_t i = 0; i < progress.size(); i += most_records) {
    const std::span part(progress.data() + i, std::min(most_records, progress.size() - i));
    worker_.outbox.message(wire::MessageKind::progress, 0, CUDA_SUCCESS, std::as_bytes(part));
  }
}

void Completion::fail(Context& context, CUresult result) {
  std::vector<Action> actions;
  for (const auto& stream : context.streams) {
    for (Stream::Waiter& waiter : stream->waiters) actions.push_back(std::move(waiter.action));
    waiters_ -= stream->waiters.size();
    stream->waiters.clear();
    stream->markers.clear();
    if (std::exchange(stream->active, false)) std::erase(active_, stream.get());
  }
  std::erase_if(records_, [&](PendingRecord& pending) {
    if (pending.record->context.get() != &context) return false;
    actions.push_back(std::move(pending.action));
    return true;
  });
  ++moves_;
  for (const Action& action : actions) action(result);
}

std::vector<Action> Completion::forget(Stream& stream) {
  std::vector<Action> actions;
  for (Stream::Waiter& waiter : stream.waiters) actions.push_back(std::move(waiter.action));
  waiters_ -= stream.waiters.size();
  stream.waiters.clear();
  if (std::exchange(stream.active, false)) std::erase(active_, &stream);
  if (std::exchange(stream.advanced, false)) std::erase(advanced_, &stream);
  return actions;
}

}  // namespace outboard::worker
