// The JIT linker: inputs are kept here, one trip links them.
// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "base/sha256.hpp"
#include "generated/shim_api.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/jit_options.hpp"
#include "shim/cuda/loading.hpp"

namespace outboard::shim {
namespace {

struct LinkState {
  JitOptions options;
  std::vector<uint32_t> types;
  std::vector<uint64_t> sizes;
  std::string names;
  std::vector<std::byte> content;
  std::vector<std::byte> image;
};

constinit std::mutex states_mutex;
std::set<LinkState*>& states() {
  static auto* const set = new std::set<LinkState*>;
  return *set;
}

LinkState* find_state(CUlinkState value) {
  const std::lock_guard guard(states_mutex);
  const auto found = states().find(reinterpret_cast<LinkState*>(value));
  return found != states().end() ? *found : nullptr;
}

CUresult add(LinkState* state, CUjitInputType type, const void* data, size_t bytes,
             const char* name) {
  // Options of a single input are hints for its compilation; those of the whole link apply.
  const auto* from = static_cast<const std::byte*>(data);
  state->types.push_back(static_cast<uint32_t>(type));
  state->sizes.push_back(bytes);
  state->names.append(name != nullptr ? name : "input");
  state->names.push_back('\0');
  state->content.insert(state->content.end(), from, from + bytes);
  return CUDA_SUCCESS;
}

}  // namespace

CUresult cuLinkCreate_v2(unsigned int numOptions, CUjit_option* options, void** optionValues,
                         CUlinkState* stateOut) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  if (stateOut == nullptr) return CUDA_ERROR_INVALID_VALUE;
  auto state = std::make_unique<LinkState>();
  const CUresult result = state->options.read(numOptions, options, optionValues);
  if (result != CUDA_SUCCESS) return result;
  const std::lock_guard guard(states_mutex);
  states().insert(state.get());
  *stateOut = reinterpret_cast<CUlinkState>(state.release());
  return CUDA_SUCCESS;
}

CUresult cuLinkAddData_v2(CUlinkState state, CUjitInputType type, void* data, size_t size,
                          const char* name, unsigned int numOptions, CUjit_option* options,
                          void** optionValues) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  LinkState* found = find_state(state);
  if (found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (data == nullptr || size == 0 || type < 0 || type >= CU_JIT_NUM_INPUT_TYPES) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return add(found, type, data, size, name);
}

CUresult cuLinkAddFile_v2(CUlinkState state, CUjitInputType type, const char* path,
                          unsigned int numOptions, CUjit_option* options, void** optionValues) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  LinkState* found = find_state(state);
  if (found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (path == nullptr) return CUDA_ERROR_INVALID_VALUE;
  FILE* file = std::fopen(path, "rbe");
  if (file == nullptr) return CUDA_ERROR_FILE_NOT_FOUND;
  std::vector<char> content;
  char piece[16384];
  while (const size_t count = std::fread(piece, 1, sizeof piece, file)) {
    content.insert(content.end(), piece, piece + count);
  }
  std::fclose(file);
  return add(found, type, content.data(), content.size(), path);
}

CUresult cuLinkComplete(CUlinkState state, void** cubinOut, size_t* sizeOut) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  LinkState* found = find_state(state);
  if (found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (cubinOut == nullptr) return CUDA_ERROR_INVALID_VALUE;
  wire::command::Link command;
  command.options = found->options.pairs();
  command.types = found->types;
  command.sizes = found->sizes;
  command.names = found->names;
  command.content = found->content;
  // Large inputs go as images do, in pieces.
  if (found->content.size() > wire::max_image_piece_bytes) {
    command.hashed = 1;
    command.hash = sha256(found->content);
    command.content = {};
    const CUresult sent = send_image(load_target(false), command.hash, found->content);
    if (sent != CUDA_SUCCESS) return sent;
  }
  client::Answer<wire::command::Link> answer;
  const CUresult result = call(context, command, &answer);
  found->options.write(answer.reply.info_log, answer.reply.error_log, 0);
  if (result != CUDA_SUCCESS) return result;
  found->image.assign(answer.reply.image.begin(), answer.reply.image.end());
  *cubinOut = found->image.data();
  if (sizeOut != nullptr) *sizeOut = found->image.size();
  return CUDA_SUCCESS;
}

CUresult cuLinkDestroy(CUlinkState state) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  const std::lock_guard guard(states_mutex);
  auto* found = reinterpret_cast<LinkState*>(state);
  if (states().erase(found) == 0) return CUDA_ERROR_INVALID_HANDLE;
  delete found;
  return CUDA_SUCCESS;
}

}  // namespace outboard::shim
