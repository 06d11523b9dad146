#pragma once

#include <new>

#include "atelier/atelier.h"
#include "atelier/backends/torch/error_message.h"
#include "atelier/core/error.h"

namespace atelier::api {

/// Calls `work`; whatever it throws becomes an atelier::Error.
template <class Work>
decltype(auto) guarded(const Work& work) {
    try {
        return work();
    } catch (const Error&) {
        throw;
    } catch (const core::Interrupted& stop) {
        throw Error(Error::Kind::interrupted, stop.what());
    } catch (const core::UsageError& error) {
        throw Error(Error::Kind::usage, error.what());
    } catch (const std::exception& error) {
        throw Error(Error::Kind::failed, backends::error_message(error));
    }
}

/// What the process needs once before anything is computed: no more threads than processors, no
/// log lines on standard error but warnings.
void prepare_process();

}  // namespace atelier::api
