// The driver's linker: all inputs come in one command, the image goes back in its answer.
// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "worker/jit_options.hpp"
#include "worker/worker.hpp"

namespace outboard::worker {
namespace {

struct Input {
  CUjitInputType type;
  std::string name;
  size_t offset_bytes;
  size_t bytes;
};

struct LinkJob {
  Request request;
  std::shared_ptr<Context> context;
  JitOptions options;
  std::vector<Input> inputs;
  Bytes own_content;                           // that came with the command, or
  std::shared_ptr<const Bytes> image_content;  // before it, in pieces
  Digest hash;                                 // of that
  Bytes image;
  CUresult result = CUDA_SUCCESS;

  const Bytes& content() const { return image_content ? *image_content : own_content; }
};

// False where the lists do not fit together.
bool read_inputs(const wire::command::Link& command, LinkJob& job) {
  const size_t total = job.content().size();
  if (command.types.size() != command.sizes.size()) return false;
  std::string_view names = command.names;
  size_t offset = 0;
  for (size_t i = 0; i < command.types.size(); ++i) {
    const size_t end = names.find('\0');
    if (end == std::string_view::npos || command.types[i] >= CU_JIT_NUM_INPUT_TYPES ||
        command.sizes[i] > total - offset) {
      return false;
    }
    job.inputs.push_back({static_cast<CUjitInputType>(command.types[i]),
                          std::string(names.substr(0, end)), offset, command.sizes[i]});
    names.remove_prefix(end + 1);
    offset += command.sizes[i];
  }
  return true;
}

// On the side thread.
void link(const Driver& driver, LinkJob& job) {
  driver.cuCtxSetCurrent(job.context->handle);
  if (job.image_content && sha256(*job.image_content) != job.hash) {
    job.result = CUDA_ERROR_INVALID_IMAGE;
    return;
  }
  CUlinkState state = nullptr;
  JitOptions& options = job.options;
  job.result = driver.cuLinkCreate_v2(options.count(), options.options(), options.values(), &state);
  if (job.result != CUDA_SUCCESS) return;
  for (const Input& input : job.inputs) {
    if (job.result != CUDA_SUCCESS) break;
    // PTX is text that ends with NUL, whatever its size says.
    const auto begin = job.content().begin() + static_cast<ptrdiff_t>(input.offset_bytes);
    Bytes content(begin, begin + static_cast<ptrdiff_t>(input.bytes));
    content.push_back(std::byte{0});
    job.result = driver.cuLinkAddData_v2(state, input.type, content.data(), input.bytes,
                                         input.name.c_str(), 0, nullptr, nullptr);
  }
  void* image = nullptr;
  size_t bytes = 0;
  if (job.result == CUDA_SUCCESS) job.result = driver.cuLinkComplete(state, &image, &bytes);
  if (job.result == CUDA_SUCCESS) {
    job.image.resize(bytes);
    std::memcpy(job.image.data(), image, bytes);
  }
  driver.cuLinkDestroy(state);
}

void finish(Worker& worker, LinkJob& job) {
  --job.context->loading;
  worker.checked(*job.context, job.result);
  wire::command::Link::Reply reply;
  reply.image = job.image;
  reply.info_log = job.options.info_log();
  reply.error_log = job.options.error_log();
  worker.reply(job.request, job.result, reply);
}

}  // namespace

void execute(Worker& worker, const Request& request, const wire::command::Link& command) {
  if (!worker.current()) return worker.answer(request, CUDA_ERROR_INVALID_CONTEXT);
  auto job = std::make_shared<LinkJob>();
  job->request = request;
  job->context = worker.tables.contexts.share(worker.current()->id);
  if (!job->options.read(command.options)) {
    return worker.answer(request, CUDA_ERROR_NOT_SUPPORTED);
  }
  if (command.hashed != 0) {
    job->hash = command.hash;
    job->image_content = worker.images.find(command.hash);
    if (!job->image_content) return worker.answer(request, CUDA_ERROR_FILE_NOT_FOUND);
  } else {
    job->own_content.assign(command.content.begin(), command.content.end());
  }
  if (!read_inputs(command, *job)) return worker.answer(request, CUDA_ERROR_INVALID_VALUE);
  ++job->context->loading;
  worker.side.start([&driver = worker.driver(), job] { link(driver, *job); },
                    [&worker, job] { finish(worker, *job); });
}

}  // namespace outboard::worker
