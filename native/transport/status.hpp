// How a transfer ended.
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace outboard::transport {

enum class Status {
  ok,
  again,   ///< nothing there now (only where the call says that it does not wait)
  closed,  ///< the other side ended, in order or by reset
  timeout,
  failed,  ///< any other errno, or bytes that TLS refuses
};

}  // namespace outboard::transport
