// Arrays, and what becomes of them with their context.
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace outboard::shim {

struct Context;

/// The context's arrays, textures and surfaces are gone.
void forget_arrays(const Context* context);
/// Of these the textures and surfaces, and the references to such.
void forget_textures(const Context* context);
void forget_texture_references(const Context* context);

}  // namespace outboard::shim
