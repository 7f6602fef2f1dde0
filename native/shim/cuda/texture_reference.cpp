// Texture and surface references: variables of modules, which the server's driver binds.
// SPDX-License-Identifier: Apache-2.0
#include "generated/shim_api.hpp"
#include "shim/cuda/array.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/loading.hpp"
#include "wire/volume.hpp"

namespace outboard::shim {
namespace {

using wire::ReferenceQuery;

template <typename Handle>
CUresult of_module(Handle* out, CUmodule value, const char* name, bool surface) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Module* module = find(value);
  if (module == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr || name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  TextureReference* reference = nullptr;
  const CUresult result = get_reference(module, name, surface, &reference);
  if (result == CUDA_SUCCESS) *out = reinterpret_cast<Handle>(reference);
  return result;
}

template <typename Handle>
CUresult find_reference(Handle value, TextureReference** out) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  *out = find(value);
  return *out != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

// What the driver has of a reference.
template <typename Handle>
CUresult ask(Handle value, ReferenceQuery what,
             client::Answer<wire::command::TextureReferenceQuery>* answer) {
  TextureReference* reference = nullptr;
  if (const CUresult result = find_reference(value, &reference); result != CUDA_SUCCESS) {
    return result;
  }
  return call(reference->context,
              wire::command::TextureReferenceQuery{.reference = reference->head.id(),
                                                   .what = static_cast<uint32_t>(what)},
              answer);
}

template <typename Handle, typename Out, typename Objects>
CUresult ask_array(Handle value, ReferenceQuery what, const Objects& objects, Out* out) {
  client::Answer<wire::command::TextureReferenceQuery> answer;
  const CUresult result = ask(value, what, &answer);
  if (result != CUDA_SUCCESS) return result;
  auto* array = objects.find_id(answer.reply.value);
  if (out == nullptr || array == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = reinterpret_cast<Out>(array);
  return CUDA_SUCCESS;
}

}  // namespace

CUresult cuModuleGetTexRef(CUtexref* pTexRef, CUmodule hmod, const char* name) {
  return of_module(pTexRef, hmod, name, false);
}

CUresult cuModuleGetSurfRef(CUsurfref* pSurfRef, CUmodule hmod, const char* name) {
  return of_module(pSurfRef, hmod, name, true);
}

CUresult cuTexRefCreate(CUtexref* pTexRef) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  if (pTexRef == nullptr) return CUDA_ERROR_INVALID_VALUE;
  TextureReference* reference = texture_references.take();
  if (reference == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  client::Answer<wire::command::TextureReferenceCreate> answer;
  const CUresult result = call(
      context, wire::command::TextureReferenceCreate{.reference = reference->head.id()}, &answer);
  if (result != CUDA_SUCCESS) {
    texture_references.give(reference);
    return result;
  }
  reference->context = context;
  *pTexRef = reinterpret_cast<CUtexref>(reference);
  return CUDA_SUCCESS;
}

CUresult cuTexRefDestroy(CUtexref hTexRef) {
  TextureReference* reference = nullptr;
  if (const CUresult result = find_reference(hTexRef, &reference); result != CUDA_SUCCESS) {
    return result;
  }
  client::Answer<wire::command::TextureReferenceDestroy> answer;
  const CUresult result =
      call(reference->context,
           wire::command::TextureReferenceDestroy{.reference = reference->head.id()}, &answer);
  if (result != CUDA_SUCCESS) return result;
  if (Module* module = reference->module; module != nullptr) {
    const std::lock_guard guard(module->mutex);
    std::erase_if(module->references, [&](const auto& one) { return one.second == reference; });
  }
  texture_references.give(reference);
  return CUDA_SUCCESS;
}

CUresult cuTexRefSetAddress_v2(size_t* ByteOffset, CUtexref hTexRef, CUdeviceptr dptr,
                               size_t bytes) {
  TextureReference* reference = nullptr;
  if (const CUresult result = find_reference(hTexRef, &reference); result != CUDA_SUCCESS) {
    return result;
  }
  const int alignment =
      reference->context->device->attribute(CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT);
  // Where the texture does not begin at its memory, the program has to know.
  if (ByteOffset == nullptr && dptr % static_cast<unsigned>(alignment) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  client::Answer<wire::command::TextureReferenceBindMemory> answer;
  const CUresult result =
      call(reference->context,
           wire::command::TextureReferenceBindMemory{
               .reference = reference->head.id(), .address = dptr, .bytes = bytes},
           &answer);
  if (result == CUDA_SUCCESS && ByteOffset != nullptr) *ByteOffset = answer.reply.offset;
  return result;
}

CUresult cuTexRefSetAddress2D_v3(CUtexref hTexRef, const CUDA_ARRAY_DESCRIPTOR* desc,
                                 CUdeviceptr dptr, size_t Pitch) {
  TextureReference* reference = nullptr;
  if (const CUresult result = find_reference(hTexRef, &reference); result != CUDA_SUCCESS) {
    return result;
  }
  if (desc == nullptr || desc->Height == 0) return CUDA_ERROR_INVALID_VALUE;
  client::Answer<wire::command::TextureReferenceBindMemory> answer;
  return call(
      reference->context,
      wire::command::TextureReferenceBindMemory{.reference = reference->head.id(),
                                                .address = dptr,
                                                .width = desc->Width,
                                                .height = desc->Height,
                                                .pitch = Pitch,
                                                .format = static_cast<uint32_t>(desc->Format),
                                                .channels = desc->NumChannels},
      &answer);
}

CUresult cuTexRefGetAddress_v2(CUdeviceptr* pdptr, CUtexref hTexRef) {
  client::Answer<wire::command::TextureReferenceQuery> answer;
  const CUresult result = ask(hTexRef, ReferenceQuery::address, &answer);
  if (pdptr == nullptr) return result == CUDA_SUCCESS ? CUDA_ERROR_INVALID_VALUE : result;
  *pdptr = result == CUDA_SUCCESS ? answer.reply.value : 0;
  return result;
}

CUresult cuTexRefGetArray(CUarray* phArray, CUtexref hTexRef) {
  return ask_array(hTexRef, ReferenceQuery::array, arrays, phArray);
}

CUresult cuTexRefGetMipmappedArray(CUmipmappedArray* phMipmappedArray, CUtexref hTexRef) {
  return ask_array(hTexRef, ReferenceQuery::mipmapped_array, mipmapped_arrays, phMipmappedArray);
}

CUresult cuSurfRefGetArray(CUarray* phArray, CUsurfref hSurfRef) {
  return ask_array(hSurfRef, ReferenceQuery::surface_array, arrays, phArray);
}

CUresult cuTexRefGetFormat(CUarray_format* pFormat, int* pNumChannels, CUtexref hTexRef) {
  client::Answer<wire::command::TextureReferenceQuery> answer;
  const CUresult result = ask(hTexRef, ReferenceQuery::format, &answer);
  if (result != CUDA_SUCCESS) return result;
  if (pFormat != nullptr) *pFormat = static_cast<CUarray_format>(answer.reply.value);
  if (pNumChannels != nullptr) *pNumChannels = static_cast<int>(answer.reply.second);
  return CUDA_SUCCESS;
}

void forget_texture_references(const Context* context) {
  texture_references.for_each([context](TextureReference* reference) {
    if (reference->context == context) texture_references.give(reference);
  });
}

}  // namespace outboard::shim
