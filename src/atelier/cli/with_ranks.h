#pragma once

#include <functional>

#include "atelier/parallel/ranks.h"

namespace atelier::cli {

/// Calls `work` as one of the ranks that the environment names, or alone. Ranks other than the
/// first show only warnings and errors, each with their number. SIGUSR1 requests a stop.
void with_ranks(const std::function<void(parallel::Ranks&)>& work);

/// For work that several processes cannot share: rank 0 does it, and the others wait.
void by_first_rank(const std::function<void()>& work);

}  // namespace atelier::cli
